"""The two processes of the engine: one that works, and one that watches over it and ends it."""

from __future__ import annotations

import os
import select
import shutil
import signal
import time
import traceback
from functools import partial
from typing import Any, Callable, NoReturn

from sidecar.remote.python.limits import END_S, FINISH_S, INPUT_BYTES, LEASE_S
from sidecar.remote.python.output import Output
from sidecar.remote.python.watchdog import Watchdog


def watched(output: Output, work: Callable[[Watchdog], None]) -> int:
    """Do ``work`` in a process that is killed when the input ends, or brings nothing for ``LEASE_S``; its exit status.

    A process and not a thread watches, since what parses a line or steps a query may let no thread of Python's run for
    seconds; and it removes what the other leaves, however that ends. It is the one that was started from outside, so
    that it reaps the other: where nobody takes in orphans, in many a container, each would stay for ever.
    """
    ours, theirs = os.pipe()
    signal.signal(signal.SIGUSR1, partial(_input_ended, output))
    watchdog = Watchdog(os.getpid(), theirs)
    worker = os.fork()
    if worker == 0:
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.close(ours)
            output.watchdog = watchdog
            work(watchdog)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(theirs)
    signal.alarm(0)
    return _watch(worker, ours, output.finishes)


def _input_ended(output: Output, *_: Any) -> None:
    output.is_over = True


def _told_to_end(*_: Any) -> NoReturn:
    raise SystemExit


def _watch(worker: int, pipe: int, finishes: bool) -> int:
    """Wait for the end of the worker, or end it; how it ended."""
    messages = bytearray()
    try:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _told_to_end)
        for descriptor in (1, 2):
            os.close(descriptor)
        if not _worker_outlives_input(pipe, messages):
            pass
        elif messages.endswith(b"\0\0"):
            _ends_within(END_S, pipe, messages)
        elif finishes:
            os.kill(worker, signal.SIGUSR1)
            _ends_within(FINISH_S, pipe, messages)
    except SystemExit:
        pass
    finally:
        # It may have ended, but its number is its own until it is reaped.
        os.kill(worker, signal.SIGKILL)
        _, status = os.waitpid(worker, 0)
        for folder in messages.split(b"\0"):
            if folder:
                shutil.rmtree(bytes(folder), ignore_errors=True)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1


def _worker_outlives_input(pipe: int, messages: bytearray) -> bool:
    """Wait for the end of the input, or of the lease; False when the worker has ended sooner."""
    until_s = time.monotonic() + LEASE_S
    while True:
        ready, _, _ = select.select([pipe, 0], [], [], max(0.0, until_s - time.monotonic()))
        if pipe in ready:
            message = os.read(pipe, INPUT_BYTES)
            if not message:
                return False
            messages += message
        elif not ready or not _has_input():
            return True
        else:
            until_s = time.monotonic() + LEASE_S


def _has_input() -> bool:
    try:
        return bool(os.read(0, INPUT_BYTES))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _ends_within(seconds: float, pipe: int, messages: bytearray) -> None:
    until_s = time.monotonic() + seconds
    while select.select([pipe], [], [], max(0.0, until_s - time.monotonic()))[0]:
        message = os.read(pipe, INPUT_BYTES)
        if not message:
            return
        messages += message
