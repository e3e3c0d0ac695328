"""Nothing but the protocol goes to stdout, whatever a library does."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.client import SidecarProcess

# Serves with one command more, which writes wherever stray output comes from.
_WITH_A_NOISY_COMMAND = """
import dataclasses, os, subprocess, sys
from sidecar.server import commands, connection

def noisy(context, params):
    print("stray print")
    sys.stdout.flush()
    os.write(1, b"stray write\\n")
    sys.__stdout__.buffer.write(b"stray buffer\\n")
    sys.__stdout__.flush()
    subprocess.run([sys.executable, "-c", "print('stray child')"], check=True)
    subprocess.run("echo stray shell", shell=True, check=True)
    return "done"

def late(context, params):
    print("never flushed")
    return "done"

def asks_for_input(context, params):
    child = subprocess.run([sys.executable, "-c", "import sys; sys.exit(len(sys.stdin.read()))"])
    return [child.returncode, len(sys.stdin.read())]

(ping,) = (command for command in commands.COMMANDS if command.name == "ping")
more = tuple(dataclasses.replace(ping, name=run.__name__, run=run) for run in (noisy, late, asks_for_input))
connection.Connection.__init__.__defaults__ = (commands.COMMANDS + more,)

from sidecar.__main__ import main
main()
"""


def noisy_sidecar(home: Path) -> SidecarProcess:
    return SidecarProcess(home, command=(sys.executable, "-c", _WITH_A_NOISY_COMMAND))


async def test_prints_writes_and_the_output_of_children_go_to_stderr(sample_home: Path) -> None:
    async with noisy_sidecar(sample_home) as process:
        assert await process.call("noisy") == "done"
        process.close_stdin()

        assert await process.read_to_end() == []
        assert await process.exit_code() == 0
        lines = process.stderr().splitlines()
        assert lines == ["stray print", "stray write", "stray buffer", "stray child", "stray shell"]


async def test_what_a_print_left_in_the_buffer_goes_to_stderr_at_the_end(sample_home: Path) -> None:
    async with noisy_sidecar(sample_home) as process:
        assert await process.call("late") == "done"
        process.close_stdin()

        assert await process.read_to_end() == []
        assert await process.exit_code() == 0
        assert process.stderr() == "never flushed\n"


async def test_stray_output_in_the_middle_of_a_stream_tears_no_line(talkative_home: Path) -> None:
    async with noisy_sidecar(talkative_home) as process:
        handle = await process.start_stream()
        noises = [await process.request("noisy") for _ in range(3)]
        messages = await process.collect(handle)

        assert [(await process.reply(noise))["result"] for noise in noises] == ["done"] * 3
        assert messages[-1]["params"]["cancelled"] is False
        assert process.stderr().count("stray child") == 3


async def test_requests_are_for_the_sidecar_alone_to_read(sample_home: Path) -> None:
    async with noisy_sidecar(sample_home) as process:
        assert await process.call("asks_for_input") == [0, 0]
        assert await process.call("ping") == "pong"
