//! Every number that bounds something, with its unit in its name.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

// Lines of the sidecar
/// A reply is at most 256 MiB (protocol.md, section 1); the rest is its envelope.
pub const MAX_LINE_BYTES: usize = 256 * MIB + 64 * KIB;
/// What the buffer of lines keeps after a longer one.
pub const KEPT_LINE_BYTES: usize = MIB;
pub const READ_BYTES: usize = 64 * KIB;
/// The sidecar drops a longer line, and couldn't say whose it was.
pub const MAX_REQUEST_BYTES: usize = 16 * MIB;
pub const MAX_LOG_LINE_BYTES: usize = 8 * KIB;

// Calls
/// Calls that wait for anything: for a process, a reply, or a user.
pub const MAX_CALLS: usize = 1_024;
pub const MAX_CALL_BYTES: usize = 64 * MIB;
/// Requests on their way into the pipe; a call makes one of its own for a host at most.
pub const MAX_REQUESTS: usize = 2 * MAX_CALLS;
pub const MAX_HOSTS: usize = 1_024;
/// A host and the jump hosts before it, as many as the sidecar takes.
pub const MAX_QUESTIONS_PER_CALL: usize = 9;
/// A user who has said no to a key isn't asked about it again for so long.
pub const REFUSED_S: Duration = Duration::from_secs(30);

// Events
/// Events that wait here; beyond it nothing more is read from the sidecar.
pub const MAX_QUEUED_BYTES: usize = 8 * MIB;
/// Events that were handed to a page and that it hasn't run yet; beyond it no more are.
pub const MAX_EMITTED_BYTES: usize = 8 * MIB;
pub const FENCE_EVERY_BYTES: usize = 256 * KIB;
/// A page that hasn't run its events for so long isn't waited for.
pub const FENCE_S: Duration = Duration::from_secs(60);
/// A page that hasn't said for so long that it took a handle gets the events all the same.
pub const HANDLE_TAKEN_S: Duration = Duration::from_secs(30);
/// What an event takes beside its text.
pub const EVENT_OVERHEAD_BYTES: usize = 256;
/// An agent's name is kept to count agents; longer ones are compared by so much.
pub const MAX_AGENT_BYTES: usize = 1_024;

// Processes
pub const DISCOVER_S: Duration = Duration::from_secs(20);
/// Starts in a row of which none lived for `HEALTHY_S`, after which only a command of the page starts another.
pub const MAX_STARTS: u32 = 6;
pub const HEALTHY_S: Duration = Duration::from_secs(30);
pub const BACKOFF_MS: u64 = 100;
pub const MAX_BACKOFF_MS: u64 = 5_000;
/// What the sidecar has to let terminals out (2 s) and to end.
pub const END_S: Duration = Duration::from_secs(3);
pub const KILLED_S: Duration = Duration::from_secs(1);
/// What is still in the pipe of a process that has ended is read for so long.
pub const REST_S: Duration = Duration::from_secs(2);
