"""How the process begins and, above all, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import sidecar
from tests.client import (
    COMMAND,
    WITHIN_S,
    SidecarProcess,
    check_output,
    environment,
    eventually,
    is_running,
    methods,
    request_line,
    sessions_of,
)

STREAM = request_line("analyze_sessions_stream", {"batchSize": 7})
PING = request_line("ping", request_id=2)
# Two seconds for terminals that nobody reads, half a second for threads, and the machine is busy.
ENDS_WITHIN_S = 6.0
SAMPLE_SESSIONS = 60
RACES = 15


def run(home: Path | None, data: bytes, arguments: Sequence[str] = ()) -> subprocess.CompletedProcess[bytes]:
    """Give a sidecar all of its input at once and let it end by itself."""
    return subprocess.run(
        [*COMMAND, *arguments], input=data, capture_output=True, env=environment(home), timeout=WITHIN_S, check=False
    )


def assert_whole_stream(output: bytes) -> None:
    """``output`` is the reply to ``STREAM`` over the sample home, and all that follows from it."""
    reply, *notifications = check_output(output)
    assert reply["id"] == 1
    assert len(sessions_of(notifications)) == SAMPLE_SESSIONS
    done = notifications[-1]["params"]
    assert (done["totalAgents"], done["totalSessions"], done["cancelled"]) == (3, SAMPLE_SESSIONS, False)


class TestCommandLine:
    def test_help_names_the_options_and_the_scripted_form(self) -> None:
        ended = run(None, b"", ["--help"])

        assert ended.returncode == 0
        assert b"--log-level" in ended.stdout
        assert b"| clawpal-sidecar" in ended.stdout

    def test_version_names_the_package_and_the_protocol(self) -> None:
        ended = run(None, b"", ["--version"])

        assert ended.returncode == 0
        expected = f"clawpal-sidecar {sidecar.__version__} (protocol {sidecar.PROTOCOL_VERSION})"
        assert ended.stdout.decode().strip() == expected

    def test_an_unknown_option_ends_with_2_and_nothing_on_stdout(self) -> None:
        ended = run(None, PING, ["--no-such-option"])

        assert (ended.returncode, ended.stdout) == (2, b"")

    def test_the_console_script_serves_like_the_module(self) -> None:
        script = Path(sys.executable).with_name("clawpal-sidecar")
        ended = subprocess.run([script], input=PING, capture_output=True, timeout=WITHIN_S, check=True)

        assert [reply["result"] for reply in check_output(ended.stdout)] == ["pong"]

    def test_the_log_level_decides_what_goes_to_stderr(self, tmp_path: Path) -> None:
        (tmp_path / ".openclaw" / "agents" / "main").mkdir(parents=True)
        (tmp_path / ".openclaw" / "agents" / "main" / "sessions").write_text("a file where a folder should be")
        request = request_line("analyze_sessions")

        assert b"WARNING" in run(tmp_path, request).stderr
        assert run(tmp_path, request, ["--log-level", "error"]).stderr == b""


class TestEndOfInput:
    def test_input_without_a_final_newline_prints_the_whole_stream_and_exits_with_0(self, sample_home: Path) -> None:
        ended = run(sample_home, STREAM.removesuffix(b"\n"))

        assert_whole_stream(ended.stdout)
        assert (ended.returncode, ended.stderr) == (0, b"")

    def test_an_empty_input_ends_with_0_and_no_output(self, sample_home: Path) -> None:
        ended = run(sample_home, b"")

        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")

    def test_eager_commands_and_streams_that_run_are_finished(self, sample_home: Path) -> None:
        calls = [request_line("analyze_sessions", request_id=1), request_line("analyze_sessions_stream", request_id=2)]
        ended = run(sample_home, b"".join(calls))

        messages = check_output(ended.stdout)
        replies = {message["id"]: message["result"] for message in messages if "id" in message}
        assert sum(agent["totalFiles"] for agent in replies[1]) == SAMPLE_SESSIONS
        assert len(sessions_of(message for message in messages if "method" in message)) == SAMPLE_SESSIONS
        assert ended.returncode == 0

    async def test_a_reader_that_comes_back_late_still_gets_everything(self, talkative_home: Path) -> None:
        async with SidecarProcess(talkative_home) as process:
            handle = await process.start_stream()
            process.close_stdin()
            await process.output_is_blocked()
            messages = await process.collect(handle)

            assert messages[-1]["params"]["cancelled"] is False
            assert len(sessions_of(messages)) == messages[-1]["params"]["totalSessions"]
            assert await process.read() is None
            assert await process.exit_code() == 0


class TestBeingTold:
    """SIGTERM, SIGINT and ``shutdown`` mean the same."""

    async def test_an_idle_process_exits_with_0_on_a_signal(self, sample_home: Path) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            async with SidecarProcess(sample_home) as process:
                await process.call("ping")
                process.send_signal(number)

                assert await process.read_to_end() == []
                assert await process.exit_code(ENDS_WITHIN_S) == 0
                assert process.stderr() == ""

    @pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "shutdown"])
    async def test_in_mid_stream_the_terminal_comes_out_as_cancelled(self, huge_home: Path, how: str) -> None:
        async with SidecarProcess(huge_home) as process:
            handle = await process.start_stream({"batchSize": 1})
            await process.notification(handle)
            await self._tell(process, how)
            messages = await process.collect(handle)

            assert methods(messages)[-2:] == ["sessions:cancelled", "sessions:done"]
            assert messages[-1]["params"]["cancelled"] is True
            assert len(await process.read_to_end()) == (1 if how == "shutdown" else 0)
            assert await process.exit_code(ENDS_WITHIN_S) == 0
            assert process.stderr() == ""

    async def test_a_reader_that_has_stalled_holds_up_nothing_for_long(self, talkative_home: Path) -> None:
        async def end_while_blocked(*how: str) -> int:
            async with SidecarProcess(talkative_home) as process:
                await process.start_stream()
                await process.output_is_blocked()
                for way in how:
                    await self._tell(process, way)
                return await process.exit_code(ENDS_WITHIN_S)

        # Side by side, since each takes the whole time that terminals are given.
        ways = [("SIGTERM",), ("SIGINT",), ("shutdown",), ("SIGTERM", "SIGINT", "SIGTERM")]
        assert await asyncio.gather(*(end_while_blocked(*how) for how in ways)) == [0, 0, 0, 0]

    @pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "shutdown"])
    async def test_a_reader_that_comes_back_in_time_gets_the_terminal(self, talkative_home: Path, how: str) -> None:
        async with SidecarProcess(talkative_home) as process:
            handle = await process.start_stream()
            await process.output_is_blocked()
            await self._tell(process, how)
            messages = await process.collect(handle)

            assert messages[-1]["params"]["cancelled"] is True
            await process.read_to_end()
            assert await process.exit_code(ENDS_WITHIN_S) == 0

    async def test_an_eager_command_that_runs_is_answered_as_cancelled(self, huge_home: Path) -> None:
        async with SidecarProcess(huge_home) as process:
            job = await process.request("analyze_sessions")
            path = huge_home / ".openclaw" / "agents" / "main" / "sessions" / "huge.jsonl"
            await eventually(lambda: process.has_open(path), "the huge file is being read")
            process.send_signal(signal.SIGTERM)

            assert (await process.reply(job))["error"]["data"] == {"kind": "cancelled", "retryable": False}
            assert await process.exit_code(ENDS_WITHIN_S) == 0

    async def test_shutdown_is_answered_and_what_comes_after_it_is_not(self, sample_home: Path) -> None:
        async with SidecarProcess(sample_home) as process:
            await process.send(request_line("shutdown", request_id=1) + PING)

            assert [reply["result"] for reply in await process.read_to_end()] == [True]
            assert await process.exit_code(ENDS_WITHIN_S) == 0

    async def test_a_batch_with_shutdown_in_it_is_answered_whole(self, sample_home: Path) -> None:
        async with SidecarProcess(sample_home) as process:
            calls = [request_line(method, request_id=number) for number, method in enumerate(["shutdown", "ping"], 1)]
            await process.send(b"[" + b",".join(call.strip() for call in calls) + b"]\n")
            (batch,) = await process.read_to_end()

            assert [reply["result"] for reply in batch] == [True, "pong"]
            assert await process.exit_code(ENDS_WITHIN_S) == 0

    async def test_what_stands_in_a_batch_with_shutdown_is_cancelled_before_it_begins(self, sample_home: Path) -> None:
        async with SidecarProcess(sample_home) as process:
            names = ["backup_before_upgrade", "analyze_sessions_stream", "shutdown", "list_backups"]
            calls = [request_line(method, request_id=number) for number, method in enumerate(names, 1)]
            await process.send(b"[" + b",".join(call.strip() for call in calls) + b"]\n")
            (backup, stream, shutdown, backups), *notifications = await process.read_to_end()

            assert backup["error"]["data"] == backups["error"]["data"] == {"kind": "cancelled", "retryable": False}
            assert shutdown["result"] is True
            assert methods(notifications) == ["sessions:cancelled", "sessions:done"]
            assert {message["params"]["handleId"] for message in notifications} == {stream["result"]}
            assert not (sample_home / ".clawpal" / "backups").exists()

    async def _tell(self, process: SidecarProcess, how: str) -> None:
        if how == "shutdown":
            await process.request("shutdown")
        else:
            process.send_signal(signal.Signals[how])


class TestAnyKindOfStream:
    """Standard input and output need not be pipes."""

    def test_files_are_read_and_written(self, sample_home: Path, tmp_path: Path) -> None:
        (tmp_path / "in").write_bytes(STREAM)
        with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as target:
            ended = _run_on(sample_home, source, target)

        assert_whole_stream((tmp_path / "out").read_bytes())
        assert ended.returncode == 0

    def test_output_is_appended_to_a_file(self, sample_home: Path, tmp_path: Path) -> None:
        (tmp_path / "out").write_bytes(b"before\n")
        with open(tmp_path / "out", "ab") as target:
            subprocess.run([*COMMAND], input=PING, stdout=target, timeout=WITHIN_S, check=True)

        before, reply = (tmp_path / "out").read_bytes().splitlines(keepends=True)
        assert before == b"before\n"
        assert check_output(reply)[0]["result"] == "pong"

    def test_dev_null_as_input_is_an_empty_one(self, sample_home: Path) -> None:
        ended = _run_on(sample_home, subprocess.DEVNULL, subprocess.PIPE)

        assert (ended.returncode, ended.stdout) == (0, b"")

    def test_dev_null_as_output_takes_everything(self, sample_home: Path, tmp_path: Path) -> None:
        (tmp_path / "in").write_bytes(STREAM)
        with open(tmp_path / "in", "rb") as source:
            ended = _run_on(sample_home, source, subprocess.DEVNULL)

        assert ended.returncode == 0

    async def test_one_socket_may_be_both(self, talkative_home: Path) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            async with SidecarProcess(
                talkative_home,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                write_fd=os.dup(ours.fileno()),
                read_fd=os.dup(ours.fileno()),
            ) as process:
                theirs.close()
                handle = await process.start_stream()
                ours.shutdown(socket.SHUT_WR)
                messages = await process.collect(handle)

                assert messages[-1]["params"]["cancelled"] is False
                assert await process.read() is None
                assert await process.exit_code() == 0

    async def test_a_pipe_that_does_not_block_is_read_and_written(self, talkative_home: Path) -> None:
        """An app may have set its pipes so before it shares them with the sidecar."""
        (their_input, our_output), (our_input, their_output) = os.pipe(), os.pipe()
        os.set_blocking(their_input, False)
        os.set_blocking(their_output, False)
        async with SidecarProcess(
            talkative_home, stdin=their_input, stdout=their_output, write_fd=our_output, read_fd=our_input
        ) as process:
            os.close(their_input)
            os.close(their_output)
            handle = await process.start_stream()
            await process.output_is_blocked()
            messages = await process.collect(handle)

            assert len(sessions_of(messages)) == messages[-1]["params"]["totalSessions"]
            assert await process.call("ping") == "pong"

    @pytest.mark.parametrize(("redirection", "output"), [("<&-", b""), ("2>&-", b"pong"), (">&-", b"")])
    def test_a_stream_that_was_closed_from_the_start_is_an_empty_one(
        self, sample_home: Path, redirection: str, output: bytes
    ) -> None:
        ended = subprocess.run(
            ["sh", "-c", f'"$@" {redirection}', "sh", *COMMAND],
            input=PING,
            capture_output=True,
            env=environment(sample_home),
            timeout=WITHIN_S,
            check=False,
        )

        assert ended.returncode == 0
        assert output in ended.stdout
        assert bool(output) == bool(ended.stdout)
        assert ended.stderr == b""


class TestLosingTheReader:
    async def test_it_is_noticed_without_a_write_though_the_input_stays_open(self, sample_home: Path) -> None:
        async with SidecarProcess(sample_home) as process:
            await process.call("ping")
            process.close_stdout()

            assert await process.exit_code(ENDS_WITHIN_S) == 1
            assert "Traceback" not in process.stderr()

    async def test_a_socket_that_is_closed_is_noticed_too(self, sample_home: Path) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            async with SidecarProcess(sample_home, stdout=theirs.fileno(), read_fd=os.dup(ours.fileno())) as process:
                theirs.close()
                ours.close()
                await process.call("ping")
                process.close_stdout()

                assert await process.exit_code(ENDS_WITHIN_S) == 1
                assert "Traceback" not in process.stderr()

    async def test_a_reader_that_was_never_there_is_noticed(self, sample_home: Path) -> None:
        async with SidecarProcess(sample_home) as process:
            process.close_stdout()

            assert await process.exit_code(ENDS_WITHIN_S) == 1
            assert "Traceback" not in process.stderr()

    def test_while_input_arrives_it_leaves_no_word_on_stderr(self, sample_home: Path) -> None:
        for _ in range(RACES):
            with subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(sample_home),
            ) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                assert process.stderr is not None
                process.stdin.write(PING)
                process.stdin.flush()
                process.stdout.readline()
                process.stdout.close()
                # The pipe breaks when the process ends, and to close it flushes once more.
                with contextlib.suppress(BrokenPipeError), process.stdin:
                    while True:
                        process.stdin.write(PING * 1000)
                assert process.stderr.read() == b""
                assert process.wait(ENDS_WITHIN_S) == 1

    async def test_in_the_middle_of_a_huge_file_it_ends_the_work(self, huge_home: Path) -> None:
        async with SidecarProcess(huge_home) as process:
            handle = await process.start_stream({"batchSize": 1})
            await process.notification(handle)
            process.close_stdout()

            assert await process.exit_code(ENDS_WITHIN_S) == 1
            assert "Traceback" not in process.stderr()

    async def test_while_output_waits_for_it_it_ends_the_work(self, talkative_home: Path) -> None:
        async with SidecarProcess(talkative_home) as process:
            await process.start_stream()
            await process.output_is_blocked()
            process.close_stdout()

            assert await process.exit_code(ENDS_WITHIN_S) == 1
            assert "Traceback" not in process.stderr()

    async def test_after_the_end_of_the_input_it_ends_the_drain(self, talkative_home: Path) -> None:
        async with SidecarProcess(talkative_home) as process:
            await process.start_stream()
            process.close_stdin()
            await process.output_is_blocked()
            process.close_stdout()

            assert await process.exit_code(ENDS_WITHIN_S) == 1

    def test_a_full_disk_under_the_output_ends_the_process(self, sample_home: Path) -> None:
        with open("/dev/full", "wb") as full:
            ended = subprocess.run(
                COMMAND, input=STREAM, stdout=full, env=environment(sample_home), timeout=WITHIN_S, check=False
            )

        assert ended.returncode == 1

    @pytest.mark.parametrize("state", ["idle", "streaming", "blocked"])
    async def test_a_parent_that_was_killed_leaves_no_sidecar(
        self, talkative_home: Path, huge_home: Path, state: str
    ) -> None:
        home = talkative_home if state == "blocked" else huge_home
        request = PING if state == "idle" else request_line("analyze_sessions_stream", {"batchSize": 1})
        parent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PARENT, request.decode(), env=environment(home), stdout=subprocess.PIPE
        )
        assert parent.stdout is not None
        try:
            pid = int(await asyncio.wait_for(parent.stdout.readline(), WITHIN_S))
        finally:
            parent.kill()
            await parent.wait()

        await eventually(lambda: not is_running(pid), "the sidecar has gone with its parent", ENDS_WITHIN_S)


# Spawns a sidecar as an app does, sends it a request, and tells its pid once the first line of output is there.
_PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "sidecar"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdin.write(sys.argv[1].encode())
child.stdin.flush()
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(3600)
"""


def _run_on(home: Path, source: Any, target: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(COMMAND, stdin=source, stdout=target, env=environment(home), timeout=WITHIN_S, check=False)
