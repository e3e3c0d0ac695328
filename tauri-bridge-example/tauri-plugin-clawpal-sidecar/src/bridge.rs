//! The bridge: which calls go to the sidecar, and what becomes of its replies.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::mem;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Value, json};
use tauri::ipc::{Invoke, InvokeBody, InvokeHandler};
use tauri::{AppHandle, Runtime, Webview};

use crate::Settings;
use crate::calls::{Budget, Call, Outcome, PageCall, Then, arguments, duplicate};
use crate::delivery::{ACKNOWLEDGE, Acknowledgement, Delivery};
use crate::host_keys::{Answer, HostKeyQuestion, Questions};
use crate::limits::{END_S, KILLED_S, MAX_HOSTS, MAX_QUESTIONS_PER_CALL, MAX_REQUEST_BYTES};
use crate::methods::{KNOWN, Methods, NOT_FOR_PAGES, STATE};
use crate::process::Process;
use crate::wire::{Failure, Message, Payload, request};

/// Event that tells what became of the sidecar: `{state: "ready" | "restarting" | "failed", message: string | null}`.
pub const STATUS_EVENT: &str = "sidecar:status";

pub struct Bridge<R: Runtime> {
    pub app: AppHandle<R>,
    pub settings: Settings<R>,
    pub delivery: Delivery<R>,
    budget: Arc<Budget>,
    calls: Mutex<Calls<R>>,
    changed: Condvar,
}

struct Calls<R: Runtime> {
    stage: Stage,
    /// Of the last process that said so; the next one is most likely the same program.
    methods: Option<Methods>,
    /// Not sent yet: there is no process that could take it.
    waiting: VecDeque<Call<R>>,
    sent: HashMap<u64, Call<R>>,
    last_id: u64,
    process: Option<Connected>,
    /// What the next process has to be told again, by method.
    state: BTreeMap<String, Box<RawValue>>,
    /// Hosts that this process has reached, so that their keys are known.
    reached: HashSet<String>,
    questions: Questions<R>,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// A process is on its way, or will be.
    Starting,
    Ready,
    /// It couldn't be started; a call of a page makes it `Starting`.
    Failed,
    Closed,
    /// Closed, and the process has ended.
    Ended,
}

struct Connected {
    process: Arc<Process>,
    requests: SyncSender<Vec<u8>>,
}

enum Destination {
    Sidecar,
    App,
    /// Nobody knows until the sidecar has said what it implements.
    Undecided,
}

impl<R: Runtime> Bridge<R> {
    pub fn new(app: AppHandle<R>, settings: Settings<R>) -> Arc<Self> {
        let calls = Calls {
            stage: Stage::Starting,
            methods: None,
            waiting: VecDeque::new(),
            sent: HashMap::new(),
            last_id: 0,
            process: None,
            state: BTreeMap::new(),
            reached: HashSet::new(),
            questions: Questions::new(),
        };
        Arc::new(Self {
            app,
            settings,
            delivery: Delivery::new(),
            budget: Arc::default(),
            calls: Mutex::new(calls),
            changed: Condvar::new(),
        })
    }

    fn calls(&self) -> MutexGuard<'_, Calls<R>> {
        self.calls.lock().unwrap()
    }

    // From the page

    /// Takes what a page invokes, as Tauri's invoke handlers do: false if nobody has such a command.
    pub fn accept(self: &Arc<Self>, invoke: Invoke<R>, app: &Arc<InvokeHandler<R>>) -> bool {
        let command = invoke.message.command().to_owned();
        if command == ACKNOWLEDGE {
            self.acknowledge(invoke);
            return true;
        }
        match self.destination(&command) {
            Destination::App => app(invoke),
            // An app has its own commands without waiting; what it doesn't have may be a new one of the sidecar.
            Destination::Undecided if app(duplicate(&invoke)) => true,
            Destination::Undecided | Destination::Sidecar => {
                let also_app = self.settings.also_to_app.contains(&command);
                self.accept_call(&command, invoke, also_app.then(|| app.clone()));
                true
            }
        }
    }

    fn destination(&self, command: &str) -> Destination {
        if NOT_FOR_PAGES.contains(&command) || self.settings.left_to_app.contains(command) {
            return Destination::App;
        }
        match &self.calls().methods {
            Some(methods) if methods.has(command) => Destination::Sidecar,
            Some(_) => Destination::App,
            None if KNOWN.contains(&command) => Destination::Sidecar,
            None => Destination::Undecided,
        }
    }

    fn acknowledge(&self, invoke: Invoke<R>) {
        if let InvokeBody::Json(value) = invoke.message.payload()
            && let Ok(what) = serde_json::from_value::<Acknowledgement>(value.clone())
        {
            self.delivery.acknowledged(invoke.message.webview_ref().label(), what);
        }
        invoke.resolver.resolve(());
    }

    fn accept_call(self: &Arc<Self>, command: &str, invoke: Invoke<R>, app: Option<Arc<InvokeHandler<R>>>) {
        let params = match arguments(invoke.message.payload()) {
            Ok(params) => params,
            Err(failure) => return invoke.resolver.reject(failure.message),
        };
        let webview = invoke.message.webview();
        let callback = invoke.message.headers().get("Tauri-Callback");
        let page_call = PageCall {
            page: self.delivery.page(&webview),
            webview,
            callback: callback.and_then(|value| value.to_str().ok()?.parse().ok()),
            resolver: invoke.resolver.clone(),
            app: app.map(|app| (invoke, app)),
        };
        let label = page_call.page.label.clone();
        match Call::new(&label, command, &params, Then::Page(Box::new(page_call)), &self.budget) {
            Ok(call) => {
                self.note_host_change(command, &params);
                self.connect_first(call);
            }
            Err((then, failure)) => self.fail(then, failure),
        }
    }

    pub fn page_loads(self: &Arc<Self>, webview: &Webview<R>) {
        self.cancel(self.delivery.loads(webview));
    }

    pub fn page_closes(self: &Arc<Self>, label: &str) {
        self.cancel(self.delivery.closes(label));
    }

    fn cancel(self: &Arc<Self>, handles: Vec<String>) {
        for handle in handles {
            self.ask("", "cancel_stream", &json!({"handleId": handle}), |_, _| {});
        }
    }

    // Hosts

    fn note_host_change(&self, command: &str, params: &Value) {
        let host = match command {
            "ssh_disconnect" | "delete_ssh_host" => params.get("hostId"),
            "upsert_ssh_host" => params.pointer("/host/id"),
            _ => return,
        };
        if let Some(host) = host.and_then(Value::as_str) {
            self.calls().reached.remove(host);
        }
    }

    /// Sends a call, the first one to a host behind an `ssh_connect`.
    ///
    /// A stream's `sessions:error` says that a key isn't known, but not which one, and what has answered with a handle
    /// can't be asked again. So the question is settled before. Other failures are rejected here too, rather than
    /// waited for twice. Where nobody is asked, nothing needs settling.
    fn connect_first(self: &Arc<Self>, call: Call<R>) {
        let host = match &call.host {
            Some(host) if self.settings.ask_host_key.is_some() && call.method.starts_with("remote_") => host.clone(),
            _ => return self.send(call),
        };
        if self.calls().reached.contains(&host) {
            return self.send(call);
        }
        self.ask(
            &call.webview.clone(),
            "ssh_connect",
            &json!({"hostId": host}),
            move |bridge, outcome| match outcome {
                Ok(_) => bridge.send(call),
                Err(failure) => bridge.fail(call.then, failure),
            },
        );
    }

    /// The call again, with nobody to ask about it, or None: then it waits for the user's answer.
    fn asks_user(self: &Arc<Self>, call: Call<R>, failure: &Failure) -> Option<Call<R>> {
        let Some(ask) = self.settings.ask_host_key.clone() else { return Some(call) };
        let Some(question) = HostKeyQuestion::of(failure, call.host.as_deref(), &call.webview) else {
            return Some(call);
        };
        // A page that trusts a key itself has asked its user.
        if call.method == "trust_ssh_host_key"
            || call.asked.contains(&question.place())
            || call.asked.len() >= MAX_QUESTIONS_PER_CALL
        {
            return Some(call);
        }
        let mut call = call;
        {
            let mut calls = self.calls();
            if calls.questions.was_refused(&question) {
                return Some(call);
            }
            call.asked.push(question.place());
            if !calls.questions.wait(&question, call, failure.clone()) {
                return None;
            }
        }
        let bridge = self.clone();
        let asked = question.clone();
        ask(&self.app, question, Answer::new(move |trusted| bridge.answered(asked, trusted)));
        None
    }

    fn answered(self: &Arc<Self>, question: HostKeyQuestion, trusted: bool) {
        if !trusted {
            let refused = self.calls().questions.answered(&question, false);
            for (call, failure) in refused {
                self.fail(call.then, failure);
            }
            return;
        }
        let params = json!({"hostId": question.host_id, "fingerprint": question.fingerprint});
        self.ask("", "trust_ssh_host_key", &params, move |bridge, outcome| {
            let waiting = bridge.calls().questions.answered(&question, true);
            for (call, _) in waiting {
                match &outcome {
                    Ok(_) => bridge.send(call),
                    Err(failure) => bridge.fail(call.then, failure.clone()),
                }
            }
        });
    }

    // To the sidecar

    fn ask(
        self: &Arc<Self>,
        webview: &str,
        method: &str,
        params: &Value,
        then: impl FnOnce(&Arc<Self>, Outcome) + Send + 'static,
    ) {
        match Call::new(webview, method, params, Then::Bridge(Box::new(then)), &self.budget) {
            Ok(call) => self.send(call),
            Err((then, failure)) => self.fail(then, failure),
        }
    }

    fn send(self: &Arc<Self>, call: Call<R>) {
        let mut calls = self.calls();
        let refused = match calls.stage {
            Stage::Ready => calls.write(call),
            Stage::Starting => {
                calls.waiting.push_back(call);
                None
            }
            Stage::Failed => {
                calls.waiting.push_back(call);
                calls.stage = Stage::Starting;
                self.changed.notify_all();
                None
            }
            Stage::Closed | Stage::Ended => Some((call, Failure::new("the sidecar was stopped"))),
        };
        drop(calls);
        if let Some((call, failure)) = refused {
            self.fail(call.then, failure);
        }
    }

    fn fail(self: &Arc<Self>, then: Then<R>, failure: Failure) {
        match then {
            Then::Page(page_call) => page_call.resolver.reject(failure.message),
            Then::Bridge(then) => then(self, Err(failure)),
        }
    }

    // From the sidecar

    /// Takes a line of the process, or says why it is none.
    pub fn take_line(self: &Arc<Self>, line: &[u8], process: &Process) -> Result<(), String> {
        let message: Message =
            serde_json::from_slice(line).map_err(|error| format!("a line is no message: {error}"))?;
        if let Some(name) = message.method {
            let text = message.params.map_or("null", RawValue::get);
            let payload: Payload =
                serde_json::from_str(text).map_err(|error| format!("{name} is not understood: {error}"))?;
            self.delivery.notified(&name, &payload, text);
            return Ok(());
        }
        let call = {
            let mut calls = self.calls();
            // What comes late of a process that was given up is not for the calls of the next one.
            if calls.process.as_ref().is_none_or(|connected| connected.process.id != process.id) {
                return Ok(());
            }
            message.id.and_then(|id| calls.sent.remove(&id))
        };
        match (call, message.error) {
            (Some(call), None) => self.succeeded(call, message.result),
            (Some(call), Some(failure)) => {
                if let Some(call) = self.asks_user(call, &failure) {
                    self.fail(call.then, failure);
                }
            }
            // Whatever was asked would wait for ever.
            (None, Some(failure)) => return Err(format!("it did not understand a request: {}", failure.message)),
            (None, None) => return Err("it answered what was not asked".to_owned()),
        }
        Ok(())
    }

    fn succeeded(self: &Arc<Self>, call: Call<R>, result: Option<&RawValue>) {
        let mut family = None;
        {
            let mut calls = self.calls();
            if STATE.contains(&call.method.as_str()) {
                calls.state.insert(call.method.clone(), call.params);
            } else if let Some(host) = call.host {
                let reaches = call.method.starts_with("remote_") && !call.method.ends_with("_stream");
                if reaches || call.method.starts_with("ssh_connect") {
                    if calls.reached.len() >= MAX_HOSTS {
                        calls.reached.clear();
                    }
                    calls.reached.insert(host);
                }
            }
            if let Some(methods) = &calls.methods {
                family = methods.stream(&call.method);
            }
        }
        let page_call = match call.then {
            Then::Bridge(then) => return then(self, Ok(result)),
            Then::Page(page_call) => page_call,
        };
        let handle = result.and_then(|result| serde_json::from_str::<String>(result.get()).ok());
        let (Some(handle), Some(family)) = (handle, family) else {
            return page_call.resolve(&self.app, result);
        };
        if !self.delivery.opened(&handle, family, page_call.page.clone()) {
            return self.cancel(vec![handle]);
        }
        let script = Delivery::<R>::taken_script(&handle, page_call.callback);
        let webview = page_call.webview.clone();
        page_call.resolve(&self.app, result);
        if let Err(error) = webview.eval(script) {
            log::warn!("the webview {} is gone: {error}", webview.label());
        }
    }

    // The life of a process

    /// A process has started: it is asked what it implements. False if none is wanted any more.
    pub fn began(
        self: &Arc<Self>,
        process: Arc<Process>,
        requests: SyncSender<Vec<u8>>,
        is_ready: impl FnOnce() + Send + 'static,
    ) -> bool {
        let then = move |bridge: &Arc<Self>, outcome: Outcome| match bridge.understood(outcome) {
            Ok(()) => is_ready(),
            Err(problem) => {
                log::error!("the sidecar does not say what it implements: {problem}");
                bridge.kill();
            }
        };
        let call = Call::new("", "rpc.discover", &json!({}), Then::Bridge(Box::new(then)), &self.budget);
        let mut calls = self.calls();
        if calls.stage != Stage::Starting {
            return false;
        }
        calls.process = Some(Connected { process, requests });
        let refused = match call {
            Ok(call) => calls.write(call).map(|(call, failure)| (call.then, failure)),
            Err(refused) => Some(refused),
        };
        drop(calls);
        if let Some((then, failure)) = refused {
            self.fail(then, failure);
        }
        true
    }

    fn understood(self: &Arc<Self>, outcome: Outcome) -> Result<(), String> {
        let document = outcome.map_err(|failure| failure.message)?.ok_or("it answers nothing")?;
        let methods = Methods::read(document).map_err(|error| error.to_string())?;
        let mut refused = Vec::new();
        {
            let mut calls = self.calls();
            if calls.stage != Stage::Starting {
                return Ok(());
            }
            for (method, params) in calls.state.clone() {
                let params: Value = serde_json::from_str(params.get()).expect("it was sent before");
                let log_failure = |_: &Arc<Self>, outcome: Outcome| {
                    if let Err(failure) = outcome {
                        log::error!("the new sidecar did not take over what was set: {}", failure.message);
                    }
                };
                match Call::new("", &method, &params, Then::Bridge(Box::new(log_failure)), &self.budget) {
                    Ok(call) => refused.extend(calls.write(call).map(|(call, failure)| (call.then, failure))),
                    Err(then) => refused.push(then),
                }
            }
            for call in mem::take(&mut calls.waiting) {
                if methods.has(&call.method) {
                    refused.extend(calls.write(call).map(|(call, failure)| (call.then, failure)));
                } else {
                    let failure = Failure::new(format!("Command {} not found", call.method));
                    refused.push((call.then, failure));
                }
            }
            calls.methods = Some(methods);
            calls.stage = Stage::Ready;
        }
        for (then, failure) in refused {
            self.fail(then, failure);
        }
        self.tell_status("ready", None);
        Ok(())
    }

    /// The process has ended, and nothing more will be read of it.
    pub fn ended(self: &Arc<Self>, reason: &str) {
        let sent: Vec<Call<R>> = {
            let mut calls = self.calls();
            calls.process = None;
            calls.reached.clear();
            if calls.stage == Stage::Ready {
                calls.stage = Stage::Starting;
            }
            calls.sent.drain().map(|(_, call)| call).collect()
        };
        let failure = Failure::new(format!("the sidecar has ended ({reason})"));
        self.delivery.broken_off(&failure.message);
        for call in sent {
            self.fail(call.then, failure.clone());
        }
    }

    /// Waits before the next start. False if none is wanted any more.
    pub fn back_off(&self, reason: &str, duration: Duration) -> bool {
        self.tell_status("restarting", Some(reason));
        let until = Instant::now() + duration;
        let mut calls = self.calls();
        while !calls.is_closed() {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return true };
            calls = self.changed.wait_timeout(calls, left).unwrap().0;
        }
        false
    }

    /// Starts nothing more until a page asks. False if none is wanted any more.
    pub fn give_up(self: &Arc<Self>, reason: &str) -> bool {
        log::error!("the sidecar does not run: {reason}");
        let waiting = {
            let mut calls = self.calls();
            if calls.is_closed() {
                return false;
            }
            calls.stage = Stage::Failed;
            mem::take(&mut calls.waiting)
        };
        self.tell_status("failed", Some(reason));
        let failure = Failure::new(format!("the sidecar does not run: {reason}"));
        for call in waiting {
            self.fail(call.then, failure.clone());
        }
        let calls = self.calls();
        let calls = self.changed.wait_while(calls, |calls| calls.stage == Stage::Failed).unwrap();
        !calls.is_closed()
    }

    fn tell_status(&self, state: &str, message: Option<&str>) {
        self.delivery.tell(STATUS_EVENT, &json!({"state": state, "message": message}));
    }

    pub fn is_closed(&self) -> bool {
        self.calls().is_closed()
    }

    fn kill(&self) {
        if let Some(connected) = &self.calls().process {
            connected.process.kill();
        }
    }

    /// No process will be started any more.
    pub fn is_over(&self) {
        self.calls().stage = Stage::Ended;
        self.changed.notify_all();
    }

    /// Ends the process, and waits until it has ended.
    ///
    /// One that has nothing to do ends when its input does. Otherwise it is told to, so that it doesn't finish first.
    pub fn close(&self) {
        let mut calls = self.calls();
        if calls.stage == Stage::Ended {
            return;
        }
        calls.stage = Stage::Closed;
        let is_busy = !calls.sent.is_empty() || self.delivery.has_streams();
        let shutdown = request(calls.last_id + 1, "shutdown", &json!({}));
        // With the sender its input ends.
        let process = calls.process.take().map(|connected| {
            if is_busy {
                // Where it doesn't read, it is killed below.
                let _ = connected.requests.try_send(shutdown);
            }
            connected.process
        });
        drop(calls);
        self.changed.notify_all();
        self.delivery.close();
        if !self.wait_for_end(END_S)
            && let Some(process) = process
        {
            log::warn!("the sidecar does not end, and is killed");
            process.kill();
            self.wait_for_end(KILLED_S);
        }
    }

    fn wait_for_end(&self, duration: Duration) -> bool {
        let calls = self.calls();
        let is_open = |calls: &mut Calls<R>| calls.stage != Stage::Ended;
        !self.changed.wait_timeout_while(calls, duration, is_open).unwrap().1.timed_out()
    }
}

impl<R: Runtime> Calls<R> {
    fn is_closed(&self) -> bool {
        matches!(self.stage, Stage::Closed | Stage::Ended)
    }

    /// Sends a call to the process, or gives it back with the reason.
    fn write(&mut self, call: Call<R>) -> Option<(Call<R>, Failure)> {
        let Some(connected) = &self.process else {
            return Some((call, Failure::new("the sidecar has ended")));
        };
        self.last_id += 1;
        let line = request(self.last_id, &call.method, &call.params);
        if line.len() > MAX_REQUEST_BYTES {
            return Some((call, Failure::new("the arguments are larger than what the sidecar takes")));
        }
        match connected.requests.try_send(line) {
            Err(TrySendError::Full(_)) => Some((call, Failure::new("too many calls wait for the sidecar"))),
            // A process that has just ended takes its calls with it, in `ended`.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {
                self.sent.insert(self.last_id, call);
                None
            }
        }
    }
}
