"""``analyze_sessions``, streamed and eager: every agent of an OpenClaw directory, one after another."""

from __future__ import annotations

import logging
import time

import msgspec

from sidecar.cancel import CancelToken
from sidecar.core.analysis import AgentSessionAnalysis, in_display_order
from sidecar.core.batching import ChunkBuilder, SessionsChunk
from sidecar.core.failures import FailedItems, Failure
from sidecar.limits import DEFAULT_BATCH_SESSIONS, MAX_BATCH_SESSIONS
from sidecar.stores.agent import AgentSessions
from sidecar.stores.locations import list_agents
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

    def __init__(self, openclaw_dir: str, batch_size: int | None = None) -> None:
        self._openclaw_dir = openclaw_dir
        self._batch_size = min(max(DEFAULT_BATCH_SESSIONS if batch_size is None else batch_size, 1), MAX_BATCH_SESSIONS)
        self._agents = 0
        self._sessions = 0
        self._failed = FailedItems()

    def events(self, token: CancelToken) -> Events:
        """``OSError`` if the folder of the agents can't be listed; whatever fails below it is a failed item."""
        chunks = ChunkBuilder(self._batch_size)
        now_ms = time.time() * 1000
        for folder in list_agents(self._openclaw_dir):
            store = AgentSessions(folder, token, self._failed)
            chunks.begin(store.agent)
            for session in store.sessions(now_ms):
                if session is not None:
                    chunks.add(session)
                yield Event("sessions:chunk", chunks.take(store.sessions_total)) if chunks.due else None
            if chunks.counts.total_files:
                yield Event("sessions:chunk", chunks.take(store.sessions_total, done=True))

    def sent(self, event: Event) -> None:
        chunk = event.payload
        assert isinstance(chunk, SessionsChunk)
        self._agents += chunk.done
        self._sessions += len(chunk.sessions)

    def closing(self, outcome: Outcome) -> list[Event]:
        done = SessionsDone(self._agents, self._sessions, outcome.cancelled, self._failed.count, self._failed.first)
        return sessions_closing(outcome, Event("sessions:done", done))


def analyze_sessions(openclaw_dir: str, token: CancelToken) -> list[AgentSessionAnalysis]:
    """Every agent that has sessions with all of them, in the order of the eager command; failed items are logged."""
    failed = FailedItems()
    agents: list[AgentSessionAnalysis] = []
    now_ms = time.time() * 1000
    for folder in list_agents(openclaw_dir):
        store = AgentSessions(folder, token, failed)
        agent = AgentSessionAnalysis(agent=store.agent)
        for session in store.sessions(now_ms):
            if session is not None:
                agent.add(session)
                agent.sessions.append(session)
        if agent.sessions:
            agents.append(agent)
    if failed.count:
        first = failed.first[0]
        log.warning("analyze_sessions left out %d items, the first is %s: %s", failed.count, first.path, first.error)
    return in_display_order(agents)
