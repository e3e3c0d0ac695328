"""What a restore does to a tree, as a list on the disk: each operation can be done, undone, and either again.

``.clawpal-restore`` at the top of the tree holds all that a restore needs, in the tree's own file system: ``new`` what
comes, ``old`` what goes, and the list. While the list is called ``journal.jsonl``, whoever finds it does what it says;
while it is ``undo.jsonl``, undoes it; without either the tree is whole, and the folder is what is left to be removed.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, Iterator, NamedTuple

from sidecar.backup.disk import fsync_folder, remove_tree
from sidecar.backup.rules import RESTORE_FOLDER
from sidecar.errors import SourceUnreadable
from sidecar.limits import MAX_MANIFEST_LINE_BYTES
from sidecar.stores.file_lock import FileLock
from sidecar.text import file_name, wire_name

ABSENT: list[int] = []
"""The state of what isn't there."""


def step(_what: str) -> None:
    """Called before each change that a restore makes to the tree, with what it is; tests have their faults here."""


class Operation(NamedTuple):
    """One change. Which fields count depends on ``kind``.

    ``enter`` before a folder changes, which was of this mode and time; ``leave`` when it has changed, and is to be so.
    ``put`` what is staged as ``number``, a file or a link of these fields, and move aside what is there; ``aside`` that
    alone; ``mkdir`` in place of what is there; ``rmdir`` if it is empty; ``look`` is no change.
    """

    kind: str
    path: bytes
    """Relative to the top."""
    number: int = 0
    was: list[int] | None = None
    """What ``state_of`` told of the path when this was planned; ``None`` where that couldn't be told."""
    mode: int = 0
    mtime_ns: int = 0
    owner: list[int] | None = None
    size_bytes: int = 0
    sha256: str = ""
    """Empty if nothing tells it."""
    text: str | None = None
    """Of a link its target, as a wire name; ``None`` for a file."""


def state_of(path: bytes) -> list[int]:
    """What tells whether there is still the same at ``path``."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT
    return state(status)


def state(status: os.stat_result) -> list[int]:
    """``state_of`` for what was looked at already."""
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def rename(source: bytes, target: bytes) -> None:
    """Move what is at ``source``, whatever it is, to ``target``."""
    step("rename")
    os.replace(source, target)


class Workspace:
    """The folder of a restore in the tree at ``root``, which is a real folder: what is where, and what counts."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self.path = os.path.join(root, RESTORE_FOLDER)
        self.lock = os.path.join(self.path, b"lock")
        self.plan = os.path.join(self.path, b"plan.jsonl")
        self.journal = os.path.join(self.path, b"journal.jsonl")
        self.undo = os.path.join(self.path, b"undo.jsonl")
        self._new = os.path.join(self.path, b"new")
        self._old = os.path.join(self.path, b"old")

    def full(self, path: bytes) -> bytes:
        return os.path.join(self.root, path) if path else self.root

    def new(self, number: int) -> bytes:
        return os.path.join(self._new, b"%d" % number)

    def old(self, number: int) -> bytes:
        return os.path.join(self._old, b"%d" % number)

    def prepare(self) -> None:
        """Make place for what comes and what goes."""
        for folder in (self._new, self._old):
            step("mkdir")
            os.mkdir(folder, 0o700)

    def begin(self) -> None:
        """From now on the restore is to be finished, whatever happens: the plan, which must be on the disk, holds."""
        rename(self.plan, self.journal)
        fsync_folder(self.path)

    def turn_back(self) -> None:
        """From now on the restore is to be undone, whatever happens."""
        rename(self.journal, self.undo)
        fsync_folder(self.path)

    def end(self) -> None:
        """What is in the tree, and on the disk, is what counts from now on."""
        for path in (self.journal, self.undo):
            if os.path.lexists(path):
                step("unlink")
                os.unlink(path)
        with suppress(OSError):  # to do again what is done changes nothing
            fsync_folder(self.path)

    def clear(self) -> None:
        """Remove all but the lock."""
        with suppress(FileNotFoundError):
            os.unlink(self.plan)
        for folder in (self._new, self._old):
            if os.path.isdir(folder):
                remove_tree(folder)


class TreeLock(FileLock):
    """A lock whose file may have been removed while it was waited for."""

    def is_in_place(self) -> bool:
        """Whether it is that of the file at its path."""
        if self._fd is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._fd), os.lstat(self.path))
        except FileNotFoundError:
            return False


def take(workspace: Workspace) -> TreeLock | None:
    """The lock of the tree's restores; ``None`` if another has it. Its folder is made if it isn't there.

    ``OSError`` if that can't be done, ``SourceUnreadable`` where something else than a folder has its name.
    """
    while True:
        try:
            with _same_times(workspace.root):
                step("mkdir")
                os.mkdir(workspace.path, 0o700)
        except FileExistsError:
            try:
                is_in_the_way = not stat.S_ISDIR(os.lstat(workspace.path).st_mode)
            except FileNotFoundError:
                continue
            if is_in_the_way:
                name = wire_name(workspace.path)
                raise SourceUnreadable(f"{name} is in the way: it is no folder") from None
        lock = TreeLock(workspace.lock)
        try:
            if not lock.acquire():
                return None
        except FileNotFoundError:  # whoever had it has just removed the folder
            continue
        if lock.is_in_place():
            return lock
        lock.release()


def give_up(workspace: Workspace, lock: TreeLock) -> None:
    """Let the lock go, and remove the folder if nothing else is in it."""
    if os.name == "nt":  # where no open file can be removed
        lock.release()
    try:
        with suppress(OSError):  # another is just about to take it, or it stays for the next start
            with os.scandir(workspace.path) as entries:
                is_empty = all(entry.name == b"lock" for entry in entries)
            if is_empty:
                with _same_times(workspace.root):
                    os.unlink(workspace.lock)
                    os.rmdir(workspace.path)
    finally:
        lock.release()


def write(file: BinaryIO, operation: Operation) -> None:
    """Add a line to a plan."""
    fields: dict[str, Any] = dict(zip(Operation._fields, operation))
    fields["path"] = wire_name(operation.path)
    fields = {key: value for key, value in fields.items() if value != _DEFAULTS.get(key, _NO_DEFAULT)}
    file.write(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n")


def read(path: bytes) -> Iterator[Operation]:
    """The operations of the list at ``path``, in order. ``OSError``, ``SourceUnreadable`` if it can't be read."""
    with open(path, "rb") as file:
        while True:
            line = file.readline(MAX_MANIFEST_LINE_BYTES)
            if not line:
                return
            yield _operation(line)


def read_backwards(path: bytes) -> Iterator[Operation]:
    """The same from the last to the first."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        rest = b""
        while end > 0:
            start = max(0, end - MAX_MANIFEST_LINE_BYTES)
            file.seek(start)
            lines = (file.read(end - start) + rest).split(b"\n")
            rest = lines.pop(0)
            for line in reversed(lines):
                if line:
                    yield _operation(line)
            end = start
        if rest:
            yield _operation(rest)


_NO_DEFAULT = object()
_DEFAULTS = Operation._field_defaults


def _operation(line: bytes) -> Operation:
    try:
        fields = json.loads(line)
        return Operation(**dict(fields, path=os.fsencode(file_name(fields["path"]))))
    except (KeyError, TypeError, ValueError):
        raise SourceUnreadable("the journal of a restore can't be read") from None


def is_folder(path: bytes) -> bool:
    """Whether there is a folder, and no link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


@contextmanager
def _same_times(folder: bytes) -> Iterator[None]:
    """Let names come and go in a folder without its times telling; what fails has changed nothing."""
    status = os.stat(folder)
    yield
    with suppress(FileNotFoundError, PermissionError):
        os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns))
