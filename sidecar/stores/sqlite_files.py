"""The files of a database, from outside: looked at with ``stat``, copied by a child, never opened here.

One ``open`` and ``close`` of the ``.sqlite``, ``-wal`` or ``-shm`` in a process that has an SQLite connection to them
would drop SQLite's locks (FIELD-NOTES, "SQLite and copying").
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import tempfile
import time
from typing import Literal, NamedTuple

from sidecar.cancel import CancelToken
from sidecar.errors import SourceUnreadable
from sidecar.limits import COPY_CHECK_S, MAX_CHILD_ERROR_BYTES, SETTLED_NS

WayIn = Literal["shared", "alone", "copy"]


class Stamp(NamedTuple):
    """What tells one state of a file from another."""

    inode: int
    size_bytes: int
    modified_at_ns: int


class Look(NamedTuple):
    """How a database and the files beside it stand; ``None`` for one that isn't there."""

    database: Stamp | None
    wal: Stamp | None
    shm: Stamp | None
    journal: Stamp | None

    @property
    def way_in(self) -> WayIn:
        """How the database may be read, where no other kernel has it."""
        if holds(self.journal) or (holds(self.wal) and not self.shm):
            return "copy"  # to be recovered there, and only there
        return "shared" if self.wal and self.shm else "alone"

    def is_settled(self) -> bool:
        """Whether a change from now on would show: the clock of the file system moves in steps of some milliseconds."""
        now_ns = time.time_ns()
        stamps = (self.database, self.journal)
        return all(stamp is None or abs(now_ns - stamp.modified_at_ns) > SETTLED_NS for stamp in stamps)


def look_at(path: str) -> Look:
    """``SourceUnreadable`` if there is something else than a file, ``OSError`` if that can't be found out."""
    return Look(stamp_of(path), stamp_of(path + "-wal"), stamp_of(path + "-shm"), stamp_of(path + "-journal"))


def stamp_of(path: str) -> Stamp | None:
    """How the file at ``path`` stands; raises as ``look_at`` does."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None  # what is beside a name may be longer than any name
        raise
    if not stat.S_ISREG(found.st_mode):
        raise SourceUnreadable("not a regular file")
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def holds(stamp: Stamp | None) -> bool:
    """Whether there is a file, and something in it."""
    return stamp is not None and stamp.size_bytes > 0


def copy_database(path: str, look: Look, copy: str, token: CancelToken) -> bool:
    """Copy what ``look`` found to ``copy``; False if it changed meanwhile, so that the copy is of no one state.

    ``SourceUnreadable`` if there is no space for it, or something can't be read.
    """
    sizes = {"": look.database, "-wal": look.wal, "-journal": look.journal}
    if shutil.disk_usage(os.path.dirname(copy)).free < sum(stamp.size_bytes for stamp in sizes.values() if stamp):
        raise SourceUnreadable(f"no space for a private copy of the database in {tempfile.gettempdir()}")
    for suffix, stamp in sizes.items():
        if holds(stamp):
            _copy_file(path + suffix, copy + suffix, token)
    now = look_at(path)
    # A WAL that has grown is a later state; every commit in it has its checksum.
    return (now.database, now.journal) == (look.database, look.journal)


def _copy_file(source: str, target: str, token: CancelToken) -> None:
    if os.name == "nt":  # where locks belong to the handle that took them
        shutil.copyfile(source, target)
        return
    with subprocess.Popen(
        [shutil.which("cp") or "/bin/cp", "--", source, target],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as child:
        try:
            while child.poll() is None:
                token.check()
                try:
                    child.wait(COPY_CHECK_S)
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            child.kill()
            raise
        if child.returncode:
            assert child.stderr is not None
            told = child.stderr.read(MAX_CHILD_ERROR_BYTES).decode("utf-8", "replace").strip()
            raise SourceUnreadable(f"no private copy of the database could be made: {told}")
