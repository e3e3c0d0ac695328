"""One core and 96 MB of memory are enough for every stream, here and on a host."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sidecar.server.commands import COMMANDS
from tests.bench.corpora import corpus, write_corpus, write_database
from tests.bench.small import MEMORY_BYTES, Ended, at_host, here, limited

STREAMS = {command.name for command in COMMANDS if command.kind == "stream"}
AT_HOST = {name for name in STREAMS if name.startswith("remote_")}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes a small corpus, or one of them in SQLite, when it is first asked for."""
    folder = tmp_path_factory.mktemp("corpora")

    @functools.cache
    def write(name: str) -> Path:
        if name == "sqlite":
            write_database(write("a10"), folder / name)
        else:
            write_corpus(corpus(name), folder / name)
        return folder / name

    return write


def commands(ended: Sequence[Ended]) -> set[str]:
    return {each.command for each in ended}


@pytest.mark.parametrize("name", ["a", "c", "d", "sqlite"])
def test_every_stream_here_ends_as_it_should(name: str, tree: Callable[[str], Path]) -> None:
    ended = list(here(tree(name)))
    assert commands(ended) == STREAMS - AT_HOST
    assert max(each.peak_bytes for each in ended) < MEMORY_BYTES


@pytest.mark.parametrize(("engine", "name"), [("node", "a10"), ("node", "sqlite"), ("python", "d10")])
def test_every_stream_of_a_host_ends_as_it_should(engine: str, name: str, tree: Callable[[str], Path]) -> None:
    ended = list(at_host(engine, tree(name)))
    assert commands(ended) == AT_HOST
    assert max(each.peak_bytes for each in ended) < MEMORY_BYTES


def test_every_stream_that_sftp_alone_can_give_ends_as_it_should(tree: Callable[[str], Path]) -> None:
    ended = list(at_host("sftp", tree("c10")))
    assert commands(ended) == {name for name in AT_HOST if "backup" not in name}
    assert max(each.peak_bytes for each in ended) < MEMORY_BYTES


def test_the_limits_hold() -> None:
    code = "import os; print(len(os.sched_getaffinity(0)), flush=True); bytearray(100_000_000)"
    ran = subprocess.run(limited([sys.executable, "-c", code]), capture_output=True, text=True, check=False)
    assert ran.stdout == "1\n"
    assert ran.stderr.endswith("MemoryError\n")


def test_less_memory_is_not_enough(tree: Callable[[str], Path]) -> None:
    with pytest.raises(SystemExit, match=r"the sidecar ended|MemoryError|internal"):
        list(here(tree("a10"), memory_bytes=24_000_000))
