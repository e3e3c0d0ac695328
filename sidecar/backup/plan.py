"""What a restore has to change: the snapshot's manifest beside that of the state before, both read line by line.

Operations come out in the order in which they are done: what is in a folder between its ``enter`` and its ``leave``, a
folder that goes after all that was in it. Nothing is held but the folders that lead to the current path.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from typing import Callable, Iterator, NamedTuple

from sidecar.backup.disk import blocks_of
from sidecar.backup.journal import ABSENT, Operation, state
from sidecar.backup.manifest import Entry
from sidecar.backup.obstacles import Obstacles
from sidecar.backup.progress import Progress
from sidecar.backup.rules import RESTORE_FOLDER, Selection, order_of, side_files
from sidecar.errors import BackupDamaged
from sidecar.text import wire_name

_UNLISTED = "it couldn't be listed"
"""The text of a folder of whose content nothing is known."""


class Totals:
    """What is to be staged, and what of the disk it takes."""

    def __init__(self) -> None:
        self.files = 0
        self.size_bytes = 0
        self.disk_bytes = 0


class Wish(NamedTuple):
    """What is wanted: the snapshot's entries in order, and by which rules it was made."""

    entries: Iterator[Entry]
    selection: Selection
    removes: bool
    """Whether what the snapshot doesn't have goes; without a manifest nothing tells what it might have had."""


class _Folder:
    """A folder on the way to the current path. ``status`` is ``None`` for one that the restore makes."""

    def __init__(self, path: bytes, status: os.stat_result | None, entry: Entry | None, goes: bool = False) -> None:
        self.path = path
        self.status = status
        self.entry = entry
        self.goes = goes
        self.is_entered = False

    def has(self, path: bytes) -> bool:
        return not self.path or path.startswith(self.path + b"/")


class Planner:
    """Plans the restore of one tree, whose top is at ``root``, a real folder; ``add`` takes each operation.

    ``obstacles`` and ``totals`` tell afterwards what stands in the way, and what is to be staged.
    """

    def __init__(self, root: bytes, wish: Wish, add: Callable[[Operation], None], progress: Progress) -> None:
        self.totals = Totals()
        self.obstacles = Obstacles(root)
        self.databases: list[bytes] = []
        """Those that are replaced or go."""
        self._root = root
        self._wish = wish
        self._add = add
        self._progress = progress
        self._number = 0
        self._folders = [_Folder(b"", os.lstat(root), None)]
        self._kept: bytes | None = None
        """What is here stays, and what is below it."""
        self._aside: bytes | None = None
        """What is below this goes with it."""
        self._not_kept: bytes | None = None
        """Nothing tells what was below this before."""
        self._is_root = sys.platform != "win32" and os.geteuid() == 0

    def run(self, before: Iterator[Entry]) -> None:
        """Plan it. ``before`` are the entries of the state that is there now. ``OSError`` if it can't be looked at."""
        for path, wanted, was in _beside(folded(self._wish.entries), folded(before)):
            self._progress.step()
            if path == RESTORE_FOLDER or path.startswith(RESTORE_FOLDER + b"/"):
                continue
            self._leave_folders(path)
            if not path:
                self._folders[0].entry = wanted
                continue
            if was is not None and was.kind in ("leftOut", "failed"):
                self._not_kept = path
            if wanted is not None and wanted.kind in ("leftOut", "failed"):
                self._kept = path
            elif wanted is not None:
                if not _is_below(path, self._kept):
                    self._want(path, wanted, was)
            elif was is not None:
                self._go(path, was)
        self._leave_folders(None)

    def _want(self, path: bytes, wanted: Entry, was: Entry | None) -> None:
        if os.path.dirname(path) != self._folders[-1].path:
            raise BackupDamaged("the manifest has a path without the folder that it is in")
        status = self._look(path)
        if (status is not None and self._wish.selection.reason_to_leave_out(path, status)) or wanted.text == _UNLISTED:
            self._kept = path
            if wanted.text != _UNLISTED:
                return
        if wanted.kind == "dir":
            if status is None or not stat.S_ISDIR(status.st_mode):
                self._change(Operation("mkdir", path, self._new_number(), self._state(status)), status, was)
                status = None
            self._folders.append(_Folder(path, status, wanted))
            return
        if self._is_same(path, wanted, was, status):
            return
        if status is not None and stat.S_ISDIR(status.st_mode):
            self._aside = path
        self.totals.files += wanted.kind == "file"
        self.totals.size_bytes += wanted.size_bytes
        self.totals.disk_bytes += blocks_of(wanted.size_bytes)
        put = Operation(
            "put",
            path,
            self._new_number(),
            self._state(status),
            wanted.mode,
            wanted.mtime_ns,
            self._owner(wanted),
            wanted.size_bytes,
            wanted.sha256,
            wanted.text if wanted.kind == "link" else None,
        )
        self._change(put, status, was)
        if wanted.is_database:
            self._put_side_files_aside(path)

    def _go(self, path: bytes, was: Entry) -> None:
        """See to what the snapshot doesn't have."""
        if was.kind not in ("file", "dir", "link") or _is_below(path, self._kept):
            return
        status = self._look(path)
        if status is None:
            return
        if _is_below(path, self._aside):
            self._change(Operation("look", path, was=state(status)), status, was)
            return
        if not self._wish.removes or self._wish.selection.reason_to_leave_out(path, status) is not None:
            return
        if stat.S_ISDIR(status.st_mode):
            self._folders.append(_Folder(path, status, None, goes=True))
            return
        self._change(Operation("aside", path, self._new_number(), state(status)), status, was)
        if was.is_database:
            self._put_side_files_aside(path)

    def _put_side_files_aside(self, database: bytes) -> None:
        self.databases.append(database)
        for path in side_files(database):
            status = self._look(path)
            if status is not None and not stat.S_ISDIR(status.st_mode):
                # What was in the WAL is in the state before; what the snapshot has of it comes after this.
                self._change(Operation("aside", path, self._new_number(), state(status)), status, None, is_new=False)

    def _change(
        self, operation: Operation, status: os.stat_result | None, was: Entry | None, is_new: bool = True
    ) -> None:
        """Plan a change at a path, where there is now what ``status`` tells of, and ``was`` was when it was kept."""
        folder = self._folders[-1]
        if operation.kind != "look":
            self._enter(folder)
        if status is not None:
            self.obstacles.look_at_old(operation.path, status)
            if is_new and not _is_below(operation.path, self._not_kept):
                self.obstacles.look_for_change(operation.path, status, was)
        self._add(operation)

    def _enter(self, folder: _Folder) -> None:
        status = folder.status
        if status is None or folder.is_entered:
            return
        folder.is_entered = True
        self.obstacles.look_at_folder(folder.path, status)
        owner = [status.st_uid, status.st_gid] if self._is_root else None
        self._add(Operation("enter", folder.path, 0, None, stat.S_IMODE(status.st_mode), status.st_mtime_ns, owner))

    def _leave_folders(self, path: bytes | None) -> None:
        while len(self._folders) > 1 and (path is None or not self._folders[-1].has(path)):
            self._leave(self._folders.pop())
        if path is None:
            self._leave(self._folders[0])

    def _leave(self, folder: _Folder) -> None:
        status, entry = folder.status, folder.entry
        if folder.goes:
            assert status is not None
            self.obstacles.look_at_old(folder.path, status)
            self._enter(self._folders[-1])
            self._enter(folder)
            self._add(Operation("rmdir", folder.path, 0, None, stat.S_IMODE(status.st_mode)))
            return
        if status is None:
            assert entry is not None
            self._add(self._leaving(entry))
        elif entry is None or not self._wish.removes:
            # Nothing tells what it was like, so only what was changed to get in is taken back.
            if folder.is_entered:
                self._add(Operation("leave", folder.path, 0, None, stat.S_IMODE(status.st_mode)))
        elif folder.is_entered or (entry.mode, entry.mtime_ns) != (stat.S_IMODE(status.st_mode), status.st_mtime_ns):
            self._enter(folder)
            self._add(self._leaving(entry))

    def _leaving(self, entry: Entry) -> Operation:
        return Operation("leave", entry.path, 0, None, entry.mode, entry.mtime_ns, self._owner(entry))

    def _look(self, path: bytes) -> os.stat_result | None:
        """What is at ``path`` now; not through a link in whose place a folder comes."""
        if self._folders[-1].status is None:
            return None
        try:
            return os.lstat(os.path.join(self._root, path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _state(self, status: os.stat_result | None) -> list[int] | None:
        if status is not None:
            return state(status)
        return None if self._folders[-1].status is None else ABSENT

    def _is_same(self, path: bytes, wanted: Entry, was: Entry | None, status: os.stat_result | None) -> bool:
        """Whether what is there is what is wanted, and can stay."""
        if was is None or status is None or was.kind != wanted.kind or wanted.is_database or was.is_database:
            return False
        if self._is_root and was.owner != wanted.owner:
            return False
        if wanted.kind == "link":
            with suppress(OSError):
                target = os.readlink(os.path.join(self._root, path))
                return wire_name(target) == wanted.text
            return False
        there = stat.S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns, stat.S_IMODE(status.st_mode))
        return (
            wanted.sha256 == was.sha256
            and there == (wanted.size_bytes, wanted.mtime_ns, wanted.mode)
            and there == (was.size_bytes, was.mtime_ns, was.mode)
        )

    def _owner(self, entry: Entry) -> list[int] | None:
        return list(entry.owner) if self._is_root and entry.owner is not None else None

    def _new_number(self) -> int:
        self._number += 1
        return self._number


def _is_below(path: bytes, top: bytes | None) -> bool:
    return top is not None and (path == top or path.startswith(top + b"/"))


def folded(entries: Iterator[Entry]) -> Iterator[Entry]:
    """One entry for each path: what is there, before what was wrong with it.

    A folder that couldn't be listed to its end is told of a second time behind what is in it; that is passed over.
    """
    last: Entry | None = None
    for entry in entries:
        if last is not None and entry.path == last.path:
            if last.kind in ("leftOut", "failed"):
                last = entry
            elif last.kind == "dir":
                last = last._replace(text=_UNLISTED)
            continue
        if last is not None:
            if order_of(entry.path) < order_of(last.path):
                continue
            yield last
        last = entry
    if last is not None:
        yield last


def _beside(ones: Iterator[Entry], others: Iterator[Entry]) -> Iterator[tuple[bytes, Entry | None, Entry | None]]:
    """Each path that one of the two has, in order, with what each has there."""
    one, other = next(ones, None), next(others, None)
    while one is not None or other is not None:
        if other is None or (one is not None and order_of(one.path) < order_of(other.path)):
            assert one is not None
            yield one.path, one, None
            one = next(ones, None)
        elif one is None or one.path != other.path:
            yield other.path, None, other
            other = next(others, None)
        else:
            yield one.path, one, other
            one, other = next(ones, None), next(others, None)
