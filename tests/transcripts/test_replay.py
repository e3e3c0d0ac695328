"""The recorded conversations of ``protocol/transcripts``, played to a real sidecar."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sidecar.errors import COMMAND_ERRORS, HostUnknown, RemoteFailed
from sidecar.server.commands import COMMANDS
from sidecar.transcripts.lines import ANY_CHUNKS, Line, read_transcript, write_transcript
from tests.transcripts.replay import FOLDER, key_of_host, replay, sent_methods
from tests.transcripts.sample_home import HUGE_BYTES, write_sample_home
from tests.transcripts.sample_host import SampleHost

TRANSCRIPTS = sorted(FOLDER.glob("*.jsonl"))
OF_HOSTS_ALONE = {"remote_backup_before_upgrade"}
"""Transcripts of ``remote_`` commands that are told otherwise than what they are the twins of."""
KINDS_OF_HOSTS = {error.kind for error in COMMAND_ERRORS if HostUnknown.code >= error.code >= RemoteFailed.code}
"""By these a transcript is called that is about what can't happen here."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """One for each transcript: some delete what is in it."""
    home = tmp_path / "home"
    write_sample_home(home)
    return home


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
async def test_the_conversation_goes_as_it_was_recorded(
    path: Path, home: Path, request: pytest.FixtureRequest, pytestconfig: pytest.Config
) -> None:
    lines = read_transcript(path)
    host: SampleHost | None = None
    if (key := key_of_host(lines)) is not None:
        host = request.getfixturevalue("sample_host")
        assert host is not None
        host.prepare(home, key)
    went = await replay(lines, home, host)
    if pytestconfig.getoption("--record-transcripts", default=False):
        write_transcript(path, went)
    else:
        assert comparable(went) == comparable(lines)


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_every_command_is_called_in_a_transcript_of_its_name(command: str) -> None:
    assert command in sent_methods(read_transcript(FOLDER / f"{command}.jsonl"))


def is_asked_here_too(path: Path) -> bool:
    """Whether a transcript asks a host for what another one asks for here."""
    end = path.stem.partition(".")[2]
    # Which host is a parameter too, and is asked for first.
    is_of_hosts_alone = path.stem in OF_HOSTS_ALONE or end in KINDS_OF_HOSTS or end == "invalid_params"
    return path.name.startswith("remote_") and not is_of_hosts_alone


class Conversation(NamedTuple):
    """What a transcript asks about which home, and what it is told."""

    asked: str
    told: list[Any]

    @classmethod
    def of(cls, path: Path) -> Conversation:
        """That of a transcript; what one says to a host is as it would be said here."""
        home = ""
        asked: list[Any] = []
        lines = read_transcript(path)
        for line in lines:
            if line.kind == "$" and line.text.startswith("HOME="):
                home = line.text.rpartition("/")[2]
            elif line.kind == ">" and line.text.startswith("{"):
                call = json.loads(line.text)
                if call["method"].startswith("remote_"):
                    call["method"] = call["method"].removeprefix("remote_")
                    host_id, call["params"] = without_host(call.get("params"))
                    home = home or host_id.removeprefix("ssh:").replace("sample", "")
                asked.append([call["id"], call["method"], call.get("params") or {}])
        # On a host, the home of the transcript is that of its user.
        text = json.dumps([found for found in comparable(lines) if found[0] == "<"])
        told = json.loads(text.replace("<openclaw>", "<home>/.openclaw").replace("<host-home>", "<home>"))
        return cls(json.dumps([home, asked]), told)


def without_host(params: Any) -> tuple[str, Any]:
    """The host that parameters name, empty if they don't, and the others."""
    if isinstance(params, list):
        return params[0], params[1:]
    others = dict(params or {})
    return others.pop("hostId", ""), others


@pytest.mark.parametrize("path", [path for path in TRANSCRIPTS if is_asked_here_too(path)], ids=lambda path: path.stem)
def test_what_is_asked_of_a_host_is_answered_as_it_is_here(path: Path) -> None:
    there = Conversation.of(path)
    command = path.name.split(".")[0].removeprefix("remote_")
    here = dict(map(Conversation.of, FOLDER.glob(f"{command}.*")))
    assert there.told == here[there.asked]


def test_the_sample_home_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_sample_home(tmp_path / name)

    one, other = (snapshot(tmp_path / name) for name in ("one", "other"))
    assert one == other


def comparable(lines: Sequence[Line]) -> list[Any]:
    """Lines of which the spelling of the JSON doesn't matter."""
    return [
        ("<", json.loads(line.text)) if line.kind == "<" and line.text != ANY_CHUNKS else tuple(line) for line in lines
    ]


def snapshot(home: Path) -> dict[str, tuple[bytes, float]]:
    return {
        str(path.relative_to(home)): (path.read_bytes(), path.stat().st_mtime if path.suffix == ".jsonl" else 0)
        for path in home.rglob("*")
        if path.is_file() and path.stat().st_size < HUGE_BYTES
    }
