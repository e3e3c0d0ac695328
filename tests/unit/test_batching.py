"""A chunk goes out when it is full or when its first session has waited long enough, and carries the counts so far."""

from __future__ import annotations

import pytest

from sidecar.core.analysis import Category, SessionAnalysis
from sidecar.core.batching import ChunkBuilder
from sidecar.limits import CHUNK_AGE_MS, FIRST_CHUNK_AGE_MS


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, ms: float) -> None:
        self.now_s += ms / 1000


def session(number: int = 0, size_bytes: int = 600, category: Category = "valuable") -> SessionAnalysis:
    return SessionAnalysis(
        agent="main",
        session_id=f"s{number}",
        file_path=f"/agents/main/sessions/s{number}.jsonl",
        size_bytes=size_bytes,
        message_count=2,
        user_message_count=1,
        assistant_message_count=1,
        last_activity=None,
        age_days=0.0,
        total_tokens=0,
        model=None,
        category=category,
        kind="sessions",
        store="jsonl",
        archived_as=None,
        header_id=None,
        skipped_lines=0,
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_chunk_is_due_when_it_holds_as_many_sessions_as_a_batch(clock: Clock) -> None:
    chunks = ChunkBuilder(3, clock)
    chunks.begin("main")
    for number in range(3):
        assert not chunks.due
        chunks.add(session(number))
    assert chunks.due
    assert [found.session_id for found in chunks.take(9).sessions] == ["s0", "s1", "s2"]
    assert not chunks.due


def test_a_batch_of_one_is_due_after_each_session(clock: Clock) -> None:
    chunks = ChunkBuilder(1, clock)
    chunks.add(session())
    assert chunks.due


def test_the_first_chunk_of_a_stream_is_due_early_since_someone_waits_for_it(clock: Clock) -> None:
    chunks = ChunkBuilder(50, clock)
    chunks.begin("main")
    chunks.add(session())
    clock.advance(FIRST_CHUNK_AGE_MS + 1)
    assert chunks.due


def test_a_later_chunk_is_due_later(clock: Clock) -> None:
    chunks = ChunkBuilder(50, clock)
    chunks.begin("main")
    chunks.take(9)
    chunks.add(session())
    clock.advance(CHUNK_AGE_MS - 1)
    assert not chunks.due
    clock.advance(2)
    assert chunks.due


def test_a_chunks_age_counts_from_its_first_session(clock: Clock) -> None:
    chunks = ChunkBuilder(50, clock)
    chunks.take(0)
    chunks.add(session(0))
    clock.advance(CHUNK_AGE_MS - 1)
    chunks.add(session(1))
    assert not chunks.due
    clock.advance(2)
    assert chunks.due


def test_no_chunk_is_due_without_a_session_however_late_it_is(clock: Clock) -> None:
    chunks = ChunkBuilder(1, clock)
    clock.advance(100_000)
    assert not chunks.due


def test_no_session_is_held_longer_than_the_contract_says() -> None:
    assert FIRST_CHUNK_AGE_MS < CHUNK_AGE_MS <= 50


def test_the_counters_are_cumulative_for_an_agent(clock: Clock) -> None:
    chunks = ChunkBuilder(2, clock)
    chunks.begin("main")
    chunks.add(session(0, 100, "empty"))
    chunks.add(session(1, 600, "low_value"))
    first = chunks.take(3)
    chunks.add(session(2, 700, "valuable"))
    last = chunks.take(3, done=True)
    assert (first.total_files, first.total_size_bytes) == (2, 700)
    assert (first.empty_count, first.low_value_count, first.valuable_count) == (1, 1, 0)
    assert not first.done
    assert (last.total_files, last.total_size_bytes) == (3, 1_400)
    assert (last.empty_count, last.low_value_count, last.valuable_count) == (1, 1, 1)
    assert [found.session_id for found in last.sessions] == ["s2"]
    assert (last.agent, last.agent_files_total, last.done) == ("main", 3, True)


def test_the_last_chunk_of_an_agent_may_be_empty_and_still_has_its_counters(clock: Clock) -> None:
    chunks = ChunkBuilder(1, clock)
    chunks.begin("main")
    chunks.add(session())
    chunks.take(1)
    last = chunks.take(1, done=True)
    assert last.sessions == []
    assert last.total_files == 1


def test_the_counters_of_the_next_agent_begin_at_zero(clock: Clock) -> None:
    chunks = ChunkBuilder(50, clock)
    chunks.begin("main")
    chunks.add(session())
    chunks.take(1, done=True)
    chunks.begin("research")
    chunks.add(session())
    chunk = chunks.take(4)
    assert (chunk.agent, chunk.total_files, chunk.agent_files_total) == ("research", 1, 4)


def test_a_chunk_that_was_taken_does_not_change_any_more(clock: Clock) -> None:
    chunks = ChunkBuilder(50, clock)
    chunks.begin("main")
    chunks.add(session(0))
    taken = chunks.take(2)
    chunks.add(session(1))
    assert len(taken.sessions) == taken.total_files == 1
