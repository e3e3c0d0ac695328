"""Waits of a worker thread for work in the loop: they end with the work, however late, and end it when cancelled."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from sidecar.cancel import CancelToken
from sidecar.errors import Cancelled
from sidecar.remote.waiting import in_steps, wait
from tests.client import WITHIN_S


async def answer(value: object = 7, after_s: float = 0.0) -> Any:
    await asyncio.sleep(after_s)
    if isinstance(value, Exception):
        raise value
    return value


@pytest.mark.parametrize("after_s", [0.0, 0.05])
def test_the_result_and_the_error_of_the_work_are_those_of_the_wait(
    loop: asyncio.AbstractEventLoop, after_s: float
) -> None:
    assert wait(loop, answer(7, after_s), CancelToken()) == 7
    for error in (ValueError("mine"), TimeoutError("mine too")):
        with pytest.raises(type(error), match="mine"):
            wait(loop, answer(error, after_s), CancelToken())


def test_each_step_is_short(loop: asyncio.AbstractEventLoop) -> None:
    steps = in_steps(loop, answer(7, 0.1), CancelToken())
    start_s = time.monotonic()
    assert next(steps) is None
    assert time.monotonic() - start_s < 0.09
    others = iter(lambda: next(steps, 7), 7)
    assert len(list(others)) > 1


@pytest.mark.parametrize("leave", [lambda token, _: token.cancel(), lambda _, steps: steps.close()])
def test_who_is_cancelled_or_leaves_ends_the_work(
    loop: asyncio.AbstractEventLoop, leave: Callable[[Any, Any], None]
) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def work() -> None:
        try:
            begun.set()
            await asyncio.sleep(1000)
        finally:
            ended.set()

    token = CancelToken()
    steps = in_steps(loop, work(), token)
    next(steps)
    assert begun.wait(WITHIN_S)
    leave(token, steps)
    if token.cancelled:
        with pytest.raises(Cancelled):
            next(steps)
    assert ended.wait(WITHIN_S)


@pytest.mark.parametrize("leave", [lambda token, _: token.cancel(), lambda _, steps: steps.close()])
def test_what_the_work_gave_too_late_is_left(
    loop: asyncio.AbstractEventLoop, leave: Callable[[Any, Any], None]
) -> None:
    """A command that is cancelled just when its process has started must end that."""
    done, left = threading.Event(), threading.Event()
    go = asyncio.Event()

    async def work() -> threading.Event:
        await go.wait()
        loop.call_soon(done.set)
        return left

    token = CancelToken()
    steps = in_steps(loop, work(), token, threading.Event.set)
    next(steps)
    loop.call_soon_threadsafe(go.set)
    assert done.wait(WITHIN_S)
    leave(token, steps)
    if token.cancelled:
        with pytest.raises(Cancelled):
            next(steps)
    assert left.wait(WITHIN_S)


def test_what_the_work_gave_in_time_is_not_left(loop: asyncio.AbstractEventLoop) -> None:
    left = threading.Event()
    steps = in_steps(loop, answer(left, 0.02), CancelToken(), threading.Event.set)
    for _ in steps:
        pass
    wait(loop, answer(), CancelToken())
    assert not left.is_set()


def test_work_that_ends_just_after_a_wait_for_it_has_not_timed_out(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(Future[int]):
        """Ends between the end of a wait and the look at it."""

        def result(self, timeout: float | None = None) -> int:
            if not self.done():
                self.set_result(7)
                raise TimeoutError
            return super().result(timeout)

    def late(noted: Any, _: asyncio.AbstractEventLoop) -> Late:
        noted.close()
        return Late()

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", late)
    work = answer()
    assert wait(loop, work, CancelToken()) == 7
    work.close()
