"""Agents whose sessions lie in SQLite, as three releases of OpenClaw write them: schema 8, 19 and 23.

The tables that matter are as in the real databases; tables of schema 8 that nothing here reads are left out.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import zstandard

CREATED_AT_MS = 1_795_378_000_000
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

_META = """
CREATE TABLE schema_meta (
  meta_key TEXT NOT NULL PRIMARY KEY, role TEXT NOT NULL, schema_version INTEGER NOT NULL, agent_id TEXT,
  app_version TEXT, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
) STRICT;
CREATE TABLE auth_profile_store (
  store_key TEXT NOT NULL PRIMARY KEY, store_json TEXT NOT NULL, updated_at INTEGER NOT NULL
) STRICT;
"""
_IDENTITIES = """
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
_SESSIONS_8 = """
CREATE TABLE sessions (
  session_id TEXT NOT NULL PRIMARY KEY, session_key TEXT NOT NULL, created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL, model TEXT
) STRICT;
CREATE TABLE session_routes (
  session_key TEXT NOT NULL PRIMARY KEY, session_id TEXT NOT NULL, updated_at INTEGER NOT NULL
) STRICT;
CREATE TABLE session_entries (
  session_key TEXT NOT NULL PRIMARY KEY, session_id TEXT NOT NULL, entry_json TEXT NOT NULL,
  updated_at INTEGER NOT NULL, status TEXT
) STRICT;
"""
_EVENTS_8 = """
CREATE TABLE transcript_events (
  session_id TEXT NOT NULL, seq INTEGER NOT NULL, event_json TEXT NOT NULL, created_at INTEGER NOT NULL,
  PRIMARY KEY (session_id, seq)
) STRICT;
"""
_SESSIONS_19 = """
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
_COLD = """
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
_EVENTS_23 = """
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
_DDL = {
    1: _META,
    8: _META + _SESSIONS_8 + _EVENTS_8 + _IDENTITIES,
    19: _META + _SESSIONS_19 + _EVENTS_8 + _IDENTITIES,
    23: _META + _SESSIONS_19 + _COLD + _EVENTS_23 + _IDENTITIES,
}
Schema = Literal[1, 8, 19, 23]


@dataclass(frozen=True)
class Session:
    """A session with a row for each line of ``transcript``, which need not be JSON, and perhaps an index entry.

    ``entry`` lacks its ``sessionId``, which is put in; ``cold`` takes the rows out again, into a file or a BLOB.
    """

    session_id: str
    transcript: bytes
    entry: dict[str, Any] | None = None
    cold: Literal["file", "sqlite"] | None = None
    created_at_ms: int = CREATED_AT_MS

    @property
    def lines(self) -> list[bytes]:
        return self.transcript.removesuffix(b"\n").split(b"\n") if self.transcript else []


@dataclass(frozen=True)
class Archive:
    """A row of ``session_transcript_archives``."""

    name: str
    transcript: bytes
    reason: Literal["deleted", "reset"] = "deleted"
    encoding: Literal["identity", "zstd"] = "zstd"
    created_at_ms: int = CREATED_AT_MS

    @property
    def session_id(self) -> str:
        return self.name.partition(".jsonl")[0]


@dataclass
class SqliteAgent:
    """One agent's folder with a database in it, open for writing in WAL mode until ``close``."""

    folder: Path
    schema: Schema = 23
    sessions: Sequence[Session] = ()
    archives: Sequence[Archive] = ()
    connection: sqlite3.Connection = field(init=False)

    def __post_init__(self) -> None:
        (self.folder / "agent").mkdir(parents=True, exist_ok=True)
        (self.folder / "sessions").mkdir(exist_ok=True)
        self.connection = open_database(self.path)
        self.connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self.connection.execute("PRAGMA synchronous = OFF")  # for speed; what is read is the same
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.executescript(f"BEGIN; {_DDL[self.schema]}; PRAGMA user_version = {self.schema}; COMMIT;")
        self.connection.execute("BEGIN")
        for session in self.sessions:
            self.add(session)
        for archive in self.archives:
            self.add_archive(archive)
        self.connection.execute("COMMIT")

    @property
    def path(self) -> Path:
        return self.folder / "agent" / "openclaw-agent.sqlite"

    def close(self) -> SqliteAgent:
        self.connection.close()
        return self

    def add(self, session: Session) -> None:
        self._add_window(session)
        if session.cold:
            self.add_cold(session)
        else:
            self.add_rows(session.session_id, session.lines, created_at_ms=session.created_at_ms)

    def add_rows(
        self, session_id: str, lines: Iterable[bytes], first: int = 0, created_at_ms: int = CREATED_AT_MS
    ) -> None:
        """Append rows, created a millisecond after each other."""
        for seq, line in enumerate(lines, first):
            frame = self._compressed(line)
            columns = {"session_id": session_id, "seq": seq, "created_at": created_at_ms + seq}
            if self.schema == 23:
                columns |= {"event_utf8_bytes": len(line), "event_zstd": frame}
                columns |= {"navigation_json": NAVIGATION if frame else None}
            self._insert("transcript_events", columns, event_json=None if frame else line)
            if (identity := _identity(line)) is not None:
                columns = {"session_id": session_id, "event_id": identity, "seq": seq, "created_at": created_at_ms}
                self._insert("transcript_event_identities", columns, "OR IGNORE")

    def add_archive(self, archive: Archive) -> None:
        data = archive.transcript if archive.encoding == "identity" else stream_compressed(archive.transcript)
        self._insert(
            "session_transcript_archives",
            {
                "session_id": archive.session_id,
                "generation": archive.name,
                "session_key": f"agent:main:{archive.session_id}",
                "reason": archive.reason,
                "encoding": archive.encoding,
                "archive_blob": data,
                "archive_sha256": hashlib.sha256(data).hexdigest(),
                "archive_name": archive.name,
                "created_at": archive.created_at_ms,
            },
        )

    def _add_window(self, session: Session) -> None:
        key = f"agent:main:{session.session_id}"
        at_ms = session.created_at_ms
        own = {"session_id": session.session_id, "session_key": key, "created_at": at_ms, "updated_at": at_ms}
        self._insert("sessions" if self.schema == 8 else "session_windows", own)
        if self.schema > 8:
            generation = {"session_id": session.session_id, "generation": "first", "updated_at": at_ms}
            self._insert("transcript_rewrite_watermarks", generation)
        if session.entry is not None:
            self.add_entry(key, {"sessionId": session.session_id, **session.entry})

    def add_entry(self, session_key: str, entry: dict[str, Any] | str) -> None:
        text = entry if isinstance(entry, str) else json.dumps(entry)
        session_id = "" if isinstance(entry, str) else str(entry.get("sessionId"))
        columns = {"session_key": session_key, "entry_json": text, "updated_at": 0}
        if self.schema == 8:
            self._insert("session_entries", columns | {"session_id": session_id})
        else:
            self._insert("session_nodes", columns | {"current_session_id": session_id})

    def add_cold(self, session: Session) -> None:
        data = cold_archive(session)
        name = f"{hashlib.sha256(data).hexdigest()}.jsonl.zst"
        self._insert(
            "session_transcript_cold_archives",
            {
                "session_id": session.session_id,
                "generation": "first",
                "archive_name": name,
                "archive_sha256": hashlib.sha256(data).hexdigest(),
                "event_count": len(session.lines),
                "raw_bytes": len(b"\n".join(session.lines)),
                "archive_bytes": len(data),
                "last_seq": len(session.lines) - 1,
                "archived_at": session.created_at_ms + 86_400_000,
                "storage": session.cold,
                "archive_blob": data if session.cold == "sqlite" else None,
            },
        )
        if session.cold == "file":
            (self.folder / "sessions" / "cold").mkdir(exist_ok=True)
            (self.folder / "sessions" / "cold" / name).write_bytes(data)

    def _compressed(self, line: bytes) -> bytes | None:
        """The row's frame, where OpenClaw would make it one."""
        if self.schema < 23 or not MIN_COMPRESS_BYTES <= len(line) <= MAX_COMPRESSED_EVENT_BYTES or b"\\u" in line:
            return None
        frame = zstandard.ZstdCompressor(level=1).compress(line)
        return frame if len(frame) <= len(line) - max(64, len(line) // 10) else None

    def _insert(self, table: str, columns: dict[str, Any], conflict: str = "", **texts: bytes | None) -> None:
        """``texts`` become TEXT, whatever their bytes."""
        marks = ["?"] * len(columns) + ["CAST(? AS TEXT)"] * len(texts)
        names = ", ".join([*columns, *texts])
        query = f"INSERT {conflict} INTO {table} ({names}) VALUES ({', '.join(marks)})"
        self.connection.execute(query, [*columns.values(), *texts.values()])


def open_database(path: Path) -> sqlite3.Connection:
    """For writing; with the function that schema 23 checks rows with, which SQLite has since 3.43."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.create_function(
        "octet_length", 1, lambda text: None if text is None else len(text.encode()), deterministic=True
    )
    return connection


def stream_compressed(data: bytes) -> bytes:
    """As Node compresses a stream: one frame whose header tells no size."""
    compressor = zstandard.ZstdCompressor(level=3).compressobj()
    return compressor.compress(data) + compressor.flush()


def cold_archive(session: Session) -> bytes:
    """What OpenClaw puts into cold storage: the rows, and after them what it derives from them."""
    session_id = session.session_id
    records: list[dict[str, Any]] = [
        {"kind": "header", "version": 1, "sessionId": session_id, "generation": "first"},
        *(
            {
                "kind": "event",
                "row": {"seq": seq, "event_json": line.decode(), "created_at": session.created_at_ms + seq},
            }
            for seq, line in enumerate(session.lines)
        ),
        {"kind": "active", "row": {"active_position": 0, "event_seq": 0, "message_position": None}},
        {"kind": "index", "row": {"indexed_seq": 0, "leaf_event_id": None, "needs_rebuild": 0, "updated_at": 0}},
        {"kind": "fts", "row": {"text": "hello", "message_id": "m", "role": "user", "timestamp": "t"}},
    ]
    lines = (json.dumps(record, ensure_ascii=False, separators=(",", ":")) for record in records)
    return stream_compressed("".join(f"{line}\n" for line in lines).encode())


def _identity(line: bytes) -> str | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    identity = entry.get("id") if isinstance(entry, dict) else None
    # As Node writes a string with half a surrogate pair.
    return re.sub("[\ud800-\udfff]", "\ufffd", identity) if isinstance(identity, str) else None
