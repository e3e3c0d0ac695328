"""Clients that nobody here wrote talk to the real process: vscode-jsonrpc from npm, and aiorpcx from PyPI.

Each has the same conversation once, and reports what it was told; the tests look at the reports.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar import __version__
from sidecar.demo.sample import AgentPlan, iso_time, write_tree
from tests.client import COMMAND, TERMINALS, WITHIN_S, environment, methods
from tests.clients.newline_client import converse
from tests.remote.node import node_executable
from tests.remote.sshd import cannot
from tests.topics import write_topics

HERE = Path(__file__).parent
NOW_MS = 1_795_000_000_000
AGENT, SESSION = "main", "lines"
# JavaScript's readline cuts a line at the last two of these, if they are on the wire as they are.
TEXT = "one\ntwo\r\nthree\u2028four\u2029five \U0001f642"
MANY_SESSIONS = 1_500
NPM_WITHIN_S = 90.0
Report = dict[str, Any]


@pytest.fixture(scope="module")
def big_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of which the analysis is far more than pipes and buffers hold: 7,000 letters and more for each session."""
    home = tmp_path_factory.mktemp("big")
    write_topics(home, MANY_SESSIONS, NOW_MS)
    return home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two small agents, and a session whose one message is ``TEXT``."""
    home = tmp_path_factory.mktemp("home")
    write_tree(home / ".openclaw", (AgentPlan(AGENT, 20, 6_000), AgentPlan("scratch", 12, 1_500)), now_ms=NOW_MS)
    message = {"role": "user", "content": [{"type": "text", "text": TEXT}]}
    entries = (
        {"type": "session", "id": SESSION},
        {"type": "message", "timestamp": iso_time(NOW_MS), "message": message},
    )
    transcript = home / ".openclaw" / "agents" / AGENT / "sessions" / f"{SESSION}.jsonl"
    # As OpenClaw writes it, with no character escaped that need not be.
    transcript.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries), encoding="utf-8")
    return home


@pytest.fixture(scope="module")
def told_vscode_jsonrpc(home: Path, big_home: Path) -> Report:
    return converse_in_node(home, big_home)


@pytest.fixture(scope="module")
def told_aiorpcx(home: Path, big_home: Path) -> Report:
    return asyncio.run(converse(home, big_home, AGENT, SESSION))


@pytest.fixture(params=["vscode_jsonrpc", "aiorpcx"])
def told(request: pytest.FixtureRequest) -> Report:
    """What each client was told."""
    report: Report = request.getfixturevalue(f"told_{request.param}")
    return report


def converse_in_node(home: Path, big_home: Path) -> Report:
    """The report of ``driver.mjs``, which ends with an error at the first thing that it doesn't understand."""
    install()
    conversation = {"bigHome": str(big_home), "agentId": AGENT, "sessionId": SESSION}
    done = subprocess.run(
        [node_executable(), HERE / "driver.mjs", *COMMAND],
        env=environment(home, CONVERSATION=json.dumps(conversation)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=2 * WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, f"node ended with {done.returncode}:\n{done.stderr.decode()}"
    report: Report = json.loads(done.stdout)
    return report


def install() -> None:
    """Have what ``package.json`` names in ``node_modules``, by the npm that comes with the tests' Node."""
    with locked(HERE):
        if installed() == wanted():
            return
        npm = node_executable().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        options = (
            "--no-package-lock",
            "--omit-lockfile-registry-resolved",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
        )
        try:
            done = subprocess.run(
                [node_executable(), npm, "install", *options, "--loglevel=error", "--fetch-retries=1"],
                cwd=HERE,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=NPM_WITHIN_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            cannot(f"npm has not installed vscode-jsonrpc within {NPM_WITHIN_S:.0f} s")
        if done.returncode:
            why = done.stderr.decode().partition("\n")[0]
            cannot(f"npm can't install vscode-jsonrpc: {why}")
        assert installed() == wanted()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs of these tests out, which may share the tree; the lock goes with the process."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def wanted() -> dict[str, str]:
    versions: dict[str, str] = json.loads((HERE / "package.json").read_text())["dependencies"]
    return versions


def installed() -> dict[str, str]:
    """Versions by name; nothing, unless npm came to its end, where it writes them down."""
    try:
        found = json.loads((HERE / "node_modules" / ".package-lock.json").read_text())["packages"]
    except FileNotFoundError:
        return {}
    return {path.removeprefix("node_modules/"): package["version"] for path, package in found.items()}


def transcripts(home: Path) -> set[tuple[str, str]]:
    """The agent and id of each session of a home, by the names of its files."""
    paths = home.glob(".openclaw/agents/*/sessions/*.jsonl")
    return {(path.parents[1].name, path.stem) for path in paths}


def assert_whole(events: list[Any]) -> None:
    """``events`` are a stream from its first notification to its one terminal, none lost and in their order."""
    assert [event["params"]["seq"] for event in events] == list(range(len(events)))
    assert len({event["params"]["handleId"] for event in events}) == 1
    assert [method in TERMINALS for method in methods(events)] == [False] * (len(events) - 1) + [True]


def assert_analysis(events: list[Any], home: Path) -> None:
    """``events`` are an analysis of all sessions of ``home``, each told once."""
    assert_whole(events)
    assert set(methods(events)) == {"sessions:chunk", "sessions:done"}
    sessions = [session for event in events[:-1] for session in event["params"]["sessions"]]
    assert len(sessions) == events[-1]["params"]["totalSessions"] == len(transcripts(home))
    assert {(session["agent"], session["sessionId"]) for session in sessions} == transcripts(home)
    assert events[-1]["params"]["cancelled"] is False


def assert_error(told: Report, name: str, code: int, kind: str, word: str) -> None:
    error = told[name]
    assert error["code"] == code
    assert word in error["message"]
    if "data" in error:  # aiorpcx drops it
        assert (error["data"]["kind"], error["data"]["retryable"]) == (kind, False)


def test_a_request_gets_its_reply(told: Report) -> None:
    assert told["ping"] == "pong"
    assert (told["info"]["name"], told["info"]["version"]) == ("clawpal-sidecar", __version__)
    assert told["info"]["openHandles"] == 0


def test_an_analysis_arrives_whole(told: Report, home: Path) -> None:
    assert_analysis(told["analysis"], home)
    assert len(told["analysis"]) > 2


def test_parameters_go_by_name_or_by_position_and_line_breaks_of_any_kind_stay_in_their_line(told: Report) -> None:
    assert told["by_name"] == [{"role": "user", "content": TEXT}]
    assert told["by_position"] == told["by_name"]


def test_an_error_is_one_of_the_client_s_own_and_tells_its_kind(told: Report) -> None:
    assert_error(told, "no_session", -32013, "session_not_found", "no such file")
    assert_error(told, "no_method", -32601, "method_not_found", "no_such_method")
    assert_error(told, "wrong_params", -32602, "invalid_params", "agentId")


def test_a_cancel_in_the_middle_stops_the_stream_and_its_end_arrives(told: Report) -> None:
    events = told["cancelled"]
    assert told["cancel"] is True
    assert_whole(events)
    assert methods(events)[-2:] == ["sessions:cancelled", "sessions:done"]
    assert set(methods(events)[:-2]) == {"sessions:chunk"}
    assert events[-1]["params"]["cancelled"] is True
    assert events[-1]["params"]["totalSessions"] < MANY_SESSIONS
    assert told["cancel_again"] is False


def test_a_backup_says_how_far_it_is_and_what_it_has_made(told: Report, home: Path) -> None:
    events = told["backup"]
    assert_whole(events)
    assert set(methods(events[:-1])) <= {"backup:progress"}
    assert events[-1]["method"] == "backup:done"
    info = events[-1]["params"]["info"]
    assert info in told["backups"]
    copied = {path.stem for path in Path(info["path"]).glob("agents/*/sessions/*.jsonl")}
    assert (info["status"], copied) == ("complete", {session for _, session in transcripts(home)})


def test_the_process_ends_well_with_its_input_or_when_it_is_asked_to(told: Report) -> None:
    assert told["exit_code"] == 0


def test_what_vscode_jsonrpc_says_of_its_own_accord_to_take_back_a_request_is_passed_over(
    told_vscode_jsonrpc: Report,
) -> None:
    assert told_vscode_jsonrpc["taken_back"] == "pong"


def test_a_batch_of_aiorpcx_is_answered_at_once_and_a_stream_in_it_follows(told_aiorpcx: Report, home: Path) -> None:
    pong, error, events = told_aiorpcx["batch"]
    assert pong == "pong"
    assert (error["code"], "no_such_method" in error["message"]) == (-32601, True)
    assert_analysis(events, home)
