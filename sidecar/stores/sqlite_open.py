"""Open an agent's database so that reading it harms nothing and leaves no trace (FIELD-NOTES, "SQLite and copying").

No single way in is right. ``mode=ro`` leaves ``-wal`` and ``-shm`` beside a closed database; ``immutable=1`` reads
nothing of what still lies in a WAL, without an error; ``readonly_shm=1`` needs the ``-wal`` and the ``-shm``.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sidecar.cancel import CancelToken
from sidecar.errors import BrokenDatabase, Cancelled, SidecarError, SourceUnreadable
from sidecar.limits import (
    MAX_SMALL_VALUE_BYTES,
    MAX_SQLITE_BUSY_S,
    SQLITE_BUSY_TIMEOUT_S,
    SQLITE_CACHE_KIB,
    SQLITE_LOOK_S,
    SQLITE_RETRY_S,
)
from sidecar.stores.file_systems import is_on_shared_file_system
from sidecar.stores.sqlite_files import (
    Look,
    WayIn,
    copy_database,
    holds,
    look_at,
    stamp_of,
)

T = TypeVar("T")

# What a writer brings about that will soon be done. A reader that may not write finds SQLITE_READONLY where another
# process is just about to make the index of its WAL anew.
_PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_READONLY}


class _Unsettled(Exception):
    """The database changes as we look; try again."""


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
        self._look = Look(None, None, None, None)
        self._looked_at_s = 0.0
        self._way_in: WayIn = "alone"

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What ``work`` gets out of one state of the database; it may be called again, and TEXT comes as ``bytes``.

        A value over ``MAX_SMALL_VALUE_BYTES`` raises ``sqlite3.DataError`` where it is asked for, before anything of it
        is in memory: ``blobopen`` reads such a one. ``OSError`` or ``SidecarError`` where the database can't be read.
        """
        give_up_at_s = time.monotonic() + MAX_SQLITE_BUSY_S
        while True:
            self._token.check()
            try:
                return self._read_once(work)
            except (sqlite3.Error, UnicodeDecodeError) as error:
                if self._has_moved():
                    self.close()
                elif _code(error) not in _PASSING:
                    raise _described(error) from None
            except Cancelled:
                raise
            except SidecarError:
                # What it complains of may be half of one state and half of another.
                if not self._has_moved():
                    raise
                self.close()
            except _Unsettled:
                self.close()
            if time.monotonic() >= give_up_at_s:
                raise SourceUnreadable("the database is busy: it changes, or is locked, all the time; try again")
            time.sleep(SQLITE_RETRY_S)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._copied_into is not None:
            self._copied_into.cleanup()
            self._copied_into = None

    def _read_once(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection or self._open()
        connection.execute("BEGIN")
        try:
            result = work(connection)
        finally:
            connection.rollback()
        if self._way_in == "alone" and not self._was_alone():
            raise _Unsettled
        return result

    def _open(self) -> sqlite3.Connection:
        self._look = look_at(self._path)
        self._looked_at_s = time.monotonic()
        if self._look.database is None:
            raise FileNotFoundError(2, "No such file or directory", self._path)
        if not self._look.database.size_bytes and not holds(self._look.wal):
            raise BrokenDatabase("the database is an empty file")
        self._way_in = "copy" if is_on_shared_file_system(self._path) else self._look.way_in
        if self._way_in == "shared":
            self._connection = _connect(self._path, "mode=ro&readonly_shm=1")
            return self._connection
        if not self._look.is_settled():
            raise _Unsettled
        self._connection = _connect(self._path, "mode=ro&immutable=1") if self._way_in == "alone" else self._open_copy()
        return self._connection

    def _open_copy(self) -> sqlite3.Connection:
        """A connection to a private copy, which is recovered there as the original would be here."""
        self._copied_into = tempfile.TemporaryDirectory(prefix="clawpal-sidecar-")
        copy = os.path.join(self._copied_into.name, "copy.sqlite")
        try:
            if not copy_database(self._path, self._look, copy, self._token):
                raise _Unsettled
            # Read-only, so that closing it doesn't write the WAL into it; only a journal has to be rolled back.
            self._connection = _connect(copy, "mode=rw" if holds(self._look.journal) else "mode=ro")
            self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except BaseException:
            self.close()
            raise
        if os.name != "nt":
            # It holds secrets: now that its files are open, not even a process that is killed leaves it behind.
            self._copied_into.cleanup()
        return self._connection

    def _has_moved(self) -> bool:
        """Whether what was read may be no state of the database, since it isn't as it was when it was opened."""
        if self._way_in == "copy":
            return False
        look = look_at(self._path)
        self._looked_at_s = time.monotonic()
        return look != self._look if self._way_in == "alone" else look.way_in != "shared"

    def _was_alone(self) -> bool:
        """Whether nobody has written to the file since it was opened: without locks, what was read may be torn then.

        Who opens it to write makes a WAL or a journal long before; to look for those now and then is enough.
        """
        if time.monotonic() - self._looked_at_s > SQLITE_LOOK_S:
            return not self._has_moved()
        return stamp_of(self._path) == self._look.database


def _connect(path: str, how: str) -> sqlite3.Connection:
    # In autocommit, so that a transaction is where we say.
    connection = sqlite3.connect(
        f"{Path(path).as_uri()}?{how}",
        uri=True,
        timeout=SQLITE_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.text_factory = bytes
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_SMALL_VALUE_BYTES)
    try:
        connection.execute(f"PRAGMA cache_size = -{SQLITE_CACHE_KIB}")
        # Against a file that was made to harm: no functions in its schema, no cells beyond their page.
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
    except BaseException:
        connection.close()
        raise
    return connection


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
