"""All that commands do with hosts, by the ids that the app gave them; runs in the loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from sidecar.remote.connect import Surroundings
from sidecar.remote.engine_run import ProgramRun, start_backup_engine, start_engine
from sidecar.remote.hosts import Instance, find_host
from sidecar.remote.pool import Host, SshConnectionPool
from sidecar.remote.records import EngineRun

KNOWN_HOSTS = "known_hosts"


class RemoteService:
    """The hosts in the ``instances.json`` of a ClawPal directory, and the connections to them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._pool = SshConnectionPool()

    async def start_engine(self, clawpal_dir: str, host_id: str, request: Mapping[str, Any]) -> EngineRun:
        """Start an engine on a host. ``SidecarError`` or ``OSError`` if there is no such host, or no way to it."""
        host, instance = await self._find(clawpal_dir, host_id)
        return await start_engine(self._pool, host, {**request, "openclawHome": instance.openclaw_home})

    async def start_backup_engine(self, clawpal_dir: str, host_id: str, request: Mapping[str, Any]) -> ProgramRun:
        """Start what makes backups on a host. Errors as above, and ``RemoteFailed`` if it has nothing that can."""
        host, instance = await self._find(clawpal_dir, host_id)
        places = {"openclawHome": instance.openclaw_home, "clawpalDir": instance.clawpal_data_dir}
        return await start_backup_engine(self._pool, host, {**request, **places})

    async def connect(self, clawpal_dir: str, host_id: str, passphrase: str | None = None) -> bool:
        """Connect, with a passphrase for the key if one is given; True. Errors as above."""
        host, _ = await self._find(clawpal_dir, host_id)
        await self._pool.connect(host, passphrase)
        return True

    async def trust(self, clawpal_dir: str, host_id: str, fingerprint: str) -> bool:
        """Trust the key of this fingerprint, if it is that of the host; True. Errors as above."""
        host, _ = await self._find(clawpal_dir, host_id)
        await self._pool.trust(host, fingerprint)
        return True

    def disconnect(self, host_id: str) -> None:
        """Close the connection, if there is one."""
        self._pool.disconnect(host_id)

    def is_connected(self, host_id: str) -> bool:
        return self._pool.is_connected(host_id)

    def transfers(self, host_id: str) -> tuple[int, int, int, int]:
        """Bytes a second up and down, of late, and bytes up and down in all: what commands wrote and read."""
        transfers = self._pool.transfers(host_id)
        return *transfers.rates(), transfers.uploaded_bytes, transfers.downloaded_bytes

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    async def _find(self, clawpal_dir: str, host_id: str) -> tuple[Host, Instance]:
        instance = await asyncio.to_thread(find_host, clawpal_dir, host_id)
        surroundings = Surroundings(os.path.join(clawpal_dir, KNOWN_HOSTS), self._environ)
        return Host(instance.host, surroundings), instance
