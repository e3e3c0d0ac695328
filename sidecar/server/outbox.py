"""What waits to be written: replies in a lane of their own, each stream in another, one writer for them all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from sidecar.limits import MAX_WAITING_REPLY_BYTES, OUTBOX_BATCHES_PER_HANDLE, REPLY_OVERHEAD_BYTES, WRITE_BYTES


class Lane:
    """The lines of one stream on their way out; made by ``Outbox.lane``."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._lines: deque[bytes] = deque()
        self._room = asyncio.Event()

    async def room(self) -> None:
        """Wait until fewer than ``OUTBOX_BATCHES_PER_HANDLE`` lines wait."""
        await self._fewer_than(OUTBOX_BATCHES_PER_HANDLE)

    async def empty(self) -> None:
        """Wait until no line waits."""
        await self._fewer_than(1)

    def put(self, line: bytes) -> None:
        """Queue a line at once, room or not: only the few that end a stream may come without asking for it."""
        self._outbox.queue(self, line)

    def append(self, line: bytes) -> bool:
        """Add a line; True if it is the only one."""
        self._lines.append(line)
        return len(self._lines) == 1

    def take(self) -> tuple[bytes, bool]:
        """The first line, and whether more wait."""
        line = self._lines.popleft()
        self._room.set()
        return line, bool(self._lines)

    def clear(self) -> None:
        self._lines.clear()
        self._room.set()

    async def _fewer_than(self, lines: int) -> None:
        while len(self._lines) >= lines and not self._outbox.closed:
            self._room.clear()
            await self._room.wait()


class Outbox:
    """Replies never wait to get in; a stream waits while its lane is full, so that a slow reader slows its source.

    The writer takes replies first, then one line of each stream in turn. After ``close`` nothing waits or is kept.
    """

    def __init__(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._write = write
        self._replies: deque[bytes] = deque()
        self._reply_bytes = 0
        self._turns: deque[Lane] = deque()
        self._wake = asyncio.Event()
        self._reply_room = asyncio.Event()
        self._reply_room.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.closed = False

    def reply(self, line: bytes) -> None:
        if self.closed:
            return
        self._replies.append(line)
        self._reply_bytes += len(line) + REPLY_OVERHEAD_BYTES
        if self._reply_bytes > MAX_WAITING_REPLY_BYTES:
            self._reply_room.clear()
        self._notify()

    async def reply_room(self) -> None:
        """Wait until fewer than ``MAX_WAITING_REPLY_BYTES`` of replies wait: ask before a request is taken on."""
        await self._reply_room.wait()

    def lane(self) -> Lane:
        """A lane for a new stream."""
        return Lane(self)

    def queue(self, lane: Lane, line: bytes) -> None:
        """Add a line to ``lane``, which takes its turn from now on."""
        if self.closed:
            return
        if lane.append(line):
            self._turns.append(lane)
        self._notify()

    async def empty(self) -> None:
        """Wait until all that was queued has been written."""
        await self._empty.wait()

    def close(self) -> None:
        """Drop what waits and let everybody go on: there is no reader any more."""
        self.closed = True
        self._replies.clear()
        # A lane that somebody waits for is full, and so has a turn.
        for lane in self._turns:
            lane.clear()
        self._turns.clear()
        self._empty.set()
        self._reply_room.set()
        self._wake.set()

    async def run(self) -> None:
        """Write until the outbox is closed; raises what ``write`` raises."""
        while not self.closed:
            batch = self._take()
            if batch:
                await self._write(batch[0] if len(batch) == 1 else b"".join(batch))
            else:
                self._empty.set()
                self._wake.clear()
                await self._wake.wait()

    def _notify(self) -> None:
        self._empty.clear()
        self._wake.set()

    def _take(self) -> list[bytes]:
        """The lines for one write: about ``WRITE_BYTES`` of replies, then of streams in turn, at least one of each."""
        batch: list[bytes] = []
        size = 0
        while self._replies and size < WRITE_BYTES:
            line = self._replies.popleft()
            self._reply_bytes -= len(line) + REPLY_OVERHEAD_BYTES
            size += len(line)
            batch.append(line)
        if self._reply_bytes <= MAX_WAITING_REPLY_BYTES:
            self._reply_room.set()
        turn_taken = False
        while self._turns and (size < WRITE_BYTES or not turn_taken):
            lane = self._turns.popleft()
            line, more = lane.take()
            turn_taken = True
            size += len(line)
            batch.append(line)
            if more:
                self._turns.append(lane)
        return batch
