"""Places for channels, in order, whoever is refused or cancelled; and counts of bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.limits import MAX_CHANNELS
from sidecar.remote import links
from sidecar.remote.links import Channels, Place, Transfers


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel that was refused is asked for again soon."""
    monkeypatch.setattr(links, "REFUSED_POLL_S", 0.001)
    monkeypatch.setattr(links, "REFUSED_S", 0.002)


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "REFUSED_POLL_S", 1000.0)


async def filled(channels: Channels, number: int = MAX_CHANNELS) -> list[Place]:
    return [await channels.take() for _ in range(number)]


@given(st.lists(st.tuples(st.sampled_from(["take", "give", "cancel"]), st.integers(0, 50)), max_size=60))
def test_places_are_given_in_order_and_none_is_lost_whoever_is_cancelled(steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        channels = Channels()
        tasks: list[asyncio.Task[Place]] = []
        held: list[Place] = []
        order: list[int] = []

        async def take(number: int) -> Place:
            place = await channels.take()
            order.append(number)
            held.append(place)
            return place

        for number, (step, which) in enumerate(steps):
            if step == "take":
                tasks.append(asyncio.create_task(take(number)))
            elif step == "give" and held:
                place = held.pop(which % len(held))
                place.give()
                place.give()
            elif step == "cancel" and tasks:
                tasks[which % len(tasks)].cancel()
            if which % 3:
                await settled()
            assert channels.used <= MAX_CHANNELS
        await settled()
        while held:
            held.pop().give()
            await settled()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert channels.used == 0
        assert order == sorted(order)
        assert len(await filled(channels)) == MAX_CHANNELS

    asyncio.run(run())


async def test_who_was_refused_stands_before_who_came_later(never: None) -> None:
    channels = Channels()
    places = await filled(channels)
    order: list[str] = []

    async def note(name: str, taking: Callable[[], Coroutine[Any, Any, object]]) -> None:
        await taking()
        order.append(name)

    tasks = [asyncio.create_task(note("late", channels.take))]
    await settled()
    # Refused out of order, as answers may come.
    for number in (6, 5, 7):
        tasks.append(asyncio.create_task(note(str(number), places[number].take_again)))
        await settled()
    assert channels.used == 5
    for number in range(4):
        assert order == ["5", "6", "7", "late"][:number]
        places[number].give()
        await settled()
    await asyncio.gather(*tasks)
    assert order == ["5", "6", "7", "late"]


async def test_a_host_that_refused_is_asked_for_one_more_now_and_then(at_once: None) -> None:
    channels = Channels()
    places = await filled(channels)
    for place in places[4:]:
        await asyncio.wait_for(place.take_again(), 5)
    assert channels.used == MAX_CHANNELS


async def test_a_host_that_takes_few_is_asked_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(links, "REFUSED_POLL_S", 0.001)
    monkeypatch.setattr(links, "REFUSED_S", 0.008)
    call_later = loop.call_later

    def noted(wait_s: float, *rest: Any) -> asyncio.TimerHandle:
        waits.append(wait_s)
        return call_later(wait_s, *rest)

    monkeypatch.setattr(loop, "call_later", noted)
    channels = Channels()
    places = await filled(channels, 2)
    for _ in range(6):
        await asyncio.wait_for(places[1].take_again(), 5)
    assert [wait_s for wait_s in waits if wait_s < 1] == sorted(wait_s for wait_s in waits if wait_s < 1)
    assert max(wait_s for wait_s in waits if wait_s < 1) == 0.008


async def test_when_none_is_in_use_all_may_be_asked_for_again(never: None) -> None:
    channels = Channels()
    places = await filled(channels, 2)
    again = asyncio.create_task(places[1].take_again())
    await settled()
    assert not again.done()
    places[0].give()
    await again
    places[1].give()
    assert len(await filled(channels)) == MAX_CHANNELS


async def test_a_refused_one_that_is_cancelled_takes_nobodys_place(never: None) -> None:
    channels = Channels()
    places = await filled(channels, 3)
    again = [asyncio.create_task(place.take_again()) for place in places[1:]]
    await settled()
    again[0].cancel()
    await settled()
    places[0].give()
    await again[1]
    for place in places:
        place.give()
    assert channels.used == 0


async def test_the_last_place_that_is_given_back_is_told() -> None:
    told: list[int] = []
    channels = Channels(lambda: told.append(channels.used))
    for place in await filled(channels, 3):
        assert told == []
        place.give()
    assert told == [0]


def test_rates_are_of_the_last_seconds_and_totals_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    transfers = Transfers()
    for second in range(20):
        now_s = 100.0 + second
        transfers.add(10, 100)
        transfers.add(5, 0)
    assert (transfers.uploaded_bytes, transfers.downloaded_bytes) == (300, 2000)
    assert transfers.rates() == (15, 100)
    now_s += 3
    assert transfers.rates() == (2 * 15 // 5, 2 * 100 // 5)
    now_s += 10
    assert transfers.rates() == (0, 0)
    transfers.add(50, 500)
    assert transfers.rates() == (10, 100)
