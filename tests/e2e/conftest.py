"""Homes that several end-to-end tests share, and a place for what they measure."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.demo.sample import AgentPlan, SampleWriter, write_tree
from tests.client import SidecarProcess
from tests.topics import write_topics

NOW_MS = 1_795_000_000_000
MANY_SESSIONS = 4_000
HUGE_BYTES = 500_000_000


@pytest.fixture(scope="session")
def sample_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with three small agents, 60 sessions in all."""
    home = tmp_path_factory.mktemp("sample")
    plans = (AgentPlan("main", 30, 6_000), AgentPlan("research", 10, 60_000), AgentPlan("scratch", 20, 1_500))
    write_tree(home / ".openclaw", plans, now_ms=NOW_MS)
    return home


@pytest.fixture(scope="module")
def process(sample_home: Path) -> Iterator[SidecarProcess]:
    """One for most tests of a file: whatever one of them sends it, it must serve the next."""
    process = SidecarProcess(sample_home)
    yield process
    process.end()


@pytest.fixture(scope="session")
def talkative_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of which the analysis is much longer than the transcripts: 40 MB, from ``MANY_SESSIONS`` sessions.

    They are topics of one session, links to one file. The index gives its model a name of 7,000 letters, and their
    paths are 3,000 letters long, so that each takes memory even before it is written down as JSON.
    """
    root = tmp_path_factory.mktemp("talkative")
    home = root.joinpath(*["d" * 250] * 12)
    write_topics(home, MANY_SESSIONS, NOW_MS)
    yield home
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def huge_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with one session of a few lines, ``a``, and after it one of 500 MB, ``huge``.

    There is no place for an index, so it is read anew each time.
    """
    home = tmp_path_factory.mktemp("huge")
    (home / ".clawpal").mkdir()
    (home / ".clawpal" / "cache").touch()
    folder = home / ".openclaw" / "agents" / "main" / "sessions"
    folder.mkdir(parents=True)
    lines = list(SampleWriter(2, NOW_MS).lines("huge", NOW_MS, 2_000_000))
    (folder / "a.jsonl").write_bytes(b"".join(lines[:5]))
    block = b"".join(lines)
    with open(folder / "huge.jsonl", "wb") as file:
        file.writelines(block for _ in range(HUGE_BYTES // len(block) + 1))
    yield home
    shutil.rmtree(home)
