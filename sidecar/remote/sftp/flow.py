"""How much goes on at once over SFTP: work in order with several pieces ahead, and what they may hold together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sidecar.limits import SFTP_ASIDE_BYTES, SFTP_HELD_BYTES

S = TypeVar("S")
T = TypeVar("T")


async def in_order(
    work: Callable[[S], Coroutine[Any, Any, T]], items: Iterable[S], ahead: int
) -> AsyncGenerator[T, None]:
    """What ``work`` gives for each of ``items``, in their order, while at most ``ahead`` of them are worked at.

    Closed early, or when one fails, it ends the others before it ends.
    """
    running: deque[asyncio.Task[T]] = deque()
    try:
        for item in items:
            running.append(asyncio.create_task(work(item)))
            if len(running) >= ahead:
                given = await running[0]
                running.popleft()
                yield given
        while running:
            given = await running[0]
            running.popleft()
            yield given
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def aside(work: Callable[[], T], size_bytes: int) -> T:
    """What ``work`` gives; in a thread if it is over so many bytes that the loop would stand still for long."""
    return work() if size_bytes <= SFTP_ASIDE_BYTES else await asyncio.to_thread(work)


class Room:
    """Bytes that those who work at the same time may hold together; given in the order in which they are asked for."""

    def __init__(self, total_bytes: int = SFTP_HELD_BYTES) -> None:
        self._total_bytes = self._left_bytes = total_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def taken(self, size_bytes: int) -> AsyncGenerator[None, None]:
        """Room for ``size_bytes``, or all there is if that is less."""
        size_bytes = min(size_bytes, self._total_bytes)
        await self._take(size_bytes)
        try:
            yield
        finally:
            self._left_bytes += size_bytes
            self._give()

    async def _take(self, size_bytes: int) -> None:
        if size_bytes <= self._left_bytes and not self._waiting:
            self._left_bytes -= size_bytes
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append((size_bytes, place))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._left_bytes += size_bytes
            else:
                self._waiting.remove((size_bytes, place))
            self._give()
            raise

    def _give(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._left_bytes:
            size_bytes, place = self._waiting.popleft()
            if not place.done():
                self._left_bytes -= size_bytes
                place.set_result(None)
