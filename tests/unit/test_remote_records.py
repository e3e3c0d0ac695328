"""What an engine says, as this side reads it: cut anywhere, garbled, cut off, or of what the engine couldn't open."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cancel import CancelToken
from sidecar.core.failures import FailedItems
from sidecar.errors import BrokenDatabase, Cancelled, ConnectionBroken, RemoteFailed
from sidecar.limits import MAX_NOISE_BYTES
from sidecar.remote.home import RemoteHome
from sidecar.remote.records import EngineRun, Record, RecordReader
from sidecar.remote.waiting import in_steps

SENTINEL = b"\nclawpal-helper %s\n"
USER = b'{"type":"message","id":"1","timestamp":"t1","message":{"role":"user","content":"hi"}}'
ROW = ["s1", "/db", "sessions", 0, 5.0, "sqlite", None, 0, 0, 0, None, None, False, 0, 0, 0, None]


def said(*records: Any) -> bytes:
    """Records as an engine writes them; bytes go behind the record before them, which has their size added."""
    text = b""
    for number, record in enumerate(records):
        if isinstance(record, bytes):
            text += record + b"\n"
        else:
            behind = records[number + 1] if number + 1 < len(records) else None
            text += json.dumps([*record, len(behind)] if isinstance(behind, bytes) else record).encode() + b"\n"
    return text


class Scripted:
    """An engine that says what it was told to, in chunks, and then breaks or hangs: faults that no real one shows."""

    def __init__(self, nonce: str, chunks: list[bytes | Exception]) -> None:
        self._chunks = [SENTINEL % nonce.encode(), *chunks]
        self.closed = threading.Event()

    async def read(self) -> bytes:
        if not self._chunks:
            return b""
        chunk = self._chunks.pop(0)
        if isinstance(chunk, Exception):
            raise chunk
        if chunk == b"hang":
            await asyncio.Event().wait()
        return chunk

    def close(self) -> None:
        self.closed.set()


def home_that_says(loop: asyncio.AbstractEventLoop, *chunks: bytes | Exception) -> tuple[RemoteHome, list[Scripted]]:
    runs: list[Scripted] = []

    async def start(request: Mapping[str, Any]) -> EngineRun:
        runs.append(Scripted(request["nonce"], list(chunks)))
        return runs[-1]

    return RemoteHome(loop, start), runs


def analysed(home: RemoteHome) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    failed = FailedItems()
    found = [
        msgspec.to_builtins(session)
        for agent in home.agents(CancelToken(), failed)
        if agent is not None
        for session in agent.sessions(home.now_ms)
        if session is not None
    ]
    return found, [(failure.path, failure.error) for failure in failed.first]


RECORDS = [
    Record("hello", ["node", "24", 1.5, "/home", True, True]),
    Record("lines", [], b'{"a":1}\n["beat"]\n'),
    Record("frame", [7], b"\x00\n\xff"),
    Record("piece", [], b""),
    Record("end", []),
]


@given(sizes=st.lists(st.integers(1, 40)), noise=st.binary(max_size=60))
def test_records_are_the_same_however_the_output_is_cut_and_whatever_comes_before_it(
    sizes: list[int], noise: bytes
) -> None:
    text = noise + SENTINEL % b"n0nce"
    for record in RECORDS:
        with_bytes = record.name in {"lines", "frame", "piece"}
        text += said([record.name, *record.items], *([record.data] if with_bytes else []))
    reader = RecordReader("n0nce")
    found = []
    for size in [*sizes, len(text)]:
        found += reader.feed(text[:size])
        text = text[size:]
    assert found == RECORDS


def test_the_sentinel_may_begin_the_output_with_its_line_feed_or_follow_an_unfinished_line() -> None:
    for before in (b"", b"Welcome", b"Welcome\n\n"):
        reader = RecordReader("n0nce")
        assert reader.feed(before + SENTINEL % b"n0nce" + b'["end"]\n') == [Record("end", [])]


@pytest.mark.parametrize(
    "output",
    [
        b"no JSON\n",
        b"{}\n",
        b"[]\n",
        b'["lines",-1]\n',
        b'["lines"]\n',
        b'["lines","3"]\n',
        b'["lines",1]\nab\n',
        b"5\n",
    ],
)
def test_what_is_no_record_is_an_error_of_the_host(output: bytes) -> None:
    reader = RecordReader("n0nce")
    reader.feed(SENTINEL % b"n0nce")
    with pytest.raises(RemoteFailed, match="can't be understood"):
        reader.feed(output)


def test_a_host_that_says_something_else_for_ever_is_given_up() -> None:
    reader = RecordReader("n0nce")
    for _ in range(MAX_NOISE_BYTES // 1_000):
        assert reader.feed(b"x" * 1_000) == []
    with pytest.raises(RemoteFailed):
        reader.feed(b"x" * 1_000)


def test_an_answer_without_its_end_is_an_error_and_what_came_before_stays(loop: asyncio.AbstractEventLoop) -> None:
    home, runs = home_that_says(loop, said(["agent", "main", 2], ["session", *ROW]))
    agents = (agent for agent in home.agents(CancelToken(), FailedItems()) if agent is not None)
    sessions = (session for session in next(agents).sessions(0) if session is not None)
    assert next(sessions).session_id == "s1"
    with pytest.raises(ConnectionBroken, match="connection closed"):
        next(sessions)
    assert runs[0].closed.wait(5)


def test_a_cancel_is_noticed_while_nothing_comes_and_ends_the_engine(loop: asyncio.AbstractEventLoop) -> None:
    home, runs = home_that_says(loop, said(["agent", "main", 2], ["session", *ROW]), b"hang")
    token = CancelToken()
    agents = (agent for agent in home.agents(token, FailedItems()) if agent is not None)
    sessions = next(agents).sessions(0)
    assert next(session for session in sessions if session is not None).session_id == "s1"
    assert next(sessions) is None
    token.cancel()
    with pytest.raises(Cancelled):
        next(sessions)
    assert runs[0].closed.wait(5)


def test_what_an_engine_counted_itself_and_what_it_sent_on_are_one_session(loop: asyncio.AbstractEventLoop) -> None:
    header = b'{"type":"session","id":"h","timestamp":"t0"}'
    output = said(
        ["agent", "main", 1],
        ["frame", 0],
        zstandard.compress(header),
        ["part", 2, 1, 1, "t5", None, True, 1, 300],
        ["frame", 3],
        zstandard.compress(USER),
        ["beat"],
        ["session", *ROW[:3], 40, 5.0, "sqlite", None, 1, 0, 1, None, None, True, 0, 9.0, 3, "m"],
        ["end"],
    )
    home, _ = home_that_says(loop, output[:50], output[50:])
    (session,), failures = analysed(home)
    assert failures == []
    counted = ("messageCount", "userMessageCount", "assistantMessageCount", "skippedLines", "sizeBytes")
    assert [session[name] for name in counted] == [4, 2, 2, 1, len(header) + 1 + 300 + len(USER) + 1 + 40]
    assert (session["headerId"], session["lastActivity"], session["totalTokens"]) == ("h", "t1", 3)


def test_what_can_not_be_opened_here_either_is_a_failed_item_and_the_next_session_is_counted_from_nothing(
    loop: asyncio.AbstractEventLoop,
) -> None:
    good = zstandard.compress(USER + b"\n" + USER + b"\n")
    output = said(
        ["agent", "main", 3],
        ["part", 5, 5, 0, "t9", "old", True, 0, 500],
        ["piece"],
        good[:20],
        ["piece"],
        good[20:-4],
        ["session", "a.zst", "/a.zst", *ROW[2:5], "jsonl", *ROW[6:]],
        ["frame", 4],
        b"no frame at all",
        ["part", 1, 1, 0, "t", None, True, 0, 10],
        ["session", *ROW],
        ["part", 7, 7, 0, "t", None, True, 0, 10],
        ["again"],
        ["piece"],
        good,
        ["session", "b.zst", "/b.zst", *ROW[2:5], "jsonl", *ROW[6:]],
        ["end"],
    )
    home, _ = home_that_says(loop, output)
    (session,), failures = analysed(home)
    assert (session["sessionId"], session["messageCount"], session["headerId"]) == ("b.zst", 2, None)
    assert [path for path, _ in failures] == ["/a.zst", "/db#s1"]
    assert "ends in the middle" in failures[0][1]
    assert "row 4 of the session can't be decoded" in failures[1][1]


def test_an_archive_of_which_only_its_content_tells_the_size_has_that_in_its_row(
    loop: asyncio.AbstractEventLoop,
) -> None:
    relative = "agents/main/agent/openclaw-agent.sqlite#"
    whole = zstandard.ZstdCompressor(write_content_size=False).compress(USER * 3)
    output = said(
        ["piece"],
        whole,
        ["file", "/db", f"{relative}a", "main", "archive", None],
        ["piece"],
        whole[:-5],
        ["piece"],
        b"and more",
        ["file", "/db", f"{relative}b", "main", "archive", None],
        ["file", "/x", "agents/main/sessions/x", "main", "sessions", 4],
        ["end"],
    )
    home, _ = home_that_says(loop, output)
    failed = FailedItems()
    files = [file for file in home.files(CancelToken(), failed) if file is not None]
    assert [(file.relative_path, file.size_bytes) for file in files] == [
        (f"{relative}a", 3 * len(USER)),
        ("agents/main/sessions/x", 4),
    ]
    assert [failure.path for failure in failed.first] == ["/db#b"]


@pytest.mark.parametrize(
    ("record", "error", "text"),
    [
        (["fail", "ENOTDIR", "/x", None, None], NotADirectoryError, "Not a directory"),
        (["fail", None, None, "it is damaged", "broken_database"], BrokenDatabase, "it is damaged"),
        (["fail", None, None, "odd", "a kind of tomorrow"], RemoteFailed, "odd"),
        (["fail", "ETOMORROW", None, None, None], OSError, "ETOMORROW"),
    ],
)
def test_a_failure_there_is_the_same_error_here(
    loop: asyncio.AbstractEventLoop, record: list[Any], error: type[Exception], text: str
) -> None:
    home, runs = home_that_says(loop, said(["hello", "node", "24", 5.0, "/home", True, True], record))
    with pytest.raises(error, match=text):
        analysed(home)
    assert runs[0].closed.wait(5)


def test_a_time_out_of_the_work_itself_is_told_from_the_wait_for_a_step(loop: asyncio.AbstractEventLoop) -> None:
    async def times_out() -> None:
        raise TimeoutError("of the work")

    with pytest.raises(TimeoutError, match="of the work"):
        list(in_steps(loop, times_out(), CancelToken()))
