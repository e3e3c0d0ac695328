"""``clawpal-sidecar record``: between a client and a real sidecar."""

from __future__ import annotations

import json
import signal
import stat
import sys
from pathlib import Path

import pytest

from sidecar.transcripts.lines import Line, read_transcript
from sidecar.transcripts.peer import Peer
from tests.client import SidecarProcess, environment, is_running, request_line
from tests.transcripts.replay import FOLDER, replay
from tests.transcripts.sample_home import write_sample_home
from tests.transcripts.test_replay import comparable

WHOLE = (
    "analyze_sessions_stream.small_batches",
    "batch",
    "cancel_stream",
    "delete_sessions_by_ids.refused",
    "shutdown",
    "wire_errors",
)
"""Transcripts that have each line, and say where the home is by ``$HOME`` alone."""


def recording(file: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", "sidecar", "record", str(file))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    write_sample_home(home)
    return home


@pytest.mark.parametrize("name", WHOLE)
async def test_what_is_recorded_is_the_transcript_of_the_conversation(name: str, home: Path, tmp_path: Path) -> None:
    lines = read_transcript(FOLDER / f"{name}.jsonl")
    file = tmp_path / "new.jsonl"

    went = await replay(lines, home, command=recording(file))

    recorded = read_transcript(file)
    # A recording takes the home that it runs in for the home, and knows no comments.
    below = next((line.text.partition("/")[2] for line in lines if line.text.startswith("HOME=<home>/")), None)
    expected = [line for line in went if line.kind in {">", "<"}]
    if below is not None:
        expected = [Line(line.kind, line.text.replace(f"<home>/{below}", "<home>")) for line in expected]
    expected = [Line(line.kind, line.text.replace("<home>/.openclaw", "<openclaw>")) for line in expected]
    assert comparable(recorded) == comparable(expected)


async def test_a_recording_can_be_played(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "new.jsonl"
    requests = [
        request_line("list_session_files_stream", {"batchSize": 2}),
        request_line("preview_session", ["main", "budget"], request_id="two"),
    ]
    async with SidecarProcess(home, command=recording(file)) as process:
        for request in requests:
            await process.send(request)
        process.close_stdin()
        said = await process.read_to_end()
        assert await process.exit_code() == 0

    peer = Peer(read_transcript(file))
    played = [json.loads(line) for request in requests for line in peer.take(request.strip())]

    assert [message.keys() for message in played] == [message.keys() for message in said]
    assert [message.get("method") for message in played] == [message.get("method") for message in said]


async def test_no_secret_is_written_down(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "new.jsonl"
    host = {"label": "a", "host": "b", "port": 22, "username": "c", "authMethod": "password", "password": "hunter2"}
    async with SidecarProcess(home, command=recording(file)) as process:
        await process.call("upsert_ssh_host", [host])
        await process.rejected("ssh_connect_with_passphrase", ["nowhere", "hunter2"])
        await process.rejected("ssh_connect_with_passphrase", {"hostId": "nowhere", "passphrase": "hunter2"})

    assert "hunter2" in (home / ".clawpal" / "instances.json").read_text()
    assert "hunter2" not in file.read_text()
    assert file.read_text().count("<secret>") >= 3
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_file_that_is_there_stays(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "old.jsonl"
    file.write_text("# mine\n")
    async with SidecarProcess(home, command=recording(file)) as process:
        assert await process.exit_code() == 2
        assert "old.jsonl" in process.stderr()

    assert file.read_text() == "# mine\n"


async def test_a_signal_reaches_the_sidecar_and_its_last_words_are_written(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "new.jsonl"
    async with SidecarProcess(
        home, command=recording(file), env={**environment(home), "HOME": str(home / "large")}
    ) as process:
        pid = (await process.call("get_sidecar_info"))["pid"]
        await process.start_stream({"batchSize": 1})
        process.send_signal(signal.SIGTERM)
        messages = await process.read_to_end()
        assert await process.exit_code() == 0
        assert not is_running(pid)

    assert messages[-1]["params"]["cancelled"] is True
    assert read_transcript(file)[-1].text.count("sessions:done") == 1


async def test_a_client_that_goes_away_takes_the_sidecar_with_it(home: Path, tmp_path: Path) -> None:
    async with SidecarProcess(
        home, command=recording(tmp_path / "new.jsonl"), env={**environment(home), "HOME": str(home / "large")}
    ) as process:
        pid = (await process.call("get_sidecar_info"))["pid"]
        await process.start_stream({"batchSize": 1})
        process.close_stdout()
        assert await process.exit_code() == 1
        assert not is_running(pid)
