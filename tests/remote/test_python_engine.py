"""What only the Python engine has: its own reading of JSON in place, its watchdog, and Pythons that lack something."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.blocks import Block
from sidecar.core.preview import MessageReader
from sidecar.remote.python import index_rewrite as rewrite_there
from sidecar.remote.python.blocks import Lines
from sidecar.remote.python.errors import BrokenIndex as BrokenThere
from sidecar.remote.python.limits import LONG_LINE_BYTES, STRING_BYTES
from sidecar.remote.python.long_line import LongLine
from sidecar.remote.python.tally import Tally
from sidecar.stores import index_rewrite
from sidecar.stores.home import LocalHome
from sidecar.stores.session_index import BrokenIndex
from tests import oracle
from tests.integration.test_live_sqlite import closed_agent
from tests.integration.test_store_contract import in_files, transcripts
from tests.remote import engine as engines
from tests.remote.engine import DEADLINE_S, SCRIPTS, Run, request_for, told
from tests.remote.test_engines import EngineHome, analysed, assert_same
from tests.sqlite_trees import Session, SqliteAgent
from tests.unit.strategies import BLANKS, GARBAGE, PIECES, entries, mutations, objects, spelled, strings, values

OLDEST = (3, 8)
NAMES = [f"python3.{minor}" for minor in range(OLDEST[1], 20)]
SOON_S = 1.0
NO_SQLITE = "the database needs Node 22.13 or newer, or Python 3 with sqlite3, on the host"


def nothing() -> None:
    pass


def counts_of(tally: Tally) -> dict[str, Any]:
    return {
        "messageCount": tally.messages,
        "userMessageCount": tally.users,
        "assistantMessageCount": tally.assistants,
        "lastActivity": tally.last_activity,
        "headerId": tally.header_id,
        "skippedLines": tally.skipped_lines,
    }


# Lines, read in place

LINES = st.one_of(
    entries(wrong=False),
    entries(wrong=True).filter(lambda line: b"\n" not in line),
    mutations(entries(wrong=False), [b'"', b"\xff", b"}", b"\\"]).filter(lambda line: b"\n" not in line),
    st.sampled_from(GARBAGE + BLANKS),
)


@settings(max_examples=500)
@given(LINES, st.sampled_from([b"", b'"', b"}", b"\n{}"]))
def test_a_line_read_in_place_counts_as_a_whole_reading_says(line: bytes, behind: bytes) -> None:
    found = LongLine(b"{" + line + behind, 1, 1 + len(line), nothing)
    tally = Tally()
    if not found.is_blank():
        tally.count(found.entry() if found.is_entry() else None)
    assert counts_of(tally) == oracle.analyse_transcript(line)


@settings(max_examples=300)
@given(st.lists(LINES))
def test_lines_count_as_a_whole_reading_says(lines: list[bytes]) -> None:
    data = b"\n".join(lines)
    tally = Tally()
    tally.add(Lines(data, 0, len(data)), nothing)
    assert counts_of(tally) == oracle.analyse_transcript(data)
    assert tally.size_bytes == len(data)


BLOCKS = objects({b"text": strings(PIECES), b"type": spelled(b"text")}, wrong=False)
CONTENTS = st.lists(st.one_of(BLOCKS, values(wrong=False)), max_size=3).map(lambda some: b"[%b]" % b",".join(some))
MESSAGES = objects(
    {
        b"type": spelled(b"message"),
        b"message": objects(
            {b"role": spelled(b"user"), b"content": st.one_of(CONTENTS, strings(PIECES), values(wrong=False))},
            wrong=False,
        ),
    },
    wrong=False,
)


def shown(line: bytes) -> list[tuple[str, Any]]:
    reader = MessageReader()
    messages = [message for some in reader.read(Block(bytearray(line), 0, len(line))) for message in some]
    assert reader.skipped_lines == 0
    return [(message.role, json.loads(bytes(message.content))) for message in messages]


@settings(max_examples=500)
@given(MESSAGES)
def test_a_line_that_is_cut_down_shows_the_same_message(line: bytes) -> None:
    found = LongLine(line, 0, len(line), nothing)
    assert found.is_entry()
    assert shown(found.shown()) == shown(line)


@pytest.mark.parametrize("ending", [b'"}}', b'"}', b"", b'\x01"}}', b'\\x"}}', b'"}}]'])
def test_a_line_of_many_pieces_is_an_entry_if_it_is_json(ending: bytes, tmp_path: Path) -> None:
    """Escapes at every place where a piece may end; longer than what is parsed as a whole."""
    text = b"x".join([b'\\"', b"\\\\", "é".encode(), b"\\u00e9"] * 400_000)
    line = b'{"type":"message","timestamp":"t","message":{"role":"user","content":"%b%b' % (text, ending)
    transcript = line + b'\n{"type":"message","message":{"role":"assistant"}}\n'
    assert len(line) > STRING_BYTES > LONG_LINE_BYTES
    tally = Tally()
    tally.add(Lines(transcript, 0, len(transcript)), nothing)
    assert counts_of(tally) == oracle.analyse_transcript(transcript)


@pytest.mark.parametrize(("depth", "is_entry"), [(900, True), (100_000, False)])
def test_an_entry_that_is_nested_too_deep_is_none(depth: int, is_entry: bool) -> None:
    line = b'{"type":"message","x":' + b"[" * depth + b"]" * depth + b"}"
    assert LongLine(line, 0, len(line), nothing).is_entry() == is_entry


# The index

ENTRIES = st.one_of(
    objects({b"sessionId": spelled(b"a", b"b"), b"sessionFile": spelled(b"/x/a.jsonl", b"b.jsonl")}, wrong=False),
    objects({b"sessionId": st.one_of(spelled(b"a", b"b", b"c"), values(wrong=False))}, wrong=False),
    values(wrong=False),
)


@st.composite
def indexes(draw: st.DrawFn) -> bytes:
    members = draw(st.lists(st.tuples(strings(PIECES), ENTRIES), max_size=4))
    space = draw(st.sampled_from([b"", b" ", b"\n  "]))
    return b"{" + space + (b"," + space).join(b"%b:%b%b" % (key, space, one) for key, one in members) + space + b"}"


@settings(max_examples=500)
@given(st.one_of(indexes(), mutations(indexes(), [b"\n", b",", b"{", b"}", b'"', b"\xff"])))
def test_what_remains_of_an_index_is_what_remains_here(text: bytes) -> None:
    names = {"a.jsonl", "c.jsonl"}
    try:
        pieces = index_rewrite.without_entries(text, names)
    except BrokenIndex:
        with pytest.raises(BrokenThere):
            rewrite_there.without_entries(text, names)
    else:
        remaining = rewrite_there.without_entries(text, names)
        assert remaining == (None if pieces is None else b"".join(pieces))


# The watchdog, which is the process that was started, and the worker, its child


def worker_of(run: Run) -> int:
    pid = run.process.pid
    (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(worker)


def until_ended(pid: int) -> None:
    """Wait for the end of a process that nobody may have reaped."""
    give_up_at_s = time.monotonic() + SOON_S
    with contextlib.suppress(FileNotFoundError):
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < give_up_at_s, "it still runs"


@pytest.fixture
def copying(tmp_path: Path) -> Iterator[tuple[Run, Path]]:
    """A run that is making a private copy for some time, and where that lies."""
    private = tmp_path / "private"
    private.mkdir()
    agent = closed_agent(tmp_path / "home" / "agents" / "main")
    with open(f"{agent.path}-wal", "wb") as file:
        file.truncate(1 << 36)
    # The disk has no room for it, and is not asked: none of it is ever written.
    engine = (
        engines.python().patched("COPY_BYTES = MIB", "COPY_BYTES = 1").patched("if free_bytes <", "if 0 > free_bytes <")
    )
    environ = {**os.environ, "TMPDIR": str(private)}
    with Run(engine, request_for("analyze", tmp_path / "home"), environ=environ) as run:
        give_up_at_s = time.monotonic() + DEADLINE_S
        while not list(private.glob("*/copy.sqlite-wal")):
            assert time.monotonic() < give_up_at_s, run.errors()
        yield run, private


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")


@on_linux
def test_a_worker_that_is_killed_leaves_neither_its_watchdog_nor_its_private_copy(copying: tuple[Run, Path]) -> None:
    run, private = copying
    os.kill(worker_of(run), signal.SIGKILL)
    assert run.wait() == 1
    assert list(private.iterdir()) == []


@on_linux
def test_a_worker_whose_watchdog_is_killed_ends_with_it_and_leaves_no_private_copy(copying: tuple[Run, Path]) -> None:
    run, private = copying
    worker = worker_of(run)
    run.process.kill()
    until_ended(worker)
    assert list(private.iterdir()) == []


@on_linux
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kill", [os.kill, os.killpg])
def test_a_signal_ends_both_and_leaves_no_private_copy(
    copying: tuple[Run, Path], kill: Callable[[int, int], None], number: int
) -> None:
    run, private = copying
    worker = worker_of(run)
    kill(run.process.pid, number)
    assert run.wait() == 1
    assert not os.path.exists(f"/proc/{worker}")
    assert list(private.iterdir()) == []
    assert run.errors() == ""


# Pythons


def test_the_engine_is_written_in_the_oldest_language_that_it_may_meet() -> None:
    ast.parse(engines.python().script, feature_version=OLDEST)
    for path in (SCRIPTS / "python").glob("*.py"):
        ast.parse(path.read_bytes(), feature_version=OLDEST)


def test_a_fault_of_the_engine_leaves_a_traceback_that_names_its_module(tmp_path: Path) -> None:
    engine = engines.python().patched("shown = None if openclaw_dir is None else", "shown = 1 / 0 if openclaw_dir else")
    with Run(engine, request_for("analyze", tmp_path)) as run:
        assert [record.items for record in run.records()] == [
            ["fail", None, None, "the helper failed: ZeroDivisionError", "remote_failed"]
        ]
        run.close_input()
        assert run.wait() == 0
        assert 'File "sidecar.remote.python.main", line ' in run.errors()


def pythons() -> dict[str, str]:
    """The Pythons that are installed here, one of each version, by their names."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = {name: [shutil.which(name), *root.glob(f"versions/*/bin/{name}")] for name in NAMES}
    return {
        name: str(path)
        for name, paths in found.items()
        if (path := next((path for path in paths if path and runs(path)), None))
    }


def runs(program: str | Path) -> bool:
    """Whether it is more than a version manager's stub."""
    return subprocess.run([program, "-c", ""], check=False, capture_output=True).returncode == 0


PYTHONS = {"this": sys.executable, **pythons()}


@pytest.mark.parametrize("python", PYTHONS.values(), ids=PYTHONS)
def test_every_python_that_is_here_says_what_the_stores_say(python: str, tmp_path: Path) -> None:
    in_files(tmp_path / "agents" / "files", transcripts())
    SqliteAgent(tmp_path / "agents" / "rows", 23, [Session("s1", transcripts()["s1"])]).close()
    assert_same(engines.python(python), tmp_path)


@pytest.fixture
def without_sqlite(tmp_path: Path) -> dict[str, str]:
    """An environment in which Python has no module ``sqlite3``."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "sqlite3.py").write_text("raise ImportError")
    return {**os.environ, "PYTHONPATH": str(modules)}


def test_without_sqlite_a_database_is_a_failed_item_that_says_so_and_files_are_read(
    without_sqlite: dict[str, str], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    in_files(home / "agents" / "main", transcripts())
    (agents, _) = analysed(LocalHome(str(home)))
    database = SqliteAgent(home / "agents" / "main", 23, [Session("s1", transcripts()["s1"])]).close()
    there = EngineHome(engines.python(), home, environ=without_sqlite)
    assert analysed(there) == (agents, [(str(database.path), NO_SQLITE)])
    request = request_for("names", home, agentId="main")
    records = [record.items for record in told(engines.python(), request, environ=without_sqlite)]
    assert records[0][5] is False
    assert records[-2:] == [["ids-failed", str(database.path), None, None, NO_SQLITE], ["end"]]


def test_without_sqlite_a_preview_looks_among_the_files_and_says_what_is_missing_of_any_other_session(
    without_sqlite: dict[str, str], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    in_files(home / "agents" / "main", {"s1": transcripts()["s1"]})
    SqliteAgent(home / "agents" / "main", 23, [Session("s2", transcripts()["s2"])]).close()

    def preview(session_id: str) -> list[engines.Record]:
        request = request_for("preview", home, agentId="main", sessionId=session_id)
        return told(engines.python(), request, environ=without_sqlite)[1:]

    assert [record.name for record in preview("s1")] == ["found", "lines", "end"]
    assert preview("s2")[-1].items[3:] == [NO_SQLITE, "source_unreadable"]


def test_names_are_bytes_whatever_the_locale(tmp_path: Path) -> None:
    for name in (b"\xff", "é".encode(), "\ufffdff".encode()):
        sessions = os.path.join(os.fsencode(tmp_path / "agents"), name, b"sessions")
        os.makedirs(sessions)
        with open(os.path.join(sessions, name + b".jsonl"), "wb") as file:
            file.write(transcripts()["s1"])
    environ = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    there = EngineHome(engines.python(), tmp_path, environ=environ)
    agents, failures = analysed(there)
    assert len(agents) == 3
    assert (agents, failures) == analysed(LocalHome(str(tmp_path)))
