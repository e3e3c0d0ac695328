//! What the protocol's recorded conversations say is what a page gets.

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tauri_plugin_clawpal_sidecar::{Builder, SidecarCommand};

use common::{Folder, Page, Reply, repository, sidecar};

#[test]
fn a_page_gets_what_the_transcripts_say() {
    let folder = Folder::new("transcripts");
    let (mut played, mut left_out) = (0, Vec::new());
    for path in transcripts() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match invokes(&path) {
            Some(invokes) => {
                play(&path, &invokes, &folder.0.join(&name));
                played += 1;
            }
            None => left_out.push(name),
        }
    }
    println!("{played} transcripts played; left out, as no page can say what they say: {left_out:?}");
    assert!(played >= 70, "only {played} of the transcripts were played");
}

fn transcripts() -> Vec<PathBuf> {
    let entries = fs::read_dir(repository().join("protocol/transcripts")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    paths.sort();
    paths
}

/// What the client says in it, as commands with arguments; None where a page can't say that.
fn invokes(path: &Path) -> Option<Vec<(String, Value)>> {
    said(path)
        .iter()
        .map(|line| {
            let request: Value = serde_json::from_str(line).ok()?;
            let method = request.get("method")?.as_str()?;
            let params = request.get("params").cloned().unwrap_or_else(|| json!({}));
            let is_for_pages = !["ping", "shutdown", "rpc.discover"].contains(&method) && method.contains('_');
            let is_a_call = request.get("id").is_some_and(Value::is_u64) && params.is_object();
            (is_for_pages && is_a_call && is_known(method)).then(|| (method.to_owned(), params))
        })
        .collect()
}

/// Methods that don't exist go to the app.
fn is_known(method: &str) -> bool {
    let text = fs::read_to_string(repository().join("protocol/openrpc.json")).unwrap();
    text.contains(&format!("\"name\": \"{method}\""))
}

/// The lines that the client sends, with what their names stand for in a replay.
fn said(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("> "));
    lines.map(filled).collect()
}

fn filled(line: &str) -> String {
    let mut text = line
        .replace("<openclaw>", "/home/user/.openclaw")
        .replace("<home>", "/home/user")
        .replace("<host-home>", "/home/user")
        .replace("<fingerprint>", &format!("SHA256:{}", "0".repeat(43)));
    for number in 1..10 {
        text = text
            .replace(&format!("<handle-{number}>"), &format!("00000000-0000-4000-8000-{number:012}"))
            .replace(&format!("<backup-{number}>"), &format!("2026-01-01_{number:06}"));
    }
    text
}

fn play(path: &Path, invokes: &[(String, Value)], ended: &Path) {
    // The same conversation without a bridge between says what has to come.
    let expected = without_bridge(path);
    let replies = expected.iter().filter(|line| line.get("id").is_some());
    let events = expected.iter().filter(|line| line.get("method").is_some());

    let peer = sidecar().arg("replay").arg(path);
    let mut command = SidecarCommand::new("sh").arg("-c").arg("\"$@\"; echo $? >\"$ENDED\"").arg("sh");
    command = command.arg(&peer.program).env("ENDED", ended);
    command = peer.args.into_iter().fold(command, SidecarCommand::arg);
    let page = Page::open(Builder::new().command(command).ask_nobody(), |_| false);

    let started: Vec<_> = invokes.iter().map(|(method, params)| page.start(method, params.clone())).collect();
    for ((reply, (method, _)), expected) in started.into_iter().zip(invokes).zip(replies) {
        let reply = reply.recv_timeout(common::WITHIN).unwrap_or_else(|_| panic!("{path:?}: {method} has no reply"));
        assert_eq!(reply, answer(expected), "{path:?}: {method}");
        if let (Ok(Value::String(handle)), true) = (&reply, method.ends_with("_stream") && method != "cancel_stream") {
            page.take(handle);
        }
    }
    for expected in events {
        let event = page.wait_for(|event| event.name != tauri_plugin_clawpal_sidecar::STATUS_EVENT);
        assert_eq!((&json!(event.name), &event.payload), (&expected["method"], &expected["params"]), "{path:?}");
    }
    page.stop();
    assert_eq!(fs::read_to_string(ended).unwrap().trim(), "0", "{path:?}: the client said something else");
}

fn answer(line: &Value) -> Reply {
    match line.get("error") {
        Some(error) => Err(error["message"].clone()),
        None => Ok(line["result"].clone()),
    }
}

fn without_bridge(path: &Path) -> Vec<Value> {
    let peer = sidecar();
    let mut child = Command::new(&peer.program)
        .args(&peer.args)
        .arg("replay")
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all((said(path).join("\n") + "\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{path:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // Replies in the order of the requests; notifications stay in theirs.
    lines.sort_by_key(|line| line.get("id").and_then(Value::as_u64).unwrap_or(u64::MAX));
    lines
}
