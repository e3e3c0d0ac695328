// The numbers that bound what the engine does: the twin of sidecar/limits.py, as far as a host is concerned.

const MIB = 1024 * 1024;

// The lease, the end, and what is said meanwhile.
export const LEASE_MS = 20_000;
export const REMOVAL_ENDS_WITHIN_MS = 5_000;
export const FINISH_MS = 1_000;
export const BEAT_MS = 700;
export const LOOK_MS = 100;
export const RETRY_MS = 2;
export const FLUSH_MS = 20;
export const FLUSH_BYTES = 32 * 1024;

// Transcripts and the index.
export const BLOCK_BYTES = 256 * 1024;
export const BLOCK_GROWTH_BYTES = MIB;
export const MAX_ENTRY_BYTES = 256 * MIB;
export const MAX_INDEX_PIECE_BYTES = 256 * MIB;
export const MAX_HELD_COMPRESSED_BYTES = 128 * MIB;
export const MAX_HELD_BYTES = 256 * MIB;
export const MAX_WINDOW_LOG = 23;
export const MAX_TIMESTAMP_CHARS = 64;
export const MAX_TEXT_CHARS = 512;
export const MAX_DEPTH = 1_000;
export const MAX_REREADS = 3;
export const MAX_MODELS = 0xffff;
export const TRIM_OVER_BYTES = 16 * 1024;

// Databases.
export const CACHE_KIB = 256;
export const BUSY_TIMEOUT_MS = 50;
export const BUSY_RETRY_MS = 5;
export const MAX_BUSY_MS = 5_000;
export const LOOK_AGAIN_MS = 20;
export const SETTLED_MS = 20;
export const MAX_PAGE_IDS = 250;
export const MAX_PAGE_ROWS = 4_096;
export const MAX_PAGE_SIZES = 512;
export const MAX_BOUND_IDS = 500;
export const MAX_SOUGHT_IDS = 10_000;
export const MAX_MARK_BYTES = 64 * 1024;
export const MAX_INDEX_ENTRY_BYTES = 16 * MIB;

// Deleting.
export const LOCK_STALE_MS = 30 * 60 * 1000;
export const MAX_LOCK_BYTES = 4 * 1024;
export const INDEX_LOCK_WAIT_MS = 5_000;
export const INDEX_LOCK_POLL_MS = 25;
export const MAX_INDEX_TRIES = 10;
