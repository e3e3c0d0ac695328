"""What a database holds: the twin of ``sidecar/stores/sqlite_tables.py``."""

# ruff: noqa: S608 (what is put into a query is the name of a table or column, from a constant; values are bound)

from __future__ import annotations

from contextlib import closing
from heapq import merge
from typing import Any, Callable, Container, Iterator, NamedTuple

from sidecar.remote.python.errors import BrokenDatabase
from sidecar.remote.python.limits import MAX_INDEX_ENTRY_BYTES, MAX_PAGE_IDS
from sidecar.remote.python.optional_sqlite import sqlite3
from sidecar.remote.python.sqlite_open import Database
from sidecar.remote.python.text import spelled

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


class Tables(NamedTuple):
    """The columns of the tables that matter; none for a table that isn't there."""

    columns: dict[str, Container[str]]
    indexed_in: str | None
    """The table that took the place of ``sessions.json``."""

    def has(self, table: str, column: str = "session_id") -> bool:
        """Whether there is such a column."""
        return column in self.columns[table]


class ArchiveRow(NamedTuple):
    """The name of a row of ``session_transcript_archives``, and the id of the session that it was."""

    name: str
    session_id: str


def look_up_tables(database: Database) -> Tables:
    """``BrokenDatabase`` if a table that holds transcripts is of a form that is not known."""

    def read(connection: sqlite3.Connection) -> dict[str, set[str]]:
        if connection.execute("PRAGMA encoding").fetchone() != (b"UTF-8",):
            raise BrokenDatabase("the database is in UTF-16, which OpenClaw doesn't write")
        found = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        columns = {table: _columns(connection, table) for table in (*_NEEDED, *_INDEXES, IDENTITIES, GENERATIONS)}
        for table in columns:
            # What lets an older SQLite read STRICT tables lets it pass over a schema that is damaged as well.
            if table.encode() in found and not columns[table]:
                raise BrokenDatabase(f"the database is damaged: its table {table} can't be read")
        return columns

    columns = database.read(read)
    for table, needed in _NEEDED.items():
        missing = needed - columns[table]
        if columns[table] and missing:
            named = ", ".join(sorted(missing))
            raise BrokenDatabase(f"the database is of a form that is not known: its table {table} has no {named}")
    indexed_in = next((table for table in _INDEXES if columns[table] >= {"session_key", "entry_json"}), None)
    return Tables(columns, indexed_in)


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {name.decode("utf-8", "replace") for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")}


def session_ids(database: Database, tables: Tables) -> Iterator[str]:
    """The ids of the sessions that have rows, or had before they were put into cold storage, in order."""
    queries = [query for table, query in ((EVENTS, _NEXT_LIVE), (COLD, _NEXT_COLD)) if tables.has(table)]
    before = None
    for session_id, _ in merge(*(_ids(database, query) for query in queries), key=lambda row: row[0]):
        if session_id != before:
            yield spelled(session_id)
        before = session_id


def archive_rows(database: Database, tables: Tables) -> Iterator[ArchiveRow]:
    """The archives that are rows, in order of their names."""
    if tables.has(ARCHIVES):
        for name, session_id in _ids(database, _NEXT_ARCHIVED):
            yield ArchiveRow(spelled(name), spelled(session_id))


def _ids(database: Database, query: str) -> Iterator[tuple[bytes, bytes]]:
    after = b""

    def read_page(connection: sqlite3.Connection) -> Any:
        return connection.execute(query, {"after": after, "count": MAX_PAGE_IDS}).fetchall()

    while True:
        page = database.read(read_page)
        if not page:
            return
        if not all(isinstance(value, bytes) for row in page for value in row):
            raise BrokenDatabase("the database is of a form that is not known: a session's id is not text")
        yield from page
        after = page[-1][0]


def read_index_table(database: Database, table: str, remember: Callable[[Any], None]) -> None:
    """Hand every entry of the index to ``remember``, perhaps twice; for one that is too large, ``None``."""
    query = (
        f"SELECT session_key, CASE WHEN length(CAST(entry_json AS BLOB)) <= {MAX_INDEX_ENTRY_BYTES} THEN entry_json END"
        f" FROM {table} WHERE session_key > CAST(:after AS TEXT) ORDER BY session_key LIMIT {MAX_PAGE_IDS}"
    )
    after = b""

    def read_page(connection: sqlite3.Connection) -> Any:
        last = None
        with closing(connection.execute(query, {"after": after})) as rows:
            for key, entry in rows:
                remember(entry)
                last = key
        return last

    while True:
        last = database.read(read_page)
        if last is None:
            return
        after = last
