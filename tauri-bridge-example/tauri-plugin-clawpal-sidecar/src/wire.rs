//! JSON-RPC: what a line of the sidecar is, and how a request is written.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// A reply (`id`) or a notification (`method`).
#[derive(Deserialize)]
pub struct Message<'a> {
    pub id: Option<u64>,
    #[serde(borrow)]
    pub result: Option<&'a RawValue>,
    pub error: Option<Failure>,
    pub method: Option<String>,
    #[serde(borrow)]
    pub params: Option<&'a RawValue>,
}

/// Why a call failed: the sentence for people, and for programs what the protocol calls `data`.
#[derive(Clone, Debug, Deserialize)]
pub struct Failure {
    pub message: String,
    #[serde(default)]
    pub data: Value,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), data: Value::Null }
    }

    pub fn kind(&self) -> Option<&str> {
        self.data.get("kind")?.as_str()
    }
}

/// What of a notification the bridge looks at. All else is passed on unread.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Payload {
    pub handle_id: Option<String>,
    #[serde(default)]
    pub seq: Value,
    #[serde(default)]
    pub agent: Value,
    #[serde(default)]
    pub sessions: Count,
    #[serde(default)]
    pub total_messages: Value,
    #[serde(default)]
    pub total_files: Value,
    #[serde(default)]
    pub total_size_bytes: Value,
}

/// The number of items of an array, none of which is kept.
#[derive(Default)]
pub struct Count(pub u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;

        impl<'de> Visitor<'de> for Items {
            type Value = Count;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while items.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }

        deserializer.deserialize_seq(Items)
    }
}

/// A request as a line. `params` is an object or an array.
pub fn request(id: u64, method: &str, params: &impl fmt::Display) -> Vec<u8> {
    let method = Value::from(method);
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":{method},\"params\":{params}}}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_without_error_may_be_null() {
        let message: Message = serde_json::from_str(r#"{"id":1,"result":null}"#).unwrap();
        assert!(message.error.is_none() && message.result.is_none());
    }

    #[test]
    fn a_failure_has_its_sentence_and_its_kind() {
        let line = r#"{"id":1,"error":{"code":-32030,"message":"no","data":{"kind":"host_not_found","host":1}}}"#;
        let failure = serde_json::from_str::<Message>(line).unwrap().error.unwrap();
        assert_eq!((failure.message.as_str(), failure.kind()), ("no", Some("host_not_found")));
    }

    #[test]
    fn sessions_are_counted_and_the_rest_is_passed_over() {
        let payload: Payload = serde_json::from_str(
            r#"{"handleId":"h","seq":3,"sessions":[{"a":[1]},{},{}],"agent":"main","other":{"x":[]}}"#,
        )
        .unwrap();
        assert_eq!(payload.sessions.0, 3);
        assert_eq!(payload.handle_id.as_deref(), Some("h"));
    }

    #[test]
    fn a_request_is_one_line() {
        let params = RawValue::from_string(r#"{"text":"a\nb"}"#.into()).unwrap();
        let line = request(7, "upsert", &params);
        let parsed: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(parsed["params"]["text"], "a\nb");
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
    }
}
