"""Copy SQLite databases through SQLite, in one read transaction, and check what came of it.

A copy of the file alone would lack what is in the WAL and could be torn. ``Connection.backup`` starts anew whenever
somebody writes, unless it runs inside a read transaction of its own connection (FIELD-NOTES, "SQLite and copying").
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from sidecar.backup.files import Copied, copy_file, digest_of, keep_status
from sidecar.backup.progress import Progress
from sidecar.backup.tree import begins_as_database
from sidecar.cancel import CancelToken
from sidecar.errors import SourceUnreadable, describe_os_error
from sidecar.limits import (
    CHECK_LOOK_S,
    DATABASE_PAGES_A_STEP,
    MAX_DATABASE_BUSY_S,
    SQLITE_BUSY_TIMEOUT_S,
    SQLITE_CACHE_KIB,
    SQLITE_RETRY_S,
)
from sidecar.stores.file_systems import is_on_shared_file_system
from sidecar.stores.sqlite_files import Look, holds, look_at, stamp_of
from sidecar.stores.sqlite_files import copy_database as copy_raw

# What a writer brings about that will soon be done; SQLite's words, since Python before 3.11 doesn't tell its codes.
_PASSING = ("locked", "busy", "readonly", "locking protocol")
_NO_DATABASE = "file is not a database"
_CANT_OPEN = "unable to open database file"  # as it says of a path of more than 504 bytes, whatever lies there
_FULL = "database or disk is full"  # only what is written can be, which is the copy


class CopiedDatabase(NamedTuple):
    """A database that was copied; ``problem`` says what is wrong with it, if something is."""

    copied: Copied
    problem: str | None = None


class _Unsettled(Exception):
    """The database changed as we looked; try again."""


def copy_database(source: bytes, target: bytes, workplace: bytes, progress: Progress) -> CopiedDatabase | None:
    """Copy one state of a database, whole; with mode, times and owner of its file. ``None`` if it is none after all.

    It is made in ``workplace``, a folder with a short path, since SQLite takes no long one and has names of its own
    beside it. A damaged one is copied as its file is. ``FileNotFoundError`` if it is gone, ``SourceUnreadable`` if it
    can't be read, or is locked all the time; ``OSError`` if the copy can't be written.
    """
    path = os.fsdecode(os.path.realpath(source))
    work = os.path.join(workplace, b"database")
    give_up_at_s = time.monotonic() + MAX_DATABASE_BUSY_S
    done_before = progress.bytes_copied
    while True:
        progress.bytes_copied = done_before
        status = _status(source)
        try:
            look = look_at(path)
            # SQLite takes a file of one byte for an empty database.
            if not holds(look.wal) and (look.database is None or look.database.size_bytes <= 1):
                return None
            problem = _copy_once(path, look, work, progress)
            if not os.path.samestat(status, _status(source)):
                # SQLite follows a link that took its place, wherever it leads.
                raise _Unsettled
            break
        except sqlite3.Error as error:
            words = str(error)
            if words in (_NO_DATABASE, _CANT_OPEN) and not _begins_as_one(source):
                return None
            if words == _FULL:
                raise _no_space(work) from None
            if not any(word in words for word in _PASSING):
                return _as_it_is(source, target, progress, words, done_before)
            trouble = f"the database stays locked: {words}"
        except _Unsettled:
            trouble = "the database changes all the time"
        if time.monotonic() >= give_up_at_s:
            raise SourceUnreadable(trouble)
        progress.step()
        time.sleep(SQLITE_RETRY_S)
    progress.bytes_copied = done_before
    os.replace(work, target)
    sha256 = digest_of(target, progress)
    keep_status(target, status)
    return CopiedDatabase(Copied(sha256, os.stat(target).st_size, status), problem)


def _status(source: bytes) -> os.stat_result:
    try:
        status = os.lstat(source)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SourceUnreadable(describe_os_error(error)) from None
    if not stat.S_ISREG(status.st_mode):
        raise SourceUnreadable("no regular file any more")
    return status


def _begins_as_one(source: bytes) -> bool:
    """Whether it begins as a database does, so that it was one; or can't be read, as copying it will tell."""
    try:
        return begins_as_database(source)
    except OSError:
        return True


def _copy_once(path: str, look: Look, target: bytes, progress: Progress) -> str | None:
    """Copy the database to ``target`` and check it there: what is wrong with it."""
    for leftover in (target, target + b"-wal", target + b"-shm", target + b"-journal"):
        with suppress(FileNotFoundError):
            os.unlink(leftover)
    try:
        way_in = "copy" if is_on_shared_file_system(path) else look.way_in
    except FileNotFoundError:
        raise _Unsettled from None
    if way_in == "copy":
        _copy_recovered(path, look, target, progress)
    elif way_in == "shared":
        _copy_pages(path, "mode=ro&readonly_shm=1", target, progress)
    else:
        if not look.is_settled():
            raise _Unsettled
        _copy_pages(path, "mode=ro&immutable=1", target, progress)
        if look_at(path) != look:
            raise _Unsettled
    return _check(target, progress)


def _copy_recovered(path: str, look: Look, target: bytes, progress: Progress) -> None:
    """Copy the files of a database that crashed, or that another kernel has open, and let SQLite recover the copy."""
    raw = os.fsdecode(target + b".raw")
    try:
        try:
            # Whoever cancels waits for no more than the copy's own look at the token.
            is_of_one_state = copy_raw(path, look, raw, _Stepping(progress))
        except SourceUnreadable:
            if shutil.disk_usage(os.path.dirname(target)).free < _bytes_to_come(look, raw):
                raise _no_space(target) from None
            raise
        if not is_of_one_state:
            raise _Unsettled
        # Only a journal has to be rolled back, which writes: SQLite before 3.43 can't open OpenClaw's schema for that.
        _copy_pages(raw, "mode=rw" if holds(look.journal) else "mode=ro", target, progress)
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                os.unlink(raw + suffix)


def _bytes_to_come(look: Look, raw: str) -> int:
    """What of the files of a database a copy at ``raw`` doesn't have."""
    left_bytes = 0
    for suffix, stamp in (("", look.database), ("-wal", look.wal), ("-journal", look.journal)):
        copied = stamp_of(raw + suffix)
        left_bytes += (stamp.size_bytes if stamp else 0) - (copied.size_bytes if copied else 0)
    return left_bytes


def _no_space(path: bytes) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


class _Stepping(CancelToken):
    """A token that asks a ``Progress`` whether it is set."""

    __slots__ = ("_progress",)

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def check(self) -> None:
        self._progress.step()


def _copy_pages(path: str, how: str, target: bytes, progress: Progress) -> None:
    with closing(_connect(path, how)) as source, closing(_connect(os.fsdecode(target), "mode=rwc")) as copy:
        os.chmod(target, 0o600)
        copy.execute("PRAGMA journal_mode = OFF")
        copy.execute("PRAGMA synchronous = OFF")
        (page_bytes,) = source.execute("PRAGMA page_size").fetchone()
        pages_done = 0
        since_s = time.monotonic()

        def step(_status: int, remaining: int, total: int) -> None:
            nonlocal pages_done, since_s
            if total - remaining > pages_done:
                since_s = time.monotonic()
            elif time.monotonic() - since_s > MAX_DATABASE_BUSY_S:
                raise SourceUnreadable("the database stays locked while it is copied")
            progress.step((total - remaining - pages_done) * page_bytes)
            pages_done = total - remaining

        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        source.backup(copy, pages=DATABASE_PAGES_A_STEP, progress=step, sleep=SQLITE_RETRY_S)
        source.rollback()


def _check(target: bytes, progress: Progress) -> str | None:
    """What SQLite finds wrong with the database at ``target``; ``None`` if it finds nothing."""
    with closing(_connect(os.fsdecode(target), "mode=ro&immutable=1")) as database:
        # Against a file that was made to harm. Read-only, what a later SQLite's schema calls is not missed.
        database.execute("PRAGMA trusted_schema = OFF")
        found = ""

        def work() -> None:
            nonlocal found
            try:
                (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
            except sqlite3.Error as error:
                found = str(error)

        # In a thread: while SQLite 3.40 goes through a table it calls no progress handler, but it can be interrupted.
        thread = threading.Thread(target=work, name="check")
        thread.start()
        try:
            while thread.is_alive():
                progress.step()
                thread.join(CHECK_LOOK_S)
        finally:
            # One that comes before the check has begun does nothing.
            while thread.is_alive():
                database.interrupt()
                thread.join(CHECK_LOOK_S)
    return None if found == "ok" else f"the database is damaged: {found}"


def _as_it_is(source: bytes, target: bytes, progress: Progress, words: str, done_before: int) -> CopiedDatabase:
    # This opens and closes the file, which drops the locks of a connection that this process may have to it; but what
    # reads a damaged database here has nothing that is worth protecting.
    progress.bytes_copied = done_before
    problem = f"the database is damaged, and was copied as its file is: {words}"
    return CopiedDatabase(copy_file(source, target, progress), problem)


def _connect(path: str, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{Path(path).as_uri()}?{how}",
        uri=True,
        timeout=SQLITE_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute(f"PRAGMA cache_size = -{SQLITE_CACHE_KIB}")
    except BaseException:
        connection.close()
        raise
    return connection
