"""Transcripts in one piece, cold or archived: the twin of ``sidecar/stores/sqlite_archives.py``."""

from __future__ import annotations

import json
from typing import Any, Iterable, Iterator

from sidecar.remote.python.blocks import Lines, Skipped
from sidecar.remote.python.errors import BrokenCompression, BrokenDatabase, Vanished
from sidecar.remote.python.json_values import UNREADABLE, refuse
from sidecar.remote.python.limits import BLOB_PIECE_BYTES, BLOCK_BYTES, MAX_BLOB_PIECES
from sidecar.remote.python.optional_sqlite import sqlite3
from sidecar.remote.python.sqlite_open import Database
from sidecar.remote.python.text import raw


class Blob:
    """The blob of the archive of this name, read in pieces, each in a transaction."""

    def __init__(self, database: Database, table: str, archive_name: str) -> None:
        self._database = database
        self._from = f"FROM {table} WHERE archive_name = CAST(? AS TEXT)"
        self._name = raw(archive_name)

    def size_bytes(self) -> int:
        """Its size; ``Vanished`` if it has gone."""
        size_bytes = self._look(f"SELECT length(CAST(archive_blob AS BLOB)) {self._from}")
        if type(size_bytes) is not int:
            raise BrokenDatabase(f"SQLite {sqlite3.sqlite_version} can't read the database: an archive holds nothing")
        return size_bytes

    def head(self, count: int) -> bytes:
        """Its first bytes."""
        return bytes(self._look(f"SELECT substr(CAST(archive_blob AS BLOB), 1, {count}) {self._from}") or b"")

    def chunks(self) -> Iterator[bytes]:
        """All of it. Of each SQLite has to read the whole, so there are few."""
        count = max(BLOB_PIECE_BYTES, self.size_bytes() // MAX_BLOB_PIECES)
        place = 1
        while True:
            piece = self._look(f"SELECT substr(CAST(archive_blob AS BLOB), {place}, {count}) {self._from}")
            if not piece:
                return
            yield piece
            place += count

    def _look(self, query: str) -> Any:
        row = self._database.read(lambda connection: connection.execute(query, (self._name,)).fetchone())
        if row is None:
            raise Vanished
        return row[0]


class JoinedLines:
    """Gathers lines into blocks."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._size_bytes = 0

    def add(self, line: bytes) -> Iterator[Lines]:
        """Add a line without its end; gives a block once it is large."""
        # A line feed is white space there, if it is JSON at all.
        self._lines.append(line.replace(b"\n", b"\r") + b"\n")
        self._size_bytes += len(line)
        return self.take() if self._size_bytes >= BLOCK_BYTES else iter(())

    def take(self) -> Iterator[Lines]:
        """What has been gathered, if anything."""
        text = b"".join(self._lines)
        self._lines, self._size_bytes = [], 0
        return iter([Lines(text, 0, len(text))] if text else [])


def cold_rows(blocks: Iterable[Lines | Skipped]) -> Iterator[tuple[bytes, Any]]:
    """The texts and times of the rows in cold storage's records; ``BrokenCompression`` if they are none, to send on."""
    begun = False
    for block in blocks:
        if isinstance(block, Skipped):
            continue
        buffer, start, end = block
        while start < end:
            line_end = buffer.find(b"\n", start, end) + 1 or end
            try:
                record = json.loads(buffer[start:line_end], parse_constant=refuse)
                row = record.get("row") or {}
                text: Any = row.get("event_json")
                is_event = record["kind"] == "event" and text is not None
                event = (text.encode(), row.get("created_at", 0.0)) if is_event else None
            except (*UNREADABLE, AttributeError, KeyError, TypeError) as error:
                raise BrokenCompression(f"its cold archive can't be decoded: {error}") from None
            if event is not None:
                yield event
            elif not begun and record["kind"] != "header":
                raise BrokenCompression("its cold archive is of a form that is not known")
            begun = True
            start = line_end
