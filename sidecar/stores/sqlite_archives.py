"""Read the transcripts that lie in a database, or beside it, in one piece: cold storage and archives.

An archive is JSONL, as it is or as zstd. Cold storage is zstd of records, each a line: a header, every row of the
session as ``{"kind":"event","row":{"seq":0,"event_json":"…","created_at":0}}``, then what OpenClaw derives from them.
It takes the place of the rows until OpenClaw puts them back (openclaw: src/config/sessions/session-cold-storage*.ts).
"""

# ruff: noqa: S608 (what is put into a query is the name of a table, from a constant; values are bound)

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from sidecar.cancel import CancelToken
from sidecar.core.analysis import ArchivedAs
from sidecar.core.blocks import Block, ReadInto, RecordBlocks
from sidecar.core.transcript import REJECTED
from sidecar.core.zstd import HEADER_BYTES, ZstdReader, content_bytes
from sidecar.errors import BrokenDatabase
from sidecar.limits import ROW_PIECE_BYTES, ZSTD_READ_BYTES
from sidecar.stores.files import BoundedReader, open_regular
from sidecar.stores.sqlite_open import Database
from sidecar.stores.sqlite_rows import Lines, Progress, Rewritten, Vanished, time_ms
from sidecar.stores.sqlite_tables import ARCHIVES, COLD, as_bytes, as_text

T = TypeVar("T")
_REASONS: dict[str, ArchivedAs] = {"reset": "reset", "deleted": "deleted"}
_COLD_NAME = re.compile(r"[0-9a-f]{64}\.jsonl\.zst")


class _Row(msgspec.Struct, gc=False):
    seq: int = 0
    event_json: str | None = None
    created_at: float = 0.0


class _Record(msgspec.Struct, gc=False):
    kind: str
    row: _Row | None = None


_decode_record = msgspec.json.Decoder(_Record).decode


class BlobReader:
    """A ``ReadInto`` of the archive of this name: each call is a transaction, and goes on where the last one ended."""

    def __init__(self, database: Database, table: str, archive_name: str) -> None:
        self._database = database
        self._table = table
        self._name = archive_name
        self._place = 0

    def __call__(self, space: memoryview) -> int:
        data = self.read(len(space))
        space[: len(data)] = data
        self._place += len(data)
        return len(data)

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes, which the next call will give again."""

        def piece(blob: sqlite3.Blob) -> bytes:
            blob.seek(self._place)
            return blob.read(count)

        return self._look(piece)

    def size_bytes(self) -> int:
        return self._look(len)

    def _look(self, into: Callable[[sqlite3.Blob], T]) -> T:
        query = f"SELECT rowid FROM {self._table} WHERE archive_name = CAST(? AS TEXT)"

        def look(connection: sqlite3.Connection) -> T:
            found = connection.execute(query, (as_bytes(self._name),)).fetchone()
            if found is None:
                raise Vanished
            with connection.blobopen(self._table, "archive_blob", found[0], readonly=True) as blob:
                return into(blob)

        return self._database.read(look)


class PieceReader:
    """Reads one archived or cold session after another; ``progress`` tells of the one that is being read."""

    def __init__(self, database: Database, sessions_folder: str, token: CancelToken, lines: Lines) -> None:
        self.progress = Progress()
        self._database = database
        self._cold_folder = os.path.join(sessions_folder, "cold")
        self._token = token
        self._lines = lines
        self._blocks: RecordBlocks | None = None

    def archive_blocks(self, name: str) -> Iterator[Block]:
        """The transcript of an archive; ``Vanished`` if it has gone, ``SidecarError`` if it can't be read."""
        self.progress = Progress()
        reason, created_at, source = self._open_archive(name)
        self.progress.archived_as = _REASONS.get(reason)
        self.progress.written_at_ms = time_ms(created_at)
        yield from self._read(self._counted(source))

    def archive_size_bytes(self, name: str) -> int:
        """The size of its transcript, which only a compressed stream has to be read for."""
        blob = BlobReader(self._database, ARCHIVES, name)
        *_, source = self._open_archive(name)
        if not isinstance(source, ZstdReader):
            return blob.size_bytes()
        told_bytes = content_bytes(blob.read(HEADER_BYTES))
        if told_bytes is not None:
            return told_bytes
        size_bytes = 0
        space = memoryview(bytearray(ZSTD_READ_BYTES))
        while count := source(space):
            size_bytes += count
        return size_bytes

    def cold_blocks(self, session_id: str) -> Iterator[Block]:
        """The transcript of a session in cold storage; ``Vanished``, ``Rewritten``, ``OSError`` or ``SidecarError``."""
        self.progress = Progress()
        name, storage, archived_at, _ = self._cold_row(session_id)
        self.progress.written_at_ms = time_ms(archived_at)
        if not _COLD_NAME.fullmatch(str(name)):
            raise BrokenDatabase(f"the session is in cold storage, under a name that OpenClaw doesn't give: {name}")
        if storage == "sqlite":
            yield from self._lines_of_events(self._read(ZstdReader(BlobReader(self._database, COLD, name))))
            return
        try:
            file = open_regular(os.path.join(self._cold_folder, name))
        except FileNotFoundError:
            # OpenClaw removes the file when it has put the rows back; while the database names it, it is lost.
            if self._cold_row(session_id)[0] != name:
                raise Rewritten from None
            raise
        try:
            source = BoundedReader(file.fd, file.size_bytes, self._token)
            yield from self._lines_of_events(self._read(ZstdReader(source)))
        finally:
            os.close(file.fd)

    def cold_size_bytes(self, session_id: str) -> int:
        raw_bytes = self._cold_row(session_id)[3]
        if not isinstance(raw_bytes, int):
            raise BrokenDatabase("the session is in cold storage, and its size is not known")
        return raw_bytes + 1  # OpenClaw counts no line feed after the last row.

    def _open_archive(self, name: str) -> tuple[str, Any, ReadInto]:
        row = self._row(f"SELECT reason, created_at, encoding FROM {ARCHIVES} WHERE archive_name", name)
        reason, created_at, encoding = row
        blob = BlobReader(self._database, ARCHIVES, name)
        if encoding == "identity":
            return reason, created_at, blob
        if encoding == "zstd":
            return reason, created_at, ZstdReader(blob)
        raise BrokenDatabase(f"the archive is of an encoding that is not known: {encoding}")

    def _cold_row(self, session_id: str) -> list[Any]:
        return self._row(
            f"SELECT archive_name, storage, archived_at, raw_bytes FROM {COLD} WHERE session_id", session_id
        )

    def _row(self, query: str, key: str) -> list[Any]:
        def read(connection: sqlite3.Connection) -> Any:
            return connection.execute(f"{query} = CAST(? AS TEXT)", (as_bytes(key),)).fetchone()

        row = self._database.read(read)
        if row is None:
            raise Vanished
        return [as_text(value) if isinstance(value, bytes) else value for value in row]

    def _read(self, source: ReadInto) -> Iterator[Block]:
        if self._blocks is None:
            self._blocks = RecordBlocks()
        self._blocks.restart()
        while block := self._blocks.read(source):
            yield block
        self.progress.skipped_lines += self._blocks.overlong

    def _counted(self, source: ReadInto) -> ReadInto:
        def read_into(space: memoryview) -> int:
            count = source(space)
            self.progress.size_bytes += count
            return count

        return read_into

    def _lines_of_events(self, blocks: Iterator[Block]) -> Iterator[Block]:
        lines = self._lines
        lines.clear()
        for event in cold_events(blocks):
            text = event.event_json or ""
            most_bytes = 4 * len(text)
            if most_bytes > lines.room_bytes and (block := lines.block()):
                yield block
                lines.clear()
            if most_bytes <= lines.room_bytes:
                size_bytes = lines.add(text.encode())
            else:
                size_bytes = lines.add_pieces(_encoded(text)) or 0
            self.progress.count(event.seq, event.created_at, 0, size_bytes)
        if block := lines.block():
            yield block


def _encoded(text: str) -> Iterator[bytes]:
    return (text[place : place + ROW_PIECE_BYTES].encode() for place in range(0, len(text), ROW_PIECE_BYTES))


def cold_events(blocks: Iterator[Block]) -> Iterator[_Row]:
    """The rows in the records of cold storage; ``BrokenDatabase`` if they are no such records."""
    begun = False
    for buffer, begin, end in blocks:
        start = begin
        while start < end:
            line_end = buffer.find(b"\n", start, end) + 1 or end
            try:
                with memoryview(buffer) as view, view[start:line_end] as line:
                    record = _decode_record(line)
            except REJECTED as error:
                raise BrokenDatabase(f"its cold archive can't be decoded: {error}") from None
            if record.kind == "event" and record.row is not None and record.row.event_json is not None:
                yield record.row
            elif not begun and record.kind != "header":
                raise BrokenDatabase("its cold archive is of a form that is not known")
            begun = True
            start = line_end
