"""Sessions in databases of three schemas: what counts as one, what fails alone, what a moving database gives."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.cancel import CancelToken
from sidecar.core.analysis import SessionAnalysis
from sidecar.core.failures import FailedItems
from sidecar.errors import Cancelled, SidecarError
from sidecar.limits import BLOCK_BYTES, MAX_PAGE_ROWS, MAX_REREADS, MAX_SMALL_VALUE_BYTES, MIB
from sidecar.stores import sqlite_rows
from sidecar.stores.locations import AgentFolder
from sidecar.stores.sqlite import SqliteStore
from tests import oracle
from tests.oracle import Wire
from tests.sqlite_trees import CREATED_AT_MS, NAVIGATION, Archive, Schema, Session, SqliteAgent, cold_archive
from tests.unit.strategies import GARBAGE, PIECES, entries, mutations
from tests.unit.test_transcript import ASSISTANT, COUNTED_LINES, HEADER, SKIPPED_LINES, USER

NOW_MS = 1_795_378_579_852
DAY_MS = 86_400_000
SCHEMAS: tuple[Schema, ...] = (8, 19, 23)
TRANSCRIPT = b"\n".join((HEADER, *[USER, ASSISTANT] * 3, b""))
LARGE = b"".join((HEADER, b"\n", (USER + b"\n") * (4 * BLOCK_BYTES // len(USER))))
DELETED = "s.jsonl.deleted.2026-11-22T20-19-10.375Z.bfa8201e84bb45fe985078b57cdd216c.zst"
REAL = Path(__file__).resolve().parents[3] / "shared" / "real-openclaw" / "2026.9.6-sqlite"

every_schema = pytest.mark.parametrize("schema", SCHEMAS)


def message(size_bytes: int, filler: str = "") -> bytes:
    """A message line of that many bytes; of random text, which hardly compresses, unless filled with something."""
    text_bytes = size_bytes - len(USER) + 2
    text = filler * text_bytes or os.urandom(text_bytes).hex()[:text_bytes]
    return USER.replace(b'"hi"', b'"%b"' % text.encode())


class Opened:
    """A store over one agent, and what failed in it."""

    def __init__(self, agent: SqliteAgent | Path) -> None:
        folder = agent if isinstance(agent, Path) else agent.folder
        self.failed = FailedItems()
        self.token = CancelToken()
        self.store = SqliteStore(AgentFolder("main", str(folder)), self.token, self.failed)

    @property
    def failures(self) -> dict[str, str]:
        """What failed, by the part of its path behind the folder of the agents."""
        return {failure.path.partition("agents/")[2]: failure.error for failure in self.failed.first}

    def rest(self, steps: Iterator[SessionAnalysis | None] | None = None) -> list[Wire]:
        return [msgspec.to_builtins(session) for session in steps or self.store.sessions(NOW_MS) if session is not None]

    def lines(self, session_id: str) -> bytes | None:
        blocks = self.store.transcript(session_id)
        if blocks is None:
            return None
        found = bytearray()
        for buffer, start, end in blocks:
            assert buffer[end - 1 : end] == b"\n"
            assert end - start <= BLOCK_BYTES or buffer.count(b"\n", start, end) == 1
            found += buffer[start:end]
        return bytes(found)


def analysed(agent: SqliteAgent | Path) -> list[Wire]:
    """The sessions of an agent, none of which may fail."""
    found = Opened(agent)
    sessions = found.rest()
    assert found.failures == {}
    assert found.store.sessions_total == len(sessions)
    return sessions


def wanted(agent: SqliteAgent, session: Session | Archive) -> Wire:
    """All that is to be said of a session or an archive."""
    counts = oracle.analyse_transcript(session.transcript)
    entry: dict[str, Any] = {}
    if isinstance(session, Archive):
        own: Wire = {"sessionId": session.name, "kind": "archive", "archivedAs": session.reason}
        written_at_ms = session.created_at_ms
    else:
        own = {"sessionId": session.session_id, "kind": "sessions", "archivedAs": None}
        written_at_ms = session.created_at_ms + len(session.lines) - 1
        entry = session.entry or {}
    age_days = max(0.0, (NOW_MS - (entry.get("updatedAt") or written_at_ms)) / DAY_MS)
    category = "valuable"
    if len(session.transcript) < 500 or not counts["messageCount"]:
        category = "empty"
    elif counts["userMessageCount"] <= 1 and age_days > 7:
        category = "low_value"
    return (
        counts
        | own
        | {
            "agent": "main",
            "filePath": str(agent.path),
            "sizeBytes": len(session.transcript),
            "ageDays": age_days,
            "totalTokens": entry.get("totalTokens", 0),
            "model": entry.get("model"),
            "category": category,
            "store": "sqlite",
        }
    )


def ids(sessions: list[Wire]) -> list[str]:
    return [session["sessionId"] for session in sessions]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "agents" / "main"


@every_schema
def test_sessions_come_by_id_with_all_that_the_oracle_says(folder: Path, schema: Schema) -> None:
    entry = {"updatedAt": NOW_MS - 1, "totalTokens": 7, "model": "kimi-k2"}
    sessions = [
        Session("b", TRANSCRIPT, entry),
        Session("a", TRANSCRIPT + message(3_000, "x") + b"\n"),
        Session("a-b", HEADER + b"\n", created_at_ms=NOW_MS - 30 * DAY_MS),
        Session("B", HEADER + b"\n" + USER + b"\n" + ASSISTANT * 3 + b"\n", created_at_ms=NOW_MS - 30 * DAY_MS),
        Session("ähnlich", LARGE, {"updatedAt": 5.5}),
    ]
    agent = SqliteAgent(folder, schema, sessions).close()
    found = analysed(agent)
    assert ids(found) == ["B", "a", "a-b", "b", "ähnlich"]
    by_id = {session.session_id: session for session in sessions}
    for session in found:
        expected = wanted(agent, by_id[session["sessionId"]])
        assert session == expected | {"ageDays": pytest.approx(expected["ageDays"])}


@every_schema
def test_rows_of_any_text_count_as_lines_of_a_file_would(folder: Path, schema: Schema) -> None:
    odd = b"\n".join(line for line in (*COUNTED_LINES.values(), *SKIPPED_LINES.values()) if b"\n" not in line)
    rows = odd + b"\n" + LARGE + odd + b"\n"
    agent = SqliteAgent(folder, schema, [Session("s", rows)]).close()
    assert analysed(agent) == [wanted(agent, Session("s", rows))]
    assert Opened(agent).lines("s") == rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(data=st.data())
def test_sessions_of_drawn_rows_count_as_the_oracle_says(tmp_path: Path, data: st.DataObject) -> None:
    line = st.one_of(entries(wrong=False), entries(wrong=True), mutations(entries(wrong=True), PIECES + GARBAGE))
    drawn = data.draw(st.lists(st.lists(line.map(lambda text: text.replace(b"\n", b"")), min_size=1, max_size=6)))
    sessions = [Session(f"s{number:03}", b"".join(row + b"\n" for row in rows)) for number, rows in enumerate(drawn)]
    shutil.rmtree(tmp_path / "agents", ignore_errors=True)
    agent = SqliteAgent(tmp_path / "agents" / "main", data.draw(st.sampled_from(SCHEMAS)), sessions).close()
    assert analysed(agent) == [wanted(agent, session) for session in sessions]


def test_a_row_is_one_line_even_with_line_feeds_in_it(folder: Path) -> None:
    pretty = json.dumps(json.loads(USER), indent=2).encode()
    agent = SqliteAgent(folder, 23, [Session("s", HEADER + b"\n")])
    agent.add_rows("s", [b" " + USER + b"\n", pretty, pretty + b" " * 100_000, USER[:50] + b"\n" + USER[50:]], first=1)
    (session,) = analysed(agent.close())
    # A line feed is no part of a string, so a message that has one in its text isn't JSON, nor is it two lines.
    assert (session["messageCount"], session["skippedLines"]) == (3, 1)


@every_schema
@pytest.mark.parametrize(
    "size_bytes",
    [
        *(edge + off for edge in (1024, MAX_SMALL_VALUE_BYTES, BLOCK_BYTES, 2 * BLOCK_BYTES) for off in (-2, -1, 0, 1)),
        4 * MIB,
        6_670_000,
    ],
)
@pytest.mark.parametrize("filler", ["", "x"])
def test_rows_of_any_size_are_read_whole(folder: Path, schema: Schema, size_bytes: int, filler: str) -> None:
    long = message(size_bytes, filler)
    assert len(long) == size_bytes
    rows = [long, USER, long, long, *[USER] * 2_000, long, ASSISTANT]
    session = Session("s", b"".join(row + b"\n" for row in rows))
    agent = SqliteAgent(folder, schema, [session]).close()
    assert analysed(agent) == [wanted(agent, session)]
    assert Opened(agent).lines("s") == session.transcript


@every_schema
def test_a_row_over_the_limit_is_skipped_and_counted(
    folder: Path, schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_rows, "MAX_ENTRY_BYTES", 100_000)
    rows = [HEADER, message(200_000), USER, message(300_000, "x"), ASSISTANT, message(99_999)]
    session = Session("s", b"".join(row + b"\n" for row in rows))
    agent = SqliteAgent(folder, schema, [session]).close()
    (found,) = analysed(agent)
    assert (found["messageCount"], found["skippedLines"], found["sizeBytes"]) == (3, 2, len(session.transcript))
    assert Opened(agent).lines("s") == b"".join(rows[place] + b"\n" for place in (0, 2, 4, 5))


@every_schema
def test_more_rows_than_a_page_takes_are_read_in_several(folder: Path, schema: Schema) -> None:
    session = Session("s", b"{}\n" * (2 * MAX_PAGE_ROWS + 1))
    agent = SqliteAgent(folder, schema, [session]).close()
    assert analysed(agent) == [wanted(agent, session)]
    assert [file.size_bytes for file in Opened(agent).store.files()] == [len(session.transcript)]


@every_schema
def test_a_session_without_rows_is_none(folder: Path, schema: Schema) -> None:
    agent = SqliteAgent(folder, schema, [Session("empty", b"", {"updatedAt": 1}), Session("s", TRANSCRIPT)]).close()
    assert ids(analysed(agent)) == ["s"]


@every_schema
def test_the_index_is_looked_up_by_the_id_within_the_entry_and_the_newer_one_wins(folder: Path, schema: Schema) -> None:
    agent = SqliteAgent(
        folder, schema, [Session("s1", TRANSCRIPT), Session("s2", TRANSCRIPT), Session("s3", TRANSCRIPT)]
    )
    agent.add_entry("a", {"sessionId": "s1", "updatedAt": NOW_MS - 2 * DAY_MS, "totalTokens": 2, "model": "old"})
    agent.add_entry("b", {"sessionId": "s1", "updatedAt": NOW_MS - DAY_MS, "totalTokens": 1, "model": "new"})
    agent.add_entry("c", {"sessionId": "s1", "updatedAt": NOW_MS - 3 * DAY_MS, "totalTokens": 3, "model": "older"})
    agent.add_entry("d", {"sessionId": "s2", "updatedAt": "never", "totalTokens": -5, "model": None})
    found = analysed(agent.close())
    assert [(s["ageDays"], s["totalTokens"], s["model"]) for s in found[:1]] == [(1.0, 1, "new")]
    assert [(s["ageDays"], s["totalTokens"], s["model"]) for s in found[1:]] == [
        ((NOW_MS - CREATED_AT_MS - 6) / DAY_MS, 0, None)
    ] * 2


@every_schema
def test_a_large_index_entry_is_read_and_one_that_is_no_json_is_one_failed_item(folder: Path, schema: Schema) -> None:
    agent = SqliteAgent(
        folder, schema, [Session("s1", TRANSCRIPT), Session("s2", TRANSCRIPT), Session("s3", TRANSCRIPT)]
    )
    report = {"systemPromptReport": ["x" * 100] * 3_000}
    agent.add_entry("a", {"sessionId": "s1", "totalTokens": 1} | report)
    agent.add_entry("b", "no json")
    agent.add_entry("c", "null")
    agent.add_entry("d", report | {"sessionId": "s2", "totalTokens": 2})
    agent.add_entry("e", {"sessionId": "s3", "totalTokens": 3})
    found = Opened(agent.close())
    assert [session["totalTokens"] for session in found.rest()] == [1, 2, 3]
    assert list(found.failures) == ["main/agent/openclaw-agent.sqlite"]
    assert "session index" in found.failures["main/agent/openclaw-agent.sqlite"]


def test_archives_that_are_rows_come_by_name_behind_the_sessions(folder: Path) -> None:
    archives = [
        Archive(DELETED, TRANSCRIPT, created_at_ms=NOW_MS - DAY_MS),
        Archive("r.jsonl.reset.2026-11-22T20-15-53.605Z", LARGE, "reset", "identity"),
        Archive("l.jsonl.deleted.2026-11-22T20-15-53.605Z.zst", LARGE + message(300_000) + b"\n"),
        Archive("t.jsonl.deleted.2026-11-22T20-15-53.605Z", TRANSCRIPT.rstrip(b"\n"), encoding="identity"),
    ]
    agent = SqliteAgent(folder, 23, [Session("z", TRANSCRIPT)], archives).close()
    by_name = sorted(archives, key=lambda archive: archive.name)
    assert analysed(agent) == [wanted(agent, Session("z", TRANSCRIPT)), *(wanted(agent, each) for each in by_name)]
    for archive in archives[:3]:
        assert Opened(agent).lines(archive.name) == archive.transcript


def test_an_archive_that_is_also_a_file_is_left_to_the_files(folder: Path) -> None:
    agent = SqliteAgent(
        folder, 23, [], [Archive(DELETED, TRANSCRIPT), Archive("x.jsonl.deleted.1", TRANSCRIPT)]
    ).close()
    (folder / "sessions" / DELETED).write_bytes(b"")
    assert ids(analysed(agent)) == ["x.jsonl.deleted.1"]
    assert Opened(agent).lines(DELETED) is None
    assert [file.relative_path.partition("#")[2] for file in Opened(agent).store.files()] == ["x.jsonl.deleted.1"]


def test_a_broken_archive_is_a_failed_item_and_the_others_are_analysed(folder: Path) -> None:
    agent = SqliteAgent(folder, 23, [], [Archive(name, TRANSCRIPT) for name in ("a", "b", "c")])
    agent.connection.execute(
        "UPDATE session_transcript_archives SET archive_blob = x'28b52ffd00' WHERE archive_name = 'b'"
    )
    found = Opened(agent.close())
    assert ids(found.rest()) == ["a", "c"]
    assert list(found.failures) == ["main/agent/openclaw-agent.sqlite#b"]


@pytest.mark.parametrize("storage", ["file", "sqlite"])
def test_cold_storage_holds_a_session_like_any_other(folder: Path, storage: Any) -> None:
    text = LARGE + message(300_000) + b"\n" + '{"type":"x\u2028é\U0001f600"}\n'.encode()
    cold = Session("cold", text, {"updatedAt": NOW_MS, "totalTokens": 3, "model": "m"}, storage)
    agent = SqliteAgent(folder, 23, [Session("a", TRANSCRIPT), cold, Session("z", TRANSCRIPT)]).close()
    assert analysed(agent) == [
        wanted(agent, Session("a", TRANSCRIPT)),
        wanted(agent, cold),
        wanted(agent, Session("z", TRANSCRIPT)),
    ]
    assert Opened(agent).lines("cold") == text
    assert [file.size_bytes for file in Opened(agent).store.files()] == [len(TRANSCRIPT), len(text), len(TRANSCRIPT)]


def test_a_cold_file_that_is_missing_or_broken_is_a_failed_item(folder: Path) -> None:
    sessions = [Session(name, TRANSCRIPT + name.encode() * 9 + b"\n", cold="file") for name in ("cut", "gone", "odd")]
    agent = SqliteAgent(folder, 23, [Session("a", TRANSCRIPT), *sessions]).close()
    rows = (
        open_plainly(agent).execute("SELECT session_id, archive_name FROM session_transcript_cold_archives").fetchall()
    )
    cold = {name: folder / "sessions" / "cold" / file for name, file in rows}
    cold["gone"].unlink()
    cold["cut"].write_bytes(cold["cut"].read_bytes()[:-5])
    cold["odd"].write_bytes(zstandard.compress(TRANSCRIPT))
    found = Opened(agent)
    assert ids(found.rest()) == ["a"]
    assert {path.partition("#")[2]: error.split(":")[0] for path, error in found.failures.items()} == {
        "cut": "the compressed data ends in the middle",
        "gone": "no such file or directory",
        "odd": "its cold archive can't be decoded",
    }


def test_a_cold_file_is_only_looked_for_under_names_that_openclaw_gives(folder: Path) -> None:
    agent = SqliteAgent(folder, 23, [Session("s", TRANSCRIPT, cold="file")])
    agent.connection.execute("UPDATE session_transcript_cold_archives SET archive_name = 'passwd'")
    found = Opened(agent.close())
    assert found.rest() == []
    assert "a name that OpenClaw doesn't give: passwd" in found.failures["main/agent/openclaw-agent.sqlite#s"]


def open_plainly(agent: SqliteAgent) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{agent.path}?mode=ro&immutable=1", uri=True)


def test_an_agent_without_a_database_or_without_sessions_in_it_has_none(folder: Path) -> None:
    assert analysed(folder) == []
    agent = SqliteAgent(folder, 1).close()
    assert analysed(agent) == []
    assert list(Opened(agent).store.files()) == []
    assert Opened(agent).lines("s") is None


def test_an_event_that_can_not_be_decoded_fails_its_session_alone(folder: Path) -> None:
    long = message(3_000, "x")
    sessions = [Session(name, TRANSCRIPT + long + b"\n") for name in ("cut", "garbled", "large", "ok")]
    agent = SqliteAgent(folder, 23, sessions)
    update = "UPDATE transcript_events SET event_zstd = ? WHERE event_zstd IS NOT NULL AND session_id = ?"
    agent.connection.execute(update, (zstandard.compress(long)[:-4], "cut"))
    agent.connection.execute(update, (b"\x01\x02\x03", "garbled"))
    agent.connection.execute(update, (zstandard.compress(os.urandom(100_000))[:-4], "large"))
    found = Opened(agent.close())
    assert found.rest() == [wanted(agent, sessions[3])]
    assert {path.partition("#")[2]: error.partition(":")[0] for path, error in found.failures.items()} == dict.fromkeys(
        ("cut", "garbled", "large"), "row 7 of the session can't be decoded"
    )


def test_a_row_of_neither_text_nor_zstd_fails_its_session_alone(folder: Path) -> None:
    agent = SqliteAgent(folder, 23, [Session("ok", TRANSCRIPT)])
    agent.connection.execute("PRAGMA writable_schema = ON")
    agent.connection.execute("PRAGMA ignore_check_constraints = ON")
    agent.connection.execute("INSERT INTO transcript_events (session_id, seq, created_at) VALUES ('new', 0, 0)")
    found = Opened(agent.close())
    assert ids(found.rest()) == ["ok"]
    assert "neither text nor zstd" in found.failures["main/agent/openclaw-agent.sqlite#new"]


def test_compressed_rows_are_read_whatever_their_header_tells_of_their_size(folder: Path) -> None:
    agent = SqliteAgent(folder, 23, [Session("s", HEADER + b"\n")])
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    for seq, size_bytes in enumerate((2_000, 300_000), 1):
        line = message(size_bytes, "x")
        row = ("s", seq, 0, compressor.compress(line), len(line), NAVIGATION)
        agent.connection.execute("INSERT INTO transcript_events VALUES (?, ?, NULL, ?, ?, ?, ?)", row)
    assert Opened(agent.close()).lines("s") == b"\n".join((HEADER, message(2_000, "x"), message(300_000, "x"), b""))


UNREADABLE = {
    "no database": (b"this is a text, and a long one at that\n" * 100, "not an SQLite database"),
    "an empty file": (b"", "an empty file"),
    "a cut header": (b"SQLite format 3\x00" + b"\x10\x00\x02\x02", "not an SQLite database"),
}


@pytest.mark.parametrize(("data", "error"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_is_no_database_is_one_failed_item(folder: Path, data: bytes, error: str) -> None:
    agent = SqliteAgent(folder, 23, [Session("s", TRANSCRIPT)]).close()
    agent.path.write_bytes(data)
    found = Opened(agent)
    assert found.rest() == []
    assert found.store.sessions_total == 0
    assert list(found.failures) == ["main/agent/openclaw-agent.sqlite"]
    assert error in found.failures["main/agent/openclaw-agent.sqlite"]
    with pytest.raises(SidecarError, match=error):
        found.store.transcript("s")


def test_something_else_in_place_of_the_database_is_one_failed_item(folder: Path) -> None:
    agent = SqliteAgent(folder, 23).close()
    agent.path.unlink()
    agent.path.mkdir()
    assert (Opened(agent).rest(), failures_of(agent)) == ([], ["not a regular file"])
    agent.path.rmdir()
    os.mkfifo(agent.path)
    assert (Opened(agent).rest(), failures_of(agent)) == ([], ["not a regular file"])
    agent.path.unlink()
    agent.path.symlink_to("nowhere")
    assert [error.split(":")[0] for error in failures_of(agent)] == ["no such file or directory"]


def failures_of(agent: SqliteAgent | Path) -> list[str]:
    found = Opened(agent)
    found.rest()
    return list(found.failures.values())


@every_schema
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cut_off_database_is_a_failed_item_and_raises_nothing(folder: Path, schema: Schema, share: float) -> None:
    agent = SqliteAgent(folder, schema, [Session(f"s{number:03}", TRANSCRIPT * 9) for number in range(50)]).close()
    os.truncate(agent.path, int(agent.path.stat().st_size * share) // 4096 * 4096)
    found = Opened(agent)
    found.rest()
    assert "damaged" in next(iter(found.failures.values()))
    for session_id in ("s000", "s049"):
        with pytest.raises(SidecarError):
            Opened(agent).lines(session_id)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_whatever_bytes_are_in_a_database_nothing_is_raised(tmp_path: Path, data: st.DataObject) -> None:
    whole = tmp_path / "whole.sqlite"
    folder = tmp_path / "agents" / "main"
    if not whole.exists():
        sessions = [
            Session("a", TRANSCRIPT, {"updatedAt": 1}),
            Session("b", LARGE),
            Session("c", TRANSCRIPT, cold="sqlite"),
        ]
        shutil.copy(SqliteAgent(folder, 23, sessions, [Archive("d", TRANSCRIPT)]).close().path, whole)
    damaged = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(damaged) - 1) | st.integers(0, 200))
        damaged[place : place + 8] = data.draw(st.binary(min_size=8, max_size=8) | st.just(bytes(8)))
    (folder / "agent" / "openclaw-agent.sqlite").write_bytes(damaged)
    found = Opened(folder)
    assert len(found.rest()) <= 4
    list(found.store.files())
    assert os.listdir(folder / "agent") == ["openclaw-agent.sqlite"]


def test_tables_of_a_form_that_is_not_known_are_one_failed_item_that_says_so(folder: Path) -> None:
    agent = SqliteAgent(folder, 19, [Session("s", TRANSCRIPT)])
    agent.connection.execute("ALTER TABLE transcript_events RENAME COLUMN event_json TO event_brotli")
    assert failures_of(agent.close()) == [
        "the database is of a form that is not known: its table transcript_events has no event_json"
    ]


def test_a_column_more_than_is_known_is_nothing_to_fail_for(folder: Path) -> None:
    agent = SqliteAgent(folder, 23, [Session("s", TRANSCRIPT)])
    agent.connection.execute("ALTER TABLE transcript_events ADD COLUMN mood TEXT")
    agent.connection.execute("PRAGMA user_version = 99")
    assert ids(analysed(agent.close())) == ["s"]


def test_a_table_that_is_not_strict_can_hold_anything_and_nothing_is_raised(folder: Path) -> None:
    agent = SqliteAgent(folder, 1)
    agent.connection.executescript("""
        CREATE TABLE transcript_events (session_id, seq, event_json, created_at, PRIMARY KEY (session_id, seq));
        INSERT INTO transcript_events VALUES ('a', 0, '{}', 'now'), ('b', 0, 5, 0), ('c', 0, NULL, NULL),
          (NULL, 0, '', 0), (7, 0, '{}', 0), ('d', 'x', '{}', 0), ('e', 1.5, '{}', 0), ('f', 0, '{}', 0);
        CREATE TABLE session_nodes (session_key, entry_json);
        INSERT INTO session_nodes VALUES ('a', 5), ('b', NULL), (NULL, '{"sessionId":"a"}'), ('c', '{"sessionId":"f"}');
    """)
    found = Opened(agent.close())
    assert ids(found.rest()) == ["a", "f"]
    assert [path.partition("#")[2] for path in found.failures] == ["", "b", "c", "e"]


def test_a_database_in_utf_16_is_one_failed_item(folder: Path) -> None:
    (folder / "agent").mkdir(parents=True)
    path = folder / "agent" / "openclaw-agent.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA encoding = 'UTF-16'; CREATE TABLE t (a);")
    connection.close()
    assert failures_of(folder) == ["the database is in UTF-16, which OpenClaw doesn't write"]


def test_a_session_that_vanishes_before_it_is_read_is_none(folder: Path) -> None:
    agent = SqliteAgent(folder, 23, [Session(name, TRANSCRIPT) for name in "abc"], [Archive("d", TRANSCRIPT)])
    found = Opened(agent)
    steps = found.store.sessions(NOW_MS)
    assert next(steps) is not None
    agent.connection.execute("DELETE FROM transcript_events WHERE session_id = 'b'")
    agent.connection.execute("DELETE FROM session_transcript_archives")
    assert ids(found.rest(steps)) == ["c"]
    assert (found.failures, found.store.sessions_total) == ({}, 2)


def half_read(agent: SqliteAgent) -> tuple[Opened, Iterator[SessionAnalysis | None]]:
    """An analysis that stands in the middle of a large session."""
    found = Opened(agent)
    steps = found.store.sessions(NOW_MS)
    assert next(steps) is None
    assert next(steps) is None
    return found, steps


@every_schema
def test_rows_that_come_while_a_session_is_read_are_a_later_state(folder: Path, schema: Schema) -> None:
    agent = SqliteAgent(folder, schema, [Session("s", LARGE)])
    found, steps = half_read(agent)
    agent.add_rows("s", [USER] * 100, first=1_000_000)
    assert found.rest(steps) == [wanted(agent, Session("s", LARGE))]


def rewrite(agent: SqliteAgent, rows: list[bytes], generation: str = "second") -> None:
    """Replace the session's rows, as a compaction or a repair does, in one transaction."""
    agent.connection.execute("BEGIN")
    agent.connection.execute("DELETE FROM transcript_events WHERE session_id = 's'")
    agent.connection.execute("DELETE FROM transcript_event_identities WHERE session_id = 's'")
    agent.add_rows("s", rows)
    if agent.schema > 8:
        agent.connection.execute("UPDATE transcript_rewrite_watermarks SET generation = ?", (generation,))
    agent.connection.execute("COMMIT")


@every_schema
@pytest.mark.parametrize("count", [1, 2_500, 12_000])
def test_a_session_rewritten_while_it_is_read_is_read_anew(folder: Path, schema: Schema, count: int) -> None:
    agent = SqliteAgent(folder, schema, [Session("s", LARGE), Session("t", TRANSCRIPT)])
    found, steps = half_read(agent)
    rewrite(agent, [ASSISTANT] * count)
    rewritten = Session("s", (ASSISTANT + b"\n") * count)
    assert found.rest(steps) == [wanted(agent, rewritten), wanted(agent, Session("t", TRANSCRIPT))]
    assert found.failures == {}


def test_a_session_rewritten_again_and_again_is_a_failed_item(folder: Path) -> None:
    agent = SqliteAgent(folder, 23, [Session("s", LARGE), Session("t", TRANSCRIPT)])
    found = Opened(agent)
    steps = found.store.sessions(NOW_MS)
    for number in range(MAX_REREADS):
        assert next(steps) is None
        rewrite(agent, LARGE.splitlines(), f"generation {number}")
    assert ids(found.rest(steps)) == ["t"]
    assert list(found.failures.values()) == ["the session was rewritten while it was read; try again"]


def test_a_transcript_that_is_rewritten_after_its_first_block_can_not_go_on(folder: Path) -> None:
    agent = SqliteAgent(folder, 23, [Session("s", LARGE)])
    blocks = Opened(agent).store.transcript("s")
    assert blocks is not None
    next(blocks)
    rewrite(agent, [ASSISTANT])
    with pytest.raises(SidecarError, match="rewritten while it was read; try again"):
        next(blocks)


@pytest.mark.parametrize("storage", ["file", "sqlite"])
def test_a_session_put_into_cold_storage_while_it_is_read_is_read_from_there(folder: Path, storage: Any) -> None:
    agent = SqliteAgent(folder, 23, [Session("s", LARGE)])
    found, steps = half_read(agent)
    cold = Session("s", LARGE, cold=storage)
    agent.connection.execute("BEGIN")
    agent.connection.execute("DELETE FROM transcript_events")
    agent.add_cold(cold)
    agent.connection.execute("COMMIT")
    assert found.rest(steps) == [wanted(agent, cold)]
    assert cold_archive(cold)


def test_a_session_taken_out_of_cold_storage_before_it_is_read_is_read_from_its_rows(folder: Path) -> None:
    agent = SqliteAgent(folder, 23, [Session("a", TRANSCRIPT), Session("s", LARGE, cold="file")])
    found = Opened(agent)
    steps = found.store.sessions(NOW_MS)
    next(steps)
    agent.connection.execute("DELETE FROM session_transcript_cold_archives")
    shutil.rmtree(folder / "sessions" / "cold")
    agent.add_rows("s", Session("s", LARGE).lines)
    assert found.rest(steps) == [wanted(agent, Session("s", LARGE))]


def test_files_has_a_row_for_each_transcript_with_its_size(folder: Path) -> None:
    sessions = [Session("s1", TRANSCRIPT), Session("s10", LARGE + message(200_000) + b"\n"), Session("empty", b"")]
    archives = [Archive("s1.jsonl.deleted.x.zst", LARGE), Archive("a.jsonl.reset.x", TRANSCRIPT, "reset", "identity")]
    archives.append(Archive("told.zst", TRANSCRIPT))
    agent = SqliteAgent(folder, 23, sessions, archives)
    told = zstandard.compress(TRANSCRIPT)
    agent.connection.execute(
        "UPDATE session_transcript_archives SET archive_blob = ? WHERE session_id = 'told.zst'", (told,)
    )
    found = Opened(agent.close())
    files = list(found.store.files())
    assert found.failures == {}
    start = "agents/main/agent/openclaw-agent.sqlite#"
    assert [(file.relative_path.removeprefix(start), file.kind, file.size_bytes) for file in files] == [
        ("a.jsonl.reset.x", "archive", len(TRANSCRIPT)),
        ("s1", "sessions", len(TRANSCRIPT)),
        ("s1.jsonl.deleted.x.zst", "archive", len(LARGE)),
        ("s10", "sessions", len(sessions[1].transcript)),
        ("told.zst", "archive", len(TRANSCRIPT)),
    ]
    assert {(file.path, file.agent) for file in files} == {(str(agent.path), "main")}
    assert all(first.relative_path < second.relative_path for first, second in pairwise(files))


@every_schema
def test_sizes_in_files_are_those_of_the_analysis(folder: Path, schema: Schema) -> None:
    rows = [message(size) for size in (500, 70_000, 300_000, 2_000)] + [message(size, "x") for size in (2_000, 4 * MIB)]
    agent = SqliteAgent(
        folder, schema, [Session("s", b"".join(row + b"\n" for row in rows)), Session("t", LARGE)]
    ).close()
    sizes = [session["sizeBytes"] for session in analysed(agent)]
    assert [file.size_bytes for file in Opened(agent).store.files()] == sizes


def test_only_what_is_a_session_is_contained(folder: Path) -> None:
    sessions = [Session("a", TRANSCRIPT), Session("c", TRANSCRIPT, cold="file"), Session("empty", b"")]
    with_archive = Opened(SqliteAgent(folder, 23, sessions, [Archive(DELETED, TRANSCRIPT)]).close()).store
    assert [name in with_archive for name in ("a", "c", "b", "empty", "", "s", DELETED)] == [True, True, *[False] * 5]
    with_archive.close()


IDS = ["a1", "a2", "cut �", "e4"]


@every_schema
@pytest.mark.parametrize("cold", [None, "file"])
def test_entries_are_held_if_all_of_them_are_in_the_session(folder: Path, schema: Schema, cold: Any) -> None:
    if cold and schema < 23:
        pytest.skip("no cold storage yet")
    rows = [USER.replace(b'"a1"', b'"%b"' % name) for name in (b"a1", b"a2", b"cut \\ud83d", b"e4")]
    transcript = b"".join(row + b"\n" for row in (HEADER, *rows, b"garbage"))
    other = Session("other", USER.replace(b'"a1"', b'"b1"') + b"\n")
    agent = SqliteAgent(folder, schema, [Session("s", transcript, cold=cold), other])
    store = Opened(agent.close()).store
    assert store.holds_entries("s", iter(IDS))
    assert store.holds_entries("s", ["s1"])  # the header's
    assert store.holds_entries("s", [])
    assert not store.holds_entries("s", [*IDS, "b1"])
    assert not store.holds_entries("s", ["lone \ud83d"])
    assert not store.holds_entries("nowhere", [])
    assert not store.holds_entries("nowhere", ["a1"])
    store.close()


def test_entries_are_looked_for_in_the_rows_where_no_table_names_them(folder: Path) -> None:
    rows = [USER.replace(b'"a1"', b'"%d"' % number) for number in range(12_000)]
    agent = SqliteAgent(folder, 19, [Session("s", b"".join(row + b"\n" for row in rows))])
    store = Opened(agent).store
    assert store.holds_entries("s", map(str, range(12_000)))
    agent.connection.execute("DROP TABLE transcript_event_identities")
    store = Opened(agent).store
    assert store.holds_entries("s", map(str, range(12_000)))
    assert not store.holds_entries("s", map(str, range(12_001)))
    store.close()


def test_nothing_is_held_by_a_database_that_can_not_be_read(folder: Path) -> None:
    agent = SqliteAgent(folder, 23, [Session("s", TRANSCRIPT)]).close()
    agent.path.write_bytes(b"garbage " * 1_000)
    store = Opened(agent).store
    assert not store.holds_entries("s", ["a1"])
    assert "s" not in store


def test_cancelling_ends_an_analysis_in_the_middle_of_a_session(folder: Path) -> None:
    agent = SqliteAgent(folder, 23, [Session("s", LARGE)])
    found, steps = half_read(agent)
    found.token.cancel()
    with pytest.raises(Cancelled):
        next(steps)
    assert found.failures == {}


def test_memory_does_not_grow_with_the_sessions_but_for_their_ids(folder: Path) -> None:
    sessions = (
        Session(f"0a204e2-2d79-75f2-8866-{number:012}", TRANSCRIPT, {"updatedAt": 1}) for number in range(3_000)
    )
    agent = SqliteAgent(folder, 23, list(sessions)).close()
    found = Opened(agent)
    steps = found.store.sessions(NOW_MS)
    tracemalloc.start()
    try:
        for _ in steps:
            pass
        assert tracemalloc.get_traced_memory()[1] < 3_000 * 150 + MIB
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not REAL.exists(), reason="no real data here")
def test_real_sessions_count_as_a_whole_reading_of_the_database_says(tmp_path: Path) -> None:
    shutil.copytree(REAL, tmp_path / "home", copy_function=shutil.copyfile)
    folder = tmp_path / "home" / "agents" / "main"
    path = folder / "agent" / "openclaw-agent.sqlite"
    found = Opened(folder)
    sessions = found.rest()
    files = {file.relative_path.partition("#")[2]: file.size_bytes for file in found.store.files()}
    assert found.failures == {}
    shutil.copy(path, tmp_path / "copy.sqlite")  # its WAL is empty
    connection = sqlite3.connect(tmp_path / "copy.sqlite")
    transcripts: dict[str, bytes] = {}
    rows = connection.execute(
        "SELECT session_id, event_json, event_zstd FROM transcript_events ORDER BY session_id, seq"
    )
    for session_id, text, frame in rows:
        line = text.encode() if text is not None else zstandard.decompress(frame)
        transcripts[session_id] = transcripts.get(session_id, b"") + line + b"\n"
    entries_by_id = {
        (entry := json.loads(text))["sessionId"]: entry
        for (text,) in connection.execute("SELECT entry_json FROM session_nodes")
    }
    connection.close()
    assert ids(sessions) == sorted(transcripts)
    assert len(sessions) == 5
    assert sum(session["messageCount"] for session in sessions) > 50
    for session in sessions:
        text, entry = transcripts[session["sessionId"]], entries_by_id[session["sessionId"]]
        counts = oracle.analyse_transcript(text) | {"sizeBytes": len(text)}
        assert {field: session[field] for field in counts} == counts
        assert session["ageDays"] == max(0.0, (NOW_MS - entry["updatedAt"]) / DAY_MS)
        assert (session["totalTokens"], session["model"]) == (entry.get("totalTokens", 0), entry.get("model"))
        assert files[session["sessionId"]] == len(text)
        assert Opened(folder).lines(session["sessionId"]) == text
    # The one archive is a file too; without it, it is the row that is shown.
    (archive,) = (folder / "sessions").glob("*.zst")
    archived = zstandard.ZstdDecompressor().stream_reader(archive.read_bytes()).read()
    archive.unlink()
    last = analysed(folder)[-1]
    assert (last["sessionId"], last["kind"], last["archivedAs"]) == (archive.name, "archive", "deleted")
    counts = oracle.analyse_transcript(archived) | {"sizeBytes": len(archived)}
    assert {field: last[field] for field in counts} == counts
