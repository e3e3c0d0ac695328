"""What a stream is to the server: events made in a worker thread or in the loop, and one way to end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import msgspec

from sidecar.cancel import CancelToken
from sidecar.errors import SidecarError, without_frames
from sidecar.limits import EVENTS_AHEAD, STEP_MS


class Event(NamedTuple):
    """A notification to be: its method and its payload, without ``handleId`` and ``seq``."""

    method: str
    payload: msgspec.Struct


Events = Generator[Event | None, None, None]
"""Events as they are made; ``None`` where none is ready and another stream may have the thread."""


class Outcome(NamedTuple):
    """How a stream ended: as planned, cancelled, or with an error."""

    cancelled: bool = False
    error: SidecarError | None = None


class Stream(Protocol):
    """What a ``*_stream`` command starts."""

    def events(self, token: CancelToken) -> Events | AsyncGenerator[Event, None]:
        """Make the events, with ``token`` checked all along.

        A generator runs in worker threads, and a cancelled one is left where it is. An async one runs in the loop, and
        is closed before ``closing`` is asked: what must have come to an end by then, it waits for.
        """

    def sent(self, event: Event) -> None:
        """Note that ``event`` is on its way: the terminal counts what was sent, not what was still to be."""

    def closing(self, outcome: Outcome) -> list[Event]:
        """The last events, of which the very last is the terminal."""


class Notice(msgspec.Struct):
    """The payload of each ``…:cancelled``: nothing but the handle."""


class ErrorNotice(msgspec.Struct):
    """The payload of ``sessions:error``."""

    error: str
    kind: str


def sessions_closing(outcome: Outcome, terminal: Event) -> list[Event]:
    """The end of a session stream: why it ended early, if it did, and its terminal."""
    if outcome.error is not None:
        return [Event("sessions:error", ErrorNotice(outcome.error.message, outcome.error.kind)), terminal]
    if outcome.cancelled:
        return [Event("sessions:cancelled", Notice()), terminal]
    return [terminal]


async def in_thread(events: Events, token: CancelToken, pool: ThreadPoolExecutor) -> AsyncGenerator[Event, None]:
    """Iterate ``events`` in worker threads, at most ``EVENTS_AHEAD`` further than what is taken.

    So a slow reader slows the disk, and a fast one seldom waits for a thread to be woken. Each event is handed over as
    soon as it is made. Leaving early sets the token and waits for nothing: a step that still runs sees the token and
    ends by itself, and the iterator is closed after it.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[Event | Future[bool]] = asyncio.Queue(EVENTS_AHEAD + 1)
    errors: list[Exception] = []
    left = False

    def arrive(item: Event | Future[bool]) -> None:
        # What nobody takes any more would stay: the step holds the queue that it would lie in.
        if not left:
            arrived.put_nowait(item)

    def hand_over(item: Event | Future[bool]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(arrive, item)

    def make_some() -> bool:
        """Make the next few events, for ``STEP_MS`` if they are slow to come; True if there are no more."""
        give_way_at_s = time.monotonic() + STEP_MS / 1000
        made = 0
        try:
            for event in events:
                if event is not None:
                    hand_over(event)
                    made += 1
                if made == EVENTS_AHEAD or time.monotonic() >= give_way_at_s:
                    return False
        except (SidecarError, OSError) as error:
            # Not raised: a future would hold it, and it the files that its frames have open.
            errors.append(without_frames(error))
        return True

    def submit() -> Future[bool]:
        step = pool.submit(make_some)
        step.add_done_callback(hand_over)
        return step

    step = submit()
    try:
        while True:
            item = await arrived.get()
            if isinstance(item, Event):
                yield item
            elif item.result():
                break
            else:
                step = submit()
    finally:
        left = True
        while not arrived.empty():
            arrived.get_nowait()
        token.cancel()
        # At once if the step is over, else in its thread when it is.
        step.add_done_callback(lambda _: events.close())
    if errors:
        raise errors.pop()
