//! What the sidecar implements, as it says itself when it is asked (`rpc.discover`).

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::streams::Family;

/// Commands that every sidecar of protocol 1 has.
///
/// Until the sidecar has said what it implements, these wait for it, and all others go to the app at once: an app's
/// own commands don't wait for the start of a process. A command that is in neither waits too.
#[rustfmt::skip]
pub const KNOWN: &[&str] = &[
    "get_sidecar_info", "cancel_stream", "set_active_openclaw_home", "set_active_clawpal_data_dir",
    "analyze_sessions", "analyze_sessions_stream", "list_session_files", "list_session_files_stream",
    "preview_session", "preview_session_stream", "delete_sessions_by_ids", "clear_all_sessions",
    "remote_analyze_sessions", "remote_analyze_sessions_stream",
    "remote_list_session_files", "remote_list_session_files_stream",
    "remote_preview_session", "remote_preview_session_stream",
    "remote_delete_sessions_by_ids", "remote_clear_all_sessions",
    "backup_before_upgrade", "backup_before_upgrade_stream", "list_backups",
    "restore_from_backup", "restore_from_backup_stream", "verify_backup_stream", "delete_backup",
    "remote_backup_before_upgrade", "remote_backup_before_upgrade_stream", "remote_list_backups",
    "remote_restore_from_backup", "remote_restore_from_backup_stream",
    "remote_verify_backup_stream", "remote_delete_backup",
    "list_ssh_hosts", "upsert_ssh_host", "delete_ssh_host", "list_ssh_config_hosts",
    "ssh_connect", "ssh_connect_with_passphrase", "ssh_disconnect", "ssh_status",
    "get_ssh_transfer_stats", "trust_ssh_host_key",
];

/// What no page may ask of the sidecar: its end, which would look like a crash; its description, which is for programs;
/// and a name that an app is likely to have a command of its own by.
pub const NOT_FOR_PAGES: &[&str] = &["shutdown", "rpc.discover", "ping"];

/// Its answer changes what later commands mean, so a new process is told the same.
pub const STATE: &[&str] = &["set_active_openclaw_home", "set_active_clawpal_data_dir"];

/// Methods by name; a stream's with what it sends.
pub struct Methods(HashMap<String, Option<Arc<Family>>>);

impl Methods {
    /// From an OpenRPC document.
    pub fn read(document: &RawValue) -> serde_json::Result<Self> {
        let Document { methods, notifications } = serde_json::from_str(document.get())?;
        let is_terminal = |name: &str| notifications.get(name).is_some_and(|notification| notification.terminal);
        let methods = methods.into_iter().map(|method| {
            let family = method.notifications.map(|sent| Arc::new(Family::new(sent, is_terminal)));
            (method.name, family)
        });
        Ok(Self(methods.collect()))
    }

    pub fn has(&self, method: &str) -> bool {
        self.0.contains_key(method)
    }

    pub fn stream(&self, method: &str) -> Option<Arc<Family>> {
        self.0.get(method)?.clone()
    }
}

#[derive(Deserialize)]
struct Document {
    methods: Vec<Method>,
    #[serde(rename = "x-notifications")]
    notifications: HashMap<String, Notification>,
}

#[derive(Deserialize)]
struct Method {
    name: String,
    #[serde(rename = "x-notifications")]
    notifications: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Notification {
    terminal: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Box<RawValue> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../protocol/openrpc.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn what_is_known_is_what_the_protocol_has_but_for_what_is_not_for_pages() {
        let methods = Methods::read(&document()).unwrap();
        let mut there: Vec<&str> = methods.0.keys().map(String::as_str).collect();
        let mut here: Vec<&str> = KNOWN.iter().chain(NOT_FOR_PAGES).copied().collect();
        there.sort_unstable();
        here.sort_unstable();
        assert_eq!(there, here);
    }

    #[test]
    fn streams_are_those_that_send_something() {
        let methods = Methods::read(&document()).unwrap();
        for (name, family) in &methods.0 {
            assert_eq!(family.is_some(), name.ends_with("_stream") && name != "cancel_stream", "{name}");
        }
    }
}
