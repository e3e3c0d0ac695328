//! Events on their way from the sidecar to the pages.
//!
//! An event reaches a page by another way than the reply to an `invoke`, and may overtake it, and a page that can't keep
//! up has no way to say so. So a handle's events are held until the page has said that it took the handle, and a page
//! says now and then that it has run what it was given. Both are said by a script that is evaluated in the page,
//! behind what it is about; what that script invokes is [`ACKNOWLEDGE`].
//!
//! One thread emits: scripts that two threads evaluate may run in another order.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use serde::Deserialize;
use serde_json::Value;
use tauri::{AppHandle, Emitter, Runtime, Webview};

use crate::limits::{
    EVENT_OVERHEAD_BYTES, FENCE_EVERY_BYTES, FENCE_S, HANDLE_TAKEN_S, MAX_EMITTED_BYTES, MAX_QUEUED_BYTES,
};
use crate::streams::{Family, Sent};
use crate::wire::Payload;

/// The command by which a page says how far it is.
///
/// It goes through the app's invoke handler, not by the name of the plugin, so that an app needs no permission for it.
pub const ACKNOWLEDGE: &str = "clawpal_sidecar_acknowledge";

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acknowledgement {
    /// The page has taken the reply with this handle.
    Handle(String),
    /// The page has run all that was evaluated before this fence.
    Fence(u64),
}

/// One load of a webview's page: after a reload it is another.
#[derive(Clone, Debug, PartialEq)]
pub struct PageId {
    pub label: String,
    load: u64,
}

pub struct Delivery<R: Runtime> {
    queue: Mutex<Queue<R>>,
    changed: Condvar,
}

struct Queue<R: Runtime> {
    /// Those whose terminal hasn't gone to `ready`.
    streams: HashMap<String, Stream>,
    ready: VecDeque<Event>,
    /// Of the events in `ready` and of those that are held.
    queued_bytes: usize,
    pages: HashMap<String, Page<R>>,
    last_load: u64,
    last_fence: u64,
    closed: bool,
}

struct Event {
    name: String,
    payload: String,
}

impl Event {
    fn bytes(&self) -> usize {
        self.name.len() + self.payload.len() + EVENT_OVERHEAD_BYTES
    }
}

struct Stream {
    family: Arc<Family>,
    page: PageId,
    sent: Sent,
    hold: Hold,
    /// The terminal is among what is held.
    ended: bool,
}

enum Hold {
    /// Until the page has the handle, or this time.
    Until(Instant, VecDeque<Event>),
    Taken,
    /// The page is gone, and with it whoever would have known the handle.
    Dropped,
}

struct Page<R: Runtime> {
    webview: Webview<R>,
    load: u64,
    /// It is waited for. It isn't before it has invoked anything, for then it may have no way to acknowledge either.
    counts: bool,
    unfenced_bytes: usize,
    fences: VecDeque<Fence>,
}

struct Fence {
    number: u64,
    bytes: usize,
    sent: Instant,
}

impl<R: Runtime> Page<R> {
    fn emitted_bytes(&self) -> usize {
        self.unfenced_bytes + self.fences.iter().map(|fence| fence.bytes).sum::<usize>()
    }

    fn forget(&mut self) {
        self.counts = false;
        self.unfenced_bytes = 0;
        self.fences.clear();
    }
}

impl<R: Runtime> Delivery<R> {
    pub fn new() -> Self {
        let queue = Queue {
            streams: HashMap::new(),
            ready: VecDeque::new(),
            queued_bytes: 0,
            pages: HashMap::new(),
            last_load: 0,
            last_fence: 0,
            closed: false,
        };
        Self { queue: Mutex::new(queue), changed: Condvar::new() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<R>> {
        self.queue.lock().unwrap()
    }

    // What pages do

    /// The page that invokes something now. It counts from here on.
    pub fn page(&self, webview: &Webview<R>) -> PageId {
        let mut queue = self.queue();
        let label = webview.label();
        if !queue.pages.contains_key(label) {
            queue.load(webview);
        }
        let page = queue.pages.get_mut(label).expect("it was put there");
        page.counts = true;
        PageId { label: label.to_owned(), load: page.load }
    }

    /// A webview begins to load a page. The handles that were not taken by the page before are left to nobody.
    ///
    /// They are returned, to be cancelled.
    #[must_use]
    pub fn loads(&self, webview: &Webview<R>) -> Vec<String> {
        let mut queue = self.queue();
        queue.load(webview);
        let orphans = queue.drop_untaken(webview.label());
        self.changed.notify_all();
        orphans
    }

    /// A webview is gone; as `loads`.
    #[must_use]
    pub fn closes(&self, label: &str) -> Vec<String> {
        let mut queue = self.queue();
        queue.pages.remove(label);
        let orphans = queue.drop_untaken(label);
        self.changed.notify_all();
        orphans
    }

    pub fn acknowledged(&self, label: &str, what: Acknowledgement) {
        let mut queue = self.queue();
        match what {
            Acknowledgement::Handle(handle) => {
                if queue.streams.get(&handle).is_some_and(|stream| stream.page.label == label) {
                    queue.release(&handle);
                }
            }
            Acknowledgement::Fence(number) => {
                if let Some(page) = queue.pages.get_mut(label) {
                    page.counts = true;
                    page.fences.retain(|fence| fence.number > number);
                }
            }
        }
        self.changed.notify_all();
    }

    // What the sidecar does

    /// A stream has begun; its events are held until the page says that it has the handle. False if the page is gone.
    #[must_use]
    pub fn opened(&self, handle: &str, family: Arc<Family>, page: PageId) -> bool {
        let mut queue = self.queue();
        let is_there = queue.pages.get(&page.label).is_some_and(|there| there.load == page.load);
        let hold = if is_there { Hold::Until(Instant::now() + HANDLE_TAKEN_S, VecDeque::new()) } else { Hold::Dropped };
        let stream = Stream { family, page, sent: Sent::default(), hold, ended: false };
        queue.streams.insert(handle.to_owned(), stream);
        self.changed.notify_all();
        is_there
    }

    /// What has to be evaluated in the page right after the reply with the handle.
    ///
    /// `callback` is the number of what takes the reply in the page, if it is known. The page acknowledges a task after
    /// that, so that all the page does at once with the handle is done. Where the number isn't known, the reply was
    /// evaluated too, and before this. A wrapped `invoke` would be plainer, but Tauri's can't be replaced.
    pub fn taken_script(handle: &str, callback: Option<u32>) -> String {
        let callback = callback.map_or(Value::Null, Value::from);
        let handle = Value::from(handle);
        format!(
            "(() => {{
                const tauri = window.__TAURI_INTERNALS__;
                if (!tauri) return;
                const taken = () => {{
                    const {{ port1, port2 }} = new MessageChannel();
                    port1.onmessage = () => {{
                        port1.close();
                        tauri.invoke('{ACKNOWLEDGE}', {{ handle: {handle} }}).catch(() => {{}});
                    }};
                    port2.postMessage(null);
                }};
                const take = tauri.callbacks?.get({callback});
                if (!take) return taken();
                tauri.callbacks.set({callback}, (reply) => {{
                    taken();
                    return take(reply);
                }});
            }})()"
        )
    }

    /// A notification of the sidecar, as it came.
    pub fn notified(&self, name: &str, payload: &Payload, text: &str) {
        let mut queue = self.queue();
        let event = Event { name: name.to_owned(), payload: text.to_owned() };
        let Some(handle) = &payload.handle_id else {
            return self.add(queue, event);
        };
        let Some(stream) = queue.streams.get_mut(handle) else {
            log::warn!("{name} of the unknown stream {handle} is passed over");
            return;
        };
        stream.sent.add(name, payload);
        stream.ended = stream.family.is_terminal(name);
        let (ended, bytes) = (stream.ended, event.bytes());
        match &mut stream.hold {
            Hold::Until(_, held) => {
                held.push_back(event);
                queue.queued_bytes += bytes;
            }
            Hold::Taken => {
                if ended {
                    queue.streams.remove(handle);
                }
                self.add(queue, event);
            }
            Hold::Dropped => {
                if ended {
                    queue.streams.remove(handle);
                }
            }
        }
    }

    /// An event of the bridge itself, behind those of the sidecar.
    pub fn tell(&self, name: &str, payload: &Value) {
        self.add(self.queue(), Event { name: name.to_owned(), payload: payload.to_string() });
    }

    fn add(&self, mut queue: MutexGuard<'_, Queue<R>>, event: Event) {
        queue.queued_bytes += event.bytes();
        queue.ready.push_back(event);
        self.changed.notify_all();
    }

    /// Waits until there is room for another line of the sidecar, or nobody needs it (`is_over`, after `wake`).
    pub fn wait_for_room(&self, is_over: impl Fn() -> bool) {
        let mut queue = self.queue();
        while queue.queued_bytes > MAX_QUEUED_BYTES && !queue.closed && !is_over() {
            queue = self.changed.wait(queue).unwrap();
        }
    }

    pub fn wake(&self) {
        let _queue = self.queue();
        self.changed.notify_all();
    }

    /// The process is gone: its streams end as streams do that fail.
    pub fn broken_off(&self, error: &str) {
        let mut queue = self.queue();
        queue.streams.retain(|_, stream| !matches!(stream.hold, Hold::Dropped));
        let running: Vec<String> =
            queue.streams.iter().filter(|(_, stream)| !stream.ended).map(|(handle, _)| handle.clone()).collect();
        for handle in running {
            let stream = queue.streams.get_mut(&handle).expect("it was found there");
            stream.ended = true;
            let ends = stream.sent.broken_off(&stream.family, &handle, error);
            let ends = ends.into_iter().map(|(name, payload)| Event { name, payload });
            let mut ends: VecDeque<Event> = ends.collect();
            queue.queued_bytes += ends.iter().map(Event::bytes).sum::<usize>();
            let stream = queue.streams.get_mut(&handle).expect("it was found there");
            if let Hold::Until(_, held) = &mut stream.hold {
                held.append(&mut ends);
            } else {
                queue.streams.remove(&handle);
                queue.ready.append(&mut ends);
            }
        }
        self.changed.notify_all();
    }

    pub fn has_streams(&self) -> bool {
        !self.queue().streams.is_empty()
    }

    pub fn close(&self) {
        self.queue().closed = true;
        self.changed.notify_all();
    }

    // What becomes of it

    /// Emits what is ready, until `close`.
    pub fn run(&self, app: &AppHandle<R>) {
        while let Some(event) = self.next() {
            let bytes = event.bytes();
            if let Err(error) = app.emit_str(&event.name, event.payload) {
                log::warn!("{} could not be emitted: {error}", event.name);
            }
            for (webview, fence) in self.emitted(bytes) {
                let script = format!(
                    "window.__TAURI_INTERNALS__?.invoke('{ACKNOWLEDGE}', {{ fence: {fence} }}).catch(() => {{}})"
                );
                if webview.eval(script).is_err() {
                    // It is closing, which `closes` will say.
                    log::debug!("no fence for the webview {}", webview.label());
                }
            }
        }
    }

    fn next(&self) -> Option<Event> {
        let mut queue = self.queue();
        loop {
            if queue.closed {
                return None;
            }
            let now = Instant::now();
            let deadline = queue.expire(now);
            let room = queue.pages.values().all(|page| !page.counts || page.emitted_bytes() <= MAX_EMITTED_BYTES);
            if room && let Some(event) = queue.ready.pop_front() {
                queue.queued_bytes -= event.bytes();
                self.changed.notify_all();
                return Some(event);
            }
            queue = match deadline {
                Some(deadline) => self.changed.wait_timeout(queue, deadline - now).unwrap().0,
                None => self.changed.wait(queue).unwrap(),
            };
        }
    }

    /// Counts what every page was given, and says which are to get a fence now.
    fn emitted(&self, bytes: usize) -> Vec<(Webview<R>, u64)> {
        let mut queue = self.queue();
        let mut due = Vec::new();
        let Queue { pages, last_fence, .. } = &mut *queue;
        for page in pages.values_mut() {
            page.unfenced_bytes += bytes;
            if page.unfenced_bytes < FENCE_EVERY_BYTES {
                continue;
            }
            *last_fence += 1;
            if page.counts {
                page.fences.push_back(Fence { number: *last_fence, bytes: page.unfenced_bytes, sent: Instant::now() });
            }
            page.unfenced_bytes = 0;
            due.push((page.webview.clone(), *last_fence));
        }
        due
    }
}

impl<R: Runtime> Queue<R> {
    fn load(&mut self, webview: &Webview<R>) {
        self.last_load += 1;
        let page = self.pages.entry(webview.label().to_owned()).or_insert_with(|| Page {
            webview: webview.clone(),
            load: 0,
            counts: false,
            unfenced_bytes: 0,
            fences: VecDeque::new(),
        });
        page.load = self.last_load;
        page.forget();
    }

    fn drop_untaken(&mut self, label: &str) -> Vec<String> {
        let mut orphans = Vec::new();
        let mut bytes = 0;
        self.streams.retain(|handle, stream| {
            let Hold::Until(_, held) = &stream.hold else { return true };
            if stream.page.label != label {
                return true;
            }
            bytes += held.iter().map(Event::bytes).sum::<usize>();
            stream.hold = Hold::Dropped;
            if !stream.ended {
                orphans.push(handle.clone());
            }
            !stream.ended
        });
        self.queued_bytes -= bytes;
        orphans
    }

    fn release(&mut self, handle: &str) {
        let Some(stream) = self.streams.get_mut(handle) else { return };
        if let Hold::Until(_, held) = &mut stream.hold {
            self.ready.append(held);
            stream.hold = Hold::Taken;
        }
        if stream.ended {
            self.streams.remove(handle);
        }
    }

    /// Ends the waits whose time is over, and says when the next one's is.
    fn expire(&mut self, now: Instant) -> Option<Instant> {
        let is_over = |stream: &Stream| matches!(stream.hold, Hold::Until(deadline, _) if deadline <= now);
        let late: Vec<String> =
            self.streams.iter().filter(|(_, stream)| is_over(stream)).map(|(handle, _)| handle.clone()).collect();
        for handle in late {
            log::warn!("the page has not said that it took the handle {handle}; its events are sent all the same");
            self.release(&handle);
        }
        for (label, page) in &mut self.pages {
            if page.fences.front().is_some_and(|fence| fence.sent + FENCE_S <= now) {
                log::warn!("the page of the webview {label} does not run its events; it is not waited for");
                page.forget();
            }
        }
        let handles = self.streams.values().filter_map(|stream| match stream.hold {
            Hold::Until(deadline, _) => Some(deadline),
            _ => None,
        });
        let fences = self.pages.values().filter_map(|page| Some(page.fences.front()?.sent + FENCE_S));
        handles.chain(fences).min()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use serde_json::json;
    use tauri::test::{MockRuntime, mock_app};
    use tauri::{App, Listener, WebviewWindow, WebviewWindowBuilder};

    use super::*;

    const EVENT: &str = "sessions:chunk";
    const LAST: &str = "sessions:done";

    fn family() -> Arc<Family> {
        Arc::new(Family::new(vec![EVENT.into(), "sessions:error".into(), LAST.into()], |name| name == LAST))
    }

    fn open(app: &App<MockRuntime>, label: &str) -> WebviewWindow<MockRuntime> {
        WebviewWindowBuilder::new(app, label, Default::default()).build().unwrap()
    }

    fn notify(delivery: &Delivery<MockRuntime>, name: &str, handle: &str, seq: u64) {
        let text = json!({"handleId": handle, "seq": seq}).to_string();
        delivery.notified(name, &serde_json::from_str(&text).unwrap(), &text);
    }

    fn names(delivery: &Delivery<MockRuntime>) -> Vec<(String, String)> {
        let mut queue = delivery.queue();
        let events: Vec<Event> = queue.ready.drain(..).collect();
        queue.queued_bytes -= events.iter().map(Event::bytes).sum::<usize>();
        let handle = |event: &Event| serde_json::from_str::<Value>(&event.payload).unwrap()["handleId"].clone();
        let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
        events.iter().map(|event| (event.name.clone(), text(handle(event)))).collect()
    }

    fn pair(name: &str, handle: &str) -> (String, String) {
        (name.to_owned(), handle.to_owned())
    }

    #[test]
    fn a_reload_cancels_what_was_not_taken_and_leaves_the_rest_alone() {
        let (app, delivery) = (mock_app(), Delivery::new());
        let (main, other) = (open(&app, "main"), open(&app, "other"));
        let (page, other_page) = (delivery.page(main.as_ref()), delivery.page(other.as_ref()));
        assert!(delivery.opened("taken", family(), page.clone()));
        assert!(delivery.opened("untaken", family(), page.clone()));
        assert!(delivery.opened("done", family(), page.clone()));
        assert!(delivery.opened("of another", family(), other_page));
        delivery.acknowledged("main", Acknowledgement::Handle("taken".into()));
        for handle in ["taken", "untaken", "done", "of another"] {
            notify(&delivery, EVENT, handle, 0);
        }
        notify(&delivery, LAST, "done", 1);

        assert_eq!(delivery.loads(main.as_ref()), ["untaken"]);
        notify(&delivery, LAST, "taken", 1);
        notify(&delivery, LAST, "untaken", 1);
        delivery.acknowledged("other", Acknowledgement::Handle("of another".into()));
        assert_eq!(names(&delivery), [pair(EVENT, "taken"), pair(LAST, "taken"), pair(EVENT, "of another")]);
        // What was asked before the reload, and answered after it, is nobody's.
        assert!(!delivery.opened("late", family(), page));
        notify(&delivery, LAST, "late", 0);
        assert_eq!(delivery.closes("other"), Vec::<String>::new());
        notify(&delivery, LAST, "of another", 1);
        assert_eq!(names(&delivery), [pair(LAST, "of another")]);
        let queue = delivery.queue();
        assert_eq!((queue.queued_bytes, queue.streams.len()), (0, 0));
    }

    #[test]
    fn only_the_page_that_asked_can_take_a_handle() {
        let (app, delivery) = (mock_app(), Delivery::new());
        let page = delivery.page(open(&app, "main").as_ref());
        assert!(delivery.opened("h", family(), page));
        notify(&delivery, EVENT, "h", 0);
        delivery.acknowledged("other", Acknowledgement::Handle("h".into()));
        assert_eq!(names(&delivery), []);
    }

    #[test]
    fn a_page_that_never_takes_a_handle_gets_the_events_after_a_while() {
        let (app, delivery) = (mock_app(), Delivery::new());
        let page = delivery.page(open(&app, "main").as_ref());
        assert!(delivery.opened("h", family(), page));
        notify(&delivery, EVENT, "h", 0);
        notify(&delivery, LAST, "h", 1);
        let now = Instant::now();
        let deadline = delivery.queue().expire(now).unwrap();
        assert!(deadline <= now + HANDLE_TAKEN_S);
        assert_eq!(names(&delivery), []);
        assert_eq!(delivery.queue().expire(deadline), None);
        assert_eq!(names(&delivery), [pair(EVENT, "h"), pair(LAST, "h")]);
    }

    #[test]
    fn a_page_that_never_runs_its_events_is_not_waited_for_after_a_while() {
        let (app, delivery) = (mock_app(), Delivery::new());
        delivery.page(open(&app, "main").as_ref());
        assert_eq!(delivery.emitted(FENCE_EVERY_BYTES).len(), 1);
        let now = Instant::now();
        let deadline = delivery.queue().expire(now).unwrap();
        assert!(deadline <= now + FENCE_S);
        assert!(delivery.queue().pages["main"].counts);
        assert_eq!(delivery.queue().expire(deadline), None);
        assert!(!delivery.queue().pages["main"].counts);
        // It gets fences all the same, and counts again when it passes one.
        assert_eq!(delivery.emitted(FENCE_EVERY_BYTES).len(), 1);
        delivery.acknowledged("main", Acknowledgement::Fence(2));
        assert!(delivery.queue().pages["main"].counts);
    }

    #[test]
    fn a_window_that_never_invoked_anything_is_not_waited_for_and_neither_is_a_closed_one() {
        let (app, delivery) = (mock_app(), Arc::new(Delivery::new()));
        let (silent, stuck) = (open(&app, "silent"), open(&app, "stuck"));
        assert_eq!(delivery.loads(silent.as_ref()), Vec::<String>::new());
        delivery.page(stuck.as_ref());
        let (sender, events) = channel();
        app.listen_any(EVENT, move |event| sender.send(event.payload().len()).unwrap());
        let (emitting, handle) = (delivery.clone(), app.handle().clone());
        let emitter = thread::spawn(move || emitting.run(&handle));
        let payload = json!("x".repeat(MAX_EMITTED_BYTES / 4));
        for _ in 0..8 {
            delivery.tell(EVENT, &payload);
        }
        // The fifth goes over the limit; the others are only emitted when the window is closed.
        let within = Duration::from_secs(20);
        for _ in 0..4 {
            events.recv_timeout(within).unwrap();
        }
        assert!(events.recv_timeout(Duration::from_millis(200)).is_err());
        assert_eq!(delivery.closes("stuck"), Vec::<String>::new());
        for _ in 0..4 {
            events.recv_timeout(within).unwrap();
        }
        delivery.close();
        emitter.join().unwrap();
    }

    #[test]
    fn what_waits_for_a_page_stops_the_reader_until_the_page_has_it() {
        let (app, delivery) = (mock_app(), Arc::new(Delivery::new()));
        let page = delivery.page(open(&app, "main").as_ref());
        assert!(delivery.opened("h", family(), page));
        let text = json!({"handleId": "h", "seq": 0, "x": "x".repeat(MAX_QUEUED_BYTES)}).to_string();
        delivery.wait_for_room(|| false);
        delivery.notified(EVENT, &serde_json::from_str(&text).unwrap(), &text);
        let (sender, has_room) = channel();
        let reading = delivery.clone();
        thread::spawn(move || {
            reading.wait_for_room(|| false);
            sender.send(()).unwrap();
        });
        assert!(has_room.recv_timeout(Duration::from_millis(200)).is_err());
        let (emitting, handle) = (delivery.clone(), app.handle().clone());
        let emitter = thread::spawn(move || emitting.run(&handle));
        delivery.acknowledged("main", Acknowledgement::Handle("h".into()));
        has_room.recv_timeout(Duration::from_secs(20)).unwrap();
        delivery.close();
        emitter.join().unwrap();
    }

    #[test]
    fn the_streams_of_a_process_that_is_gone_end_after_what_they_sent() {
        let (app, delivery) = (mock_app(), Delivery::new());
        let main = open(&app, "main");
        let page = delivery.page(main.as_ref());
        assert!(delivery.opened("taken", family(), page.clone()));
        assert!(delivery.opened("untaken", family(), page.clone()));
        assert!(delivery.opened("done", family(), page));
        delivery.acknowledged("main", Acknowledgement::Handle("taken".into()));
        for (name, handle) in [(EVENT, "taken"), (EVENT, "untaken"), (LAST, "done")] {
            notify(&delivery, name, handle, 0);
        }
        delivery.broken_off("gone");
        let ends = |handle: &str| [pair(EVENT, handle), pair("sessions:error", handle), pair(LAST, handle)];
        assert_eq!(names(&delivery), ends("taken"));
        delivery.acknowledged("main", Acknowledgement::Handle("untaken".into()));
        delivery.acknowledged("main", Acknowledgement::Handle("done".into()));
        assert_eq!(names(&delivery), [&ends("untaken")[..], &[pair(LAST, "done")]].concat());
        assert!(!delivery.has_streams());
    }
}
