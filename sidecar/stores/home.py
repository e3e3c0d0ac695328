"""The OpenClaw directory of this machine, as ``base.Home``."""

from __future__ import annotations

import time
from collections.abc import Iterator

from sidecar.cancel import CancelToken
from sidecar.core.blocks import Block
from sidecar.core.failures import FailedItems
from sidecar.errors import InvalidParams
from sidecar.stores.agent import AgentSessions, database_files, database_ids
from sidecar.stores.base import SessionFile
from sidecar.stores.listing import DatabaseFiles, list_files
from sidecar.stores.locations import find_agent, list_agents, objection_to_name
from sidecar.stores.scan_index import ScanIndex
from sidecar.stores.session_folders import DatabaseIds, LocalFolders


class LocalHome:
    """What lies in ``openclaw_dir``; the clock is read when this is made.

    ``index_folder`` is where the index of what was counted lies, or shall; without one, everything is counted anew.
    """

    def __init__(
        self,
        openclaw_dir: str,
        database_files: DatabaseFiles = database_files,
        database_ids: DatabaseIds = database_ids,
        *,
        index_folder: str | None = None,
    ) -> None:
        self._openclaw_dir = openclaw_dir
        self._database_files = database_files
        self._database_ids = database_ids
        self._index_folder = index_folder
        self.now_ms = time.time() * 1000

    def agents(self, token: CancelToken, failed: FailedItems) -> Iterator[AgentSessions]:
        """As ``Home.agents``."""
        index = ScanIndex(self._index_folder) if self._index_folder is not None else None
        try:
            for folder in list_agents(self._openclaw_dir):
                yield AgentSessions(folder, token, failed, index)
        finally:
            if index is not None:
                index.close()

    def files(self, token: CancelToken, failed: FailedItems) -> Iterator[SessionFile | None]:
        """As ``Home.files``."""
        return list_files(self._openclaw_dir, token, failed, self._database_files)

    def transcript(self, agent_id: str, session_id: str, token: CancelToken) -> Iterator[Block] | None:
        """As ``Home.transcript``."""
        if objection := objection_to_name(session_id):
            raise InvalidParams(f"sessionId: {objection}")
        try:
            agent = find_agent(self._openclaw_dir, agent_id)
        except FileNotFoundError:
            return None
        return AgentSessions(agent, token, FailedItems()).transcript(session_id)

    def folders_of(self, agent_id: str, token: CancelToken) -> LocalFolders:
        """As ``deletion.Deletable.folders_of``."""
        return LocalFolders(find_agent(self._openclaw_dir, agent_id), token, self._database_ids)

    def folders_of_all(self, token: CancelToken) -> Iterator[LocalFolders]:
        """As ``deletion.Deletable.folders_of_all``."""
        for agent in list_agents(self._openclaw_dir):
            yield LocalFolders(agent, token, self._database_ids)
