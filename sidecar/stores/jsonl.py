"""Sessions in files: transcripts as OpenClaw kept them up to 2026.7, and the archives of both eras.

``agents/<agent>/sessions/<id>.jsonl`` is a session. Beside it, in ``sessions_archive`` and in
``session-sqlite-import-archive`` lie archives, named by their files. A copy of what a database holds is left out.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from typing import Protocol

from sidecar.cancel import CancelToken
from sidecar.core.analysis import ArchivedAs, Kind, SessionAnalysis, Transcript, analyse
from sidecar.core.blocks import Block, ReadInto, RecordBlocks
from sidecar.core.failures import FailedItems
from sidecar.core.transcript import Tally, entry_ids
from sidecar.errors import Cancelled, SidecarError
from sidecar.limits import BLOCK_BYTES, MAX_REREADS, UNREMEMBERED_BYTES
from sidecar.stores.files import BoundedReader, OpenFile, open_folder, open_regular
from sidecar.stores.locations import AgentFolder
from sidecar.stores.scan_entry import Entry, digest_of, has_grown, is_young, stamp_of
from sidecar.stores.scan_index import FolderEntries, Key, ScanIndex
from sidecar.stores.session_index import SessionIndex, read_index
from sidecar.stores.session_names import (
    ALL_FOLDERS,
    IMPORT_FOLDER,
    LIVE_FOLDER,
    SUFFIX,
    Archive,
    classify,
    indexed_id,
    is_archive,
    is_transcript,
)
from sidecar.text import file_name, wire_name


class Database(Protocol):
    """The sessions of the same agent that are in its database, as far as copies of them must be told."""

    def __contains__(self, session_id: str) -> bool: ...

    def holds_entries(self, session_id: str, entry_ids: Iterable[str]) -> bool: ...


class JsonlStore:
    """The transcripts of one agent that are files, listed and sorted when it is made.

    Holds one string for each session, and 26 bytes beside it while it analyses, whatever the size of the transcripts
    and of the index. What can't be read goes into ``failed``.
    """

    def __init__(
        self,
        agent: AgentFolder,
        token: CancelToken,
        failed: FailedItems,
        database: Database | None = None,
        index: ScanIndex | None = None,
    ) -> None:
        self.agent = wire_name(agent.name)
        self._failed = failed
        self._folder = agent.path
        self._token = token
        self._blocks = RecordBlocks()
        self._stems: list[str] = []
        self._archives: list[Archive] = []
        for folder in ALL_FOLDERS:
            self._list(folder)
        self._stems.sort()
        self._archives.sort()
        self._unchecked_against = database
        self._scan_index = index
        self._vanished = 0

    @property
    def sessions_total(self) -> int:
        """How many sessions are known here; goes down when one vanishes before it is read."""
        self._leave_out_copies()
        return len(self._stems) + len(self._archives) - self._vanished

    def sessions(self, now_ms: float) -> Iterator[SessionAnalysis | None]:
        """Analyse one session after another, by id, then archives by folder and name; ``None`` between large blocks."""
        self._leave_out_copies()
        index = self._read_index()
        with_archives = {archive.folder for archive in self._archives}
        for folder in ALL_FOLDERS:
            path = os.path.join(self._folder, folder)
            if folder not in with_archives and not (folder == LIVE_FOLDER and self._stems):
                continue
            try:
                yield from self._sessions_in(folder, path, index, now_ms)
            except OSError as error:  # of the folder: it has gone since, say
                self._failed.add(wire_name(path), error)

    def transcript(self, session_id: str) -> Iterator[Block] | None:
        """The transcript of a session as blocks of whole lines; ``None`` if no file here is of that id.

        Whether the file is a copy of what is in the database is not asked: ask the database for the session first.
        """
        sought = file_name(session_id)
        if self._has_stem(sought):
            return self._read_blocks(LIVE_FOLDER, sought + SUFFIX)
        for archive in self._archives:
            if archive.name == sought:
                return self._read_blocks(archive.folder, sought)
        if sought.endswith(SUFFIX) and self._has_stem(sought.removesuffix(SUFFIX)):
            return self._read_blocks(LIVE_FOLDER, sought)  # left over from a migration, with entries of its own
        return None

    def _has_stem(self, stem: str) -> bool:
        place = bisect_left(self._stems, stem)
        return place < len(self._stems) and self._stems[place] == stem

    def _sessions_in(
        self, folder: str, path: str, index: SessionIndex, now_ms: float
    ) -> Iterator[SessionAnalysis | None]:
        shown_path = os.path.join(wire_name(path), "")
        known = self._scan_index.entries_in(path) if self._scan_index else None
        with open_folder(path) as (folder_fd, before_name), known or nullcontext():
            for name, session_id, stem, kind, archived_as in self._named_in(folder):
                self._token.check()
                shown_file = shown_path + wire_name(name)
                try:
                    file = open_regular(before_name + name, folder_fd)
                    try:
                        tally = None
                        if known and file.size_bytes > UNREMEMBERED_BYTES:
                            key = Key(kind == "archive", os.fsencode(session_id))
                            tally, file = yield from self._tally_known(file, name, known, key)
                        elif not name.endswith(".zst"):
                            tally = self._tally_small(file)
                        if tally is None:
                            tally, file = yield from self._tally_large(file, name)
                    finally:
                        os.close(file.fd)
                except FileNotFoundError as error:
                    if os.path.lexists(os.path.join(path, name)):
                        self._failed.add(shown_file, error)
                    else:
                        self._vanished += 1
                except Cancelled:
                    raise
                except (OSError, SidecarError) as error:
                    self._failed.add(shown_file, error)
                else:
                    transcript = Transcript(
                        self.agent, wire_name(session_id), shown_file, kind, *file[1:], "jsonl", archived_as
                    )
                    yield analyse(transcript, tally, index[indexed_id(stem)], now_ms)

    def _named_in(self, folder: str) -> Iterator[tuple[str, str, str, Kind, ArchivedAs]]:
        """Of each transcript in a folder: its file's name, its id, its stem, its kind, what became of it."""
        if folder == LIVE_FOLDER:
            for stem in self._stems:
                yield stem + SUFFIX, stem, stem, "sessions", None
        for archive in self._archives:
            if archive.folder == folder:
                yield archive.name, archive.name, archive.stem, "archive", archive.archived_as

    def _tally_known(
        self, file: OpenFile, name: str, known: FolderEntries, key: Key
    ) -> Generator[None, None, tuple[Tally, OpenFile]]:
        """As ``_tally_large``, but nothing is read that was counted before, and is known to be as it was then."""
        stamp = stamp_of(file.fd)
        young = is_young(stamp)
        entry = known.find(key)
        if entry is not None and entry.stamp == stamp:
            tally = Tally()
            tally.add_counts(*entry.counts)
            return tally, file._replace(size_bytes=entry.text_bytes)
        file = OpenFile(file.fd, stamp.size_bytes, stamp.modified_at_ns / 1_000_000)
        compressed = name.endswith(".zst")
        counted = None if entry or compressed else self._tally_small(file)
        if counted is None:
            grown_from = entry if entry and has_grown(entry, file.fd, stamp) else None
            counted, file = yield from self._tally_large(file, name, grown_from)
        # One that is still written to is left as it is known: the next analysis goes on from there.
        if not young:
            digest = b"" if compressed else digest_of(file.fd, stamp.size_bytes)
            if stamp_of(file.fd) == stamp:
                known.keep(key, Entry(stamp, file.size_bytes, digest, counted.counts()))
        return counted, file

    def _tally_small(self, file: OpenFile) -> Tally | None:
        """The counts of a transcript of at most one block, read at once; ``None`` if it is larger, or shrank."""
        if file.size_bytes > BLOCK_BYTES:
            return None
        text = os.read(file.fd, file.size_bytes)
        if len(text) < file.size_bytes:
            return None
        tally = Tally()
        tally.add_whole(text)
        return tally

    def _tally_large(
        self, file: OpenFile, name: str, grown_from: Entry | None = None
    ) -> Generator[None, None, tuple[Tally, OpenFile]]:
        """The counts of a transcript read in blocks, and the size, decompressed, that they are of."""
        fd, size_bytes, modified_at_ms = file
        for _ in range(MAX_REREADS):
            tally = Tally()
            counted_bytes = 0
            if grown_from is not None:
                tally.add_counts(*grown_from.counts)
                counted_bytes = grown_from.stamp.size_bytes
            os.lseek(fd, counted_bytes, os.SEEK_SET)
            source = BoundedReader(fd, size_bytes - counted_bytes, self._token)
            text = _Counted(_decompressed(source, name))
            self._blocks.restart()
            while block := self._blocks.read(text):
                tally.add(block)
                if source.left:
                    yield
            tally.skipped_lines += self._blocks.overlong
            if not source.left:
                break
            # It shrank under us, so it was written anew in place: what was counted may be half of each state.
            size_bytes = os.fstat(fd).st_size
            grown_from = None
        return tally, OpenFile(fd, counted_bytes + text.count_bytes, modified_at_ms)

    def _read_blocks(self, folder: str, name: str) -> Iterator[Block]:
        fd, size_bytes, _ = open_regular(os.path.join(self._folder, folder, name))
        try:
            text = _decompressed(BoundedReader(fd, size_bytes, self._token), name)
            blocks = RecordBlocks()
            while block := blocks.read(text):
                yield block
        finally:
            os.close(fd)

    def _list(self, folder: str) -> None:
        """Note the transcripts in a folder: regular files, or links to such, of a name that says so."""
        path = os.path.join(self._folder, folder)
        live = folder == LIVE_FOLDER
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if live and is_transcript(entry.name):
                        if _may_be_file(entry):
                            self._stems.append(entry.name.removesuffix(SUFFIX))
                    elif (name := classify(entry.name)) and is_archive(name, folder) and _may_be_file(entry):
                        self._archives.append(Archive(folder, entry.name, name.stem, name.archived_as))
        except FileNotFoundError:
            pass
        except OSError as error:
            self._failed.add(wire_name(path), error)

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
            self._token.check()
            if not self._is_copy(stem, database):
                self._archives.append(Archive(LIVE_FOLDER, stem + SUFFIX, stem, None))
        self._archives.sort()

    def _is_copy(self, stem: str, database: Database) -> bool:
        try:
            with closing(self._entry_ids(stem)) as ids:
                return database.holds_entries(wire_name(stem), ids)
        except (OSError, _OwnEntry):  # what can't be read is not proved to be a copy
            return False

    def _entry_ids(self, stem: str) -> Generator[str, None, None]:
        for block in self._read_blocks(LIVE_FOLDER, stem + SUFFIX):
            for entry_id in entry_ids(block):
                if entry_id is None:
                    raise _OwnEntry
                yield entry_id

    def _read_index(self) -> SessionIndex:
        path = os.path.join(self._folder, LIVE_FOLDER, "sessions.json")
        stems = (*self._stems, *(archive.stem for archive in self._archives))
        index = SessionIndex(sorted(map(indexed_id, stems)))
        try:
            if stems:
                read_index(path, index, self._token)
        except Cancelled:
            raise
        except (OSError, SidecarError) as error:
            self._failed.add(wire_name(path), error)
        return index


class _OwnEntry(Exception):
    """A line that no database can be shown to hold."""


class _Counted:
    """A ``ReadInto`` that counts what it delivered."""

    __slots__ = ("_read_into", "count_bytes")

    def __init__(self, read_into: ReadInto) -> None:
        self._read_into = read_into
        self.count_bytes = 0

    def __call__(self, space: memoryview) -> int:
        count = self._read_into(space)
        self.count_bytes += count
        return count


def _decompressed(source: BoundedReader, name: str) -> ReadInto:
    if not name.endswith(".zst"):
        return source
    # Most homes hold no compressed archive, and need not load the library.
    from sidecar.core.zstd import ZstdReader

    return ZstdReader(source)


def _is_import_of(archive: Archive, database: Database) -> bool:
    """Whether an imported file's session is in the database. The name has a key before the id, which may have dots."""
    if archive.folder != IMPORT_FOLDER:
        return False
    stem = archive.stem
    return any(wire_name(stem[at + 1 :]) in database for at, letter in enumerate(stem) if letter == ".")


def _may_be_file(entry: os.DirEntry[str]) -> bool:
    """A regular file or a link to one; also a broken link, since opening it will say what is wrong."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:
        return True
