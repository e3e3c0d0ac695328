"""A process that writes to a database all the time, and what a copy of one state of that database must hold."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

# What its two tables hold is always the same; a third makes the database large.
_WRITER = """
import sqlite3, sys
path, rows = sys.argv[1:]
database = sqlite3.connect(path, isolation_level=None, timeout=60)
database.execute("PRAGMA journal_mode = WAL")
database.execute("CREATE TABLE one(value)")
database.execute("CREATE TABLE other(value)")
database.execute("CREATE TABLE large(value)")
database.execute("BEGIN")
database.executemany("INSERT INTO large VALUES (?)", ((b"x" * 1000,) for _ in range(int(rows))))
database.execute("COMMIT")
number = 0
while True:
    number += 1
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO one VALUES (?)", (number,))
    database.execute("INSERT INTO other VALUES (?)", (number,))
    database.execute("COMMIT")
    if number == 1:
        print("ready", flush=True)
"""


@contextmanager
def writing(path: Path, rows: int = 0) -> Iterator[None]:
    """Such a process, with ``rows`` KB beside what it writes, from its first commit on."""
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(path), str(rows)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()


def assert_one_state(copy: Path) -> None:
    """A copy is sound, and of one moment between two commits."""
    with closing(sqlite3.connect(f"file:{copy}?immutable=1", uri=True)) as database:
        one, other = (
            database.execute(f"SELECT count(*), sum(value) FROM {table}").fetchone() for table in ("one", "other")
        )
        assert one == other
        assert one[0] > 0
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
