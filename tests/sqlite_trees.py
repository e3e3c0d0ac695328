"""Agents whose sessions lie in SQLite, as three releases of OpenClaw write them: schema 8, 19 and 23.

The tables that matter are as in the real databases; tables of schema 8 that nothing here reads are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sidecar.demo.database import (
    IDENTITIES,
    META,
    NAVIGATION,
    SESSIONS,
    TABLES,
    AgentDatabase,
    open_database,
    stream_compressed,
)

__all__ = [
    "CREATED_AT_MS",
    "NAVIGATION",
    "Archive",
    "Schema",
    "Session",
    "SqliteAgent",
    "cold_archive",
    "open_database",
    "stream_compressed",
]

CREATED_AT_MS = 1_795_378_000_000

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
_TABLES = {
    1: META,
    8: META + _SESSIONS_8 + _EVENTS_8 + IDENTITIES,
    19: META + SESSIONS + _EVENTS_8 + IDENTITIES,
    23: TABLES,
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


class SqliteAgent(AgentDatabase):
    """One agent's folder with a database in it, open for writing in WAL mode until ``close``."""

    def __init__(
        self, folder: Path, schema: Schema = 23, sessions: Sequence[Session] = (), archives: Sequence[Archive] = ()
    ) -> None:
        super().__init__(folder, _TABLES[schema], schema)
        self.schema = schema
        self.connection.execute("BEGIN")
        for session in sessions:
            self.add(session)
        for archive in archives:
            self.add_archive(archive)
        self.connection.execute("COMMIT")

    def close(self) -> SqliteAgent:
        self.connection.close()
        return self

    def add(self, session: Session) -> None:
        key = f"agent:main:{session.session_id}"
        self.add_window(session.session_id, key, session.created_at_ms)
        if session.entry is not None:
            self.add_entry(key, {"sessionId": session.session_id, **session.entry})
        if session.cold:
            self.add_cold(session)
        else:
            self.add_rows(session.session_id, session.lines, created_at_ms=session.created_at_ms)

    def add_window(self, session_id: str, session_key: str, at_ms: int) -> None:
        if self.schema > 8:
            super().add_window(session_id, session_key, at_ms)
        else:
            own = {"session_id": session_id, "session_key": session_key, "created_at": at_ms, "updated_at": at_ms}
            self.insert("sessions", own)

    def add_rows(
        self, session_id: str, lines: Iterable[bytes], first: int = 0, *, created_at_ms: int = CREATED_AT_MS
    ) -> None:
        super().add_rows(session_id, lines, first, created_at_ms=created_at_ms)

    def columns_of(self, line: bytes) -> tuple[dict[str, Any], bytes | None]:
        return super().columns_of(line) if self.schema == 23 else ({}, line)

    def add_archive(self, archive: Archive) -> None:
        data = archive.transcript if archive.encoding == "identity" else stream_compressed(archive.transcript)
        key = f"agent:main:{archive.session_id}"
        self.add_transcript_archive(archive.name, key, archive.reason, data, archive.encoding, archive.created_at_ms)

    def add_entry(self, session_key: str, entry: dict[str, Any] | str) -> None:
        text = entry if isinstance(entry, str) else json.dumps(entry)
        session_id = "" if isinstance(entry, str) else str(entry.get("sessionId"))
        if self.schema > 8:
            self.add_node(session_key, session_id, text)
        else:
            columns = {"session_key": session_key, "session_id": session_id, "entry_json": text, "updated_at": 0}
            self.insert("session_entries", columns)

    def add_cold(self, session: Session) -> None:
        data = cold_archive(session)
        name = f"{hashlib.sha256(data).hexdigest()}.jsonl.zst"
        self.insert(
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
