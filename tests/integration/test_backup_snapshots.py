"""Snapshots while other processes write: each database in one state that it was in, each with a name of its own."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.backup import databases, manifest
from sidecar.backup.folder import Snapshot
from sidecar.backup.progress import Progress
from sidecar.backup.snapshot import Options, create
from sidecar.backup.verify import verify
from sidecar.cancel import CancelToken
from tests.unit.restore_trees import Home

NAME = "agents/main/agent/openclaw-agent.sqlite"
DEADLINE_S = 60
BACKUPS = 8
ROWS = 12_000
ROW_BYTES = 2_000
WRITES_A_SECOND = 300

# Moves a number from one table to another and back, notes how often, and writes a large row anew, in one transaction
# each; empties its WAL now and then, as a gateway does. It never waits for a lock. It ends when its input does.
WRITER = """
import json, select, sqlite3, sys

path, journal, writes_a_second = sys.argv[1:]
connection = sqlite3.connect(path, isolation_level=None, timeout=0)
connection.execute(f"PRAGMA journal_mode = {journal}")
connection.execute("PRAGMA synchronous = OFF")
connection.execute("PRAGMA wal_autocheckpoint = 0")
rows = connection.execute("SELECT count(*) FROM large").fetchone()[0]
number = busy = 0
ending = False
while not ending:
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE one SET amount = amount - ?", (number % 7,))
        connection.execute("UPDATE large SET text = ? WHERE rowid = ?", (f"{number:08}" * 250, 1 + number * 37 % rows))
        connection.execute("UPDATE two SET amount = amount + ?", (number % 7,))
        connection.execute("UPDATE counted SET commits = commits + 1")
        connection.execute("COMMIT")
        number += 1
    except sqlite3.OperationalError:
        busy += 1
        if connection.in_transaction:
            connection.rollback()
    if number % 50 == 0:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    if number == 10:
        print("ready", flush=True)
    ending = bool(select.select([sys.stdin], [], [], 1 / float(writes_a_second))[0])
connection.close()
print(json.dumps({"commits": number, "busy": busy}), flush=True)
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.root.mkdir()
    made.write("openclaw.json", "{}")
    return made


def large_database(home: Home) -> Path:
    file = home.root / NAME
    file.parent.mkdir(parents=True)
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("BEGIN")
        database.execute("CREATE TABLE one (amount INTEGER)")
        database.execute("CREATE TABLE large (text TEXT)")
        database.execute("CREATE TABLE two (amount INTEGER)")
        database.execute("CREATE TABLE counted (commits INTEGER)")
        for table, amount in (("one", 1_000), ("two", 0), ("counted", 0)):
            database.execute(f"INSERT INTO {table} VALUES (?)", (amount,))
        database.executemany("INSERT INTO large VALUES (?)", (("x" * ROW_BYTES,) for _ in range(ROWS)))
        database.execute("COMMIT")
    return file


@contextmanager
def writer(file: Path, journal: str = "WAL", writes_a_second: int = WRITES_A_SECOND) -> Iterator[dict[str, Any]]:
    """Another process that writes; what it told is in the dictionary at the end."""
    told: dict[str, Any] = {}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(file), journal, str(writes_a_second)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield told
            end, _ = process.communicate("", timeout=DEADLINE_S)
            told.update(json.loads(end))
        except BaseException:
            process.kill()
            raise


def commits_in(path: Path, how: str) -> int:
    """How many commits a database holds, after it was seen to be of one state."""
    with closing(sqlite3.connect(f"file:{path}?{how}", uri=True, isolation_level=None)) as database:
        database.execute("BEGIN")
        (commits,) = database.execute("SELECT commits FROM counted").fetchone()
        (one,), (two,) = (database.execute(f"SELECT amount FROM {table}").fetchone() for table in ("one", "two"))
        moved = sum(number % 7 for number in range(commits))
        assert (one, two) == (1_000 - moved, moved)
        if how != "mode=ro":
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            # Each commit's own row is there, and none of a later one.
            newest = {1 + number * 37 % ROWS: number for number in range(commits)}
            rows = database.execute("SELECT rowid, substr(text, 1, 8) FROM large").fetchall()
            assert {rowid: text for rowid, text in rows if text != "xxxxxxxx"} == {
                rowid: f"{number:08}" for rowid, number in newest.items()
            }
        return int(commits)


def test_a_database_written_three_hundred_times_a_second_is_copied_in_one_pass_in_one_state(
    home: Home, monkeypatch: pytest.MonkeyPatch, record_measured: Any
) -> None:
    file = large_database(home)
    copy_once, passes = databases._copy_once, 0

    def counting(*arguments: Any) -> str | None:
        nonlocal passes
        passes += 1
        return copy_once(*arguments)

    monkeypatch.setattr(databases, "_copy_once", counting)
    made: list[Snapshot] = []
    counts: list[int] = []
    during = 0
    with writer(file) as told:
        for _ in range(BACKUPS):
            seen: set[int] = set()
            progress = Progress(CancelToken())
            progress._look = lambda seen=seen, progress=progress: seen.add(progress.bytes_copied)
            before = commits_in(file, "mode=ro")
            one = create(os.fsencode(home.root), home.folder, Options(), progress)
            after = commits_in(file, "mode=ro")
            assert (one.status, one.failures) == ("complete", [])
            assert progress.bytes_copied == progress.bytes_total == one.size_bytes
            # Each mebibyte is told of as it is done, and no more is copied than there is.
            assert len(seen) > file.stat().st_size // 2**20 // 2
            assert max(seen) <= one.size_bytes * 1.1
            commits = commits_in(Path(os.fsdecode(one.path), NAME), "immutable=1")
            assert before <= commits <= after
            during += after - before
            counts.append(commits)
            made.append(one)
    assert passes == BACKUPS
    assert counts == sorted(counts)
    # It was written while it was copied, and was never kept from that.
    assert during > BACKUPS
    assert told["busy"] == 0
    for one in made:
        assert sorted(os.listdir(os.path.join(one.path, os.path.dirname(NAME.encode())))) == [
            os.path.basename(NAME.encode())
        ]
        assert verify(home.folder, one.name, Progress(CancelToken())) == one
    record_measured(f"{BACKUPS} snapshots of a live database: {during} commits meanwhile, {passes} passes")


def test_a_database_without_a_wal_that_others_write_is_in_one_state_or_named(home: Home) -> None:
    file = large_database(home)
    with writer(file, journal="DELETE", writes_a_second=5):
        made = [home.backup() for _ in range(4)]
    whole = [one for one in made if one.status == "complete"]
    for one in whole:
        commits_in(Path(os.fsdecode(one.path), NAME), "immutable=1")
    for one in made:
        assert one in whole or [failure["path"] for failure in one.failures] == [NAME]
        assert verify(home.folder, one.name, Progress(CancelToken())) == one
    assert whole


BACKUP = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from sidecar.backup import snapshot
from sidecar.backup.home import LocalBackups
from sidecar.backup.progress import Progress
from sidecar.cancel import CancelToken

class Stopped:
    time = staticmethod(lambda: 1_795_543_200.0)

snapshot.time = Stopped
local = LocalBackups(sys.argv[2], sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(5):
    print(os.fsdecode(local.backup(True, Progress(CancelToken())).name), flush=True)
"""


def test_processes_that_make_snapshots_in_the_same_second_take_no_name_twice_and_disturb_nothing(home: Home) -> None:
    home.fill()
    project = Path(__file__).parents[2]
    command = [sys.executable, "-c", BACKUP, project, home.root, os.fsdecode(home.folder.clawpal_dir)]
    processes = [
        subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        names = [name for process in processes for name in process.communicate(timeout=DEADLINE_S)[0].split()]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert len(set(names)) == len(names) == 15
    snapshots = home.folder.snapshots()
    assert {os.fsdecode(one.name) for one in snapshots} == set(names)
    for one in snapshots:
        assert one.status == "complete"
        assert verify(home.folder, one.name, Progress(CancelToken())) == one
        with manifest.opened(home.folder.manifest_of(one.name)) as reader:
            assert sum(entry.kind == "file" for entry in reader.entries()) == 8
    assert len(os.listdir(home.folder.path)) == 2 * 15 + 1
