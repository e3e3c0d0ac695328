"""What is wrong with a request is told, and the next one works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.client import SidecarProcess, environment, error_codes, methods, request_line, sessions_of

MIB = 1024 * 1024
SAMPLE_SESSIONS = 60


class TestTheLine:
    async def test_bad_json_is_a_parse_error(self, process: SidecarProcess) -> None:
        lines = [b"{", b"nonsense", b'{"jsonrpc":"2.0","id":1,"method":"ping"', b"\xff\xfe", b"\x00", b"NaN", b"{}{}"]
        answers = await process.answers_to(b"\n".join(lines) + b"\n")

        assert error_codes(answers) == [(-32700, "parse_error", None)] * len(lines)

    async def test_json_that_is_no_request_is_an_invalid_request(self, process: SidecarProcess) -> None:
        lines = [b"1", b'"ping"', b"null", b"{}", b"[]", b'{"jsonrpc":"1.0","method":"p"}', b'{"jsonrpc":"2.0"}']
        answers = await process.answers_to(b"\n".join(lines) + b"\n")

        assert error_codes(answers) == [(-32600, "invalid_request", None)] * len(lines)

    async def test_a_line_of_over_16_mib_is_dropped_and_the_next_request_works(self, process: SidecarProcess) -> None:
        too_long = request_line("ping", {"padding": "x" * (17 * MIB)})

        (answer,) = await process.answers_to(too_long)
        assert error_codes([answer]) == [(-32700, "parse_error", None)]
        assert answer["error"]["message"] == "the line is over 16 MiB"

    async def test_a_line_of_just_under_16_mib_is_taken(self, process: SidecarProcess) -> None:
        long = request_line("ping", {"padding": "x" * (16 * MIB - 100)})

        assert [answer["result"] for answer in await process.answers_to(long)] == ["pong"]

    async def test_the_end_of_the_input_ends_a_line_that_is_too_long(self, sample_home: Path) -> None:
        async with SidecarProcess(sample_home) as process:
            await process.send(b"x" * (17 * MIB))
            process.close_stdin()

            (answer,) = await process.read_to_end()
            assert answer["error"]["message"] == "the line is over 16 MiB"

    async def test_crlf_and_blank_lines_are_accepted(self, process: SidecarProcess) -> None:
        line = request_line("ping").removesuffix(b"\n")
        answers = await process.answers_to(b"\r\n\n  \n\t\r\n" + line + b"\r\n\r\n" + line + b"\n\n")

        assert [answer["result"] for answer in answers] == ["pong", "pong"]

    async def test_a_request_may_come_byte_by_byte(self, process: SidecarProcess) -> None:
        for byte in request_line("ping", {"é": "🙂"}, "ü"):
            await process.send(bytes([byte]))

        assert (await process.reply("ü"))["result"] == "pong"


class TestTheCall:
    async def test_an_unknown_method_is_named(self, process: SidecarProcess) -> None:
        error = await process.rejected("no_such_method")

        assert (error["code"], error["data"]["kind"]) == (-32601, "method_not_found")
        assert "no_such_method" in error["message"]

    async def test_a_bad_parameter_is_named_whether_given_by_name_or_by_position(self, process: SidecarProcess) -> None:
        cases: list[tuple[str, str, list[object]]] = [
            (
                "analyze_sessions_stream",
                "batchSize",
                [{"batchSize": "50"}, {"batchSize": 1.5}, {"batchSize": True}, ["5"]],
            ),
            ("cancel_stream", "handleId", [None, {}, [], {"handleId": None}, {"handleId": 5}, [5]]),
            ("set_active_openclaw_home", "path", [{"path": 5}, {"path": "a\0b"}, [5]]),
            ("set_active_clawpal_data_dir", "path", [{"path": 5}, {"path": "a\0b"}, [5]]),
        ]
        for method, field, bad in cases:
            for params in bad:
                error = await process.rejected(method, params)
                assert (error["code"], error["data"]) == (-32602, {"kind": "invalid_params", "retryable": False})
                assert field in error["message"], (method, params)

    async def test_an_optional_parameter_may_be_missing_or_null(self, process: SidecarProcess) -> None:
        for params in (None, {}, [], {"batchSize": None}, [None], {"unknown": 1}):
            messages = await process.collect(await process.start_stream(params))

            assert len(sessions_of(messages)) == SAMPLE_SESSIONS

    async def test_what_a_command_does_not_know_is_ignored(self, process: SidecarProcess) -> None:
        assert await process.call("ping", {"unknown": 1}) == "pong"
        assert await process.call("ping", ["unknown"]) == "pong"

    async def test_a_batch_size_is_brought_into_its_range(self, process: SidecarProcess) -> None:
        for size, largest in ((-5, 1), (0, 1), (1, 1), (3, 3), (10**9, 250)):
            messages = await process.collect(await process.start_stream([size]))

            sizes = [len(message["params"]["sessions"]) for message in messages[:-1]]
            assert max(sizes) <= largest
            assert sum(sizes) == SAMPLE_SESSIONS

    async def test_ids_are_echoed_as_they_came(self, process: SidecarProcess) -> None:
        ids = [0, -1, 2**53 + 1, 10**30, 1.5, "", "é", "a\nb", "\u2028", None]
        answers = await process.answers_to(b"".join(request_line("ping", request_id=given) for given in ids))

        assert [answer["id"] for answer in answers] == ids

    async def test_a_notification_gets_no_reply_not_even_an_error(self, process: SidecarProcess) -> None:
        calls = [
            {"jsonrpc": "2.0", "method": "ping"},
            {"jsonrpc": "2.0", "method": "no_such_method"},
            {"jsonrpc": "2.0", "method": "cancel_stream", "params": {"handleId": 5}},
            {"jsonrpc": "2.0", "method": "analyze_sessions"},
            {"jsonrpc": "2.0", "method": "analyze_sessions_stream"},
        ]
        lines = [json.dumps(call).encode() + b"\n" for call in calls]
        batch = json.dumps(calls).encode() + b"\n"

        assert await process.answers_to(b"".join(lines) + batch) == []


class TestABatch:
    async def test_of_a_job_and_a_stream_is_answered_in_one_line_before_the_first_notification(
        self, process: SidecarProcess
    ) -> None:
        calls = [
            {"jsonrpc": "2.0", "id": 1, "method": "analyze_sessions_stream"},
            {"jsonrpc": "2.0", "id": 2, "method": "analyze_sessions"},
            {"jsonrpc": "2.0", "method": "ping"},
            {"jsonrpc": "2.0", "id": 3, "method": "no_such_method"},
            17,
        ]
        await process.send(json.dumps(calls).encode() + b"\n")
        replies = await process.read()
        notifications = await process.collect(replies[0]["result"])

        assert [reply["id"] for reply in replies] == [1, 2, 3, None]
        assert sum(agent["totalFiles"] for agent in replies[1]["result"]) == SAMPLE_SESSIONS
        assert [reply["error"]["code"] for reply in replies[2:]] == [-32601, -32600]
        assert len(sessions_of(notifications)) == SAMPLE_SESSIONS

    async def test_of_over_a_thousand_calls_is_refused_whole(self, process: SidecarProcess) -> None:
        calls = b"[" + b",".join([request_line("ping").strip()] * 1_001) + b"]\n"

        assert error_codes(await process.answers_to(calls)) == [(-32600, "invalid_request", None)]


class TestTheSource:
    @pytest.mark.parametrize("method", ["analyze_sessions", "analyze_sessions_stream"])
    async def test_without_a_home_the_call_is_rejected(self, method: str) -> None:
        async with SidecarProcess(None, env=environment(None)) as process:
            error = await process.rejected(method)

            assert (error["code"], error["data"]["kind"], error["data"]["retryable"]) == (-32010, "home_unknown", False)
            assert "HOME" in error["message"]
            assert await process.call("ping") == "pong"
            assert (await process.call("get_sidecar_info"))["openHandles"] == 0

    async def test_without_a_home_a_chosen_directory_is_enough(self, sample_home: Path) -> None:
        async with SidecarProcess(None, env=environment(None)) as process:
            await process.call("set_active_openclaw_home", {"path": str(sample_home)})
            assert len(await process.call("analyze_sessions")) == 3

            await process.call("set_active_openclaw_home", {"path": None})
            assert (await process.rejected("analyze_sessions"))["data"]["kind"] == "home_unknown"

    async def test_a_stream_over_agents_that_cannot_be_listed_ends_with_an_error(self, tmp_path: Path) -> None:
        (tmp_path / ".openclaw").mkdir()
        (tmp_path / ".openclaw" / "agents").write_text("not a folder")
        async with SidecarProcess(tmp_path) as process:
            messages = await process.collect(await process.start_stream())

            assert methods(messages) == ["sessions:error", "sessions:done"]
            assert messages[0]["params"]["kind"] == "source_unreadable"
            assert str(tmp_path) in messages[0]["params"]["error"]
            done = messages[1]["params"]
            assert (done["totalAgents"], done["totalSessions"], done["cancelled"]) == (0, 0, False)

            error = await process.rejected("analyze_sessions")
            assert (error["code"], error["data"]) == (-32011, {"kind": "source_unreadable", "retryable": True})
            assert error["message"] == messages[0]["params"]["error"]

    async def test_no_openclaw_directory_at_all_is_an_empty_analysis(self, tmp_path: Path) -> None:
        async with SidecarProcess(tmp_path / "nothing here") as process:
            (done,) = await process.collect(await process.start_stream())

            assert (done["method"], done["params"]["totalAgents"]) == ("sessions:done", 0)
            assert await process.call("analyze_sessions") == []

    async def test_a_choice_of_directory_holds_for_the_requests_after_it(
        self, process: SidecarProcess, tmp_path: Path
    ) -> None:
        await process.send(
            request_line("analyze_sessions", request_id=1)
            + request_line("set_active_openclaw_home", {"path": str(tmp_path)}, 2)
            + request_line("analyze_sessions", request_id=3)
            + request_line("set_active_openclaw_home", request_id=4)
            + request_line("analyze_sessions", request_id=5)
        )
        agents = [len((await process.reply(number))["result"]) for number in (1, 3, 5)]

        assert agents == [3, 0, 3]


@pytest.mark.parametrize("name", ["analyze_sessions", "list_session_files"])
@pytest.mark.parametrize("sessions", [100, 101])
async def test_an_answer_with_many_items_names_the_stream_to_use_instead_in_the_log(
    tmp_path: Path, name: str, sessions: int
) -> None:
    folder = tmp_path / ".openclaw" / "agents" / "main" / "sessions"
    folder.mkdir(parents=True)
    for number in range(sessions):
        (folder / f"s{number}.jsonl").write_text('{"type":"session"}\n')
    async with SidecarProcess(tmp_path) as process:
        await process.call(name)
        warned = f"{name} gave {sessions} items in one answer; {name}_stream gives them in batches" in process.stderr()
        assert warned == (sessions > 100)
