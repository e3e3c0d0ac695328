//! Keys of hosts that nobody has trusted yet: the question, who asks it, and what became of those asked lately.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::Value;
use tauri::{AppHandle, Manager, Runtime};
use tauri_plugin_dialog::{Dialog, DialogExt, MessageDialogButtons, MessageDialogKind};

use crate::calls::Call;
use crate::limits::{MAX_HOSTS, REFUSED_S};
use crate::wire::Failure;

/// Is this the fingerprint of that host?
#[derive(Clone, Debug)]
pub struct HostKeyQuestion {
    /// The host whose command failed; `host` may be a jump host on the way to it.
    pub host_id: String,
    pub host: String,
    pub port: u64,
    pub algorithm: String,
    pub fingerprint: String,
    /// The webview that invoked the command, to show the question over its window.
    pub webview: String,
}

impl HostKeyQuestion {
    /// None if the failure is another, or the host's id isn't known.
    pub fn of(failure: &Failure, host_id: Option<&str>, webview: &str) -> Option<Self> {
        if failure.kind() != Some("host_key_unknown") {
            return None;
        }
        let text = |name: &str| failure.data.get(name)?.as_str().map(str::to_owned);
        Some(Self {
            host_id: host_id?.to_owned(),
            host: text("host")?,
            port: failure.data.get("port").and_then(Value::as_u64)?,
            algorithm: text("algorithm").unwrap_or_default(),
            fingerprint: text("fingerprint")?,
            webview: webview.to_owned(),
        })
    }

    pub fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// Takes the user's answer. Dropped without one, it is a no.
pub struct Answer(Option<Box<dyn FnOnce(bool) + Send>>);

impl Answer {
    pub(crate) fn new(take: impl FnOnce(bool) + Send + 'static) -> Self {
        Self(Some(Box::new(take)))
    }

    pub fn give(mut self, trusted: bool) {
        if let Some(take) = self.0.take() {
            take(trusted);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(take) = self.0.take() {
            take(false);
        }
    }
}

/// Asks the user, in a thread of its own or not, and may return before the answer is there.
pub type AskHostKey<R> = dyn Fn(&AppHandle<R>, HostKeyQuestion, Answer) + Send + Sync;

/// Asks by a dialog of the system.
pub fn ask_by_dialog<R: Runtime>(app: &AppHandle<R>, question: HostKeyQuestion, answer: Answer) {
    // An app that uses dialogs itself has registered the plugin.
    if app.try_state::<Dialog<R>>().is_none()
        && let Err(error) = app.plugin(tauri_plugin_dialog::init())
    {
        log::error!("no dialog can be shown: {error}");
        return;
    }
    let HostKeyQuestion { host, port, algorithm, fingerprint, .. } = &question;
    let place = if *port == 22 { host.clone() } else { question.place() };
    let text = format!(
        "{place} is not known yet.\n\nIts {algorithm} key has the fingerprint\n{fingerprint}\n\n\
         Trust it only if this is what the host itself shows."
    );
    let mut dialog = app
        .dialog()
        .message(text)
        .title("Unknown host")
        .kind(MessageDialogKind::Warning)
        .buttons(MessageDialogButtons::OkCancelCustom("Trust".into(), "Cancel".into()));
    if let Some(window) = app.get_webview_window(&question.webview) {
        dialog = dialog.parent(&window);
    }
    dialog.show(move |trusted| answer.give(trusted));
}

/// Questions that are open, by the place that each is about, and those that were answered with no.
pub struct Questions<R: Runtime> {
    open: HashMap<String, Vec<(Call<R>, Failure)>>,
    refused: HashMap<String, Instant>,
}

impl<R: Runtime> Questions<R> {
    pub fn new() -> Self {
        Self { open: HashMap::new(), refused: HashMap::new() }
    }

    /// The call waits for the answer. True if the question has to be asked for it.
    pub fn wait(&mut self, question: &HostKeyQuestion, call: Call<R>, failure: Failure) -> bool {
        let waiting = self.open.entry(question.place()).or_default();
        waiting.push((call, failure));
        waiting.len() == 1
    }

    pub fn answered(&mut self, question: &HostKeyQuestion, trusted: bool) -> Vec<(Call<R>, Failure)> {
        if !trusted {
            self.refused.retain(|_, at| at.elapsed() < REFUSED_S);
            if self.refused.len() < MAX_HOSTS {
                self.refused.insert(question.fingerprint.clone(), Instant::now());
            }
        }
        self.open.remove(&question.place()).unwrap_or_default()
    }

    pub fn was_refused(&self, question: &HostKeyQuestion) -> bool {
        self.refused.get(&question.fingerprint).is_some_and(|at| at.elapsed() < REFUSED_S)
    }
}
