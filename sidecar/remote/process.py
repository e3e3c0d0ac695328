"""One command on a host: its output in chunks that wait for their reader, its input, and how it ended."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import asyncssh

from sidecar.errors import ConnectionBroken, HostTimedOut, RemoteFailed
from sidecar.limits import CHANNEL_CHUNKS, CHANNEL_IDLE_S, CLOSE_S, MAX_STDERR_BYTES


class RemoteProcess(asyncssh.SSHClientSession[bytes]):
    """What runs in one channel of a connection; made by ``SshConnectionPool``.

    At most ``CHANNEL_CHUNKS`` of output wait here: then nothing more is taken from the channel, and the command is
    held back by its window. stderr is drained, and its end kept for an error. ``close`` ends it at any time.
    """

    def __init__(self, chunk_size: int, moved: Callable[[int, int], None], ended: Callable[[], None]) -> None:
        """``ended`` is called once: when the host has ended it too, or a while after ``close`` if it doesn't."""
        self._chunk_size = chunk_size
        self._moved = moved
        self._ended = ended
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._chunks: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._paused = False
        self._over = False
        self._is_whole = False
        self._failure: Exception | None = None
        self._stderr = bytearray()
        self._status: int | None = None
        self._signal: str | None = None
        self._closed_by_us = False
        self.has_ended = False
        self._end_without_host: asyncio.TimerHandle | None = None

    async def read(self, idle_s: float = CHANNEL_IDLE_S) -> bytes:
        """The next output; empty at the end of a command that succeeded.

        ``HostTimedOut`` when nothing came for ``idle_s``, ``ConnectionBroken`` when the connection has gone,
        ``RemoteFailed`` when the command has failed: nothing but success looks like the end.
        """
        while not self._chunks:
            if self._over:
                self._raise_unless_succeeded()
                return b""
            self._arrived.clear()
            try:
                async with asyncio.timeout(idle_s):
                    await self._arrived.wait()
            except TimeoutError:
                raise HostTimedOut(f"timed out: the host sent nothing for {idle_s:.0f} s") from None
        chunk = self._chunks.popleft()
        if len(chunk) > self._chunk_size:
            self._chunks.appendleft(chunk[self._chunk_size :])
            return chunk[: self._chunk_size]
        if self._paused and len(self._chunks) < CHANNEL_CHUNKS and self._channel is not None:
            self._paused = False
            self._channel.resume_reading()
        return chunk

    async def write(self, data: bytes) -> None:
        """Send ``data`` to the command; returns when there is room for more. Is lost if the command has ended."""
        await self._writable.wait()
        if self._channel is not None and not self._over:
            with suppress(BrokenPipeError):  # the host has closed the channel a moment ago
                self._channel.write(data)
                self._moved(len(data), 0)

    def write_eof(self) -> None:
        """End the command's input."""
        if self._channel is not None and not self._over:
            self._channel.write_eof()

    def close(self) -> None:
        """Let go of the channel: the host ends the command's input and output."""
        if self._over:
            return
        self._closed_by_us = True
        self._chunks.clear()
        channel = self._channel
        self._finish()
        if channel is not None:
            channel.abort()
            # A host that doesn't end it in time must not keep others from theirs.
            self._end_without_host = asyncio.get_running_loop().call_later(CLOSE_S, self._end)

    def drop(self) -> None:
        """As if the connection had been lost now."""
        self._finish()

    @property
    def stderr(self) -> str:
        """The end of what the command wrote to stderr."""
        return self._stderr.decode("utf-8", "replace").strip()

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if self._over:
            return
        self._moved(0, len(data))
        self._arrived.set()
        if datatype is not None:
            self._stderr += data
            del self._stderr[:-MAX_STDERR_BYTES]
            return
        if self._chunks and len(self._chunks[-1]) + len(data) <= self._chunk_size:
            self._chunks[-1] += data
        else:
            self._chunks.append(data)
        if len(self._chunks) >= CHANNEL_CHUNKS and not self._paused and self._channel is not None:
            self._paused = True
            self._channel.pause_reading()

    def eof_received(self) -> bool:
        # Comes after the last data. Without it a status of 0 is of a command whose last output was lost with the link.
        self._is_whole = True
        return True  # the channel stays open until the command's status has come

    def exit_status_received(self, status: int) -> None:
        self._status = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:  # noqa: ARG002
        self._signal = signal

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._over:
            # asyncssh tells nothing of the end of output that comes together with the channel's while a slow reader
            # holds both back; but it closes the channel only when all has been delivered.
            self._is_whole = self._is_whole or getattr(self._channel, "_recv_state", None) == "closed"
            self._failure = exc
            self._finish()
        self._end()

    def _finish(self) -> None:
        if not self._over:
            self._over = True
            self._channel = None
            self._arrived.set()
            self._writable.set()

    def _end(self) -> None:
        if self._end_without_host is not None:
            self._end_without_host.cancel()
        if not self.has_ended:
            self.has_ended = True
            self._ended()

    def _raise_unless_succeeded(self) -> None:
        if self._closed_by_us:
            raise ConnectionBroken("connection closed: the command was given up")
        if self._status == 0 and self._is_whole:
            return
        if self._status:
            raise RemoteFailed(f"the command on the host ended with status {self._status}{self._words()}")
        if self._signal is not None:
            raise RemoteFailed(f"the command on the host was ended by the signal {self._signal}{self._words()}")
        if self._failure is not None and "eepalive" in str(self._failure):
            raise HostTimedOut(f"timed out: {self._failure}")
        # By the host, by the network, or here: by ssh_disconnect.
        why = f": {self._failure}" if self._failure else ""
        raise ConnectionBroken(f"connection closed while the command ran{why}")

    def _words(self) -> str:
        return f": {self.stderr}" if self._stderr else ""
