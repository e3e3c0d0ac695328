"""An SFTP session whose bytes are counted, which asyncssh doesn't do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import asyncssh
from asyncssh.sftp import start_sftp_client

Moved = Callable[[int, int], None]


async def open_sftp(connection: asyncssh.SSHClientConnection, moved: Moved) -> asyncssh.SFTPClient:
    """As ``SSHClientConnection.start_sftp_client``; ``moved`` is told of all bytes, up and down."""
    writer, reader, _ = await connection.open_session(
        subsystem="sftp", encoding=None, env=None, send_env=None, request_pty=False, x11_forwarding=False
    )
    try:
        return await start_sftp_client(
            connection,
            asyncio.get_running_loop(),
            "strict",
            cast("asyncssh.SSHReader[bytes]", _CountedReader(reader, moved)),
            cast("asyncssh.SSHWriter[bytes]", _CountedWriter(writer, moved)),
            "utf-8",
            "strict",
            3,
        )
    except BaseException:
        writer.channel.abort()
        raise


class _Counted:
    def __init__(self, stream: Any, moved: Moved) -> None:
        self._stream = stream
        self._moved = moved

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _CountedReader(_Counted):
    async def readexactly(self, size: int) -> bytes:
        data: bytes = await self._stream.readexactly(size)
        self._moved(0, len(data))
        return data


class _CountedWriter(_Counted):
    def write(self, data: bytes) -> None:
        self._stream.write(data)
        self._moved(len(data), 0)
