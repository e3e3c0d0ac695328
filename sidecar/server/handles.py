"""The registry of running streams: each has a handle, a token, a pump, and exactly one terminal, sent last."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

from sidecar.cancel import CancelToken
from sidecar.errors import Cancelled, TooBusy, as_sidecar_error
from sidecar.limits import MAX_OPEN_HANDLES, REMOTE_STREAM_THREADS, STREAM_THREADS
from sidecar.server.outbox import Outbox
from sidecar.streams.base import Event, Outcome, Stream, in_thread
from sidecar.wire.messages import event_line


class Handle:
    """One running stream."""

    def __init__(self, stream: Stream, outbox: Outbox, pool: ThreadPoolExecutor) -> None:
        self.id = str(uuid.uuid4())
        self.stream = stream
        self.pool = pool
        self.token = CancelToken()
        self.lane = outbox.lane()
        self.cancelled = False
        self.pump: asyncio.Task[None] | None = None
        self.pumping = False
        self._seq = 0

    def send(self, event: Event) -> None:
        """Queue ``event`` with the next number of this handle, taken now: one that is never queued must take none."""
        self.lane.put(event_line(event.method, self.id, self._seq, event.payload))
        self._seq += 1

    def cancel(self) -> None:
        """Set the token, which stops the worker, and interrupt the pump where it waits."""
        self.cancelled = True
        self.token.cancel()
        # A task that is cancelled before its first step runs nothing, not even its terminal: it will see the token.
        if self.pumping and self.pump is not None:
            self.pump.cancel()


class Handles:
    """Opens, starts and cancels streams."""

    def __init__(self, outbox: Outbox, tasks: asyncio.TaskGroup, ended: Callable[[], None]) -> None:
        """``ended`` is called whenever a stream has ended and its terminal is on its way."""
        self._outbox = outbox
        self._tasks = tasks
        self._ended = ended
        self._open: dict[str, Handle] = {}
        self._pool = ThreadPoolExecutor(STREAM_THREADS, "stream")
        self._remote_pool = ThreadPoolExecutor(REMOTE_STREAM_THREADS, "remote-stream")
        self._pumps: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._open)

    def open(self, stream: Stream, at_host: bool = False) -> Handle:
        """Register ``stream`` under a new handle; ``start`` it when the reply is queued. ``TooBusy`` over the limit.

        One that waits for a host has threads of another kind.
        """
        if len(self._pumps) >= MAX_OPEN_HANDLES or len(self._open) >= MAX_OPEN_HANDLES:
            raise TooBusy(f"{MAX_OPEN_HANDLES} streams are open; wait for one to end, or cancel one")
        handle = Handle(stream, self._outbox, self._remote_pool if at_host else self._pool)
        self._open[handle.id] = handle
        return handle

    def start(self, handles: Iterable[Handle]) -> None:
        for handle in handles:
            handle.pump = self._tasks.create_task(self._run(handle))
            self._pumps.add(handle.pump)
            handle.pump.add_done_callback(self._end)

    def cancel(self, handle_id: str) -> bool:
        """Stop a stream; True if it was running, and not cancelled before."""
        handle = self._open.pop(handle_id, None)
        if handle is None:
            return False
        handle.cancel()
        return True

    def cancel_all(self) -> None:
        for handle_id in list(self._open):
            self.cancel(handle_id)

    async def idle(self) -> None:
        """Wait until every stream has ended, and its terminal is on its way."""
        while self._pumps:
            await asyncio.wait(self._pumps)

    def abandon(self) -> None:
        """End what was cancelled and is still waited for."""
        for pump in self._pumps:
            pump.cancel()

    def close(self) -> None:
        """Let go of the threads, which end with what they are doing."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._remote_pool.shutdown(wait=False, cancel_futures=True)

    @property
    def at_work(self) -> bool:
        return bool(self._pumps)

    def _end(self, pump: asyncio.Task[None]) -> None:
        self._pumps.discard(pump)
        self._ended()

    async def _run(self, handle: Handle) -> None:
        handle.pumping = True
        outcome = Outcome()
        try:
            handle.token.check()
            made = handle.stream.events(handle.token)
            events = made if isinstance(made, AsyncGenerator) else in_thread(made, handle.token, handle.pool)
            async with aclosing(events):
                async for event in events:
                    await handle.lane.room()
                    handle.send(event)
                    handle.stream.sent(event)
        except (Cancelled, asyncio.CancelledError):
            outcome = Outcome(cancelled=True)
        except Exception as error:
            outcome = Outcome(cancelled=True) if handle.cancelled else Outcome(error=as_sidecar_error(error))
        handle.pumping = False
        self._open.pop(handle.id, None)
        for event in handle.stream.closing(outcome):
            handle.send(event)
        # Until then it counts as open: a client that reads nothing can't pile up the ends of streams.
        await handle.lane.empty()
