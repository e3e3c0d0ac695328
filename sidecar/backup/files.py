"""Copy files with their digests, and tell whether one changed meanwhile."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import time
from typing import Iterator, NamedTuple

from sidecar.backup.progress import Progress
from sidecar.backup.tree import READING
from sidecar.errors import SourceUnreadable, describe_os_error
from sidecar.limits import COPY_BYTES, MAX_COPIES, SETTLED_NS

_WRITING = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_FICLONE = 0x40049409  # linux/fs.h


class Copied(NamedTuple):
    """A copy that was made; ``status`` is of the source, as it was copied."""

    sha256: str
    size_bytes: int
    status: os.stat_result


class StoppedAt(Exception):
    """The file begins with what a copy was to stop at."""


def copy_file(source: bytes, target: bytes, progress: Progress, stop_at: bytes | None = None) -> Copied:
    """Copy a file that others may write to, so that the copy is a state that it had; with mode, times and owner.

    One that changes meanwhile is copied again, ``MAX_COPIES`` times; of one that only grew, what it was at first is
    such a state. ``StoppedAt`` where it begins with ``stop_at``. ``FileNotFoundError`` if it is gone,
    ``SourceUnreadable`` if it can't be read or never holds still; ``OSError`` if the copy can't be written.
    """
    fd = _open(source)
    try:
        for _ in range(MAX_COPIES):
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise SourceUnreadable("no regular file any more")
            is_young = time.time_ns() - before.st_mtime_ns < SETTLED_NS
            sha256, size_bytes = _copy(fd, target, before, progress, stop_at)
            after = os.fstat(fd)
            changed = (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
            if not changed and not is_young and size_bytes == before.st_size:
                return Copied(sha256, size_bytes, before)
            if size_bytes <= after.st_size and sha256 == _digest_start(fd, size_bytes, progress):
                # It was so twice, so it was so when it was opened: only what is behind that is new.
                return Copied(sha256, size_bytes, before)
            progress.bytes_copied -= size_bytes
        raise SourceUnreadable(f"it changed each of the {MAX_COPIES} times that it was copied")
    finally:
        os.close(fd)


def digest_of(path: bytes, progress: Progress) -> str:
    """The SHA-256 of a file. ``SourceUnreadable`` if it can't be read; ``FileNotFoundError`` if it isn't there."""
    digest = hashlib.sha256()
    fd = _open(path)
    try:
        for data in _pieces(fd, sys.maxsize):
            digest.update(data)
            progress.step(len(data))
        return digest.hexdigest()
    finally:
        os.close(fd)


def keep_status(path: bytes, status: os.stat_result) -> None:
    """Give the file at ``path`` the mode, the times and, if this process may, the owner that ``status`` tells of."""
    owner = owner_of(status)
    if owner is not None and _is_root():
        os.chown(path, *owner)
    os.chmod(path, stat.S_IMODE(status.st_mode))
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))


def owner_of(status: os.stat_result) -> tuple[int, int] | None:
    """User and group, where they aren't those of this process."""
    if sys.platform == "win32" or (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid()):
        return None
    return status.st_uid, status.st_gid


def clone(source: bytes, target: bytes) -> bool:
    """Make ``target`` share what ``source`` has on the disk, where the file system can; each stays its own file."""
    if sys.platform != "linux":
        return False
    import fcntl

    source_fd = _open(source)
    try:
        target_fd = os.open(target, _WRITING, 0o600)
        try:
            fcntl.ioctl(target_fd, _FICLONE, source_fd)
        except OSError:
            os.unlink(target)
            return False
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)
    return True


def _is_root() -> bool:
    return sys.platform != "win32" and os.geteuid() == 0


def _copy(fd: int, target: bytes, status: os.stat_result, progress: Progress, stop_at: bytes | None) -> tuple[str, int]:
    """Copy as much as ``status`` tells of, or less if there is less: the digest and the size."""
    digest = hashlib.sha256()
    left = status.st_size
    os.lseek(fd, 0, os.SEEK_SET)
    target_fd = os.open(target, _WRITING, 0o600)
    try:
        for data in _pieces(fd, left):
            if stop_at is not None and left == status.st_size and data.startswith(stop_at):
                raise StoppedAt
            digest.update(data)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(target_fd, rest) :]
            left -= len(data)
            progress.step(len(data))
        if left == status.st_size:
            progress.step()
    finally:
        os.close(target_fd)
    keep_status(target, status)
    return digest.hexdigest(), status.st_size - left


def _digest_start(fd: int, size_bytes: int, progress: Progress) -> str:
    digest = hashlib.sha256()
    os.lseek(fd, 0, os.SEEK_SET)
    for data in _pieces(fd, size_bytes):
        digest.update(data)
        progress.step()
    return digest.hexdigest()


def _open(path: bytes) -> int:
    try:
        return os.open(path, READING)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SourceUnreadable(describe_os_error(error)) from None


def _pieces(fd: int, size_bytes: int) -> Iterator[bytes]:
    """As many bytes, or what there is, from where ``fd`` stands. ``SourceUnreadable`` if they can't be read."""
    while size_bytes > 0:
        data = _read(fd, min(size_bytes, COPY_BYTES))
        if not data:
            return
        size_bytes -= len(data)
        yield data


def _read(fd: int, size_bytes: int) -> bytes:
    try:
        return os.read(fd, size_bytes)
    except OSError as error:
        raise SourceUnreadable(describe_os_error(error)) from None
