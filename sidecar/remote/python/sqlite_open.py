"""Open a database and read it in short transactions: the twin of ``sidecar/stores/sqlite_open.py``."""

from __future__ import annotations

import errno
import os
import shutil
import time
from typing import Any, Callable

from sidecar.remote.python.errors import BrokenDatabase, Fault
from sidecar.remote.python.host import Host
from sidecar.remote.python.limits import (
    MAX_SQLITE_BUSY_S,
    SQLITE_BUSY_TIMEOUT_S,
    SQLITE_CACHE_KIB,
    SQLITE_LOOK_S,
    SQLITE_RETRY_S,
    SQLITE_STEPS,
)
from sidecar.remote.python.optional_sqlite import sqlite3
from sidecar.remote.python.sqlite_errors import PASSING, code_of, described
from sidecar.remote.python.sqlite_files import Look, copy_database, holds, is_on_shared_file_system, look_at, stamp_of
from sidecar.remote.python.text import raw, spelled

_STRICT_TABLES_SINCE = (3, 37)


class _Unsettled(Exception):
    """The database changes as we look; try again."""


class Database:
    """The database at ``path``, read in short transactions; opened when it is first read, as of ``sqlite_open.py``."""

    def __init__(self, path: str, host: Host) -> None:
        # SQLite follows links too, and has its -wal beside what they lead to.
        self._path = spelled(os.path.realpath(raw(path)))
        self._host = host
        self._connection: sqlite3.Connection | None = None
        self._copied_into: str | None = None
        self._look = Look()
        self._looked_at_s = 0.0
        self._way_in = "alone"

    def read(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """What ``work`` gets out of one state of the database; it may be called again, and TEXT comes as ``bytes``.

        It says nothing: no output is waited for in a transaction. ``FAULTS`` where the database can't be read.
        """
        give_up_at_s = time.monotonic() + MAX_SQLITE_BUSY_S
        while True:
            self._host.tick()
            try:
                return self._read_once(work)
            except (sqlite3.Error, UnicodeDecodeError) as error:
                if self._has_moved():
                    self.close()
                elif code_of(error) not in PASSING:
                    raise described(error) from None
            except Fault:
                # What it complains of may be half of one state and half of another.
                if not self._has_moved():
                    raise
                self.close()
            except _Unsettled:
                self.close()
            if time.monotonic() >= give_up_at_s:
                raise Fault("the database is busy: it changes, or is locked, all the time; try again")
            time.sleep(SQLITE_RETRY_S)

    def close(self) -> None:
        """Let go of it; the next ``read`` opens anew."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._remove_copy()

    def _remove_copy(self) -> None:
        if self._copied_into is not None:
            shutil.rmtree(raw(self._copied_into), ignore_errors=True)
            self._copied_into = None

    def _read_once(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
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
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._path)
        if not self._look.database.size_bytes and not holds(self._look.wal):
            raise BrokenDatabase("the database is an empty file")
        self._way_in = "copy" if is_on_shared_file_system(self._path) else self._look.way_in
        if self._way_in == "shared":
            self._connection = self._connect(self._path, "mode=ro&readonly_shm=1")
            return self._connection
        if not self._look.is_settled():
            raise _Unsettled
        if self._way_in == "alone":
            self._connection = self._connect(self._path, "mode=ro&immutable=1")
        else:
            self._connection = self._open_copy()
        return self._connection

    def _open_copy(self) -> sqlite3.Connection:
        """A connection to a private copy, which is recovered there as the original would be here."""
        self._copied_into = self._host.private_folder()
        copy = os.path.join(self._copied_into, "copy.sqlite")
        try:
            if not copy_database(self._path, self._look, copy, self._host.tick):
                raise _Unsettled
            # Read-only, so that closing it doesn't write the WAL into it; only a journal has to be rolled back.
            self._connection = self._connect(copy, "mode=rw" if holds(self._look.journal) else "mode=ro")
            self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            self.close()
            raise
        # It holds secrets: now that its files are open, nothing leaves it behind.
        self._remove_copy()
        return self._connection

    def _connect(self, path: str, how: str) -> sqlite3.Connection:
        # In autocommit, so that a transaction is where we say.
        connection = sqlite3.connect(
            f"file://{_percent_encoded(path)}?{how}", uri=True, timeout=SQLITE_BUSY_TIMEOUT_S, isolation_level=None
        )
        connection.text_factory = bytes
        connection.set_progress_handler(self._host.output.tick_without_waiting, SQLITE_STEPS)
        try:
            if sqlite3.sqlite_version_info < _STRICT_TABLES_SINCE:
                # A quirk of its parser by which an older SQLite reads STRICT tables (sqlite.org/stricttables.html).
                connection.execute("PRAGMA writable_schema = ON")
            connection.execute(f"PRAGMA cache_size = -{SQLITE_CACHE_KIB}")
            # Against a file that was made to harm: no functions in its schema, no cells beyond their page.
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _has_moved(self) -> bool:
        """Whether what was read may be no state of the database, since it isn't as it was when it was opened."""
        if self._way_in == "copy":
            return False
        look = look_at(self._path)
        self._looked_at_s = time.monotonic()
        return look != self._look if self._way_in == "alone" else look.way_in != "shared"

    def _was_alone(self) -> bool:
        """Whether nobody has written to the file since it was opened: what was read may be torn then."""
        if time.monotonic() - self._looked_at_s > SQLITE_LOOK_S:
            return not self._has_moved()
        return stamp_of(self._path) == self._look.database


def _percent_encoded(path: str) -> str:
    plain = b"/-._~"
    return "".join(
        chr(byte) if (chr(byte).isalnum() and byte < 0x80) or byte in plain else f"%{byte:02X}" for byte in raw(path)
    )
