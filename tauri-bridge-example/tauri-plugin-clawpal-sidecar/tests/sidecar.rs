//! The bridge with the real sidecar.

mod common;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tauri::ipc::Invoke;
use tauri::test::MockRuntime;
use tauri_plugin_clawpal_sidecar::{Builder, STATUS_EVENT, SidecarCommand};

use common::{Folder, Page, WITHIN, sidecar};

const MIB: usize = 1024 * 1024;

fn builder(home: &Folder) -> Builder<MockRuntime> {
    let command = sidecar().env("HOME", &home.0).env("OPENCLAW_HOME", "").env("OPENCLAW_STATE_DIR", "");
    Builder::new().command(command)
}

fn page(home: &Folder) -> Page {
    Page::open(builder(home), |_| false)
}

/// A handler of the app's own that answers some commands with its own name, and counts its calls.
fn app_with(
    commands: &'static [&'static str],
) -> (impl Fn(Invoke<MockRuntime>) -> bool + Send + Sync, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let handler = move |invoke: Invoke<MockRuntime>| {
        if !commands.contains(&invoke.message.command()) {
            return false;
        }
        counted.fetch_add(1, Ordering::Relaxed);
        invoke.resolver.resolve("the app");
        true
    };
    (handler, calls)
}

fn pid(page: &Page) -> i32 {
    page.invoke("get_sidecar_info", json!({})).unwrap()["pid"].as_i64().unwrap() as i32
}

fn open_handles(page: &Page) -> u64 {
    page.invoke("get_sidecar_info", json!({})).unwrap()["openHandles"].as_u64().unwrap()
}

#[test]
fn a_stream_that_is_done_before_its_reply_is_taken_loses_no_event_a_thousand_times() {
    let home = Folder::new("thousand");
    home.write_session("main", "one", 3, 10);
    home.write_session("side", "two", 1, 10);
    let page = page(&home);
    for _ in 0..1000 {
        let handle = page.invoke("analyze_sessions_stream", json!({})).unwrap();
        let handle = handle.as_str().unwrap();
        while open_handles(&page) > 0 {}
        // Whatever the sidecar has sent by now is here, and none of it got through.
        assert_eq!(page.came_too_early(), []);
        page.take(handle);
        let events = page.events_of(handle, "sessions:done");
        let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(names, ["sessions:chunk", "sessions:chunk", "sessions:done"]);
        assert_eq!(events[2].payload["totalSessions"], 2);
    }
}

#[test]
fn commands_of_the_app_do_not_wait_for_the_sidecar_and_its_own_do() {
    let home = Folder::new("routes");
    let (handler, calls) = app_with(&["app_version", "ping", "list_backups", "analyze_sessions"]);
    let page = Page::open(builder(&home).leave_to_app(["list_backups"]), handler);
    let early = page.start("analyze_sessions", json!({}));
    assert_eq!(page.start("app_version", json!({})).try_recv(), Ok(Ok(json!("the app"))));
    assert!(early.try_recv().is_err(), "the sidecar can't have answered yet");
    assert_eq!(early.recv_timeout(WITHIN).unwrap(), Ok(json!([])));

    assert_eq!(page.invoke("app_version", json!({})), Ok(json!("the app")));
    assert_eq!(page.invoke("ping", json!({})), Ok(json!("the app")));
    assert_eq!(page.invoke("list_backups", json!({})), Ok(json!("the app")));
    assert_eq!(page.invoke("shutdown", json!({})), Err(json!("Command shutdown not found")));
    assert_eq!(page.invoke("no_such_command", json!({})), Err(json!("Command no_such_command not found")));
    assert_eq!(calls.load(Ordering::Relaxed), 4);
}

#[test]
fn a_command_that_nobody_has_waits_for_the_sidecar_to_say_so() {
    let home = Folder::new("nobody");
    let page = page(&home);
    assert_eq!(page.invoke("no_such_command", json!({})), Err(json!("Command no_such_command not found")));
}

#[test]
fn what_both_have_to_know_goes_to_both_and_the_app_answers() {
    let home = Folder::new("both");
    home.write_session("main", "one", 1, 10);
    let (handler, calls) = app_with(&["set_active_openclaw_home"]);
    let page = Page::open(builder(&home), handler);
    let elsewhere = home.0.join("elsewhere");
    let set = page.invoke("set_active_openclaw_home", json!({"path": elsewhere}));
    assert_eq!((set, calls.load(Ordering::Relaxed)), (Ok(json!("the app")), 1));
    assert_eq!(page.invoke("analyze_sessions", json!({})), Ok(json!([])));
    // Of the other the app has no handler.
    assert_eq!(page.invoke("set_active_clawpal_data_dir", json!({"path": null})), Ok(json!(true)));
    // Where the sidecar refuses, the app isn't asked.
    assert!(page.invoke("set_active_openclaw_home", json!({"path": 1})).is_err());
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[test]
fn an_error_is_rejected_as_a_bare_string() {
    let home = Folder::new("errors");
    let page = page(&home);
    let error = page.invoke("preview_session", json!({"agentId": "main", "sessionId": "nowhere"})).unwrap_err();
    assert!(error.as_str().is_some_and(|text| text.contains("nowhere")), "{error}");
    let too_large = page.invoke("upsert_ssh_host", json!({"host": {"label": "x".repeat(16 * MIB)}}));
    assert_eq!(too_large, Err(json!("the arguments are larger than what the sidecar takes")));
}

#[test]
fn a_page_that_does_not_run_its_events_stops_the_sidecar_and_not_its_own_memory() {
    let home = Folder::new("slow");
    home.write_session("main", "long", 400, 256 * 1024);
    let page = page(&home);
    let handle = page.stream("preview_session_stream", json!({"agentId": "main", "sessionId": "long"}));
    let (mut emitted, mut rounds, mut events) = (0, 0, 0);
    'stream: loop {
        // The page runs its events only when no more come.
        while let Some(event) = page.next_event_within(Duration::from_millis(500)) {
            if event.handle() != handle {
                continue;
            }
            assert_eq!(event.seq(), events);
            events += 1;
            emitted += event.payload.to_string().len();
            assert!(emitted <= 9 * MIB, "{emitted} bytes were emitted to a page that has run none of them");
            if event.name == "session-preview:done" {
                assert_eq!(event.payload["totalMessages"], 400);
                break 'stream;
            }
        }
        assert!(emitted >= 8 * MIB, "only {emitted} bytes were emitted");
        (emitted, rounds) = (0, rounds + 1);
        page.pass_fences();
    }
    assert!(rounds >= 10, "100 MiB came in {rounds} rounds");
}

#[test]
fn a_handle_that_is_never_taken_holds_the_sidecar_back_too() {
    let home = Folder::new("untaken");
    home.write_session("main", "long", 200, 256 * 1024);
    let page = page(&home);
    let arguments = json!({"agentId": "main", "sessionId": "long"});
    let handle = page.invoke("preview_session_stream", arguments).unwrap();
    // Of 50 MiB 8 are read, and no reply that comes behind those.
    let late = loop {
        let late = page.start("list_session_files", json!({}));
        if late.recv_timeout(Duration::from_secs(1)).is_err() {
            break late;
        }
    };
    page.take(handle.as_str().unwrap());
    let mut next = 0;
    loop {
        let event = page.next_event();
        if event.handle() != handle {
            continue;
        }
        assert_eq!(event.seq(), next);
        next += 1;
        page.pass_fences();
        if event.name == "session-preview:done" {
            break;
        }
    }
    assert!(late.recv_timeout(WITHIN).unwrap().is_ok());
}

#[test]
fn a_killed_sidecar_ends_its_streams_and_its_calls_and_another_takes_over() {
    let home = Folder::new("killed");
    let other = Folder::new("killed elsewhere");
    other.write_session("main", "long", 200, 256 * 1024);
    let page = page(&home);
    page.wait_for_status("ready");
    assert_eq!(page.invoke("set_active_openclaw_home", json!({"path": other.0})), Ok(json!(true)));
    let old = pid(&page);
    let preview = page.stream("preview_session_stream", json!({"agentId": "main", "sessionId": "long"}));
    // Its notices are not taken, and are there in the end all the same.
    let untaken = page.invoke("verify_backup_stream", json!({"backupName": "none"})).unwrap();
    let untaken = untaken.as_str().unwrap();
    let first = page.wait_for(|event| event.handle() == preview);
    assert_eq!((first.name.as_str(), first.seq()), ("session-preview:page", 0));

    // The page doesn't run its events, so that the sidecar can't be done, and what it answers can't be read.
    let waits = page.start("list_session_files", json!({}));
    // SAFETY: it is the process that the bridge has started.
    unsafe { libc::kill(old, libc::SIGKILL) };
    let error = waits.recv_timeout(WITHIN).unwrap().unwrap_err();
    assert!(error.as_str().unwrap().starts_with("the sidecar has ended (signal: 9"), "{error}");

    page.pass_fences();
    let mut next = 1;
    let failure = loop {
        let event = page.next_event();
        page.pass_fences();
        if event.handle() == preview {
            assert_eq!(event.seq(), next);
            next += 1;
            if event.name == "sessions:error" {
                break event;
            }
        }
    };
    assert_eq!((&failure.payload["error"], &failure.payload["kind"]), (&error, &json!("internal")));
    let done = page.wait_for(|event| event.handle() == preview);
    assert_eq!((done.name.as_str(), done.seq()), ("session-preview:done", next));
    page.take(untaken);
    let ends = page.wait_for(|event| event.handle() == untaken);
    assert_eq!((ends.name.as_str(), ends.seq()), ("verify:error", 0));

    let info = page.invoke("get_sidecar_info", json!({})).unwrap();
    assert_ne!(info["pid"], old);
    let files = page.invoke("list_session_files", json!({})).unwrap();
    assert_eq!(files.as_array().unwrap().len(), 1, "the new process was told of the other home");
    assert_eq!(page.invoke("cancel_stream", json!({"handleId": preview})), Ok(json!(false)));
}

#[test]
fn the_app_is_told_what_becomes_of_the_sidecar() {
    let home = Folder::new("status");
    let page = page(&home);
    let status = |state: &str, message: Value| json!({"state": state, "message": message});
    assert_eq!(page.next_event().payload, status("ready", Value::Null));
    // SAFETY: as above.
    unsafe { libc::kill(pid(&page), libc::SIGKILL) };
    assert_eq!(page.next_event().payload, status("restarting", json!("signal: 9 (SIGKILL)")));
    assert_eq!(page.next_event().payload, status("ready", Value::Null));
}

#[test]
fn a_program_that_is_not_there_is_told_of_and_is_tried_again_when_a_page_asks() {
    let home = Folder::new("absent");
    let program = home.0.join("the sidecar");
    let (handler, _) = app_with(&["app_version"]);
    let page = Page::open(builder(&home).command(SidecarCommand::new(&program)), handler);
    let early = page.start("list_ssh_hosts", json!({}));
    assert_eq!(page.invoke("app_version", json!({})), Ok(json!("the app")));
    let error = early.recv_timeout(WITHIN).unwrap().unwrap_err();
    assert!(error.as_str().unwrap().contains("the sidecar can't be started"), "{error}");
    page.wait_for_status("failed");
    assert!(page.invoke("list_ssh_hosts", json!({})).is_err());

    let real = sidecar();
    fs::write(&program, format!("#!/bin/sh\nexec '{}' \"$@\"\n", real.program.display())).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(page.invoke("list_ssh_hosts", json!({})), Ok(json!([])));
}

#[test]
fn a_program_that_says_something_else_is_ended() {
    for (text, problem) in [
        ("echo hello", "a line is no message"),
        ("read line; echo '{\"id\":1,\"result\":{}}'", "signal: 9"),
        ("read line; echo '{\"id\":2,\"result\":{}}'", "it answered what was not asked"),
        ("exit 3", "exit status: 3"),
    ] {
        let home = Folder::new("other");
        let command = SidecarCommand::new("/bin/sh").arg("-c").arg(format!("{text}; sleep 60"));
        let page = Page::open(builder(&home).command(command), |_| false);
        let status = page.wait_for(|event| event.name == STATUS_EVENT);
        assert_eq!(status.payload["state"], "restarting");
        let message = status.payload["message"].as_str().unwrap();
        assert!(message.starts_with(problem), "{message}");
    }
}

#[test]
fn a_stopped_bridge_leaves_no_process_and_takes_no_calls() {
    let home = Folder::new("stopped");
    home.write_session("main", "long", 200, 256 * 1024);
    let page = page(&home);
    let process = pid(&page);
    // One that has plenty to do, and that nobody reads.
    page.stream("preview_session_stream", json!({"agentId": "main", "sessionId": "long"}));
    let since = Instant::now();
    page.stop();
    assert!(since.elapsed() < Duration::from_secs(3), "it was killed after {:?}", since.elapsed());
    // SAFETY: it sends nothing.
    assert_eq!(unsafe { libc::kill(process, 0) }, -1, "the process is gone");
    assert_eq!(page.invoke("list_ssh_hosts", json!({})), Err(json!("the sidecar was stopped")));
}
