"""The recorded conversations of ``protocol/transcripts``, played to a real sidecar."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sidecar.server.commands import COMMANDS
from tests.transcripts.replay import (
    ANY_CHUNKS,
    FOLDER,
    Line,
    read_transcript,
    replay,
    sent_methods,
    write_transcript,
)
from tests.transcripts.sample_home import write_sample_home

TRANSCRIPTS = sorted(FOLDER.glob("*.jsonl"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """One for each transcript: some delete what is in it."""
    home = tmp_path / "home"
    write_sample_home(home)
    return home


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
async def test_the_conversation_goes_as_it_was_recorded(path: Path, home: Path, pytestconfig: pytest.Config) -> None:
    lines = read_transcript(path)
    went = await replay(lines, home)
    if pytestconfig.getoption("--record-transcripts", default=False):
        write_transcript(path, went)
    else:
        assert comparable(went) == comparable(lines)


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_every_command_is_called_in_a_transcript_of_its_name(command: str) -> None:
    assert command in sent_methods(read_transcript(FOLDER / f"{command}.jsonl"))


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
        if path.is_file()
    }
