"""What a stream is to the server: events made in a worker thread, and one way to end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import msgspec

from sidecar.cancel import CancelToken
from sidecar.errors import SidecarError
from sidecar.limits import MAX_STEP_EVENTS, STEP_MS


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

    def events(self, token: CancelToken) -> Generator[Event, None, None]:
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
    events: Generator[Event, None, None], token: CancelToken, pool: ThreadPoolExecutor
) -> AsyncGenerator[Event, None]:
    """Iterate ``events`` in worker threads, a step ahead of what is taken: a slow reader slows the disk.

    Leaving early sets the token and waits for nothing: a step that is still running sees the token and ends by itself,
    and the iterator is closed after it.
    """
    steps = _Steps(events)
    step = pool.submit(steps.take)
    try:
        while ready := await asyncio.wrap_future(step):
            step = pool.submit(steps.take)
            for event in ready:
                yield event
    finally:
        token.cancel()
        # At once if the step is over, else in its thread when it is.
        step.add_done_callback(lambda _: events.close())


class _Steps:
    """Cuts an iterator into steps of a few events: to hand each over by itself costs more than to make it."""

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self._error: Exception | None = None

    def take(self) -> list[Event]:
        """Events made within ``STEP_MS``, at least one; none at the end. An error comes after what came before it."""
        if self._error is not None:
            raise self._error
        taken: list[Event] = []
        due_at_s = time.monotonic() + STEP_MS / 1000
        try:
            for event in self._events:
                taken.append(event)
                if len(taken) == MAX_STEP_EVENTS or time.monotonic() >= due_at_s:
                    break
        except Exception as error:
            if not taken:
                raise
            self._error = error
        return taken
