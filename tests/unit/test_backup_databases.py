"""Databases as they are found, closed, live, crashed, damaged: each goes into a snapshot whole, and stays as it was."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.backup import databases
from sidecar.backup.folder import Snapshot
from sidecar.backup.progress import Progress
from sidecar.backup.rules import DATABASE_MAGIC
from sidecar.backup.snapshot import Options, create
from sidecar.backup.verify import verify
from sidecar.cancel import CancelToken
from sidecar.errors import Cancelled
from tests.unit.restore_trees import LONG_AGO_NS, Contents, Home, contents, entries, rows

NAME = "agents/main/agent/openclaw-agent.sqlite"
MANY = [f"{number:05} " + "x" * 900 for number in range(2_000)]
DEADLINE_S = 60
# Does to a database what it is told, and dies without closing it.
CRASH = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    database.execute(statement)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.root.mkdir()
    return made


def crash(path: Path, *statements: str) -> None:
    done = subprocess.run([sys.executable, "-c", CRASH, path, *statements], timeout=DEADLINE_S, check=False)
    assert done.returncode == -signal.SIGKILL


def state(home: Home) -> Contents:
    return contents(home.root, exactly=True)


def copy_of(snapshot: Snapshot, name: str = NAME) -> Path:
    return Path(os.fsdecode(snapshot.path), name)


def is_alone(snapshot: Snapshot, name: str = NAME) -> bool:
    """Whether nothing of SQLite's, or ours, lies beside the copy."""
    copy = copy_of(snapshot, name)
    return sorted(os.listdir(copy.parent)) == [copy.name]


def closed(file: Path) -> list[str]:
    return rows(file)


def crashed(file: Path) -> list[str]:
    crash(file, "PRAGMA journal_mode = WAL", "INSERT INTO t VALUES ('in the WAL')")
    assert Path(f"{file}-shm").exists()
    return ["one", "two", "in the WAL"]


def without_shm(file: Path) -> list[str]:
    expected = crashed(file)
    Path(f"{file}-shm").unlink()
    return expected


def never_checkpointed(file: Path) -> list[str]:
    """All but the first page is in the WAL, the table too."""
    file.unlink()
    crash(
        file,
        "PRAGMA journal_mode = WAL",
        "PRAGMA wal_autocheckpoint = 0",
        "CREATE TABLE t (text)",
        "INSERT INTO t VALUES ('alone')",
    )
    assert file.stat().st_size <= 4096 < Path(f"{file}-wal").stat().st_size
    return ["alone"]


def in_the_middle_of_a_transaction(file: Path) -> list[str]:
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("BEGIN")
        database.executemany("INSERT INTO t VALUES (?)", [(row,) for row in MANY])
        database.execute("COMMIT")
    crash(file, "PRAGMA cache_size = 5", "BEGIN", "UPDATE t SET text = 'never committed'")
    assert Path(f"{file}-journal").stat().st_size
    assert b"never committed" in file.read_bytes()
    return ["one", "two", *MANY]


def with_a_torn_wal(file: Path) -> list[str]:
    """The last commit in the WAL isn't wholly there: it was never made."""
    expected = crashed(file)
    wal = Path(f"{file}-wal")
    os.truncate(wal, wal.stat().st_size - 100)
    return expected[:-1]


def with_an_empty_wal(file: Path) -> list[str]:
    Path(f"{file}-wal").touch()
    return ["one", "two"]


def with_shared_memory_of_another_time(file: Path) -> list[str]:
    Path(f"{file}-shm").write_bytes(b"\xa5" * 32_768)
    return ["one", "two"]


LEFT = [
    closed,
    crashed,
    without_shm,
    never_checkpointed,
    in_the_middle_of_a_transaction,
    with_a_torn_wal,
    with_an_empty_wal,
    with_shared_memory_of_another_time,
]


@pytest.mark.parametrize("leave", LEFT)
def test_a_database_left_by_whatever_is_copied_whole_and_left_as_it_was(
    home: Home, leave: Callable[[Path], list[str]]
) -> None:
    file = home.database(NAME, "one", "two")
    expected = leave(file)
    before = state(home)
    snapshot = home.backup()
    assert rows(copy_of(snapshot)) == expected
    assert is_alone(snapshot)
    assert state(home) == before
    assert (snapshot.status, snapshot.failures) == ("complete", [])
    assert entries(home, snapshot)[NAME].is_database
    assert verify(home.folder, snapshot.name, Progress(CancelToken())) == snapshot


ODD_NAMES = [
    "memory/no ending",
    "a?b=c&d#e%20.sqlite",
    os.fsdecode(b"na\xffme\xfe.db"),
    "memory/ü �ff.sqlite3",
    "x\n.db",
]


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("is_crashed", [False, True], ids=["closed", "crashed"])
def test_whatever_a_database_is_called_it_is_copied_through_sqlite(home: Home, name: str, is_crashed: bool) -> None:
    file = home.database(name, "one", "two")
    expected = crashed(file) if is_crashed else ["one", "two"]
    before = state(home)
    snapshot = home.backup()
    # A copy of another name, since a URI has room for few of these.
    plain = copy_of(snapshot, name).rename(copy_of(snapshot, "plain"))
    assert rows(plain) == expected
    assert state(home) == before
    assert entries(home, snapshot)[name].is_database


def test_mode_and_time_of_the_file_are_kept(home: Home) -> None:
    file = home.database(NAME, "one")
    file.chmod(0o640)
    os.utime(file, ns=(LONG_AGO_NS, LONG_AGO_NS + 5))
    snapshot = home.backup()
    status, entry = copy_of(snapshot).stat(), entries(home, snapshot)[NAME]
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o640, LONG_AGO_NS + 5) == (entry.mode, entry.mtime_ns)


@pytest.mark.parametrize(
    "content", [b"", b"plain text", b"SQLite format 2\0" + bytes(5_000), b"\0" * 9_000, b"S", b"\n"]
)
def test_what_is_only_called_like_a_database_is_copied_as_a_file(home: Home, content: bytes) -> None:
    home.write("workspace/notes.sqlite", content, mode=0o604)
    snapshot = home.backup()
    assert copy_of(snapshot, "workspace/notes.sqlite").read_bytes() == content
    entry = entries(home, snapshot)["workspace/notes.sqlite"]
    assert (entry.is_database, entry.text, entry.mode, snapshot.status) == (False, "", 0o604, "complete")


@pytest.mark.parametrize("ending", ["sqlite", "backup"])
@pytest.mark.parametrize("size_bytes", [16, 50, 99, 100, 512])
def test_what_only_begins_like_a_database_is_kept_byte_for_byte_and_named(
    home: Home, size_bytes: int, ending: str
) -> None:
    name = f"workspace/begun.{ending}"
    content = (DATABASE_MAGIC + bytes(range(200)) * 5)[:size_bytes]
    home.write(name, content)
    snapshot = home.backup()
    assert copy_of(snapshot, name).read_bytes() == content
    assert [failure["path"] for failure in snapshot.failures] == [name]
    assert verify(home.folder, snapshot.name, Progress(CancelToken())) == snapshot


def spoil(file: Path, at: int, content: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a page in the middle": lambda file: spoil(file, 8 * 4096, b"\xff" * 4096),
    "its header": lambda file: spoil(file, 16, b"\xff" * 80),
    "its schema": lambda file: spoil(file, 100, b"\xff" * 3_000),
    "its end": lambda file: os.truncate(file, 20 * 4096 + 77),
    "all but its name": lambda file: os.truncate(file, 4096),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_database_is_kept_as_it_is_and_named(home: Home, damage: Callable[[Path], object]) -> None:
    file = home.database(NAME, *MANY)
    damage(file)
    home.write("openclaw.json", "{}")
    before = state(home)
    snapshot = home.backup()
    assert snapshot.status == "incomplete"
    assert snapshot.failed_items == 1
    assert snapshot.failures[0]["path"] == NAME
    assert "damaged" in snapshot.failures[0]["error"]
    assert home.folder.snapshots() == [snapshot]
    assert entries(home, snapshot)[NAME].text == snapshot.failures[0]["error"]
    # SQLite counts a change of its own in the header of what it copies.
    assert copy_of(snapshot).read_bytes()[100:] == file.read_bytes()[100:]
    assert state(home) == before
    # What is kept is what the manifest says, so a check of the snapshot passes.
    assert verify(home.folder, snapshot.name, Progress(CancelToken())) == snapshot


def test_a_damaged_database_is_copied_and_named_again_by_the_next_backup(home: Home) -> None:
    DAMAGE["its header"](home.database(NAME, *MANY))
    assert [home.backup().failures[0]["path"] for _ in range(2)] == [NAME, NAME]


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_one_that_a_process_has_for_itself_alone_is_copied_as_of_its_last_commit(home: Home, journal: str) -> None:
    file = home.database(NAME, *MANY)
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute(f"PRAGMA journal_mode = {journal}")
        database.execute("PRAGMA cache_size = 5")
        database.execute("INSERT INTO t VALUES ('the last')")
        database.execute("BEGIN EXCLUSIVE")
        database.execute("UPDATE t SET text = 'never committed'")
        assert not Path(f"{file}-shm").exists()
        snapshot = home.backup()
        assert snapshot.status == "complete"
        assert rows(copy_of(snapshot)) == [*MANY, "the last"]
        assert not can_write(file)


def test_one_that_changes_all_the_time_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "MAX_DATABASE_BUSY_S", 0.1)
    file = home.database(NAME, "one")
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
    home.write("openclaw.json", "{}")
    copy_pages = databases._copy_pages

    def meanwhile(path: str, how: str, target: bytes, progress: Progress) -> None:
        copy_pages(path, how, target, progress)
        os.utime(file)

    monkeypatch.setattr(databases, "_copy_pages", meanwhile)
    snapshot = home.backup()
    assert snapshot.failures == [{"path": NAME, "error": "the database changes all the time"}]
    assert os.listdir(copy_of(snapshot).parent) == []
    assert copy_of(snapshot, "openclaw.json").exists()
    assert entries(home, snapshot)[NAME].kind == "failed"


def test_one_that_stays_locked_is_named_and_one_that_does_not_is_copied(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "MAX_DATABASE_BUSY_S", 0.1)
    home.database(NAME, "one")
    home.database("memory/main.sqlite", "remembered")
    copy_pages, refusals = databases._copy_pages, 0

    def refuse(path: str, how: str, target: bytes, progress: Progress) -> None:
        nonlocal refusals
        refusals += 1
        if path.endswith(NAME) or refusals % 3:
            raise sqlite3.OperationalError("database is locked")
        copy_pages(path, how, target, progress)

    monkeypatch.setattr(databases, "_copy_pages", refuse)
    snapshot = home.backup()
    assert snapshot.failures == [{"path": NAME, "error": "the database stays locked: database is locked"}]
    assert rows(copy_of(snapshot, "memory/main.sqlite")) == ["remembered"]


@pytest.mark.parametrize("moment", ["looked at", "copied"])
def test_one_that_vanishes_is_not_in_the_snapshot_and_no_failure(
    home: Home, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    file = home.database(NAME, "one")
    home.write("openclaw.json", "{}")
    name = "_status" if moment == "looked at" else "_copy_once"
    work = getattr(databases, name)

    def meanwhile(*arguments: object) -> object:
        file.unlink(missing_ok=True)
        return work(*arguments)

    monkeypatch.setattr(databases, name, meanwhile)
    snapshot = home.backup()
    assert (snapshot.status, snapshot.failures) == ("complete", [])
    assert NAME not in entries(home, snapshot)
    assert os.listdir(copy_of(snapshot).parent) == []


def test_a_link_to_a_database_is_a_link(home: Home, tmp_path: Path) -> None:
    other = Home(tmp_path / "other").database("real.sqlite", "one")
    (home.root / "memory").mkdir()
    (home.root / "memory/main.sqlite").symlink_to(other)
    snapshot = home.backup()
    assert copy_of(snapshot, "memory/main.sqlite").readlink() == other


@pytest.mark.parametrize("is_crashed", [False, True], ids=["closed", "crashed"])
def test_a_cancel_in_the_middle_of_a_large_database_ends_it_with_that_step(home: Home, is_crashed: bool) -> None:
    file = home.database(NAME, *(f"{number}" * 1_000 for number in range(10_000, 14_000)))
    if is_crashed:
        crashed(file)
        Path(f"{file}-shm").unlink()
    before = state(home)
    # How many steps more there are depends on how busy the disk is.
    assert steps_of(home, CancelToken()) > 30
    for turn in (1, 5, 10, 15, 20, 25, 30):
        token = CancelToken()
        assert steps_of(home, token, turn) == turn
        assert [name for name in os.listdir(home.folder.path) if name.startswith(b".partial-")] == []
        assert len(home.folder.snapshots()) == 1
        assert state(home) == before


def steps_of(home: Home, token: CancelToken, cancel_at: int | None = None) -> int:
    """How many steps a backup took; it is cancelled at one of them."""
    steps = 0

    def look() -> None:
        nonlocal steps
        steps += 1
        if steps == cancel_at:
            token.cancel()

    progress = Progress(token, look)
    try:
        create(os.fsencode(home.root), home.folder, Options(share=False), progress)
    except Cancelled:
        assert cancel_at is not None
    return steps


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_locks_that_this_process_has_on_a_database_are_not_lost_by_its_backup(home: Home, journal: str) -> None:
    file = home.database(NAME, *MANY)
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute(f"PRAGMA journal_mode = {journal}")
        database.execute("BEGIN IMMEDIATE")
        assert not can_write(file)
        snapshot = home.backup()
        assert rows(copy_of(snapshot)) == MANY
        assert not can_write(file)
        database.execute("COMMIT")
        assert can_write(file)


def can_write(file: Path) -> bool:
    """Whether another process may."""
    code = (
        "import sqlite3, sys; d = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None);"
        "d.execute('BEGIN IMMEDIATE')"
    )
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0 or b"locked" in done.stderr
    return done.returncode == 0
