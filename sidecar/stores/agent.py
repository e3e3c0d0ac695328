"""All sessions of one agent as one list: files of both eras and the database, nothing twice."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator
from typing import TYPE_CHECKING

from sidecar.cancel import CancelToken
from sidecar.core.analysis import SessionAnalysis
from sidecar.core.blocks import Block
from sidecar.core.failures import FailedItems
from sidecar.errors import SourceUnreadable
from sidecar.stores.base import SessionFile, Store
from sidecar.stores.jsonl import JsonlStore
from sidecar.stores.locations import AgentFolder
from sidecar.stores.scan_index import ScanIndex
from sidecar.text import wire_name

if TYPE_CHECKING:
    from sidecar.stores.sqlite import SqliteStore

DATABASE = os.path.join("agent", "openclaw-agent.sqlite")


class AgentSessions:
    """The stores of one agent. Files come first, then what is in the database alone."""

    def __init__(
        self, agent: AgentFolder, token: CancelToken, failed: FailedItems, index: ScanIndex | None = None
    ) -> None:
        self.agent = wire_name(agent.name)
        self._stores: list[Store] = []
        self._database: SqliteStore | None = None
        try:
            os.stat(agent.path)
        except OSError as error:  # a loop of links, say: one failed item, not one for each folder that should be in it
            failed.add(wire_name(agent.path), error)
            return
        self._database = _database(agent, token, failed)
        self._stores = [JsonlStore(agent, token, failed, self._database, index)]
        if self._database is not None:
            self._stores.append(self._database)

    @property
    def sessions_total(self) -> int:
        """How many sessions are known; goes down when one vanishes before it is read."""
        return sum(store.sessions_total for store in self._stores)

    def sessions(self, now_ms: float) -> Iterator[SessionAnalysis | None]:
        """Analyse one session after another; ``None`` between the blocks of a large one."""
        try:
            for store in self._stores:
                yield from store.sessions(now_ms)
        finally:
            # Files are compared with it: it may be open though its own turn never came.
            if self._database is not None:
                self._database.close()

    def transcript(self, session_id: str) -> Iterator[Block] | None:
        """The transcript of a session as blocks of whole lines; ``None`` if the agent has none of that id."""
        # The database first: a file of the same id is a copy of what was in it once.
        for store in reversed(self._stores):
            blocks = store.transcript(session_id)
            if blocks is not None:
                return blocks
        return None


def database_files(agent: AgentFolder, token: CancelToken, failed: FailedItems) -> Iterable[SessionFile]:
    """The rows that an agent's database adds to ``list_session_files``, by ``relative_path``."""
    database = _database(agent, token, failed)
    return database.files() if database else ()


def database_ids(agent: AgentFolder) -> Container[str]:
    """The ids, as on the wire, of what is in an agent's database: sessions, and archives by their names.

    ``SourceUnreadable`` if it can't be read: nothing is known then not to be in it, so nothing may be deleted.
    """
    failed = FailedItems()
    database = _database(agent, CancelToken(), failed)
    ids = database.ids() if database else set[str]()
    if failed.count:
        raise SourceUnreadable(f"{failed.first[0].path}: {failed.first[0].error}")
    return ids


def _database(agent: AgentFolder, token: CancelToken, failed: FailedItems) -> SqliteStore | None:
    if not os.path.exists(os.path.join(agent.path, DATABASE)):
        return None
    # Homes of the first era need neither SQLite nor zstd.
    from sidecar.stores.sqlite import SqliteStore

    return SqliteStore(agent, token, failed)
