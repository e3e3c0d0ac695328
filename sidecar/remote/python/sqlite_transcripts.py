"""Any transcript of a database, wherever it lies: the twin of ``sidecar/stores/sqlite_transcripts.py``."""

# ruff: noqa: S608 (what is put into a query is the name of a table or column, from a constant; values are bound)

from __future__ import annotations

import os
import re
from itertools import islice
from typing import Any, Iterable, Iterator

from sidecar.remote.python.blocks import Compressed, Item, Lines, Skipped, chunk_reader, lines_of
from sidecar.remote.python.entries import entries
from sidecar.remote.python.errors import BrokenDatabase, Rewritten, Vanished
from sidecar.remote.python.files import FileReader, open_regular
from sidecar.remote.python.host import Host
from sidecar.remote.python.json_values import text_in
from sidecar.remote.python.limits import MAX_BOUND_IDS, MAX_SOUGHT_IDS, ZSTD_HEADER_BYTES
from sidecar.remote.python.sqlite_archives import Blob, JoinedLines, cold_rows
from sidecar.remote.python.sqlite_open import Database
from sidecar.remote.python.sqlite_rows import LiveReader, Reading, Row, time_ms
from sidecar.remote.python.sqlite_tables import ARCHIVES, COLD, EVENTS, IDENTITIES, Tables
from sidecar.remote.python.text import raw, spelled
from sidecar.remote.python.zstd import Zstd, compressed_lines, content_bytes, sent_on

_REASONS = {"reset", "deleted"}
_COLD_NAME = re.compile(r"[0-9a-f]{64}\.jsonl\.zst")


class Transcripts:
    """Any transcript of a database, as it comes: rows, cold storage or archive. Says what it knows in a ``Reading``.

    What is compressed is opened if ``opens`` and there is something to open it with, else given as it is.
    """

    def __init__(self, database: Database, tables: Tables, sessions_folder: str, host: Host, zstd: Zstd) -> None:
        self.tables = tables
        self._database = database
        self._live = LiveReader(database, tables)
        self._cold_folder = os.path.join(sessions_folder, "cold")
        self._host = host
        self._zstd = zstd

    def of_session(self, session_id: str, reading: Reading, opens: bool = True) -> Iterator[Item]:
        """Raises ``Vanished`` before anything, ``Rewritten`` or what tells of a failure at any time."""
        opens = opens and self._zstd.is_there
        if self.tables.has(EVENTS):
            try:
                for rows in self._live.pages(session_id, reading):
                    yield from self._items(rows, opens)
            except Vanished:
                pass
            else:
                return
        if not self.tables.has(COLD):
            raise Vanished
        yield from self._of_cold(session_id, reading, opens)

    def of_archive(self, name: str, reading: Reading, opens: bool = True) -> Iterator[Item]:
        """Raises as ``of_session`` does."""
        reason, reading_time, encoding = self._archive(name)
        reading.archived_as = reason if reason in _REASONS else None
        reading.written_at_ms = time_ms(reading_time)
        chunks = Blob(self._database, ARCHIVES, name).chunks()
        if encoding == "identity":
            yield from lines_of(chunk_reader(chunks))
        else:
            yield from compressed_lines(chunks, self._zstd if opens else None)

    def session_size_bytes(self, session_id: str) -> int:
        """The size of the transcript as JSONL; raises as ``of_session`` does."""
        if self.tables.has(EVENTS):
            try:
                return self._live.size_bytes(session_id)
            except Vanished:
                pass
        if not self.tables.has(COLD):
            raise Vanished
        raw_bytes = self._cold(session_id)[3]
        if not isinstance(raw_bytes, int):
            raise BrokenDatabase("the session is in cold storage, and its size is not known")
        return raw_bytes + 1  # OpenClaw counts no line feed after the last row.

    def archive_size_bytes(self, name: str) -> int | None:
        """The size of its transcript; ``None`` if only reading it would tell."""
        blob = Blob(self._database, ARCHIVES, name)
        if self._archive(name)[2] == "identity":
            return blob.size_bytes()
        head = blob.head(ZSTD_HEADER_BYTES)
        return content_bytes(head)

    def archive_chunks(self, name: str) -> Iterator[bytes]:
        """The archive as it lies there."""
        return Blob(self._database, ARCHIVES, name).chunks()

    def has_session(self, session_id: str) -> bool:
        """Whether it is there, live or cold."""
        return self._has(EVENTS, "session_id", session_id) or self._has(COLD, "session_id", session_id)

    def has_archive(self, name: str) -> bool:
        """Whether an archive of this name is a row."""
        return self._has(ARCHIVES, "archive_name", name)

    def has_entries(self, session_id: str, entry_ids: Iterable[str]) -> bool:
        """Whether the session is there and each of ``entry_ids`` is the id of an entry of it; raises ``Rewritten``."""
        if not self.has_session(session_id):
            return False
        left = iter(entry_ids)
        while True:
            sought = {entry_id.encode("utf-8", "replace") for entry_id in islice(left, MAX_SOUGHT_IDS)}
            if not sought:
                return True
            if self.tables.has(IDENTITIES):
                sought -= self._identified(session_id, list(sought))
            # Cold storage takes the identities with it.
            if sought and (self._has(COLD, "session_id", session_id) or not self.tables.has(IDENTITIES)):
                sought.difference_update(self._read_ids(session_id))
            if sought:
                return False

    def _read_ids(self, session_id: str) -> Iterator[bytes]:
        for item in self.of_session(session_id, Reading()):
            if isinstance(item, Lines):
                for entry in entries(item, self._host.tick):
                    entry_id = text_in(entry or {}, "id")
                    if entry_id is not None:
                        yield entry_id.encode("utf-8", "replace")

    def _identified(self, session_id: str, entry_ids: list[bytes]) -> set[bytes]:
        known: set[bytes] = set()
        for place in range(0, len(entry_ids), MAX_BOUND_IDS):
            some = entry_ids[place : place + MAX_BOUND_IDS]
            marks = ", ".join(["CAST(? AS TEXT)"] * len(some))
            query = f"SELECT event_id FROM {IDENTITIES} WHERE session_id = CAST(? AS TEXT) AND event_id IN ({marks})"
            known.update(row[0] for row in self._query(query, [raw(session_id), *some]))
        return known

    def _has(self, table: str, column: str, key: str) -> bool:
        if not self.tables.has(table, column):
            return False
        return bool(self._query(f"SELECT 1 FROM {table} WHERE {column} = CAST(? AS TEXT) LIMIT 1", [raw(key)]))

    def _query(self, query: str, bound: list[bytes]) -> list[Any]:
        rows: list[Any] = self._database.read(lambda connection: connection.execute(query, bound).fetchall())
        return rows

    def _row(self, query: str, key: str) -> list[Any]:
        rows = self._query(f"{query} = CAST(? AS TEXT)", [raw(key)])
        if not rows:
            raise Vanished
        return [spelled(value) if isinstance(value, bytes) else value for value in rows[0]]

    def _archive(self, name: str) -> list[Any]:
        row = self._row(f"SELECT reason, created_at, encoding FROM {ARCHIVES} WHERE archive_name", name)
        if row[2] not in {"identity", "zstd"}:
            raise BrokenDatabase(f"the archive is of an encoding that is not known: {row[2]}")
        return row

    def _cold(self, session_id: str) -> list[Any]:
        query = f"SELECT archive_name, storage, archived_at, raw_bytes FROM {COLD} WHERE session_id"
        return self._row(query, session_id)

    def _items(self, rows: list[Row], opens: bool) -> Iterator[Item]:
        """Rows as lines: those that come one after another, up to one that is too long or goes on as it is."""
        lines = JoinedLines()
        for row in rows:
            line = self._zstd.opened(row.frame, self._host.tick) if opens and row.frame is not None else row.text
            if line is not None:
                yield from lines.add(line)
                continue
            yield from lines.take()
            yield Skipped(1, row.size_bytes + 1) if row.frame is None else Compressed(["frame", row.seq], row.frame)
        yield from lines.take()

    def _of_cold(self, session_id: str, reading: Reading, opens: bool) -> Iterator[Item]:
        name, storage, archived_at, _ = self._cold(session_id)
        reading.written_at_ms = time_ms(archived_at)
        if not _COLD_NAME.fullmatch(str(name)):
            raise BrokenDatabase(f"the session is in cold storage, under a name that OpenClaw doesn't give: {name}")
        if storage == "sqlite":
            yield from self._cold_items(Blob(self._database, COLD, name).chunks(), reading, opens)
            return
        try:
            file = open_regular(os.path.join(self._cold_folder, name))
        except FileNotFoundError:
            # OpenClaw removes the file when it has put the rows back; while the database names it, it is lost.
            if self._cold(session_id)[0] != name:
                raise Rewritten from None
            raise
        try:
            yield from self._cold_items(FileReader(file, self._host.tick).chunks(), reading, opens)
        finally:
            os.close(file.fd)

    def _cold_items(self, chunks: Iterator[bytes], reading: Reading, opens: bool) -> Iterator[Item]:
        if not opens:
            yield from sent_on(chunks, "cold")
            return
        lines = JoinedLines()
        for text, created_at in cold_rows(lines_of(chunk_reader(self._zstd.expanded(chunks)))):
            reading.written_at_ms = time_ms(created_at)
            yield from lines.add(text)
        yield from lines.take()
