"""The same sessions in every store: the same answers, nothing twice, nothing hidden that is not a copy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from sidecar.cancel import CancelToken
from sidecar.core.analysis import SessionAnalysis
from sidecar.core.failures import FailedItems
from sidecar.demo.sample import SampleWriter
from sidecar.stores.agent import AgentSessions
from sidecar.stores.locations import AgentFolder
from tests import oracle
from tests.sqlite_trees import Archive, Schema, Session, SqliteAgent

NOW_MS = 1_795_392_000_000
UPDATED_AT_MS = NOW_MS - 3 * oracle.DAY_MS
RESET = "jsonl.reset.2026-11-22T20-15-53.605Z"
DELETED = "jsonl.deleted.2026-11-22T20-16-19.852Z"

Wire = dict[str, Any]
Build = Callable[[Path, dict[str, bytes]], None]


def transcripts() -> dict[str, bytes]:
    """Transcripts by session id: plain ones, a bare header, odd lines, more than a block, and an empty one."""
    writer = SampleWriter(7, NOW_MS)
    sample = {f"s{number}": b"".join(writer.lines(f"s{number}", NOW_MS, 20_000)) for number in range(3)}
    message = b'{"type":"message","id":"%d","timestamp":"%s","message":{"role":"user","content":"%s"}}\n'
    odd = message % (1, b"2026-11-22T20:00:00.000Z", b"cut \\ud83d") + "\u2028 \u0000".encode().join(
        [b'{"type":"x', b'"}\n']
    )
    return sample | {
        "header": next(SampleWriter(8, NOW_MS).lines("header", NOW_MS, 0)),
        "odd": odd + message % (2, b"2026-11-22T20:00:01.000Z", b"\xff invalid"),
        "large": b"".join(writer.lines("large", NOW_MS, 900_000)) + message % (3, b"t", b"x" * 700_000),
        "a-topic-7": message % (4, b"2026-11-22T20:00:02.000Z", b"hi"),
    }


def entry_of(session_id: str) -> Wire:
    return {"sessionId": session_id, "updatedAt": UPDATED_AT_MS, "totalTokens": len(session_id), "model": "m"}


def in_files(folder: Path, sessions: dict[str, bytes]) -> None:
    (folder / "sessions").mkdir(parents=True)
    for session_id, transcript in sessions.items():
        (folder / "sessions" / f"{session_id}.jsonl").write_bytes(transcript)
    index = {f"agent:main:{session_id}": entry_of(session_id) for session_id in sessions}
    (folder / "sessions" / "sessions.json").write_text(json.dumps(index, indent=2))


def in_database(schema: Schema, cold: Any = None) -> Build:
    def build(folder: Path, sessions: dict[str, bytes]) -> None:
        rows = [Session(name, text, entry_of(name), cold=cold) for name, text in sessions.items()]
        SqliteAgent(folder, schema, rows).close()

    return build


STORES = {
    "files": in_files,
    "schema 8": in_database(8),
    "schema 19": in_database(19),
    "schema 23": in_database(23),
    "cold storage in files": in_database(23, "file"),
    "cold storage in the database": in_database(23, "sqlite"),
}


def analysed(folder: Path) -> list[Wire]:
    failed = FailedItems()
    sessions = AgentSessions(AgentFolder("main", str(folder)), CancelToken(), failed)
    found: list[SessionAnalysis] = [session for session in sessions.sessions(NOW_MS) if session is not None]
    assert failed.first == []
    assert sessions.sessions_total == len(found)
    ids = [session.session_id for session in found]
    assert len(ids) == len(set(ids))
    return [msgspec.to_builtins(session) for session in found]


def lines_of(folder: Path, session_id: str) -> bytes | None:
    blocks = AgentSessions(AgentFolder("main", str(folder)), CancelToken(), FailedItems()).transcript(session_id)
    return None if blocks is None else b"".join(bytes(buffer[start:end]) for buffer, start, end in blocks)


@pytest.mark.parametrize("build", STORES.values(), ids=STORES)
def test_every_store_gives_the_same_answers(build: Build, tmp_path: Path) -> None:
    sessions = transcripts()
    # A database holds text: what is no UTF-8 can't be in one.
    sessions["odd"] = sessions["odd"].replace(b"\xff", b"?")
    build(tmp_path / "main", sessions)
    found = {session["sessionId"]: session for session in analysed(tmp_path / "main")}
    assert found.keys() == sessions.keys()
    for session_id, transcript in sessions.items():
        wanted = oracle.analyse_transcript(transcript)
        session = found[session_id]
        assert {field: session[field] for field in wanted} == wanted
        assert session["sizeBytes"] == len(transcript)
        assert (session["kind"], session["archivedAs"], session["agent"]) == ("sessions", None, "main")
        indexed = entry_of(session_id.partition("-topic-")[0])
        if indexed["sessionId"] in sessions:
            assert session["ageDays"] == 3
            assert (session["totalTokens"], session["model"]) == (indexed["totalTokens"], "m")
        assert lines_of(tmp_path / "main", session_id) == transcript


@pytest.mark.parametrize("build", STORES.values(), ids=STORES)
def test_a_session_that_is_not_there_has_no_transcript(build: Build, tmp_path: Path) -> None:
    build(tmp_path / "main", {"s1": transcripts()["s1"]})
    for session_id in ("s", "s11", "s1.jsonl.reset", "", "../s1", "header"):
        assert lines_of(tmp_path / "main", session_id) is None


def test_archives_of_every_form_give_the_same_answers(tmp_path: Path) -> None:
    folder = tmp_path / "main"
    text = transcripts()["s1"]
    hexes = "bfa8201e84bb45fe985078b57cdd216c"
    rows = [Archive(f"r1.{DELETED}.{hexes}.zst", text), Archive(f"r2.{RESET}.zst", text, "reset", "identity")]
    SqliteAgent(folder, 23, [], rows).close()
    files = {f"f1.{RESET}": text, f"f2.{DELETED}": text, f"f3.{RESET}.zst": zstandard.compress(text)}
    files |= {f"f4.{DELETED}.{hexes}.zst": zstandard.compress(text)}
    for name, data in files.items():
        (folder / "sessions" / name).write_bytes(data)
    found = analysed(folder)
    assert sorted(session["sessionId"] for session in found) == sorted([*files, *(row.name for row in rows)])
    for session in found:
        wanted = oracle.analyse_transcript(text) | {"sizeBytes": len(text), "kind": "archive"}
        assert {field: session[field] for field in wanted} == wanted
        assert session["archivedAs"] == ("reset" if ".reset." in session["sessionId"] else "deleted")
        assert lines_of(folder, session["sessionId"]) == text


def test_an_archive_that_is_a_row_and_a_file_is_shown_once(tmp_path: Path) -> None:
    folder, text = tmp_path / "main", transcripts()["s1"]
    name = f"s1.{DELETED}.bfa8201e84bb45fe985078b57cdd216c.zst"
    SqliteAgent(folder, 23, [], [Archive(name, text)]).close()
    (folder / "sessions" / name).write_bytes(zstandard.compress(text))
    assert [session["sessionId"] for session in analysed(folder)] == [name]


def test_what_a_migration_left_is_shown_once_and_what_it_forgot_is_shown(tmp_path: Path) -> None:
    folder, sessions = tmp_path / "main", transcripts()
    SqliteAgent(folder, 23, [Session(name, sessions[name], entry_of(name)) for name in ("s1", "s2")]).close()
    imports = folder / "session-sqlite-import-archive"
    imports.mkdir()
    (imports / "agent_main_main.s1.jsonl.imported-1795378501364").write_bytes(sessions["s1"])
    (imports / "agent_main_lost.s0.jsonl.imported-1795378501364").write_bytes(sessions["s0"])
    (imports / "legacy-store.sessions.json.imported-1795378501364").write_text("{}")
    (folder / "sessions" / "s1.jsonl").write_bytes(sessions["s1"])
    own = b'{"type":"message","id":"own","timestamp":"t","message":{"role":"user","content":"only here"}}\n'
    (folder / "sessions" / "s2.jsonl").write_bytes(sessions["s2"] + own)
    found = analysed(folder)
    assert [(session["sessionId"], session["kind"], session["store"]) for session in found] == [
        ("s2.jsonl", "archive", "jsonl"),
        ("agent_main_lost.s0.jsonl.imported-1795378501364", "archive", "jsonl"),
        ("s1", "sessions", "sqlite"),
        ("s2", "sessions", "sqlite"),
    ]
    assert lines_of(folder, "s2.jsonl") == sessions["s2"] + own
    assert lines_of(folder, "s2") == sessions["s2"]
