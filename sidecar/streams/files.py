"""``list_session_files``, streamed and eager: what lies in the session folders of every agent, sorted by path."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from sidecar.cancel import CancelToken
from sidecar.core.failures import FailedItems, Failure
from sidecar.limits import CHUNK_AGE_MS, DEFAULT_BATCH_FILES, FIRST_CHUNK_AGE_MS, MAX_BATCH_FILES
from sidecar.stores.base import Home, SessionFile
from sidecar.streams.base import Event, Events, Outcome, sessions_closing

log = logging.getLogger(__name__)


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

    def __init__(self, home: Home, batch_size: int | None = None) -> None:
        self._home = home
        self._batch_size = min(max(DEFAULT_BATCH_FILES if batch_size is None else batch_size, 1), MAX_BATCH_FILES)
        self._failed = FailedItems()
        self._files = 0
        self._size_bytes = 0

    def events(self, token: CancelToken) -> Events:
        """Raises as ``Home.files`` does; whatever fails below that is a failed item."""
        chunks = FileChunkBuilder(self._batch_size)
        for file in self._home.files(token, self._failed):
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


def list_session_files(home: Home, token: CancelToken) -> list[SessionFile]:
    """Every file in the session folders, sorted by ``relative_path``; failed items are logged."""
    failed = FailedItems()
    files = [file for file in home.files(token, failed) if file is not None]
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
