"""What has arrived of an analysis, and when."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from sidecar.demo.client import Notification


@dataclass(slots=True)
class Counts:
    """Figures of one agent, or of all."""

    sessions: int = 0
    files: int = 0
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


class AnalysisProgress:
    """One analysis as its notifications tell it; the clock starts when this is made."""

    def __init__(self) -> None:
        self._started_s = time.perf_counter()
        self.agents: dict[str, Agent] = {}
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
            files=sum(one.files for one in counts),
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
        agent.counts = Counts(
            sessions=chunk["totalFiles"],
            files=chunk["agentFilesTotal"],
            size_bytes=chunk["totalSizeBytes"],
            empty=chunk["emptyCount"],
            low_value=chunk["lowValueCount"],
            valuable=chunk["valuableCount"],
            messages=before.messages + sum(session["messageCount"] for session in sessions),
            tokens=before.tokens + sum(session["totalTokens"] for session in sessions),
            last_activity=max([before.last_activity, *(session["lastActivity"] or "" for session in sessions)]),
        )
