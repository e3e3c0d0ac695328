"""The sessions of an agent that are files: the twin of ``sidecar/stores/jsonl.py``."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Generator, Iterator, NamedTuple

from sidecar.remote.python.blocks import Item, Lines, lines_of
from sidecar.remote.python.entries import entries
from sidecar.remote.python.errors import FAULTS, BrokenCompression
from sidecar.remote.python.files import FileReader, OpenFile, open_folder, open_regular
from sidecar.remote.python.host import Host
from sidecar.remote.python.json_values import text_in
from sidecar.remote.python.limits import MAX_REREADS
from sidecar.remote.python.locations import Agent
from sidecar.remote.python.session_index import SessionIndex, read_index
from sidecar.remote.python.session_names import (
    ALL_FOLDERS,
    IMPORT_FOLDER,
    INDEX_NAME,
    LIVE_FOLDER,
    SUFFIX,
    SessionFileName,
    classify,
    indexed_id,
    is_transcript,
)
from sidecar.remote.python.session_record import Count, Session
from sidecar.remote.python.sqlite_store import SqliteStore
from sidecar.remote.python.text import file_name, raw, spelled, wire_name, without_ending
from sidecar.remote.python.zstd import Zstd, compressed_lines


class Archive(NamedTuple):
    """A file whose name is its id: where it lies, how it is called, whose transcript it is, what became of that."""

    folder: str
    name: str
    stem: str
    archived_as: str | None


class _OwnEntry(Exception):
    """A line that no database can be shown to hold."""


class JsonlStore:
    """The transcripts of one agent that are files, as ``sidecar/stores/jsonl.py``; listed when it is made."""

    def __init__(self, agent: Agent, host: Host, zstd: Zstd, database: SqliteStore | None) -> None:
        self._host = host
        self._zstd = zstd
        self._folder = agent.path
        self._stems: list[str] = []
        self._archives: list[Archive] = []
        self._vanished = 0
        for folder in ALL_FOLDERS:
            self._list(folder)
        self._stems.sort()
        self._archives.sort()
        self._unchecked_against = database

    @property
    def sessions_total(self) -> int:
        """How many sessions are known here; goes down when one vanishes before it is read."""
        self._leave_out_copies()
        return len(self._stems) + len(self._archives) - self._vanished

    def analyse(self) -> Iterator[None]:
        """Say what each session holds, by id, then archives by folder and name; gives after each."""
        self._leave_out_copies()
        index = self._read_index()
        with_archives = {archive.folder for archive in self._archives}
        for folder in ALL_FOLDERS:
            path = os.path.join(self._folder, folder)
            if folder not in with_archives and not (folder == LIVE_FOLDER and self._stems):
                continue
            try:
                with open_folder(path) as folder_fd:
                    for session, name, archived_as in self._named_in(folder):
                        self._analyse_file(folder_fd, name, session, archived_as, index)
                        yield
            except OSError as error:  # of the folder: it has gone since, say
                self._host.failed(path, error)

    def transcript(self, session_id: str) -> Iterator[Item] | None:
        """The transcript of a session as it lies there; ``None`` if no file here is of that id."""
        sought = file_name(session_id)
        if self._has_stem(sought):
            return self._read(LIVE_FOLDER, sought + SUFFIX)
        for archive in self._archives:
            if archive.name == sought:
                return self._read(archive.folder, sought)
        if sought.endswith(SUFFIX) and self._has_stem(without_ending(sought, SUFFIX)):
            return self._read(LIVE_FOLDER, sought)  # left over from a migration, with entries of its own
        return None

    def _has_stem(self, stem: str) -> bool:
        return stem in self._stems

    def _named_in(self, folder: str) -> Iterator[tuple[Session, str, str | None]]:
        """Of each transcript in a folder what is known of it, its file's name, what became of it."""
        before_name = wire_name(os.path.join(self._folder, folder, ""))
        if folder == LIVE_FOLDER:
            for stem in self._stems:
                shown = wire_name(stem)
                yield (
                    Session(shown, f"{before_name}{shown}.jsonl", "sessions", "jsonl", indexed_id(stem)),
                    stem + SUFFIX,
                    None,
                )
        for archive in self._archives:
            if archive.folder == folder:
                shown = wire_name(archive.name)
                session = Session(shown, before_name + shown, "archive", "jsonl", indexed_id(archive.stem))
                yield session, archive.name, archive.archived_as

    def _analyse_file(
        self, folder_fd: int, name: str, session: Session, archived_as: str | None, index: SessionIndex
    ) -> None:
        try:
            file = open_regular(name, folder_fd)
            try:
                count = self._counted(file, name)
            finally:
                os.close(file.fd)
        except FileNotFoundError as error:
            if os.path.lexists(raw(file_name(session.file_path))):
                self._failed(session, error)
            else:
                self._vanished += 1
        except FAULTS as error:
            self._failed(session, error)
        else:
            count.say(session, file.modified_at_ms, archived_as, index[session.indexed_id])

    def _failed(self, session: Session, error: BaseException) -> None:
        self._host.failed(file_name(session.file_path), error)

    def _counted(self, file: OpenFile, name: str) -> Count:
        """What a file holds; one that shrinks under us was written anew in place, and is read anew."""
        count = Count(self._host.output)
        zstd: Zstd | None = self._zstd
        rereads = 0
        while True:
            count.restart()
            os.lseek(file.fd, 0, os.SEEK_SET)
            reader = FileReader(file, self._host.tick)
            try:
                count.take(_file_items(reader, name, zstd))
            except BrokenCompression:
                if zstd is None or not zstd.is_there:
                    raise
                zstd = None  # It goes on as it is, and what is wrong with it is said elsewhere.
                continue
            rereads += 1
            if not reader.left or rereads == MAX_REREADS:
                return count
            file = file._replace(size_bytes=os.fstat(file.fd).st_size)

    def _read(self, folder: str, name: str) -> Iterator[Item]:
        file = open_regular(os.path.join(self._folder, folder, name))
        try:
            yield from _file_items(FileReader(file, self._host.tick), name, None)
        finally:
            os.close(file.fd)

    def _list(self, folder: str) -> None:
        """Note the transcripts in a folder: regular files, or links to such, of a name that says so."""
        path = os.path.join(self._folder, folder)
        live = folder == LIVE_FOLDER
        try:
            with os.scandir(raw(path)) as found:
                for entry in found:
                    self._host.tick()
                    name = spelled(entry.name)
                    if live and is_transcript(name):
                        if _may_be_file(entry):
                            self._stems.append(without_ending(name, SUFFIX))
                        continue
                    known = classify(name)
                    if known and _is_archive(known, folder) and _may_be_file(entry):
                        self._archives.append(Archive(folder, name, known.stem, known.archived_as))
        except FileNotFoundError:
            pass
        except OSError as error:
            self._host.failed(path, error)

    def _leave_out_copies(self) -> None:
        """Keep of a database's sessions only the files that hold entries which it hasn't, as archives. Done once."""
        database, self._unchecked_against = self._unchecked_against, None
        if database is None:
            return
        leftovers = [stem for stem in self._stems if wire_name(stem) in database]
        if leftovers:
            self._stems = [stem for stem in self._stems if wire_name(stem) not in database]
        self._archives = [archive for archive in self._archives if not _is_import_of(archive, database)]
        for stem in leftovers:
            self._host.tick()
            if not self._is_copy(stem, database):
                self._archives.append(Archive(LIVE_FOLDER, stem + SUFFIX, stem, None))
        self._archives.sort()

    def _is_copy(self, stem: str, database: SqliteStore) -> bool:
        try:
            with closing(self._entry_ids(stem)) as ids:
                return database.holds_entries(wire_name(stem), ids)
        except (*FAULTS, _OwnEntry):  # what can't be read is not proved to be a copy
            return False

    def _entry_ids(self, stem: str) -> Generator[str, None, None]:
        for item in self._read(LIVE_FOLDER, stem + SUFFIX):
            for entry in entries(item, self._host.tick) if isinstance(item, Lines) else ():
                if entry is not None and entry.get("type") == "session":
                    continue
                entry_id = text_in(entry or {}, "id")
                if entry_id is None:
                    raise _OwnEntry
                yield entry_id

    def _read_index(self) -> SessionIndex:
        path = os.path.join(self._folder, LIVE_FOLDER, INDEX_NAME)
        stems = [*self._stems, *(archive.stem for archive in self._archives)]
        index = SessionIndex(map(indexed_id, stems))
        try:
            if stems:
                read_index(path, index, self._host.tick)
        except FAULTS as error:
            self._host.failed(path, error)
        return index


def _file_items(reader: FileReader, name: str, zstd: Zstd | None) -> Iterator[Item]:
    return compressed_lines(reader.chunks(), zstd) if name.endswith(".zst") else lines_of(reader)


def _is_archive(name: SessionFileName, folder: str) -> bool:
    """Whether a file that is no live transcript is a session nevertheless, where it lies."""
    if folder == IMPORT_FOLDER:
        return name.role == "import"
    return name.role == "archive" or (name.role == "transcript" and folder != LIVE_FOLDER)


def _is_import_of(archive: Archive, database: SqliteStore) -> bool:
    """Whether an imported file's session is in the database. The name has a key before the id, which may have dots."""
    if archive.folder != IMPORT_FOLDER:
        return False
    stem = archive.stem
    return any(wire_name(stem[at + 1 :]) in database for at, letter in enumerate(stem) if letter == ".")


def _may_be_file(entry: os.DirEntry[bytes]) -> bool:
    """A regular file or a link to one; also a broken link, since opening it will say what is wrong."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:
        return True
