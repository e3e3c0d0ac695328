//! Calls: what a page invokes and what the bridge asks itself, from the first look at them to their reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use serde_json::value::RawValue;
use tauri::ipc::{Invoke, InvokeBody, InvokeHandler, InvokeResolver, InvokeResponseBody, Response};
use tauri::{AppHandle, Runtime, Webview};

use crate::bridge::Bridge;
use crate::delivery::PageId;
use crate::limits::{MAX_CALL_BYTES, MAX_CALLS};
use crate::wire::Failure;

pub struct Call<R: Runtime> {
    pub method: String,
    pub params: Box<RawValue>,
    /// The webview that it is made for, if any.
    pub webview: String,
    /// The host that it is about.
    pub host: Option<String>,
    /// Places, `host:port`, whose keys the user was asked about for this call.
    pub asked: Vec<String>,
    pub then: Then<R>,
    _charge: Charge,
}

pub type Outcome<'a> = Result<Option<&'a RawValue>, Failure>;

pub enum Then<R: Runtime> {
    Page(Box<PageCall<R>>),
    Bridge(Box<Continuation<R>>),
}

type Continuation<R> = dyn FnOnce(&Arc<Bridge<R>>, Outcome) + Send;

/// Who asked, and what is left to do when the sidecar has answered.
pub struct PageCall<R: Runtime> {
    pub page: PageId,
    pub webview: Webview<R>,
    /// The number of what takes the reply in the page, if it came with the request.
    pub callback: Option<u32>,
    pub resolver: InvokeResolver<R>,
    /// The app's own handler, which answers in the end.
    pub app: Option<(Invoke<R>, Arc<InvokeHandler<R>>)>,
}

impl<R: Runtime> Call<R> {
    /// Fails where too many calls wait already.
    pub fn new(
        webview: &str,
        method: &str,
        params: &Value,
        then: Then<R>,
        budget: &Arc<Budget>,
    ) -> Result<Self, (Then<R>, Failure)> {
        let host = params.get("hostId").and_then(Value::as_str).map(str::to_owned);
        let params = serde_json::value::to_raw_value(params).expect("a value is JSON");
        match budget.take(params.get().len()) {
            Some(charge) => Ok(Self {
                webview: webview.to_owned(),
                method: method.to_owned(),
                params,
                host,
                asked: Vec::new(),
                then,
                _charge: charge,
            }),
            None => Err((then, Failure::new("too many calls wait for the sidecar; try again when some have ended"))),
        }
    }
}

impl<R: Runtime> PageCall<R> {
    pub fn resolve(self, handle: &AppHandle<R>, result: Option<&RawValue>) {
        let text = result.map_or("null", RawValue::get).to_owned();
        match self.app {
            None => respond(self.resolver, text),
            Some((invoke, app)) => {
                // Tauri calls handlers in the main thread.
                let called = handle.run_on_main_thread(move || {
                    if !app(invoke) {
                        respond(self.resolver, text);
                    }
                });
                if let Err(error) = called {
                    log::warn!("the app's own handler could not be called: {error}");
                }
            }
        }
    }
}

fn respond<R: Runtime>(resolver: InvokeResolver<R>, text: String) {
    resolver.resolve(Response::new(InvokeResponseBody::Json(text)));
}

/// The arguments of an `invoke` as what JSON-RPC takes, or why they aren't.
pub fn arguments(body: &InvokeBody) -> Result<Value, Failure> {
    match body {
        InvokeBody::Json(Value::Null) => Ok(Value::Object(Default::default())),
        InvokeBody::Json(value @ Value::Object(_)) => Ok(value.clone()),
        _ => Err(Failure::new("a command of the sidecar takes named arguments")),
    }
}

/// An invoke that can be given to two handlers; only one of them may answer it.
pub fn duplicate<R: Runtime>(invoke: &Invoke<R>) -> Invoke<R> {
    Invoke { message: invoke.message.clone(), resolver: invoke.resolver.clone(), acl: invoke.acl.clone() }
}

/// What all calls together may take.
#[derive(Default)]
pub struct Budget {
    calls: AtomicUsize,
    bytes: AtomicUsize,
}

struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    fn take(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let total_bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let charge = Charge { budget: self.clone(), bytes };
        (calls <= MAX_CALLS && total_bytes <= MAX_CALL_BYTES).then_some(charge)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.calls.fetch_sub(1, Ordering::Relaxed);
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_have_ended_make_room_for_others() {
        let budget = Arc::new(Budget::default());
        let all: Vec<_> = (0..MAX_CALLS).map(|_| budget.take(1).unwrap()).collect();
        assert!(budget.take(1).is_none());
        drop(all);
        assert!(budget.take(MAX_CALL_BYTES + 1).is_none());
        assert!(budget.take(MAX_CALL_BYTES).is_some());
    }
}
