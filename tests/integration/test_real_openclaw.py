"""What real releases of OpenClaw left on disk, read by the sidecar and, beside it, as whole files.

The whole reading below shares no code with the package: ``json`` for lines and indexes, ``sqlite3`` and ``zstandard``
for what a copy of the database holds.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.client import Message, SidecarProcess, environment, sessions_of

Wire = dict[str, Any]
Key = tuple[str, str]
"""Names of an agent and a session."""

REAL_DATA = Path(__file__).parents[3] / "shared" / "real-openclaw"
FILES, DATABASE = "2026.7.1-jsonl", "2026.9.6-sqlite"
SESSIONS_IN = {(FILES,): 7, (DATABASE,): 6, (FILES, DATABASE): 13}
DAY_MS = 86_400_000
CLOCK_MS = 1.0
TRANSCRIPT = re.compile(r"(?P<id>.+?)\.jsonl(\.(?P<archived>reset|deleted)\..+)?")

pytestmark = pytest.mark.skipif(
    not REAL_DATA.is_dir(), reason="../shared/real-openclaw, with the real data, isn't here"
)


@dataclass(frozen=True)
class Home:
    """A copy of one of the trees, or of both in one folder, and what is in it."""

    folder: Path
    known: dict[Key, Known]
    files: list[Wire]

    def sidecar(self) -> SidecarProcess:
        return SidecarProcess(None, env=environment(None, CLAWPAL_OPENCLAW_DIR=str(self.folder)))


@dataclass(frozen=True)
class Known:
    """What the whole reading knows of a session: what an analysis must say but for its age, and its messages."""

    fields: Wire
    messages: list[Wire]
    aged_from_ms: float


@pytest.fixture(params=SESSIONS_IN, ids=" and ".join)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    folder = tmp_path / "openclaw"
    for tree in request.param:
        shutil.copytree(REAL_DATA / tree, folder, dirs_exist_ok=True)
        for path in (folder, *folder.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)  # the originals are read-only
    # Opening a database may leave files beside it, so that is done to a copy of the copy.
    opened = shutil.copytree(folder, tmp_path / "opened")
    known = dict(whole_reading(folder, opened))
    assert len(known) == SESSIONS_IN[request.param]
    return Home(folder, known, all_files(folder, known))


# The whole reading


def whole_reading(folder: Path, opened: Path) -> Iterator[tuple[Key, Known]]:
    for agent_folder in sorted((folder / "agents").iterdir()):
        agent = agent_folder.name
        index_file = agent_folder / "sessions" / "sessions.json"
        index = by_session_id(json.loads(index_file.read_bytes()).values()) if index_file.exists() else {}
        archives = set()
        for path in sorted((agent_folder / "sessions").iterdir()):
            match = TRANSCRIPT.fullmatch(path.name)
            if match is None or path.name.endswith(".trajectory.jsonl"):
                continue
            archived_as = match["archived"]
            archives |= {path.name} if archived_as else set()
            place = {
                "agent": agent,
                "sessionId": path.name if archived_as else match["id"],
                "filePath": str(path),
                "kind": "archive" if archived_as else "sessions",
                "store": "jsonl",
                "archivedAs": archived_as,
            }
            entry = index.get(match["id"], {"updatedAt": path.stat().st_mtime_ns / 1e6})
            yield known_of(place, transcript_in(path), entry)
        database = Path("agents", agent, "agent", "openclaw-agent.sqlite")
        if (folder / database).exists():
            with closing(sqlite3.connect(opened / database)) as connection:
                rows = connection.execute("SELECT entry_json FROM session_nodes").fetchall()
                index = by_session_id(json.loads(text) for (text,) in rows)
                for session_id, transcript in transcripts_in(connection):
                    place = {
                        "agent": agent,
                        "sessionId": session_id,
                        "filePath": str(folder / database),
                        "kind": "sessions",
                        "store": "sqlite",
                        "archivedAs": None,
                    }
                    yield known_of(place, transcript, index[session_id])
                # Each of its archives is a file as well, so that it is known already.
                rows = connection.execute("SELECT archive_name FROM session_transcript_archives").fetchall()
                assert archives >= {name for (name,) in rows} != set()
                assert connection.execute("SELECT * FROM session_transcript_cold_archives").fetchall() == []


def transcript_in(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    return data


def transcripts_in(connection: sqlite3.Connection) -> Iterator[tuple[str, bytes]]:
    query = "SELECT session_id, event_json, event_zstd FROM transcript_events ORDER BY session_id, seq"
    transcripts: dict[str, bytes] = {}
    for session_id, text, frame in connection.execute(query):
        line = zstandard.ZstdDecompressor().decompress(frame) if text is None else text.encode()
        transcripts[session_id] = transcripts.get(session_id, b"") + line + b"\n"
    yield from transcripts.items()


def by_session_id(entries: Any) -> dict[str, Wire]:
    return {entry["sessionId"]: entry for entry in entries}


def known_of(place: Wire, transcript: bytes, index_entry: Wire) -> tuple[Key, Known]:
    *lines, rest = transcript.split(b"\n")
    assert rest == b""  # nobody was writing, so each line must be whole
    entries = [json.loads(line) for line in lines]
    messages = [entry for entry in entries if entry["type"] == "message"]
    roles = [entry["message"]["role"] for entry in messages]
    fields = place | {
        "sizeBytes": len(transcript),
        "messageCount": len(messages),
        "userMessageCount": roles.count("user"),
        "assistantMessageCount": roles.count("assistant"),
        "lastActivity": messages[-1]["timestamp"] if messages else None,
        "totalTokens": index_entry.get("totalTokens", 0),
        "model": index_entry.get("model"),
        "headerId": entries[0]["id"] if entries[0]["type"] == "session" else None,
        "skippedLines": 0,
    }
    shown = [{"role": role, "content": text_of(entry)} for role, entry in zip(roles, messages, strict=True)]
    return (place["agent"], place["sessionId"]), Known(fields, shown, index_entry["updatedAt"])


def text_of(entry: Wire) -> str:
    content = entry["message"].get("content", "")
    return content if isinstance(content, str) else "\n".join(block["text"] for block in content if "text" in block)


def all_files(folder: Path, known: dict[Key, Known]) -> list[Wire]:
    """What is to be listed: each file in a folder of sessions, and each session in a database."""
    files = []
    for path in filter(Path.is_file, folder.glob("agents/*/sessions/**/*")):
        relative_path = path.relative_to(folder)
        row = {"path": str(path), "relativePath": str(relative_path), "agent": relative_path.parts[1]}
        files.append(row | {"kind": "sessions", "sizeBytes": path.stat().st_size})
    for (agent, session_id), session in known.items():
        if session.fields["store"] == "sqlite":
            relative = f"agents/{agent}/agent/openclaw-agent.sqlite#{session_id}"
            row = {"path": session.fields["filePath"], "relativePath": relative, "agent": agent}
            files.append(row | {"kind": "sessions", "sizeBytes": session.fields["sizeBytes"]})
    return sorted(files, key=lambda row: str(row["relativePath"]))


# What the sidecar says


async def collected(process: SidecarProcess, method: str, params: Wire | None = None) -> list[Message]:
    return await process.collect(await process.start_stream(params, method))


async def analysed(process: SidecarProcess, form: str) -> list[Wire]:
    """All sessions, after what is said of all together was seen to fit them."""
    if form == "eager":
        agents = await process.call("analyze_sessions")
    else:
        messages = await collected(process, "analyze_sessions_stream", {"batchSize": 2})
        terminal = messages[-1]["params"]
        agents = [message["params"] for message in messages[:-1] if message["params"]["done"]]
        assert terminal["failures"] == []
        assert terminal["totalAgents"] == len(agents)
        assert terminal["totalSessions"] == sum(agent["totalFiles"] for agent in agents)
    sessions: list[Wire] = (
        sessions_of(messages) if form == "streamed" else [session for agent in agents for session in agent["sessions"]]
    )
    for agent in agents:
        own = [session for session in sessions if session["agent"] == agent["agent"]]
        categories = [session["category"] for session in own]
        assert agent["totalFiles"] == len(own)
        assert agent["totalSizeBytes"] == sum(session["sizeBytes"] for session in own)
        assert agent["emptyCount"] == categories.count("empty")
        assert agent["lowValueCount"] == categories.count("low_value")
        assert agent["valuableCount"] == categories.count("valuable")
    return sessions


async def previewed(process: SidecarProcess, key: Key) -> list[Wire]:
    params = {"agentId": key[0], "sessionId": key[1], "pageSize": 7}
    *pages, terminal = await collected(process, "preview_session_stream", params)
    messages: list[Wire] = [message for page in pages for message in page["params"]["messages"]]
    assert terminal["params"]["totalMessages"] == len(messages)
    assert terminal["params"]["skippedLines"] == 0
    return messages


def category(session: Wire) -> str:
    if session["sizeBytes"] < 500 or session["messageCount"] == 0:
        return "empty"
    return "low_value" if session["userMessageCount"] <= 1 and session["ageDays"] > 7 else "valuable"


def everything_in(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Names, modes, times, contents; of folders too, whose times would tell of files that came and went."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mode,
            path.stat().st_mtime_ns,
            "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in (folder, *folder.rglob("*"))
    }


@pytest.mark.parametrize("form", ["streamed", "eager"])
async def test_an_analysis_says_of_every_session_what_a_whole_reading_says(home: Home, form: str) -> None:
    async with home.sidecar() as process:
        before_ms = time.time() * 1000 - CLOCK_MS
        sessions = await analysed(process, form)
        after_ms = time.time() * 1000 + CLOCK_MS
    found = {(session["agent"], session["sessionId"]): session for session in sessions}
    assert len(found) == len(sessions), "a session is shown twice"
    assert found.keys() == home.known.keys()
    for key, session in found.items():
        known = home.known[key]
        assert session == known.fields | {"ageDays": session["ageDays"], "category": category(session)}
        ages_ms = [max(0.0, clock_ms - known.aged_from_ms) for clock_ms in (before_ms, after_ms)]
        assert ages_ms[0] <= session["ageDays"] * DAY_MS <= ages_ms[1]


async def test_a_preview_shows_every_message_of_every_session(home: Home) -> None:
    async with home.sidecar() as process:
        for key, known in home.known.items():
            assert await previewed(process, key) == known.messages
            params = {"agentId": key[0], "sessionId": key[1]}
            assert await process.call("preview_session", params) == known.messages


async def test_every_file_and_every_session_in_a_database_is_listed(home: Home) -> None:
    async with home.sidecar() as process:
        assert await process.call("list_session_files") == home.files
        *chunks, terminal = await collected(process, "list_session_files_stream", {"batchSize": 4})
    assert [row for chunk in chunks for row in chunk["params"]["files"]] == home.files
    assert terminal["params"]["totalFiles"] == len(home.files)
    assert terminal["params"]["totalSizeBytes"] == sum(row["sizeBytes"] for row in home.files)
    assert terminal["params"]["failures"] == []


async def test_reading_leaves_the_folder_as_it_was(home: Home) -> None:
    before = everything_in(home.folder)
    async with home.sidecar() as process:
        for form in ("streamed", "eager"):
            assert await analysed(process, form) != []
        for key in home.known:
            await previewed(process, key)
        await process.call("list_session_files")
        await collected(process, "list_session_files_stream")
        process.close_stdin()
        assert await process.exit_code() == 0
    assert everything_in(home.folder) == before
