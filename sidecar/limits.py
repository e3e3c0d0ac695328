"""Every number that bounds something, with its unit in its name."""

KIB = 1024
MIB = 1024 * KIB

# Input
READ_BYTES = 64 * KIB
READ_AHEAD_CHUNKS = 4
MAX_LINE_BYTES = 16 * MIB
MAX_BATCH_CALLS = 1_000
MAX_ID_BYTES = 4 * KIB
MAX_LINE_VALUES = 128 * KIB
"""16 MiB can hold eight million values, which take 40 times as much memory; the ids of 100,000 sessions fit."""
MAX_PARAM_CHARS = 32 * KIB
"""A name or path in a request: as long as the longest path that any system takes."""
MAX_NAME_BYTES = 255

# Output
WRITE_BYTES = 64 * KIB
MAX_REPLY_BYTES = 256 * MIB
MAX_EAGER_ITEMS = 100
"""Sessions or files in one answer, above which a warning names the stream to use instead."""
MAX_WAITING_REPLY_BYTES = 64 * MIB
REPLY_OVERHEAD_BYTES = 64
OUTBOX_BATCHES_PER_HANDLE = 2

# Work
MAX_OPEN_HANDLES = 256
MAX_OPEN_JOBS = 32
STREAM_THREADS = 4
JOB_THREADS = 2
BACKUP_JOB_THREADS = 4
EVENTS_AHEAD = 4
STEP_MS = 10
CALLS_PER_TURN = 16
MAX_FREED_BYTES_AT_REST = 4 * MIB
FIRST_REPLY_S = 0.1
DRAIN_S = 2.0
THREADS_END_S = 0.5

# Reading transcripts
BLOCK_BYTES = 256 * KIB
BLOCK_GROWTH_BYTES = MIB
DECODE_BYTES = 32 * KIB
MAX_ENTRY_BYTES = 256 * MIB
MAX_INDEX_PIECE_BYTES = 256 * MIB
MAX_TIMESTAMP_CHARS = 64
MAX_TEXT_CHARS = 512
MAX_REREADS = 3

# Batching
DEFAULT_BATCH_SESSIONS = 50
MAX_BATCH_SESSIONS = 250
CHUNK_AGE_MS = 50
FIRST_CHUNK_AGE_MS = 10
MAX_REPORTED_FAILURES = 20
MAX_NAMED_REFUSALS = 3

# Compressed transcripts
ZSTD_READ_BYTES = 64 * KIB
# What is fed at once bounds what can come out at once: the densest frame turns 4 bytes into 128 KiB, so this turns into
# 8 MiB at most. It costs half the speed; zstandard's stream_reader has a bound, but can't tell a cut-off frame.
ZSTD_FEED_BYTES = 256
ZSTD_GROWTH_BYTES = 16 * KIB
MAX_ZSTD_WINDOW_BYTES = 8 * MIB

# SQLite
SQLITE_CACHE_KIB = 256
SQLITE_BUSY_TIMEOUT_S = 0.05
SQLITE_RETRY_S = 0.005
SQLITE_LOOK_S = 0.02
MAX_SQLITE_BUSY_S = 5.0
SETTLED_NS = 20_000_000
COPY_CHECK_S = 0.02
MAX_CHILD_ERROR_BYTES = 500
MAX_PAGE_IDS = 250
MAX_PAGE_ROWS = 4_096
MAX_PAGE_SIZES = 512
MAX_BOUND_IDS = 500
MAX_SOUGHT_IDS = 10_000
MAX_SMALL_VALUE_BYTES = 64 * KIB
MAX_INDEX_ENTRY_BYTES = 16 * MIB
ROW_PIECE_BYTES = 64 * KIB

# Remembering what was counted
UNREMEMBERED_BYTES = 4 * KIB
"""A transcript up to this size is counted anew each time: to look it up would take as long."""
DIGESTED_BYTES = KIB
REMEMBERED_A_PAGE = 128
REMEMBERED_A_WRITE = 128
MAX_SCAN_INDEX_PAGES = 16 * KIB
"""Of SQLite's usual 4 KiB, so 64 MiB: some 300,000 transcripts."""
SCAN_INDEX_CACHE_KIB = 64

# Deleting
LOCK_STALE_S = 30 * 60
"""A lock that names no process counts for this long; OpenClaw's own figure."""
MAX_LOCK_BYTES = 4 * KIB
INDEX_LOCK_WAIT_S = 5.0
INDEX_LOCK_POLL_S = 0.025
MAX_INDEX_TRIES = 10

# Previews
DEFAULT_PAGE_MESSAGES = 100
MAX_PAGE_MESSAGES = 500
PAGE_BYTES = 256 * KIB
PAGE_AGE_MS = 50
FIRST_PAGE_AGE_MS = 10
UTF8_CHECK_BYTES = 64 * KIB
CONTENT_KEY_WITHIN_BYTES = 512
KEPT_FREE_BYTES = 2 * MIB

# Lists of files
DEFAULT_BATCH_FILES = 500
MAX_BATCH_FILES = 2_000
LISTED_FILES_A_STEP = 1_000
"""Names between two looks at whether a chunk is due while a folder is listed."""

# SSH
MAX_KNOWN_HOSTS_BYTES = 16 * MIB
MAX_KEY_FILE_BYTES = MIB
MAX_CONFIG_FAULTS = 100
CONNECT_S = 10.0
LOGIN_S = 20.0
AGENT_S = 5.0
KEEPALIVE_S = 5.0
MAX_KEEPALIVES_UNANSWERED = 2
IDLE_CONNECTION_S = 600.0
CLOSE_S = 1.0
MAX_CHANNELS = 8
"""sshd takes ten sessions a connection unless it is told otherwise (MaxSessions)."""
REFUSED_S = 2.0
"""What has just ended here may take its place on the host for a little longer."""
REFUSED_POLL_S = 0.05
MAX_JUMPS = 8
CHANNEL_CHUNKS = 16
CHUNK_BYTES = 32 * KIB
CHANNEL_WINDOW_BYTES = 512 * KIB
CHANNEL_IDLE_S = 20.0
MAX_STDERR_BYTES = 4 * KIB
TRANSFER_RATE_S = 5

# Helpers on hosts
LEASE_S = 5.0
PROBE_S = 10.0
MAX_RECORD_BYTES = 16 * MIB
MAX_NOISE_BYTES = MIB
REMOTE_STREAM_THREADS = 8
REMOTE_JOB_THREADS = 4

CANCELLED_S = 6.0
"""What a cancelled backup on a host has to clear up and say how it ended; the host itself allows it 5 s."""

# Hosts
MAX_HOST_FILE_BYTES = 4 * MIB
MAX_HOST_FILE_TRIES = 10
HOST_LOCK_WAIT_S = 5.0
MAX_SSH_CONFIG_BYTES = MIB
MAX_SSH_CONFIG_FILES = 1_000
MAX_SSH_CONFIG_ALIASES = 2_000
MAX_INCLUDE_DEPTH = 16
"""OpenSSH's own."""

# SFTP
SFTP_READ_BYTES = 32 * KIB
"""What any server gives at once, and what a packet of a channel holds."""
SFTP_READS_AHEAD = 8
SFTP_FILES_AHEAD = 32
SFTP_HELD_BYTES = 2 * MIB
SFTP_LARGE_FILE_BYTES = 512 * KIB
"""What a transcript of any size takes at once: a block, and what is on its way."""
SFTP_ZSTD_STEP_BYTES = 4 * KIB
"""What is decompressed between two looks at other work; see ``ZSTD_FEED_BYTES``."""
SFTP_ASIDE_BYTES = MIB
"""Work on more than this at once is done in a thread, so that the loop serves others meanwhile."""
SFTP_OUTPUT_BYTES = CHANNEL_CHUNKS * CHUNK_BYTES
BEAT_S = 0.7
MAX_LINKS = 40
REMOVAL_ENDS_WITHIN_S = 5.0

# Backups
NAMES_HELD_BYTES = 4 * MIB
"""What the names of one folder take that are held while it is walked: each pass over it for more costs time."""
NAME_OVERHEAD_BYTES = 64
COPY_BYTES = 256 * KIB
"""With 1 MiB, a copy of a file of 2 GB takes half as long again, or twice."""
MAX_COPIES = 3
"""How often a file that changes while it is copied is copied."""
YOUNG_S = 2.0
"""A file that was changed so shortly before it was read may change again without its times telling."""
TIME_SLACK_NS = 2_000
"""Node, which makes backups too, has no number that tells a time more exactly; it sets those of files so."""
DATABASE_PAGES_A_STEP = 256
CHECK_LOOK_S = 0.02
MAX_DATABASE_BUSY_S = 10.0
MAX_MANIFEST_LINE_BYTES = 64 * KIB
MANIFEST_TAIL_BYTES = 64 * KIB
MAX_SNAPSHOTS_A_SECOND = 100
FREE_SPACE_LEFT_BYTES = 16 * MIB
"""What a backup or a restore doesn't use up of a disk."""
BACKUP_LOCK_WAIT_S = 10.0
LOCK_POLL_S = 0.02
"""Between two tries at the lock of a file, whatever is kept by it."""
PROGRESS_S = 0.1
MAX_BACKUPS_AT_ONCE = 8
"""Streams of backups, restores and checks, each with a thread of its own."""
SYNC_LOOK_S = 0.02
REMOVAL_S = 0.05
"""What a cancel waits for until the rest of what was staged is removed behind its back."""
LSOF_S = 10.0
LSOF_FILES = 200
"""Names that are given to one run of ``lsof``."""
