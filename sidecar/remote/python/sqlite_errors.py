"""What SQLite's errors mean."""

from __future__ import annotations

from sidecar.remote.python.errors import BrokenDatabase, Fault
from sidecar.remote.python.optional_sqlite import sqlite3

# SQLite's result codes; the module has names for them since Python 3.11.
_PERM, _BUSY, _LOCKED, _NOMEM, _READONLY = 3, 5, 6, 7, 8
_IOERR, _CORRUPT, _CANTOPEN, _PROTOCOL, _NOTADB = 10, 11, 14, 15, 26
PASSING = {_BUSY, _LOCKED, _PROTOCOL, _READONLY}
"""What may be over when it is tried again."""
_CODE_OF_MESSAGE = {
    "access permission denied": _PERM,
    "database is locked": _BUSY,
    "database table is locked": _LOCKED,
    "out of memory": _NOMEM,
    "attempt to write a readonly database": _READONLY,
    "disk I/O error": _IOERR,
    "database disk image is malformed": _CORRUPT,
    "malformed database schema": _CORRUPT,
    "unable to open database file": _CANTOPEN,
    "locking protocol": _PROTOCOL,
    "file is not a database": _NOTADB,
    "file is encrypted or is not a database": _NOTADB,
}


def code_of(error: Exception) -> int:
    """The result code of an error, 0 if it isn't known."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return int(code) & 0xFF
    return next((code for start, code in _CODE_OF_MESSAGE.items() if str(error).startswith(start)), 0)


def described(error: Exception) -> Fault:
    """An error that came of reading a database, in words."""
    if isinstance(error, UnicodeDecodeError):  # what sqlite3 raises where SQLite's own message is no UTF-8
        return BrokenDatabase("the database is damaged: what should be text in it is none")
    code = code_of(error)
    if code == _NOTADB:
        return BrokenDatabase("the file is not an SQLite database, or is encrypted")
    if code == _CORRUPT:
        return BrokenDatabase(f"the database is damaged: {error}")
    if code in {_CANTOPEN, _IOERR, _PERM, _NOMEM}:
        return Fault(f"the database can't be read: {error}")
    return BrokenDatabase(f"SQLite {sqlite3.sqlite_version} can't read the database: {error}")
