"""A folder whose files are removed, and the locks in it: the twin of ``sidecar/stores/session_folders.py``."""

from __future__ import annotations

import errno
import json
import os
import time
from contextlib import suppress

from sidecar.remote.python.errors import FAULTS
from sidecar.remote.python.files import open_regular
from sidecar.remote.python.json_values import UNREADABLE
from sidecar.remote.python.limits import LOCK_STALE_S, MAX_LOCK_BYTES
from sidecar.remote.python.text import raw


class Folder:
    """A folder held open, and what is done to the files in it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def remove(self, name: str) -> None:
        """Remove a file, or a link and not what it leads to."""
        os.unlink(raw(name), dir_fd=self.fd)

    def stat(self, name: str, *, follow_symlinks: bool = True) -> os.stat_result:
        """How a file stands."""
        return os.stat(raw(name), dir_fd=self.fd, follow_symlinks=follow_symlinks)

    def create(self, name: str) -> int:
        """Open a new file for writing; ``FileExistsError`` if there is one, or a link."""
        return os.open(raw(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self.fd)

    def replace(self, name: str, by: str) -> None:
        """Put a file in the place of another."""
        os.replace(raw(by), raw(name), src_dir_fd=self.fd, dst_dir_fd=self.fd)
        self.sync()

    def sync(self) -> None:
        """Make what was done outlast a loss of power, where the file system can."""
        with suppress(OSError):
            os.fsync(self.fd)


def live_lock(folder: Folder, name: str) -> str | None:
    """Who holds the lock file ``name``, in words; ``None`` if there is none, or a stale one."""
    try:
        age_s = time.time() - folder.stat(name, follow_symlinks=False).st_mtime
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENAMETOOLONG}:
            return None
        raise
    pid = _lock_owner(folder, name)
    if pid is None:
        return "an unknown process" if age_s < LOCK_STALE_S else None
    return f"process {pid}" if _runs(pid) else None


def _lock_owner(folder: Folder, name: str) -> int | None:
    try:
        file = open_regular(name, folder.fd)
        try:
            owner = json.loads(os.read(file.fd, min(file.size_bytes, MAX_LOCK_BYTES)).decode("utf-8", "replace"))
        finally:
            os.close(file.fd)
    except (*UNREADABLE, *FAULTS):
        return None
    pid = owner.get("pid") if type(owner) is dict else None
    return pid if type(pid) is int and 1 <= pid < 2**64 else None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it runs, for another user
        return True
    return True
