"""Whatever lies in the folders, the stream goes on, and what can be counted is counted as a plain parse does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sidecar.demo.sample import SampleWriter
from tests import oracle
from tests.client import (
    COMMAND,
    WITHIN_S,
    SidecarProcess,
    check_output,
    environment,
    eventually,
    request_line,
    sessions_of,
)
from tests.e2e.conftest import NOW_MS

REAL_DATA = Path(__file__).parents[2].parent / "shared" / "real-openclaw" / "2026.7.1-jsonl"
LONG_LINE_BYTES = 100_000_000
MID_READ_BYTES = 150_000_000

# Root may read anything; without these two capabilities it is held to a file's mode, as everybody is.
_HELD_TO_MODES = """
import ctypes, os, sys
DROP_FROM_BOUNDING_SET, DAC_OVERRIDE, DAC_READ_SEARCH = 24, 1, 2
if os.geteuid() == 0:
    for capability in (DAC_OVERRIDE, DAC_READ_SEARCH):
        if ctypes.CDLL(None).prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0):
            sys.exit("can't give up the right to read everything")
os.execv(sys.argv[1], sys.argv[1:])
"""


def message(role: str, text: str = "hello", at: str = "2026-11-01T10:00:00.000Z") -> bytes:
    entry = {"type": "message", "id": "a1", "timestamp": at, "message": {"role": role, "content": text}}
    return json.dumps(entry, ensure_ascii=False).encode() + b"\n"


HEADER = b'{"type":"session","version":3,"id":"header-id","timestamp":"2026-11-01T09:00:00.000Z","cwd":"/"}\n'
TALK = HEADER + message("user", "u" * 400) + message("assistant") + message("user", at="2026-11-01T11:00:00.000Z")

TRANSCRIPTS = {
    b"good": TALK,
    b"nothing": b"",
    b"header-only": HEADER,
    b"torn-last-line": TALK + message("user")[:-20],
    b"no-last-line-feed": TALK.removesuffix(b"\n"),
    b"torn-and-glued": TALK + message("user")[:40] + message("assistant"),
    b"two-in-a-line": TALK + message("user")[:-1] + message("user"),
    b"invalid-utf-8": TALK + message("user", "XX").replace(b"XX", b"\xff\xfe\xc3"),
    b"invalid-utf-8-role": TALK + message("XX").replace(b"XX", b"us\xffer"),
    b"lone-surrogate": TALK + message("user", "XX").replace(b"XX", b"\\ud83d cut") + message("user"),
    b"lone-surrogate-time": TALK + message("user", at="XX").replace(b"XX", b"\\udc00"),
    b"raw-u2028": TALK + message("user", "one\u2028two\u2029three\x85four"),
    b"raw-nul": TALK + b"\0\0\0\n" + message("user", "XX").replace(b"XX", b"\0") + message("user"),
    b"escaped-nul": TALK + message("user", "a\0b"),
    b"nan-and-bom": TALK + b'{"type":"message","x":NaN}\n\xef\xbb\xbf' + message("user") + b"undefined\n",
    b"crlf-and-blank": TALK.replace(b"\n", b"\r\n") + b"\n \t\n\r\n" + message("user"),
    b"not-objects": TALK + b'[{"type":"message"}]\n"message"\n17\nnull\n',
    b"odd-types": TALK
    + b'{"type":"message","timestamp":5,"message":"text"}\n{"type":["message"]}\n{"type":"message"}\n',
    b"deep": TALK + b'{"type":"message","x":' + b"[" * 5_000 + b"]" * 5_000 + b"}\n" + message("user"),
    b"digits": TALK + b'{"type":"message","x":' + b"9" * 10_000 + b"}\n",
    b"a": TALK,
    b"a-topic-7": TALK,
    b"a-topic-8": TALK,
    b"with a space, 'quotes\" and \\": TALK,
    b"line\nfeed and \ttab\x1b[31m\x7f": TALK,
    "ünïcode 🙂 会话 \u2028".encode(): TALK,
    b"\xff\xfe not utf-8": TALK,
    b"\xff": TALK,
    "\ufffdff".encode(): TALK,
    b"\xed\xa0\x80 a surrogate": TALK,
    b"--help": TALK,
    b"." * 3: TALK,
}
NOT_SESSIONS = (
    b"good.trajectory.jsonl",
    b"good.checkpoint.0048a5c8-d89f-455b-8932-6f0e35a90f8a.jsonl",
    b"good.trajectory-path.json",
    b"good.jsonl.lock",
    b"good.jsonl.bak",
    b"sessions.json.17.0048a5c8.tmp",
    b".jsonl",
    b"GOOD.JSONL",
)
INDEX = {
    "agent:main:main": {"sessionId": "good", "updatedAt": NOW_MS, "totalTokens": 17, "model": "newer"},
    "agent:main:old": {"sessionId": "good", "updatedAt": NOW_MS - 9, "totalTokens": 5, "model": "older"},
    "agent:main:topic": {"sessionId": "a", "updatedAt": NOW_MS - 5, "totalTokens": 3, "model": "of a topic"},
    "agent:main:odd": {"sessionId": "header-only", "updatedAt": "yesterday", "totalTokens": -1, "model": 5},
    "agent:main:none": None,
    "agent:main:surrogate": {"sessionId": "nothing", "updatedAt": NOW_MS, "totalTokens": 1.5, "model": "\ud83d"},
}


@dataclass
class HostileTree:
    home: Path
    expected: dict[str, list[dict[str, Any]]]
    failing: set[str]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileTree]:
    """Every nasty thing at once, what the oracle counts in it, and which of it can't be read."""
    home = tmp_path_factory.mktemp("hostile")
    agents = home / ".openclaw" / "agents"
    main = agents / "main" / "sessions"
    write_transcripts(main, TRANSCRIPTS)
    (main / "sessions.json").write_text(json.dumps(INDEX, indent=2))
    with open(main / "long-line.jsonl", "wb") as file:
        file.write(TALK + message("user", "x" * LONG_LINE_BYTES) + message("assistant"))
    for name in NOT_SESSIONS:
        (main / os.fsdecode(name)).write_bytes(TALK)
    (main / "folder.jsonl").mkdir()
    os.mkfifo(main / "fifo.jsonl")
    (main / "link-to-fifo.jsonl").symlink_to("fifo.jsonl")
    (main / "link-to-folder.jsonl").symlink_to("folder.jsonl")
    (main / "link.jsonl").symlink_to("good.jsonl")
    write_transcripts(agents / "main" / "sessions_archive", {b"good": TALK, b"old": HEADER})

    write_transcripts(agents / "broken-index" / "sessions", {b"one": TALK})
    (agents / "broken-index" / "sessions" / "sessions.json").write_text('{"agent:x": {"sessionId": "one", "updatedAt":')
    write_transcripts(agents / "folder-as-index" / "sessions", {b"one": TALK})
    (agents / "folder-as-index" / "sessions" / "sessions.json").mkdir()
    write_transcripts(home / "elsewhere" / "sessions", {b"moved": TALK})
    (agents / "moved").symlink_to(home / "elsewhere")
    write_transcripts(agents / os.fsdecode(b"caf\xe9 \xff") / "sessions", {b"one": TALK})
    (agents / "empty" / "sessions").mkdir(parents=True)
    (agents / "bare").mkdir()
    (agents / "a-file").write_text("no agent")
    (agents / "gone").symlink_to(home / "nowhere")
    expected = oracle.analyse_tree(str(home / ".openclaw"), time.time() * 1000)

    # From here on things that fail, of which the oracle, if it is root, would read some.
    (main / "loop.jsonl").symlink_to("loop.jsonl")
    (main / "dangling.jsonl").symlink_to("nowhere.jsonl")
    write_transcripts(main, {b"unreadable": TALK})
    (main / "unreadable.jsonl").chmod(0)
    (agents / "file-as-folder").mkdir()
    (agents / "file-as-folder" / "sessions").write_text("no folder")
    (agents / "loop").symlink_to("loop")
    write_transcripts(agents / "locked" / "sessions", {b"one": TALK})
    (agents / "locked" / "sessions").chmod(0)
    failing = {
        "broken-index/sessions/sessions.json",
        "folder-as-index/sessions/sessions.json",
        "file-as-folder/sessions",
        "locked/sessions",
        "loop",
        "main/sessions/dangling.jsonl",
        "main/sessions/loop.jsonl",
        "main/sessions/unreadable.jsonl",
    }
    yield HostileTree(home, expected, {str(agents / path) for path in failing})
    (agents / "locked" / "sessions").chmod(0o700)
    shutil.rmtree(home)


def write_transcripts(folder: Path, transcripts: dict[bytes, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, data in transcripts.items():
        (folder / os.fsdecode(stem + b".jsonl")).write_bytes(data)


def by_agent(sessions: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for session in sessions:
        found.setdefault(session["agent"], []).append(session)
    return found


def assert_same(found: dict[str, list[dict[str, Any]]], expected: dict[str, list[dict[str, Any]]]) -> None:
    """Both say the same of the same sessions in the same order; ages may differ by the time between two readings."""
    assert list(found) == list(expected)
    for agent, sessions in expected.items():
        assert [session["sessionId"] for session in found[agent]] == [session["sessionId"] for session in sessions]
        for session, wanted in zip(found[agent], sessions, strict=True):
            assert session["ageDays"] == pytest.approx(wanted["ageDays"], abs=0.01)
            assert {**session, "ageDays": 0} == {**wanted, "ageDays": 0}


def folded(notifications: list[Any]) -> list[dict[str, Any]]:
    """What the eager command answers, put together from the chunks of a stream, in the order of CONTRACT section 2."""
    agents: dict[str, dict[str, Any]] = {}
    for notification in notifications:
        if notification["method"] == "sessions:chunk":
            chunk = notification["params"]
            before = agents.get(chunk["agent"], {"sessions": []})
            counters = {name: chunk[name] for name in chunk if name.startswith("total") or name.endswith("Count")}
            agents[chunk["agent"]] = {
                "agent": chunk["agent"],
                "sessions": before["sessions"] + chunk["sessions"],
                **counters,
            }
    categories = ["empty", "low_value", "valuable"]
    for agent in agents.values():
        agent["sessions"].sort(key=lambda session: (categories.index(session["category"]), -session["ageDays"]))
    return sorted(agents.values(), key=lambda agent: -agent["totalSizeBytes"])


def without_ages(agents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**agent, "sessions": [{**session, "ageDays": 0} for session in agent["sessions"]]} for agent in agents]


@dataclass
class Analysis:
    """What a sidecar says of a tree: the notifications of a stream, and the eager answer."""

    notifications: list[Any]
    eager: list[dict[str, Any]]
    stderr: bytes

    @property
    def done(self) -> dict[str, Any]:
        return dict(self.notifications[-1]["params"])


@pytest.fixture(scope="module")
def analysis(tree: HostileTree) -> Analysis:
    requests = request_line("analyze_sessions_stream", {"batchSize": 10}, 1) + request_line("analyze_sessions", None, 2)
    ended = subprocess.run(
        [sys.executable, "-c", _HELD_TO_MODES, *COMMAND, "--log-level", "error"],
        input=requests,
        capture_output=True,
        env=environment(tree.home),
        timeout=WITHIN_S,
        check=True,
    )
    messages = check_output(ended.stdout)
    (eager,) = (message["result"] for message in messages if message.get("id") == 2)
    return Analysis([message for message in messages if "method" in message], eager, ended.stderr)


class TestATreeOfNastyThings:
    def test_the_stream_counts_what_a_plain_parse_counts(self, tree: HostileTree, analysis: Analysis) -> None:
        assert_same(by_agent(sessions_of(analysis.notifications)), tree.expected)
        assert analysis.done["cancelled"] is False
        assert analysis.done["totalAgents"] == len(tree.expected)
        assert analysis.done["totalSessions"] == sum(map(len, tree.expected.values()))

    def test_the_last_chunk_of_an_agent_has_its_totals(self, tree: HostileTree, analysis: Analysis) -> None:
        chunks = [message["params"] for message in analysis.notifications[:-1]]
        last = {chunk["agent"]: chunk for chunk in chunks}

        assert [chunk for chunk in chunks if chunk["done"]] == list(last.values())
        assert list(last) == list(tree.expected)
        for agent, sessions in tree.expected.items():
            assert last[agent]["totalFiles"] == len(sessions)
            assert last[agent]["totalSizeBytes"] == sum(session["sizeBytes"] for session in sessions)
            categories = [session["category"] for session in sessions]
            assert last[agent]["emptyCount"] == categories.count("empty")
            assert last[agent]["lowValueCount"] == categories.count("low_value")
            assert last[agent]["valuableCount"] == categories.count("valuable")

    def test_what_cannot_be_read_is_counted_and_named(self, tree: HostileTree, analysis: Analysis) -> None:
        failures = {failure["path"]: failure["error"] for failure in analysis.done["failures"]}

        assert sorted(failures) == sorted(tree.failing)
        assert analysis.done["failedItems"] == len(analysis.done["failures"]) == len(tree.failing)
        errors = {Path(path).name: error for path, error in failures.items()}
        assert "no such file" in errors["dangling.jsonl"]
        assert "permission denied" in errors["unreadable.jsonl"]
        assert all(errors.values())

    def test_the_stream_put_together_is_the_eager_answer(self, analysis: Analysis) -> None:
        assert without_ages(folded(analysis.notifications)) == without_ages(analysis.eager)

    def test_nothing_of_it_is_an_error_of_the_sidecar(self, analysis: Analysis) -> None:
        assert analysis.stderr == b""


@dataclass
class LongTranscript:
    """A session long enough to be caught in the act of being read, and what a plain parse counts in it."""

    path: Path
    size_bytes: int
    counts: dict[str, Any]

    def append(self) -> None:
        with open(self.path, "ab") as file:
            file.write(message("user") * 1_000)

    def replace(self) -> None:
        self.path.write_bytes(TALK)


class TestAFileThatChangesWhileItIsRead:
    @pytest.fixture
    def transcript(self, tmp_path: Path) -> Iterator[LongTranscript]:
        path = tmp_path / ".openclaw" / "agents" / "main" / "sessions" / "one.jsonl"
        path.parent.mkdir(parents=True)
        block = b"".join(SampleWriter(3, NOW_MS).lines("one", NOW_MS, 2_000_000))
        times = MID_READ_BYTES // len(block)
        with open(path, "wb") as file:
            file.writelines(block for _ in range(times))
        of_block = oracle.analyse_transcript(block)
        counts = {name: value * times if isinstance(value, int) else value for name, value in of_block.items()}
        yield LongTranscript(path, times * len(block), counts)
        path.unlink(missing_ok=True)

    async def analyse_with(self, transcript: LongTranscript, change: Callable[[], None]) -> dict[str, Any]:
        """The session as analysed while, in the middle of it, ``change`` happens."""
        async with SidecarProcess(transcript.path.parents[4]) as process:
            handle = await process.start_stream()
            await eventually(lambda: process.has_open(transcript.path), "the transcript is being read")
            await process.suspend()
            assert process.has_open(transcript.path)
            change()
            process.send_signal(signal.SIGCONT)
            messages = await process.collect(handle)
            assert messages[-1]["params"]["failedItems"] == 0
            (session,) = sessions_of(messages)
            return {name: session[name] for name in ("sizeBytes", *transcript.counts)}

    async def test_what_is_appended_belongs_to_a_later_state(self, transcript: LongTranscript) -> None:
        session = await self.analyse_with(transcript, transcript.append)

        assert session == {"sizeBytes": transcript.size_bytes, **transcript.counts}

    async def test_one_that_is_written_anew_and_shorter_is_read_anew(self, transcript: LongTranscript) -> None:
        session = await self.analyse_with(transcript, transcript.replace)

        assert session == {"sizeBytes": len(TALK), **oracle.analyse_transcript(TALK)}

    async def test_one_that_is_deleted_is_read_to_its_end(self, transcript: LongTranscript) -> None:
        session = await self.analyse_with(transcript, transcript.path.unlink)

        assert session == {"sizeBytes": transcript.size_bytes, **transcript.counts}


async def test_files_that_vanish_or_change_after_they_were_listed_are_taken_as_they_are_then(
    talkative_home: Path, tmp_path: Path
) -> None:
    shutil.copytree(talkative_home, tmp_path, dirs_exist_ok=True, copy_function=os.link)
    folder = tmp_path / ".openclaw" / "agents" / "main" / "sessions"
    gone, replaced, made = (folder / f"s-topic-{number}.jsonl" for number in (3997, 3998, 3999))
    async with SidecarProcess(tmp_path) as process:
        handle = await process.start_stream()
        await process.output_is_blocked()
        gone.unlink()
        for path in (replaced, made):
            path.unlink()
        replaced.write_bytes(TALK)
        made.mkdir()
        messages = await process.collect(handle)

        sessions = {session["sessionId"]: session for session in sessions_of(messages)}
        assert gone.stem not in sessions
        assert sessions[replaced.stem]["sizeBytes"] == len(TALK)
        assert made.stem not in sessions
        done = messages[-1]["params"]
        assert (done["totalSessions"], done["failedItems"]) == (3998, 1)
        assert done["failures"][0]["path"] == str(made)
        last_chunk = messages[-2]["params"]
        assert last_chunk["done"] is True
        assert last_chunk["totalFiles"] == 3998


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real OpenClaw data is not there")
async def test_real_openclaw_data_gives_the_counts_of_a_plain_parse() -> None:
    expected = oracle.analyse_tree(str(REAL_DATA), time.time() * 1000)
    assert sum(map(len, expected.values())) >= 5
    async with SidecarProcess(None, env=environment(None, CLAWPAL_OPENCLAW_DIR=str(REAL_DATA))) as process:
        messages = await process.collect(await process.start_stream())
        eager = await process.call("analyze_sessions")

    assert_same(by_agent(sessions_of(messages)), expected)
    assert messages[-1]["params"]["failedItems"] == 0
    assert without_ages(folded(messages)) == without_ages(eager)
