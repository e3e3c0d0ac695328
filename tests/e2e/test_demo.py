"""``python -m sidecar.demo`` as a newcomer runs it: what it prints is true, and it leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest
import zstandard

import sidecar.demo.__main__ as demo
from sidecar.demo.client import ClientError, Notification, Sidecar
from sidecar.demo.eras import EraPlan, write_both_eras
from sidecar.demo.parts import analysis_so_far, preview, printable
from sidecar.demo.progress import Agent, AnalysisProgress, Counts, PreviewProgress
from sidecar.demo.sample import AgentPlan, write_tree
from sidecar.demo.screen import Screen
from tests.client import WITHIN_S, environment, eventually
from tests.e2e.conftest import NOW_MS

COMMAND = (sys.executable, "-m", "sidecar.demo")
REAL_TREES = Path(__file__).resolve().parents[3] / "shared" / "real-openclaw"
LONG_NAME = "a-name-of-thirty-letters-or-so"
ERAS = (
    EraPlan("files", 3_000, in_files=4, archives=3),
    EraPlan(LONG_NAME, 9_000, in_files=30, in_database=9, archives=8),
    EraPlan("rows", 3_000, in_database=3),
)


@pytest.fixture(scope="module")
def both_eras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("both") / "eras"
    write_both_eras(root, ERAS, now_ms=NOW_MS)
    return root


def run_demo(arguments: Sequence[str | Path], cwd: Path, columns: int = 80) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(cwd, PYTHONIOENCODING="utf-8", COLUMNS=str(columns)),
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
    """Sessions, messages and tokens of ``name`` in the table at the end, the last of those with agents."""
    row = output[output.rindex("\nagent ") :].partition(f"\n{name} ")[2].split()
    empty, low_value, valuable, messages, tokens = (int(cell.replace(",", "")) for cell in row[:5])
    return empty + low_value + valuable, messages, tokens


class Places(NamedTuple):
    """How many sessions of an agent are where, and how many of them a second time."""

    files: int
    database: int
    archives: int
    imported_originals: int
    archives_of_both: int


def places_on_disk(agent: Path) -> Places:
    """By the names of the files and the rows alone."""
    names = {path.name for path in (agent / "sessions").iterdir()}
    windows, rows = set[str](), set[str]()
    database = agent / "agent" / "openclaw-agent.sqlite"
    if database.exists():
        with closing(sqlite3.connect(database)) as connection:
            windows = {row[0] for row in connection.execute("SELECT DISTINCT session_id FROM transcript_events")}
            rows = {row[0] for row in connection.execute("SELECT archive_name FROM session_transcript_archives")}
    archives = {name for name in names if ".jsonl.reset." in name or ".jsonl.deleted." in name}
    imports = [path.name for path in agent.glob("session-sqlite-import-archive/*.jsonl.imported-*")]
    copied = [name for name in imports if name.split(".")[1] in windows]
    return Places(
        sum(name.endswith(".jsonl") and ".trajectory" not in name for name in names),
        len(windows),
        len(archives | rows) + len(imports) - len(copied),
        len(copied),
        len(archives & rows),
    )


def places_printed(output: str, name: str) -> tuple[int, ...]:
    """The numbers of ``name`` below "files", "database" and "archives"; the sessions of which they are the sum."""
    shown = name if len(name) <= 14 else f"{name[:13]}…"
    row = re.search(rf"^{shown} [ ━]* (\d+)/\1 +(\d+|-) +(\d+|-) +(\d+|-) ", output, re.MULTILINE)
    assert row
    places = tuple(0 if cell == "-" else int(cell) for cell in row.groups()[1:])
    assert sum(places) == int(row[1])
    return places


def latest_in_database(agent: Path) -> tuple[str, list[dict[str, Any]], int]:
    """Id and messages of the session with the latest message, and how many rows of it are compressed."""
    with closing(sqlite3.connect(agent / "agent" / "openclaw-agent.sqlite")) as connection:
        rows = connection.execute("SELECT session_id, event_json, event_zstd FROM transcript_events ORDER BY seq")
        events = [(row[0], json.loads(row[1] or zstandard.decompress(row[2])), row[2] is not None) for row in rows]
    newest = max((event for event in events if event[1]["type"] == "message"), key=lambda event: event[1]["timestamp"])
    own = [event for event in events if event[0] == newest[0]]
    messages = [entry["message"] for _, entry, _ in own if entry["type"] == "message"]
    return newest[0], messages, sum(compressed for _, _, compressed in own)


def text_of(message: dict[str, Any]) -> str:
    """A message as the demo shows it, before it is cut: its words on one line."""
    content = message["content"]
    text = content if isinstance(content, str) else "\n".join(block.get("text", "") for block in content)
    return " ".join(text.split())


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


@pytest.mark.parametrize("columns", [80, 120])
def test_sessions_of_both_eras_are_one_list_with_each_place_in_a_column(
    both_eras: Path, tmp_path: Path, columns: int
) -> None:
    places = {plan.name: places_on_disk(both_eras / "agents" / plan.name) for plan in ERAS}
    assert all(places[LONG_NAME])
    before = snapshot(both_eras)
    result = run_demo([both_eras], tmp_path, columns)
    assert (result.returncode, result.stderr) == (0, "")
    for name, (*wanted, _, _) in places.items():
        assert places_printed(result.stdout, name) == tuple(wanted)
    files, database, archives, _, _ = map(sum, zip(*places.values(), strict=True))
    assert f"\n{files} in files, {database} in databases, {archives} archived (" in result.stdout
    assert max(map(len, result.stdout.partition("\nNext\n")[0].splitlines())) <= columns
    assert snapshot(both_eras) == before


def test_the_latest_session_of_a_database_is_previewed_with_what_is_compressed_of_it(
    both_eras: Path, tmp_path: Path
) -> None:
    session_id, messages, compressed = latest_in_database(both_eras / "agents" / LONG_NAME)
    assert compressed
    output = run_demo([both_eras], tmp_path).stdout
    shown = output.partition("\n2. ")[2].partition("\n3. ")[0]
    assert f"The latest session in a database: {LONG_NAME}/{session_id}" in " ".join(shown.split())
    for message in messages:
        assert re.search(rf"^{message['role']} +{re.escape(text_of(message)[:40])}", shown, re.MULTILINE)
    assert f"\n{len(messages)} messages, the first page after " in shown


def test_without_a_database_the_latest_session_of_the_files_is_previewed(sample_home: Path, tmp_path: Path) -> None:
    entries = [
        (entry["timestamp"], f"{path.parts[-3]}/{path.stem}", entry["message"])
        for path in sample_home.glob(".openclaw/agents/*/sessions/*.jsonl")
        for entry in map(json.loads, path.read_bytes().splitlines())
        if entry["type"] == "message"
    ]
    name = max(entries)[1]
    messages = [message for _, of, message in entries if of == name]
    output = run_demo([sample_home], tmp_path).stdout
    assert f"\nThe latest session in a file: {name}\n" in output
    assert f"\n{len(messages)} messages, the first page after " in output


def test_a_preview_shows_the_first_six_messages_and_how_many_more_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    progress = PreviewProgress(6)
    messages = [{"role": "user", "content": f"\x1b[2J\nnumber {number}"} for number in range(4)]
    for page in (1, 2):
        progress.take(Notification("session-preview:page", {"messages": messages, "totalMessages": 4 * page}))
    messages[0]["content"] = "\n"
    messages[1]["content"] += " and so on" * 100
    Screen().show(preview(progress))
    *lines, more, summary = capsys.readouterr().out.splitlines()
    wanted = ["(no text)", *(f"\ufffd[2J number {number}" for number in (1, 2, 3))]
    assert [line.partition("user  ")[2].partition(" and")[0].rstrip() for line in lines] == [*wanted, *wanted[:2]]
    assert more == "and 2 more"
    assert summary.startswith("8 messages, the first page after ")


def test_a_preview_that_fails_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    progress = PreviewProgress(1)
    progress.take(Notification("sessions:error", {"error": "it has gone\x1b[2J", "kind": "session_not_found"}))
    Screen().show(preview(progress))
    assert capsys.readouterr().out == "It could not be read: it has gone\ufffd[2J\n"


def test_numbers_of_five_digits_are_whole_in_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    progress = AnalysisProgress()
    counts = Counts(99_999, 99_999, 66_666, 22_222, 11_111, 123_456_789)
    progress.agents["x"] = Agent(LONG_NAME, 9_999, counts)
    Screen().show(analysis_so_far(progress))
    row = capsys.readouterr().out.splitlines()[-1]
    assert len(row) <= 80
    assert row.split("━ ")[1].split() == ["99999/99999", "66666", "22222", "11111", "123.5", "MB", "9999", "ms"]


@pytest.mark.skipif(not REAL_TREES.exists(), reason="the real trees are not beside this checkout")
@pytest.mark.parametrize("tree", ["2026.7.1-jsonl", "2026.9.6-sqlite"])
def test_real_sessions_of_either_era_are_shown(tree: str, tmp_path: Path) -> None:
    # Counting opens the database, which may change it: each has a copy of its own.
    counted, shown = (Path(shutil.copytree(REAL_TREES / tree, tmp_path / name)) for name in ("counted", "shown"))
    result = run_demo([shown], tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    agents = [path for path in (counted / "agents").iterdir() if (path / "sessions").exists()]
    assert agents
    for agent in agents:
        assert places_printed(result.stdout, agent.name) == places_on_disk(agent)[:3]
    if tree == "2026.9.6-sqlite":
        session_id, messages, _ = latest_in_database(counted / "agents" / "main")
        assert f"The latest session in a database: main/{session_id}\n" in result.stdout
        assert f"\n{len(messages)} messages" in result.stdout


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
    assert "There is nothing to preview." in result.stdout
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
    assert "preview_session_stream" in picture
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
    monkeypatch.setattr(demo, "write_both_eras", write)
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
