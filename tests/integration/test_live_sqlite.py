"""Databases as other processes leave them: closed, live, crashed, rewritten. Each is read whole, none is harmed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.cancel import CancelToken
from sidecar.core.analysis import SessionAnalysis
from sidecar.core.failures import FailedItems
from sidecar.errors import Cancelled
from sidecar.stores import file_systems, sqlite_files, sqlite_open
from sidecar.stores.locations import AgentFolder
from sidecar.stores.sqlite import SqliteStore
from tests.sqlite_trees import Schema, Session, SqliteAgent, open_database

NOW_MS = 1_795_378_579_852
DEADLINE_S = 60
ANALYSES = 100
ROW = (
    '{"type":"message","id":"%07d","timestamp":"2026-%07d","message":{"role":"user","content":"'
    + "0123456789abcdef" * 100
    + '"}}'
)
ROW_BYTES = len(ROW % (0, 0)) + 1

# "append" adds rows with a running number to two sessions, far faster than a gateway would; "rewrite" replaces the rows
# of one again and again, in its n-th state by 300 + n % 7 * 100 rows that all say n. It never waits for a lock: being
# kept from writing is an error; being kept from emptying its WAL is measured. It ends when its input does.
WRITER = f"""
import json, select, sqlite3, sys, time

path, schema, journal, what, checkpoint_every, rest_every = sys.argv[1:]
ROW = {ROW!r}
connection = sqlite3.connect(path, isolation_level=None, timeout=0)
connection.create_function("octet_length", 1, lambda text: len(text.encode()), deterministic=True)
connection.execute(f"PRAGMA journal_mode = {{journal}}")
connection.execute("PRAGMA synchronous = OFF")
connection.execute("PRAGMA wal_autocheckpoint = 0")

def insert(session, seq, number):
    connection.execute("INSERT INTO transcript_events (session_id, seq, event_json, created_at) VALUES (?, ?, ?, 0)",
                       (session, seq, ROW % (number, number)))

def append(number):
    for place in range(10):
        insert("live", number * 10 + place, number * 10 + place)
    insert("slow", number, number)

def rewrite(number):
    connection.execute("DELETE FROM transcript_events WHERE session_id = 'live'")
    for place in range(300 + number % 7 * 100):
        insert("live", place, number)
    if schema != "8":
        connection.execute("UPDATE transcript_rewrite_watermarks SET generation = ?", (str(number),))

def checkpoint():
    started_s = time.monotonic()
    while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        time.sleep(0.0005)
    return time.monotonic() - started_s

write = {{"append": append, "rewrite": rewrite}}[what]
number = begun = connection.execute("SELECT count(*) FROM transcript_events WHERE session_id = 'slow'").fetchone()[0]
busy = 0
kept_waiting_s = [0.0]
ending = False
while not ending:
    try:
        connection.execute("BEGIN IMMEDIATE")
        write(number)
        connection.execute("COMMIT")
        number += 1
    except sqlite3.OperationalError as error:
        busy += 1
        connection.rollback()
    if number % int(checkpoint_every) == 0:
        kept_waiting_s.append(checkpoint())
    if number == begun + 10:
        print("ready", flush=True)
    rest_s = 0.1 if number % int(rest_every) == 0 else 0.005
    ending = bool(select.select([sys.stdin], [], [], rest_s)[0])
connection.close()
print(json.dumps({{"written": number, "busy": busy, "checkpoints": len(kept_waiting_s) - 1,
                  "longest_wait_s": max(kept_waiting_s)}}), flush=True)
"""
NEVER = 1_000_000


class Writer:
    """A process that writes to an agent's database until it is told to end, or killed."""

    def __init__(self, agent: SqliteAgent, journal: str, what: str, checkpoint_every: int, rest_every: int) -> None:
        options = (agent.path, agent.schema, journal, what, checkpoint_every, rest_every)
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, *map(str, options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def end(self) -> dict[str, Any]:
        told, _ = self.process.communicate("", timeout=DEADLINE_S)
        result: dict[str, Any] = json.loads(told)
        return result

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=DEADLINE_S)


@contextmanager
def writer(
    agent: SqliteAgent,
    journal: str = "WAL",
    what: str = "append",
    checkpoint_every: int = 4,
    rest_every: int = NEVER,
) -> Iterator[Writer]:
    running = Writer(agent, journal, what, checkpoint_every, rest_every)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()


def closed_agent(folder: Path, schema: Schema = 23) -> SqliteAgent:
    """With what the writer will go on from: more than a block in one of its sessions."""
    sessions = [Session("a", b'{"type":"session","id":"a"}\n'), Session("live", rows(500)), Session("slow", rows(50))]
    return SqliteAgent(folder, schema, sessions).close()


def rows(count: int) -> bytes:
    return "".join(ROW % (number, number) + "\n" for number in range(count)).encode()


@pytest.fixture
def agent(tmp_path: Path) -> SqliteAgent:
    return closed_agent(tmp_path / "agents" / "main")


@pytest.fixture(autouse=True)
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where private copies are made; nothing may be left of them."""
    folder = tmp_path / "private"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert os.listdir(folder) == []


def analysed(agent: SqliteAgent) -> dict[str, SessionAnalysis]:
    failed = FailedItems()
    store = SqliteStore(AgentFolder("main", str(agent.folder)), CancelToken(), failed)
    found = {session.session_id: session for session in store.sessions(NOW_MS) if session is not None}
    assert failed.first == []
    return found


def appended(session: SessionAnalysis) -> int:
    """How many rows the session has, after all that is said of it was seen to be of that many."""
    count = session.message_count
    assert session.size_bytes == count * ROW_BYTES
    assert session.user_message_count == count
    assert session.last_activity == f"2026-{count - 1:07d}"
    assert session.skipped_lines == 0
    return count


def whole(agent: SqliteAgent) -> int:
    """How many rows there are, as plain SQLite sees it in a copy of all files."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(agent.path.parent, folder, dirs_exist_ok=True)
        connection = sqlite3.connect(f"{folder}/{agent.path.name}")
        (count,) = connection.execute("SELECT count(*) FROM transcript_events WHERE session_id = 'live'").fetchone()
        connection.close()
        return int(count)


def state(agent: SqliteAgent) -> dict[str, tuple[int, int, str]]:
    """All that there is in the agent's folder: names, sizes, times, contents."""
    files = sorted(path for path in agent.folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(agent.folder)): (
            path.stat().st_size,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in files
    }


@pytest.mark.parametrize("schema", [8, 23])
def test_a_hundred_analyses_of_a_live_database_each_give_a_state_that_it_was_in(tmp_path: Path, schema: Schema) -> None:
    agent = closed_agent(tmp_path / "agents" / "main", schema)
    counts = [500]
    # A hundred are over in a third of a second, in which a writer on a busy machine empties its WAL too seldom.
    until_s = time.monotonic() + 1.5
    with writer(agent) as running:
        while len(counts) <= ANALYSES or time.monotonic() < until_s:
            found = analysed(agent)
            assert list(found) == ["a", "live", "slow"]
            counts.append(appended(found["live"]))
            # Ten to one: each session is read in a state of its own, the second one later.
            assert appended(found["slow"]) >= counts[-1] / 10
        told = running.end()
    assert counts == sorted(counts)
    assert counts[-1] > counts[1] > 500
    assert counts[-1] <= told["written"] * 10
    assert told["busy"] == 0
    assert told["checkpoints"] > 20
    assert told["longest_wait_s"] < 2.0
    assert appended(analysed(agent)["live"]) == told["written"] * 10


def test_a_checkpoint_is_not_kept_waiting_by_an_analysis_that_waits_for_its_reader(agent: SqliteAgent) -> None:
    with writer(agent) as running:
        store = SqliteStore(AgentFolder("main", str(agent.folder)), CancelToken(), FailedItems())
        steps = store.sessions(NOW_MS)
        while next(steps) is not None:
            pass
        # It stands between two blocks of a session; now the writer goes on for a while, and empties its WAL.
        time.sleep(0.5)
        told = running.end()
        assert told["busy"] == 0
        assert told["checkpoints"] > 5
        assert told["longest_wait_s"] < 0.4
        session = next(session for session in steps if session is not None and session.session_id == "live")
        assert 500 < appended(session) < told["written"] * 10


@pytest.mark.parametrize("schema", [8, 23])
def test_a_session_that_is_rewritten_all_the_time_gives_one_state_or_another_and_never_a_mix(
    tmp_path: Path, schema: Schema
) -> None:
    agent = closed_agent(tmp_path / "agents" / "main", schema)
    states: set[int] = set()
    with writer(agent, what="rewrite", rest_every=1) as running:
        give_up_at_s = time.monotonic() + DEADLINE_S
        while len(states) < 20 and time.monotonic() < give_up_at_s:
            session = analysed(agent)["live"]
            assert session.last_activity is not None
            number = int(session.last_activity.removeprefix("2026-"))
            assert session.message_count == 300 + number % 7 * 100
            assert session.size_bytes == session.message_count * ROW_BYTES
            states.add(number)
        told = running.end()
    assert len(states) == 20
    assert told["busy"] == 0


def test_a_database_without_a_wal_is_read_in_states_that_it_was_in_while_it_is_written(agent: SqliteAgent) -> None:
    counts = [0]
    with writer(agent, journal="DELETE", checkpoint_every=NEVER, rest_every=5) as running:
        give_up_at_s = time.monotonic() + DEADLINE_S
        while len(counts) < 20 and time.monotonic() < give_up_at_s:
            failed = FailedItems()
            store = SqliteStore(AgentFolder("main", str(agent.folder)), CancelToken(), failed)
            sessions = (session for session in store.sessions(NOW_MS) if session is not None)
            counts += [appended(session) for session in sessions if session.session_id == "live"]
            # That it changes all the time is said, and nothing else fails.
            assert {failure.error.partition(":")[0] for failure in failed.first} <= {"the database is busy"}
        told = running.end()
    assert len(counts) == 20
    assert counts == sorted(counts)
    assert told["busy"] == 0


def killed(agent: SqliteAgent) -> None:
    with writer(agent, checkpoint_every=NEVER) as running:
        running.kill()


def without_shm(agent: SqliteAgent) -> None:
    killed(agent)
    Path(f"{agent.path}-shm").unlink()


def with_empty_wal(agent: SqliteAgent) -> None:
    ended(agent)
    Path(f"{agent.path}-wal").touch()


def with_empty_wal_and_shm(agent: SqliteAgent) -> None:
    ended(agent)
    Path(f"{agent.path}-wal").touch()
    Path(f"{agent.path}-shm").write_bytes(bytes(32_768))


def with_left_shm(agent: SqliteAgent) -> None:
    ended(agent)
    Path(f"{agent.path}-shm").write_bytes(os.urandom(32_768))


def ended(agent: SqliteAgent) -> None:
    with writer(agent) as running:
        running.end()
    assert not Path(f"{agent.path}-wal").exists()


def with_hot_journal(agent: SqliteAgent) -> None:
    """Killed in the middle of a transaction that had to write to the file already."""
    ended(agent)
    code = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = DELETE")
connection.execute("PRAGMA cache_size = 5")
connection.execute("BEGIN")
connection.execute("DELETE FROM transcript_events WHERE session_id = 'live'")
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code, str(agent.path)], timeout=DEADLINE_S, check=False)
    assert done.returncode == -signal.SIGKILL
    assert Path(f"{agent.path}-journal").stat().st_size > 0


LEFT_BY: dict[str, Callable[[SqliteAgent], None]] = {
    "a gateway that closed it": ended,
    "a gateway that was killed": killed,
    "a crash, without its shared memory": without_shm,
    "a doctor, with an empty WAL": with_empty_wal,
    "a doctor, with an empty WAL and shared memory": with_empty_wal_and_shm,
    "somebody, with shared memory of another time": with_left_shm,
    "a crash in the middle of a transaction": with_hot_journal,
}


@pytest.mark.parametrize("leave", LEFT_BY.values(), ids=LEFT_BY)
def test_a_database_left_by_whatever_is_read_whole_and_left_as_it_was(
    agent: SqliteAgent, leave: Callable[[SqliteAgent], None]
) -> None:
    leave(agent)
    count = whole(agent)
    assert count >= 600
    before = state(agent)
    assert appended(analysed(agent)["live"]) == count
    store = SqliteStore(AgentFolder("main", str(agent.folder)), CancelToken(), FailedItems())
    assert [file.size_bytes for file in store.files()][1] == count * ROW_BYTES
    assert store.holds_entries("a", ["a"])
    blocks = store.transcript("live")
    assert blocks is not None
    assert sum(block.end - block.start for block in blocks) == count * ROW_BYTES
    assert state(agent) == before


def test_a_database_that_a_gateway_opens_while_it_is_read_alone_is_read_on_as_it_is_then(
    agent: SqliteAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_open, "SQLITE_LOOK_S", 0.0)
    ended(agent)
    count = whole(agent)
    store = SqliteStore(AgentFolder("main", str(agent.folder)), CancelToken(), FailedItems())
    steps = store.sessions(NOW_MS)
    while next(steps) is not None:
        pass
    connection = open_database(agent.path)
    connection.execute("UPDATE transcript_rewrite_watermarks SET generation = 'new'")
    connection.execute("DELETE FROM transcript_events WHERE session_id = 'live' AND seq >= 5")
    sessions = [session for session in steps if session is not None]
    assert [session.session_id for session in sessions] == ["live", "slow"]
    assert appended(sessions[0]) == 5 < count
    connection.close()


def test_a_gateway_that_ends_while_an_analysis_waits_leaves_a_database_that_is_read_whole(agent: SqliteAgent) -> None:
    with writer(agent) as running:
        store = SqliteStore(AgentFolder("main", str(agent.folder)), CancelToken(), FailedItems())
        steps = store.sessions(NOW_MS)
        next(steps)
        told = running.end()
        sessions = {session.session_id: session for session in steps if session is not None}
    assert appended(sessions["live"]) == told["written"] * 10
    assert appended(analysed(agent)["live"]) == told["written"] * 10


def test_a_link_to_a_database_is_read_with_the_wal_that_lies_beside_its_target(tmp_path: Path) -> None:
    agent = closed_agent(tmp_path / "elsewhere" / "main")
    (tmp_path / "agents" / "main" / "agent").mkdir(parents=True)
    (tmp_path / "agents" / "main" / "agent" / agent.path.name).symlink_to(agent.path)
    killed(agent)
    count = whole(agent)
    store = SqliteStore(AgentFolder("main", str(tmp_path / "agents" / "main")), CancelToken(), FailedItems())
    (session,) = (found for found in store.sessions(NOW_MS) if found is not None and found.session_id == "live")
    assert appended(session) == count
    assert session.file_path == f"{tmp_path}/agents/main/agent/openclaw-agent.sqlite"


def test_on_a_network_file_system_a_private_copy_is_read(agent: SqliteAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    device = os.stat(agent.path).st_dev
    mounts = agent.folder.parent / "mounts"
    mounts.write_text(
        "21 1 0:999 / /proc rw - proc proc rw\n"
        f"36 35 {os.major(device)}:{os.minor(device)} / /mnt rw,noatime shared:1 - nfs4 server:/home rw\n"
    )
    monkeypatch.setattr(file_systems, "_MOUNTS", str(mounts))
    copied: list[str] = []
    copy_file = sqlite_files._copy_file

    def noted(source: str, target: str, token: CancelToken) -> None:
        copied.append(source)
        copy_file(source, target, token)

    monkeypatch.setattr(sqlite_files, "_copy_file", noted)
    with writer(agent, checkpoint_every=20) as running:
        counts = [appended(analysed(agent)["live"]) for _ in range(5)]
        told = running.end()
    assert counts == sorted(counts)
    assert counts[-1] > 500
    assert told["busy"] == 0
    assert len(copied) >= 5


def test_no_file_of_a_database_is_opened_but_by_sqlite(agent: SqliteAgent) -> None:
    # One open and close in a process with a connection would drop SQLite's locks.
    without_shm(agent)
    opened: list[str] = []

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and "openclaw-agent.sqlite" in str(args[0]):
            opened.append(str(args[0]))

    sys.addaudithook(hook)
    analysed(agent)
    Path(f"{agent.path}-wal").unlink()
    analysed(agent)
    assert opened == []
    Path(agent.path).read_bytes()
    assert opened == [str(agent.path)]


def test_a_copy_that_is_cancelled_ends_its_child_and_leaves_nothing(
    agent: SqliteAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_shm(agent)
    pid_file = tmp_path / "pid"
    slow = tmp_path / "slow-cp"
    slow.write_text(
        f'#!/bin/sh\necho $$ > "{pid_file}.new"; mv "{pid_file}.new" "{pid_file}"\nexec sleep {DEADLINE_S}\n'
    )
    slow.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(slow))
    token = CancelToken()
    store = SqliteStore(AgentFolder("main", str(agent.folder)), token, FailedItems())

    def cancel_when_it_copies() -> None:
        give_up_at_s = time.monotonic() + DEADLINE_S
        while not pid_file.exists() and time.monotonic() < give_up_at_s:
            time.sleep(0.005)
        token.cancel()

    thread = threading.Thread(target=cancel_when_it_copies)
    thread.start()
    with pytest.raises(Cancelled):
        list(store.sessions(NOW_MS))
    thread.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_without_space_for_a_copy_the_database_is_a_failed_item(
    agent: SqliteAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_shm(agent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 1_000))
    failed = FailedItems()
    store = SqliteStore(AgentFolder("main", str(agent.folder)), CancelToken(), failed)
    assert list(store.sessions(NOW_MS)) == []
    assert [failure.error.partition(" in ")[0] for failure in failed.first] == [
        "no space for a private copy of the database"
    ]


def test_a_copy_is_gone_while_it_is_read(agent: SqliteAgent, private: Path) -> None:
    without_shm(agent)
    store = SqliteStore(AgentFolder("main", str(agent.folder)), CancelToken(), FailedItems())
    steps = store.sessions(NOW_MS)
    assert next(steps) is not None
    assert os.listdir(private) == []
    assert len(list(steps)) >= 2
