"""Open and read regular files without being held up or misled by what else may bear their names."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sidecar.cancel import CancelToken
from sidecar.errors import SourceUnreadable

# A FIFO that took a file's place must not hold up the open; Windows has other flags.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


class OpenFile(NamedTuple):
    """A regular file, open for reading, and how it stood when it was opened."""

    fd: int
    size_bytes: int
    modified_at_ms: float


def open_regular(path: str, folder_fd: int | None = None) -> OpenFile:
    """Open the regular file at ``path``; the caller closes it. ``SourceUnreadable`` if something else is there."""
    fd = os.open(path, _FLAGS, dir_fd=folder_fd)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise SourceUnreadable("not a regular file")
    return OpenFile(fd, found.st_size, found.st_mtime_ns / 1_000_000)


@contextmanager
def open_folder(path: str) -> Iterator[tuple[int | None, str]]:
    """Hold a folder open, so that the system need not walk its path again for each file in it.

    Gives its descriptor for ``open_regular`` and what to put before a name: where a system has no such descriptors
    (Windows), none and the path.
    """
    if os.open not in os.supports_dir_fd:
        yield None, os.path.join(path, "")
        return
    fd = os.open(path, _FLAGS | os.O_DIRECTORY)
    try:
        yield fd, ""
    finally:
        os.close(fd)


class BoundedReader:
    """Reads ``left`` bytes at most, from where the descriptor stands: what is appended meanwhile is a later state.

    The token is checked before each read. ``left`` is above 0 at the end if the file turned out shorter.
    """

    __slots__ = ("_fd", "_token", "left")

    def __init__(self, fd: int, size_bytes: int, token: CancelToken) -> None:
        self._fd = fd
        self._token = token
        self.left = size_bytes

    def __call__(self, space: memoryview) -> int:
        self._token.check()
        count = _read(self._fd, space[: self.left]) if self.left else 0
        self.left -= count
        return count


if hasattr(os, "readv"):

    def _read(fd: int, space: memoryview) -> int:
        return os.readv(fd, [space])

else:  # Windows

    def _read(fd: int, space: memoryview) -> int:
        data = os.read(fd, len(space))
        space[: len(data)] = data
        return len(data)
