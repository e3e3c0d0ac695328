"""One connection a host, shared by all commands: opened when it is needed, watched, closed when it is idle.

What runs on a host is never started twice: a connection is opened again only for a command that had not begun.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import asyncssh
from asyncssh.constants import OPEN_REQUEST_SESSION_FAILED

from sidecar.errors import ChannelRefused, ConnectionBroken, RemoteFailed, describe_os_error
from sidecar.limits import (
    CHANNEL_IDLE_S,
    CHANNEL_WINDOW_BYTES,
    CHUNK_BYTES,
    CLOSE_S,
    REFUSED_POLL_S,
    REFUSED_S,
)
from sidecar.remote.connect import trust_key
from sidecar.remote.links import Host, Link, Place, Transfers
from sidecar.remote.process import RemoteProcess
from sidecar.remote.sftp.session import open_sftp

__all__ = ["Host", "SshConnectionPool", "quoted"]

T = TypeVar("T")

# Ends the whole process group when the input ends, so that a command that neither reads nor writes ends too. What sshd
# starts has a session, and so a group, of its own. The command's own input is empty.
_WATCHED = (
    "exec 3<&0; (while read -r x <&3; do :; done; kill -9 0) >/dev/null 2>&1 & w=$! ; "
    '/bin/sh -c "$1" 3<&- </dev/null; s=$?; kill $w; exit $s'
)


class SshConnectionPool:
    """The connections to all hosts, by their ids. Everything here runs in the loop that it was made in."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}
        self._retired: list[Link] = []
        """Of hosts whose settings have changed while something ran."""
        self._transfers: dict[str, Transfers] = {}

    async def connect(self, host: Host, passphrase: str | None = None) -> None:
        """Connect, if there is no connection. A passphrase that was good is kept, here alone, until ``disconnect``."""
        await self._link(host).connected(passphrase)

    async def trust(self, host: Host, fingerprint: str) -> None:
        """Trust the host, or the jump before it, if its key has exactly this fingerprint. Raises as ``trust_key``."""
        await trust_key(host.settings, self._link(host).passphrase, host.surroundings, fingerprint)

    def disconnect(self, host_id: str) -> None:
        """Close the connection and forget the passphrase. What runs on it fails."""
        links = [link for link in self._retired if link.host.id == host_id]
        if host_id in self._links:
            links.append(self._links.pop(host_id))
        for link in links:
            link.give_up()

    def is_connected(self, host_id: str) -> bool:
        """Whether there is a connection; one that died silently is found out by its keepalive."""
        link = self._links.get(host_id)
        return link is not None and link.connection is not None

    def transfers(self, host_id: str) -> Transfers:
        """What was sent and received since this process began, on all connections to the host."""
        # Kept only of hosts that there are: anybody may ask for any other.
        return self._transfers.get(host_id) or Transfers()

    def facts(self, host: Host) -> dict[str, object]:
        """What is known of the host, until its connection ends; for the caller to fill."""
        return self._link(host).facts

    async def open(self, host: Host, command: str, chunk_size: int = CHUNK_BYTES) -> RemoteProcess:
        """Start ``command``, a text for the host's login shell, of whatever kind that is. The caller closes it."""
        link = self._link(host)

        async def start(connection: asyncssh.SSHClientConnection, place: Place) -> RemoteProcess:
            def ended() -> None:
                link.processes.discard(process)
                place.give()

            process = RemoteProcess(chunk_size, link.transfers.add, ended)
            await connection.create_session(
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
            if not process.has_ended:
                link.processes.add(process)
            return process

        return await _in_channel(link, start, lambda process, _: process.close())

    @asynccontextmanager
    async def sftp(self, host: Host) -> AsyncGenerator[asyncssh.SFTPClient, None]:
        """An SFTP session on the host, in a channel of its own."""
        link = self._link(host)
        place: Place | None = None

        async def start(connection: asyncssh.SSHClientConnection, given: Place) -> asyncssh.SFTPClient:
            nonlocal place
            place = given
            return await open_sftp(connection, link.transfers.add)

        client = await _in_channel(link, start, _leave_sftp)
        assert place is not None
        try:
            yield client
        finally:
            _leave_sftp(client, place)

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
        links = [*self._links.values(), *self._retired]
        connections = [link.connection for link in links if link.connection is not None]
        for host_id in {link.host.id for link in links}:
            self.disconnect(host_id)
        closing = [asyncio.ensure_future(connection.wait_closed()) for connection in connections]
        if closing:
            _, late = await asyncio.wait(closing, timeout=CLOSE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _link(self, host: Host) -> Link:
        link = self._links.get(host.id)
        if link is not None and link.host.settings == host.settings:
            link.host = host
            return link
        transfers = self._transfers.setdefault(host.id, Transfers())
        made = Link(host, transfers, link.passphrase if link is not None else None)
        self._links[host.id] = made
        if link is not None:
            # What runs on the old connection may end on it.
            link.retire()
            self._retired = [old for old in [*self._retired, link] if not old.is_over]
        return made


async def _in_channel(
    link: Link,
    begin: Callable[[asyncssh.SSHClientConnection, Place], Coroutine[Any, Any, T]],
    leave: Callable[[T, Place], None],
) -> T:
    """What ``begin`` opens, in a channel that there is a place for, which is then the caller's to give back.

    If this is cancelled while the channel is being opened, it is left as soon as it is open.
    """
    place = await link.channels.take()
    is_second = False
    refused_until_s = None
    loop = asyncio.get_running_loop()
    opening: asyncio.Future[T] | None = None
    try:
        while True:
            connection = await link.connected()
            opening = asyncio.ensure_future(begin(connection, place))
            try:
                return await asyncio.shield(opening)
            except asyncssh.ChannelOpenError as error:
                opening = None
                is_gone = link.connection is not connection
                if error.code == OPEN_REQUEST_SESSION_FAILED and not is_gone:
                    raise RemoteFailed(f"the host doesn't do what it was asked for: {error}") from None
                if is_gone and (is_second or error.code == OPEN_REQUEST_SESSION_FAILED):
                    raise ConnectionBroken(f"connection closed before the command was confirmed: {error}") from None
                if is_gone:
                    # Nothing has begun on the host.
                    is_second = True
                elif link.channels.used > 1:
                    await place.take_again()
                elif refused_until_s is None or loop.time() < refused_until_s:
                    refused_until_s = refused_until_s or loop.time() + REFUSED_S
                    await asyncio.sleep(REFUSED_POLL_S)
                else:
                    raise ChannelRefused(f"ssh open channel failed: {error}") from None
    except asyncio.CancelledError:
        if opening is not None:
            opening.add_done_callback(partial(_leave, place, leave))
        else:
            place.give()
        raise
    except asyncssh.Error as error:
        place.give()
        raise ConnectionBroken(f"connection closed: {error}") from None
    except OSError as error:
        place.give()
        # Of the link itself; that a connection can't be made is told in another way.
        raise ConnectionBroken(f"connection closed: {describe_os_error(error)}") from None
    except BaseException:
        place.give()
        raise


def _leave(place: Place, leave: Callable[[T, Place], None], opening: asyncio.Future[T]) -> None:
    if opening.cancelled() or opening.exception() is not None:
        place.give()
    else:
        leave(opening.result(), place)


def _leave_sftp(client: asyncssh.SFTPClient, place: Place) -> None:
    """End a session; its place is free when the host has ended it too, or a while later if it doesn't."""

    async def give() -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await client.wait_closed()
        except TimeoutError:
            pass
        finally:
            place.give()

    client.exit()
    leaving = asyncio.ensure_future(give())
    _LEAVING.add(leaving)
    leaving.add_done_callback(_LEAVING.discard)


_LEAVING: set[asyncio.Future[None]] = set()


_NOT_QUOTABLE = re.compile(r"[\n\r\0]|!(?! )|\\(?=[\\']|$)")


def quoted(text: str) -> str:
    """``text`` as one word for any login shell: sh, bash, zsh, fish, csh.

    ``ValueError`` for what they don't all take alike: line breaks, ``!`` before anything but a space, and backslashes
    before a quote or another.
    """
    if _NOT_QUOTABLE.search(text):
        raise ValueError("the text can't be quoted for every shell")
    return "'" + text.replace("'", "'\"'\"'") + "'"
