"""Backups, restores and checks of snapshots: long work in a thread of its own, and now and then how far it is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from sidecar.backup.progress import Progress
from sidecar.cancel import CancelToken
from sidecar.errors import Cancelled, SidecarError, TooBusy, as_sidecar_error
from sidecar.limits import MAX_BACKUPS_AT_ONCE, PROGRESS_S
from sidecar.streams.base import Event, Notice, Outcome
from sidecar.text import wire_name

if TYPE_CHECKING:
    from sidecar.backup.folder import Snapshot
    from sidecar.backup.restore import Restored

Status = Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["complete", "incomplete", "unverified"]})]
Phase = Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["snapshot", "config", "agents", "memory", "done"]})]

_places = threading.BoundedSemaphore(MAX_BACKUPS_AT_ONCE)


class Backups(Protocol):
    """The backups of one OpenClaw directory, here or on a host, named as on the wire. Each call blocks."""

    def backup(self, include_sessions: bool, progress: Progress) -> Snapshot: ...

    def restore(self, name: str, force: bool, progress: Progress) -> Restored: ...

    def verify(self, name: str, progress: Progress) -> Snapshot: ...

    def list(self, token: CancelToken) -> list[Snapshot]: ...

    def delete(self, name: str, token: CancelToken) -> bool: ...


class BackupInfo(msgspec.Struct, rename="camel"):
    """A snapshot; ``size_bytes`` are of what its files hold, ``failures`` the first of ``failed_items``."""

    name: str
    path: str
    created_at: str
    size_bytes: int
    status: Status
    failed_items: int
    failures: list[dict[str, str]]


class WorkProgress(msgspec.Struct, rename="camel"):
    """The payload of ``backup:progress``, ``restore:progress`` and ``verify:progress``.

    ``current_path`` is relative to the top of the tree.
    """

    phase: Phase
    files_copied: int
    bytes_copied: int
    files_total: int
    bytes_total: int
    current_path: str | None


class InfoDone(msgspec.Struct):
    """The payload of ``backup:done`` and ``verify:done``."""

    info: BackupInfo


class RestoreDone(msgspec.Struct):
    """The payload of ``restore:done``; ``previous`` is the snapshot of what was there before, if anything was."""

    info: BackupInfo
    previous: BackupInfo | None
    message: str


class WorkError(msgspec.Struct, rename="camel"):
    """The payload of ``backup:error``, ``restore:error`` and ``verify:error``, with what the error has of details."""

    error: str
    kind: str
    failed_items: int | UnsetType = UNSET
    failures: list[dict[str, str]] | UnsetType = UNSET
    users: list[str] | UnsetType = UNSET


Work = Callable[[Progress], msgspec.Struct]
"""Does it all, and gives the payload of ``:done``."""


class WorkStream:
    """``<family>:progress`` at most every ``PROGRESS_S``, then ``:done``, or ``:error`` and if need be ``:cancelled``.

    Cancelled work is waited for: when the terminal goes out, what was staged is gone, or the work was done after all.
    """

    def __init__(self, family: str, work: Work) -> None:
        self._family = family
        self._work = work
        self._progress: Progress | None = None
        self._shown: WorkProgress | None = None
        self._done: msgspec.Struct | None = None
        self._error: SidecarError | None = None

    async def events(self, token: CancelToken) -> AsyncGenerator[Event, None]:
        """``TooBusy`` if too many work; whatever the work raises is told by ``closing``."""
        progress = Progress(token)
        ended = self._begin(progress)
        try:
            while not ended.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(PROGRESS_S):
                        await ended.wait()
                state = _state(progress)
                if not ended.is_set() and state != self._shown:
                    self._shown = state
                    yield Event(f"{self._family}:progress", state)
        finally:
            token.cancel()
            await ended.wait()

    def sent(self, event: Event) -> None:
        pass

    def closing(self, outcome: Outcome) -> list[Event]:
        if self._done is not None and self._progress is not None:
            last = msgspec.structs.replace(_state(self._progress), phase="done", current_path=None)
            return [Event(f"{self._family}:progress", last), Event(f"{self._family}:done", self._done)]
        error = self._error or outcome.error or Cancelled()
        terminal = Event(f"{self._family}:error", _notice(error))
        return [Event(f"{self._family}:cancelled", Notice()), terminal] if isinstance(error, Cancelled) else [terminal]

    def _begin(self, progress: Progress) -> asyncio.Event:
        """Start the work; the event is set in this loop when it has ended."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        self._progress = progress
        if not _places.acquire(blocking=False):
            raise TooBusy(f"{MAX_BACKUPS_AT_ONCE} backups, restores or checks are at work; wait for one to end")

        def work() -> None:
            try:
                self._done = self._work(progress)
            except BaseException as error:
                self._error = as_sidecar_error(error)
            finally:
                _places.release()
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(ended.set)

        try:
            threading.Thread(target=work, name=self._family).start()
        except BaseException:
            _places.release()
            raise
        return ended


def backup_stream(backups: Backups, include_sessions: bool) -> WorkStream:
    """``backup:…``: make a snapshot."""
    return WorkStream("backup", lambda progress: InfoDone(info_of(backups.backup(include_sessions, progress))))


def restore_stream(backups: Backups, name: str, force: bool) -> WorkStream:
    """``restore:…``: put back what a snapshot holds."""

    def work(progress: Progress) -> RestoreDone:
        snapshot, previous = backups.restore(name, force, progress)
        return RestoreDone(info_of(snapshot), info_of(previous) if previous else None, restored_message(name))

    return WorkStream("restore", work)


def verify_stream(backups: Backups, name: str) -> WorkStream:
    """``verify:…``: check what a snapshot holds."""
    return WorkStream("verify", lambda progress: InfoDone(info_of(backups.verify(name, progress))))


def info_of(snapshot: Snapshot) -> BackupInfo:
    """A snapshot as the wire has it."""
    return BackupInfo(
        wire_name(snapshot.name),
        wire_name(snapshot.path),
        snapshot.created_at,
        snapshot.size_bytes,
        snapshot.status,
        snapshot.failed_items,
        snapshot.failures,
    )


def restored_message(name: str) -> str:
    """What the frontend shows the user."""
    return f"Restored from backup '{name}'"


def _state(progress: Progress) -> WorkProgress:
    return WorkProgress(
        progress.phase,
        progress.files_copied,
        progress.bytes_copied,
        progress.files_total,
        progress.bytes_total,
        wire_name(progress.current_path) if progress.current_path else None,
    )


def _notice(error: SidecarError) -> WorkError:
    details: dict[str, Any] = error.details
    return WorkError(
        error.message,
        error.kind,
        details.get("failedItems", UNSET),
        details.get("failures", UNSET),
        details.get("users", UNSET),
    )
