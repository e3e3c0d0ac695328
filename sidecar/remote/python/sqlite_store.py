"""The sessions in an agent's database: the twin of ``sidecar/stores/sqlite.py``."""

from __future__ import annotations

import os
from functools import partial
from heapq import merge
from itertools import chain
from typing import Any, Callable, Iterable, Iterator, NamedTuple

from sidecar.remote.python.blocks import Item
from sidecar.remote.python.errors import FAULTS, BrokenCompression, BrokenIndex, Fault, Rewritten, Vanished
from sidecar.remote.python.host import Host
from sidecar.remote.python.limits import MAX_REREADS
from sidecar.remote.python.locations import Agent
from sidecar.remote.python.optional_sqlite import sqlite3
from sidecar.remote.python.session_index import SessionIndex, decode_members
from sidecar.remote.python.session_names import LIVE_FOLDER, indexed_id
from sidecar.remote.python.session_record import Count, Session
from sidecar.remote.python.sqlite_open import Database
from sidecar.remote.python.sqlite_rows import Reading
from sidecar.remote.python.sqlite_tables import ArchiveRow, archive_rows, look_up_tables, read_index_table, session_ids
from sidecar.remote.python.sqlite_transcripts import Transcripts
from sidecar.remote.python.text import file_name, raw, wire_name
from sidecar.remote.python.zstd import Zstd, sent_on

DATABASE = os.path.join("agent", "openclaw-agent.sqlite")
_DATABASE_FILE = os.path.basename(DATABASE)


class Place(NamedTuple):
    """Where in the database a transcript is: the session of this id, or the archive of this name."""

    name: str
    kind: str
    indexed_id: str


class SqliteStore:
    """The sessions in one agent's database, as ``sidecar/stores/sqlite.py``: by id, then archives by name."""

    def __init__(self, agent: Agent, host: Host, zstd: Zstd) -> None:
        self._agent = wire_name(agent.name)
        self._path = os.path.join(agent.path, DATABASE)
        self._sessions_folder = os.path.join(agent.path, LIVE_FOLDER)
        self._host = host
        self._zstd = zstd
        self._database = Database(self._path, host)
        self._transcripts: Transcripts | None = None
        self._ids: list[str] = []
        self._archives: list[ArchiveRow] = []
        self._beside: list[ArchiveRow] = []
        self._known: set[str] = set()
        self._listed = False
        self._vanished = 0

    @property
    def sessions_total(self) -> int:
        """How many sessions are known here; goes down when one vanishes before it is read."""
        self._list()
        return len(self._ids) + len(self._archives) - self._vanished

    def __contains__(self, session_id: str) -> bool:
        """Whether the session of this wire name is in the database; being archived there doesn't count."""
        self._list()
        return file_name(session_id) in self._known

    def ids(self) -> list[str]:
        """The wire names of all sessions and archives here, also of archives that are files; ``FAULTS``."""
        try:
            self._find()
            return [wire_name(name) for name in chain(self._ids, (row.name for row in self._archives + self._beside))]
        finally:
            self.close()

    def holds_entries(self, session_id: str, entry_ids: Iterable[str]) -> bool:
        """Whether the session is in the database with all entries of these ids; False if that can't be read."""
        try:
            transcripts = self._open()
            return transcripts is not None and transcripts.has_entries(file_name(session_id), entry_ids)
        except (*FAULTS, Rewritten, Vanished):
            return False  # Not proved; and why it can't be read, its analysis tells.

    def close(self) -> None:
        """Let go of the database; what is asked next opens it again."""
        self._database.close()

    def analyse(self) -> Iterator[None]:
        """Say what each session holds; gives after each."""
        try:
            self._list()
            index = self._read_index()
            for place in chain(self._live_places(), self._archive_places()):
                self._analyse_place(place, index)
                yield
        finally:
            self.close()

    def transcript(self, session_id: str) -> Iterator[Item] | None:
        """The transcript of a session or archive as it lies there; ``None`` if it isn't here. ``FAULTS``, here too."""
        name = file_name(session_id)
        transcripts = self._open()
        if transcripts is not None and transcripts.has_session(name):
            return _in_one_go(transcripts.of_session(name, Reading(), opens=False))
        if transcripts is not None and transcripts.has_archive(name) and not self._lies_beside(name):
            return _in_one_go(transcripts.of_archive(name, Reading(), opens=False))
        self.close()
        return None

    def files(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Of each session and archive its relative path, and what says its record."""
        self._list()
        for place in merge(self._live_places(), self._archive_places(), key=lambda place: place.name):
            relative_path = f"agents/{self._agent}/agent/{_DATABASE_FILE}#{wire_name(place.name)}"
            yield relative_path, partial(self._say_file, place, relative_path)

    def _say_file(self, place: Place, relative_path: str) -> None:
        try:
            size_bytes = _in_one_state(partial(self._size_bytes, place))
        except Vanished:
            return
        except FAULTS as error:
            self._host.failed(self._shown(place), error)
        else:
            self._host.output.say("file", wire_name(self._path), relative_path, self._agent, place.kind, size_bytes)

    def _open(self) -> Transcripts | None:
        """What reads the transcripts; ``None`` if there is no database."""
        if sqlite3 is None:
            raise Fault("the database needs Node 22.13 or newer, or Python 3 with sqlite3, on the host")
        if self._transcripts is None and os.path.lexists(raw(self._path)):
            tables = look_up_tables(self._database)
            self._transcripts = Transcripts(self._database, tables, self._sessions_folder, self._host, self._zstd)
        return self._transcripts

    def _list(self) -> None:
        """Find out, once, which sessions and archives there are; those that were found before a failure stay."""
        if self._listed:
            return
        self._listed = True
        try:
            self._find()
        except FAULTS as error:
            self._host.failed(self._path, error)
        self._known = set(self._ids)

    def _find(self) -> None:
        transcripts = self._open()
        if transcripts is not None:
            self._ids.extend(session_ids(self._database, transcripts.tables))
            for row in archive_rows(self._database, transcripts.tables):
                (self._beside if self._lies_beside(row.name) else self._archives).append(row)

    def _lies_beside(self, archive_name: str) -> bool:
        """Whether the archive is also a file, which is listed where files are."""
        if os.path.basename(archive_name) != archive_name or "\0" in archive_name:
            return False
        return os.path.isfile(raw(os.path.join(self._sessions_folder, archive_name)))

    def _live_places(self) -> Iterator[Place]:
        return (Place(session_id, "sessions", indexed_id(session_id)) for session_id in self._ids)

    def _archive_places(self) -> Iterator[Place]:
        return (Place(name, "archive", indexed_id(session_id)) for name, session_id in self._archives)

    def _shown(self, place: Place) -> str:
        return f"{self._path}#{place.name}"

    def _read_index(self) -> SessionIndex:
        index = SessionIndex(place.indexed_id for place in chain(self._live_places(), self._archive_places()))
        table = self._transcripts and self._transcripts.tables.indexed_in
        if not table or not (self._ids or self._archives):
            return index
        unreadable = False

        def remember(entry: Any) -> None:
            nonlocal unreadable
            members = decode_members(b'{"":%b}' % entry) if isinstance(entry, bytes) else None
            unreadable = unreadable or members is None
            index.remember(members or ())

        try:
            read_index_table(self._database, table, remember)
            if unreadable:
                raise BrokenIndex(f"an entry of the session index, table {table}, can't be read")
        except FAULTS as error:
            self._host.failed(self._path, error)
        return index

    def _analyse_place(self, place: Place, index: SessionIndex) -> None:
        count = Count(self._host.output)
        reading = Reading()
        try:
            self._count(place, count, reading)
        except Vanished:
            count.restart()
            self._vanished += 1
        except FAULTS as error:
            self._host.failed(self._shown(place), error)
        else:
            session = Session(wire_name(place.name), wire_name(self._path), place.kind, "sqlite", place.indexed_id)
            count.say(session, reading.written_at_ms, reading.archived_as, index[place.indexed_id])

    def _count(self, place: Place, count: Count, reading: Reading) -> None:
        """Count a transcript in one state: it is read anew if it was rewritten, or moved, meanwhile."""
        opens = True

        def count_all() -> None:
            nonlocal opens
            count.restart()
            try:
                count.take(self._items(place, reading, opens))
            except BrokenCompression:
                if not opens or not self._zstd.is_there:
                    raise
                opens = False  # It goes on as it is, and what is wrong with it is said elsewhere.
                raise Rewritten from None

        _in_one_state(count_all)

    def _items(self, place: Place, reading: Reading, opens: bool) -> Iterator[Item]:
        transcripts = self._opened()
        read = transcripts.of_session if place.kind == "sessions" else transcripts.of_archive
        return read(place.name, reading, opens)

    def _size_bytes(self, place: Place) -> int | None:
        """The size of a transcript; ``None`` if it is for others to tell, of what was sent on then."""
        transcripts = self._opened()
        if place.kind == "sessions":
            return transcripts.session_size_bytes(place.name)
        size_bytes = transcripts.archive_size_bytes(place.name)
        if size_bytes is None:
            for item in sent_on(transcripts.archive_chunks(place.name), "piece"):
                self._host.output.send(item.record, item.data)
        return size_bytes

    def _opened(self) -> Transcripts:
        transcripts = self._open()
        if transcripts is None:
            raise Vanished
        return transcripts


def _in_one_state(read: Callable[[], Any]) -> Any:
    """What ``read`` gives; it is called again when the session turned out to be rewritten, or moved, meanwhile.

    ``Vanished`` if it has gone, ``Fault`` if it is rewritten all the time.
    """
    for attempt in range(1, MAX_REREADS + 1):
        try:
            return read()
        except Rewritten:
            continue
        except Vanished:
            if attempt == MAX_REREADS:
                raise
    raise _rewritten_meanwhile()


def _rewritten_meanwhile() -> Fault:
    return Fault("the session was rewritten while it was read; try again")


def _in_one_go(items: Iterator[Item]) -> Iterator[Item]:
    """The same, for one who can't begin again."""
    try:
        yield from items
    except (Rewritten, Vanished):
        raise _rewritten_meanwhile() from None
