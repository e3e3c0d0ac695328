"""``list_session_files``, streamed and eager: what lies in the session folders of every agent, sorted by path."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from heapq import merge
from itertools import islice
from typing import NamedTuple

import msgspec

from sidecar.cancel import CancelToken
from sidecar.core.analysis import Kind
from sidecar.core.failures import FailedItems, Failure
from sidecar.errors import Cancelled, SidecarError
from sidecar.limits import CHUNK_AGE_MS, DEFAULT_BATCH_FILES, FIRST_CHUNK_AGE_MS, LISTED_FILES_A_STEP, MAX_BATCH_FILES
from sidecar.stores.base import SessionFile
from sidecar.stores.locations import AgentFolder, list_agents
from sidecar.stores.session_names import FOLDERS
from sidecar.streams.base import Event, Events, Outcome, sessions_closing
from sidecar.text import wire_name

log = logging.getLogger(__name__)

DatabaseFiles = Callable[[AgentFolder, CancelToken, FailedItems], Iterable[SessionFile]]
"""Gives the rows of an agent's database, sorted by ``relative_path``."""


class SessionFilesChunk(msgspec.Struct, rename="camel"):
    """The payload of ``session-files:chunk``; the totals are of all that was sent so far, this chunk included."""

    files: list[SessionFile]
    total_files: int
    total_size_bytes: int


class SessionFilesDone(msgspec.Struct, rename="camel"):
    """The payload of ``session-files:done``: what was sent up to the end, whatever the end was."""

    total_files: int
    total_size_bytes: int
    cancelled: bool
    failed_items: int
    failures: list[Failure]


class SessionFilesStream:
    """``session-files:chunk`` as files are found, in the order of the eager answer, then ``session-files:done``."""

    def __init__(
        self, openclaw_dir: str, batch_size: int | None = None, database_files: DatabaseFiles = lambda *_: ()
    ) -> None:
        self._openclaw_dir = openclaw_dir
        self._batch_size = min(max(DEFAULT_BATCH_FILES if batch_size is None else batch_size, 1), MAX_BATCH_FILES)
        self._database_files = database_files
        self._failed = FailedItems()
        self._files = 0
        self._size_bytes = 0

    def events(self, token: CancelToken) -> Events:
        """``OSError`` if the folder of the agents can't be listed; whatever fails below it is a failed item."""
        chunks = FileChunkBuilder(self._batch_size)
        for file in _files(self._openclaw_dir, token, self._failed, self._database_files):
            if file is not None:
                chunks.add(file)
            if chunks.due:
                yield Event("session-files:chunk", chunks.take())
            elif file is None:
                yield None
        if chunks.files:
            yield Event("session-files:chunk", chunks.take())

    def sent(self, event: Event) -> None:
        chunk = event.payload
        assert isinstance(chunk, SessionFilesChunk)
        self._files, self._size_bytes = chunk.total_files, chunk.total_size_bytes

    def closing(self, outcome: Outcome) -> list[Event]:
        done = SessionFilesDone(
            self._files, self._size_bytes, outcome.cancelled, self._failed.count, self._failed.first
        )
        return sessions_closing(outcome, Event("session-files:done", done))


def list_session_files(
    openclaw_dir: str, token: CancelToken, database_files: DatabaseFiles = lambda *_: ()
) -> list[SessionFile]:
    """Every file in the session folders, sorted by ``relative_path``; failed items are logged."""
    failed = FailedItems()
    files = [file for file in _files(openclaw_dir, token, failed, database_files) if file is not None]
    if failed.count:
        first = failed.first[0]
        log.warning("list_session_files left out %d items, the first is %s: %s", failed.count, first.path, first.error)
    return files


class FileChunkBuilder:
    """Gathers files into chunks of at most ``batch_size``, none held longer than ``CHUNK_AGE_MS``, the first less."""

    def __init__(self, batch_size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._batch_size = batch_size
        self._clock = clock
        self._age_s = FIRST_CHUNK_AGE_MS / 1000
        self._due_at_s = 0.0
        self._total_files = 0
        self._total_size_bytes = 0
        self.files: list[SessionFile] = []

    def add(self, file: SessionFile) -> None:
        if not self.files:
            self._due_at_s = self._clock() + self._age_s
        self.files.append(file)
        self._total_files += 1
        self._total_size_bytes += file.size_bytes

    @property
    def due(self) -> bool:
        """Whether a chunk should go out now: ask after each file, and now and then while a folder is listed."""
        return bool(self.files) and (len(self.files) >= self._batch_size or self._clock() >= self._due_at_s)

    def take(self) -> SessionFilesChunk:
        files, self.files = self.files, []
        self._age_s = CHUNK_AGE_MS / 1000
        return SessionFilesChunk(files, self._total_files, self._total_size_bytes)


def _files(
    openclaw_dir: str, token: CancelToken, failed: FailedItems, database_files: DatabaseFiles
) -> Iterator[SessionFile | None]:
    """The rows of all agents, sorted by ``relative_path``; ``None`` now and then while there is none to give."""
    # The slash counts: a name that goes on with a character below it comes before the shorter name.
    for agent in sorted(list_agents(openclaw_dir), key=lambda agent: wire_name(agent.name) + "/"):
        rows = _database_rows(agent, token, failed, database_files)
        found = (file for folder, kind in FOLDERS for file in _files_below(agent, folder, kind, token, failed))
        yield from merge(rows, found, key=lambda file: file.relative_path if file else "")


def _database_rows(
    agent: AgentFolder, token: CancelToken, failed: FailedItems, database_files: DatabaseFiles
) -> Iterator[SessionFile]:
    try:
        yield from database_files(agent, token, failed)
    except Cancelled:
        raise
    except (OSError, SidecarError) as error:
        failed.add(wire_name(agent.path), error)


class _Folder(NamedTuple):
    """A folder that is being walked: its path, as it is, as it is shown and in rows, and the names that are to come."""

    path: str
    shown_path: str
    relative_path: str
    names: list[str]


def _files_below(
    agent: AgentFolder, folder: str, kind: Kind, token: CancelToken, failed: FailedItems
) -> Iterator[SessionFile | None]:
    """The regular files below a folder of an agent, and links to such, in the order of their whole paths.

    In each folder the names are sorted with a slash behind those of folders, as it is in the paths of what lies there.
    No link to a folder is followed but ``folder`` itself: links may go round in circles.
    """
    shown_agent = wire_name(agent.name)
    path = os.path.join(agent.path, folder, "")
    names = yield from _sorted_names(path, token, failed)
    folders = [_Folder(path, wire_name(path), f"agents/{shown_agent}/{folder}/", names)]
    while folders:
        path, shown_path, relative_path, names = folders[-1]
        if not names:
            folders.pop()
            continue
        token.check()
        name = names.pop()
        shown_name = wire_name(name)
        if name.endswith("/"):
            path = os.path.join(path, name[:-1], "")
            names = yield from _sorted_names(path, token, failed)
            folders.append(_Folder(path, wire_name(path), relative_path + shown_name, names))
            continue
        try:
            found = os.stat(path + name)
        except FileNotFoundError:  # it has gone, or is a link to what has
            continue
        except OSError as error:
            failed.add(shown_path + shown_name, error)
            continue
        if stat.S_ISREG(found.st_mode):
            yield SessionFile(shown_path + shown_name, relative_path + shown_name, shown_agent, kind, found.st_size)


def _sorted_names(path: str, token: CancelToken, failed: FailedItems) -> Generator[None, None, list[str]]:
    """What is in a folder, by name, the last one first; the names of folders have a slash behind them."""
    names: list[str] = []
    try:
        with os.scandir(path) as entries:
            while step := list(islice(entries, LISTED_FILES_A_STEP)):
                names += [entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name for entry in step]
                token.check()
                yield
    except FileNotFoundError:
        pass
    except OSError as error:
        failed.add(wire_name(path), error)
    # Without a key it takes half the time, and nearly always each name is its own wire name.
    names.sort(key=None if all(map(str.isascii, names)) else wire_name, reverse=True)
    return names
