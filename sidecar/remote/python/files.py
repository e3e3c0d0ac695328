"""Open and read regular files: the twin of ``sidecar/stores/files.py``."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import Iterator, NamedTuple

from sidecar.remote.python.blocks import Tick
from sidecar.remote.python.errors import Fault
from sidecar.remote.python.limits import BLOCK_BYTES
from sidecar.remote.python.text import raw

# A FIFO that took a file's place must not hold up the open.
OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


class OpenFile(NamedTuple):
    """A regular file, open for reading, and how it stood when it was opened."""

    fd: int
    size_bytes: int
    modified_at_ms: float


def open_regular(path: str, folder_fd: int | None = None) -> OpenFile:
    """Open the regular file at ``path``; the caller closes it. ``Fault`` if something else is there."""
    fd = os.open(raw(path), OPEN_FLAGS, dir_fd=folder_fd)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise Fault("not a regular file")
    return OpenFile(fd, found.st_size, found.st_mtime_ns / 1_000_000)


@contextmanager
def open_folder(path: str) -> Iterator[int]:
    """Hold a folder open."""
    fd = os.open(raw(path), OPEN_FLAGS | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


class FileReader:
    """A ``ReadInto`` of ``left`` bytes at most; ``left`` is above 0 at the end if the file turned out shorter."""

    def __init__(self, file: OpenFile, tick: Tick) -> None:
        self.left = file.size_bytes
        self._fd = file.fd
        self._tick = tick

    def __call__(self, space: memoryview) -> int:
        self._tick()
        count = os.readv(self._fd, [space[: self.left]]) if self.left else 0
        self.left -= count
        return count

    def chunks(self) -> Iterator[bytes]:
        """The same as chunks."""
        space = memoryview(bytearray(BLOCK_BYTES))
        while True:
            count = self(space)
            if not count:
                return
            yield bytes(space[:count])
