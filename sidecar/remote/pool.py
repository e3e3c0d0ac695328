"""One connection a host, shared by all commands: opened when it is needed, watched, closed when it is idle.

What runs on a host is never started twice: a connection is opened again only for a command that had not begun.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

import asyncssh
from asyncssh.constants import OPEN_REQUEST_SESSION_FAILED

from sidecar.errors import ChannelRefused, ConnectionBroken, HostKeyUnknown
from sidecar.limits import (
    CHANNEL_IDLE_S,
    CHANNEL_WINDOW_BYTES,
    CHUNK_BYTES,
    CLOSE_S,
    IDLE_CONNECTION_S,
    MAX_CHANNELS,
    TRANSFER_RATE_S,
)
from sidecar.remote.connect import HostKeyTrusted, Surroundings, connect
from sidecar.remote.hosts import SshHost
from sidecar.remote.process import RemoteProcess
from sidecar.remote.trust import describe

T = TypeVar("T")
log = logging.getLogger(__name__)

# Ends the whole process group when the input ends, so that a command that neither reads nor writes ends too. What sshd
# starts has a session, and so a group, of its own. The command's own input is empty.
_WATCHED = (
    "exec 3<&0; (while read -r x <&3; do :; done; kill -9 0) >/dev/null 2>&1 & w=$! ; "
    '/bin/sh -c "$1" 3<&- </dev/null; s=$?; kill $w; exit $s'
)


@dataclass(frozen=True, slots=True)
class Host:
    """A host, and what a connection to it depends on beside."""

    settings: SshHost
    surroundings: Surroundings = field(compare=False)

    @property
    def id(self) -> str:
        return self.settings.id


class Transfers:
    """How many bytes went to a host and came from it, in all and of late: what commands wrote and read."""

    def __init__(self) -> None:
        self.uploaded_bytes = 0
        self.downloaded_bytes = 0
        self._seconds: deque[tuple[int, int, int]] = deque(maxlen=TRANSFER_RATE_S + 1)

    def add(self, up_bytes: int, down_bytes: int) -> None:
        self.uploaded_bytes += up_bytes
        self.downloaded_bytes += down_bytes
        second = int(time.monotonic())
        if self._seconds and self._seconds[-1][0] == second:
            _, up_before, down_before = self._seconds.pop()
            up_bytes, down_bytes = up_bytes + up_before, down_bytes + down_before
        self._seconds.append((second, up_bytes, down_bytes))

    def rates(self) -> tuple[int, int]:
        """Bytes per second, up and down, over the last ``TRANSFER_RATE_S``."""
        since = int(time.monotonic()) - TRANSFER_RATE_S
        late = [entry for entry in self._seconds if entry[0] > since]
        return sum(entry[1] for entry in late) // TRANSFER_RATE_S, sum(entry[2] for entry in late) // TRANSFER_RATE_S


class Channels:
    """Places for the channels of one connection, given in the order in which they were asked for."""

    def __init__(self) -> None:
        self.limit = MAX_CHANNELS
        self.used = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        if self.used < self.limit and not self._waiting:
            self.used += 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.give()
            else:
                self._waiting.remove(place)
            raise

    def give(self) -> None:
        """Give a place back, to the first that waits."""
        self.used -= 1
        while self._waiting and self.used < self.limit:
            place = self._waiting.popleft()
            if not place.done():
                self.used += 1
                place.set_result(None)

    async def take_after_refusal(self) -> None:
        """Give a place back that the host refused, since it takes fewer channels, and wait for one of those."""
        self.limit = max(1, self.used - 1)
        self.used -= 1
        place = asyncio.get_running_loop().create_future()
        self._waiting.appendleft(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.give()
            else:
                self._waiting.remove(place)
            raise


class _Link:
    """The connection to one host, if there is one, and what is kept of the host from one to the next."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.passphrase: str | None = None
        self.connection: asyncssh.SSHClientConnection | None = None
        self.channels = Channels()
        self.transfers = Transfers()
        self.facts: dict[str, object] = {}
        """What was found out about the host on this connection."""
        self._given_up = False
        self._connecting = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None

    async def connected(self) -> asyncssh.SSHClientConnection:
        """The connection, opened if there is none. ``ConnectionBroken`` after ``give_up``."""
        async with self._connecting:
            self._check_not_given_up()
            if self.connection is None:
                self.facts.clear()
                made: list[asyncssh.SSHClientConnection] = []

                def lost() -> None:
                    if not made or self.connection is made[0]:
                        self.connection = None

                connection = await connect(self.host.settings, self.passphrase, self.host.surroundings, lost)
                made.append(connection)
                self.connection = connection
                self._check_not_given_up()
                self.channels.limit = MAX_CHANNELS
                self.rest()
            return self.connection

    def rest(self) -> None:
        """Close the connection if no channel is opened for ``IDLE_CONNECTION_S``."""
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_CONNECTION_S, self._close_if_idle)

    def give_up(self) -> None:
        """Close the connection for good, also one that is still being made."""
        self._given_up = True
        self.close()

    def _check_not_given_up(self) -> None:
        if self._given_up:
            self.close()
            raise ConnectionBroken("connection closed: the host was disconnected meanwhile")

    def close(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def _close_if_idle(self) -> None:
        if self.channels.used == 0:
            self.close()
        else:
            self.rest()


class SshConnectionPool:
    """The connections to all hosts, by their ids. Everything here runs in the loop that it was made in."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}

    async def connect(self, host: Host, passphrase: str | None = None) -> None:
        """Connect, if there is no connection. A passphrase is kept, for this process, until ``disconnect``."""
        link = self._link(host)
        if passphrase is not None and passphrase != link.passphrase:
            link.passphrase = passphrase
        await link.connected()

    async def trust(self, host: Host, fingerprint: str) -> None:
        """Trust the host, or the jump before it, if its key has exactly this fingerprint, and is not known yet.

        ``HostKeyUnknown`` if its key is another one, ``HostKeyChanged`` if another one was trusted before.
        """
        with suppress(HostKeyTrusted):
            connection = await connect(
                host.settings, self._link(host).passphrase, host.surroundings, accepted=fingerprint
            )
            key = connection.get_server_host_key()
            connection.close()
            if key is None or key.get_fingerprint() != fingerprint:
                place = connection.get_extra_info("host"), connection.get_extra_info("port")
                shown = describe(*place, key) if key else {}
                raise HostKeyUnknown(
                    "host key verification failed: the host is trusted already, by another key: "
                    f"{shown.get('fingerprint', 'none')}",
                    **shown,
                )

    def disconnect(self, host_id: str) -> None:
        """Close the connection and forget the passphrase. What runs on it fails."""
        link = self._links.pop(host_id, None)
        if link is not None:
            link.give_up()

    def is_connected(self, host_id: str) -> bool:
        """Whether there is a connection; one that died silently is found out by its keepalive."""
        link = self._links.get(host_id)
        return link is not None and link.connection is not None

    def transfers(self, host_id: str) -> Transfers:
        link = self._links.get(host_id)
        return link.transfers if link is not None else Transfers()

    def facts(self, host: Host) -> dict[str, object]:
        """What is known of the host, until its connection ends; for the caller to fill."""
        return self._link(host).facts

    async def open(self, host: Host, command: str, chunk_size: int = CHUNK_BYTES) -> RemoteProcess:
        """Start ``command``, a text for the host's login shell, of whatever kind that is. The caller closes it."""
        link = self._link(host)
        process = RemoteProcess(chunk_size, link.transfers.add, link.channels.give)
        await self._in_channel(link, lambda connection: _start(connection, process, command))
        return process

    @asynccontextmanager
    async def sftp(self, host: Host) -> AsyncGenerator[asyncssh.SFTPClient, None]:
        """An SFTP session on the host, in a channel of its own."""
        link = self._link(host)
        client = await self._in_channel(link, lambda connection: connection.start_sftp_client())
        try:
            yield client
        finally:
            client.exit()
            link.channels.give()

    async def _in_channel(self, link: _Link, begin: Callable[[asyncssh.SSHClientConnection], Awaitable[T]]) -> T:
        """What ``begin`` opens, in a channel that there is a place for; the place is kept if it succeeds."""
        await link.channels.take()
        try:
            while True:
                connection = await link.connected()
                try:
                    begun = await begin(connection)
                except asyncssh.ChannelOpenError as error:
                    if error.code == OPEN_REQUEST_SESSION_FAILED:
                        raise ConnectionBroken(f"connection closed before the command was confirmed: {error}") from None
                    # A connection that has gone is opened anew: nothing has begun on the host.
                    if link.connection is connection:
                        if link.channels.used <= 1:
                            raise ChannelRefused(f"ssh open channel failed: {error}") from None
                        await link.channels.take_after_refusal()
                else:
                    link.rest()
                    return begun
        except asyncssh.Error as error:
            link.channels.give()
            raise ConnectionBroken(f"connection closed: {error}") from None
        except BaseException:
            link.channels.give()
            raise

    async def exec_streaming(
        self, host: Host, command: str, chunk_size: int = CHUNK_BYTES, idle_s: float = CHANNEL_IDLE_S
    ) -> AsyncGenerator[bytes, None]:
        """The standard output of ``command``, run by ``/bin/sh`` without input, in chunks of up to ``chunk_size``.

        A slow reader holds the command back. Leaving early ends the command and all that it started in its process
        group. Raises as ``RemoteProcess.read`` does.
        """
        process = await self.open(host, f"/bin/sh -c {quoted(_WATCHED)} sh {quoted(command)}", chunk_size)
        try:
            while chunk := await process.read(idle_s):
                yield chunk
        finally:
            process.close()

    async def close(self) -> None:
        """Close every connection, and give each a moment to say so to its host."""
        connections = [link.connection for link in self._links.values() if link.connection is not None]
        for host_id in list(self._links):
            self.disconnect(host_id)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                for connection in connections:
                    await connection.wait_closed()

    def _link(self, host: Host) -> _Link:
        link = self._links.get(host.id)
        if link is not None and link.host.settings != host.settings:
            # It was changed since; what runs on the old connection may end on it.
            passphrase, link = link.passphrase, None
            self._links[host.id] = _Link(host)
            self._links[host.id].passphrase = passphrase
        if link is None:
            link = self._links.setdefault(host.id, _Link(host))
        return link


_NOT_QUOTABLE = re.compile(r"[\n\r\0]|!(?! )|\\(?=[\\']|$)")


def quoted(text: str) -> str:
    """``text`` as one word for any login shell: sh, bash, zsh, fish, csh.

    ``ValueError`` for what they don't all take alike: line breaks, ``!`` before anything but a space, and backslashes
    before a quote or another.
    """
    if _NOT_QUOTABLE.search(text):
        raise ValueError("the text can't be quoted for every shell")
    return "'" + text.replace("'", "'\"'\"'") + "'"


async def _start(connection: asyncssh.SSHClientConnection, process: RemoteProcess, command: str) -> None:
    """Open a channel and run ``command`` in it; if that is cancelled, the channel is closed as soon as it is open."""
    opening = asyncio.ensure_future(
        connection.create_session(
            lambda: process,
            command,
            encoding=None,
            request_pty=False,
            env=None,
            send_env=None,
            x11_forwarding=False,
            window=CHANNEL_WINDOW_BYTES,
            max_pktsize=CHUNK_BYTES,
        )
    )
    try:
        await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(
            lambda done: process.close() if not done.cancelled() and not done.exception() else None
        )
        raise
