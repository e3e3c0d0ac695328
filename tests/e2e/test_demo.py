"""``python -m sidecar.demo`` as a newcomer runs it: what it prints is true, and it leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

import sidecar.demo.__main__ as demo
from sidecar.demo.client import ClientError, Sidecar
from sidecar.demo.sample import AgentPlan, write_tree
from sidecar.demo.screen import Screen, printable
from tests.client import WITHIN_S, environment, eventually

COMMAND = (sys.executable, "-m", "sidecar.demo")


def run_demo(arguments: Sequence[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(cwd, PYTHONIOENCODING="utf-8"),
        capture_output=True,
        encoding="utf-8",
        timeout=WITHIN_S,
        check=False,
    )


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")}


def totals_on_disk(sessions: Path) -> tuple[int, int, int]:
    """How many sessions, messages and tokens one agent has, by a plain parse."""
    paths = list(sessions.glob("*.jsonl"))
    entries = [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]
    index = json.loads((sessions / "sessions.json").read_text(encoding="utf-8"))
    messages = sum(entry["type"] == "message" for entry in entries)
    return len(paths), messages, sum(entry["totalTokens"] for entry in index.values())


def totals_printed(output: str, name: str) -> tuple[int, ...]:
    """The numbers of ``name`` in the table at the end, which comes after the one with the progress."""
    row = output[output.rindex("\nagent ") :].partition(f"\n{name} ")[2].split()
    return tuple(int(cell.replace(",", "")) for cell in row[:3])


def test_it_prints_what_is_on_the_disk_and_writes_nothing(sample_home: Path, tmp_path: Path) -> None:
    before = snapshot(sample_home)
    result = run_demo([sample_home], tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    agents = {
        folder.name: totals_on_disk(folder / "sessions") for folder in (sample_home / ".openclaw/agents").iterdir()
    }
    for name, totals in agents.items():
        assert totals_printed(result.stdout, name) == totals
        assert re.search(rf"^{name} .* {totals[0]}/{totals[0]} ", result.stdout, re.MULTILINE)
    assert totals_printed(result.stdout, "total") == tuple(map(sum, zip(*agents.values(), strict=True)))
    assert "cancelled: true" in result.stdout or "ended before it could be cancelled" in result.stdout
    assert re.search(r"first chunk after [\d.]+ ms", result.stdout)
    assert re.search(r"[\d.]+ k?M?B above idle", result.stdout)
    assert "\x1b" not in result.stdout
    assert max(map(len, result.stdout.partition("\nNext\n")[0].splitlines())) <= 80
    assert snapshot(sample_home) == before
    assert not list(tmp_path.iterdir())


def test_a_home_and_the_directory_in_it_are_the_same(sample_home: Path, tmp_path: Path) -> None:
    inner = run_demo([sample_home / ".openclaw"], tmp_path).stdout
    assert totals_printed(inner, "total") == totals_printed(run_demo([sample_home], tmp_path).stdout, "total")


@pytest.mark.parametrize("path", ["missing", "", "empty", "file", "with-a-file"])
def test_a_path_without_agents_is_one_line_and_exit_code_2(path: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "with-a-file").mkdir()
    (tmp_path / "with-a-file" / "agents").touch()
    result = run_demo([path], tmp_path)
    assert result.returncode == 2
    assert re.fullmatch(r"demo: no [^\n]+\n", result.stderr)
    assert not result.stdout


def test_no_sessions(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    result = run_demo([tmp_path], tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "No sessions found." in result.stdout
    assert "There is nothing to cancel." in result.stdout


def test_items_that_could_not_be_read_are_counted_and_the_first_ones_named(tmp_path: Path) -> None:
    sessions = tmp_path / "agents" / "main\x1b[2J" / "sessions"
    sessions.mkdir(parents=True)
    for number in range(5):
        (sessions / f"{number}.jsonl").symlink_to(tmp_path / "missing")
    result = run_demo([tmp_path], tmp_path)
    assert result.returncode == 0
    assert "5 items could not be read:\n" in result.stdout
    assert "\n  and 2 more\n" in result.stdout
    assert "\x1b" not in result.stdout


def test_the_picture_needs_nothing_from_elsewhere_and_tells_nothing_of_the_machine(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", (AgentPlan("main", 4, 3_000),), now_ms=1_795_000_000_000)
    result = run_demo(["tree", "--save-picture", "new/demo.svg"], tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    picture = (tmp_path / "new" / "demo.svg").read_text(encoding="utf-8")
    assert ElementTree.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    assert not re.search(r"https?:|@import|url\((?!#)", picture.replace("http://www.w3.org/2000/svg", ""))
    assert str(tmp_path) not in picture
    assert "cancel_stream" in picture


async def test_ctrl_c_leaves_no_half_of_the_sample(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    await eventually(lambda: any(tmp_path.glob(".demo/*/*/agents/*")), "the sample is being written")
    process.send_signal(signal.SIGINT)
    _, errors = await asyncio.wait_for(process.communicate(), WITHIN_S)
    assert (process.returncode, errors) == (130, b"demo: interrupted\n")
    assert not list((tmp_path / ".demo").iterdir())


def test_the_sample_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def write(root: Path, *, now_ms: int) -> None:
        written.append(root)
        (root / "agents").mkdir(parents=True)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "write_tree", write)
    home = Path(demo.sample_home(Screen()))
    assert demo.sample_home(Screen()) == str(home)
    assert len(written) == 1
    assert (home / "agents").is_dir()
    assert list((tmp_path / ".demo").iterdir()) == [home]


def test_the_client_tells_errors_and_the_end(sample_home: Path) -> None:
    with Sidecar(environment(sample_home)) as client:
        with pytest.raises(ClientError, match=r"^nonsense: .*no such method"):
            client.call("nonsense")
        assert client.call("shutdown") is True
        with pytest.raises(ClientError, match="ended with exit code 0"):
            client.call("ping")


def test_control_codes_are_not_printed() -> None:
    assert printable("a\x1b[2J\nb\x9bc 数据") == "a\ufffd[2J\ufffdb\ufffdc 数据"
