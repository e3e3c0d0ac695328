"""Read the transcripts that are rows of ``transcript_events`` as blocks of lines, a page in each short transaction.

A row is one line: text, or since schema 23 one zstd frame. Most are small and come many at once; one that is large is
copied into the block piece by piece, so that it costs itself and no more.
"""

# ruff: noqa: S608 (what is put into a query is the name of a table or column, from a constant; values are bound)

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, cast

from sidecar.core.analysis import ArchivedAs
from sidecar.core.blocks import Block
from sidecar.core.zstd import HEADER_BYTES, ZstdReader, content_bytes, decompress, pieces
from sidecar.errors import BrokenCompression, BrokenDatabase
from sidecar.limits import (
    BLOCK_BYTES,
    BLOCK_GROWTH_BYTES,
    MAX_ENTRY_BYTES,
    MAX_PAGE_ROWS,
    MAX_PAGE_SIZES,
    ROW_PIECE_BYTES,
)
from sidecar.stores.sqlite_open import Database
from sidecar.stores.sqlite_tables import EVENTS, GENERATIONS, Tables, as_bytes

LF = 0x0A
_BEFORE_ALL = -(2**63)
_AFTER_ALL = 2**63 - 1
_NEITHER = "it is neither text nor zstd"
_THIS = "WHERE session_id = CAST(:id AS TEXT)"


class Rewritten(Exception):
    """What was read of a transcript and what is left of it are not of one state: begin again."""


class Vanished(Exception):
    """There is no such session any more."""


class Lines:
    """A block in the making: lines packed into one buffer, which is used again and again.

    A line feed within a line, which is white space there if it is JSON at all, becomes another such character.
    """

    def __init__(self) -> None:
        self.buffer = bytearray(BLOCK_BYTES)
        self.end = 0

    def clear(self) -> None:
        del self.buffer[BLOCK_BYTES:]
        self.end = 0

    @property
    def room_bytes(self) -> int:
        """The size of the longest line that fits."""
        return BLOCK_BYTES - self.end - 1

    def add(self, line: bytes) -> int:
        """Add one that fits; its size."""
        stop = self.end + len(line)
        self.buffer[self.end : stop] = line.replace(b"\n", b"\r")
        self.buffer[stop] = LF
        self.end = stop + 1
        return len(line)

    def add_pieces(self, pieces: Iterable[bytes]) -> int | None:
        """Add one of any size; its size, or ``None`` for one over ``MAX_ENTRY_BYTES``, which is left out again."""
        stop = self.end
        for piece in pieces:
            start, stop = stop, stop + len(piece)
            if stop - self.end > MAX_ENTRY_BYTES:
                return None
            if stop >= len(self.buffer):
                self.buffer.extend(bytes(max(BLOCK_GROWTH_BYTES, stop // 8)))
            self.buffer[start:stop] = piece.replace(b"\n", b"\r")
        self.buffer[stop] = LF
        size_bytes = stop - self.end
        self.end = stop + 1
        return size_bytes

    def block(self) -> Block | None:
        """What was added since the last ``clear``, if anything was."""
        return Block(self.buffer, 0, self.end) if self.end else None


@dataclass(slots=True)
class Progress:
    """How far a transcript was read, and what is known of that; all of it, once ``after`` is ``last``."""

    size_bytes: int = 0
    skipped_lines: int = 0
    written_at_ms: float = 0.0
    archived_as: ArchivedAs = None
    rows: int = 0
    row_numbers: int = 0
    after: int = _BEFORE_ALL
    last: int = _AFTER_ALL
    generation: Any = None
    # A row that was read, and its text, by which to know whether they were rewritten where there is no generation.
    mark: tuple[int, bytes] | None = None

    def count(self, seq: int, created_at: Any, row_number: int, size_bytes: int) -> None:
        self.after = seq
        self.rows += 1
        self.row_numbers += row_number
        self.size_bytes += size_bytes + 1
        self.written_at_ms = time_ms(created_at)


class LiveReader:
    """Reads the rows of one session after another as they stood when its reading began: later ones are a later state.

    That they are of one state is seen by the generation that OpenClaw gives them anew when it rewrites them, and where
    there is none (schema 8) by their count, the numbers that SQLite gave them, and the text of one. ``progress`` tells
    of the session that is being read.
    """

    def __init__(self, database: Database, tables: Tables, lines: Lines) -> None:
        self.progress = Progress()
        self._database = database
        self._lines = lines
        self._bound: dict[str, Any] = {}
        frame = "event_zstd" if tables.has(EVENTS, "event_zstd") else "NULL"
        size = "length(CAST(event_json AS BLOB))"
        if tables.has(EVENTS, "event_utf8_bytes"):
            size = f"coalesce(event_utf8_bytes, {size})"
        generation = "NULL"
        if tables.has(GENERATIONS, "generation"):
            generation = f"(SELECT generation FROM {GENERATIONS} {_THIS})"
        unread = f"FROM {EVENTS} {_THIS} AND seq > :after AND seq <= :last ORDER BY seq"
        self._state = f"SELECT max(seq), {generation} FROM {EVENTS} {_THIS}"
        self._numbers = f"SELECT count(*), sum(rowid) FROM {EVENTS} {_THIS} AND seq <= :after"
        self._marked = f"SELECT event_json FROM {EVENTS} {_THIS} AND seq = :after"
        self._small = f"SELECT seq, created_at, rowid, event_json, {frame} {unread} LIMIT {MAX_PAGE_ROWS}"
        self._sizes = f"SELECT seq, created_at, rowid, {size} {unread} LIMIT {MAX_PAGE_SIZES}"
        self._next = f"SELECT seq, created_at, rowid, typeof(event_json), typeof({frame}) {unread} LIMIT 1"

    def blocks(self, session_id: str) -> Iterator[Block]:
        """The rows as lines; ``Vanished`` if there are none, ``Rewritten``, ``SidecarError`` if they can't be read."""
        for _ in self._pages(session_id, self._fill):
            if block := self._lines.block():
                yield block

    def size_bytes(self, session_id: str) -> int:
        """What the lines would measure, without reading more of them than must be; raises as ``blocks`` does."""
        for _ in self._pages(session_id, self._measure):
            pass
        return self.progress.size_bytes

    def _pages(self, session_id: str, add: Callable[[sqlite3.Connection, Progress], None]) -> Iterator[None]:
        self.progress = Progress()
        self._bound = {"id": as_bytes(session_id)}

        def read_page(connection: sqlite3.Connection) -> Progress:
            # What was known before stays as it was, for this may be asked again.
            page = copy.copy(self.progress) if self.progress.rows else Progress()
            if page.rows:
                self._check(connection, page)
            add(connection, page)
            if not page.rows:
                raise Vanished
            if page.after != page.last and page.last == _AFTER_ALL:
                page.last, page.generation = connection.execute(self._state, self._bound).fetchone()
            return page

        while self.progress.after != self.progress.last:
            self.progress = self._database.read(read_page)
            yield

    def _check(self, connection: sqlite3.Connection, page: Progress) -> None:
        """See that the rows which were read are still those that there are."""
        last, generation = connection.execute(self._state, self._bound).fetchone()
        if last is None or last < page.last or generation != page.generation:
            raise Rewritten
        if generation is None:
            numbers = connection.execute(self._numbers, self._unread(page)).fetchone()
            if numbers != (page.rows, page.row_numbers) or not self._is_as_marked(connection, page):
                raise Rewritten

    def _is_as_marked(self, connection: sqlite3.Connection, page: Progress) -> bool:
        if page.mark is None:
            return True
        seq, text = page.mark
        try:
            row = connection.execute(self._marked, {**self._bound, "after": seq}).fetchone()
        except sqlite3.DataError:
            return False
        return bool(row == (text,))

    def _fill(self, connection: sqlite3.Connection, page: Progress) -> None:
        self._lines.clear()
        while page.after != page.last:
            stopped_at = self._add_small(connection, page)
            if stopped_at == "full" or (stopped_at == "large" and not self._add_large(connection, page)):
                break

    def _add_small(self, connection: sqlite3.Connection, page: Progress) -> Literal["full", "large", "last"]:
        """Add rows until the page is full, or the next row is large, or there is none."""
        buffer, end = self._lines.buffer, self._lines.end
        stopped_at: Literal["full", "large", "last"] = "last"
        count = row_numbers = 0
        seq, created_at, mark = page.after, None, page.mark
        # All in one place: a call for each row would take longer than to read it.
        try:
            with closing(connection.execute(self._small, self._unread(page))) as rows:
                for next_seq, next_created_at, row_number, text, frame in rows:
                    line = text
                    if line is None and type(frame) is bytes:
                        line = _decompressed(next_seq, frame, BLOCK_BYTES - end - 1)
                        if line is None:
                            stopped_at = "large"
                            break
                    if type(line) is not bytes:
                        raise undecodable(next_seq, _NEITHER)
                    stop = end + len(line)
                    if stop >= BLOCK_BYTES:
                        stopped_at = "full"
                        break
                    buffer[end:stop] = line.replace(b"\n", b"\r") if b"\n" in line else line
                    buffer[stop] = LF
                    end = stop + 1
                    count += 1
                    row_numbers += row_number
                    seq, created_at = next_seq, next_created_at
                    if text is not None:
                        mark = (seq, text)
        except sqlite3.DataError:
            stopped_at = "large"
        if type(seq) is not int:  # though the table is strict: its pages may be damaged
            raise BrokenDatabase("the database is damaged: a row has no number")
        if count:
            page.after = seq
            page.rows += count
            page.row_numbers += row_numbers
            page.size_bytes += end - self._lines.end
            page.written_at_ms = time_ms(created_at)
            page.mark = mark
            self._lines.end = end
        if stopped_at == "last":
            return "full" if _is_cut_off(page, count, MAX_PAGE_ROWS) else "last"
        return stopped_at

    def _add_large(self, connection: sqlite3.Connection, page: Progress) -> bool:
        """Add the next row, whatever its size, if the page is empty or it fits; False if not."""
        seq, created_at, row_number, text_type, frame_type = self._next_row(connection, page)
        is_text = text_type != b"null"
        if (text_type if is_text else frame_type) not in (b"text", b"blob"):
            raise undecodable(seq, _NEITHER)
        column = "event_json" if is_text else "event_zstd"
        with connection.blobopen(EVENTS, column, row_number, readonly=True) as blob:
            try:
                size_bytes = len(blob) if is_text else content_bytes(blob.read(HEADER_BYTES))
                if self._lines.end and (size_bytes is None or size_bytes > self._lines.room_bytes):
                    return False
                blob.seek(0)
                added_bytes = None
                if size_bytes is None or size_bytes <= MAX_ENTRY_BYTES:
                    added_bytes = self._lines.add_pieces(_pieces(blob) if is_text else _decompressed_pieces(blob))
            except BrokenCompression as error:
                raise undecodable(seq, error.message) from None
        if added_bytes is None:
            page.skipped_lines += 1
            added_bytes = size_bytes or MAX_ENTRY_BYTES
        page.count(seq, created_at, row_number, added_bytes)
        return True

    def _measure(self, connection: sqlite3.Connection, page: Progress) -> None:
        rows_before = page.rows
        try:
            with closing(connection.execute(self._sizes, self._unread(page))) as rows:
                for seq, created_at, row_number, size_bytes in rows:
                    if type(seq) is not int or type(size_bytes) is not int:
                        raise undecodable(seq, _NEITHER)
                    page.count(seq, created_at, row_number, size_bytes)
        except sqlite3.DataError:
            seq, created_at, row_number, *_ = self._next_row(connection, page)
            with connection.blobopen(EVENTS, "event_json", row_number, readonly=True) as blob:
                page.count(seq, created_at, row_number, len(blob))
        else:
            _is_cut_off(page, page.rows - rows_before, MAX_PAGE_SIZES)

    def _next_row(self, connection: sqlite3.Connection, page: Progress) -> tuple[int, Any, int, Any, Any]:
        row = connection.execute(self._next, self._unread(page)).fetchone()
        if row is None or type(row[0]) is not int:
            raise BrokenDatabase("the database is damaged: a row has no number")
        return cast("tuple[int, Any, int, Any, Any]", row)

    def _unread(self, page: Progress) -> dict[str, Any]:
        return {**self._bound, "after": page.after, "last": page.last}


def _is_cut_off(page: Progress, count: int, limit: int) -> bool:
    """Whether there may be more rows than the ``count`` that a page got; if not, the last one is known."""
    if count == limit and page.after != page.last:
        return True
    if page.last == _AFTER_ALL:
        page.last = page.after
    elif page.after != page.last:
        raise Rewritten  # The last row has gone, and others have come after it.
    return False


def time_ms(value: Any) -> float:
    """A time of a column, which only a strict table can't hold something else in."""
    return float(value) if isinstance(value, int | float) else 0.0


def _decompressed(seq: int, frame: bytes, max_bytes: int) -> bytes | None:
    try:
        return decompress(frame, max_bytes)
    except BrokenCompression as error:
        raise undecodable(seq, error.message) from None


def _pieces(blob: sqlite3.Blob) -> Iterator[bytes]:
    return iter(lambda: blob.read(ROW_PIECE_BYTES), b"")


def _decompressed_pieces(blob: sqlite3.Blob) -> Iterator[bytes]:
    def read_into(space: memoryview) -> int:
        data = blob.read(len(space))
        space[: len(data)] = data
        return len(data)

    return pieces(ZstdReader(read_into))


def undecodable(seq: int, why: str) -> BrokenDatabase:
    """What is said of a row of the session in hand that holds no text."""
    return BrokenDatabase(f"row {seq} of the session can't be decoded: {why}")
