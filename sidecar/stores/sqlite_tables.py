"""Find out what an agent's database holds: its tables, the ids of its sessions, what its index says of them.

Tables and columns are looked up, never inferred from a schema number: 2026.7.2-beta.1 writes 8, with the index in
``session_entries``; 2026.8.1 writes 19, with ``session_nodes``; 2026.9.6 writes 23, with compressed rows. Before 4
there were no sessions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from heapq import merge
from operator import itemgetter
from typing import NamedTuple

from sidecar.errors import BrokenDatabase
from sidecar.limits import MAX_INDEX_ENTRY_BYTES, MAX_PAGE_IDS
from sidecar.stores.sqlite_open import Database

EVENTS = "transcript_events"
IDENTITIES = "transcript_event_identities"
GENERATIONS = "transcript_rewrite_watermarks"
ARCHIVES = "session_transcript_archives"
COLD = "session_transcript_cold_archives"
_INDEXES = ("session_nodes", "session_entries")
_NEEDED = {
    EVENTS: {"session_id", "seq", "event_json", "created_at"},
    ARCHIVES: {"session_id", "reason", "encoding", "archive_blob", "archive_name", "created_at"},
    COLD: {"session_id", "archive_name", "storage", "archive_blob", "raw_bytes", "archived_at"},
}
# Hops from one id to the next over the primary key, in which each is repeated for all its rows. Ids are bound as bytes,
# since what is no UTF-8 can't be bound as text.
_NEXT_LIVE = """
WITH RECURSIVE ids(id) AS (
  SELECT min(session_id) FROM transcript_events WHERE session_id > CAST(:after AS TEXT)
  UNION ALL
  SELECT (SELECT min(session_id) FROM transcript_events WHERE session_id > ids.id) FROM ids WHERE ids.id IS NOT NULL
)
SELECT id, '' FROM ids WHERE id IS NOT NULL LIMIT :count
"""
_NEXT_COLD = """
SELECT session_id, '' FROM session_transcript_cold_archives
WHERE session_id > CAST(:after AS TEXT) ORDER BY session_id LIMIT :count
"""
_NEXT_ARCHIVED = """
SELECT archive_name, session_id FROM session_transcript_archives
WHERE archive_name > CAST(:after AS TEXT) ORDER BY archive_name LIMIT :count
"""


@dataclass(frozen=True, slots=True)
class Tables:
    """The columns of the tables that matter; none for a table that isn't there."""

    columns: dict[str, set[str]]

    def has(self, table: str, column: str = "session_id") -> bool:
        return column in self.columns[table]

    @property
    def index(self) -> str | None:
        """The table that took the place of ``sessions.json``."""
        return next((table for table in _INDEXES if self.columns[table] >= {"session_key", "entry_json"}), None)


class ArchiveRow(NamedTuple):
    """The name of a row of ``session_transcript_archives``, and the id of the session that it was."""

    name: str
    session_id: str


def look_up_tables(database: Database) -> Tables:
    """``BrokenDatabase`` if a table that holds transcripts is of a form that is not known."""

    def read(connection: sqlite3.Connection) -> Tables:
        if connection.execute("PRAGMA encoding").fetchone() != (b"UTF-8",):
            raise BrokenDatabase("the database is in UTF-16, which OpenClaw doesn't write")
        return Tables({table: _columns(connection, table) for table in (*_NEEDED, *_INDEXES, IDENTITIES, GENERATIONS)})

    tables = database.read(read)
    for table, needed in _NEEDED.items():
        if tables.columns[table] and (missing := needed - tables.columns[table]):
            named = ", ".join(sorted(missing))
            raise BrokenDatabase(f"the database is of a form that is not known: its table {table} has no {named}")
    return tables


def session_ids(database: Database, tables: Tables) -> Iterator[str]:
    """The ids of the sessions that have rows, or had before they were put into cold storage, in order."""
    queries = [query for table, query in ((EVENTS, _NEXT_LIVE), (COLD, _NEXT_COLD)) if tables.has(table)]
    before = None
    for session_id, _ in merge(*(_ids(database, query) for query in queries), key=itemgetter(0)):
        if session_id != before:
            yield as_text(session_id)
        before = session_id


def archive_rows(database: Database, tables: Tables) -> Iterator[ArchiveRow]:
    """The archives that are rows, in order of their names."""
    if tables.has(ARCHIVES):
        for name, session_id in _ids(database, _NEXT_ARCHIVED):
            yield ArchiveRow(as_text(name), as_text(session_id))


def read_index(database: Database, table: str, remember: Callable[[bytes], None]) -> None:
    """Hand every entry of the index to ``remember``, perhaps twice; for one over ``MAX_INDEX_ENTRY_BYTES``, nothing."""
    unread = f"FROM {table} WHERE session_key > CAST(:after AS TEXT) ORDER BY session_key"
    next_small = f"SELECT session_key, entry_json {unread} LIMIT {MAX_PAGE_IDS}"
    next_large = f"SELECT session_key, rowid {unread} LIMIT 1"
    after = b""

    def read_page(connection: sqlite3.Connection) -> bytes | None:
        last: bytes | None = None
        try:
            with closing(connection.execute(next_small, {"after": after})) as rows:
                for key, entry in rows:
                    remember(entry)
                    last = key
        except sqlite3.DataError:
            bound = {"after": after if last is None else last}
            found = connection.execute(next_large, bound).fetchone()
            if found is None:
                raise BrokenDatabase("the database is damaged: its session index ends early") from None
            last, row_number = found
            with connection.blobopen(table, "entry_json", row_number, readonly=True) as blob:
                remember(blob.read() if len(blob) <= MAX_INDEX_ENTRY_BYTES else b"")
        return last

    while (last := database.read(read_page)) is not None:
        after = last


def as_text(id_bytes: bytes) -> str:
    """An id as it is held here: what is no UTF-8 in it stays what it was."""
    return id_bytes.decode("utf-8", "surrogateescape")


def as_bytes(session_id: str) -> bytes:
    """An id as it is bound in a query."""
    return session_id.encode("utf-8", "surrogateescape")


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {name.decode("utf-8", "replace") for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")}


def _ids(database: Database, query: str) -> Iterator[tuple[bytes, bytes]]:
    after = b""

    def read_page(connection: sqlite3.Connection) -> list[tuple[bytes, bytes]]:
        return connection.execute(query, {"after": after, "count": MAX_PAGE_IDS}).fetchall()

    while page := database.read(read_page):
        if not all(isinstance(value, bytes) for row in page for value in row):
            raise BrokenDatabase("the database is of a form that is not known: a session's id is not text")
        yield from page
        after = page[-1][0]
