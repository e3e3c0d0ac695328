//! Hosts whose key nobody has trusted yet, with a real sshd (`tests/remote/sshd.py` of the repository).

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tauri::test::MockRuntime;
use tauri_plugin_clawpal_sidecar::{Answer, Builder, HostKeyQuestion};

use common::{Folder, Page, WITHIN, repository, sidecar};

/// It ends when its input does.
const HOST: &str = r#"
import json, sys
from tests.remote.sshd import Sshd

with Sshd(key_types=("ed25519",)) as host:
    folder = host.home / ".openclaw" / "agents" / "main" / "sessions"
    folder.mkdir(parents=True)
    (folder / "far.jsonl").write_text('{"type":"session","id":"far"}\n{"type":"message","message":{"role":"user"}}\n')
    host.account.own(host.home / ".openclaw")
    about = {"port": host.port, "user": host.user, "key": str(host.client_key), "fingerprint": host.fingerprints["ssh-ed25519"]}
    print(json.dumps(about), flush=True)
    sys.stdin.read()
"#;

struct Host {
    process: Child,
    about: Value,
}

impl Host {
    fn start() -> Self {
        let python = sidecar().program.with_file_name("python");
        let mut process = Command::new(python)
            .args(["-c", HOST])
            .current_dir(repository())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, about: serde_json::from_str(&line).expect("an sshd that can be started") }
    }

    fn entry(&self, id: &str) -> Value {
        json!({"host": {
            "id": id, "label": "", "host": "127.0.0.1", "port": self.about["port"], "username": self.about["user"],
            "authMethod": "key", "keyPath": self.about["key"],
        }})
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

fn builder(home: &Folder) -> Builder<MockRuntime> {
    Builder::new().command(sidecar().env("HOME", &home.0))
}

/// A builder with a user who answers so, and the questions that this user was asked.
fn builder_with_user(home: &Folder, trusts: bool) -> (Builder<MockRuntime>, Arc<Mutex<Vec<HostKeyQuestion>>>) {
    let questions: Arc<Mutex<Vec<HostKeyQuestion>>> = Arc::default();
    let asked = questions.clone();
    let ask = move |_: &_, question: HostKeyQuestion, answer: Answer| {
        asked.lock().unwrap().push(question);
        answer.give(trusts);
    };
    (builder(home).ask_host_key(ask), questions)
}

#[test]
fn an_unmodified_page_reaches_a_new_host_after_one_question() {
    let (home, host) = (Folder::new("trusted"), Host::start());
    let held: Arc<Mutex<Vec<(HostKeyQuestion, Answer)>>> = Arc::default();
    let asked = held.clone();
    let (signal, is_asked) = std::sync::mpsc::channel();
    let ask = move |_: &_, question: HostKeyQuestion, answer: Answer| {
        asked.lock().unwrap().push((question, answer));
        signal.send(()).unwrap();
    };
    let connected = Arc::new(AtomicUsize::new(0));
    let counted = connected.clone();
    let page = Page::open(builder(&home).ask_host_key(ask), move |invoke| {
        assert_eq!(invoke.message.command(), "ssh_connect");
        counted.fetch_add(1, Ordering::Relaxed);
        invoke.resolver.resolve(true);
        true
    });
    page.invoke("upsert_ssh_host", host.entry("ssh:new")).unwrap();
    let here = json!({"hostId": "ssh:new"});
    let streams: Vec<_> = (0..3).map(|_| page.start("remote_analyze_sessions_stream", here.clone())).collect();
    let eager = page.start("remote_list_session_files", here.clone());
    let connects = page.start("ssh_connect", here.clone());
    is_asked.recv_timeout(WITHIN).unwrap();
    // A reply of what is asked later comes later, so all five have failed by then.
    assert_eq!(page.invoke("ssh_status", here.clone()), Ok(json!("disconnected")));
    assert!(eager.try_recv().is_err() && connects.try_recv().is_err());

    let (question, answer) = held.lock().unwrap().pop().unwrap();
    assert_eq!(question.fingerprint, host.about["fingerprint"].as_str().unwrap());
    assert_eq!((question.host.as_str(), question.host_id.as_str()), ("127.0.0.1", "ssh:new"));
    assert_eq!((json!(question.port), question.webview.as_str()), (host.about["port"].clone(), "main"));
    answer.give(true);

    for stream in streams {
        let handle = stream.recv_timeout(WITHIN).unwrap().unwrap();
        page.take(handle.as_str().unwrap());
        let events = page.events_of(handle.as_str().unwrap(), "sessions:done");
        assert_eq!(events.last().unwrap().payload["totalSessions"], 1, "{events:?}");
    }
    assert_eq!(eager.recv_timeout(WITHIN).unwrap().unwrap()[0]["agent"], "main");
    assert_eq!(connects.recv_timeout(WITHIN).unwrap(), Ok(json!(true)));
    assert_eq!(connected.load(Ordering::Relaxed), 1, "the app's own handler has connected too");
    assert!(held.lock().unwrap().is_empty(), "it was asked twice");
}

#[test]
fn a_user_who_says_no_gets_the_error_and_is_not_asked_at_once_again() {
    let (home, host) = (Folder::new("refused"), Host::start());
    let (builder, questions) = builder_with_user(&home, false);
    let page = Page::open(builder, |_| false);
    page.invoke("upsert_ssh_host", host.entry("ssh:new")).unwrap();
    for command in ["remote_analyze_sessions_stream", "remote_analyze_sessions", "ssh_connect"] {
        let error = page.invoke(command, json!({"hostId": "ssh:new"})).unwrap_err();
        assert!(error.as_str().unwrap().starts_with("host key verification failed"), "{error}");
    }
    assert_eq!(questions.lock().unwrap().len(), 1);
}

#[test]
fn other_errors_of_a_host_are_rejected_without_a_question() {
    let home = Folder::new("other errors");
    let (builder, questions) = builder_with_user(&home, true);
    let page = Page::open(builder, |_| false);
    let error = page.invoke("remote_analyze_sessions_stream", json!({"hostId": "ssh:nowhere"})).unwrap_err();
    assert!(error.as_str().unwrap().contains("no such host"), "{error}");
    assert_eq!(questions.lock().unwrap().len(), 0);
}

#[test]
fn a_page_that_asks_itself_gets_what_the_sidecar_says() {
    let (home, host) = (Folder::new("asks itself"), Host::start());
    let page = Page::open(builder(&home).ask_nobody(), |_| false);
    page.invoke("upsert_ssh_host", host.entry("ssh:new")).unwrap();
    let here = json!({"hostId": "ssh:new"});
    let handle = page.stream("remote_analyze_sessions_stream", here.clone());
    let events = page.events_of(&handle, "sessions:done");
    assert_eq!(events[0].payload["kind"], "host_key_unknown");
    let trusted = json!({"hostId": "ssh:new", "fingerprint": host.about["fingerprint"]});
    assert_eq!(page.invoke("trust_ssh_host_key", trusted), Ok(json!(true)));
    assert_eq!(page.invoke("ssh_connect", here), Ok(json!(true)));
}
