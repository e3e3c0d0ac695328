"""What engines say of the files of sessions, and what they remove, is what is found and removed here."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.cancel import CancelToken
from sidecar.limits import LOCK_STALE_S
from sidecar.stores.deletion import clear_all
from sidecar.stores.home import LocalHome
from sidecar.text import wire_name
from tests.remote import engine as engines
from tests.remote.engine import DEADLINE_S, Engine, Run, request_for, told
from tests.remote.test_engines import EngineHome, contents, deleted
from tests.sqlite_trees import Archive, Session, SqliteAgent

UUID = "7f3c9a1e-0b52-4c8e-9d3a-111111111111"
TIME = "2026-11-22T20-15-53.605Z"
FINISH_S = 5.0
ENGINES: dict[str, Callable[[], Engine]] = {"node": engines.node, "python": engines.python}

Wire = dict[str, Any]


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    return ENGINES[request.param]()


@pytest.fixture(scope="module")
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


NAMES = [
    b"abc.jsonl",
    b"abc.trajectory.jsonl",
    b"abc.trajectory-path.json",
    f"abc.checkpoint.{UUID}.jsonl".encode(),
    b"abc.jsonl.lock",
    b"abc-topic-1.jsonl",
    b"ABC.jsonl",
    b"abc.def.jsonl",
    f"abc.jsonl.reset.{TIME}".encode(),
    f"abc.jsonl.deleted.{TIME}.zst".encode(),
    f"abc.jsonl.deleted.{TIME}.{'0' * 32}.zst".encode(),
    b"x.trajectory.jsonl",
    b"-rf.jsonl",
    b"$(touch x).jsonl",
    b"'\".jsonl",
    b"a\nb.jsonl",
    "é🙂\u2028.jsonl".encode(),
    b"\xff.jsonl",
    "\ufffdff.jsonl".encode(),
    b"\xff.trajectory.jsonl",
    b"\xed\xa0\xbd.jsonl",
    f"n\n\xff.jsonl.reset.{TIME}".encode("latin-1"),
]
OTHERS = [
    f"abc.jsonl.bak.{TIME}".encode(),
    b"abc.json",
    b"sessions.json.bak.1",
    b".jsonl",
    b"agent_main.abc.jsonl.imported-1795378501364",
    f"{'a' * 64}.jsonl.zst".encode(),
]
LINKS = {"link.jsonl": "abc.json", "broken.jsonl": "nowhere"}


def build(home: Path) -> Path:
    """A home with every kind of name in both folders, links and what is no file; its first agent's folder."""
    main = home / "agents" / "main"
    for folder in ("sessions", "sessions_archive"):
        (main / folder).mkdir(parents=True)
        for name in NAMES + OTHERS:
            Path(os.fsdecode(os.path.join(os.fsencode(main / folder), name))).write_bytes(name)
        os.utime(main / folder / "abc.jsonl.lock", (0, 0))
        (main / folder / "folder.jsonl").mkdir()
        os.mkfifo(main / folder / "fifo.jsonl")
        for link, target in LINKS.items():
            (main / folder / link).symlink_to(target)
    ids = [wire_name(os.fsdecode(name)).removesuffix(".jsonl") for name in NAMES]
    write_index(main, [entry(session_id) for session_id in ids])
    other = home / "agents" / "odd\udcff" / "sessions"
    other.mkdir(parents=True)
    (other / "abc.jsonl").write_bytes(b"{}\n")
    (home / "agents" / "bare").mkdir()
    return main


def entry(session_id: str, **more: Any) -> Wire:
    return {"sessionId": session_id, "updatedAt": 1_795_378_000_000, **more}


def write_index(agent: Path, entries: list[Wire]) -> Path:
    """As OpenClaw does."""
    path = agent / "sessions" / "sessions.json"
    index = {f"agent:main:{number}": one for number, one in enumerate(entries)}
    path.write_text(json.dumps(index, indent=2, ensure_ascii=False))
    return path


def indexed(agent: Path) -> list[str]:
    return [one["sessionId"] for one in json.loads((agent / "sessions" / "sessions.json").read_text()).values()]


def said(engine: Engine, op: str, home: Path, **fields: Any) -> list[list[Any]]:
    """The records of a run but the first, which is ``hello``."""
    return [record.items for record in told(engine, request_for(op, home, **fields))[1:]]


def removed(engine: Engine, home: Path, *sessions: list[Any], agent_id: str = "main") -> list[list[Any]]:
    *records, end = said(engine, "remove", home, agentId=agent_id, sessions=list(sessions))
    assert end == ["end"]
    return records


def session(transcript: str, *others: str, folder: str = "sessions", is_there: bool = True) -> list[Any]:
    """A session as a request names it."""
    return [folder, transcript, is_there, list(others)]


def state_of(home: Path) -> dict[str, Any]:
    """Each file and link below ``home``, with what is in it."""
    links = {str(path.relative_to(home)): os.readlink(path) for path in home.rglob("*") if path.is_symlink()}
    return contents(home) | links


def until(condition: Callable[[], bool]) -> None:
    """Wait for ``condition``, up to the deadline of all runs."""
    give_up_at_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < give_up_at_s


# What there is


def names_here(home: Path, agent_id: str) -> set[tuple[str, str]]:
    with LocalHome(str(home)).folders_of(agent_id, CancelToken()) as folders:
        return {(folder, wire_name(name)) for folder, name in folders.names()}


def names_of(records: list[list[Any]]) -> dict[str, set[tuple[str, str]]]:
    """By agent the folders and names that records of the op ``names`` tell."""
    found: dict[str, set[tuple[str, str]]] = {}
    agent = folder = ""
    for name, *items in records:
        if name == "agent":
            agent = items[0]
            found[agent] = set()
        elif name == "folder":
            folder = items[0]
        elif name == "name":
            found[agent].add((folder, items[0]))
    return found


def test_the_files_that_can_be_deleted_are_those_that_are_found_here(engine: Engine, tmp_path: Path) -> None:
    build(tmp_path)
    agents = ["bare", "main", "odd\ufffdff"]
    here = {agent: names_here(tmp_path, agent) for agent in agents}
    assert len(here["main"]) == 2 * (len(NAMES) + len(LINKS))
    assert names_of(said(engine, "names", tmp_path, agentId=None)) == here
    for agent in agents:
        assert names_of(said(engine, "names", tmp_path, agentId=agent)) == {agent: here[agent]}


def test_a_folder_that_can_not_be_listed_is_told_with_its_reason_and_one_that_is_not_there_is_none(
    engine: Engine, tmp_path: Path
) -> None:
    agent = tmp_path / "agents" / "main"
    agent.mkdir(parents=True)
    (agent / "sessions").write_bytes(b"")
    records = said(engine, "names", tmp_path, agentId="main")
    path = str(agent / "sessions")
    assert records == [["agent", "main"], ["unread", "sessions", "ENOTDIR", path, None], ["end"]]


def test_the_ids_of_a_database_are_told_of_one_agent_and_why_it_can_not_be_read(engine: Engine, tmp_path: Path) -> None:
    agent = tmp_path / "agents" / "main"
    archive = Archive(f"gone.jsonl.deleted.{TIME}.zst", b"{}\n")
    database = SqliteAgent(
        agent, 23, [Session("s1", b"{}\n"), Session("s2", b"{}\n", cold="sqlite")], [archive]
    ).close()
    (agent / "sessions" / archive.name).write_bytes(b"")
    assert [record for record in said(engine, "names", tmp_path, agentId=None) if record[0] == "id"] == []
    ids = [record[1] for record in said(engine, "names", tmp_path, agentId="main") if record[0] == "id"]
    assert sorted(ids) == sorted(["s1", "s2", archive.name])
    database.path.write_bytes(b"no database " * 100)
    told_ = said(engine, "names", tmp_path, agentId="main")
    assert [record for record in told_ if record[0] == "id"] == []
    message = "the file is not an SQLite database, or is encrypted"
    assert ["ids-failed", str(database.path), None, None, message] in told_


@pytest.mark.parametrize("op", ["names", "remove"])
def test_an_agent_that_is_not_there_is_no_such_file(engine: Engine, op: str, tmp_path: Path) -> None:
    build(tmp_path)
    records = said(engine, op, tmp_path, agentId="nobody", sessions=[])
    assert records == [["fail", "ENOENT", "agents/nobody", None, None]]


# What is removed


def test_each_session_alone_takes_the_same_with_it_as_here(engine: Engine, tmp_path: Path) -> None:
    build(tmp_path / "built")
    ids = sorted(wire_name(os.fsdecode(name)) for name in NAMES + OTHERS)
    ids += ["link", "broken", "folder", "fifo", "nothing"]
    ids += [name.removesuffix(".jsonl") for name in ids if name.endswith(".jsonl")]
    # One home for many ids: each is looked for in what those before it have left.
    for side in ("here", "there"):
        shutil.copytree(tmp_path / "built" / "agents", tmp_path / side / "agents", symlinks=True, copy_function=copied)
    for some in itertools.zip_longest(*[iter(ids)] * 6):
        wanted = [session_id for session_id in some if session_id is not None]
        here = deleted(LocalHome(str(tmp_path / "here")), wanted)
        assert deleted(EngineHome(engine, tmp_path / "there"), wanted) == here
        assert state_of(tmp_path / "there") == state_of(tmp_path / "here")


def copied(source: str, target: str) -> str:
    """As ``shutil.copy2``, with a FIFO for a FIFO."""
    if stat.S_ISFIFO(os.lstat(source).st_mode):
        os.mkfifo(target)
        return target
    return str(shutil.copy2(source, target, follow_symlinks=False))


def test_clearing_all_leaves_the_same_as_here(engine: Engine, tmp_path: Path) -> None:
    for side in ("here", "there"):
        build(tmp_path / side)
    before = state_of(tmp_path / "here")
    files = clear_all(LocalHome(str(tmp_path / "here")), CancelToken())
    assert clear_all(EngineHome(engine, tmp_path / "there"), CancelToken()) == files
    assert state_of(tmp_path / "there") == state_of(tmp_path / "here")
    assert files == len(before) - len(state_of(tmp_path / "here"))


def test_what_went_is_counted_and_what_had_gone_before_is_not(engine: Engine, tmp_path: Path) -> None:
    agent = build(tmp_path)
    assert removed(
        engine,
        tmp_path,
        session("abc.jsonl", "abc.trajectory.jsonl", "missing.trajectory.jsonl", "abc.jsonl.lock"),
        session("missing.jsonl"),
        session("x.jsonl", "x.trajectory.jsonl", is_there=False),
        session("abc.jsonl", folder="sessions_archive"),
    ) == [
        ["removed", 0, 3, True],
        ["removed", 1, 0, False],
        ["removed", 2, 1, False],
        ["removed", 3, 1, True],
    ]
    left = {os.fsencode(path.name) for path in (agent / "sessions").iterdir()}
    assert not left & {b"abc.jsonl", b"abc.trajectory.jsonl", b"x.trajectory.jsonl"}
    assert b"abc.trajectory-path.json" in left


def test_a_folder_that_has_gone_refuses_its_sessions_and_no_others(engine: Engine, tmp_path: Path) -> None:
    agent = build(tmp_path)
    shutil.rmtree(agent / "sessions_archive")
    assert removed(engine, tmp_path, session("abc.jsonl", folder="sessions_archive"), session("abc.jsonl")) == [
        ["refused", 0, 0, "ENOENT", str(agent / "sessions_archive"), None],
        ["removed", 1, 1, True],
    ]


@pytest.mark.parametrize(
    "name", ["../../outside", "../sessions/abc.jsonl", "/etc/hostname", "sub/abc.jsonl", "", ".", "..", "abc.jsonl\0"]
)
def test_what_can_not_be_a_name_removes_nothing(engine: Engine, name: str, tmp_path: Path) -> None:
    agent = build(tmp_path)
    (tmp_path / "agents" / "outside").write_bytes(b"")
    (agent / "sessions" / "sub").mkdir()
    (agent / "sessions" / "sub" / "abc.jsonl").write_bytes(b"")
    before = state_of(tmp_path)
    sessions = [session(name), session("abc.jsonl", name), session("abc.jsonl", folder=name)]
    records = removed(engine, tmp_path, *sessions)
    assert [record[:5] for record in records] == [["refused", place, 0, None, None] for place in range(3)]
    assert state_of(tmp_path) == before


def test_a_folder_in_the_place_of_a_file_refuses_its_session(engine: Engine, tmp_path: Path) -> None:
    build(tmp_path)
    records = removed(engine, tmp_path, session("folder.jsonl"), session("abc.jsonl", "folder.jsonl"))
    codes = {"EISDIR", "EPERM"}  # Linux's and macOS's word for it
    assert [(record[:3], record[3] in codes, record[4:]) for record in records] == [
        (["refused", 0, 0], True, ["folder.jsonl", None]),
        (["refused", 1, 0], True, ["folder.jsonl", None]),
    ]


# Locks


def test_a_lock_of_a_process_that_runs_keeps_a_session_and_one_of_a_process_that_has_ended_does_not(
    engine: Engine, dead_pid: int, tmp_path: Path
) -> None:
    agent = build(tmp_path)
    lock = agent / "sessions" / "abc.jsonl.lock"
    lock.write_text(json.dumps({"pid": os.getpid(), "createdAt": "2026-11-22T20:15:53.605Z"}, indent=2))
    os.utime(lock, (0, 0))
    before = state_of(tmp_path)
    wanted = session("abc.jsonl", "abc.jsonl.lock", "abc.trajectory.jsonl")
    assert removed(engine, tmp_path, wanted) == [["locked", 0, f"process {os.getpid()}"]]
    assert state_of(tmp_path) == before
    lock.write_text(json.dumps({"pid": dead_pid}))
    assert removed(engine, tmp_path, wanted) == [["removed", 0, 3, True]]


UNREADABLE_LOCKS = ["", "{", "[]", "4711", '{"pid": "4711"}', '{"pid": 0}', '{"pid": 1.5}', '{"pid": true}']


def test_a_lock_that_tells_no_process_counts_for_half_an_hour(engine: Engine, tmp_path: Path) -> None:
    agent = build(tmp_path)
    sessions = []
    for number, text in enumerate(UNREADABLE_LOCKS):
        transcript = agent / "sessions" / f"locked{number}.jsonl"
        transcript.write_bytes(b"{}\n")
        Path(f"{transcript}.lock").write_text(text)
        sessions.append(session(transcript.name, f"{transcript.name}.lock"))
    os.mkfifo(agent / "sessions" / "abc-topic-1.jsonl.lock")
    sessions.append(session("abc-topic-1.jsonl"))

    def set_age(age_s: float) -> None:
        for lock in (agent / "sessions").glob("*.lock"):
            os.utime(lock, (time.time() - age_s,) * 2)

    set_age(LOCK_STALE_S - 60)
    assert removed(engine, tmp_path, *sessions) == [
        ["locked", place, "an unknown process"] for place in range(len(sessions))
    ]
    set_age(LOCK_STALE_S + 1)
    assert [record[0] for record in removed(engine, tmp_path, *sessions)] == ["removed"] * len(sessions)


# The index


def test_an_index_loses_the_entries_and_not_one_byte_of_another(engine: Engine, tmp_path: Path) -> None:
    agent = build(tmp_path)
    index = agent / "sessions" / "sessions.json"
    kept = (
        b'"big": {"sessionId":"kept","updatedAt":123456789012345678901234567890,"x":1.10,"y":-0.0,"z":1E400},\n'
        b'  "text" : {"sessionId" :"abc\\ud83d","text":"\\u00e9\\/ \xff {,}"}'
    )
    gone = b'"own":{"sessionId":"abc","sessionFile":"/home/\xc3\xa9/sessions/abc.jsonl"}'
    by_file = b'"file":{"sessionFile":"C:\\\\sessions/abc.jsonl","sessionId":"other"}'
    index.write_bytes(b"\n{\n  " + gone + b",\n  " + kept + b" , " + by_file + b"\n}\n")
    assert removed(engine, tmp_path, session("abc.jsonl")) == [["removed", 0, 1, True]]
    assert index.read_bytes() == b"\n{\n  " + kept + b"\n}\n"


def test_the_index_keeps_its_mode_and_its_owner(engine: Engine, tmp_path: Path) -> None:
    agent = build(tmp_path)
    index = agent / "sessions" / "sessions.json"
    index.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(index, 4242, 4243)
    before = index.stat()
    assert removed(engine, tmp_path, session("abc.jsonl")) == [["removed", 0, 1, True]]
    after = index.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_an_index_in_which_nothing_is_to_change_is_not_written(engine: Engine, tmp_path: Path) -> None:
    agent = build(tmp_path)
    index = write_index(agent, [entry("kept")])
    before = index.stat()
    assert removed(engine, tmp_path, session("abc.jsonl"), session("missing.jsonl"))[0] == ["removed", 0, 1, True]
    assert (index.stat().st_ino, index.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    index.unlink()
    assert removed(engine, tmp_path, session("ABC.jsonl")) == [["removed", 0, 1, True]]
    assert not index.exists()


def test_a_stale_lock_of_the_index_is_taken_over(engine: Engine, dead_pid: int, tmp_path: Path) -> None:
    agent = build(tmp_path)
    write_index(agent, [entry("abc"), entry("kept")])
    lock = agent / "sessions" / "sessions.json.lock"
    lock.write_text(json.dumps({"pid": dead_pid}))
    assert removed(engine, tmp_path, session("abc.jsonl")) == [["removed", 0, 1, True]]
    assert indexed(agent) == ["kept"]
    assert not lock.exists()


_WRITER = """
    import json, os, sys, time
    index = sys.argv[1]
    number = 0
    while not os.path.exists(index + ".stop"):
        while True:
            try:
                os.close(os.open(index + ".lock", os.O_CREAT | os.O_EXCL))
                break
            except FileExistsError:
                time.sleep(0.0005)
        with open(index) as file:
            entries = json.load(file)
        entries[f"new:{number}"] = {"sessionId": f"new{number}"}
        with open(f"{index}.{number}.tmp", "w") as file:
            json.dump(entries, file, indent=2)
        os.replace(f"{index}.{number}.tmp", index)
        os.unlink(index + ".lock")
        number += 1
        time.sleep(0.002)
    print(number)
"""


def test_what_another_process_adds_to_the_index_meanwhile_is_there_in_the_end(engine: Engine, tmp_path: Path) -> None:
    """The other one does as OpenClaw: take the lock or wait, read, write a temporary file, rename, release."""
    agent = tmp_path / "agents" / "main"
    (agent / "sessions").mkdir(parents=True)
    ids = [f"s{number}" for number in range(5)]
    for session_id in ids:
        (agent / "sessions" / f"{session_id}.jsonl").write_bytes(b"{}\n")
    index = write_index(agent, [entry(session_id, text="x" * 20_000) for session_id in ids])
    command = [sys.executable, "-c", textwrap.dedent(_WRITER), str(index)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            for session_id in ids:
                before = len(indexed(agent))
                until(lambda before=before: len(indexed(agent)) > before)  # type: ignore[misc]
                assert removed(engine, tmp_path, session(f"{session_id}.jsonl")) == [["removed", 0, 1, True]]
        finally:
            Path(f"{index}.stop").touch()
        added = int(writer.communicate(timeout=DEADLINE_S)[0])
    assert added >= len(ids)
    assert indexed(agent) == [f"new{number}" for number in range(added)]
    assert {path.name for path in (agent / "sessions").iterdir()} == {"sessions.json", "sessions.json.stop"}


# The end of the input


def many(home: Path, count: int) -> tuple[Path, list[list[Any]]]:
    """An agent with ``count`` sessions, all in its index, and what asks for their removal."""
    agent = home / "agents" / "main"
    (agent / "sessions").mkdir(parents=True)
    names = [f"s{number:05}" for number in range(count)]
    for name in names:
        (agent / "sessions" / f"{name}.jsonl").write_bytes(b"{}\n")
    write_index(agent, [entry(name) for name in names])
    return agent, [session(f"{name}.jsonl", f"{name}.trajectory.jsonl") for name in names]


def left_of(agent: Path) -> list[str]:
    return sorted(path.stem for path in (agent / "sessions").glob("s*.jsonl"))


def first_removed(run: Run) -> Iterator[Any]:
    """The records of a run from the first removal on."""
    records = run.records()
    assert next(records).name == "hello"
    return itertools.dropwhile(lambda record: record.name != "removed", records)


def test_a_removal_that_nobody_listens_to_ends_between_two_sessions_and_finishes_the_index(
    engine: Engine, tmp_path: Path
) -> None:
    """Its output is not read, so that it stands still in the middle, and then ends with its input."""
    agent, sessions = many(tmp_path, 20_000)
    with Run(engine, request_for("remove", tmp_path, agentId="main", sessions=sessions)) as run:
        assert next(first_removed(run)).items == ["removed", 0, 1, True]
        until(lambda: stands_still(agent))
        closed_at_s = time.monotonic()
        run.close_input()
        run.wait()
        assert time.monotonic() - closed_at_s < FINISH_S
    left = left_of(agent)
    assert 0 < len(left) < 20_000
    assert indexed(agent) == left
    assert {path.name for path in (agent / "sessions").iterdir()} == {f"{name}.jsonl" for name in left} | {
        "sessions.json"
    }


def stands_still(agent: Path) -> bool:
    """Whether nothing is removed for a fifth of a second."""
    before = len(left_of(agent))
    until_s = time.monotonic() + 0.2
    while time.monotonic() < until_s:
        if len(left_of(agent)) != before:
            return False
    return True


def test_a_removal_whose_reader_has_gone_finishes_the_index(engine: Engine, tmp_path: Path) -> None:
    agent, sessions = many(tmp_path, 20_000)
    with Run(engine, request_for("remove", tmp_path, agentId="main", sessions=sessions)) as run:
        assert next(first_removed(run)).name == "removed"
        assert run.process.stdout is not None
        run.process.stdout.close()
        run.close_input()
        run.wait()
    assert indexed(agent) == left_of(agent)
    assert len(left_of(agent)) > 0


def test_a_removal_that_waits_for_the_lock_of_the_index_ends_all_the_same(engine: Engine, tmp_path: Path) -> None:
    agent, sessions = many(tmp_path, 1)
    (agent / "sessions" / "sessions.json.lock").write_text(json.dumps({"pid": os.getpid()}))
    with Run(engine, request_for("remove", tmp_path, agentId="main", sessions=sessions)) as run:
        assert next(first_removed(run)).items == ["removed", 0, 1, True]
        closed_at_s = time.monotonic()
        run.close_input()
        run.wait()
        assert time.monotonic() - closed_at_s < FINISH_S + 1
    assert indexed(agent) == ["s00000"]
    assert {path.name for path in (agent / "sessions").iterdir()} == {"sessions.json", "sessions.json.lock"}
