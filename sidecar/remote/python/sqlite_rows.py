"""Transcripts that are rows: the twin of ``sidecar/stores/sqlite_rows.py``."""

# ruff: noqa: S608 (what is put into a query is the name of a table or column, from a constant; values are bound)

from __future__ import annotations

from contextlib import closing
from typing import Any, Callable, Iterator, NamedTuple

from sidecar.remote.python.errors import BrokenDatabase, Rewritten, Vanished
from sidecar.remote.python.limits import BLOCK_BYTES, MAX_ENTRY_BYTES, MAX_MARK_BYTES, MAX_PAGE_ROWS, MAX_PAGE_SIZES
from sidecar.remote.python.optional_sqlite import sqlite3
from sidecar.remote.python.sqlite_open import Database
from sidecar.remote.python.sqlite_tables import EVENTS, GENERATIONS, Tables
from sidecar.remote.python.text import raw

_BEFORE_ALL = -(2**63)
_AFTER_ALL = 2**63 - 1
_NEITHER = "it is neither text nor zstd"
_THIS = "WHERE session_id = CAST(:id AS TEXT)"


class Reading:
    """What is known of a transcript that is being read, all of it once it was."""

    def __init__(self) -> None:
        self.written_at_ms = 0.0
        self.archived_as: str | None = None


class Position(NamedTuple):
    """How far the rows of a session were read; all of them, once ``after`` is ``last``.

    ``mark`` is a row that was read, and its text, by which to know whether they were rewritten where there is no
    generation.
    """

    after: int = _BEFORE_ALL
    last: int = _AFTER_ALL
    row_count: int = 0
    row_numbers: int = 0
    size_bytes: int = 0
    created_at: Any = None
    generation: Any = None
    mark: tuple[int, bytes] | None = None


class _Page:
    """The rows that a transaction adds to what was read before it."""

    def __init__(self, before: Position) -> None:
        self._before = before
        self._after = before.after
        self._created_at = before.created_at
        self._row_numbers = 0
        self.rows = 0
        self.size_bytes = 0
        self.mark = before.mark

    def add(self, seq: int, created_at: Any, row_number: int, size_bytes: int) -> None:
        self._after = seq
        self._created_at = created_at
        self._row_numbers += row_number
        self.rows += 1
        self.size_bytes += size_bytes + 1

    def end(self, is_whole: bool) -> Position:
        """Where the page has led; ``is_whole`` says that it has all the rows that there are."""
        before = self._before
        last = before.last
        if is_whole and self._after != last:
            if last != _AFTER_ALL:
                raise Rewritten  # The last row has gone, and others have come after it.
            last = self._after
        return before._replace(
            after=self._after,
            last=last,
            row_count=before.row_count + self.rows,
            row_numbers=before.row_numbers + self._row_numbers,
            size_bytes=before.size_bytes + self.size_bytes,
            created_at=self._created_at,
            mark=self.mark,
        )


class Row(NamedTuple):
    """A row: its text or its frame, neither if that is too large, and the size of what there is."""

    seq: int
    size_bytes: int
    text: bytes | None
    frame: bytes | None


class LiveReader:
    """Reads the rows of one session after another, as of ``sqlite_rows.py``: each page of them in one transaction."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._database = database
        frame = "event_zstd" if tables.has(EVENTS, "event_zstd") else "NULL"
        text_size = "length(CAST(event_json AS BLOB))"
        size = f"coalesce(event_utf8_bytes, {text_size})" if tables.has(EVENTS, "event_utf8_bytes") else text_size
        generation = "NULL"
        if tables.has(GENERATIONS, "generation"):
            generation = f"(SELECT generation FROM {GENERATIONS} {_THIS})"
        unread = f"FROM {EVENTS} {_THIS} AND seq > :after AND seq <= :last ORDER BY seq"
        self._state = f"SELECT max(seq), {generation} FROM {EVENTS} {_THIS}"
        self._numbers = f"SELECT count(*), sum(rowid) FROM {EVENTS} {_THIS} AND seq <= :after"
        self._marked = f"SELECT event_json FROM {EVENTS} {_THIS} AND seq = :after"
        self._rows = (
            f"SELECT seq, created_at, rowid, {text_size}, {_bounded('event_json', text_size)},"
            f" length({frame}), {_bounded(frame, f'length({frame})')} {unread} LIMIT {MAX_PAGE_ROWS}"
        )
        self._sizes = f"SELECT seq, created_at, rowid, {size} {unread} LIMIT {MAX_PAGE_SIZES}"

    def pages(self, session_id: str, reading: Reading) -> Iterator[list[Row]]:
        """The rows; ``Vanished`` if there are none, ``Rewritten``, ``Fault`` if they can't be read."""
        for position, rows in self._pages(session_id, self._read_rows):
            reading.written_at_ms = time_ms(position.created_at)
            yield rows

    def size_bytes(self, session_id: str) -> int:
        """What the lines would measure; raises as ``pages`` does."""
        size_bytes = 0
        for position, _ in self._pages(session_id, self._read_sizes):
            size_bytes = position.size_bytes
        return size_bytes

    def _pages(
        self,
        session_id: str,
        read: Callable[[sqlite3.Connection, dict[str, Any], Position], tuple[Position, list[Row]]],
    ) -> Iterator[tuple[Position, list[Row]]]:
        bound = {"id": raw(session_id)}
        position = Position()

        def read_page(connection: sqlite3.Connection) -> tuple[Position, list[Row]]:
            if position.row_count:
                self._check(connection, bound, position)
            page, rows = read(connection, bound, position)
            if not page.row_count:
                raise Vanished
            if page.after != page.last and page.last == _AFTER_ALL:
                last, generation = connection.execute(self._state, bound).fetchone()
                page = page._replace(last=last, generation=generation)
            return page, rows

        while position.after != position.last:
            position, rows = self._database.read(read_page)
            yield position, rows

    def _check(self, connection: sqlite3.Connection, bound: dict[str, Any], position: Position) -> None:
        """See that the rows which were read are still those that there are."""
        last, generation = connection.execute(self._state, bound).fetchone()
        if last is None or last < position.last or generation != position.generation:
            raise Rewritten
        if generation is None:
            numbers = connection.execute(self._numbers, {**bound, "after": position.after}).fetchone()
            if numbers != (position.row_count, position.row_numbers):
                raise Rewritten
            if position.mark is not None:
                seq, text = position.mark
                if connection.execute(self._marked, {**bound, "after": seq}).fetchone() != (text,):
                    raise Rewritten

    def _read_rows(
        self, connection: sqlite3.Connection, bound: dict[str, Any], position: Position
    ) -> tuple[Position, list[Row]]:
        """As many rows as make about a block, but one at least."""
        found: list[Row] = []
        page = _Page(position)
        bound = {**bound, "after": position.after, "last": position.last}
        with closing(connection.execute(self._rows, bound)) as rows:
            for seq, created_at, row_number, text_size, text, frame_size, frame in rows:
                row = _row(seq, text_size, text, frame_size, frame)
                found.append(row)
                page.add(seq, created_at, row_number, row.size_bytes)
                if row.text is not None and len(row.text) <= MAX_MARK_BYTES:
                    page.mark = seq, row.text
                if page.size_bytes >= BLOCK_BYTES:
                    return page.end(is_whole=False), found
        return page.end(is_whole=len(found) < MAX_PAGE_ROWS), found

    def _read_sizes(
        self, connection: sqlite3.Connection, bound: dict[str, Any], position: Position
    ) -> tuple[Position, list[Row]]:
        page = _Page(position)
        bound = {**bound, "after": position.after, "last": position.last}
        with closing(connection.execute(self._sizes, bound)) as rows:
            for seq, created_at, row_number, size_bytes in rows:
                if type(seq) is not int or type(size_bytes) is not int:
                    raise _undecodable(seq, _NEITHER)
                page.add(seq, created_at, row_number, size_bytes)
        return page.end(is_whole=page.rows < MAX_PAGE_SIZES), []


def _bounded(column: str, size: str) -> str:
    return f"CASE WHEN {size} <= {MAX_ENTRY_BYTES} THEN {column} END"


def _row(seq: Any, text_size: Any, text: Any, frame_size: Any, frame: Any) -> Row:
    if type(seq) is not int:  # though the table is strict: its pages may be damaged
        raise BrokenDatabase("the database is damaged: a row has no number")
    value, size = (frame, frame_size) if text_size is None else (text, text_size)
    if size is None or (value is not None and type(value) is not bytes):
        raise _undecodable(seq, _NEITHER)
    return Row(seq, size, text, frame if text_size is None else None)


def time_ms(value: Any) -> float:
    """A time of a column, which only a strict table can't hold something else in."""
    return float(value) if isinstance(value, (int, float)) else 0.0


def _undecodable(seq: Any, why: str) -> BrokenDatabase:
    return BrokenDatabase(f"row {seq} of the session can't be decoded: {why}")
