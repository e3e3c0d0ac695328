"""``analyze_sessions``, streamed and eager: every agent of a home, one after another."""

from __future__ import annotations

import logging

import msgspec

from sidecar.cancel import CancelToken
from sidecar.core.analysis import AgentSessionAnalysis, in_display_order
from sidecar.core.batching import ChunkBuilder, SessionsChunk
from sidecar.core.failures import FailedItems, Failure
from sidecar.limits import DEFAULT_BATCH_SESSIONS, MAX_BATCH_SESSIONS
from sidecar.stores.base import Home
from sidecar.streams.base import Event, Events, Outcome, sessions_closing

log = logging.getLogger(__name__)


class SessionsDone(msgspec.Struct, rename="camel"):
    """The payload of ``sessions:done``: what was sent up to the end, whatever the end was."""

    total_agents: int
    total_sessions: int
    cancelled: bool
    failed_items: int
    failures: list[Failure]


class AnalysisStream:
    """``sessions:chunk`` for each agent that has sessions, agents and sessions by name, then ``sessions:done``."""

    def __init__(self, home: Home, batch_size: int | None = None) -> None:
        self._home = home
        self._batch_size = min(max(DEFAULT_BATCH_SESSIONS if batch_size is None else batch_size, 1), MAX_BATCH_SESSIONS)
        self._agents = 0
        self._sessions = 0
        self._failed = FailedItems()

    def events(self, token: CancelToken) -> Events:
        """Raises as ``Home.agents`` does; whatever fails below that is a failed item."""
        chunks = ChunkBuilder(self._batch_size)
        for source in self._home.agents(token, self._failed):
            if source is None:
                yield None
                continue
            chunks.begin(source.agent)
            for session in source.sessions(self._home.now_ms):
                if session is not None:
                    chunks.add(session)
                yield Event("sessions:chunk", chunks.take(source.sessions_total)) if chunks.due else None
            if chunks.counts.total_files:
                yield Event("sessions:chunk", chunks.take(source.sessions_total, done=True))

    def sent(self, event: Event) -> None:
        chunk = event.payload
        assert isinstance(chunk, SessionsChunk)
        self._agents += chunk.done
        self._sessions += len(chunk.sessions)

    def closing(self, outcome: Outcome) -> list[Event]:
        done = SessionsDone(self._agents, self._sessions, outcome.cancelled, self._failed.count, self._failed.first)
        return sessions_closing(outcome, Event("sessions:done", done))


def analyze_sessions(home: Home, token: CancelToken) -> list[AgentSessionAnalysis]:
    """Every agent that has sessions with all of them, in the order of the eager command; failed items are logged."""
    failed = FailedItems()
    agents: list[AgentSessionAnalysis] = []
    for source in home.agents(token, failed):
        if source is None:
            continue
        agent = AgentSessionAnalysis(agent=source.agent)
        for session in source.sessions(home.now_ms):
            if session is not None:
                agent.add(session)
                agent.sessions.append(session)
        if agent.sessions:
            agents.append(agent)
    if failed.count:
        first = failed.first[0]
        log.warning("analyze_sessions left out %d items, the first is %s: %s", failed.count, first.path, first.error)
    return in_display_order(agents)
