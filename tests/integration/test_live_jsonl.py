"""Transcripts and an index that another process writes while they are read: each answer is a state that there was."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sidecar.core.analysis import SessionAnalysis
from tests.client import SidecarProcess, environment, sessions_of
from tests.integration import test_live_sqlite as live_sqlite

Wire = dict[str, Any]

DEADLINE_S = 60
ANALYSES = 100
DAY_MS = 86_400_000
CLOCK_MS = 1.0
UPDATED_AT_MS = 1_795_378_579_852
# Characters of two, three and four bytes, so that a piece may end within one.
CONTENT = "%07d 0123456789é数🙂" + "abcdefghé数🙂" * 20
ROW = '{"type":"message","id":"%07d","timestamp":"2026-%07d","message":{"role":"user","content":"' + CONTENT + '"}}\n'


def row(number: int) -> bytes:
    return (ROW % (number, number, number)).encode()


ROW_BYTES = len(row(0))
# Of "large" there is more than a block at the start, of "small" there never is.
FIRST_ROWS = {"small": 5, "large": 1_500}
SESSIONS = ["large", "replaced", "small"]

# A step appends a piece to two sessions, so that most of the time their last lines are half-written: a line comes in
# three pieces, cut anywhere and before its line feed. Every few steps "replaced" is written anew, in its n-th state as
# 300 + n % 7 * 100 lines that all say n, and so is the index, which says its number of every session; each is renamed
# over the one before, as OpenClaw does after a compaction and whenever a session changes. It ends when its input does.
WRITER = f"""
import json, os, select, sys

folder, first_rows = sys.argv[1], json.loads(sys.argv[2])
ROW, ROW_BYTES, SESSIONS = {ROW!r}, {ROW_BYTES!r}, {SESSIONS!r}

def pieces(first):
    number = first
    while True:
        line = (ROW % (number, number, number)).encode()
        cut = number * 37 % (ROW_BYTES - 2) + 1
        yield from (line[:cut], line[cut:-1], line[-1:])
        number += 1

def replace(name, text):
    with open(f"{{folder}}/{{name}}.tmp", "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(f"{{folder}}/{{name}}.tmp", f"{{folder}}/{{name}}")

def replace_transcript(number):
    replace("replaced.jsonl", ROW % (number, number, number) * (300 + number % 7 * 100))

def replace_index(number):
    said = {{"updatedAt": {UPDATED_AT_MS} + number, "totalTokens": number, "model": f"model-{{number}}"}}
    # With as much around it as there is in a real one, so that it is read in several pieces.
    said |= {{"systemPromptReport": {{"tools": [{{"name": f"tool-{{n}}"}} for n in range(3000)]}}}}
    index = {{f"agent:main:{{session_id}}": {{"sessionId": session_id, **said}} for session_id in SESSIONS}}
    replace("sessions.json", json.dumps(index, indent=2))

appended = [(os.open(f"{{folder}}/{{session_id}}.jsonl", os.O_WRONLY | os.O_APPEND), pieces(first))
            for session_id, first in first_rows.items()]
replace_transcript(0)
replace_index(0)
print("ready", flush=True)
step = 0
while not select.select([sys.stdin], [], [], 0.001)[0]:
    step += 1
    for fd, still in appended:
        os.write(fd, next(still))
    if step % 5 == 0:
        replace_transcript(step // 5)
    if step % 7 == 0:
        replace_index(step // 7)
print(step, flush=True)
"""


@pytest.fixture
def openclaw_dir(tmp_path: Path) -> Path:
    """With the sessions that the writer goes on from, of one agent."""
    folder = tmp_path / "agents" / "main" / "sessions"
    folder.mkdir(parents=True)
    for session_id, count in FIRST_ROWS.items():
        (folder / f"{session_id}.jsonl").write_bytes(b"".join(map(row, range(count))))
    return tmp_path


class Writer:
    """The process that writes, and what lies there at the moment."""

    def __init__(self, openclaw_dir: Path) -> None:
        self.folder = openclaw_dir / "agents" / "main" / "sessions"
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, self.folder, json.dumps(FIRST_ROWS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def end(self) -> int:
        """How many steps it has taken."""
        told, _ = self.process.communicate("", timeout=DEADLINE_S)
        assert self.process.returncode == 0
        return int(told)

    def size_bytes(self, name: str) -> int:
        return (self.folder / name).stat().st_size

    def progress(self) -> dict[str, int]:
        """Of each file what only grows: the size of what is appended to, the number of what is replaced."""
        index = json.loads((self.folder / "sessions.json").read_bytes())
        with open(self.folder / "replaced.jsonl", encoding="utf-8") as file:
            replaced = json.loads(file.readline())
        return {
            "small": self.size_bytes("small.jsonl"),
            "large": self.size_bytes("large.jsonl"),
            "replaced": int(replaced["id"]),
            "index": index["agent:main:small"]["totalTokens"],
        }


@contextmanager
def writer(openclaw_dir: Path) -> Iterator[Writer]:
    running = Writer(openclaw_dir)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.communicate(timeout=DEADLINE_S)


def sidecar(openclaw_dir: Path) -> SidecarProcess:
    return SidecarProcess(None, env=environment(None, CLAWPAL_OPENCLAW_DIR=str(openclaw_dir)))


async def analysed(process: SidecarProcess, form: str) -> dict[str, Wire]:
    """The sessions of the only agent by their ids, none twice and none failed."""
    if form == "eager":
        (agent,) = await process.call("analyze_sessions")
        sessions = agent["sessions"]
    else:
        messages = await process.collect(await process.start_stream({"batchSize": 1}))
        assert messages[-1]["params"]["failures"] == []
        sessions = sessions_of(messages)
        assert messages[-2]["params"]["agentFilesTotal"] == len(sessions)
    found = {session["sessionId"]: session for session in sessions}
    assert len(found) == len(sessions)
    return found


def lines_in(size_bytes: int) -> tuple[int, int]:
    """How many lines hold an entry, and how many don't yet, where that much is written."""
    whole, rest = divmod(size_bytes, ROW_BYTES)
    # A last line that only its line feed is missing from is an entry already.
    return (whole + 1, 0) if rest == ROW_BYTES - 1 else (whole, int(rest > 0))


def progress_in(sessions: dict[str, Wire]) -> dict[str, int]:
    """``Writer.progress`` as the sessions tell it, after all that is said of each was seen to be of that state."""
    assert sorted(sessions) == SESSIONS
    for session_id in FIRST_ROWS:
        session = sessions[session_id]
        count, torn = lines_in(session["sizeBytes"])
        assert (session["messageCount"], session["userMessageCount"]) == (count, count)
        assert session["skippedLines"] == torn
        assert session["lastActivity"] == f"2026-{count - 1:07d}"
    replaced = sessions["replaced"]
    number = int(replaced["lastActivity"].removeprefix("2026-"))
    assert replaced["messageCount"] == 300 + number % 7 * 100
    assert replaced["sizeBytes"] == replaced["messageCount"] * ROW_BYTES
    assert replaced["skippedLines"] == 0
    # One index for all of them, and one clock reading.
    (indexed,) = {(session["totalTokens"], session["model"]) for session in sessions.values()}
    assert indexed[1] == f"model-{indexed[0]}"
    assert len({session["ageDays"] for session in sessions.values()}) == 1
    sizes = {session_id: sessions[session_id]["sizeBytes"] for session_id in FIRST_ROWS}
    return sizes | {"replaced": number, "index": indexed[0]}


def assert_between(before: dict[str, int], found: dict[str, int], after: dict[str, int]) -> None:
    assert all(before[name] <= found[name] <= after[name] for name in found), f"{before} <= {found} <= {after}"


@pytest.mark.parametrize("form", ["streamed", "eager"])
async def test_a_hundred_analyses_of_live_transcripts_each_give_states_that_these_were_in(
    openclaw_dir: Path, form: str
) -> None:
    analyses = 0
    ends_seen: set[str] = set()
    replaced_seen: set[int] = set()
    give_up_at_s = time.monotonic() + DEADLINE_S
    with writer(openclaw_dir) as running:
        first = before = running.progress()
        async with sidecar(openclaw_dir) as process:
            while analyses < ANALYSES or len(ends_seen) < 3 or len(replaced_seen) < 20:
                assert time.monotonic() < give_up_at_s, f"{analyses} analyses, {ends_seen}, {replaced_seen}"
                before_ms = time.time() * 1000 - CLOCK_MS
                sessions = await analysed(process, form)
                after_ms = time.time() * 1000 + CLOCK_MS
                found, after = progress_in(sessions), running.progress()
                assert_between(before, found, after)
                read_at_ms = sessions["large"]["ageDays"] * DAY_MS + UPDATED_AT_MS + found["index"]
                assert before_ms <= read_at_ms <= after_ms
                analyses += 1
                rest = found["small"] % ROW_BYTES
                ends_seen.add("torn" if 0 < rest < ROW_BYTES - 1 else "without line feed" if rest else "whole")
                replaced_seen.add(found["replaced"])
                before = after
        steps = running.end()
    assert all(before[name] > first[name] for name in before)
    assert found["index"] <= steps // 7


async def test_a_preview_of_a_live_transcript_shows_all_that_was_written_up_to_some_moment(openclaw_dir: Path) -> None:
    seen: set[int] = set()
    give_up_at_s = time.monotonic() + DEADLINE_S
    with writer(openclaw_dir) as running:
        async with sidecar(openclaw_dir) as process:
            while len(seen) < 20:
                assert time.monotonic() < give_up_at_s
                for session_id, first in FIRST_ROWS.items():
                    least, _ = lines_in(running.size_bytes(f"{session_id}.jsonl"))
                    messages = await previewed(process, session_id)
                    most, _ = lines_in(running.size_bytes(f"{session_id}.jsonl"))
                    assert first <= least <= len(messages) <= most
                    assert messages == [shown(number) for number in range(len(messages))]
                messages = await previewed(process, "replaced")
                number = int(messages[0]["content"][:7])
                assert messages == [shown(number)] * (300 + number % 7 * 100)
                seen.add(number)
        running.end()


async def previewed(process: SidecarProcess, session_id: str) -> list[Wire]:
    params = {"agentId": "main", "sessionId": session_id}
    *pages, done = await process.collect(await process.start_stream(params, "preview_session_stream"))
    messages = [message for page in pages for message in page["params"]["messages"]]
    assert done["params"]["totalMessages"] == len(messages)
    assert done["params"]["skippedLines"] <= 1
    return messages


def shown(number: int) -> Wire:
    return {"role": "user", "content": CONTENT % number}


async def test_a_list_of_live_files_has_each_of_them_once_with_a_size_that_it_had(openclaw_dir: Path) -> None:
    give_up_at_s = time.monotonic() + DEADLINE_S
    sizes_seen: set[int] = set()
    with writer(openclaw_dir) as running:
        async with sidecar(openclaw_dir) as process:
            while len(sizes_seen) < 20:
                assert time.monotonic() < give_up_at_s
                before = {session_id: running.size_bytes(f"{session_id}.jsonl") for session_id in FIRST_ROWS}
                *chunks, done = await process.collect(await process.start_stream(None, "list_session_files_stream"))
                after = {session_id: running.size_bytes(f"{session_id}.jsonl") for session_id in FIRST_ROWS}
                rows = [row for chunk in chunks for row in chunk["params"]["files"]]
                assert done["params"]["failures"] == []
                found = {row["relativePath"].rpartition("/")[2]: row["sizeBytes"] for row in rows}
                assert len(found) == len(rows)
                # What is on its way to be renamed may be there or not.
                steady = {name for name in found if not name.endswith(".tmp")}
                assert steady == {"large.jsonl", "replaced.jsonl", "sessions.json", "small.jsonl"}
                assert_between(before, {session_id: found[f"{session_id}.jsonl"] for session_id in FIRST_ROWS}, after)
                assert found["replaced.jsonl"] in {(300 + n * 100) * ROW_BYTES for n in range(7)}
                sizes_seen.add(found["small.jsonl"])
        running.end()


async def test_while_both_eras_are_written_in_one_folder_every_session_is_there_once_in_a_state_that_it_was_in(
    openclaw_dir: Path,
) -> None:
    agent = live_sqlite.closed_agent(openclaw_dir / "agents" / "main")
    # Two files left over from a migration: one is a copy of what is in the database, one has a line of its own.
    copy, with_own = live_sqlite.rows(500), live_sqlite.rows(50) + row(999)
    (openclaw_dir / "agents" / "main" / "sessions" / "live.jsonl").write_bytes(copy)
    (openclaw_dir / "agents" / "main" / "sessions" / "slow.jsonl").write_bytes(with_own)
    counts = [500]
    until_s = time.monotonic() + 1.5
    with writer(openclaw_dir) as running, live_sqlite.writer(agent) as database:
        before = running.progress()
        async with sidecar(openclaw_dir) as process:
            # Both writers need some time for as many states as these analyses could meet.
            while len(counts) <= ANALYSES or time.monotonic() < until_s:
                sessions = await analysed(process, "eager" if len(counts) % 2 else "streamed")
                in_database = {name: sessions.pop(name) for name in ("a", "live", "slow")}
                leftover = sessions.pop("slow.jsonl")
                after = running.progress()
                assert_between(before, progress_in(sessions), after)
                before = after
                assert {session["store"] for session in sessions.values()} == {"jsonl"}
                assert {session["store"] for session in in_database.values()} == {"sqlite"}
                assert (leftover["kind"], leftover["messageCount"]) == ("archive", 51)
                assert leftover["sizeBytes"] == len(with_own)
                live, slow = (
                    live_sqlite.appended(msgspec.convert(in_database[name], SessionAnalysis))
                    for name in ("live", "slow")
                )
                assert slow >= live / 10
                counts.append(live)
        told = database.end()
        running.end()
    assert counts == sorted(counts)
    assert 500 < counts[1] < counts[-1] <= told["written"] * 10
    assert told["busy"] == 0
    assert told["checkpoints"] > 5
