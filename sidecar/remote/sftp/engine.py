"""The engine for a host that has neither Node nor Python: it runs here, and reads the host over SFTP.

It says what the others say, as README.md has it, so that whoever reads need not know which one it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any

import asyncssh

from sidecar.errors import ConnectionBroken, HomeUnknown, HostTimedOut, InvalidParams, SidecarError
from sidecar.limits import BEAT_S, CHANNEL_IDLE_S, REMOVAL_ENDS_WITHIN_S
from sidecar.remote.sftp.errors import LinkLost
from sidecar.remote.sftp.files import HostFiles
from sidecar.remote.sftp.home import find_agent, list_agents, openclaw_dir
from sidecar.remote.sftp.listing import FileListing, tell_ids, tell_names
from sidecar.remote.sftp.output import BEAT, Output, told
from sidecar.remote.sftp.preview import find_transcript, send_transcript
from sidecar.remote.sftp.removal import Removal
from sidecar.remote.sftp.sessions import AgentTranscripts
from sidecar.stores.locations import objection_to_name
from sidecar.text import wire_name

OpenSftp = Callable[[], AbstractAsyncContextManager[asyncssh.SFTPClient]]
"""Opens an SFTP session, which ends with the block."""


class SftpRun:
    """One run of this engine, begun when it is made, in the loop that the connection lives in.

    As much as ``SFTP_OUTPUT_BYTES`` waits here for its reader; then nothing more is asked of the host.
    """

    def __init__(self, open_sftp: OpenSftp, request: Mapping[str, Any]) -> None:
        self._open_sftp = open_sftp
        self._request = request
        self._output = Output()
        self._files: HostFiles | None = None
        self._is_closed = False
        self._task = asyncio.create_task(self._work())
        self._task.add_done_callback(self._ended)

    async def read(self) -> bytes:
        """The next output, a beat if there is none; empty at the end.

        ``HostTimedOut`` when the host owed an answer for ``CHANNEL_IDLE_S``, ``ConnectionBroken`` when it has gone,
        and whatever opening the session raises.
        """
        while not (chunk := self._output.take()):
            if self._is_closed:
                raise ConnectionBroken("connection closed: the command was given up")
            if self._task.done():
                self._raise_failure()
                return b""
            try:
                async with asyncio.timeout(BEAT_S):
                    await self._output.wait()
            except TimeoutError:
                if self._files is not None and self._files.silent_s > CHANNEL_IDLE_S:
                    self.close()
                    self._end()
                    raise HostTimedOut(f"timed out: the host sent nothing for {CHANNEL_IDLE_S:.0f} s") from None
                return BEAT
        return chunk

    def close(self) -> None:
        """End it, at any time: what was asked of the host is not waited for.

        Only a removal first finishes the session that it is at, and its index, within ``REMOVAL_ENDS_WITHIN_S``.
        """
        is_first = not self._is_closed
        self._is_closed = True
        self._output.let_go()
        if self._request["op"] != "remove":
            self._end()
        elif is_first:
            asyncio.get_running_loop().call_later(REMOVAL_ENDS_WITHIN_S, self._end)

    def _end(self) -> None:
        if not self._task.done():
            self._task.cancel()
            # On its way out it may wait for the host again, in vain perhaps: asyncssh closes what it was reading.
            asyncio.get_running_loop().call_soon(self._end)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # taken note of, though nobody may read any more
        self._output.wake()

    def _raise_failure(self) -> None:
        try:
            self._task.result()
        except LinkLost as lost:
            raise lost.error from None
        except asyncio.CancelledError:
            raise ConnectionBroken("connection closed: the command was given up") from None

    async def _work(self) -> None:
        session = self._open_sftp()
        opening = asyncio.ensure_future(session.__aenter__())
        try:
            # A channel that opens later must be closed as well.
            client = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(partial(_leave, session))
            raise
        try:
            self._files = HostFiles(client)
            await self._answer(self._files)
        finally:
            await session.__aexit__(None, None, None)

    async def _answer(self, files: HostFiles) -> None:
        request, output = self._request, self._output
        # SFTP tells no clock, and reading must not write a file whose time would.
        hello = ("hello", "sftp", asyncssh.__version__, time.time() * 1000)
        try:
            try:
                folder = await openclaw_dir(files, request)
            except HomeUnknown:
                await output.begin(request["nonce"], *hello, None, False, True)
                raise
            await output.begin(request["nonce"], *hello, wire_name(folder), False, True)
            if request["op"] == "remove":
                agent = await find_agent(files, folder, request["agentId"])
                await Removal(files, output, agent, lambda: self._is_closed).run(request["sessions"])
            else:
                await _OPERATIONS[request["op"]](files, output, folder, request)
        except SidecarError as error:
            await self._output.tell("fail", *told(error), error.kind)
        except OSError as error:
            await self._output.tell("fail", *told(error), None)
        else:
            await self._output.tell("end")


_LEAVING: set[asyncio.Future[Any]] = set()
"""Sessions that are being closed; a task that nothing refers to may vanish before it is done."""


def _leave(session: AbstractAsyncContextManager[asyncssh.SFTPClient], opening: asyncio.Future[Any]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        leaving = asyncio.ensure_future(session.__aexit__(None, None, None))
        _LEAVING.add(leaving)
        leaving.add_done_callback(_LEAVING.discard)


_Operation = Callable[[HostFiles, Output, str, Mapping[str, Any]], Awaitable[None]]


async def _analyze(files: HostFiles, output: Output, folder: str, _: Mapping[str, Any]) -> None:
    for agent in await list_agents(files, folder):
        await AgentTranscripts(files, output, agent).analyze()


async def _list_files(files: HostFiles, output: Output, folder: str, _: Mapping[str, Any]) -> None:
    # The slash counts: a name that goes on with a character below it comes before the shorter name.
    for agent in sorted(await list_agents(files, folder), key=lambda agent: wire_name(agent.name) + "/"):
        await FileListing(files, output, agent).tell()


async def _preview(files: HostFiles, output: Output, folder: str, request: Mapping[str, Any]) -> None:
    if objection := objection_to_name(request["sessionId"]):
        raise InvalidParams(f"sessionId: {objection}")
    path = None
    with suppress(FileNotFoundError):
        agent = await find_agent(files, folder, request["agentId"])
        path = await find_transcript(files, agent, request["sessionId"])
    if path is None:
        await output.tell("none")
    else:
        await send_transcript(files, output, path)


async def _tell_names(files: HostFiles, output: Output, folder: str, request: Mapping[str, Any]) -> None:
    if request["agentId"] is None:
        for agent in await list_agents(files, folder):
            await tell_names(files, output, agent)
    else:
        agent = await find_agent(files, folder, request["agentId"])
        await tell_names(files, output, agent)
        await tell_ids(files, output, agent)


_OPERATIONS: dict[str, _Operation] = {
    "analyze": _analyze,
    "files": _list_files,
    "preview": _preview,
    "names": _tell_names,
}
