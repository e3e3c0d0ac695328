"""Wait in a worker thread for what goes on in the loop, in steps so small that no thread is ever held for long."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

from sidecar.cancel import CancelToken
from sidecar.limits import STEP_MS

T = TypeVar("T")


def in_steps(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], token: CancelToken
) -> Generator[None, None, T]:
    """What ``work`` gives or raises in ``loop``; ``None`` every ``STEP_MS`` until then. A set token cancels it."""
    future = asyncio.run_coroutine_threadsafe(work, loop)
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
