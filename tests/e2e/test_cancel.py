"""``cancel_stream`` at any moment of a stream's life."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.cancel import CancelToken
from sidecar.server.command import Command
from sidecar.server.commands import COMMANDS
from sidecar.server.connection import Connection
from sidecar.stores.home import LocalHome
from sidecar.streams.analyze import AnalysisStream
from sidecar.streams.base import Event
from tests.client import (
    SidecarProcess,
    check_output,
    eventually,
    methods,
    request_line,
    sessions_of,
)
from tests.e2e.conftest import HUGE_BYTES

# Fifty milliseconds are aimed at; a test on a busy machine can only tell "soon" from "when the file is through".
TERMINAL_WITHIN_S = 1.0
KNOWN_HANDLE = uuid.UUID("11111111-2222-4333-8444-555555555555")


def assert_cancelled(messages: list[Any]) -> None:
    """``messages`` are all notifications of one stream, or the last of them: it ended as a cancelled one does."""
    assert methods(messages)[-2:] == ["sessions:cancelled", "sessions:done"]
    assert methods(messages).count("sessions:cancelled") == methods(messages).count("sessions:done") == 1
    assert messages[-1]["params"]["cancelled"] is True


class TestBeforeTheFirstStep:
    """The handle must be known before the reply that names it, so these look at a connection from within."""

    @pytest.fixture
    def begun(self) -> list[str]:
        """What streams have begun to work."""
        return []

    @pytest.fixture
    def commands(self, begun: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Command, ...]:
        """The real ones, but for a stream that notes when it begins, under a handle that is known before."""

        class NotingStream(AnalysisStream):
            def events(self, token: CancelToken) -> Generator[Event, None, None]:
                begun.append("stream")
                # Without end, were it not for a test that fails.
                deadline_s = time.monotonic() + 5
                while time.monotonic() < deadline_s:
                    token.check()
                yield from ()

        monkeypatch.setattr(uuid, "uuid4", lambda: KNOWN_HANDLE)
        return tuple(
            replace(command, run=lambda context, params: NotingStream(LocalHome("/nowhere")))
            if command.kind == "stream"
            else command
            for command in COMMANDS
        )

    async def test_a_cancel_in_the_same_batch_leaves_nothing_but_the_end(
        self, commands: tuple[Command, ...], begun: list[str]
    ) -> None:
        batch = [
            {"jsonrpc": "2.0", "id": 1, "method": "analyze_sessions_stream"},
            {"jsonrpc": "2.0", "id": 2, "method": "cancel_stream", "params": {"handleId": str(KNOWN_HANDLE)}},
        ]
        replies, *notifications = await serve(commands, json.dumps(batch).encode())

        assert [reply["result"] for reply in replies] == [str(KNOWN_HANDLE), True]
        assert methods(notifications) == ["sessions:cancelled", "sessions:done"]
        assert_cancelled(notifications)
        assert begun == []

    async def test_a_cancel_in_the_same_write_leaves_nothing_but_the_end(
        self, commands: tuple[Command, ...], begun: list[str]
    ) -> None:
        cancel = request_line("cancel_stream", {"handleId": str(KNOWN_HANDLE)}, 2)
        messages = await serve(commands, request_line("analyze_sessions_stream") + cancel)

        assert [message["result"] for message in messages if "id" in message] == [str(KNOWN_HANDLE), True]
        assert methods(message for message in messages if "method" in message) == [
            "sessions:cancelled",
            "sessions:done",
        ]
        assert begun == []

    async def test_a_shutdown_in_the_same_batch_ends_it_with_its_terminal(
        self, commands: tuple[Command, ...], begun: list[str]
    ) -> None:
        names = ["analyze_sessions_stream", "shutdown"]
        batch = [{"jsonrpc": "2.0", "id": number, "method": name} for number, name in enumerate(names)]
        _, *notifications = await serve(commands, json.dumps(batch).encode())

        assert_cancelled(notifications)
        assert begun == []


class TestInTheMiddle:
    async def test_of_one_huge_file_the_terminal_comes_soon_and_the_file_is_left(
        self, huge_home: Path, record_measured: Callable[[str], None]
    ) -> None:
        huge = huge_home / ".openclaw" / "agents" / "main" / "sessions" / "huge.jsonl"
        async with SidecarProcess(huge_home) as process:
            handle = await process.start_stream({"batchSize": 1})
            (first,) = sessions_of([await process.notification(handle)])
            cancelled_at_s = time.monotonic()
            assert await process.call("cancel_stream", {"handleId": handle}) is True
            answered_at_s = time.monotonic()
            messages = await process.collect(handle)
            delay_s = time.monotonic() - cancelled_at_s

            assert first["sessionId"] == "a"
            assert methods(messages) == ["sessions:cancelled", "sessions:done"]
            assert_cancelled(messages)
            assert messages[-1]["params"]["totalSessions"] == 1
            assert delay_s < TERMINAL_WITHIN_S
            await eventually(lambda: not process.has_open(huge), "the huge file is closed")
            assert process.bytes_read() < HUGE_BYTES / 2
            record_measured(
                f"cancel in the middle of 500 MB: reply after {(answered_at_s - cancelled_at_s) * 1000:.1f} ms, "
                f"terminal after {delay_s * 1000:.1f} ms"
            )

    async def test_at_random_moments_each_ends_once_and_soon(
        self, talkative_home: Path, record_measured: Callable[[str], None]
    ) -> None:
        rng = random.Random(1)
        from_reply_ms: list[float] = []
        async with SidecarProcess(talkative_home) as process:
            for _ in range(15):
                handle = await process.start_stream({"batchSize": rng.choice((1, 7, 50))})
                messages = [await process.notification(handle) for _ in range(rng.randrange(40))]
                assert await process.call("cancel_stream", {"handleId": handle}) is True
                answered_at_s = time.monotonic()
                messages += await process.collect(handle)
                from_reply_ms.append((time.monotonic() - answered_at_s) * 1000)

                assert_cancelled(messages)
            assert (await process.call("get_sidecar_info"))["openHandles"] == 0

        assert max(from_reply_ms) < TERMINAL_WITHIN_S * 1000
        record_measured(
            f"from the reply of cancel to the terminal, {len(from_reply_ms)} times: "
            f"median {statistics.median(from_reply_ms):.1f} ms, longest {max(from_reply_ms):.1f} ms"
        )

    async def test_with_a_reader_that_has_stalled_the_cancel_is_read_and_acted_on(self, talkative_home: Path) -> None:
        async with SidecarProcess(talkative_home) as process:
            handle = await process.start_stream()
            await process.output_is_blocked()
            cancel = await process.request("cancel_stream", {"handleId": handle})
            await process.input_is_read()
            messages = await process.collect(handle)

            assert (await process.reply(cancel))["result"] is True
            assert_cancelled(messages)
            # Only what was on its way already: the pipe's content, and a few chunks.
            assert len(messages) < 12

    async def test_the_terminal_counts_what_was_sent_and_not_what_was_still_to_be_sent(
        self, talkative_home: Path
    ) -> None:
        async with SidecarProcess(talkative_home) as process:
            handle = await process.start_stream()
            await process.output_is_blocked()
            await process.request("cancel_stream", {"handleId": handle})
            await process.input_is_read()
            messages = await process.collect(handle)

            assert messages[-1]["params"]["totalSessions"] == len(sessions_of(messages))

    async def test_one_of_two_streams_leaves_the_other_alone(self, talkative_home: Path) -> None:
        async with SidecarProcess(talkative_home) as process:
            one, other = await process.start_stream(), await process.start_stream()
            await process.notification(one)
            assert await process.call("cancel_stream", {"handleId": one}) is True

            assert_cancelled(await process.collect(one))
            rest = await process.collect(other)
            assert "sessions:cancelled" not in methods(rest)
            assert rest[-1]["params"]["cancelled"] is False
            assert len(sessions_of(rest)) == rest[-1]["params"]["totalSessions"]

    async def test_the_reply_comes_before_the_end_of_the_stream(self, talkative_home: Path) -> None:
        async with SidecarProcess(talkative_home) as process:
            for _ in range(25):
                handle = await process.start_stream({"batchSize": 1})
                await process.notification(handle)
                cancel = await process.request("cancel_stream", {"handleId": handle})
                while "id" not in (message := await process.read()):
                    assert message["method"] == "sessions:chunk"

                assert (message["id"], message["result"]) == (cancel, True)
                assert_cancelled(await process.collect(handle))

    async def test_when_it_comes_as_a_notification_it_works_without_a_reply(self, huge_home: Path) -> None:
        async with SidecarProcess(huge_home) as process:
            handle = await process.start_stream()
            cancel = {"jsonrpc": "2.0", "method": "cancel_stream", "params": {"handleId": handle}}
            await process.send(json.dumps(cancel).encode() + b"\n")

            assert_cancelled(await process.collect(handle))
            process.close_stdin()
            assert await process.read_to_end() == []


class TestNothingToCancel:
    async def test_after_the_end_it_is_false(self, sample_home: Path) -> None:
        async with SidecarProcess(sample_home) as process:
            handle = await process.start_stream()
            messages = await process.collect(handle)

            assert messages[-1]["params"]["cancelled"] is False
            assert await process.call("cancel_stream", {"handleId": handle}) is False

    async def test_the_second_time_it_is_false(self, huge_home: Path) -> None:
        async with SidecarProcess(huge_home) as process:
            handle = await process.start_stream()
            calls = [request_line("cancel_stream", {"handleId": handle}, number) for number in (11, 12)]
            await process.send(b"".join(calls))

            assert (await process.reply(11))["result"] is True
            assert (await process.reply(12))["result"] is False
            assert_cancelled(await process.collect(handle))
            assert await process.call("cancel_stream", {"handleId": handle}) is False

    async def test_an_unknown_handle_is_false(self, sample_home: Path) -> None:
        async with SidecarProcess(sample_home) as process:
            for handle in ("", "no-such-handle", str(KNOWN_HANDLE), "\ud83d", "x" * 100_000):
                assert await process.call("cancel_stream", {"handleId": handle}) is False


async def serve(commands: tuple[Command, ...], data: bytes) -> list[Any]:
    """What a connection within this process writes when it gets ``data`` in one piece."""
    written = bytearray()

    async def write(output: bytes) -> None:
        written.extend(output)

    async def chunks() -> AsyncIterator[bytes]:
        yield data

    async with asyncio.timeout(10):
        await Connection(write, commands).run(chunks())
    return check_output(bytes(written))
