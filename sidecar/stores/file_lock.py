"""Locks between processes: on a file that stays where it is, held as long as it is open, gone with its process."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import Iterator

from sidecar.errors import SourceUnreadable
from sidecar.limits import LOCK_POLL_S
from sidecar.text import wire_name


class FileLock:
    """The lock of the file at ``path``, which is made if it isn't there; its folder must be."""

    def __init__(self, path: bytes) -> None:
        self.path = path
        self._fd: int | None = None

    def acquire(self, wait_s: float = 0.0) -> bool:
        """Take it; False if another holds it, in this process or any, for ``wait_s`` seconds. ``OSError``."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        fd = os.open(self.path, flags, 0o600)
        until_s = time.monotonic() + wait_s
        try:
            while not _try_lock(fd):
                if time.monotonic() >= until_s:
                    os.close(fd)
                    return False
                time.sleep(LOCK_POLL_S)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return True

    def release(self) -> None:
        """Let it go; nothing if it isn't held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


@contextmanager
def held(path: bytes, wait_s: float) -> Iterator[None]:
    """Hold the lock of the file at ``path``. ``SourceUnreadable`` if another keeps it for ``wait_s`` seconds."""
    lock = FileLock(path)
    if not lock.acquire(wait_s):
        raise SourceUnreadable(f"another process holds the lock {wire_name(path)}; waited {wait_s} s")
    try:
        yield
    finally:
        lock.release()


def _try_lock(fd: int) -> bool:
    # Neither module is there on every system, and this one must be importable on each.
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
