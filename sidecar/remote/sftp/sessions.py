"""The sessions of one agent of a host that are files, read over SFTP and counted here: as ``stores/jsonl.py``."""

from __future__ import annotations

import asyncio
import errno
import posixpath
from collections.abc import Iterator
from contextlib import aclosing
from functools import partial
from typing import NamedTuple

from sidecar.core.analysis import ArchivedAs, Kind
from sidecar.core.transcript import Tally
from sidecar.errors import SidecarError, SourceUnreadable
from sidecar.limits import BLOCK_BYTES, MAX_REREADS, SFTP_FILES_AHEAD, SFTP_LARGE_FILE_BYTES
from sidecar.remote.sftp.errors import os_error
from sidecar.remote.sftp.files import HostFile, HostFiles, is_file, is_folder, is_link
from sidecar.remote.sftp.flow import Room, aside, in_order
from sidecar.remote.sftp.home import DATABASE, DATABASE_UNREAD, has_database
from sidecar.remote.sftp.output import Output
from sidecar.remote.sftp.text import ArrivingText, at_once, is_compressed
from sidecar.stores.locations import AgentFolder
from sidecar.stores.session_index import IndexPieces, SessionIndex, index_blocks
from sidecar.stores.session_names import (
    ALL_FOLDERS,
    LIVE_FOLDER,
    SUFFIX,
    Archive,
    classify,
    indexed_id,
    is_archive,
    is_transcript,
)
from sidecar.text import wire_name


class _Place(NamedTuple):
    """A transcript: where it lies, its id, and what it is."""

    folder: str
    name: str
    session_id: str
    stem: str
    kind: Kind
    archived_as: ArchivedAs


class _Counts(Tally):
    """The counts of a transcript, as records have them."""

    __slots__ = ()

    def items(self) -> tuple[int | str | bool | None, ...]:
        return (
            *(self.messages, self.users, self.assistants, self.last_activity),
            *(self.header_id, self._begun, self.skipped_lines),
        )


class _Counted(NamedTuple):
    """What a transcript holds, and the size, decompressed, and the time that this is of."""

    counts: _Counts
    size_bytes: int
    modified_at_ms: float


class AgentTranscripts:
    """The transcripts of one agent. Holds a string for each, and 18 bytes beside while they are analysed."""

    def __init__(self, files: HostFiles, output: Output, agent: AgentFolder) -> None:
        self._files = files
        self._output = output
        self._agent = agent
        self._stems: list[str] = []
        self._archives: list[Archive] = []
        self._vanished = 0
        self._room = Room()
        # One by one: each may take as much as the largest window.
        self._unpacking = asyncio.Lock()

    async def analyze(self) -> None:
        """Tell what there is to tell of each session: by id, then archives by folder and name."""
        await self._list()
        await self._output.tell("agent", wire_name(self._agent.name), self._total)
        index = await self._read_index()
        for folder in ALL_FOLDERS:
            path = posixpath.join(self._agent.path, folder)
            if next(self._places_in(folder), None) is None:
                continue
            try:
                if not is_folder(await self._files.stat(path)):
                    raise os_error(errno.ENOTDIR, path)
            except OSError as error:  # it has gone since, say
                await self._output.fail(wire_name(path), error)
            else:
                await self._analyze_in(folder, index)

    @property
    def _total(self) -> int:
        return len(self._stems) + len(self._archives) - self._vanished

    async def _analyze_in(self, folder: str, index: SessionIndex) -> None:
        counted = in_order(self._try_to_count, self._places_in(folder), SFTP_FILES_AHEAD)
        async with aclosing(counted) as results:
            async for place, found in results:
                path = wire_name(posixpath.join(self._agent.path, folder, place.name))
                if isinstance(found, _Counted):
                    await self._tell_session(place, path, found, index)
                elif found is None:
                    self._vanished += 1
                    await self._output.tell("total", self._total)
                else:
                    await self._output.fail(path, found)

    async def _tell_session(self, place: _Place, path: str, found: _Counted, index: SessionIndex) -> None:
        await self._output.tell(
            *("session", wire_name(place.session_id), path, place.kind, found.size_bytes, found.modified_at_ms),
            *("jsonl", place.archived_as, *found.counts.items(), *index[indexed_id(place.stem)]),
        )

    async def _try_to_count(self, place: _Place) -> tuple[_Place, _Counted | OSError | SidecarError | None]:
        """What came of counting a transcript; ``None`` if it has gone."""
        path = posixpath.join(self._agent.path, place.folder, place.name)
        try:
            return place, await self._count(path, place.name)
        except FileNotFoundError as error:
            return place, error if await self._files.lexists(path) else None
        except (OSError, SidecarError) as error:
            return place, error

    async def _count(self, path: str, name: str) -> _Counted:
        # The name alone is what the system is given here, where a folder is held open.
        async with self._files.opened(path, name) as file:
            size_bytes = file.size_bytes
            is_held = size_bytes <= BLOCK_BYTES
            async with self._room.taken(size_bytes if is_held else SFTP_LARGE_FILE_BYTES):
                held = await file.read_all(size_bytes) if is_held else None
                if held is not None and len(held) < size_bytes:
                    held = None
                if is_compressed(name):
                    async with self._unpacking:
                        return await _counted(file, held, is_compressed=True)
                if held is None:
                    return await _counted(file)
                counts = _Counts()
                counts.add_whole(held)
                return _Counted(counts, size_bytes, file.modified_at_ms)

    async def _list(self) -> None:
        try:
            await self._files.stat(self._agent.path)
        except OSError as error:  # a loop of links, say: one failed item, not one for each folder that should be in it
            await self._output.fail(wire_name(self._agent.path), error)
            return
        for folder in ALL_FOLDERS:
            await self._list_folder(folder)
        if await has_database(self._files, self._agent):
            path = posixpath.join(self._agent.path, DATABASE)
            await self._output.fail(wire_name(path), SourceUnreadable(DATABASE_UNREAD))
        self._stems.sort()
        self._archives.sort()

    async def _list_folder(self, folder: str) -> None:
        path = posixpath.join(self._agent.path, folder)
        links: list[str] = []
        try:
            async with aclosing(self._files.entries(path)) as entries:
                async for name, attrs in entries:
                    if is_link(attrs) and as_place(folder, name):
                        links.append(name)
                    elif is_file(attrs):
                        self._note(folder, name)
        except FileNotFoundError:
            pass
        except OSError as error:
            await self._output.fail(wire_name(path), error)

        async def leads_to_file(name: str) -> tuple[str, bool]:
            return name, await may_lead_to_file(self._files, posixpath.join(path, name))

        async with aclosing(in_order(leads_to_file, links, SFTP_FILES_AHEAD)) as found:
            async for name, may_be_file in found:
                if may_be_file:
                    self._note(folder, name)

    def _note(self, folder: str, name: str) -> None:
        place = as_place(folder, name)
        if isinstance(place, str):
            self._stems.append(place)
        elif place is not None:
            self._archives.append(place)

    def _places_in(self, folder: str) -> Iterator[_Place]:
        if folder == LIVE_FOLDER:
            for stem in self._stems:
                yield _Place(folder, stem + SUFFIX, stem, stem, "sessions", None)
        for archive in self._archives:
            if archive.folder == folder:
                yield _Place(folder, archive.name, archive.name, archive.stem, "archive", archive.archived_as)

    async def _read_index(self) -> SessionIndex:
        path = posixpath.join(self._agent.path, LIVE_FOLDER, "sessions.json")
        stems = (*self._stems, *(archive.stem for archive in self._archives))
        index = SessionIndex(sorted(map(indexed_id, stems)))
        try:
            if stems:
                async with self._files.opened(path) as file:
                    await _read_index(file, index)
        except FileNotFoundError:
            pass
        except (OSError, SidecarError) as error:
            index.clear()
            await self._output.fail(wire_name(path), error)
        return index


async def _counted(file: HostFile, held: bytes | None = None, *, is_compressed: bool = False) -> _Counted:
    """The counts of a transcript; ``held`` is all of it, if it was read already."""
    modified_at_ms = file.modified_at_ms
    for _ in range(MAX_REREADS):
        pieces = file.pieces(file.size_bytes) if held is None else at_once(held)
        text = ArrivingText(pieces, is_compressed=is_compressed)
        counts = _Counts()
        async with aclosing(text.blocks()) as blocks:
            async for block in blocks:
                await aside(partial(counts.add, block), block.end - block.start)
        counts.skipped_lines += text.overlong
        if text.arrived_bytes >= file.size_bytes:
            break
        # It shrank under us, so it was written anew in place: what was counted may be half of each state.
        await file.look()
    return _Counted(counts, text.size_bytes, modified_at_ms)


async def _read_index(file: HostFile, index: SessionIndex) -> None:
    """Fill ``index`` from an open ``sessions.json``; raises as ``session_index.read_index``."""
    text = ArrivingText(file.pieces(file.size_bytes), index_blocks())
    pieces = IndexPieces(index)
    async with aclosing(text.blocks()) as blocks:
        async for block in blocks:
            await aside(partial(pieces.add, block), pieces.waiting_bytes + block.end - block.start)
    await aside(partial(pieces.end, is_whole=not text.overlong), pieces.waiting_bytes)


async def may_lead_to_file(files: HostFiles, path: str) -> bool:
    """Whether a link leads to a regular file; also a broken one, since opening it will say what is wrong."""
    try:
        return is_file(await files.stat(path))
    except OSError:
        return True


def as_place(folder: str, name: str) -> str | Archive | None:
    """What a file of this name is there: a session of that stem, an archive, or neither."""
    if folder == LIVE_FOLDER and is_transcript(name):
        return name.removesuffix(SUFFIX)
    known = classify(name)
    return Archive(folder, name, known.stem, known.archived_as) if known and is_archive(known, folder) else None
