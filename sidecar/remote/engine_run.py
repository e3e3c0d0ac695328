"""One run of an engine on a host: its request sent, its lease renewed, its output read, and the end of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from sidecar.errors import RemoteFailed
from sidecar.limits import LEASE_S
from sidecar.remote.engine_choice import Means, Program, choose
from sidecar.remote.engines import node_backup_script, node_script, python_backup_script, python_script
from sidecar.remote.pool import Host, SshConnectionPool
from sidecar.remote.process import RemoteProcess
from sidecar.remote.records import EngineRun

_SCRIPTS = {"node": node_script, "python": python_script}
_BACKUP_SCRIPTS = {"node": node_backup_script, "python": python_backup_script}


class ProgramRun:
    """An engine that runs on the host, in a program there."""

    def __init__(self, process: RemoteProcess, script: bytes, request: bytes) -> None:
        self._process = process
        self._renewing = asyncio.create_task(self._renew(b"%d\n" % len(script) + script + request + b"\n"))
        self.read = process.read

    async def _renew(self, first: bytes) -> None:
        await self._process.write(first)
        while True:
            await asyncio.sleep(LEASE_S)
            await self._process.write(b"\n")

    def end_input(self) -> None:
        """Have it end by itself, and say how."""
        self._renewing.cancel()
        self._process.write_eof()

    def close(self) -> None:
        self._renewing.cancel()
        self._process.close()


async def start_engine(pool: SshConnectionPool, host: Host, request: Mapping[str, Any]) -> EngineRun:
    """Start the best engine that the host has for sessions. ``SidecarError`` if it can't be reached."""
    means = await choose(pool, host)
    if means.program is not None:
        return await _start_program(
            pool, host, means.program, _SCRIPTS[means.program.kind](), _completed(request, means)
        )
    # Hosts that have a program need none of what reads sessions over SFTP.
    from sidecar.remote.sftp.engine import SftpRun

    return SftpRun(partial(pool.sftp, host), _completed(request, means))


async def start_backup_engine(pool: SshConnectionPool, host: Host, request: Mapping[str, Any]) -> ProgramRun:
    """Start what makes backups on the host. ``RemoteFailed`` if it has nothing that can; else as above."""
    means = await choose(pool, host)
    program = means.backup_program
    if program is None:
        raise RemoteFailed(
            "backups on a host need Python 3.8 or newer there, with its module sqlite3, or Node 18 or newer"
        )
    return await _start_program(pool, host, program, _BACKUP_SCRIPTS[program.kind](), _completed(request, means))


async def _start_program(
    pool: SshConnectionPool, host: Host, program: Program, script: bytes, request: Mapping[str, Any]
) -> ProgramRun:
    process = await pool.open(host, program.command)
    return ProgramRun(process, script, msgspec.json.encode(request))


def _completed(request: Mapping[str, Any], means: Means) -> dict[str, Any]:
    return {**request, "env": means.environment, "openclawHome": _at_home(request["openclawHome"], means)}


def _at_home(path: str | None, means: Means) -> str | None:
    """``path`` with the host's home directory for a ``~`` at its start, where that is known here."""
    home = means.environment.get("HOME")
    return home + path[1:] if home and path and (path == "~" or path.startswith("~/")) else path
