"""The slow disk of the benchmarks holds what the tree holds, and takes its time."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.bench.slow_disk import BYTES_A_SECOND, SEEK_S, on_slow_disk

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="a slow disk needs root, and FUSE"
)
SIZE_BYTES = 2_000_000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "folder" / "empty").mkdir(parents=True)
    (tmp_path / "large").write_bytes(os.urandom(SIZE_BYTES))
    for number in range(40):
        (tmp_path / "folder" / f"größe {number}").write_text(str(number))
    return tmp_path


def test_it_holds_what_the_tree_holds(tree: Path) -> None:
    with on_slow_disk(tree) as disk:
        assert subprocess.run(["diff", "-r", tree, disk], check=False).returncode == 0
        assert (disk / "large").stat().st_mtime_ns == (tree / "large").stat().st_mtime_ns
        with pytest.raises(FileNotFoundError):
            (disk / "missing").read_bytes()
        with pytest.raises(OSError, match="Read-only"):
            (disk / "new").touch()


def test_it_takes_its_time_the_first_time(tree: Path) -> None:
    with on_slow_disk(tree) as disk:
        started_s = time.monotonic()
        assert (disk / "large").read_bytes() == (tree / "large").read_bytes()
        assert time.monotonic() - started_s >= 2 * SEEK_S + SIZE_BYTES / BYTES_A_SECOND


def test_nothing_is_left_of_it(tree: Path) -> None:
    with on_slow_disk(tree) as disk:
        assert str(disk) in Path("/proc/mounts").read_text()
    assert not disk.exists()
    assert str(disk) not in Path("/proc/mounts").read_text()
