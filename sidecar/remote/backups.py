"""The backups of a host: made, checked and restored there by what runs on it; here is what it says of them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import closing
from typing import Any, Protocol

from sidecar.backup.folder import Snapshot
from sidecar.backup.progress import Progress
from sidecar.backup.restore import Restored
from sidecar.cancel import CancelToken
from sidecar.errors import Cancelled, RemoteFailed, SidecarError
from sidecar.limits import CANCELLED_S
from sidecar.remote.home import RemoteHome
from sidecar.remote.records import EngineRun, Record
from sidecar.text import file_name


class BackupRun(EngineRun, Protocol):
    """What makes backups on a host, at work."""

    def end_input(self) -> None:
        """Tell it that no more is wanted; what it still has to do, and to say, is waited for."""


StartBackup = Callable[[Mapping[str, Any]], Coroutine[Any, Any, BackupRun]]


class RemoteBackups:
    """As ``backup.home.LocalBackups``, for the host that ``start`` starts engines on."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start: StartBackup, share: bool = True) -> None:
        self._loop = loop
        self._start = start
        self._share = share

    def backup(self, include_sessions: bool, progress: Progress) -> Snapshot:
        """As of ``LocalBackups``; the path is as the host has it."""
        return _the_one(self._run({"op": "backup", "includeSessions": include_sessions}, progress))

    def restore(self, name: str, force: bool, progress: Progress) -> Restored:
        """As of ``LocalBackups``; one that was cancelled too late is done nevertheless."""
        with closing(self._run({"op": "restore", "backupName": name, "force": force}, progress)) as records:
            snapshot = previous = None
            for record in records:
                if record.name == "snapshot":
                    snapshot = _snapshot(record)
                elif record.name == "previous" and record.items[0] is not None:
                    previous = _snapshot(record)
        if snapshot is None:
            raise _unsaid()
        return Restored(snapshot, previous)

    def verify(self, name: str, progress: Progress) -> Snapshot:
        """As of ``LocalBackups``."""
        return _the_one(self._run({"op": "verify", "backupName": name}, progress))

    def list(self, token: CancelToken) -> list[Snapshot]:
        """As of ``LocalBackups``."""
        with closing(self._run({"op": "backups"}, Progress(token))) as records:
            return [_snapshot(record) for record in records if record.name == "snapshot"]

    def delete(self, name: str, token: CancelToken) -> bool:
        """As of ``LocalBackups``."""
        with closing(self._run({"op": "delete-backup", "backupName": name}, Progress(token))) as records:
            for record in records:
                if record.name == "deleted":
                    return bool(record.items[0])
        raise _unsaid()

    def _run(self, request: Mapping[str, Any], progress: Progress) -> Generator[Record, None, None]:
        """What is said of the work, beside how far it has come, which goes into ``progress``.

        A cancel ends the input of what runs there, which then leaves things as they should be and says how it ended:
        a restore may have been done already.
        """
        started: list[BackupRun] = []
        give_up_at_s = float("inf")

        async def start(request: Mapping[str, Any]) -> EngineRun:
            started.append(await self._start(request))
            return started[0]

        # Its own token is never set: that would cut off what is still to be said.
        run = RemoteHome(self._loop, start).run({"share": self._share, **request}, CancelToken())
        with closing(run) as records:
            try:
                for record in records:
                    try:
                        progress.step()
                    except Cancelled:
                        if not started or time.monotonic() > give_up_at_s:
                            raise
                        if give_up_at_s == float("inf"):
                            give_up_at_s = time.monotonic() + CANCELLED_S
                            self._loop.call_soon_threadsafe(started[0].end_input)
                    if record is None:
                        continue
                    if record.name == "progress":
                        _note(progress, record)
                    else:
                        yield record
            except (SidecarError, OSError):
                if give_up_at_s < float("inf"):
                    raise Cancelled from None
                raise


def _note(progress: Progress, record: Record) -> None:
    progress.phase, *counts, path = record.items
    progress.files_copied, progress.bytes_copied, progress.files_total, progress.bytes_total = counts
    progress.current_path = None if path is None else os.fsencode(file_name(path))


def _the_one(records: Generator[Record, None, None]) -> Snapshot:
    with closing(records):
        found = [_snapshot(record) for record in records if record.name == "snapshot"]
    if not found:
        raise _unsaid()
    return found[0]


def _snapshot(record: Record) -> Snapshot:
    name, path, *rest = record.items
    return Snapshot(os.fsencode(file_name(name)), os.fsencode(file_name(path)), *rest)


def _unsaid() -> RemoteFailed:
    return RemoteFailed("the host ended without saying what came of it")
