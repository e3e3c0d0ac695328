//! Routes a Tauri app's commands to [clawpal-sidecar], and the sidecar's notifications to the page.
//!
//! ```no_run
//! # #[tauri::command] fn app_version() {}
//! # fn with<R: tauri::Runtime>(builder: tauri::Builder<R>) -> tauri::Builder<R> {
//! builder
//!     .plugin(tauri_plugin_clawpal_sidecar::init())
//!     .invoke_handler(tauri_plugin_clawpal_sidecar::routed(tauri::generate_handler![app_version]))
//! # }
//! ```
//!
//! The page goes on as before: `invoke` of what the sidecar implements is answered by it, all else by the app's own
//! handlers, and the sidecar's notifications are Tauri events.
//!
//! [clawpal-sidecar]: ../../README.md

mod bridge;
mod calls;
mod command;
mod delivery;
mod host_keys;
mod limits;
mod lines;
mod methods;
mod process;
mod streams;
mod supervisor;
mod wire;

use std::collections::HashSet;
use std::sync::Arc;

use tauri::ipc::{Invoke, InvokeHandler};
use tauri::plugin::TauriPlugin;
use tauri::webview::PageLoadEvent;
use tauri::{AppHandle, Manager, RunEvent, Runtime, WindowEvent};

pub use bridge::STATUS_EVENT;
pub use command::{SidecarCommand, VARIABLE};
pub use delivery::ACKNOWLEDGE;
pub use host_keys::{Answer, HostKeyQuestion, ask_by_dialog};

use bridge::Bridge;
use host_keys::AskHostKey;

/// Commands after which the app's remaining handlers need to be in the same state as the sidecar.
const ALSO_TO_APP: &[&str] = &[
    "set_active_openclaw_home",
    "set_active_clawpal_data_dir",
    "ssh_connect",
    "ssh_connect_with_passphrase",
    "ssh_disconnect",
];

struct Settings<R: Runtime> {
    command: Option<SidecarCommand>,
    also_to_app: HashSet<String>,
    left_to_app: HashSet<String>,
    ask_host_key: Option<Arc<AskHostKey<R>>>,
}

/// The plugin as it is for most apps.
pub fn init<R: Runtime>() -> TauriPlugin<R> {
    Builder::new().build()
}

/// The plugin with other settings.
pub struct Builder<R: Runtime>(Settings<R>);

impl<R: Runtime> Default for Builder<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: Runtime> Builder<R> {
    pub fn new() -> Self {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        Self(Settings {
            command: None,
            also_to_app: names(ALSO_TO_APP),
            left_to_app: HashSet::new(),
            ask_host_key: Some(Arc::new(ask_by_dialog)),
        })
    }

    /// The program to start, instead of [`SidecarCommand::bundled`].
    pub fn command(mut self, command: SidecarCommand) -> Self {
        self.0.command = Some(command);
        self
    }

    /// The commands that go to the app's own handler too, after the sidecar has answered. The app's answer counts,
    /// if it has such a command. Replaces what is said by default: `set_active_openclaw_home`,
    /// `set_active_clawpal_data_dir`, `ssh_connect`, `ssh_connect_with_passphrase` and `ssh_disconnect`.
    pub fn also_to_app(mut self, commands: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.0.also_to_app = commands.into_iter().map(Into::into).collect();
        self
    }

    /// The commands that go to the app's own handlers alone, though the sidecar has them.
    pub fn leave_to_app(mut self, commands: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.0.left_to_app = commands.into_iter().map(Into::into).collect();
        self
    }

    /// Asks whether an unknown host's key is to be trusted, instead of [`ask_by_dialog`].
    pub fn ask_host_key(
        mut self,
        ask: impl Fn(&AppHandle<R>, HostKeyQuestion, Answer) + Send + Sync + 'static,
    ) -> Self {
        self.0.ask_host_key = Some(Arc::new(ask));
        self
    }

    /// Asks nobody: for a page that looks at the error, asks, and invokes `trust_ssh_host_key` itself.
    pub fn ask_nobody(mut self) -> Self {
        self.0.ask_host_key = None;
        self
    }

    pub fn build(self) -> TauriPlugin<R> {
        tauri::plugin::Builder::new("clawpal-sidecar")
            .setup(move |app, _| {
                let bridge = Bridge::new(app.clone(), self.0);
                supervisor::spawn(&bridge);
                app.manage(Sidecar(bridge));
                Ok(())
            })
            .on_page_load(|webview, payload| {
                if payload.event() == PageLoadEvent::Started {
                    webview.state::<Sidecar<R>>().0.page_loads(webview);
                }
            })
            .on_event(|app, event| {
                let bridge = &app.state::<Sidecar<R>>().0;
                match event {
                    RunEvent::WindowEvent { label, event: WindowEvent::Destroyed, .. } => bridge.page_closes(label),
                    RunEvent::Exit => bridge.close(),
                    _ => {}
                }
            })
            .build()
    }
}

/// The running sidecar, as Tauri's state: `app.state::<Sidecar<_>>()`.
pub struct Sidecar<R: Runtime>(Arc<Bridge<R>>);

impl<R: Runtime> Sidecar<R> {
    /// Ends the sidecar for good and waits for its end, 4 s at most; an updater does this before it replaces files.
    /// The end of the app does it too.
    pub fn stop(&self) {
        self.0.close();
    }
}

/// An invoke handler that gives the sidecar what it implements, and all else to `handler`.
///
/// Where the plugin is left out, everything goes to `handler`.
pub fn routed<R: Runtime>(
    handler: impl Fn(Invoke<R>) -> bool + Send + Sync + 'static,
) -> impl Fn(Invoke<R>) -> bool + Send + Sync + 'static {
    let handler: Arc<InvokeHandler<R>> = Arc::new(handler);
    move |invoke| match invoke.message.webview_ref().try_state::<Sidecar<R>>() {
        Some(sidecar) => {
            let bridge = sidecar.0.clone();
            bridge.accept(invoke, &handler)
        }
        None => handler(invoke),
    }
}
