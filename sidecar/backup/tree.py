"""Walk a tree in the order of its manifest, holding a bounded number of names, whatever lies in it."""

from __future__ import annotations

import os
import stat
from typing import Iterator, NamedTuple

from sidecar.backup.rules import (
    DATABASE_MAGIC,
    PHASES,
    Selection,
    database_beside,
    is_database_name,
    phase_of,
)
from sidecar.errors import describe_os_error
from sidecar.limits import MAX_NAME_BYTES, NAME_OVERHEAD_BYTES, NAMES_HELD_BYTES

READING = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
"""How a file of a tree is opened: not through a link, and without waiting for what took its place."""
_BEHIND_ALL_NAMES = b"\xff" * (MAX_NAME_BYTES + 1)


class Found(NamedTuple):
    """What lies at a path below the top of a tree. ``text`` says why it is left out, or how it failed."""

    kind: str
    """``dir``, ``file``, ``link``, ``leftOut`` or ``failed``, as in a manifest."""
    path: bytes
    """Relative, with ``/``; empty for the top itself."""
    status: os.stat_result | None = None
    text: str = ""


def walk_all(root: bytes) -> Iterator[Found]:
    """Everything in the tree of a snapshot, in the order of its manifest; as ``walk`` otherwise."""
    return walk(root, None)


def walk(root: bytes, selection: Selection | None) -> Iterator[Found]:
    """What ``selection`` takes below ``root``, which may be a link to a folder, in the order of ``rules.order_of``.

    Links are not followed. What vanishes meanwhile is passed over. ``OSError`` if the top itself can't be listed.
    """
    yield Found("dir", b"", os.stat(root))
    stack = [(b"", _top_names(root))]
    while stack:
        folder, names = stack[-1]
        try:
            name = next(names, None)
        except FileNotFoundError:
            name = None
        except OSError as error:
            if not folder:
                raise
            yield Found("failed", folder, None, describe_os_error(error))
            name = None
        if name is None:
            stack.pop()
            continue
        path = folder + b"/" + name if folder else name
        found = _look_at(root, path, selection)
        if found is None:
            continue
        yield found
        if found.kind == "dir":
            stack.append((path, _sorted_names(os.path.join(root, path))))


def is_database(path: bytes) -> bool:
    """Whether the file is an SQLite database, by its name or else by how it begins. ``OSError`` if it can't be read."""
    return is_database_name(path) or begins_as_database(path)


def begins_as_database(path: bytes) -> bool:
    """Whether the file begins as SQLite's do. ``OSError`` if it can't be read."""
    fd = os.open(path, READING)
    try:
        return os.read(fd, len(DATABASE_MAGIC)) == DATABASE_MAGIC
    finally:
        os.close(fd)


def _look_at(root: bytes, path: bytes, selection: Selection | None) -> Found | None:
    full_path = root + b"/" + path
    try:
        status = os.lstat(full_path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Found("failed", path, None, describe_os_error(error))
    reason = selection.reason_to_leave_out(path, status) if selection else None
    if reason is not None:
        return Found("leftOut", path, status, reason)
    if stat.S_ISDIR(status.st_mode):
        return Found("dir", path, status)
    if stat.S_ISLNK(status.st_mode):
        return Found("link", path, status)
    if not stat.S_ISREG(status.st_mode):
        return Found("leftOut", path, status, "a socket, a FIFO or a device")
    if selection and _is_beside_database(root, path):
        return Found("leftOut", path, status, "of a database, which is copied through SQLite")
    return Found("file", path, status)


def _is_beside_database(root: bytes, path: bytes) -> bool:
    database = database_beside(path)
    if database is None:
        return False
    full_path = os.path.join(root, database)
    try:
        # The name alone makes no database: what lies beside a folder, a link or nothing is the user's own.
        return stat.S_ISREG(os.lstat(full_path).st_mode) and is_database(full_path)
    except OSError:
        return False


def _top_names(root: bytes) -> Iterator[bytes]:
    for phase in PHASES:
        yield from (name for name in _sorted_names(root) if phase_of(name) == phase)


def _sorted_names(folder: bytes) -> Iterator[bytes]:
    """The names in a folder by their bytes: of a large one as many as ``NAMES_HELD_BYTES`` hold, then the next ones."""
    last = b""
    while True:
        names: list[bytes] = []
        held_bytes = 0
        # Each name between ``last`` and this one that was seen is held.
        end = _BEHIND_ALL_NAMES
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if last < name < end:
                    names.append(name)
                    held_bytes += len(name) + NAME_OVERHEAD_BYTES
                    if held_bytes > NAMES_HELD_BYTES and len(names) > 1:
                        names.sort()
                        middle = len(names) // 2
                        end = names[middle]
                        del names[middle:]
                        held_bytes = sum(map(len, names)) + NAME_OVERHEAD_BYTES * len(names)
        names.sort()
        yield from names
        if end == _BEHIND_ALL_NAMES:
            return
        last = names[-1]
