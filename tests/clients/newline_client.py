"""The conversation as aiorpcx has it, a client and server of JSON-RPC 2.0 over streams, on which ElectrumX is built.

It was chosen since nothing of it need be replaced: its own framer cuts lines, its own connection makes and matches ids
and batches, and a socket that is already open may be its transport. The sidecar has the other end of that as stdin and
stdout. Of others, python-lsp-jsonrpc and pygls frame with headers and have no batches, and jsonrpcclient makes and
parses messages, but keeps no connection. What aiorpcx lacks is an error's ``data``, which it drops.
"""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict
from pathlib import Path
from typing import Any

from aiorpcx import Notification, RPCError, RPCSession, connect_us

from tests.client import TERMINALS, WITHIN_S, SidecarProcess


class Session(RPCSession):  # type: ignore[misc]
    """Keeps the notifications of each handle in the order in which they are handed over."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.events: dict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)

    async def handle_request(self, request: Any) -> None:
        assert isinstance(request, Notification), f"the sidecar asks for something: {request}"
        self.events[request.args["handleId"]].put_nowait({"method": request.method, "params": request.args})

    async def events_of(self, handle: str) -> list[Any]:
        """The notifications of a stream that have not been taken yet, up to its terminal."""
        found = [await self.events[handle].get()]
        while found[-1]["method"] not in TERMINALS:
            found.append(await self.events[handle].get())
        return found

    async def whole(self, method: str, params: object = ()) -> list[Any]:
        return await self.events_of(await self.send_request(method, params))


async def converse(home: Path, big_home: Path, agent_id: str, session_id: str) -> dict[str, Any]:
    """What a sidecar of ``home`` has told, in the form of the report of ``driver.mjs``, and ``batch``, its answers."""
    ours, theirs = socket.socketpair()
    async with (
        asyncio.timeout(2 * WITHIN_S),
        SidecarProcess(home, stdin=theirs.fileno(), stdout=theirs.fileno()) as process,
    ):
        theirs.close()
        async with connect_us(sock=ours, session_factory=Session) as session:
            report = await _ask(session, big_home, agent_id, session_id)
            assert await session.send_request("shutdown") is True
            report["exit_code"] = await process.exit_code()
        assert session.errors == 0, "it counts what it can't understand"
        return report


async def _ask(session: Session, big_home: Path, agent_id: str, session_id: str) -> dict[str, Any]:
    report = {
        "ping": await session.send_request("ping"),
        "info": await session.send_request("get_sidecar_info"),
        "analysis": await session.whole("analyze_sessions_stream", {"batchSize": 5}),
        "by_name": await session.send_request("preview_session", {"agentId": agent_id, "sessionId": session_id}),
        "by_position": await session.send_request("preview_session", [agent_id, session_id]),
        "no_session": await _error(session, "preview_session", [agent_id, "none"]),
        "no_method": await _error(session, "no_such_method"),
        "wrong_params": await _error(session, "preview_session", {"agentId": 1}),
        "backup": await session.whole("backup_before_upgrade_stream"),
        "backups": await session.send_request("list_backups"),
    }
    async with session.send_batch() as batch:
        batch.add_request("ping")
        batch.add_request("no_such_method")
        batch.add_notification("ping")
        batch.add_request("analyze_sessions_stream", {"batchSize": 5})
    pong, error, handle = batch.results
    report["batch"] = [pong, _told(error), await session.events_of(handle)]
    await session.send_request("set_active_openclaw_home", {"path": str(big_home)})
    handle = await session.send_request("analyze_sessions_stream", {"batchSize": 1})
    first = await session.events[handle].get()
    report["cancel"] = await session.send_request("cancel_stream", {"handleId": handle})
    report["cancelled"] = [first, *await session.events_of(handle)]
    report["cancel_again"] = await session.send_request("cancel_stream", {"handleId": handle})
    return report


async def _error(session: Session, method: str, params: object = ()) -> dict[str, Any]:
    try:
        return {"result": await session.send_request(method, params)}
    except RPCError as error:
        return _told(error)


def _told(error: RPCError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message}
