"""What a stream is to the server: events made in a worker thread, and one way to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import msgspec

from sidecar.cancel import CancelToken
from sidecar.errors import SidecarError


class Event(NamedTuple):
    """A notification to be: its method and its payload, without ``handleId`` and ``seq``."""

    method: str
    payload: msgspec.Struct


class Outcome(NamedTuple):
    """How a stream ended: as planned, cancelled, or with an error."""

    cancelled: bool = False
    error: SidecarError | None = None


class Stream(Protocol):
    """What a ``*_stream`` command starts."""

    def events(self, token: CancelToken) -> Iterator[Event]:
        """Make the events; runs in a worker thread and checks ``token`` all along."""

    def closing(self, outcome: Outcome) -> list[Event]:
        """The last events, of which the very last is the terminal."""


class Notice(msgspec.Struct):
    """The payload of ``sessions:cancelled``: nothing but the handle."""


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


async def in_thread(
    events: Iterator[Event], token: CancelToken, pool: ThreadPoolExecutor
) -> AsyncGenerator[Event, None]:
    """Iterate ``events`` in worker threads, one step at a time and only when asked: a slow reader slows the disk.

    Leaving early sets the token and waits for nothing: a step that is still running sees the token and ends by itself,
    and the iterator is closed after it.
    """
    step: Future[Event | None] | None = None
    try:
        while True:
            step = pool.submit(next, events, None)
            event = await asyncio.wrap_future(step)
            if event is None:
                return
            yield event
    finally:
        token.cancel()
        close = getattr(events, "close", None)
        if step is not None and close is not None:
            # At once if the step is over, else in its thread when it is.
            step.add_done_callback(lambda _: close())
