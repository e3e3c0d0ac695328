"""What is said of a session: the wire's types, how a session is judged, and in which order sessions are listed."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from sidecar.core.transcript import Tally

Kind = Literal["sessions", "archive"]
StoreName = Literal["jsonl", "sqlite"]
ArchivedAs = Literal["reset", "deleted", "imported"] | None
Category = Literal["empty", "low_value", "valuable"]

EMPTY_BELOW_BYTES = 500
LOW_VALUE_ABOVE_DAYS = 7
DAY_MS = 86_400_000
_CATEGORY_ORDER = {"empty": 0, "low_value": 1, "valuable": 2}


class SessionAnalysis(msgspec.Struct, rename="camel", gc=False):
    """One session as the wire shows it; ``last_activity`` is as OpenClaw wrote it, ``age_days`` never negative."""

    agent: str
    session_id: str
    file_path: str
    size_bytes: int
    message_count: int
    user_message_count: int
    assistant_message_count: int
    last_activity: str | None
    age_days: float
    total_tokens: int
    model: str | None
    category: Category
    kind: Kind
    store: StoreName
    archived_as: ArchivedAs
    header_id: str | None
    skipped_lines: int


class AgentCounts(msgspec.Struct, rename="camel"):
    """The counters of one agent; in a stream they cover what was sent so far, this batch included."""

    total_files: int = 0
    total_size_bytes: int = 0
    empty_count: int = 0
    low_value_count: int = 0
    valuable_count: int = 0

    def add(self, session: SessionAnalysis) -> None:
        self.total_files += 1
        self.total_size_bytes += session.size_bytes
        match session.category:
            case "empty":
                self.empty_count += 1
            case "low_value":
                self.low_value_count += 1
            case "valuable":
                self.valuable_count += 1


class AgentSessionAnalysis(AgentCounts):
    """All sessions of one agent: the eager answer."""

    agent: str = ""
    sessions: list[SessionAnalysis] = []


class IndexEntry(NamedTuple):
    """What the session index says of a session; ``updated_at_ms`` is 0 where it says nothing."""

    updated_at_ms: int = 0
    total_tokens: int = 0
    model: str | None = None


class Transcript(NamedTuple):
    """Where a transcript lies and how it stood there when it was read."""

    agent: str
    session_id: str
    file_path: str
    kind: Kind
    size_bytes: int
    modified_at_ms: float
    store: StoreName = "jsonl"
    archived_as: ArchivedAs = None


def analyse(transcript: Transcript, tally: Tally, entry: IndexEntry, now_ms: float) -> SessionAnalysis:
    """Put together what the transcript and the index say of one session, and judge it (CONTRACT section 2)."""
    agent, session_id, file_path, kind, size_bytes, modified_at_ms, store, archived_as = transcript
    updated_at_ms, total_tokens, model = entry
    age_days = max(0.0, (now_ms - (updated_at_ms or modified_at_ms)) / DAY_MS)
    # By position, in the order of the fields: this runs once a session, and names cost a tenth of its time.
    return SessionAnalysis(
        agent,
        session_id,
        file_path,
        size_bytes,
        tally.messages,
        tally.users,
        tally.assistants,
        tally.last_activity,
        age_days,
        total_tokens,
        model,
        categorise(size_bytes, tally.messages, tally.users, age_days),
        kind,
        store,
        archived_as,
        tally.header_id,
        tally.skipped_lines,
    )


def categorise(size_bytes: int, messages: int, user_messages: int, age_days: float) -> Category:
    """Whether a session is worth keeping; nothing with a message in it is ever "empty" for its age."""
    if size_bytes < EMPTY_BELOW_BYTES or messages == 0:
        return "empty"
    if user_messages <= 1 and age_days > LOW_VALUE_ABOVE_DAYS:
        return "low_value"
    return "valuable"


def in_display_order(agents: list[AgentSessionAnalysis]) -> list[AgentSessionAnalysis]:
    """Sort, in place, agents by size and their sessions by category and age, as the eager command answers."""
    for agent in agents:
        agent.sessions.sort(key=lambda session: (_CATEGORY_ORDER[session.category], -session.age_days))
    agents.sort(key=lambda agent: -agent.total_size_bytes)
    return agents
