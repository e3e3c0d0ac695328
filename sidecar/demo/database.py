"""Write an agent's database with the tables that matter, as OpenClaw 2026.9.6 writes them: schema 23, zstd rows.

The tests make databases of older releases from the same pieces.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import zstandard

MIN_COMPRESS_BYTES = 1024
MAX_COMPRESSED_EVENT_BYTES = 4 * 1024 * 1024
NAVIGATION = json.dumps(
    {
        "version": 1,
        "report": {"kind": "canonical"},
        "navigation": {},
        "reset": {},
        "model": {},
        "modelBytes": 0,
        "modelWithoutCheckpointBytes": 0,
        "withoutCustomDataBytes": 0,
    }
)

META = """
CREATE TABLE schema_meta (
  meta_key TEXT NOT NULL PRIMARY KEY, role TEXT NOT NULL, schema_version INTEGER NOT NULL, agent_id TEXT,
  app_version TEXT, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
) STRICT;
CREATE TABLE auth_profile_store (
  store_key TEXT NOT NULL PRIMARY KEY, store_json TEXT NOT NULL, updated_at INTEGER NOT NULL
) STRICT;
"""
SESSIONS = """
CREATE TABLE session_nodes (
  session_key TEXT NOT NULL PRIMARY KEY,
  current_session_id TEXT NOT NULL,
  entry_json TEXT NOT NULL,
  legacy_acp_migration_json TEXT,
  entry_valid INTEGER NOT NULL DEFAULT 0 CHECK (entry_valid IN (-1, 0, 1)),
  updated_at INTEGER NOT NULL,
  status TEXT CHECK (status IS NULL OR status IN ('running', 'done', 'failed', 'killed', 'timeout')),
  created_at INTEGER
) STRICT;
CREATE INDEX idx_agent_session_nodes_current_session_id ON session_nodes(current_session_id);
CREATE TABLE session_windows (
  session_id TEXT NOT NULL PRIMARY KEY,
  session_key TEXT NOT NULL,
  previous_session_id TEXT,
  reason TEXT,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  FOREIGN KEY (session_key) REFERENCES session_nodes(session_key) ON DELETE CASCADE
) STRICT;
CREATE TABLE transcript_rewrite_watermarks (
  session_id TEXT NOT NULL PRIMARY KEY,
  generation TEXT NOT NULL,
  updated_at INTEGER NOT NULL,
  FOREIGN KEY (session_id) REFERENCES "session_windows"(session_id) ON DELETE CASCADE
) STRICT;
CREATE TABLE session_transcript_archives (
  session_id TEXT NOT NULL,
  generation TEXT NOT NULL,
  session_key TEXT NOT NULL,
  reason TEXT NOT NULL CHECK (reason IN ('deleted', 'reset')),
  encoding TEXT NOT NULL CHECK (encoding IN ('identity', 'zstd')),
  archive_blob BLOB NOT NULL,
  archive_sha256 TEXT NOT NULL CHECK (length(archive_sha256) = 64),
  archive_name TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL,
  published_at INTEGER,
  publish_attempts INTEGER NOT NULL DEFAULT 0 CHECK (publish_attempts >= 0),
  last_publish_attempt_at INTEGER,
  last_publish_error TEXT,
  PRIMARY KEY (session_id, generation),
  CHECK (archive_name NOT LIKE '%/%' AND archive_name NOT LIKE '%\\%')
) STRICT;
"""
COLD_ARCHIVES = """
CREATE TABLE session_transcript_cold_archives (
  session_id TEXT NOT NULL PRIMARY KEY,
  generation TEXT NOT NULL,
  archive_name TEXT NOT NULL UNIQUE,
  archive_sha256 TEXT NOT NULL CHECK (length(archive_sha256) = 64),
  event_count INTEGER NOT NULL CHECK (event_count >= 1),
  raw_bytes INTEGER NOT NULL CHECK (raw_bytes >= 0),
  archive_bytes INTEGER NOT NULL CHECK (archive_bytes >= 0),
  last_seq INTEGER NOT NULL,
  archived_at INTEGER NOT NULL,
  storage TEXT NOT NULL CHECK (storage IN ('file', 'sqlite')),
  archive_blob BLOB,
  FOREIGN KEY (session_id) REFERENCES "session_windows"(session_id) ON DELETE CASCADE,
  CHECK (
    length(archive_name) > 0 AND archive_name NOT IN ('.', '..')
    AND archive_name NOT LIKE '%/%' AND archive_name NOT LIKE '%\\%'
  ),
  CHECK ((storage = 'file' AND archive_blob IS NULL) OR (storage = 'sqlite' AND archive_blob IS NOT NULL))
) STRICT;
"""
EVENTS = """
CREATE TABLE transcript_events (
  session_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  event_json TEXT,
  created_at INTEGER NOT NULL,
  event_zstd BLOB,
  event_utf8_bytes INTEGER CHECK (event_utf8_bytes IS NULL OR event_utf8_bytes >= 0),
  navigation_json TEXT,
  PRIMARY KEY (session_id, seq),
  FOREIGN KEY (session_id) REFERENCES "session_windows"(session_id) ON DELETE CASCADE,
  CHECK (
    (event_json IS NOT NULL AND event_zstd IS NULL)
    OR (
      event_json IS NULL AND event_zstd IS NOT NULL
      AND event_utf8_bytes IS NOT NULL
      AND event_utf8_bytes BETWEEN 1 AND 4194304
      AND length(event_zstd) BETWEEN 1 AND 4194304
      AND navigation_json IS NOT NULL
    )
  ),
  CHECK (
    navigation_json IS NULL OR CASE WHEN json_valid(navigation_json)
      THEN coalesce(octet_length(navigation_json) <= 16384, 0) ELSE 0 END
  )
) STRICT;
"""
IDENTITIES = """
CREATE TABLE transcript_event_identities (
  session_id TEXT NOT NULL,
  event_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  event_type TEXT,
  parent_id TEXT,
  message_idempotency_key TEXT,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (session_id, event_id),
  FOREIGN KEY (session_id, seq) REFERENCES transcript_events(session_id, seq) ON DELETE CASCADE
) STRICT;
"""
SCHEMA = 23
TABLES = META + SESSIONS + COLD_ARCHIVES + EVENTS + IDENTITIES

Reason = Literal["deleted", "reset"]
Encoding = Literal["identity", "zstd"]


class AgentDatabase:
    """The database in one agent's folder, open for writing in WAL mode until its connection is closed."""

    def __init__(self, folder: Path, tables: str = TABLES, schema: int = SCHEMA) -> None:
        self.folder = folder
        self.path = folder / "agent" / "openclaw-agent.sqlite"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        (folder / "sessions").mkdir(exist_ok=True)
        self.connection = open_database(self.path)
        self.connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self.connection.execute("PRAGMA synchronous = OFF")  # for speed; what is read is the same
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.executescript(f"BEGIN; {tables}; PRAGMA user_version = {schema}; COMMIT;")

    def add_window(self, session_id: str, session_key: str, at_ms: int) -> None:
        """Make the session known, before its rows."""
        own = {"session_id": session_id, "session_key": session_key, "created_at": at_ms, "updated_at": at_ms}
        self.insert("session_windows", own)
        generation = {"session_id": session_id, "generation": "first", "updated_at": at_ms}
        self.insert("transcript_rewrite_watermarks", generation)

    def add_node(self, session_key: str, session_id: str, entry: str) -> None:
        """Add an entry of the index, which may be any text."""
        columns = {"session_key": session_key, "entry_json": entry, "updated_at": 0}
        self.insert("session_nodes", columns | {"current_session_id": session_id})

    def add_rows(self, session_id: str, lines: Iterable[bytes], first: int = 0, *, created_at_ms: int) -> None:
        """Append rows, created a millisecond after each other."""
        for seq, line in enumerate(lines, first):
            columns = {"session_id": session_id, "seq": seq, "created_at": created_at_ms + seq}
            more, text = self.columns_of(line)
            self.insert("transcript_events", columns | more, event_json=text)
            if (identity := _identity(line)) is not None:
                columns = {"session_id": session_id, "event_id": identity, "seq": seq, "created_at": created_at_ms}
                self.insert("transcript_event_identities", columns, "OR IGNORE")

    def columns_of(self, line: bytes) -> tuple[dict[str, Any], bytes | None]:
        """What a row holds of a line: a frame and its columns, or the text."""
        frame = compressed(line)
        columns = {"event_utf8_bytes": len(line), "event_zstd": frame, "navigation_json": NAVIGATION if frame else None}
        return columns, None if frame else line

    def add_transcript_archive(
        self, name: str, session_key: str, reason: Reason, data: bytes, encoding: Encoding, created_at_ms: int
    ) -> None:
        """Add an archive: ``data`` is JSONL, already of that encoding."""
        self.insert(
            "session_transcript_archives",
            {
                "session_id": name.partition(".jsonl")[0],
                "generation": name,
                "session_key": session_key,
                "reason": reason,
                "encoding": encoding,
                "archive_blob": data,
                "archive_sha256": hashlib.sha256(data).hexdigest(),
                "archive_name": name,
                "created_at": created_at_ms,
            },
        )

    def insert(self, table: str, columns: dict[str, Any], conflict: str = "", **texts: bytes | None) -> None:
        """``texts`` become TEXT, whatever their bytes."""
        marks = ["?"] * len(columns) + ["CAST(? AS TEXT)"] * len(texts)
        names = ", ".join([*columns, *texts])
        query = f"INSERT {conflict} INTO {table} ({names}) VALUES ({', '.join(marks)})"  # noqa: S608 (no outside text)
        self.connection.execute(query, [*columns.values(), *texts.values()])


def open_database(path: Path) -> sqlite3.Connection:
    """For writing; with the function that schema 23 checks rows with, which SQLite has since 3.43."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.create_function(
        "octet_length", 1, lambda text: None if text is None else len(text.encode()), deterministic=True
    )
    return connection


def compressed(line: bytes) -> bytes | None:
    """A row's frame, where OpenClaw would make it one."""
    if not MIN_COMPRESS_BYTES <= len(line) <= MAX_COMPRESSED_EVENT_BYTES or b"\\u" in line:
        return None
    frame = zstandard.ZstdCompressor(level=1).compress(line)
    return frame if len(frame) <= len(line) - max(64, len(line) // 10) else None


def stream_compressed(data: bytes) -> bytes:
    """As Node compresses a stream: one frame whose header tells no size."""
    compressor = zstandard.ZstdCompressor(level=3).compressobj()
    return compressor.compress(data) + compressor.flush()


def _identity(line: bytes) -> str | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    identity = entry.get("id") if isinstance(entry, dict) else None
    # As Node writes a string with half a surrogate pair.
    return re.sub("[\ud800-\udfff]", "\ufffd", identity) if isinstance(identity, str) else None
