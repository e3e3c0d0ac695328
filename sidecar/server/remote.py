"""Hosts, as commands deal with them, without asyncssh as long as no command needs a connection.

asyncssh takes as long to import as all the rest of the sidecar: that happens in the worker thread of the first command.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from sidecar.cancel import CancelToken
from sidecar.errors import ConnectionBroken

if TYPE_CHECKING:
    from sidecar.remote.backups import RemoteBackups
    from sidecar.remote.engine_run import ProgramRun
    from sidecar.remote.home import RemoteHome
    from sidecar.remote.records import EngineRun
    from sidecar.remote.service import RemoteService

Job = Callable[[CancelToken], Any]


class _Connecting:
    """A job that will connect to a host, or does."""

    def __init__(self, host_id: str) -> None:
        self.host_id = host_id
        self.given_up = False


class Remote:
    """The way to ``RemoteService``, which is made when it is first needed."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._making = threading.Lock()
        self._service: RemoteService | None = None
        # Weak: a job that is never begun, or is over, is not waited for.
        self._connecting: weakref.WeakSet[_Connecting] = weakref.WeakSet()

    def home(self, clawpal_dir: str, host_id: str) -> RemoteHome:
        """The OpenClaw directory of a host, whether or not there is such a host: who reads it will know."""
        from sidecar.remote.home import RemoteHome

        def start(request: Mapping[str, Any]) -> Coroutine[Any, Any, EngineRun]:
            return self._made().start_engine(clawpal_dir, host_id, request)

        return RemoteHome(asyncio.get_running_loop(), start)

    def backups(self, clawpal_dir: str, host_id: str, share: bool) -> RemoteBackups:
        """The backups on a host, whether or not there is such a host, as above."""
        from sidecar.remote.backups import RemoteBackups

        def start(request: Mapping[str, Any]) -> Coroutine[Any, Any, ProgramRun]:
            return self._made().start_backup_engine(clawpal_dir, host_id, request)

        return RemoteBackups(asyncio.get_running_loop(), start, share)

    def job(self, begin: Callable[[RemoteService], Coroutine[Any, Any, Any]]) -> Job:
        """A job that waits for what ``begin`` begins."""
        loop = asyncio.get_running_loop()

        def work(token: CancelToken) -> Any:
            from sidecar.remote.waiting import wait

            return wait(loop, begin(self._made()), token)

        return work

    def connect(self, clawpal_dir: str, host_id: str, passphrase: str | None = None) -> Job:
        """A job that connects to a host, unless that is disconnected before it is done: also while asyncssh loads."""
        connecting = _Connecting(host_id)
        self._connecting.add(connecting)
        loop = asyncio.get_running_loop()
        connect = self.job(lambda service: service.connect(clawpal_dir, host_id, passphrase))

        def work(token: CancelToken) -> Any:
            result = None if connecting.given_up else connect(token)
            if connecting.given_up:
                loop.call_soon_threadsafe(self.disconnect, host_id)
                raise ConnectionBroken("connection closed: the host was disconnected meanwhile")
            return result

        return work

    def disconnect(self, host_id: str) -> None:
        """Close the connection, and give up those that are being made."""
        for connecting in self._connecting:
            connecting.given_up = connecting.given_up or connecting.host_id == host_id
        if self._service is not None:
            self._service.disconnect(host_id)

    def is_connected(self, host_id: str) -> bool:
        return self._service is not None and self._service.is_connected(host_id)

    def transfer_stats(self, host_id: str) -> dict[str, Any]:
        """``{hostId, uploadBytesPerSec, downloadBytesPerSec, totalUploadBytes, totalDownloadBytes, updatedAtMs}``."""
        up_rate, down_rate, up_bytes, down_bytes = (
            self._service.transfers(host_id) if self._service is not None else (0, 0, 0, 0)
        )
        return {
            "hostId": host_id,
            "uploadBytesPerSec": up_rate,
            "downloadBytesPerSec": down_rate,
            "totalUploadBytes": up_bytes,
            "totalDownloadBytes": down_bytes,
            "updatedAtMs": round(time.time() * 1000),
        }

    async def close(self) -> None:
        """Close all connections."""
        if self._service is not None:
            await self._service.close()

    def _made(self) -> RemoteService:
        with self._making:
            if self._service is None:
                from sidecar.remote.service import RemoteService

                self._service = RemoteService(self._environ)
            return self._service
