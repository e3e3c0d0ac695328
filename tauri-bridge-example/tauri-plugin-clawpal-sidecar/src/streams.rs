//! Streams: what one has sent so far, and how it ends where the sidecar can't end it any more.

use serde_json::{Map, Value, json};

use crate::limits::MAX_AGENT_BYTES;
use crate::wire::Payload;

/// The notifications of a stream command, by what they are for.
pub struct Family {
    error: Option<String>,
    terminals: Vec<String>,
}

impl Family {
    pub fn new(sent: Vec<String>, is_terminal: impl Fn(&str) -> bool) -> Self {
        Self {
            error: sent.iter().find(|name| name.ends_with(":error")).cloned(),
            terminals: sent.into_iter().filter(|name| is_terminal(name)).collect(),
        }
    }

    pub fn is_terminal(&self, event: &str) -> bool {
        self.terminals.iter().any(|name| name == event)
    }
}

/// What was sent of a stream so far: all that a terminal tells.
#[derive(Default)]
pub struct Sent {
    events: u64,
    last_agent: String,
    agents: u64,
    sessions: u64,
    messages: u64,
    files: u64,
    size_bytes: u64,
    failed: bool,
    cancelled: bool,
}

impl Sent {
    pub fn add(&mut self, event: &str, payload: &Payload) {
        self.failed |= event.ends_with(":error");
        self.cancelled |= event.ends_with(":cancelled");
        self.events = payload.seq.as_u64().unwrap_or(self.events) + 1;
        self.sessions += payload.sessions.0;
        // Agents come one after the other.
        if let Some(agent) = payload.agent.as_str() {
            let agent = &agent[..agent.floor_char_boundary(MAX_AGENT_BYTES)];
            if self.agents == 0 || self.last_agent != agent {
                self.agents += 1;
                self.last_agent = agent.to_owned();
            }
        }
        let last = |total: &mut u64, value: &Value| *total = value.as_u64().unwrap_or(*total);
        last(&mut self.messages, &payload.total_messages);
        last(&mut self.files, &payload.total_files);
        last(&mut self.size_bytes, &payload.total_size_bytes);
    }

    /// The events that end a stream whose process is gone: its error, then its terminal if that is another. What has
    /// said already that it failed, or was cancelled, only ends.
    pub fn broken_off(&self, family: &Family, handle: &str, error: &str) -> Vec<(String, String)> {
        let mut events = Vec::new();
        let mut seq = self.events;
        let mut add = |name: &str, fields: Value| {
            let mut payload =
                Map::from_iter([("handleId".to_owned(), Value::from(handle)), ("seq".to_owned(), Value::from(seq))]);
            if let Value::Object(fields) = fields {
                payload.extend(fields);
            }
            seq += 1;
            events.push((name.to_owned(), Value::Object(payload).to_string()));
        };
        if let Some(name) = &family.error {
            let is_terminal = family.is_terminal(name);
            if is_terminal || !(self.failed || self.cancelled) {
                add(name, json!({"error": error, "kind": "internal"}));
            }
            if is_terminal {
                return events;
            }
        }
        if let Some(name) = family.terminals.first() {
            add(name, self.totals(name));
        }
        events
    }

    fn totals(&self, terminal: &str) -> Value {
        match terminal {
            "sessions:done" => json!({
                "totalAgents": self.agents, "totalSessions": self.sessions,
                "cancelled": self.cancelled, "failedItems": 0, "failures": [],
            }),
            "session-files:done" => json!({
                "totalFiles": self.files, "totalSizeBytes": self.size_bytes,
                "cancelled": self.cancelled, "failedItems": 0, "failures": [],
            }),
            "session-preview:done" => json!({
                "totalMessages": self.messages, "cancelled": self.cancelled, "skippedLines": 0,
            }),
            _ => json!({"cancelled": self.cancelled}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(events: &[Value]) -> Sent {
        let mut sent = Sent::default();
        for event in events {
            let name = event.get("event").and_then(Value::as_str).unwrap_or_default();
            sent.add(name, &serde_json::from_value(event.clone()).unwrap());
        }
        sent
    }

    fn family(names: &[&str], terminals: &[&str]) -> Family {
        Family::new(names.iter().map(|name| name.to_string()).collect(), |name| terminals.contains(&name))
    }

    fn parsed(events: Vec<(String, String)>) -> Vec<(String, Value)> {
        let parse = |(name, payload): (String, String)| (name, serde_json::from_str(&payload).unwrap());
        events.into_iter().map(parse).collect()
    }

    #[test]
    fn an_analysis_that_breaks_off_has_its_error_and_then_its_terminal_with_what_was_sent() {
        let family = family(&["sessions:chunk", "sessions:error", "sessions:done"], &["sessions:done"]);
        let sent = sent(&[
            json!({"handleId": "h", "seq": 0, "agent": "a", "sessions": [1, 2]}),
            json!({"handleId": "h", "seq": 1, "agent": "a", "sessions": [3]}),
            json!({"handleId": "h", "seq": 2, "agent": "b", "sessions": []}),
        ]);
        let events = parsed(sent.broken_off(&family, "h", "gone"));
        assert_eq!(
            events,
            [
                ("sessions:error".into(), json!({"handleId": "h", "seq": 3, "error": "gone", "kind": "internal"})),
                (
                    "sessions:done".into(),
                    json!({"handleId": "h", "seq": 4, "totalAgents": 2, "totalSessions": 3, "cancelled": false,
                           "failedItems": 0, "failures": []})
                ),
            ]
        );
    }

    #[test]
    fn a_stream_that_has_said_how_it_ends_only_ends() {
        let family = family(&["sessions:error", "session-preview:done"], &["session-preview:done"]);
        for (event, cancelled) in [("sessions:error", false), ("sessions:cancelled", true)] {
            let sent = sent(&[json!({"event": event, "handleId": "h", "seq": 4, "totalMessages": 7})]);
            assert_eq!(
                parsed(sent.broken_off(&family, "h", "gone")),
                [(
                    "session-preview:done".into(),
                    json!({"handleId": "h", "seq": 5, "totalMessages": 7, "cancelled": cancelled, "skippedLines": 0})
                )]
            );
        }
    }

    #[test]
    fn a_backup_that_breaks_off_has_one_terminal() {
        let names = ["backup:progress", "backup:cancelled", "backup:error", "backup:done"];
        let family = family(&names, &["backup:error", "backup:done"]);
        let events = parsed(sent(&[]).broken_off(&family, "h", "gone"));
        assert_eq!(
            events,
            [("backup:error".into(), json!({"handleId": "h", "seq": 0, "error": "gone", "kind": "internal"}))]
        );
    }
}
