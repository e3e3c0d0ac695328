"""A slow reader slows the work instead of filling memory, and nobody waits for somebody else's turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from sidecar.limits import STREAM_THREADS
from tests.client import SidecarProcess, methods, request_line, sessions_of
from tests.e2e.conftest import MANY_SESSIONS

MIB = 1024 * 1024
# The analysis of the talkative home is 40 MB long; four chunks of it, of half a megabyte each, may be under way.
FLAT_BYTES = 8 * MIB
WATCHED_S = 1.0


async def test_memory_stays_flat_while_a_reader_has_stalled_and_nothing_is_lost(
    talkative_home: Path, record_measured: Callable[[str], None]
) -> None:
    async with SidecarProcess(talkative_home) as process:
        # What the first stream loads and allocates once.
        await process.call("cancel_stream", {"handleId": await process.start_stream({"batchSize": 1})})
        before_bytes = process.resident_bytes()
        handle = await process.start_stream()
        blocked = asyncio.create_task(process.output_is_blocked())
        peak_bytes = before_bytes
        deadline_s = time.monotonic() + WATCHED_S
        while time.monotonic() < deadline_s or not blocked.done():
            peak_bytes = max(peak_bytes, process.resident_bytes())
            await asyncio.sleep(0.01)
        await blocked
        messages = await process.collect(handle)

        record_measured(f"a stalled reader: memory grew by {(peak_bytes - before_bytes) / MIB:.1f} MiB")
        assert peak_bytes - before_bytes < FLAT_BYTES
        done = messages[-1]["params"]
        assert (done["totalSessions"], done["failedItems"], done["cancelled"]) == (MANY_SESSIONS, 0, False)
        names = [session["sessionId"] for session in sessions_of(messages)]
        assert names == [f"s-topic-{number:04}" for number in range(MANY_SESSIONS)]


async def test_many_streams_that_nobody_reads_hold_little_each(talkative_home: Path) -> None:
    streams = 30
    async with SidecarProcess(talkative_home) as process:
        await process.call("cancel_stream", {"handleId": await process.start_stream()})
        before_bytes = process.resident_bytes()
        for number in range(streams):
            await process.send(request_line("analyze_sessions_stream", {"batchSize": 5}, f"stream {number}"))
        await process.output_is_blocked()
        await process.input_is_read()

        # Chunks of 50 KB, a few for each, and the names of the sessions.
        assert process.resident_bytes() - before_bytes < streams * 2 * MIB
        handles = [(await process.reply(f"stream {number}"))["result"] for number in range(streams)]
        for handle in handles:
            assert await process.call("cancel_stream", {"handleId": handle}) is True
        for handle in handles:
            assert (await process.collect(handle))[-1]["params"]["cancelled"] is True


async def test_two_streams_are_at_work_at_the_same_time(talkative_home: Path) -> None:
    async with SidecarProcess(talkative_home) as process:
        one, other = await process.start_stream(), await process.start_stream()
        process.close_stdin()
        messages = await process.read_to_end()

        owners = [message["params"]["handleId"] for message in messages]
        places = {handle: [place for place, owner in enumerate(owners) if owner == handle] for handle in (one, other)}
        assert places[one][0] < places[other][-1]
        assert places[other][0] < places[one][-1]
        for handle in (one, other):
            stream = [message for message in messages if message["params"]["handleId"] == handle]
            assert len(sessions_of(stream)) == MANY_SESSIONS


async def test_streams_take_turns_when_all_have_something_to_say(talkative_home: Path) -> None:
    async with SidecarProcess(talkative_home) as process:
        for number in range(3):
            await process.send(request_line("analyze_sessions_stream", request_id=f"stream {number}"))
            await process.output_is_blocked()
            await process.input_is_read()
        handles = [(await process.reply(f"stream {number}"))["result"] for number in range(3)]
        owners = []
        for _ in range(15):
            owners.append((await process.read())["params"]["handleId"])
            await process.at_rest()

        # The first had the pipe to itself for a while.
        assert [sorted(handles)] * 4 == [sorted(owners[at : at + 3]) for at in (3, 6, 9, 12)]


async def test_a_small_stream_and_a_ping_do_not_wait_for_a_huge_stream(talkative_home: Path, sample_home: Path) -> None:
    async with SidecarProcess(talkative_home) as process:
        huge = await process.start_stream({"batchSize": 250})
        await process.notification(huge)
        await process.call("set_active_openclaw_home", {"path": str(sample_home)})
        small = await process.start_stream()
        ping = await process.request("ping")
        done = (await process.collect(small))[-1]["params"]
        await process.reply(ping)
        info = await process.call("get_sidecar_info")

        assert done["totalSessions"] == 60
        assert info["openHandles"] == 1, "the huge one is still at work"
        assert (await process.collect(huge))[-1]["params"]["totalSessions"] == MANY_SESSIONS


async def test_a_small_stream_ends_while_more_huge_ones_run_than_there_are_threads(
    huge_home: Path, sample_home: Path
) -> None:
    async with SidecarProcess(huge_home) as process:
        huge = [await process.start_stream() for _ in range(STREAM_THREADS + 2)]
        await process.call("set_active_openclaw_home", {"path": str(sample_home)})
        small = await process.start_stream()
        messages = await process.collect(small)

        assert messages[-1]["params"]["totalSessions"] == 60
        for handle in huge:
            assert await process.call("cancel_stream", {"handleId": handle}) is True
            ended = await process.collect(handle)
            assert ended[-1]["params"]["cancelled"] is True


async def test_10_000_pings_among_a_stream_are_answered_in_order_and_the_stream_is_whole(
    talkative_home: Path,
) -> None:
    pings = range(10_000)
    lines = [request_line("ping", request_id=f"ping {number}") for number in pings]
    async with SidecarProcess(talkative_home) as process:
        handle = await process.start_stream({"batchSize": 5})

        async def send_pings() -> None:
            await process.send(b"".join(lines))
            process.close_stdin()

        sending = asyncio.create_task(send_pings())
        messages = await process.read_to_end()
        await sending

        replies = [message for message in messages if "id" in message]
        assert [reply["id"] for reply in replies] == [f"ping {number}" for number in pings]
        assert {reply["result"] for reply in replies} == {"pong"}
        stream = [message for message in messages if "method" in message]
        assert [message["params"]["handleId"] for message in stream] == [handle] * len(stream)
        assert methods(stream)[-1] == "sessions:done"
        assert len(sessions_of(stream)) == MANY_SESSIONS
        # Neither kept the other waiting until it was through.
        first_ping, first_chunk = messages.index(replies[0]), messages.index(stream[0])
        assert first_chunk < messages.index(replies[-1])
        assert first_ping < messages.index(stream[-1])


async def test_a_client_may_write_a_megabyte_of_requests_before_it_reads(sample_home: Path) -> None:
    ids = [f"{number:04} {'i' * 1_000}" for number in range(1_000)]
    async with SidecarProcess(sample_home) as process:
        await process.send(b"".join(request_line("ping", request_id=request_id) for request_id in ids))
        await process.output_is_blocked()
        process.close_stdin()

        assert [reply["id"] for reply in await process.read_to_end()] == ids
        assert await process.exit_code() == 0
