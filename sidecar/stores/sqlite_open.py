"""Open an agent's database so that reading it harms nothing and leaves no trace (FIELD-NOTES, "SQLite and copying").

No single way in is right. ``mode=ro`` leaves ``-wal`` and ``-shm`` beside a closed database; ``immutable=1`` reads
nothing of what still lies in a WAL, without an error; ``readonly_shm=1`` needs the ``-shm``. And a process that has a
connection may not open any of the files in another way: closing them would drop SQLite's locks. So here they are only
looked at with ``stat``, and copied by a child.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from sidecar.cancel import CancelToken
from sidecar.errors import BrokenDatabase, Cancelled, SidecarError, SourceUnreadable

CACHE_KIB = 256
BUSY_TIMEOUT_S = 0.05
RETRY_S = 0.01
LOOK_S = 0.02
MAX_BUSY_S = 5.0
MAX_COPIES = 3
COPY_CHECK_S = 0.02
MAX_SMALL_VALUE_BYTES = 64 * 1024

T = TypeVar("T")
WayIn = Literal["shared", "alone", "copy"]

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_MOUNTS = "/proc/self/mountinfo"
# File systems on which another kernel may hold the database open: neither its locks nor its -shm are ours to see.
_SHARED_FILE_SYSTEMS = {"9p", "afs", "ceph", "cifs", "drvfs", "lustre", "nfs", "nfs4", "prl_fs", "smb3", "smbfs"} | {
    "vboxsf",
    "virtiofs",
}


class _Stamp(NamedTuple):
    inode: int
    size_bytes: int
    modified_at_ns: int


class _Look(NamedTuple):
    """How a database and the files beside it stand; ``None`` for one that isn't there."""

    database: _Stamp | None
    wal: _Stamp | None
    shm: _Stamp | None
    journal: _Stamp | None

    @property
    def way_in(self) -> WayIn:
        """How the database may be read where no other kernel has it."""
        if _holds(self.journal) or (_holds(self.wal) and not self.shm):
            return "copy"  # to be recovered there, and only there
        return "shared" if self.wal and self.shm else "alone"


class Database:
    """The database at ``path``, read in short transactions by one thread at a time, any; opened when it is first read.

    ``close`` may be called at any time; the next ``read`` opens anew.
    """

    def __init__(self, path: str, token: CancelToken) -> None:
        # SQLite follows links too, and has its -wal beside what they lead to.
        self._path = os.path.realpath(path)
        self._token = token
        self._connection: sqlite3.Connection | None = None
        self._copied_into: tempfile.TemporaryDirectory[str] | None = None
        self._look = _Look(None, None, None, None)
        self._way_in: WayIn = "alone"
        self._looked_at_s = 0.0

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What ``work`` gets out of one state of the database; it may be called again, and TEXT comes as ``bytes``.

        A value over ``MAX_SMALL_VALUE_BYTES`` raises ``sqlite3.DataError`` where it is asked for, before anything of it
        is in memory: ``blobopen`` reads such a one. ``OSError`` or ``SidecarError`` where the database can't be read.
        """
        give_up_at_s = time.monotonic() + MAX_BUSY_S
        while True:
            self._token.check()
            try:
                result = _in_transaction(self._connection or self._open(), work)
            except (sqlite3.Error, UnicodeDecodeError) as error:
                moved = self._moved()
                if not moved and not _is_busy(error):
                    raise _described(error) from None
            except Cancelled:
                raise
            except SidecarError:
                moved = self._moved()
                if not moved:
                    raise
            else:
                moved = self._way_in == "alone" and not self._was_alone()
                if not moved:
                    return result
            if moved:
                self.close()
            if time.monotonic() >= give_up_at_s:
                raise SourceUnreadable("the database is busy: it changes or is locked all the time; try again")
            time.sleep(RETRY_S)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._copied_into is not None:
            self._copied_into.cleanup()
            self._copied_into = None

    def _open(self) -> sqlite3.Connection:
        self._look = _look_at(self._path)
        if self._look.database is None:
            raise FileNotFoundError(2, "No such file or directory", self._path)
        if not self._look.database.size_bytes and not _holds(self._look.wal):
            raise BrokenDatabase("the database is an empty file")
        self._way_in = "copy" if _is_on_shared_file_system(self._path) else self._look.way_in
        if self._way_in == "copy":
            self._connection = self._open_copy()
        else:
            how = "mode=ro&readonly_shm=1" if self._way_in == "shared" else "mode=ro&immutable=1"
            self._connection = _connect(self._path, how)
        return self._connection

    def _open_copy(self) -> sqlite3.Connection:
        """A connection to a private copy, which is recovered there as the original would be here."""
        self._copied_into = tempfile.TemporaryDirectory(prefix="clawpal-sidecar-")
        copy = os.path.join(self._copied_into.name, "copy.sqlite")
        try:
            journal = _copy(self._path, copy, self._token).journal
            # Read-only, so that closing it doesn't write the WAL into it; only a journal has to be rolled back.
            self._connection = _connect(copy, "mode=rw" if _holds(journal) else "mode=ro")
            self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except BaseException:
            self.close()
            raise
        if os.name != "nt":
            # It holds secrets: now that its files are open, not even a process that is killed leaves it behind.
            self._copied_into.cleanup()
        return self._connection

    def _moved(self) -> bool:
        """Whether what was read may be no state of the database, since it isn't as it was when it was opened."""
        if self._way_in == "copy" or self._connection is None:
            return False
        look = _look_at(self._path)
        self._looked_at_s = time.monotonic()
        return look != self._look if self._way_in == "alone" else look.way_in != "shared"

    def _was_alone(self) -> bool:
        """Whether nobody wrote to the file since it was opened: without locks, what was read may be torn then.

        Who opens it to write has a WAL, or a journal, long before; to look for those now and then is enough.
        """
        if time.monotonic() - self._looked_at_s > LOOK_S:
            return not self._moved()
        return _stamp(self._path) == self._look.database


def _in_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN")
    try:
        return work(connection)
    finally:
        connection.rollback()


def _connect(path: str, how: str) -> sqlite3.Connection:
    # autocommit, so that a transaction is where we say; the module's own would begin with the first write
    connection = sqlite3.connect(
        f"{Path(path).as_uri()}?{how}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.text_factory = bytes
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_SMALL_VALUE_BYTES)
    try:
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        # Against a file that was made to harm: no functions in its schema, no cells beyond their page.
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _copy(path: str, copy: str, token: CancelToken) -> _Look:
    """Copy the database and its WAL or journal, of one state; how they stood."""
    for _ in range(MAX_COPIES):
        before = _look_at(path)
        sizes = {"": before.database, "-wal": before.wal, "-journal": before.journal}
        needed_bytes = sum(stamp.size_bytes for stamp in sizes.values() if stamp)
        if shutil.disk_usage(os.path.dirname(copy)).free < needed_bytes:
            raise SourceUnreadable(f"no space for a private copy of the database in {tempfile.gettempdir()}")
        for suffix, stamp in sizes.items():
            if _holds(stamp):
                _copy_file(path + suffix, copy + suffix, token)
        after = _look_at(path)
        # A WAL that has grown is a later state; every commit in it has its checksum.
        if (before.database, before.journal) == (after.database, after.journal):
            return before
        for suffix in sizes:
            Path(copy + suffix).unlink(missing_ok=True)
    raise SourceUnreadable("the database changes while it is copied; try again")


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
            while True:
                try:
                    child.wait(COPY_CHECK_S)
                    break
                except subprocess.TimeoutExpired:
                    token.check()
        except BaseException:
            child.kill()
            raise
        if child.returncode:
            assert child.stderr is not None
            raise SourceUnreadable(
                f"no private copy of the database: {child.stderr.read(500).decode('utf-8', 'replace')}"
            )


def _look_at(path: str) -> _Look:
    return _Look(_stamp(path), _stamp(path + "-wal"), _stamp(path + "-shm"), _stamp(path + "-journal"))


def _stamp(path: str) -> _Stamp | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise SourceUnreadable("not a regular file")
    return _Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def _holds(stamp: _Stamp | None) -> bool:
    return stamp is not None and stamp.size_bytes > 0


def _is_on_shared_file_system(path: str) -> bool:
    if path.startswith("\\\\"):  # a Windows share, or the files of WSL
        return True
    if not os.path.exists(_MOUNTS):
        return False
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as mounts:
        for mount in mounts:
            if mount.split(" ", 3)[2] == wanted:
                kind = mount.partition(" - ")[2].split(" ", 1)[0]
                return kind in _SHARED_FILE_SYSTEMS or kind.startswith("fuse.")
    return False


def _is_busy(error: Exception) -> bool:
    return _code(error) in _BUSY


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _described(error: Exception) -> SidecarError:
    if isinstance(error, UnicodeDecodeError):  # what sqlite3 raises where SQLite's own message is no UTF-8
        return BrokenDatabase("the database is damaged: what should be text in it is none")
    match _code(error):
        case sqlite3.SQLITE_NOTADB:
            return BrokenDatabase("the file is not an SQLite database, or is encrypted")
        case sqlite3.SQLITE_CORRUPT:
            return BrokenDatabase(f"the database is damaged: {error}")
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_IOERR | sqlite3.SQLITE_PERM | sqlite3.SQLITE_NOMEM:
            return SourceUnreadable(f"the database can't be read: {error}")
    return BrokenDatabase(f"SQLite {sqlite3.sqlite_version} can't read the database: {error}")
