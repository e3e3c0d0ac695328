"""A folder with more names than are held is walked whole, once, in order, within its bound."""

from __future__ import annotations

import os
import random
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.backup import tree
from sidecar.backup.tree import walk_all
from sidecar.limits import MIB, NAMES_HELD_BYTES

NAMES = st.sets(
    st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & {0, 0x2F} and name not in {b".", b".."})
)


def names_in(folder: bytes) -> list[bytes]:
    return [found.path for found in walk_all(folder) if found.path]


@given(names=NAMES, held_bytes=st.integers(0, 600))
def test_every_name_comes_once_and_in_order_however_few_are_held(names: set[bytes], held_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree, "NAMES_HELD_BYTES", held_bytes)
        top = os.fsencode(folder)
        os.mkdir(top + b"/agents")
        for name in names:
            (Path(os.fsdecode(top + b"/agents/" + name))).touch()
        assert names_in(top) == [b"agents", *(b"agents/" + name for name in sorted(names))]


def test_names_as_long_as_they_can_be_are_held_within_the_bound(tmp_path: Path) -> None:
    chance = random.Random(0)
    for _ in range(20_000):
        (tmp_path / chance.randbytes(127).hex()).touch()
    top = os.fsencode(tmp_path)
    expected = sorted(os.listdir(top))
    tracemalloc.start()
    try:
        found = tree._sorted_names(top)
        assert all(name == other for name, other in zip(expected, found, strict=True))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < NAMES_HELD_BYTES + MIB
