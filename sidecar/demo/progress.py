"""What has arrived of an analysis, or of a preview, and when."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sidecar.demo.client import Notification


@dataclass(slots=True)
class Counts:
    """Figures of one agent, or of all."""

    sessions: int = 0
    expected: int = 0
    in_files: int = 0
    in_database: int = 0
    archives: int = 0
    size_bytes: int = 0
    empty: int = 0
    low_value: int = 0
    valuable: int = 0
    messages: int = 0
    tokens: int = 0
    last_activity: str = ""


@dataclass(slots=True)
class Agent:
    """An agent that has appeared."""

    name: str
    first_chunk_ms: float
    counts: Counts = field(default_factory=Counts)


class Latest(NamedTuple):
    """The session with the latest message, of some."""

    last_activity: str
    agent: str
    session_id: str


class AnalysisProgress:
    """One analysis as its notifications tell it; the clock starts when this is made."""

    def __init__(self) -> None:
        self._started_s = time.perf_counter()
        self.agents: dict[str, Agent] = {}
        self.archived_as: Counter[str] = Counter()
        self.latest: dict[str, Latest] = {}
        self.chunks = 0
        self.first_chunk_ms: float | None = None
        self.ended_ms: float | None = None
        self.error: str | None = None
        self.terminal: dict[str, Any] = {}

    @property
    def elapsed_ms(self) -> float:
        """Time since the request; stands still from the terminal on."""
        return self.ended_ms if self.ended_ms is not None else (time.perf_counter() - self._started_s) * 1000

    def take(self, notification: Notification) -> None:
        match notification:
            case ("sessions:chunk", chunk):
                self._take_chunk(chunk)
            case ("sessions:error", params):
                self.error = params["error"]
            case ("sessions:done", params):
                self.ended_ms = self.elapsed_ms
                self.terminal = params

    def total(self) -> Counts:
        """The sums over all agents so far."""
        # A copy of the values: the display asks from its own thread.
        counts = [agent.counts for agent in list(self.agents.values())]
        return Counts(
            sessions=sum(one.sessions for one in counts),
            expected=sum(one.expected for one in counts),
            in_files=sum(one.in_files for one in counts),
            in_database=sum(one.in_database for one in counts),
            archives=sum(one.archives for one in counts),
            size_bytes=sum(one.size_bytes for one in counts),
            empty=sum(one.empty for one in counts),
            low_value=sum(one.low_value for one in counts),
            valuable=sum(one.valuable for one in counts),
            messages=sum(one.messages for one in counts),
            tokens=sum(one.tokens for one in counts),
            last_activity=max((one.last_activity for one in counts), default=""),
        )

    def _take_chunk(self, chunk: dict[str, Any]) -> None:
        now_ms = self.elapsed_ms
        if self.first_chunk_ms is None:
            self.first_chunk_ms = now_ms
        self.chunks += 1
        agent = self.agents.get(chunk["agent"])
        if agent is None:
            agent = self.agents[chunk["agent"]] = Agent(chunk["agent"], now_ms)
        # The chunk's own counters are for the agent so far, what its sessions hold is still to be added up.
        before, sessions = agent.counts, chunk["sessions"]
        places = Counter(_place(session) for session in sessions)
        agent.counts = Counts(
            sessions=chunk["totalFiles"],
            expected=chunk["agentFilesTotal"],
            in_files=before.in_files + places["jsonl"],
            in_database=before.in_database + places["sqlite"],
            archives=before.archives + places["archive"],
            size_bytes=chunk["totalSizeBytes"],
            empty=chunk["emptyCount"],
            low_value=chunk["lowValueCount"],
            valuable=chunk["valuableCount"],
            messages=before.messages + sum(session["messageCount"] for session in sessions),
            tokens=before.tokens + sum(session["totalTokens"] for session in sessions),
            last_activity=max([before.last_activity, *(session["lastActivity"] or "" for session in sessions)]),
        )
        self.archived_as.update(session["archivedAs"] for session in sessions if session["archivedAs"])
        for session in sessions:
            self._keep_latest(session)

    def _keep_latest(self, session: dict[str, Any]) -> None:
        """Note the session if it is the latest so far in its place: the one that a preview is most telling of."""
        place, at = _place(session), session["lastActivity"]
        if at is not None and (place not in self.latest or at > self.latest[place].last_activity):
            self.latest[place] = Latest(at, session["agent"], session["sessionId"])


class PreviewProgress:
    """One preview as its notifications tell it, of which the first messages are kept."""

    def __init__(self, kept: int) -> None:
        self._started_s = time.perf_counter()
        self._kept = kept
        self.messages: list[dict[str, str]] = []
        self.total = 0
        self.first_page_ms: float | None = None
        self.error: str | None = None

    def take(self, notification: Notification) -> None:
        match notification:
            case ("session-preview:page", page):
                if self.first_page_ms is None:
                    self.first_page_ms = (time.perf_counter() - self._started_s) * 1000
                self.messages += page["messages"][: self._kept - len(self.messages)]
                self.total = page["totalMessages"]
            case ("sessions:error", params):
                self.error = params["error"]


def _place(session: dict[str, Any]) -> str:
    """Where a session lies: ``"jsonl"``, ``"sqlite"``, or ``"archive"`` in either."""
    return "archive" if session["kind"] == "archive" else str(session["store"])
