"""The work of eager commands, run beside the read loop so that a cancel or a ping never waits behind it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from sidecar.cancel import CancelToken
from sidecar.errors import Cancelled, TooBusy, as_sidecar_error
from sidecar.limits import BACKUP_JOB_THREADS, JOB_THREADS, MAX_EAGER_ITEMS, MAX_OPEN_JOBS, REMOTE_JOB_THREADS
from sidecar.server.command import Command, Job
from sidecar.server.dispatch import Answer
from sidecar.wire.messages import encode

log = logging.getLogger(__name__)


class Jobs:
    """Runs jobs in threads of their own, so that long ones don't hold up streams."""

    def __init__(self, tasks: asyncio.TaskGroup, ended: Callable[[], None]) -> None:
        """``ended`` is called whenever jobs have been answered."""
        self._tasks = tasks
        self._ended = ended
        self._pool = ThreadPoolExecutor(JOB_THREADS, "job")
        self._remote_pool = ThreadPoolExecutor(REMOTE_JOB_THREADS, "remote-job")
        self._backup_pool = ThreadPoolExecutor(BACKUP_JOB_THREADS, "backup-job")
        self._tokens: set[CancelToken] = set()
        self._running: set[asyncio.Task[None]] = set()

    def begin(self, answers: Sequence[Answer], then: Callable[[], None]) -> None:
        """Do the jobs of ``answers``, put into each its value or error, and call ``then``."""
        accepted: list[tuple[Answer, Job, CancelToken]] = []
        for answer in answers:
            if answer.job is None:
                continue
            if len(self._tokens) >= MAX_OPEN_JOBS:
                answer.error = TooBusy(f"{MAX_OPEN_JOBS} commands are running; wait for one to end")
                continue
            token = CancelToken()
            self._tokens.add(token)
            accepted.append((answer, answer.job, token))
        task = self._tasks.create_task(self._run_all(accepted, then))
        self._running.add(task)
        task.add_done_callback(self._end)

    def cancel_all(self) -> None:
        """Tell every job to stop; what it answers is then the error ``cancelled``."""
        for token in self._tokens:
            token.cancel()

    async def idle(self) -> None:
        """Wait until every job has been answered."""
        while self._running:
            await asyncio.wait(self._running)

    def abandon(self) -> None:
        """Answer what runs with ``cancelled``, without waiting for a thread that hangs."""
        for task in self._running:
            task.cancel()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._remote_pool.shutdown(wait=False, cancel_futures=True)
        self._backup_pool.shutdown(wait=False, cancel_futures=True)

    @property
    def at_work(self) -> bool:
        return bool(self._running)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._ended()

    async def _run_all(self, jobs: Sequence[tuple[Answer, Job, CancelToken]], then: Callable[[], None]) -> None:
        for answer, job, token in jobs:
            await self._run(answer, job, token)
            self._tokens.discard(token)
        then()

    def _pool_for(self, command: Command | None) -> ThreadPoolExecutor:
        if command and command.takes_long:
            return self._backup_pool
        return self._remote_pool if command and command.at_host else self._pool

    async def _run(self, answer: Answer, job: Job, token: CancelToken) -> None:
        def work() -> msgspec.Raw:
            token.check()
            # Encoded here as well: a large answer would hold up the loop for longer than a frame of the app's window.
            result = job(token)
            if answer.command:
                _warn_if_large(answer.command, result)
            return msgspec.Raw(encode(result))

        try:
            answer.value = await asyncio.wrap_future(self._pool_for(answer.command).submit(work))
        except (Cancelled, asyncio.CancelledError):
            token.cancel()
            answer.error = Cancelled()
        except Exception as error:
            answer.error = as_sidecar_error(error)


def _warn_if_large(command: Command, result: Any) -> None:
    """Name the stream to use instead in the log, for an answer with many items: a client waits for the last of them."""
    if command.stream_instead is None or not isinstance(result, list):
        return
    # An agent of an analysis stands for its sessions.
    items = sum(getattr(item, "total_files", 1) for item in result)
    if items > MAX_EAGER_ITEMS:
        log.warning(
            "%s gave %d items in one answer; %s gives them in batches", command.name, items, command.stream_instead
        )
