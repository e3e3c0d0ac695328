"""JSONL sessions of trees as people have them: what counts as a session, what fails alone, what a moving file gives."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from sidecar.cancel import CancelToken
from sidecar.core.analysis import SessionAnalysis
from sidecar.core.failures import FailedItems
from sidecar.demo.sample import AgentPlan, write_tree
from sidecar.errors import Cancelled
from sidecar.limits import BLOCK_BYTES, MAX_REPORTED_FAILURES, MIB
from sidecar.stores.home import LocalHome
from sidecar.stores.jsonl import JsonlStore
from sidecar.stores.locations import list_agents
from sidecar.streams.analyze import AnalysisStream, SessionsDone, analyze_sessions
from sidecar.streams.base import Outcome
from sidecar.text import file_name
from tests import oracle
from tests.oracle import Wire
from tests.unit.test_transcript import ASSISTANT, COUNTED_LINES, HEADER, NO_ROLE, SKIPPED_LINES, USER

NOW_MS = 1_795_378_579_852
TRANSCRIPT = b"\n".join((HEADER, *[USER, ASSISTANT] * 3, b""))
LARGE = TRANSCRIPT + (USER + b"\n") * (4 * BLOCK_BYTES // len(USER))


class Agent:
    """One agent's folder, to be filled."""

    def __init__(self, root: Path, name: str = "main") -> None:
        self.root = root
        self.folder = root / "agents" / name
        self.sessions = self.folder / "sessions"
        self.sessions.mkdir(parents=True)

    def write(self, name: str, data: bytes = TRANSCRIPT, folder: str = "sessions") -> Path:
        path = self.folder / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return path

    def write_index(self, *entries: Wire, indent: int | None = 2) -> None:
        index = {f"agent:main:{number}": entry for number, entry in enumerate(entries)}
        (self.sessions / "sessions.json").write_text(json.dumps(index, indent=indent))


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path)


class Analysed:
    """All that is said of the one agent below ``root``."""

    def __init__(self, root: Path) -> None:
        self.failed = FailedItems()
        self.store = JsonlStore(list_agents(str(root))[0], CancelToken(), self.failed)
        self._steps = self.store.sessions(NOW_MS)

    def step(self) -> SessionAnalysis | None:
        return next(self._steps)

    def rest(self) -> list[Wire]:
        return [msgspec.to_builtins(session) for session in self._steps if session is not None]


def analysed(root: Path) -> list[Wire]:
    """The sessions of the one agent below ``root``, none of which may fail."""
    found = Analysed(root)
    sessions = found.rest()
    assert found.failed.first == []
    assert found.store.sessions_total == len(sessions)
    return sessions


def ids(sessions: list[Wire]) -> list[str]:
    return [session["sessionId"] for session in sessions]


def test_sessions_come_by_folder_and_name_with_all_that_the_oracle_says(agent: Agent) -> None:
    for name in ("b.jsonl", "a.jsonl", "a-b.jsonl", "B.jsonl"):
        agent.write(name)
    agent.write("a.jsonl", folder="sessions_archive")
    agent.write_index({"sessionId": "a", "updatedAt": NOW_MS - 1, "totalTokens": 7, "model": "kimi-k2"})
    sessions = analysed(agent.root)
    assert ids(sessions) == ["B", "a", "a-b", "b", "a.jsonl"]
    assert sessions == oracle.analyse_tree(str(agent.root), NOW_MS)["main"]


def test_a_session_in_the_archive_has_its_file_name_as_id_and_looks_up_its_stem(agent: Agent) -> None:
    agent.write("old.jsonl", folder="sessions_archive")
    agent.write_index({"sessionId": "old", "updatedAt": NOW_MS - 86_400_000, "totalTokens": 5})
    (session,) = analysed(agent.root)
    assert (session["sessionId"], session["kind"], session["totalTokens"], session["ageDays"]) == (
        "old.jsonl",
        "archive",
        5,
        1.0,
    )


def test_files_beside_the_transcripts_are_no_sessions(agent: Agent) -> None:
    agent.write("s1.jsonl")
    for name in (
        "s1.trajectory.jsonl",
        "s1.trajectory-path.json",
        "s1.checkpoint.7f3c9a1e-0b52-4c8e-9d3a-111111111111.jsonl",
        "s1.jsonl.lock",
        "s1.jsonl.tmp",
        "s1.jsonl.1234.tmp",
        "s1.jsonl~",
        "s1.json",
        "s1.JSONL.bak",
        ".jsonl",
        "jsonl",
        "s2.jsonl.bak.2026-11-22T20-15-53.605Z",
        "s2.jsonl.reset.2026-11-22",
        "s2.trajectory.jsonl.deleted.2026-11-22T20-16-19.852Z",
    ):
        agent.write(name)
    assert ids(analysed(agent.root)) == ["s1"]


def test_an_archive_is_named_by_its_file_and_says_what_became_of_the_session(agent: Agent) -> None:
    reset = "s1.jsonl.reset.2026-11-22T20-15-53.605Z"
    deleted = "s2-topic-7.jsonl.deleted.2026-11-22T20-16-19.852Z.bfa8201e84bb45fe985078b57cdd216c.zst"
    imported = "agent_main_main.s3.jsonl.imported-1795378501364"
    agent.write("s1.jsonl")
    agent.write(reset)
    agent.write(deleted, zstandard.compress(TRANSCRIPT))
    (agent.folder / "session-sqlite-import-archive").mkdir()
    agent.write(f"../session-sqlite-import-archive/{imported}")
    found = analysed(agent.root)
    assert [(session["sessionId"], session["kind"], session["archivedAs"]) for session in found] == [
        ("s1", "sessions", None),
        (reset, "archive", "reset"),
        (deleted, "archive", "deleted"),
        (imported, "archive", "imported"),
    ]
    assert {session["sizeBytes"] for session in found} == {len(TRANSCRIPT)}
    assert found == oracle.analyse_tree(str(agent.root), NOW_MS)["main"]


def test_a_compressed_archive_that_breaks_off_is_a_failed_item(agent: Agent) -> None:
    agent.write("s1.jsonl")
    agent.write("s2.jsonl.reset.2026-11-22T20-15-53.605Z.zst", zstandard.compress(TRANSCRIPT)[:-4])
    found = Analysed(agent.root)
    assert ids(found.rest()) == ["s1"]
    assert [failure.path[-5:] for failure in found.failed.first] == ["Z.zst"]


def test_names_that_only_resemble_those_of_other_files_are_sessions(agent: Agent) -> None:
    names = ["checkpoint", "s.checkpoint", "s.lock", "s.tmp", "s.trajectory.x", "trajectory", ".hidden", " "]
    for name in names:
        agent.write(f"{name}.jsonl")
    assert ids(analysed(agent.root)) == sorted(names)


def test_a_folder_or_a_fifo_named_like_a_transcript_is_neither_a_session_nor_a_failure(agent: Agent) -> None:
    (agent.sessions / "folder.jsonl").mkdir()
    os.mkfifo(agent.sessions / "fifo.jsonl")
    (agent.sessions / "to-folder.jsonl").symlink_to(agent.folder)
    (agent.sessions / "to-fifo.jsonl").symlink_to("fifo.jsonl")
    (agent.sessions / "to-device.jsonl").symlink_to("/dev/null")
    agent.write("s1.jsonl")
    assert ids(analysed(agent.root)) == ["s1"]


def test_a_transcript_in_a_folder_below_is_no_session(agent: Agent) -> None:
    (agent.sessions / "cold").mkdir()
    agent.write("cold/s1.jsonl")
    assert analysed(agent.root) == []


def test_an_agent_folder_and_a_transcript_may_be_links(tmp_path: Path) -> None:
    elsewhere = Agent(tmp_path / "large disk", "moved")
    elsewhere.write("s1.jsonl")
    home = tmp_path / "home"
    (home / "agents").mkdir(parents=True)
    (home / "agents" / "main").symlink_to(elsewhere.folder)
    (elsewhere.sessions / "s2.jsonl").symlink_to(tmp_path / "large disk/agents/moved/sessions/s1.jsonl")
    sessions = analysed(home)
    assert ids(sessions) == ["s1", "s2"]
    assert sessions == oracle.analyse_tree(str(home), NOW_MS)["main"]
    assert sessions[0]["filePath"] == f"{home}/agents/main/sessions/s1.jsonl"
    assert sessions[0]["agent"] == "main"


def failures_of(root: Path) -> tuple[list[str], list[str]]:
    """The ids of the sessions below ``root``, and the names of what failed."""
    found = Analysed(root)
    sessions = found.rest()
    assert all(failure.error for failure in found.failed.first)
    return ids(sessions), [os.path.relpath(failure.path, root) for failure in found.failed.first]


def test_a_dangling_link_is_a_failed_item_and_the_others_are_analysed(agent: Agent) -> None:
    agent.write("a.jsonl")
    (agent.sessions / "b.jsonl").symlink_to("nowhere")
    agent.write("c.jsonl")
    assert failures_of(agent.root) == (["a", "c"], ["agents/main/sessions/b.jsonl"])


def test_a_loop_of_links_named_like_a_transcript_is_a_failed_item(agent: Agent) -> None:
    (agent.sessions / "a.jsonl").symlink_to("b.jsonl")
    (agent.sessions / "b.jsonl").symlink_to("a.jsonl")
    agent.write("c.jsonl")
    assert failures_of(agent.root) == (["c"], ["agents/main/sessions/a.jsonl", "agents/main/sessions/b.jsonl"])


def test_a_loop_of_links_in_place_of_an_agent_fails_and_the_next_agent_is_analysed(tmp_path: Path) -> None:
    Agent(tmp_path, "ok").write("s1.jsonl")
    (tmp_path / "agents" / "loop").symlink_to("loop")
    done, agents = streamed(tmp_path)
    assert list(agents) == ["ok"]
    assert done.failed_items > 0
    assert all("agents/loop" in failure.path for failure in done.failures)


def test_a_link_from_an_agent_to_the_folder_of_all_agents_does_not_go_round(agent: Agent) -> None:
    agent.write("s1.jsonl")
    (agent.folder / "agents").symlink_to(agent.folder.parent)
    (agent.sessions / "up").symlink_to(agent.folder)
    assert ids(analysed(agent.root)) == ["s1"]


@contextmanager
def ordinary_rights() -> Iterator[None]:
    """Root may read everything: be somebody else for a while."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(was)


def test_what_may_not_be_read_is_a_failed_item_each() -> None:
    # Not pytest's folder, which is its user's alone.
    with tempfile.TemporaryDirectory() as folder:
        agent = Agent(Path(folder))
        agent.root.chmod(0o755)
        for path in (agent.write("a.jsonl"), agent.write("sessions.json", b"{}")):
            path.chmod(0)
        agent.write("b.jsonl")
        agent.write("c.jsonl", folder="sessions_archive").parent.chmod(0)
        with ordinary_rights():
            found = Analysed(agent.root)
            sessions = found.rest()
        (agent.folder / "sessions_archive").chmod(0o700)
    assert ids(sessions) == ["b"]
    assert {os.path.basename(failure.path): failure.error.split(":")[0] for failure in found.failed.first} == {
        "a.jsonl": "permission denied",
        "sessions.json": "permission denied",
        "sessions_archive": "permission denied",
    }


def test_a_file_in_place_of_a_folder_is_one_failed_item(agent: Agent) -> None:
    agent.write("s1.jsonl")
    (agent.folder / "sessions_archive").write_text("")
    assert failures_of(agent.root) == (["s1"], ["agents/main/sessions_archive"])


def test_an_agent_without_sessions_has_none_and_its_index_is_not_read(agent: Agent) -> None:
    (agent.sessions / "sessions.json").write_text("broken")
    assert analysed(agent.root) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": {},}', '{\n  "agent:main:main": {\n    "sessionId": "s1",\n'])
def test_a_broken_index_is_one_failed_item_and_the_sessions_are_analysed_without_it(agent: Agent, text: str) -> None:
    agent.write("s1.jsonl")
    agent.write("s2.jsonl")
    (agent.sessions / "sessions.json").write_text(text)
    found = Analysed(agent.root)
    sessions = found.rest()
    assert [failure.path for failure in found.failed.first] == [f"{agent.sessions}/sessions.json"]
    assert sessions == oracle.analyse_tree(str(agent.root), NOW_MS)["main"]
    assert [session["totalTokens"] for session in sessions] == [0, 0]


def test_a_fifo_or_a_folder_in_place_of_the_index_is_one_failed_item(agent: Agent) -> None:
    agent.write("s1.jsonl")
    os.mkfifo(agent.sessions / "sessions.json")
    assert failures_of(agent.root) == (["s1"], ["agents/main/sessions/sessions.json"])
    (agent.sessions / "sessions.json").unlink()
    (agent.sessions / "sessions.json").mkdir()
    assert failures_of(agent.root) == (["s1"], ["agents/main/sessions/sessions.json"])


def test_of_many_failures_all_are_counted_and_the_first_ones_named(agent: Agent) -> None:
    for number in range(MAX_REPORTED_FAILURES + 5):
        (agent.sessions / f"{number:03}.jsonl").symlink_to("nowhere")
    found = Analysed(agent.root)
    assert found.rest() == []
    assert found.failed.count == MAX_REPORTED_FAILURES + 5
    assert [failure.path[-9:-6] for failure in found.failed.first] == [f"{n:03}" for n in range(MAX_REPORTED_FAILURES)]


def test_topics_look_up_the_session_they_belong_to(agent: Agent) -> None:
    for name in ("s1", "s1-topic-12", "s1-topic-7", "s1-other-7"):
        agent.write(f"{name}.jsonl")
    agent.write_index({"sessionId": "s1", "totalTokens": 9}, {"sessionId": "s1-topic-7", "totalTokens": 1})
    assert {session["sessionId"]: session["totalTokens"] for session in analysed(agent.root)} == {
        "s1": 9,
        "s1-topic-12": 9,
        "s1-topic-7": 9,
        "s1-other-7": 0,
    }


@pytest.mark.parametrize("indent", [2, None])
def test_an_index_of_40_megabytes_is_looked_up(agent: Agent, indent: int | None) -> None:
    for number in range(20):
        agent.write(f"s{number}.jsonl")
    report = {"tools": [{"name": "tool", "schema": "x" * 200}] * 8_000}
    agent.write_index(
        *({"sessionId": f"s{n}", "updatedAt": NOW_MS - n, "totalTokens": n, "report": report} for n in range(20)),
        indent=indent,
    )
    assert (agent.sessions / "sessions.json").stat().st_size > 35 * MIB
    assert sorted(session["totalTokens"] for session in analysed(agent.root)) == list(range(20))


def test_names_of_any_bytes_are_analysed_under_a_name_that_leads_back_to_the_file(tmp_path: Path) -> None:
    names = [b"\xff", b"caf\xe9", "größe".encode(), "\ufffdff".encode(), b"a\nb", b"tab\t", b"\xed\xa0\xbd", b'quote"']
    sessions_dir = os.fsencode(tmp_path) + b"/agents/ag\xffent/sessions"
    try:
        os.makedirs(sessions_dir)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for name in names:
        with open(sessions_dir + b"/" + name + b".jsonl", "wb") as file:
            file.write(TRANSCRIPT)
    sessions = analysed(tmp_path)
    wanted = oracle.analyse_tree(str(tmp_path), NOW_MS)
    assert sessions == wanted["ag\ufffdffent"]
    assert {os.fsencode(file_name(session["sessionId"])) for session in sessions} == set(names)
    assert all(os.path.isfile(file_name(session["filePath"])) for session in sessions)


def test_every_odd_line_counts_in_a_small_file_as_in_a_large_one(agent: Agent) -> None:
    filler = b"\n".join([ASSISTANT] * (2 * BLOCK_BYTES // len(ASSISTANT)))
    for number, line in enumerate([*COUNTED_LINES.values(), *SKIPPED_LINES.values(), *NO_ROLE.values(), b"", b"\n\n"]):
        agent.write(f"{number}-alone.jsonl", line)
        agent.write(f"{number}-among.jsonl", b"\n".join((HEADER, ASSISTANT, line, USER, b"")))
        agent.write(f"{number}-ending.jsonl", b"\r\n".join((HEADER, ASSISTANT, line)))
        if number % 5 == 0:
            agent.write(f"{number}-large.jsonl", b"\n".join((line, filler, line, line)))
    assert analysed(agent.root) == oracle.analyse_tree(str(agent.root), NOW_MS)["main"]


@pytest.mark.parametrize("size_bytes", [BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES])
def test_a_file_about_as_long_as_a_block_is_counted_whole(agent: Agent, size_bytes: int) -> None:
    padding = b" " * ((size_bytes - len(TRANSCRIPT)) % len(USER + b"\n"))
    lines = (USER + b"\n") * ((size_bytes - len(TRANSCRIPT)) // len(USER + b"\n"))
    path = agent.write("s1.jsonl", TRANSCRIPT + lines + padding)
    assert path.stat().st_size == size_bytes
    assert analysed(agent.root) == oracle.analyse_tree(str(agent.root), NOW_MS)["main"]


def test_between_the_blocks_of_a_large_file_there_is_a_step_without_a_session(agent: Agent) -> None:
    agent.write("s1.jsonl", LARGE)
    found = Analysed(agent.root)
    assert found.step() is None
    assert ids(found.rest()) == ["s1"]


def test_a_cancelled_token_stops_in_the_middle_of_a_file(agent: Agent) -> None:
    agent.write("s1.jsonl", LARGE)
    token = CancelToken()
    steps = JsonlStore(list_agents(str(agent.root))[0], token, FailedItems()).sessions(NOW_MS)
    assert next(steps) is None
    token.cancel()
    with pytest.raises(Cancelled):
        next(steps)


def test_a_file_that_has_vanished_since_it_was_listed_is_no_session_and_no_failure(agent: Agent) -> None:
    for name in "abc":
        agent.write(f"{name}.jsonl")
    found = Analysed(agent.root)
    assert found.store.sessions_total == 3
    found.step()
    (agent.sessions / "b.jsonl").unlink()
    assert ids(found.rest()) == ["c"]
    assert found.store.sessions_total == 2
    assert found.failed.count == 0


def test_a_file_that_vanishes_while_it_is_read_is_counted_as_it_was(agent: Agent) -> None:
    path = agent.write("s1.jsonl", LARGE)
    found = Analysed(agent.root)
    found.step()
    path.unlink()
    (session,) = found.rest()
    assert oracle.analyse_transcript(LARGE).items() <= session.items()


def test_the_whole_folder_of_the_sessions_may_vanish(agent: Agent) -> None:
    agent.write("s1.jsonl")
    agent.write("s2.jsonl", folder="sessions_archive")
    found = Analysed(agent.root)
    agent.sessions.rename(agent.folder / "gone")
    assert ids(found.rest()) == ["s2.jsonl"]


def test_a_fifo_that_took_the_place_of_the_folder_is_a_failed_item_and_holds_nothing_up(agent: Agent) -> None:
    agent.write("s1.jsonl")
    found = Analysed(agent.root)
    agent.sessions.rename(agent.folder / "gone")
    os.mkfifo(agent.sessions)
    reading = threading.Thread(target=found.rest)
    reading.start()
    reading.join(timeout=5)
    held_up = reading.is_alive()
    if held_up:  # let it go on, so that the test can end
        os.close(os.open(agent.sessions, os.O_WRONLY | os.O_NONBLOCK))
        reading.join()
    assert not held_up
    assert [failure.path for failure in found.failed.first] == [
        str(agent.sessions / "sessions.json"),
        str(agent.sessions),
    ]


def test_a_folder_or_a_fifo_that_took_a_files_place_is_a_failed_item_and_holds_nothing_up(agent: Agent) -> None:
    for name in "abc":
        agent.write(f"{name}.jsonl")
    found = Analysed(agent.root)
    (agent.sessions / "a.jsonl").unlink()
    (agent.sessions / "a.jsonl").mkdir()
    (agent.sessions / "b.jsonl").unlink()
    os.mkfifo(agent.sessions / "b.jsonl")
    assert ids(found.rest()) == ["c"]
    assert [failure.path[-7:] for failure in found.failed.first] == ["a.jsonl", "b.jsonl"]


def test_a_file_that_grows_while_it_is_read_is_counted_as_it_was_when_it_was_opened(agent: Agent) -> None:
    path = agent.write("s1.jsonl", LARGE)
    found = Analysed(agent.root)
    found.step()
    with open(path, "ab") as file:
        file.write((ASSISTANT + b"\n") * 10_000)
    (session,) = found.rest()
    assert session["sizeBytes"] == len(LARGE)
    assert oracle.analyse_transcript(LARGE).items() <= session.items()


@pytest.mark.parametrize("left_bytes", [0, 10, 1_000, 3 * BLOCK_BYTES])
def test_a_file_that_shrinks_while_it_is_read_is_counted_as_it_is_then(agent: Agent, left_bytes: int) -> None:
    path = agent.write("s1.jsonl", LARGE)
    found = Analysed(agent.root)
    found.step()
    os.truncate(path, left_bytes)
    (session,) = found.rest()
    assert session["sizeBytes"] == left_bytes
    assert oracle.analyse_transcript(LARGE[:left_bytes]).items() <= session.items()


def test_a_file_that_is_written_anew_shorter_while_it_is_read_is_counted_as_it_is_then(agent: Agent) -> None:
    path = agent.write("s1.jsonl", LARGE)
    found = Analysed(agent.root)
    found.step()
    anew = (ASSISTANT + b"\n") * 900
    path.write_bytes(anew)
    (session,) = found.rest()
    assert session["sizeBytes"] == len(anew)
    assert oracle.analyse_transcript(anew).items() <= session.items()


def test_a_file_that_shrinks_at_every_step_comes_to_an_end_and_the_next_one_is_counted(agent: Agent) -> None:
    path = agent.write("a.jsonl", LARGE)
    agent.write("b.jsonl")
    found = Analysed(agent.root)
    size_bytes = len(LARGE)
    while (session := found.step()) is None:
        size_bytes = max(0, size_bytes - 100_000)
        os.truncate(path, size_bytes)
    assert session.session_id == "a"
    assert session.message_count == oracle.analyse_transcript(LARGE[: session.size_bytes])["messageCount"]
    (last,) = found.rest()
    assert oracle.analyse_transcript(TRANSCRIPT).items() <= last.items()


SAMPLE = (
    AgentPlan("main", 40, 30_000),
    AgentPlan("research", 12, 600_000),
    AgentPlan("scratch", 25, 2_000, index_entry_bytes=20_000),
    AgentPlan("nothing", 0, 0),
)


@pytest.fixture(scope="module")
def sample_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sample")
    write_tree(root, SAMPLE, seed=3, now_ms=NOW_MS)
    return root


@pytest.fixture
def frozen_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW_MS / 1000)


def streamed(root: Path, batch_size: int | None = None) -> tuple[SessionsDone, dict[str, Wire]]:
    """The chunks of a stream folded, one after another, into the eager answer; and its terminal."""
    stream = AnalysisStream(LocalHome(str(root)), batch_size)
    agents: dict[str, Wire] = {}
    for event in filter(None, stream.events(CancelToken())):
        stream.sent(event)
        method, payload = event
        assert method == "sessions:chunk"
        chunk: dict[str, Any] = msgspec.to_builtins(payload)
        assert not agents.get(chunk["agent"], {}).get("done")
        assert chunk["sessions"] or chunk["done"]
        assert len(chunk["sessions"]) <= (batch_size or 50)
        earlier = agents.pop(chunk["agent"], {"sessions": []})
        agents[chunk["agent"]] = chunk | {"sessions": earlier["sessions"] + chunk["sessions"]}
        assert_counters(agents[chunk["agent"]])
    assert all(agent["done"] for agent in agents.values())
    (terminal,) = stream.closing(Outcome())
    assert isinstance(terminal.payload, SessionsDone)
    assert terminal.method == "sessions:done"
    return terminal.payload, agents


def assert_counters(agent: Wire) -> None:
    """The counters of an agent cover exactly the sessions that were sent."""
    sessions = agent["sessions"]
    categories = [session["category"] for session in sessions]
    assert agent["totalFiles"] == len(sessions)
    assert agent["totalSizeBytes"] == sum(session["sizeBytes"] for session in sessions)
    assert [agent["emptyCount"], agent["lowValueCount"], agent["valuableCount"]] == [
        categories.count(category) for category in ("empty", "low_value", "valuable")
    ]


@pytest.mark.usefixtures("frozen_time")
@pytest.mark.parametrize("batch_size", [None, 1, 7, 250])
def test_a_folded_stream_has_every_session_that_the_oracle_finds_in_its_order(
    sample_tree: Path, batch_size: int | None
) -> None:
    wanted = oracle.analyse_tree(str(sample_tree), NOW_MS)
    done, agents = streamed(sample_tree, batch_size)
    assert {name: agent["sessions"] for name, agent in agents.items()} == wanted
    assert list(agents) == list(wanted) == ["main", "research", "scratch"]
    assert all(agent["agentFilesTotal"] == len(agent["sessions"]) for agent in agents.values())
    assert msgspec.to_builtins(done) == {
        "totalAgents": 3,
        "totalSessions": 77,
        "cancelled": False,
        "failedItems": 0,
        "failures": [],
    }


@pytest.mark.usefixtures("frozen_time")
def test_the_eager_answer_is_the_folded_stream_in_display_order(sample_tree: Path) -> None:
    eager: list[Wire] = [
        msgspec.to_builtins(agent) for agent in analyze_sessions(LocalHome(str(sample_tree)), CancelToken())
    ]
    _, agents = streamed(sample_tree)
    order = {"empty": 0, "low_value": 1, "valuable": 2}
    for agent in agents.values():
        agent["sessions"].sort(key=lambda session: (order[session["category"]], -session["ageDays"]))
        del agent["done"], agent["agentFilesTotal"]
    assert eager == sorted(agents.values(), key=lambda agent: -agent["totalSizeBytes"])


def test_a_directory_without_agents_streams_nothing_but_its_terminal(tmp_path: Path) -> None:
    done, agents = streamed(tmp_path)
    assert agents == {}
    assert (done.total_agents, done.total_sessions) == (0, 0)
    assert analyze_sessions(LocalHome(str(tmp_path)), CancelToken()) == []


def test_failed_items_of_all_agents_are_in_the_terminal_and_the_eager_answer_has_the_rest(tmp_path: Path) -> None:
    for name in ("a", "b"):
        agent = Agent(tmp_path, name)
        agent.write("good.jsonl")
        (agent.sessions / "bad.jsonl").symlink_to("nowhere")
    done, agents = streamed(tmp_path)
    assert {name: ids(agent["sessions"]) for name, agent in agents.items()} == {"a": ["good"], "b": ["good"]}
    assert done.failed_items == len(done.failures) == 2
    eager = analyze_sessions(LocalHome(str(tmp_path)), CancelToken())
    assert [[session.session_id for session in agent.sessions] for agent in eager] == [["good"], ["good"]]


def test_an_agent_whose_last_files_have_vanished_still_gets_its_done_chunk(agent: Agent) -> None:
    for name in "abc":
        agent.write(f"{name}.jsonl")
    events = filter(None, AnalysisStream(LocalHome(str(agent.root)), 1).events(CancelToken()))
    next(events)
    for name in "bc":
        (agent.sessions / f"{name}.jsonl").unlink()
    last: dict[str, Any] = msgspec.to_builtins(list(events)[-1].payload)
    assert last | {"sessions": []} == {
        "agent": "main",
        "sessions": [],
        "totalFiles": 1,
        "totalSizeBytes": len(TRANSCRIPT),
        "emptyCount": 0,
        "lowValueCount": 0,
        "valuableCount": 1,
        "agentFilesTotal": 1,
        "done": True,
    }


@pytest.mark.parametrize(
    ("asked", "given"), [(None, 50), (0, 1), (-5, 1), (1, 1), (250, 250), (251, 250), (10**9, 250)]
)
def test_the_batch_size_is_50_unless_told_and_clamped_to_1_and_250(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int | None, given: int
) -> None:
    monkeypatch.setattr("sidecar.core.batching.FIRST_CHUNK_AGE_MS", 1e9)
    monkeypatch.setattr("sidecar.core.batching.CHUNK_AGE_MS", 1e9)
    agent = Agent(tmp_path)
    for number in range(252):
        agent.write(f"{number}.jsonl", b"")
    first = next(filter(None, AnalysisStream(LocalHome(str(tmp_path)), asked).events(CancelToken())))
    assert len(msgspec.to_builtins(first.payload)["sessions"]) == given


@pytest.mark.usefixtures("frozen_time")
def test_the_real_tree_is_analysed_as_the_oracle_says() -> None:
    root = Path(__file__).resolve().parents[3] / "shared/real-openclaw/2026.7.1-jsonl"
    if not root.is_dir():
        pytest.skip(f"no real OpenClaw data at {root}")
    done, agents = streamed(root)
    assert {name: agent["sessions"] for name, agent in agents.items()} == oracle.analyse_tree(str(root), NOW_MS)
    assert done.failed_items == 0
