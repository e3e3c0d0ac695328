"""What the pool keeps of each host: its connection, if there is one, places for channels, and counts of bytes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import asyncssh

from sidecar.errors import ConnectionBroken, SidecarError
from sidecar.limits import IDLE_CONNECTION_S, MAX_CHANNELS, TRANSFER_RATE_S
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

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._is_held = True

    def give(self) -> None:
        if self._is_held:
            self._is_held = False
            self._channels.give()

    async def take_again(self) -> None:
        """After the host refused it, since it takes fewer channels: wait for one of those, before all others."""
        self._is_held = False
        await self._channels.take_after_refusal()
        self._is_held = True


class Channels:
    """Places for the channels of one connection, given in the order in which they were asked for."""

    def __init__(self, all_free: Callable[[], None] = lambda: None) -> None:
        self.used = 0
        self._limit = MAX_CHANNELS
        self._all_free = all_free
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> Place:
        """A place, as soon as there is one."""
        if self.used < self._limit and not self._waiting:
            self.used += 1
        else:
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            await self._wait_for(place)
        return Place(self)

    def give(self) -> None:
        """Give a place back, to the first that waits. For ``Place``."""
        self.used -= 1
        self._serve()
        if self.used == 0:
            self._all_free()

    async def take_after_refusal(self) -> None:
        """For ``Place``."""
        self._limit = max(1, self.used - 1)
        self.used -= 1
        place = asyncio.get_running_loop().create_future()
        self._waiting.appendleft(place)
        await self._wait_for(place)

    def expect_all(self) -> None:
        """On a new connection what another refused is no measure."""
        self._limit = MAX_CHANNELS
        self._serve()

    async def _wait_for(self, place: asyncio.Future[None]) -> None:
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.give()
            else:
                self._waiting.remove(place)
            raise

    def _serve(self) -> None:
        while self._waiting and self.used < self._limit:
            place = self._waiting.popleft()
            if not place.done():
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
        self._failure: SidecarError | None = None
        self._failed_attempt = 0
        self._idle: asyncio.TimerHandle | None = None

    async def connected(self, passphrase: str | None = None) -> asyncssh.SSHClientConnection:
        """The connection, opened if there is none, with this passphrase or the one that was good before.

        Who asks while it is being opened shares its failure. ``ConnectionBroken`` after ``give_up``.
        """
        joins = self._connecting.locked() and passphrase is None
        shared_from = self._attempts if joins else self._attempts + 1
        async with self._connecting:
            self._check_not_given_up()
            if self.connection is not None:
                return self.connection
            if self._failure is not None and joins and self._failed_attempt >= shared_from:
                raise self._failure
            self._attempts += 1
            try:
                return await self._open(passphrase or self.passphrase)
            except SidecarError as error:
                self._failure, self._failed_attempt = error, self._attempts
                raise

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
