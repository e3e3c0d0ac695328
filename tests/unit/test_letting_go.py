"""A stream that is cancelled lets go of files at once: not when the garbage collector comes, which may be late."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from pathlib import Path

import msgspec
import pytest

from sidecar.cancel import CancelToken
from sidecar.core.failures import FailedItems
from sidecar.demo.eras import EraPlan, write_both_eras
from sidecar.errors import Cancelled, SourceUnreadable
from sidecar.stores.agent import AgentSessions
from sidecar.stores.locations import list_agents
from sidecar.streams.base import Event, Events, in_thread

NOW_MS = 1_795_000_000_000


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Held(msgspec.Struct, weakref=True):
    """Stands for an open file, or for what waits to be sent."""


@pytest.mark.parametrize("end", ["left early", "cancelled", "failed", "whole"])
async def test_nothing_stays_of_what_a_stream_held_when_it_ends(end: str) -> None:
    watched: list[weakref.ref[Held]] = []

    def events(token: CancelToken) -> Events:
        held = Held()
        watched.append(weakref.ref(held))
        for number in range(20):
            token.check()
            yield Event("some:event", held)
            if end == "failed" and number == 10:
                raise SourceUnreadable("gone")

    async def consume(token: CancelToken, pool: ThreadPoolExecutor) -> None:
        async with aclosing(in_thread(events(token), token, pool)) as made:
            async for _ in made:
                if end == "left early":
                    return
                if end == "cancelled":
                    token.cancel()

    with ThreadPoolExecutor(1) as pool:
        with suppress(Cancelled, SourceUnreadable):
            await consume(CancelToken(), pool)
        await asyncio.wrap_future(pool.submit(lambda: None))
    # What the thread has handed over to the loop last.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [reference() for reference in watched] == [None]


def test_an_analysis_that_is_left_while_it_reads_files_closes_the_database_that_it_compares_them_with(
    tmp_path: Path,
) -> None:
    write_both_eras(tmp_path, (EraPlan("half", 2_000, in_files=3, in_database=8),), now_ms=NOW_MS)
    (folder,) = list_agents(str(tmp_path))
    agent = AgentSessions(folder, CancelToken(), FailedItems())
    sessions = agent.sessions(NOW_MS)
    # Files come first: the first one is only known to be no copy when the database was looked at.
    next(sessions)
    assert databases_open(tmp_path)
    del sessions  # which closes a generator
    assert not databases_open(tmp_path)


def databases_open(root: Path) -> list[str]:
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    targets = [os.readlink(link) for link in links if os.path.lexists(link)]
    return [target for target in targets if target.startswith(str(root)) and ".sqlite" in target]
