"""What the pool keeps of each host: its connection, if there is one, places for channels, and counts of bytes."""

from __future__ import annotations

import asyncio
import time
from bisect import insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter

import asyncssh

from sidecar.errors import ConnectionBroken, SidecarError
from sidecar.limits import IDLE_CONNECTION_S, MAX_CHANNELS, REFUSED_POLL_S, REFUSED_S, TRANSFER_RATE_S
from sidecar.remote.connect import Surroundings, connect
from sidecar.remote.hosts import SshHost
from sidecar.remote.process import RemoteProcess


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


class Place:
    """A place for one channel. Given back once, by whoever is the first to know that the channel has ended."""

    def __init__(self, channels: Channels, ticket: int) -> None:
        self._channels = channels
        self._ticket = ticket
        self._is_held = True

    def give(self) -> None:
        if self._is_held:
            self._is_held = False
            self._channels.give()

    async def take_again(self) -> None:
        """After the host refused it, since it takes fewer channels: wait for one of those, before who came later."""
        self._is_held = False
        await self._channels.take_after_refusal(self._ticket)
        self._is_held = True


class Channels:
    """Places for the channels of one connection, given in the order in which they were asked for.

    A host that refuses a channel is not asked for so many again, but now and then for one more: what has just ended
    here may still have had its place there.
    """

    def __init__(self, all_free: Callable[[], None] = lambda: None) -> None:
        self.used = 0
        self._limit = MAX_CHANNELS
        self._all_free = all_free
        self._next_ticket = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._patience_s = REFUSED_POLL_S
        self._has_hoped = False
        self._hoping: asyncio.TimerHandle | None = None

    async def take(self) -> Place:
        """A place, as soon as there is one."""
        ticket = self._next_ticket
        self._next_ticket += 1
        if self.used < self._limit and not self._waiting:
            self.used += 1
        else:
            await self._wait(ticket)
        return Place(self, ticket)

    def give(self) -> None:
        """Give a place back, to the first that waits. For ``Place``."""
        self.used -= 1
        if self.used == 0:
            self.expect_all()
        else:
            self._serve()
        if self.used == 0:
            self._all_free()

    async def take_after_refusal(self, ticket: int) -> None:
        """For ``Place``."""
        self._limit = max(1, self.used - 1)
        self.used -= 1
        if self._has_hoped:
            self._has_hoped = False
            self._patience_s = min(2 * self._patience_s, REFUSED_S)
        self._hope_later()
        await self._wait(ticket)

    def expect_all(self) -> None:
        """Forget that channels were refused: on a new connection, or when none is in use, that is no measure."""
        if self._hoping is not None:
            self._hoping.cancel()
        self._hoping = None
        self._has_hoped = False
        self._patience_s = REFUSED_POLL_S
        self._limit = MAX_CHANNELS
        self._serve()

    def _hope_later(self) -> None:
        if self._hoping is None and self._limit < MAX_CHANNELS:
            self._hoping = asyncio.get_running_loop().call_later(self._patience_s, self._hope)

    def _hope(self) -> None:
        self._hoping = None
        self._has_hoped = True
        self._limit += 1
        self._serve()
        self._hope_later()

    async def _wait(self, ticket: int) -> None:
        place = asyncio.get_running_loop().create_future()
        entry = (ticket, place)
        insort(self._waiting, entry, key=itemgetter(0))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.give()
            elif entry in self._waiting:
                self._waiting.remove(entry)
            raise

    def _serve(self) -> None:
        while self._waiting and self.used < self._limit:
            _, place = self._waiting.pop(0)
            if not place.done():  # else it was cancelled, and doesn't know so yet
                self.used += 1
                place.set_result(None)


class Link:
    """The connection to one host, and what is kept of the host from one to the next."""

    def __init__(self, host: Host, transfers: Transfers, passphrase: str | None = None) -> None:
        self.host = host
        self.transfers = transfers
        self.passphrase = passphrase
        self.connection: asyncssh.SSHClientConnection | None = None
        self.channels = Channels(self._rest)
        self.processes: set[RemoteProcess] = set()
        self.facts: dict[str, object] = {}
        """What was found out about the host on this connection."""
        self._given_up = False
        self._retired = False
        self._connecting = asyncio.Lock()
        self._attempts = 0
        self._is_attempting = False
        self._failure: SidecarError | None = None
        self._failed_attempt = 0
        self._idle: asyncio.TimerHandle | None = None

    async def connected(self, passphrase: str | None = None) -> asyncssh.SSHClientConnection:
        """The connection, opened if there is none, with this passphrase or the one that was good before.

        Who waits while it is being opened shares its failure. ``ConnectionBroken`` after ``give_up``.
        """
        first_shared = self._attempts + (not self._is_attempting)
        async with self._connecting:
            self._check_not_given_up()
            if self.connection is not None:
                return self.connection
            if self._failure is not None and self._failed_attempt >= first_shared and passphrase is None:
                raise self._failure
            self._attempts += 1
            self._is_attempting = True
            try:
                return await self._open(passphrase or self.passphrase)
            except SidecarError as error:
                self._failure, self._failed_attempt = error, self._attempts
                raise
            finally:
                self._is_attempting = False

    async def _open(self, passphrase: str | None) -> asyncssh.SSHClientConnection:
        self.facts.clear()
        made: asyncssh.SSHClientConnection | None = None

        def lost() -> None:
            if self.connection is made:
                self.connection = None

        made = await connect(self.host.settings, passphrase, self.host.surroundings, lost)
        self.connection = made
        self._check_not_given_up()
        self.passphrase = passphrase
        self.channels.expect_all()
        if self.channels.used == 0:
            self._rest()
        return made

    def give_up(self) -> None:
        """Close the connection for good, also one that is still being made. What runs on it fails."""
        self._given_up = True
        self.close()

    def retire(self) -> None:
        """Close the connection for good as soon as nothing runs on it."""
        self._retired = True
        if self.channels.used == 0:
            self.close()

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left after ``retire``."""
        return self.connection is None and self.channels.used == 0 and not self._connecting.locked()

    def close(self) -> None:
        """Close the connection. What runs on it fails."""
        if self._idle is not None:
            self._idle.cancel()
        # asyncssh would show the end of a connection that it closes itself as that of each command on it.
        for process in list(self.processes):
            process.drop()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def _check_not_given_up(self) -> None:
        if self._given_up:
            self.close()
            raise ConnectionBroken("connection closed: the host was disconnected meanwhile")

    def _rest(self) -> None:
        """Nothing runs: the connection is closed if that stays so."""
        if self._idle is not None:
            self._idle.cancel()
        if self._retired:
            self.close()
        elif self.connection is not None:
            self._idle = asyncio.get_running_loop().call_later(IDLE_CONNECTION_S, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self.channels.used == 0:
            self.close()
