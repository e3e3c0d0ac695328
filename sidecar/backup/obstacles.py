"""What stands in the way of a restore, found before its first change: what can't be replaced, and what changed."""

from __future__ import annotations

import os
import re
import stat
import sys
from contextlib import suppress

from sidecar.backup.failures import Failures
from sidecar.backup.manifest import Entry
from sidecar.errors import TargetInUse, TargetNotWritable
from sidecar.limits import MAX_NAMED_REFUSALS, MAX_REPORTED_FAILURES
from sidecar.text import wire_name

_MOUNTS = "/proc/self/mountinfo"


class Obstacles:
    """Those of the tree at ``root``, a real folder; counted, and the first kept."""

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._device = os.lstat(root).st_dev
        self._mounts = _mounts_below(root)
        # On Windows st_uid is 0 for everything, and only the change itself tells whether it may be made.
        self._user = 0 if sys.platform == "win32" else os.geteuid()
        self._failures = Failures()
        self.changes: list[str] = []

    def look_at_old(self, path: bytes, status: os.stat_result) -> None:
        """At what is to be moved away, or removed."""
        if status.st_dev != self._device or any(_is_at_or_below(mount, path) for mount in self._mounts):
            self._failures.add(path, "it is on another file system than the tree, or a mount point is there")
        elif self._user > 0 and status.st_uid != self._user:
            self._failures.add(path, f"permission denied: it belongs to another user ({status.st_uid})")

    def look_at_folder(self, path: bytes, status: os.stat_result) -> None:
        """At a folder in which something changes."""
        if path and (status.st_dev != self._device or any(_is_at_or_below(path, mount) for mount in self._mounts)):
            self._failures.add(path, "it is on another file system than the tree, or a mount point is there")
        # One of our own can be made writable for a while.
        elif status.st_uid != self._user and not os.access(os.path.join(self._root, path), os.W_OK | os.X_OK):
            self._failures.add(path or self._root, "permission denied: the folder can't be written to")

    def look_for_change(self, path: bytes, status: os.stat_result, was: Entry | None) -> None:
        """At what is there now, and was so, or wasn't there, when the state before was kept."""
        if (was is None or not _is_as_kept(status, was)) and len(self.changes) < MAX_REPORTED_FAILURES:
            self.changes.append(f"{wire_name(path)} changed after its state was kept")

    def check_writable(self) -> None:
        """``TargetNotWritable`` if something can't be replaced or removed."""
        if self._failures.count:
            raise TargetNotWritable(f"{self._failures.sentence}; nothing was changed", **self._failures.details)


def check_unused(users: list[str]) -> None:
    """``TargetInUse`` if there are any."""
    if users:
        named = users[:MAX_NAMED_REFUSALS]
        if len(users) > len(named):
            named.append(f"and {len(users) - len(named)} more")
        raise TargetInUse(f"in use: {'; '.join(named)}; nothing was changed", users=users[:MAX_REPORTED_FAILURES])


def _is_as_kept(status: os.stat_result, was: Entry) -> bool:
    if was.kind == "dir":
        return stat.S_ISDIR(status.st_mode)
    if was.kind == "link":
        return stat.S_ISLNK(status.st_mode)
    if not stat.S_ISREG(status.st_mode) or status.st_mtime_ns != was.mtime_ns:
        return False
    if was.source is not None and was.source[0] != status.st_ino:
        return False
    # A database was copied with what was in its WAL.
    return was.is_database or status.st_size == was.size_bytes


def _is_at_or_below(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top + b"/")


def _mounts_below(root: bytes) -> frozenset[bytes]:
    """What is mounted in the tree, by paths from its top; nothing where the system doesn't tell."""
    mounts = set()
    with suppress(OSError), open(_MOUNTS, "rb") as lines:
        for line in lines:
            point = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), line.split(b" ")[4])
            if point.startswith(os.path.join(root, b"")):
                mounts.add(os.path.relpath(point, root))
    return frozenset(mounts)
