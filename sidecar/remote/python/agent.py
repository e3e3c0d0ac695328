"""All sessions of one agent, of files and database: the twin of ``sidecar/stores/agent.py``."""

from __future__ import annotations

import os
from typing import Iterator

from sidecar.remote.python.blocks import Item
from sidecar.remote.python.host import Host
from sidecar.remote.python.jsonl_store import JsonlStore
from sidecar.remote.python.locations import Agent
from sidecar.remote.python.optional_sqlite import sqlite3
from sidecar.remote.python.sqlite_store import DATABASE, SqliteStore
from sidecar.remote.python.text import raw
from sidecar.remote.python.zstd import Zstd


class AgentSessions:
    """All sessions of one agent: files come first, then what is in the database alone."""

    def __init__(self, agent: Agent, host: Host, zstd: Zstd) -> None:
        self._stores: list[JsonlStore | SqliteStore] = []
        try:
            os.stat(raw(agent.path))
        except OSError as error:  # a loop of links, say: one failed item, not one for each folder that should be in it
            host.failed(agent.path, error)
            return
        database = database_of(agent, host, zstd)
        self._stores.append(JsonlStore(agent, host, zstd, database))
        if database is not None:
            self._stores.append(database)

    @property
    def sessions_total(self) -> int:
        """How many sessions are known; goes down when one vanishes before it is read."""
        return sum(store.sessions_total for store in self._stores)

    def analyse(self) -> Iterator[None]:
        """Say what each session holds; gives after each."""
        for store in self._stores:
            yield from store.analyse()

    def transcript(self, session_id: str) -> Iterator[Item] | None:
        """The transcript of a session as it lies there; ``None`` if the agent has none of that id. ``FAULTS``."""
        # The database first: a file of the same id is a copy of what was in it once. What can't be read comes last.
        for store in self._stores if sqlite3 is None else reversed(self._stores):
            items = store.transcript(session_id)
            if items is not None:
                return items
        return None


def database_of(agent: Agent, host: Host, zstd: Zstd) -> SqliteStore | None:
    """The database of an agent, if it has one."""
    return SqliteStore(agent, host, zstd) if os.path.exists(raw(os.path.join(agent.path, DATABASE))) else None
