//! An app with a window but no screen, and what a page does in it: it invokes, listens, and acknowledges.

#![allow(dead_code, reason = "each file of tests uses some of it")]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tauri::ipc::{CallbackFn, Invoke, InvokeBody, InvokeError, InvokeResponse};
use tauri::test::{INVOKE_KEY, MockRuntime, mock_builder, mock_context, noop_assets};
use tauri::webview::InvokeRequest;
use tauri::{App, Listener, Manager, WebviewWindow, WebviewWindowBuilder};
use tauri_plugin_clawpal_sidecar::{ACKNOWLEDGE, Builder, STATUS_EVENT, Sidecar, SidecarCommand, VARIABLE, routed};

pub const WITHIN: Duration = Duration::from_secs(30);

/// The real sidecar, as `CLAWPAL_SIDECAR` names it.
pub fn sidecar() -> SidecarCommand {
    let text = std::env::var(VARIABLE).unwrap_or_else(|_| panic!("{VARIABLE} has to name the sidecar to test with"));
    SidecarCommand::parse(&text).unwrap_or_else(|| panic!("{VARIABLE} is empty"))
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A folder that is removed in the end.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("clawpal bridge {} {name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A transcript of an agent below `.openclaw`, with so many messages of so many bytes.
    pub fn write_session(&self, agent: &str, session: &str, messages: usize, bytes: usize) {
        let folder = self.0.join(".openclaw/agents").join(agent).join("sessions");
        fs::create_dir_all(&folder).unwrap();
        let message = json!({
            "type": "message",
            "timestamp": "2024-05-01T10:00:00.000Z",
            "message": {"role": "user", "content": "x".repeat(bytes)},
        });
        let header = json!({"type": "session", "id": session});
        let text = format!("{header}\n{}", format!("{message}\n").repeat(messages));
        fs::write(folder.join(format!("{session}.jsonl")), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: String,
    pub payload: Value,
}

impl Event {
    pub fn handle(&self) -> &str {
        self.payload["handleId"].as_str().unwrap_or_default()
    }

    pub fn seq(&self) -> u64 {
        self.payload["seq"].as_u64().unwrap()
    }
}

pub type Reply = Result<Value, Value>;

pub struct Page {
    pub app: App<MockRuntime>,
    pub window: WebviewWindow<MockRuntime>,
    events: Receiver<Event>,
    /// Handles that the page has taken. An event of any other is a failure.
    known: Arc<Mutex<HashSet<String>>>,
    too_early: Arc<Mutex<Vec<Event>>>,
}

impl Page {
    pub fn open(
        builder: Builder<MockRuntime>,
        handler: impl Fn(Invoke<MockRuntime>) -> bool + Send + Sync + 'static,
    ) -> Self {
        let app = mock_builder().invoke_handler(routed(handler)).build(mock_context(noop_assets())).unwrap();
        let (sender, events) = channel();
        let known: Arc<Mutex<HashSet<String>>> = Arc::default();
        let too_early: Arc<Mutex<Vec<Event>>> = Arc::default();
        for name in event_names() {
            let (sender, known, too_early): (Sender<Event>, _, _) = (sender.clone(), known.clone(), too_early.clone());
            app.listen_any(name.clone(), move |event| {
                let payload = serde_json::from_str(event.payload()).unwrap();
                let event = Event { name: name.clone(), payload };
                if name != STATUS_EVENT && !known.lock().unwrap().contains(event.handle()) {
                    too_early.lock().unwrap().push(event.clone());
                }
                let _ = sender.send(event);
            });
        }
        // Only now, so that no event is missed.
        app.handle().plugin(builder.build()).unwrap();
        let window = WebviewWindowBuilder::new(&app, "main", Default::default()).build().unwrap();
        Self { app, window, events, known, too_early }
    }

    /// Invokes, and doesn't wait. The reply comes out of the receiver.
    pub fn start(&self, command: &str, arguments: Value) -> Receiver<Reply> {
        let (sender, reply) = channel();
        let request = InvokeRequest {
            cmd: command.into(),
            callback: CallbackFn(0),
            error: CallbackFn(1),
            url: if cfg!(windows) { "http://tauri.localhost" } else { "tauri://localhost" }.parse().unwrap(),
            body: InvokeBody::Json(arguments),
            headers: Default::default(),
            invoke_key: INVOKE_KEY.into(),
        };
        self.window.as_ref().clone().on_message(
            request,
            Box::new(move |_, _, response, _, _| {
                let reply = match response {
                    InvokeResponse::Ok(body) => Ok(body.deserialize().unwrap()),
                    InvokeResponse::Err(InvokeError(error)) => Err(error),
                };
                let _ = sender.send(reply);
            }),
        );
        reply
    }

    pub fn invoke(&self, command: &str, arguments: Value) -> Reply {
        self.start(command, arguments).recv_timeout(WITHIN).unwrap_or_else(|_| panic!("{command} was not answered"))
    }

    /// As the script in a real page does when the page has taken a handle.
    pub fn take(&self, handle: &str) {
        self.known.lock().unwrap().insert(handle.to_owned());
        self.invoke(ACKNOWLEDGE, json!({"handle": handle})).unwrap();
    }

    /// As the script in a real page does when it has run all events so far.
    pub fn pass_fences(&self) {
        self.invoke(ACKNOWLEDGE, json!({"fence": u64::MAX})).unwrap();
    }

    /// Starts a stream and takes its handle.
    pub fn stream(&self, command: &str, arguments: Value) -> String {
        let handle = self.invoke(command, arguments).unwrap().as_str().unwrap().to_owned();
        self.take(&handle);
        handle
    }

    pub fn next_event_within(&self, time: Duration) -> Option<Event> {
        match self.events.recv_timeout(time) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the app is gone"),
        }
    }

    pub fn next_event(&self) -> Event {
        self.next_event_within(WITHIN).expect("no event came")
    }

    /// Waits for `sidecar:status` with this state; other events are passed over.
    pub fn wait_for_status(&self, state: &str) -> Event {
        self.wait_for(|event| event.name == STATUS_EVENT && event.payload["state"] == state)
    }

    pub fn wait_for(&self, is_it: impl Fn(&Event) -> bool) -> Event {
        let deadline = Instant::now() + WITHIN;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            match self.next_event_within(left) {
                Some(event) if is_it(&event) => return event,
                _ => {}
            }
        }
        panic!("the event did not come");
    }

    /// All events of a stream, up to its last one. They are numbered without a gap.
    pub fn events_of(&self, handle: &str, last: &str) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let event = self.next_event();
            if event.handle() != handle {
                continue;
            }
            assert_eq!(event.seq(), events.len() as u64, "{event:?}");
            let is_last = event.name == last;
            events.push(event);
            if is_last {
                self.pass_fences();
                return events;
            }
        }
    }

    pub fn came_too_early(&self) -> Vec<Event> {
        self.too_early.lock().unwrap().clone()
    }

    pub fn stop(&self) {
        self.app.state::<Sidecar<MockRuntime>>().stop();
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.stop();
        if !std::thread::panicking() {
            assert_eq!(self.came_too_early(), [], "events of handles that the page had not taken");
        }
    }
}

fn event_names() -> Vec<String> {
    let text = fs::read_to_string(repository().join("protocol/openrpc.json")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let names = document["x-notifications"].as_object().unwrap().keys().cloned();
    names.chain([STATUS_EVENT.to_owned()]).collect()
}
