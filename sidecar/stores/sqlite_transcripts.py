"""Any transcript of a database by its session's id or its archive's name, wherever it lies: rows, cold, archived."""

# ruff: noqa: S608 (what is put into a query is the name of a table or column, from a constant; values are bound)

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import msgspec

from sidecar.cancel import CancelToken
from sidecar.core.blocks import Block
from sidecar.core.transcript import REJECTED
from sidecar.errors import SourceUnreadable
from sidecar.limits import MAX_BOUND_IDS, MAX_REREADS, MAX_SOUGHT_IDS
from sidecar.stores.sqlite_archives import PieceReader
from sidecar.stores.sqlite_open import Database
from sidecar.stores.sqlite_rows import Lines, LiveReader, Progress, Rewritten, Vanished
from sidecar.stores.sqlite_tables import ARCHIVES, COLD, EVENTS, IDENTITIES, Tables, as_bytes
from sidecar.text import mend_surrogates

T = TypeVar("T")


class _Identified(msgspec.Struct, gc=False):
    id: str


_decode_identified = msgspec.json.Decoder(_Identified).decode


class Transcripts:
    """Reads one transcript at a time; what is known of it is in ``progress`` once its blocks were taken."""

    def __init__(self, database: Database, tables: Tables, sessions_folder: str, token: CancelToken) -> None:
        lines = Lines()
        self.tables = tables
        self._database = database
        self._live = LiveReader(database, tables, lines)
        self._pieces = PieceReader(database, sessions_folder, token, lines)
        self._reader: LiveReader | PieceReader = self._live

    @property
    def progress(self) -> Progress:
        return self._reader.progress

    def of_session(self, session_id: str) -> Generator[Block, None, None]:
        """Raises ``Vanished`` before the first block, ``Rewritten`` or what tells of a failure at any."""
        if self.tables.has(EVENTS):
            self._reader = self._live
            try:
                yield from self._live.blocks(session_id)
            except Vanished:
                pass
            else:
                return
        if not self.tables.has(COLD):
            raise Vanished
        self._reader = self._pieces
        yield from self._pieces.cold_blocks(session_id)

    def of_archive(self, name: str) -> Generator[Block, None, None]:
        """Raises as ``of_session`` does."""
        self._reader = self._pieces
        yield from self._pieces.archive_blocks(name)

    def session_size_bytes(self, session_id: str) -> int:
        """The size of the transcript as JSONL; raises as ``of_session`` does."""
        if self.tables.has(EVENTS):
            try:
                return self._live.size_bytes(session_id)
            except Vanished:
                pass
        if not self.tables.has(COLD):
            raise Vanished
        return self._pieces.cold_size_bytes(session_id)

    def archive_size_bytes(self, name: str) -> int:
        return self._pieces.archive_size_bytes(name)

    def has_session(self, session_id: str) -> bool:
        return self._has(EVENTS, "session_id", session_id) or self._has(COLD, "session_id", session_id)

    def has_archive(self, name: str) -> bool:
        return self._has(ARCHIVES, "archive_name", name)

    def has_entries(self, session_id: str, entry_ids: Iterable[str]) -> bool:
        """Whether the session is there and each of ``entry_ids`` is the id of an entry of it; raises ``Rewritten``."""
        if not self.has_session(session_id):
            return False
        left = iter(entry_ids)
        while sought := {entry_id.encode("utf-8", "replace") for entry_id in islice(left, MAX_SOUGHT_IDS)}:
            if self.tables.has(IDENTITIES):
                sought -= self._identified(session_id, list(sought))
            # Cold storage takes the identities with it.
            if sought and (self._has(COLD, "session_id", session_id) or not self.tables.has(IDENTITIES)):
                for block in self.of_session(session_id):
                    sought.difference_update(_entry_ids(block))
            if sought:
                return False
        return True

    def _identified(self, session_id: str, entry_ids: list[bytes]) -> set[bytes]:
        known: set[bytes] = set()
        for place in range(0, len(entry_ids), MAX_BOUND_IDS):
            some = entry_ids[place : place + MAX_BOUND_IDS]
            marks = ", ".join(["CAST(? AS TEXT)"] * len(some))
            query = f"SELECT event_id FROM {IDENTITIES} WHERE session_id = CAST(? AS TEXT) AND event_id IN ({marks})"
            known.update(row[0] for row in self._query(query, [as_bytes(session_id), *some]))
        return known

    def _has(self, table: str, column: str, key: str) -> bool:
        if not self.tables.has(table, column):
            return False
        return bool(self._query(f"SELECT 1 FROM {table} WHERE {column} = CAST(? AS TEXT) LIMIT 1", [as_bytes(key)]))

    def _query(self, query: str, bound: list[bytes]) -> list[tuple[bytes, ...]]:
        def read(connection: sqlite3.Connection) -> list[tuple[bytes, ...]]:
            return connection.execute(query, bound).fetchall()

        return self._database.read(read)


def in_one_state(read: Callable[[], T]) -> T:
    """What ``read`` gives; it is called again when the session turned out to be rewritten, or moved, meanwhile.

    ``Vanished`` if it has gone, ``SourceUnreadable`` if it is rewritten all the time.
    """
    for attempt in range(1, MAX_REREADS + 1):
        try:
            return read()
        except Rewritten:
            continue
        except Vanished:
            if attempt == MAX_REREADS:
                raise
    raise rewritten_meanwhile()


def rewritten_meanwhile() -> SourceUnreadable:
    """For one who can't begin again, or did too often."""
    return SourceUnreadable("the session was rewritten while it was read; try again")


def _entry_ids(block: Block) -> Iterator[bytes]:
    buffer, start, end = block
    while start < end:
        line_end = buffer.find(b"\n", start, end) + 1 or end
        entry_id = _entry_id(buffer, start, line_end)
        if entry_id is None and mend_surrogates(buffer, start, line_end):
            entry_id = _entry_id(buffer, start, line_end)
        if entry_id is not None:
            yield entry_id.encode()
        start = line_end


def _entry_id(buffer: bytearray, start: int, end: int) -> str | None:
    try:
        with memoryview(buffer) as view, view[start:end] as line:
            return _decode_identified(line).id
    except REJECTED:
        return None
