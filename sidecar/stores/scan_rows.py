"""The file of the index: ``cache/transcripts.sqlite`` in ClawPal's folder. It may be deleted at any time.

Several processes may use it. Each change is one short transaction with a rollback journal, so a process that is killed
leaves the state before. Nothing is synced: after a loss of power the file may hold any mixture of old and new pages.
What SQLite then can't read is removed, so that the next analysis begins anew; what it can has each entry's checksum.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sidecar.limits import (
    MAX_SCAN_INDEX_PAGES,
    MAX_SMALL_VALUE_BYTES,
    REMEMBERED_A_PAGE,
    SCAN_INDEX_CACHE_KIB,
    SQLITE_BUSY_TIMEOUT_S,
)
from sidecar.stores.scan_entry import VERSION
from sidecar.stores.scan_index import Key, Row

FILE = "transcripts.sqlite"

# A message about what is broken may quote it, and then be no UTF-8.
_FAULTS = (sqlite3.Error, UnicodeDecodeError)
# SQLITE_ERROR: a table isn't there, or not ours. No entry is nearly as long as the limit that is set to what is read.
_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG}
_MAKE = (
    "DROP TABLE IF EXISTS folders",
    "DROP TABLE IF EXISTS entries",
    "CREATE TABLE folders (folder INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE)",
    "CREATE TABLE entries (folder INTEGER NOT NULL, is_archive INTEGER NOT NULL, session_id BLOB NOT NULL,"
    " entry BLOB NOT NULL, PRIMARY KEY (folder, is_archive, session_id)) WITHOUT ROWID",
)
_PAGE = (
    "SELECT is_archive, session_id, entry FROM entries WHERE folder = (SELECT folder FROM folders WHERE path = ?)"
    " AND (is_archive, session_id) > (?, ?) ORDER BY is_archive, session_id LIMIT ?"
)
_DELETE = "DELETE FROM entries WHERE folder = ? AND is_archive = ? AND session_id = ?"
_INSERT = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)"


class Rows:
    """The open file, which is made if it isn't there. ``OSError`` wherever it can't be used, whatever the reason."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, FILE)
        self._tidied = False
        os.makedirs(folder, 0o700, exist_ok=True)
        with self._faults():
            self._connection = self._open()

    def page(self, path: bytes, after: Key) -> list[Row]:
        """As ``ScanIndex.page``."""
        with self._faults():
            found = self._connection.execute(_PAGE, (path, *after, REMEMBERED_A_PAGE)).fetchall()
        for is_archive, session_id, data in found:
            if is_archive not in (0, 1) or not isinstance(session_id, bytes) or not isinstance(data, bytes):
                self._remove()
                raise OSError(f"{self._path}: a row is none that was written by a sidecar")
        return [Row(Key(bool(is_archive), session_id), data) for is_archive, session_id, data in found]

    def write(self, path: bytes, rows: list[Row], gone: list[Key]) -> None:
        """As ``ScanIndex.write``. The first time, folders that have gone are forgotten too."""
        with self._faults(), self._emptied_when_full(), _transaction(self._connection):
            if not self._tidied:
                self._forget_gone_folders()
                self._tidied = True
            folder = self._folder(path)
            self._connection.executemany(_DELETE, [(folder, *key) for key in gone])
            self._connection.executemany(_INSERT, [(folder, *key, data) for key, data in rows])

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._connection.close()

    def _open(self) -> sqlite3.Connection:
        # Made here so that it is nobody else's from the start. Not opened otherwise than by SQLite: to close it would
        # drop the locks of another connection of this process.
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        connection = sqlite3.connect(
            self._path, timeout=SQLITE_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_SMALL_VALUE_BYTES)
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(f"PRAGMA cache_size = -{SCAN_INDEX_CACHE_KIB}")
            connection.execute(f"PRAGMA max_page_count = {MAX_SCAN_INDEX_PAGES}")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                self._begin_anew(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin_anew(self, connection: sqlite3.Connection) -> None:
        with _transaction(connection):
            if connection.execute("PRAGMA user_version").fetchone() == (VERSION,):
                return  # another process was first
            for statement in _MAKE:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")

    def _folder(self, path: bytes) -> int:
        """The number of the folder at ``path``, which is given one if it has none."""
        self._connection.execute("INSERT OR IGNORE INTO folders (path) VALUES (?)", (path,))
        for (folder,) in self._connection.execute("SELECT folder FROM folders WHERE path = ?", (path,)):
            return int(folder)
        raise sqlite3.DatabaseError("what was written is not there")

    def _forget_gone_folders(self) -> None:
        folders = self._connection.execute("SELECT folder, path FROM folders")
        gone = [(folder,) for folder, path in folders if not isinstance(path, bytes) or not os.path.isdir(path)]
        self._connection.executemany("DELETE FROM entries WHERE folder = ?", gone)
        self._connection.executemany("DELETE FROM folders WHERE folder = ?", gone)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn what SQLite finds wrong into ``OSError``, and see to it that another time it is not."""
        try:
            yield
        except _FAULTS as error:
            if _is_broken(error):
                self._remove()
            raise OSError(f"{self._path}: {error}") from error

    @contextmanager
    def _emptied_when_full(self) -> Iterator[None]:
        """What fills it may be of homes that are read no more; those that are, are counted anew."""
        try:
            yield
        except sqlite3.Error as error:
            if _code(error) == sqlite3.SQLITE_FULL:
                with suppress(sqlite3.Error), _transaction(self._connection):
                    self._connection.execute("DELETE FROM entries")
                    self._connection.execute("DELETE FROM folders")
            raise

    def _remove(self) -> None:
        # Its journal first: it must not be taken for that of the next file.
        for path in (f"{self._path}-journal", self._path):
            with suppress(FileNotFoundError):
                os.unlink(path)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.rollback()


def _is_broken(error: Exception) -> bool:
    return isinstance(error, UnicodeDecodeError) or _code(error) in _BROKEN


def _code(error: Exception) -> int | None:
    """SQLite's primary code; ``None`` for what the module itself complains of."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
