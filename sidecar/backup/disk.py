"""What is asked of a file system beside reading and writing: room, a sync, the end of a tree."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import threading
from contextlib import suppress

from sidecar.backup.progress import Progress
from sidecar.errors import NoSpace
from sidecar.limits import FREE_SPACE_LEFT_BYTES, MIB, SYNC_LOOK_S

BLOCK_BYTES = 4096
"""What a file takes of a disk is a multiple of this, nearly everywhere."""
_FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)


def check_space(folder: bytes, needed_bytes: int) -> None:
    """``NoSpace`` if what is free where ``folder`` lies is less than is needed, and a little more."""
    if not has_space(folder, needed_bytes):
        free_bytes = shutil.disk_usage(folder).free
        raise NoSpace(
            f"no space left on device: {_mib(needed_bytes)} are needed, {_mib(free_bytes)} are free;"
            f" {_mib(FREE_SPACE_LEFT_BYTES)} are left free"
        )


def has_space(folder: bytes, needed_bytes: int) -> bool:
    """Whether that much is free where ``folder`` lies, and a little more."""
    return needed_bytes + FREE_SPACE_LEFT_BYTES <= shutil.disk_usage(folder).free


def blocks_of(size_bytes: int) -> int:
    """The bytes of a disk that a file of this size takes."""
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


def is_full(error: OSError) -> bool:
    """Whether an error says that there is no room, on the disk or for this user."""
    return error.errno in _FULL


def sync_tree(path: bytes, progress: Progress) -> None:
    """Have all that was written below ``path`` on the disk. ``OSError`` if the system can't, ``Cancelled``.

    One ``syncfs`` where there is one: to sync thousands of small files one by one takes six times as long
    (FIELD-NOTES).
    """
    errors: list[OSError] = []

    def work() -> None:
        try:
            if not _syncfs(path):
                _sync_each(path)
        except OSError as error:
            errors.append(error)

    # In a thread, since it may take seconds, of which a cancel waits for none.
    thread = threading.Thread(target=work, name="sync", daemon=True)
    thread.start()
    while thread.is_alive():
        progress.step()
        thread.join(SYNC_LOOK_S)
    if errors:
        raise errors[0]


def fsync_folder(path: bytes) -> None:
    """Have the names in a folder on the disk; does nothing where a folder can't be opened (Windows)."""
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_tree(path: bytes) -> None:
    """Remove a folder and what is in it, as far as that can be done; of a link, or a file, that itself."""
    with suppress(OSError):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            _unlink(path)
            return
    # A folder is listed anew after each of those in it has gone, so nothing is held of what is not being removed.
    stack = [path]
    while stack:
        folder = stack[-1]
        inner, removed = None, 0
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        inner = entry.path
                        break
                    _unlink(entry.path)
                    removed += 1
            if inner is None:
                os.rmdir(folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno == errno.ENOTEMPTY and removed:
                continue  # a listing may miss names while others go
            # What can't be removed stays; a later start tries again.
            return
        if inner is None:
            stack.pop()
        else:
            with suppress(OSError):
                os.chmod(inner, stat.S_IRWXU)
            stack.append(inner)


def _unlink(path: bytes) -> None:
    try:
        os.unlink(path)
    except PermissionError:  # Windows, of a file that is read-only
        os.chmod(path, stat.S_IWRITE)
        os.unlink(path)


def _syncfs(path: bytes) -> bool:
    if sys.platform != "linux":
        return False
    try:
        import ctypes

        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    except (ImportError, OSError, AttributeError):
        return False
    fd = os.open(path, os.O_RDONLY)
    try:
        if syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
    finally:
        os.close(fd)
    return True


def _sync_each(path: bytes) -> None:
    for folder, _, names in os.walk(path):
        for name in names:
            file = os.path.join(folder, name)
            if not os.path.islink(file):
                # Windows syncs only what is open for writing.
                fd = os.open(file, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        fsync_folder(folder)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:,.1f} MiB"
