"""Wait in a worker thread for what goes on in the loop, in steps so small that no thread is ever held for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, TypeVar

from sidecar.cancel import CancelToken
from sidecar.limits import STEP_MS

T = TypeVar("T")


def in_steps(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, T],
    token: CancelToken,
    leave: Callable[[T], object] = lambda _: None,
) -> Generator[None, None, T]:
    """What ``work`` gives or raises in ``loop``; ``None`` every ``STEP_MS`` until then. A set token cancels it.

    ``leave`` is called in ``loop`` with what ``work`` gave if that comes too late to be given here.
    """
    given: list[T] = []

    async def noted() -> T:
        given.append(await work)
        return given[0]

    future = asyncio.run_coroutine_threadsafe(noted(), loop)
    try:
        while True:
            token.check()
            try:
                return future.result(STEP_MS / 1000)
            except TimeoutError:
                # It may be the work's own, or have come to an end just after the wait for it did.
                if future.done():
                    return future.result()
            yield None
    except BaseException:
        future.cancel()
        with suppress(RuntimeError):  # the loop is closed
            # Then it has been cancelled, or was done before.
            loop.call_soon_threadsafe(lambda: [leave(one) for one in given])
        raise


def wait(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], token: CancelToken) -> T:
    """As ``in_steps``, for one who has the thread to himself."""
    steps = in_steps(loop, work, token)
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            result: T = ended.value
            return result
