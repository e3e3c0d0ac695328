"""An analysis that follows another reads what is new, and answers the same, whatever becomes of the index."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.demo.sample import AgentPlan, write_tree
from sidecar.limits import KIB, MIB, YOUNG_S
from tests.client import COMMAND, SidecarProcess, eventually, methods, sessions_of
from tests.e2e.conftest import NOW_MS
from tests.e2e.test_hostile_files import _HELD_TO_MODES

FILES, FILE_BYTES = 400, 100_000
A_FEW_BYTES = 2 * MIB
"""What a process reads besides transcripts: modules that an analysis needs, the session index, our index."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with 40 MB of transcripts, which nobody writes to any more."""
    home = tmp_path_factory.mktemp("second")
    write_tree(home / ".openclaw", (AgentPlan("main", FILES, FILE_BYTES), AgentPlan("other", 20, 3_000)), now_ms=NOW_MS)
    yield home
    shutil.rmtree(home)


@pytest.fixture
async def home(written: Path) -> Path:
    """That home without an index, left alone for long enough."""
    shutil.rmtree(written / ".clawpal", ignore_errors=True)
    await eventually(lambda: time.time() > _newest_s(written) + YOUNG_S + 0.5, "the transcripts are old enough")
    return written


def _newest_s(home: Path) -> float:
    return max(path.stat().st_ctime for path in home.rglob("*.jsonl"))


def cache_of(home: Path) -> Path:
    return home / ".clawpal" / "cache"


async def _bytes_read_at_rest(process: SidecarProcess) -> int:
    await process.call("ping")  # after its first reply it imports what that didn't need
    await process.at_rest()
    return process.bytes_read()


async def analysed(process: SidecarProcess) -> tuple[list[Any], int]:
    """What an analysis says of each session, but for its age, and how much was read for it."""
    before_bytes = await _bytes_read_at_rest(process)
    messages = await process.collect(await process.start_stream())
    assert methods(messages)[-1] == "sessions:done"
    assert messages[-1]["params"]["failures"] == []
    sessions = sessions_of(messages)
    for session in sessions:
        del session["ageDays"]
    assert len(sessions) == FILES + 20
    return sessions, process.bytes_read() - before_bytes


async def analysed_once(home: Path, *options: str, command: tuple[str, ...] = COMMAND) -> tuple[list[Any], int]:
    """The same by a process of its own."""
    async with SidecarProcess(home, command=(*command, *options)) as process:
        return await analysed(process)


async def test_the_second_analysis_reads_only_what_is_new(home: Path) -> None:
    first, read_bytes = await analysed_once(home)
    assert read_bytes > FILES * FILE_BYTES / 2
    async with SidecarProcess(home) as process:
        for _ in range(2):
            again, read_bytes = await analysed(process)
            assert again == first
            assert read_bytes < A_FEW_BYTES
    path = home / ".openclaw/agents/main/sessions" / f"{first[3]['sessionId']}.jsonl"
    line = (
        b'{"type":"message","id":"z","timestamp":"2026-12-01T00:00:00.000Z","message":{"role":"user","content":""}}\n'
    )
    try:
        with path.open("ab") as file:
            file.write(line)
        grown, read_bytes = await analysed_once(home)
        assert read_bytes < A_FEW_BYTES
        assert grown == (await analysed_once(home, "--no-index"))[0]
        assert grown[3]["messageCount"] == first[3]["messageCount"] + 1
        assert grown[3]["lastActivity"] == "2026-12-01T00:00:00.000Z"
    finally:
        os.truncate(path, path.stat().st_size - len(line))


async def test_the_eager_command_and_the_stream_use_the_same_index(home: Path) -> None:
    await analysed_once(home)
    async with SidecarProcess(home) as process:
        before_bytes = await _bytes_read_at_rest(process)
        agents = await process.call("analyze_sessions")
        assert sum(agent["totalFiles"] for agent in agents) == FILES + 20
        assert process.bytes_read() - before_bytes < A_FEW_BYTES


async def test_without_an_index_everything_is_read_and_nothing_is_written(home: Path) -> None:
    for _ in range(2):
        _, read_bytes = await analysed_once(home, "--no-index")
        assert read_bytes > FILES * FILE_BYTES / 2
    assert not cache_of(home).exists()


async def test_reading_leaves_no_trace_in_the_directory_of_openclaw(home: Path) -> None:
    def found() -> list[tuple[str, int, int]]:
        paths = [home / ".openclaw", *sorted((home / ".openclaw").rglob("*"))]
        return [(str(path), path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in paths]

    before = found()
    for _ in range(2):
        await analysed_once(home)
    assert found() == before
    assert os.listdir(cache_of(home)) == ["transcripts.sqlite"]


async def test_two_sidecars_may_use_it_at_once(home: Path) -> None:
    expected, _ = await analysed_once(home, "--no-index")
    async with SidecarProcess(home) as one, SidecarProcess(home) as other:
        for _ in range(3):
            shutil.rmtree(cache_of(home), ignore_errors=True)
            handles = [(process, await process.start_stream()) for process in (one, other, one, other)]
            for process, handle in handles:
                sessions = sessions_of(await process.collect(handle))
                for session in sessions:
                    del session["ageDays"]
                assert sessions == expected
        # None of them holds it open for longer than it analyses, and what one of them wrote, all know.
        assert not any(str(home / ".clawpal") in path for path in one.descriptors() + other.descriptors())
        assert (await analysed(one))[0] == expected
    again, read_bytes = await analysed_once(home)
    assert again == expected
    assert read_bytes < A_FEW_BYTES


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "no database", "another's rows", "in use", "a folder"])
async def test_an_index_that_is_no_good_costs_nothing_but_time(home: Path, damage: str) -> None:
    first, _ = await analysed_once(home)
    file = cache_of(home) / "transcripts.sqlite"
    connection = sqlite3.connect(file, isolation_level=None)
    match damage:
        case "missing":
            shutil.rmtree(file.parent)
        case "empty":
            file.write_bytes(b"")
        case "cut":
            os.truncate(file, file.stat().st_size // 2)
        case "no database":
            file.write_bytes(b"?" * 100_000)
        case "another's rows":
            connection.execute("UPDATE entries SET entry = (SELECT entry FROM entries ORDER BY session_id LIMIT 1)")
        case "in use":
            connection.execute("BEGIN EXCLUSIVE")
        case "a folder":
            file.unlink()
            file.mkdir()
    async with SidecarProcess(home) as process:
        for _ in range(2):
            assert (await analysed(process))[0] == first
        connection.close()
        assert process.stderr() == ""


async def test_an_index_that_cannot_be_written_is_read(home: Path) -> None:
    first, _ = await analysed_once(home)
    path = home / ".openclaw/agents/main/sessions" / f"{first[3]['sessionId']}.jsonl"
    file = cache_of(home) / "transcripts.sqlite"
    kept = file.read_bytes()
    held = (sys.executable, "-c", _HELD_TO_MODES, *COMMAND)
    file.chmod(0o400)
    file.parent.chmod(0o500)
    os.utime(path)
    await eventually(lambda: time.time() > path.stat().st_ctime + YOUNG_S, "the transcript is old enough")
    try:
        for _ in range(2):
            again, read_bytes = await analysed_once(home, command=held)
            assert again == first
            assert FILE_BYTES / 2 < read_bytes < A_FEW_BYTES
        assert file.read_bytes() == kept
    finally:
        file.parent.chmod(0o700)


async def test_without_a_place_for_it_there_is_none(home: Path, tmp_path: Path) -> None:
    expected, _ = await analysed_once(home, "--no-index")
    (tmp_path / "file").touch()
    for directory in ({"CLAWPAL_DATA_DIR": str(tmp_path / "file" / "below")}, {"CLAWPAL_DATA_DIR": "/proc/none"}, {}):
        environ = {
            name: value
            for name, value in os.environ.items()
            if name != "HOME" and not name.startswith(("OPENCLAW", "CLAWPAL"))
        }
        environ |= {"CLAWPAL_OPENCLAW_DIR": str(home / ".openclaw")} | directory
        async with SidecarProcess(home, env=environ) as process:
            assert (await analysed(process))[0] == expected
            assert process.stderr() == ""


async def test_what_was_counted_before_a_cancel_is_not_counted_again(home: Path) -> None:
    async with SidecarProcess(home) as process:
        handle = await process.start_stream({"batchSize": 1})
        await process.notification(handle)
        assert await process.call("cancel_stream", {"handleId": handle})
        messages = await process.collect(handle)
        assert methods(messages)[-1] == "sessions:done"
        again, _ = await analysed(process)
    assert again == (await analysed_once(home, "--no-index"))[0]


@pytest.mark.parametrize("after_bytes", [0, 64 * KIB, 256 * KIB])
async def test_a_sidecar_that_is_killed_while_it_fills_the_index_leaves_a_good_one(
    home: Path, after_bytes: int
) -> None:
    expected, _ = await analysed_once(home, "--no-index")
    file = cache_of(home) / "transcripts.sqlite"
    async with SidecarProcess(home) as process:
        await process.start_stream()
        await eventually(lambda: file.exists() and file.stat().st_size * 8 >= after_bytes, "the index is being written")
        process.send_signal(signal.SIGKILL)
        await process.exit_code()
    assert (await analysed_once(home))[0] == expected
    again, read_bytes = await analysed_once(home)
    assert again == expected
    assert read_bytes < A_FEW_BYTES
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
