"""When a chunk of sessions is full: by count, or by the age of its first one."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from sidecar.core.analysis import AgentCounts, SessionAnalysis
from sidecar.limits import CHUNK_AGE_MS, FIRST_CHUNK_AGE_MS


class SessionsChunk(AgentCounts):
    """The payload of ``sessions:chunk``: some sessions of one agent and its counters so far."""

    agent: str = ""
    sessions: list[SessionAnalysis] = []
    agent_files_total: int = 0
    done: bool = False


class ChunkBuilder:
    """Gathers sessions into chunks of at most ``batch_size``, none held longer than ``CHUNK_AGE_MS``.

    The first chunk of a stream closes sooner (``FIRST_CHUNK_AGE_MS``), since someone waits for it.
    """

    def __init__(self, batch_size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._batch_size = batch_size
        self._clock = clock
        self._age_s = FIRST_CHUNK_AGE_MS / 1000
        self._due_at = 0.0
        self._sessions: list[SessionAnalysis] = []
        self.begin("")

    def begin(self, agent: str) -> None:
        """Start with the next agent: its counters begin at 0."""
        self._agent = agent
        self.counts = AgentCounts()

    def add(self, session: SessionAnalysis) -> None:
        if not self._sessions:
            self._due_at = self._clock() + self._age_s
        self._sessions.append(session)
        self.counts.add(session)

    @property
    def due(self) -> bool:
        """Whether a chunk should go out now: ask after each session, and now and then within a large one."""
        return bool(self._sessions) and (len(self._sessions) >= self._batch_size or self._clock() >= self._due_at)

    def take(self, files_total: int, *, done: bool = False) -> SessionsChunk:
        """The sessions gathered since the last chunk, with the agent's counters so far, of ``files_total`` in all."""
        sessions, self._sessions = self._sessions, []
        self._age_s = CHUNK_AGE_MS / 1000
        return SessionsChunk(
            **msgspec.structs.asdict(self.counts),
            agent=self._agent,
            sessions=sessions,
            agent_files_total=files_total,
            done=done,
        )
