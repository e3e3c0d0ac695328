"""A database's files, looked at from outside: the twin of ``sidecar/stores/sqlite_files.py``."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from typing import NamedTuple

from sidecar.remote.python.blocks import Tick
from sidecar.remote.python.errors import Fault
from sidecar.remote.python.limits import COPY_BYTES, SETTLED_NS
from sidecar.remote.python.text import raw

_MOUNTS = "/proc/self/mountinfo"
_SHARED_FILE_SYSTEMS = frozenset(
    ("9p", "afs", "ceph", "cifs", "drvfs", "lustre", "nfs", "nfs4", "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs")
)


class Stamp(NamedTuple):
    """What tells one state of a file from another."""

    inode: int
    size_bytes: int
    modified_at_ns: int


class Look(NamedTuple):
    """How a database and the files beside it stand; ``None`` for one that isn't there."""

    database: Stamp | None = None
    wal: Stamp | None = None
    shm: Stamp | None = None
    journal: Stamp | None = None

    @property
    def way_in(self) -> str:
        """How the database may be read, where no other kernel has it: ``shared``, ``alone`` or as a ``copy``."""
        if holds(self.journal) or (holds(self.wal) and not self.shm):
            return "copy"
        return "shared" if self.wal and self.shm else "alone"

    def is_settled(self) -> bool:
        """Whether a change from now on would show."""
        now_ns = time.time_ns()
        stamps = (self.database, self.journal)
        return all(stamp is None or abs(now_ns - stamp.modified_at_ns) > SETTLED_NS for stamp in stamps)


def look_at(path: str) -> Look:
    """``Fault`` if there is something else than a file, ``OSError`` if that can't be found out."""
    return Look(*(stamp_of(path + suffix) for suffix in ("", "-wal", "-shm", "-journal")))


def stamp_of(path: str) -> Stamp | None:
    """How the file at ``path`` stands; raises as ``look_at`` does."""
    try:
        found = os.stat(raw(path))
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise Fault("not a regular file")
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def holds(stamp: Stamp | None) -> bool:
    """Whether there is a file, and something in it."""
    return stamp is not None and stamp.size_bytes > 0


def is_on_shared_file_system(path: str) -> bool:
    """Whether another kernel than ours may write to what lies there, as far as the system tells."""
    if not os.path.exists(_MOUNTS):
        return False
    device = os.stat(raw(path)).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as mounts:
        for mount in mounts:
            if mount.split(" ", 3)[2] == wanted:
                kind = mount.partition(" - ")[2].split(" ", 1)[0]
                return kind in _SHARED_FILE_SYSTEMS or kind.startswith("fuse.")
    return False


def copy_database(path: str, look: Look, copy: str, tick: Tick) -> bool:
    """Copy what ``look`` found to ``copy``; False if it changed meanwhile, so that the copy is of no one state.

    To be called only while this process has no connection to it, whose locks it would drop.
    """
    sizes = {"": look.database, "-wal": look.wal, "-journal": look.journal}
    free_bytes = shutil.disk_usage(raw(os.path.dirname(copy))).free
    if free_bytes < sum(stamp.size_bytes for stamp in sizes.values() if stamp):
        raise Fault(f"no space for a private copy of the database in {tempfile.gettempdir()}")
    for suffix, stamp in sizes.items():
        if holds(stamp):
            try:
                _copy_file(path + suffix, copy + suffix, tick)
            except OSError as error:
                raise Fault(f"no private copy of the database could be made: {error}") from None
    now = look_at(path)
    # A WAL that has grown is a later state; every commit in it has its checksum.
    return (now.database, now.journal) == (look.database, look.journal)


def _copy_file(source: str, target: str, tick: Tick) -> None:
    with open(raw(source), "rb", buffering=0) as original, open(raw(target), "xb", buffering=0) as copy:
        while True:
            data = original.read(COPY_BYTES)
            if not data:
                return
            while data:
                tick()
                data = data[copy.write(data) :]
