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
from sidecar.stores.session_folders import DatabaseIds, LocalFolders


class LocalHome:
    """What lies in ``openclaw_dir``; the clock is read when this is made."""

    def __init__(
        self,
        openclaw_dir: str,
        database_files: DatabaseFiles = database_files,
        database_ids: DatabaseIds = database_ids,
    ) -> None:
        self._openclaw_dir = openclaw_dir
        self._database_files = database_files
        self._database_ids = database_ids
        self.now_ms = time.time() * 1000

    def agents(self, token: CancelToken, failed: FailedItems) -> Iterator[AgentSessions]:
        """As ``Home.agents``."""
        for folder in list_agents(self._openclaw_dir):
            yield AgentSessions(folder, token, failed)

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
