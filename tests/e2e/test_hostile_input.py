"""Whatever comes in gets the specified answer or a clear error, memory stays bounded, and the next request works.

What a slow reader does is in ``test_backpressure``, ends of streams are in ``test_lifecycle``, plain mistakes in
``test_errors``.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from sidecar.limits import MAX_LINE_BYTES, MAX_LINE_VALUES, MAX_OPEN_HANDLES, MAX_OPEN_JOBS, MAX_WAITING_REPLY_BYTES
from tests.client import (
    COMMAND,
    WITHIN_S,
    Message,
    SidecarProcess,
    check_output,
    environment,
    error_codes,
    methods,
    request_line,
    sessions_of,
)
from tests.soak.requests import measure

MIB = 1024 * 1024
SAMPLE_SESSIONS = 60
PARSE_ERROR = (-32700, "parse_error", None)
INVALID_REQUEST = (-32600, "invalid_request", None)
# A line as it comes in and once more as the parser takes it; a text with one wide character is four times as long.
PEAK_OF_A_LINE_BYTES = 8 * MAX_LINE_BYTES
# glibc keeps what two such lines took for the next ones.
LEFT_OF_LINES_BYTES = 4 * MAX_LINE_BYTES
SMALL_REQUESTS = 20_000


@pytest.fixture
async def idle(sample_home: Path) -> AsyncIterator[SidecarProcess]:
    """One that has loaded what any request needs, and of which memory has not been used otherwise."""
    async with SidecarProcess(sample_home) as process:
        await process.rejected("cancel_stream", {"handleId": 5})
        await process.collect(await process.start_stream())
        await process.at_rest()
        yield process


@pytest.fixture
def deep_json() -> Iterator[None]:
    """Python's own parser takes what lies deeper than its usual limit allows."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(5_000)
    yield
    sys.setrecursionlimit(before)


def a_ping(request_id: bytes, more: bytes = b"") -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"method":"ping"%b}\n' % (request_id, more)


def a_full_line(before: bytes, value: bytes, behind: bytes) -> bytes:
    """A line of nearly the most bytes that one may have, of ``value`` over and over."""
    room = MAX_LINE_BYTES - len(before) - len(behind) - len(value)
    return before + value * (room // len(value)) + behind + b"\n"


def output_of(home: Path, data: bytes) -> list[bytes]:
    """The lines that a process writes that gets ``data`` and then the end of its input."""
    ended = subprocess.run(
        COMMAND, input=data, capture_output=True, env=environment(home), timeout=WITHIN_S, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    check_output(ended.stdout)
    return ended.stdout.splitlines()


class TestTheText:
    @pytest.mark.parametrize("depth", [400, 1_025, 20_000, 130_000])
    @pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
    async def test_nested_to_any_depth_it_is_answered(
        self, process: SidecarProcess, depth: int, opening: bytes, closing: bytes
    ) -> None:
        value = opening * depth + b"0" + closing * depth
        as_params = a_ping(b"1", b',"params":{"a":%b}' % value)
        as_host = request_line("upsert_ssh_host", {"host": {"x": 0}}).replace(b"0}", value + b"}")
        alone, nested, in_batch, host, torn = await process.answers_to(
            value + b"\n" + as_params + b"[" + as_params[:-1] + b"]\n" + as_host + opening * depth + b"\n"
        )

        if depth == 400:
            assert alone["error"]["code"] if opening != b"[" else alone[0]["error"]["code"] == -32600
            assert nested["result"] == in_batch[0]["result"] == "pong"
            assert error_codes([host]) == [(-32602, "invalid_params", 1)]
        else:
            assert error_codes([alone, nested, in_batch, host]) == [PARSE_ERROR] * 4
        assert error_codes([torn]) == [PARSE_ERROR]

    async def test_a_field_of_a_host_as_deep_as_json_may_be_is_kept_or_refused(
        self, tmp_path: Path, deep_json: None
    ) -> None:
        known = {"id": "", "label": "", "host": "h", "port": 22, "username": "", "authMethod": "key", "more": 0}
        async with SidecarProcess(tmp_path) as process:
            for depth in range(850, 1_025, 5):
                value = b"[" * depth + b"]" * depth
                await process.send(
                    request_line("upsert_ssh_host", {"host": known}, depth).replace(b"0}}", value + b"}}")
                )
                reply = await process.read()
                assert "result" in reply or reply["error"]["data"]["kind"] in {"invalid_params", "parse_error"}
            assert len(await process.call("list_ssh_hosts")) == 1
            assert process.stderr() == ""

    async def test_of_a_key_given_twice_the_last_counts(self, process: SidecarProcess) -> None:
        lines = [
            b'{"jsonrpc":"1.0","id":1,"method":"no","jsonrpc":"2.0","id":2,"method":"ping"}',
            b'{"jsonrpc":"2.0","id":3,"i\\u0064":123456789012345678901234567890,"method":"ping"}',
            b'{"jsonrpc":"2.0","id":123456789012345678901234567890,"id":4,"method":"ping"}',
            b'{"jsonrpc":"2.0","id":5,"method":"cancel_stream","params":[],"params":{"handleId":5,"handleId":"no"}}',
            b'{"jsonrpc":"2.0","id":6,"method":"ping","params":{},"params":7}',
            b'[{"jsonrpc":"2.0","id":[],"method":"ping","id":7}]',
        ]
        *answers, refused, batch = await process.answers_to(b"\n".join(lines) + b"\n")

        assert [answer["id"] for answer in answers] == [2, 123456789012345678901234567890, 4, 5]
        assert [answer["result"] for answer in answers] == ["pong", "pong", "pong", False]
        assert error_codes([refused]) == [(-32600, "invalid_request", 6)]
        assert [reply["id"] for reply in batch] == [7]

    async def test_half_a_surrogate_pair_is_read_as_a_replacement_character(self, process: SidecarProcess) -> None:
        half = "\ud83d"
        lines = [
            request_line("ping", {half: half}, half),
            request_line(f"no{half}", request_id=f"{half}\ude00\ude00"),
            request_line("preview_session", {"agentId": half, "sessionId": half}, "preview"),
            request_line("delete_sessions_by_ids", {"agentId": "main", "sessionIds": [half]}, "delete"),
        ]
        ping, unknown = await process.answers_to(b"".join(lines[:2]))
        preview, deletion = [await self._answer(process, line) for line in lines[2:]]

        assert (ping["id"], ping["result"]) == ("\ufffd", "pong")
        assert unknown["id"] == "\U0001f600\ufffd"
        assert "no\ufffd" in unknown["error"]["message"]
        assert preview["error"]["data"]["kind"] == "session_not_found"
        assert deletion["error"]["data"]["refused"][0]["sessionId"] == "\ufffd"

    async def _answer(self, process: SidecarProcess, line: bytes) -> Message:
        await process.send(line)
        return await process.reply(json.loads(line)["id"])

    async def test_a_byte_order_mark_is_no_json_and_costs_only_its_line(self, process: SidecarProcess) -> None:
        lines = b"\xef\xbb\xbf" + a_ping(b"1") + a_ping(b"2").decode().encode("utf-16") + b"\n" + a_ping(b"3")
        *wrong, right = await process.answers_to(lines)

        # UTF-16 has a line feed in each of its two lines, and half a character behind it.
        assert set(error_codes(wrong)) == {PARSE_ERROR}
        assert (right["id"], right["result"]) == (3, "pong")

    async def test_a_nul_or_another_control_character_is_no_json_where_it_is_not_escaped(
        self, process: SidecarProcess
    ) -> None:
        raw = [bytes([code]) for code in range(32) if code not in b"\t\n\r"]
        lines = [
            b"\x00" * 1_000,
            *(a_ping(b"1")[:-1] + code for code in raw),
            *(a_ping(b'"%b"' % code)[:-1] for code in raw),
        ]
        answers = await process.answers_to(b"\n".join(lines) + b"\n")
        assert error_codes(answers) == [PARSE_ERROR] * len(lines)

        escaped = [
            request_line("ping", {"\0": "\0"}, "\0"),
            request_line("p\0", request_id="a\0b"),
            request_line("cancel_stream", {"handleId": "\0"}, 3),
            request_line("set_active_openclaw_home", {"path": "/a\0b"}, 4),
        ]
        ping, unknown, cancel, path = await process.answers_to(b"".join(escaped))
        assert (ping["id"], ping["result"]) == ("\0", "pong")
        assert error_codes([unknown]) == [(-32601, "method_not_found", "a\0b")]
        assert cancel["result"] is False
        assert error_codes([path]) == [(-32602, "invalid_params", 4)]

    async def test_crlf_ends_a_line_and_a_cr_alone_does_not(self, process: SidecarProcess) -> None:
        line = a_ping(b"1")[:-1]
        answers = await process.answers_to(line + b"\r\n\r\n" + line + b"\r" + line + b"\n\r\r\r\n" + line + b"\r\r\n")

        assert [answer.get("result", "refused") for answer in answers] == ["pong", "refused", "pong"]

    async def test_invalid_utf_8_costs_only_its_line(self, process: SidecarProcess) -> None:
        wrong = [b"\xff", b"\xc3", b"\xc0\x80", b"\xed\xa0\xbd", b"\xf4\x90\x80\x80", b"\xe2\x82"]
        answers = await process.answers_to(b"".join(a_ping(b'"%b"' % text) for text in wrong))

        assert error_codes(answers) == [PARSE_ERROR] * len(wrong)


class TestTheId:
    def test_a_number_of_any_length_is_spelled_in_the_answer_as_it_came(self, sample_home: Path) -> None:
        numbers = [
            b"9" * 30,
            b"-" + b"8" * 300,
            b"0",
            b"-0",
            b"1.50",
            b"1e2",
            b"0." + b"123" * 20,
            b"18446744073709551616",
        ]
        numbers.append(b"0." + b"7" * 4_094)
        calls = [b'{"jsonrpc":"2.0","id":%b,"method":"%b"}' % (number, b"no") for number in numbers]
        lines = output_of(sample_home, b"\n".join(calls) + b"\n[" + b",".join(calls) + b"]")

        assert len(lines) == len(numbers) + 1
        for number, line in zip(numbers, lines, strict=False):
            assert line.startswith(b'{"jsonrpc":"2.0","id":%b,"error":' % number)
            assert b'"id":%b,' % number in lines[-1]

    async def test_of_another_type_or_too_long_it_is_refused_with_the_id_null(self, process: SidecarProcess) -> None:
        wrong = [b"true", b"false", b"[]", b"{}", b"[1]", b'{"id":1}', b"0." + b"7" * 4_095, b'"' + b"x" * 5_000 + b'"']
        answers = await process.answers_to(b"".join(map(a_ping, wrong)))
        assert error_codes(answers) == [INVALID_REQUEST] * len(wrong)

        (answers,) = await process.answers_to(b"[" + b",".join(a_ping(text)[:-1] for text in wrong) + b"]\n")
        assert error_codes(answers) == [INVALID_REQUEST] * len(wrong)

    async def test_beyond_every_number_it_is_a_parse_error(self, process: SidecarProcess) -> None:
        wrong = [b"1e400", b"-1e400", b"7" * 400]
        assert error_codes(await process.answers_to(b"".join(map(a_ping, wrong)))) == [PARSE_ERROR] * 3

    async def test_given_to_many_requests_at_once_it_is_in_each_answer(self, process: SidecarProcess) -> None:
        answers = await process.answers_to(a_ping(b"1") * 500 + request_line("no") * 500)

        assert [answer["id"] for answer in answers] == [1] * 1_000


class TestABatch:
    async def test_of_a_thousand_calls_is_answered_in_one_line(self, process: SidecarProcess) -> None:
        (replies,) = await process.answers_to(b"[" + b",".join(a_ping(b"%d" % n)[:-1] for n in range(1_000)) + b"]\n")

        assert [reply["id"] for reply in replies] == list(range(1_000))
        assert {reply["result"] for reply in replies} == {"pong"}

    async def test_of_16_mib_is_answered(self, process: SidecarProcess) -> None:
        padding = b',"params":{"a":"%b"}' % (b"x" * 16_000)
        (replies,) = await process.answers_to(
            b"[" + b",".join(a_ping(b"%d" % n, padding)[:-1] for n in range(1_000)) + b"]\n"
        )

        assert len(replies) == 1_000

    async def test_of_batches_is_refused_call_by_call(self, process: SidecarProcess) -> None:
        (replies,) = await process.answers_to(b"[" + b",".join([b"[" + a_ping(b"1")[:-1] + b"]"] * 1_000) + b"]\n")

        assert error_codes(replies) == [INVALID_REQUEST] * 1_000

    async def test_of_notifications_only_gets_no_answer_however_many_there_are(self, process: SidecarProcess) -> None:
        names = ["ping", "no", "analyze_sessions_stream", "get_sidecar_info", "cancel_stream"]
        batch = json.dumps([{"jsonrpc": "2.0", "method": name} for name in names * 200]).encode() + b"\n"

        assert await process.answers_to(batch * 20) == []
        assert (await process.call("get_sidecar_info"))["openHandles"] == 0

    async def test_of_a_thousand_streams_opens_as_many_as_may_be_open_and_each_ends(self, sample_home: Path) -> None:
        async with SidecarProcess(sample_home) as process:
            calls = [request_line("analyze_sessions_stream", [250], number).strip() for number in range(1_000)]
            await process.send(b"[" + b",".join(calls) + b"]\n")
            process.close_stdin()
            replies, *notifications = await process.read_to_end()

            assert all("result" in reply for reply in replies[:MAX_OPEN_HANDLES])
            assert {reply["error"]["data"]["kind"] for reply in replies[MAX_OPEN_HANDLES:]} == {"too_busy"}
            assert methods(notifications).count("sessions:done") == MAX_OPEN_HANDLES
            assert len(sessions_of(notifications)) == MAX_OPEN_HANDLES * SAMPLE_SESSIONS

    async def test_of_a_thousand_jobs_does_as_many_as_may_wait(self, sample_home: Path) -> None:
        async with SidecarProcess(sample_home) as process:
            calls = [request_line("list_session_files", request_id=number).strip() for number in range(1_000)]
            await process.send(b"[" + b",".join(calls) + b"]\n")
            replies = await process.read()

            assert all("result" in reply for reply in replies[:MAX_OPEN_JOBS])
            assert {reply["error"]["data"]["kind"] for reply in replies[MAX_OPEN_JOBS:]} == {"too_busy"}
            assert await process.call("ping") == "pong"


IDS = b'{"jsonrpc":"2.0","id":1,"method":"delete_sessions_by_ids","params":{"agentId":"no","sessionIds":['
PARAMS = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":['
TEXT = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":["'
PREVIEW = b'{"jsonrpc":"2.0","id":1,"method":"preview_session","params":["'
FULL_LINES = {
    "opening brackets": a_full_line(b"", b"[", b""),
    "numbers": a_full_line(PARAMS, b"1,", b"1]}"),
    "empty lists": a_full_line(PARAMS, b"[],", b"1]}"),
    "empty objects": a_full_line(PARAMS, b"{},", b"1]}"),
    "nested objects": a_full_line(PARAMS, b'{"":{"":{}}},', b"1]}"),
    "wrong calls": a_full_line(b"[", b"0,", b"0]"),
    "ids of sessions": a_full_line(IDS, b'"a",', b'"a"]}}'),
    "wrong ids of sessions": a_full_line(IDS, b"1,", b"1]}}"),
    "a text": a_full_line(TEXT, b"x", b'"]}'),
    "a text with a wide character": a_full_line(TEXT + "😀".encode(), b"x", b'"]}'),
    "halves of surrogate pairs": a_full_line(TEXT, b"\\ud83d", b'"]}'),
    "backslashes": a_full_line(TEXT, b"\\\\", b'\\ud83d"]}'),
    "a name": a_full_line(PREVIEW, b"x", b'","s"]}'),
    "an unknown method": a_full_line(b'{"jsonrpc":"2.0","id":1,"method":"', b"x", b'"}'),
    "NULs": a_full_line(b"", b"\x00", b""),
}
ANSWERED = {"a text", "a text with a wide character", "halves of surrogate pairs", "backslashes"}
REFUSED = {"a name": "invalid_params", "an unknown method": "method_not_found"}


class TestMemory:
    @pytest.mark.parametrize("name", FULL_LINES)
    async def test_a_line_of_16_mib_takes_a_few_times_its_size_whatever_is_on_it(
        self, idle: SidecarProcess, name: str, record_measured: Callable[[str], None]
    ) -> None:
        async with idle as process:
            idle_bytes = process.resident_bytes()
            process.begin_peak()
            (answer,) = await process.answers_to(FULL_LINES[name])
            peak_bytes = process.peak_bytes() - idle_bytes

            record_measured(f"a line of 16 MiB, {name}: peak {peak_bytes / MIB:.0f} MiB above idle")
            if name in ANSWERED:
                assert answer["result"] == "pong"
            else:
                assert answer["error"]["data"]["kind"] == REFUSED.get(name, "parse_error")
                assert len(json.dumps(answer)) < 1_000
            assert peak_bytes < PEAK_OF_A_LINE_BYTES

    async def test_as_many_values_as_a_line_may_have_take_little(
        self, idle: SidecarProcess, record_measured: Callable[[str], None]
    ) -> None:
        many = MAX_LINE_VALUES - 10
        async with idle as process:
            idle_bytes = process.resident_bytes()
            process.begin_peak()
            lists, ids, wrong = (
                before + b",".join([value] * count) + behind + b"\n"
                for before, value, count, behind in (
                    (PARAMS, b"[]", many // 2, b"]}"),
                    (IDS, b'"a"', many, b"]}}"),
                    (IDS, b"1", many, b"]}}"),
                )
            )
            (answer,) = await process.answers_to(lists)
            await process.send(ids)
            refused = await process.read()
            (invalid,) = await process.answers_to(wrong)
            peak_bytes = process.peak_bytes() - idle_bytes

            record_measured(f"131,000 values on a line: peak {peak_bytes / MIB:.0f} MiB above idle")
            assert answer["result"] == "pong"
            assert refused["error"]["data"]["kind"] == "sessions_refused"
            assert error_codes([invalid]) == [(-32602, "invalid_params", 1)]
            assert peak_bytes < 64 * MIB

    async def test_long_requests_that_are_refused_leave_nothing_behind(
        self, idle: SidecarProcess, record_measured: Callable[[str], None]
    ) -> None:
        async with idle as process:
            idle_bytes = process.resident_bytes()
            process.begin_peak()
            for _ in range(6):
                for name in (*REFUSED, "NULs", "wrong ids of sessions"):
                    await process.answers_to(FULL_LINES[name])
            peak_bytes, left_bytes = process.peak_bytes() - idle_bytes, process.resident_bytes() - idle_bytes

            record_measured(
                f"24 lines of 16 MiB that are refused: peak {peak_bytes / MIB:.0f} MiB above idle, "
                f"left {left_bytes / MIB:.0f} MiB"
            )
            assert peak_bytes < PEAK_OF_A_LINE_BYTES
            assert left_bytes < LEFT_OF_LINES_BYTES

    async def test_long_requests_do_not_wait_with_their_jobs(self, huge_home: Path) -> None:
        """Each has what no command asks for, as long as a line may be, and a job that takes long."""
        line = a_full_line(b'{"jsonrpc":"2.0","id":1,"method":"analyze_sessions","params":{"more":"', b"x", b'"}}')
        async with SidecarProcess(huge_home) as process:
            await process.rejected("cancel_stream", {"handleId": 5})
            idle_bytes = process.resident_bytes()
            await process.send(line * 20)
            await process.call("ping")
            assert process.peak_bytes() - idle_bytes < PEAK_OF_A_LINE_BYTES
            await process.call("shutdown")

            answers = await process.read_to_end()
            assert len(answers) == 20
            assert all("result" in answer or answer["error"]["data"]["kind"] == "cancelled" for answer in answers)

    async def test_100_mb_without_a_line_feed_are_dropped_as_they_come(
        self, idle: SidecarProcess, record_measured: Callable[[str], None]
    ) -> None:
        async with idle as process:
            idle_bytes = process.resident_bytes()
            process.begin_peak()
            for _ in range(100):
                await process.send(b"x" * 1_000_000)
            (answer,) = await process.answers_to(b"\n")
            peak_bytes = process.peak_bytes() - idle_bytes

            record_measured(f"100 MB without a line feed: peak {peak_bytes / MIB:.0f} MiB above idle")
            assert error_codes([answer]) == [PARSE_ERROR]
            assert peak_bytes < 3 * MAX_LINE_BYTES

    async def test_replies_that_nobody_reads_are_bounded_and_none_is_lost(
        self, idle: SidecarProcess, record_measured: Callable[[str], None]
    ) -> None:
        """Each request gets a reply of 4 KB, and of those there is twice as much as may wait."""
        pings = [a_ping(b'"%0*d"' % (4_000, number)) for number in range(2 * MAX_WAITING_REPLY_BYTES // 4_000)]
        async with idle as process:
            idle_bytes = process.resident_bytes()
            process.begin_peak()
            sending = asyncio.create_task(process.send(b"".join(pings)))
            await process.output_is_blocked()
            assert not sending.done(), "no more is read when so much waits"
            peak_bytes = process.peak_bytes() - idle_bytes
            ids = [int((await process.read())["id"]) for _ in pings]
            await sending

            record_measured(f"134 MB of replies that nobody reads: peak {peak_bytes / MIB:.0f} MiB above idle")
            assert ids == list(range(len(pings)))
            assert peak_bytes < 2 * MAX_WAITING_REPLY_BYTES

    async def test_streams_that_end_and_nobody_reads_are_bounded(
        self, idle: SidecarProcess, record_measured: Callable[[str], None]
    ) -> None:
        """Each ends at once, with an error that names what was asked for."""
        asked = 20_000
        lines = [
            request_line("preview_session_stream", {"agentId": "main", "sessionId": "x" * 2_000}, number)
            for number in range(asked)
        ]
        async with idle as process:
            idle_bytes = process.resident_bytes()
            process.begin_peak()
            await process.send(b"".join(lines))
            await process.output_is_blocked()
            peak_bytes = process.peak_bytes() - idle_bytes
            process.close_stdin()
            messages = await process.read_to_end()

            record_measured(f"20,000 streams that nobody reads: peak {peak_bytes / MIB:.0f} MiB above idle")
            replies = [message for message in messages if "id" in message]
            opened = [reply for reply in replies if "result" in reply]
            assert [reply["id"] for reply in replies] == list(range(asked))
            assert len(opened) >= MAX_OPEN_HANDLES
            assert {reply["error"]["data"]["kind"] for reply in replies if "error" in reply} == {"too_busy"}
            ended = methods(message for message in messages if "method" in message)
            assert ended.count("session-preview:done") == len(opened)
            assert peak_bytes < 32 * MIB

    async def test_many_small_requests_good_and_bad_are_answered_and_leave_nothing(
        self, idle: SidecarProcess, record_measured: Callable[[str], None]
    ) -> None:
        async with idle as process:
            measured = await measure(process, SMALL_REQUESTS)

            record_measured(str(measured))
            assert measured.requests == SMALL_REQUESTS
            assert measured.peak_bytes < 16 * MIB


class TestTheClient:
    @pytest.mark.parametrize(
        ("data", "answers"),
        [
            (b'{"jsonrpc":"2.0","id":1,"meth', [PARSE_ERROR]),
            (b'[{"jsonrpc":"2.0","id":1,"method":"ping"},', [PARSE_ERROR]),
            (b'{"jsonrpc":"2.0","id":"\xf0\x9f', [PARSE_ERROR]),
            (b'{"jsonrpc":"2.0","id":1,"method":"no"}\r', [(-32601, "method_not_found", 1)]),
            (b"\xef\xbb\xbf", [PARSE_ERROR]),
            (b"\x00", [PARSE_ERROR]),
            (b" \r", []),
        ],
    )
    def test_that_closes_in_mid_line_has_what_came_before_answered(
        self, sample_home: Path, data: bytes, answers: list[tuple[int, str, object]]
    ) -> None:
        first, *others = output_of(sample_home, a_ping(b"7") + data)

        assert json.loads(first)["result"] == "pong"
        assert error_codes(map(json.loads, others)) == answers

    async def test_that_goes_away_in_mid_line_leaves_nothing_running(self, huge_home: Path) -> None:
        async with SidecarProcess(huge_home) as process:
            await process.start_stream()
            await process.send(a_ping(b"1")[:-9])
            process.close_stdin()
            process.close_stdout()

            assert await process.exit_code() == 1
            assert "Traceback" not in process.stderr()

    async def test_that_stops_in_mid_line_holds_up_no_stream(self, sample_home: Path) -> None:
        async with SidecarProcess(sample_home) as process:
            line = a_ping(b"7")
            await process.send(request_line("analyze_sessions_stream") + line[:-9])
            handle = (await process.reply(1))["result"]
            assert len(sessions_of(await process.collect(handle))) == SAMPLE_SESSIONS
            await process.send(line[-9:])

            assert (await process.reply(7))["result"] == "pong"

    async def test_that_writes_a_megabyte_of_rubbish_before_it_reads_has_each_line_answered(
        self, process: SidecarProcess
    ) -> None:
        lines = [b"\xff" * 500, b"{}", b'{"id":', a_ping(b"true")[:-1], b"[]"] * 2_000
        answers = await process.answers_to(b"\n".join(lines) + b"\n")

        assert (
            error_codes(answers)
            == [PARSE_ERROR, INVALID_REQUEST, PARSE_ERROR, INVALID_REQUEST, INVALID_REQUEST] * 2_000
        )
