"""Share with the snapshot before what did not change since, so that a second backup costs little time and room."""

from __future__ import annotations

import os
import stat
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import Iterator

from sidecar.backup import manifest
from sidecar.backup.files import clone, keep_status, owner_of
from sidecar.backup.folder import BackupFolder
from sidecar.backup.manifest import Entry
from sidecar.backup.progress import Progress
from sidecar.backup.rules import is_database_name, order_of
from sidecar.errors import BackupDamaged, SourceUnreadable
from sidecar.limits import TIME_SLACK_NS, YOUNG_S


def source_of(path: bytes, status: os.stat_result) -> list[int] | None:
    """What tells whether the file at ``path`` is still the one that was copied; ``None`` if it is too young to tell.

    Of a database its WAL counts too. The device doesn't: its number may change with each start of the system.
    """
    states = [status]
    if is_database_name(path):
        with suppress(OSError):
            states.append(os.stat(path + b"-wal"))
    newest_ns = max(max(state.st_mtime_ns, state.st_ctime_ns) for state in states)
    if time.time_ns() - newest_ns < YOUNG_S * 1e9:
        return None
    return [
        number for state in states for number in (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    ]


def is_unchanged(before: Entry, path: bytes, status: os.stat_result | None) -> bool:
    """Whether the file at ``path`` is still the one that ``before`` is a copy of."""
    return bool(before.source) and status is not None and before.source == source_of(path, status)


class PreviousSnapshot:
    """The newest snapshot that has a manifest, read beside a walk; asked for paths in the order of that walk."""

    def __init__(self, tree: bytes, entries: Iterator[Entry]) -> None:
        self._tree = tree
        self._entries = entries
        self._next: Entry | None = None
        self._next_order: tuple[int, list[bytes]] | None = None
        self._is_over = False
        self._clones = True

    def file_at(self, path: bytes) -> Entry | None:
        """The file that the snapshot has at this path, which comes after all that were asked for before."""
        while not self._is_over:
            if self._next is None:
                try:
                    self._next = next(self._entries, None)
                except (BackupDamaged, OSError):
                    self._next = None
            if self._next is None:
                self._is_over = True
            elif self._next.path == path:
                found, self._next, self._next_order = self._next, None, None
                return found if found.kind == "file" else None
            else:
                self._next_order = self._next_order or order_of(self._next.path)
                if self._next_order > order_of(path):
                    return None
                self._next = self._next_order = None
        return None

    def share(self, entry: Entry, target: bytes, progress: Progress) -> bool:
        """Make ``target`` the same file as that of ``entry``, if that looks as it did; its bytes are counted."""
        # Its content isn't read again, which would take most of what copying takes: ``verify`` finds what a disk loses.
        source = self._tree + b"/" + entry.path
        try:
            status = os.lstat(source)
            same = stat.S_ISREG(status.st_mode) and (status.st_size, stat.S_IMODE(status.st_mode), owner_of(status))
            is_as_old = abs(status.st_mtime_ns - entry.mtime_ns) < TIME_SLACK_NS
            if not is_as_old or same != (entry.size_bytes, entry.mode, entry.owner):
                return False
            self._clones = self._clones and clone(source, target)
            if self._clones:
                keep_status(target, status)
            else:
                os.link(source, target)
        except (OSError, SourceUnreadable):
            # It is being deleted, or has as many links as it can have: the file is copied then, but never into what
            # may be that of the snapshot before.
            with suppress(FileNotFoundError):
                os.unlink(target)
            return False
        progress.step(entry.size_bytes)
        return True


@contextmanager
def previous_snapshot(folder: BackupFolder, progress: Progress) -> Iterator[PreviousSnapshot]:
    """The one to share with; if there is none, one that has nothing."""
    with ExitStack() as stack:
        for name in folder.names():
            path = folder.manifest_of(name)
            try:
                # Its digests become those of the new snapshot: a wrong one would make that damaged from the start.
                if not manifest.is_as_written(path, progress):
                    continue
                reader = stack.enter_context(manifest.opened(path))
            except (OSError, BackupDamaged):
                continue
            yield PreviousSnapshot(os.path.join(folder.path, name), reader.entries())
            return
        yield PreviousSnapshot(b"", iter(()))
