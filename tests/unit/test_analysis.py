"""What is said of a session, how it is judged, and the order of the eager answer (CONTRACT section 2)."""

from __future__ import annotations

import msgspec
import pytest

from sidecar.core.analysis import (
    DAY_MS,
    AgentSessionAnalysis,
    Category,
    IndexEntry,
    SessionAnalysis,
    Transcript,
    analyse,
    categorise,
    in_display_order,
)
from sidecar.core.transcript import Tally

NOW_MS = 1_795_378_579_852.0
FILE = Transcript("main", "s1", "/agents/main/sessions/s1.jsonl", "sessions", 600, NOW_MS - 2 * DAY_MS)


@pytest.mark.parametrize(
    ("size_bytes", "messages", "users", "age_days", "category"),
    [
        (499, 5, 5, 0.0, "empty"),
        (500, 5, 5, 0.0, "valuable"),
        (0, 0, 0, 0.0, "empty"),
        (1_000_000, 0, 0, 100.0, "empty"),
        (499, 5, 0, 100.0, "empty"),
        (500, 1, 1, 7.0, "valuable"),
        (500, 1, 1, 7.000001, "low_value"),
        (500, 5, 0, 8.0, "low_value"),
        (500, 5, 2, 8.0, "valuable"),
        (500, 1, 0, 6.9, "valuable"),
    ],
)
def test_a_session_is_judged_by_size_messages_and_age(
    size_bytes: int, messages: int, users: int, age_days: float, category: Category
) -> None:
    assert categorise(size_bytes, messages, users, age_days) == category


def tally(messages: int = 3, users: int = 1) -> Tally:
    counts = Tally()
    counts.messages, counts.users, counts.assistants = messages, users, messages - users
    counts.last_activity, counts.header_id, counts.skipped_lines = "2026-11-22T20:16:19.852Z", "h1", 4
    return counts


def test_an_analysis_has_the_fields_of_the_contract_and_no_other() -> None:
    analysis = analyse(FILE, tally(), IndexEntry(int(NOW_MS) - DAY_MS, 41_000, "kimi-k2"), NOW_MS)
    assert msgspec.to_builtins(analysis) == {
        "agent": "main",
        "sessionId": "s1",
        "filePath": "/agents/main/sessions/s1.jsonl",
        "sizeBytes": 600,
        "messageCount": 3,
        "userMessageCount": 1,
        "assistantMessageCount": 2,
        "lastActivity": "2026-11-22T20:16:19.852Z",
        "ageDays": 1.0,
        "totalTokens": 41_000,
        "model": "kimi-k2",
        "category": "valuable",
        "kind": "sessions",
        "store": "jsonl",
        "archivedAs": None,
        "headerId": "h1",
        "skippedLines": 4,
    }


def test_the_age_counts_from_the_index_else_from_the_file() -> None:
    assert analyse(FILE, tally(), IndexEntry(int(NOW_MS) - 5 * DAY_MS), NOW_MS).age_days == 5.0
    assert analyse(FILE, tally(), IndexEntry(), NOW_MS).age_days == 2.0


def test_an_age_is_never_negative() -> None:
    assert analyse(FILE, tally(), IndexEntry(int(NOW_MS) + DAY_MS), NOW_MS).age_days == 0.0
    assert analyse(FILE._replace(modified_at_ms=NOW_MS + 1), tally(), IndexEntry(), NOW_MS).age_days == 0.0


@pytest.mark.parametrize(("late_ms", "category"), [(0, "valuable"), (1, "low_value")])
def test_a_session_is_of_low_value_once_it_is_older_than_seven_days(late_ms: int, category: Category) -> None:
    entry = IndexEntry(int(NOW_MS) - 7 * DAY_MS - late_ms)
    assert analyse(FILE, tally(), entry, int(NOW_MS)).category == category


def named(session_id: str, category: Category, age_days: float, size_bytes: int = 600) -> SessionAnalysis:
    analysis = analyse(FILE._replace(session_id=session_id, size_bytes=size_bytes), tally(), IndexEntry(), NOW_MS)
    return msgspec.structs.replace(analysis, category=category, age_days=age_days)


def agent(name: str, *sessions: SessionAnalysis) -> AgentSessionAnalysis:
    found = AgentSessionAnalysis(agent=name)
    for session in sessions:
        found.add(session)
        found.sessions.append(session)
    return found


def test_sessions_are_ordered_empty_then_low_value_then_valuable_and_by_age_within() -> None:
    sessions = [
        named("new valuable", "valuable", 1.0),
        named("old valuable", "valuable", 90.0),
        named("new low", "low_value", 8.0),
        named("old low", "low_value", 80.0),
        named("new empty", "empty", 0.0),
        named("old empty", "empty", 30.0),
    ]
    (ordered,) = in_display_order([agent("main", *sessions)])
    assert [session.session_id for session in ordered.sessions] == [
        "old empty",
        "new empty",
        "old low",
        "new low",
        "old valuable",
        "new valuable",
    ]


def test_sessions_alike_in_category_and_age_stay_in_their_order() -> None:
    (ordered,) = in_display_order([agent("main", *(named(name, "valuable", 2.0) for name in "bac"))])
    assert [session.session_id for session in ordered.sessions] == ["b", "a", "c"]


def test_agents_are_ordered_by_size_and_alike_ones_stay_in_their_order() -> None:
    agents = [
        agent("a", named("s", "valuable", 0.0, 600)),
        agent("b", named("s", "valuable", 0.0, 900)),
        agent("c", named("s", "valuable", 0.0, 600)),
        agent("d", named("s", "valuable", 0.0, 500), named("t", "empty", 0.0, 450)),
    ]
    assert [found.agent for found in in_display_order(agents)] == ["d", "b", "a", "c"]


def test_the_counters_of_an_agent_add_up_its_sessions() -> None:
    sessions = [named("e", "empty", 0.0, 100), named("l", "low_value", 9.0), named("v", "valuable", 0.0)]
    assert msgspec.to_builtins(agent("main", *sessions)) | {"sessions": None} == {
        "agent": "main",
        "totalFiles": 3,
        "totalSizeBytes": 1_300,
        "emptyCount": 1,
        "lowValueCount": 1,
        "valuableCount": 1,
        "sessions": None,
    }
