// The numbers that bound what backups do: those of sidecar/limits.py under "Backups" and "Restores".

export const MEBIBYTE = 1024 * 1024;
export const NAMES_AT_ONCE = 10_000;
export const COPY_BYTES = MEBIBYTE;
export const MAX_COPIES = 3;
export const SETTLED_NS = 20_000_000n;
export const YOUNG_NS = 2_000_000_000n;
// Node sets times to a microsecond, or to a quarter of one, since it takes them as numbers of seconds.
export const TIME_SLACK_NS = 2_000n;
export const DATABASE_PAGES_A_STEP = 256;
export const MAX_DATABASE_BUSY_MS = 10_000;
export const ASIDE_LOOK_MS = 20;
export const ASIDE_ENDS_WITHIN_MS = 200;
export const MAX_MANIFEST_LINE_BYTES = 64 * 1024;
export const MANIFEST_TAIL_BYTES = 64 * 1024;
export const MANIFEST_WRITE_BYTES = 64 * 1024;
export const MAX_REPORTED_FAILURES = 20;
export const MAX_NAMED_REFUSALS = 3;
export const MAX_SNAPSHOTS_A_SECOND = 100;
export const MAX_NAME_BYTES = 255;
export const FREE_SPACE_LEFT_BYTES = 16 * MEBIBYTE;
export const BACKUP_LOCK_WAIT_MS = 10_000;
export const BACKUP_LOCK_POLL_MS = 20;
export const PROGRESS_MS = 100;
export const LSOF_MS = 10_000;
export const LSOF_FILES = 200;
