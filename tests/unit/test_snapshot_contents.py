"""Snapshots of trees at the edges: the longest paths, sizes around what is copied at once, owners, files replaced."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar.limits import COPY_BYTES, MIB
from tests.unit.restore_trees import Home, check, copy_of, entries

IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
MAX_PATH_BYTES = 4_095


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.root.mkdir()
    return made


def test_digests_and_sizes_are_those_of_the_files_whatever_is_copied_at_once(home: Home) -> None:
    sizes = [0, 1, COPY_BYTES - 1, COPY_BYTES, COPY_BYTES + 1, 2 * COPY_BYTES]
    written = {f"media/{size}": home.write(f"media/{size}", os.urandom(size)).read_bytes() for size in sizes}
    made = home.backup()
    told = entries(home, made)
    for path, content in written.items():
        assert copy_of(made, path).read_bytes() == content
        assert (told[path].sha256, told[path].size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert made.size_bytes == sum(sizes)


@pytest.mark.skipif(not IS_ROOT, reason="only root gives files away")
def test_owners_are_kept_by_files_and_told_of_all(home: Home) -> None:
    for name in ("file", "agents/folder/file"):
        home.write(name, "1")
    (home.root / "link").symlink_to("file")
    database = home.database("memory/main.sqlite", "one")
    given = {"file", "agents/folder", "link", "memory/main.sqlite"}
    for name in given:
        os.chown(home.root / name, 1234, 5678, follow_symlinks=False)
    database.chmod(0o640)
    made = home.backup()
    told = entries(home, made)
    assert {path for path, entry in told.items() if entry.owner == (1234, 5678)} == given
    assert {path for path, entry in told.items() if entry.owner is None} == told.keys() - given
    for name in ("file", "memory/main.sqlite"):
        status, expected = copy_of(made, name).stat(), (home.root / name).stat()
        assert (status.st_uid, status.st_gid, status.st_mode) == (1234, 5678, expected.st_mode)


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder whose path may be too long to be given."""
    before = os.open(".", os.O_RDONLY)
    os.chdir(folder)
    try:
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def deep_folder(home: Home, path_bytes: int) -> str:
    """A folder whose whole path is so long, with a file, a link and a folder in it; from the top."""
    names = ["workspace"]
    with inside(home.root):
        os.mkdir("workspace")
        os.chdir("workspace")
        while (left_bytes := path_bytes - len(os.fsencode(home.root / "/".join(names))) - 1) > 0:
            # Of what is left, no single separator may be over.
            size = 200 if left_bytes > 250 else left_bytes
            names.append("x" * size)
            os.mkdir(names[-1])
            os.chdir(names[-1])
        Path("f").write_text("1")
        Path("l").symlink_to("f")
        Path("d").mkdir()
        Path("d/f").write_text("1")
    return "/".join(names)


@pytest.mark.parametrize("deeper_bytes", [-4, -3, -2, -1, 0, 1, 20])
@pytest.mark.parametrize("limited", ["tree", "snapshot"])
def test_what_lies_too_deep_is_named_and_the_rest_goes_in_and_back(home: Home, deeper_bytes: int, limited: str) -> None:
    staged = os.path.join(home.folder.path, b".partial-0123456789abcdef", b"tree")
    more_bytes = len(staged) - len(os.fsencode(home.root))
    assert more_bytes > 30
    path = deep_folder(home, MAX_PATH_BYTES + deeper_bytes - (more_bytes if limited == "snapshot" else 0))
    home.write("openclaw.json", "{}")
    made = home.backup()
    check(home, made)
    check(home, home.backup())
    told = entries(home, made)
    failed = {name for name, entry in told.items() if entry.kind == "failed"}
    assert {failure["path"] for failure in made.failures} == failed
    for name in (path, *(f"{path}/{name}" for name in ("f", "l", "d", "d/f"))):
        if len(staged) + 1 + len(name) <= MAX_PATH_BYTES:
            assert name not in failed
            assert os.path.lexists(copy_of(made, name))
        else:
            assert not failed.isdisjoint([name, *map(str, Path(name).parents)])
    assert copy_of(made, "openclaw.json").read_text() == "{}"
    home.write("openclaw.json", "changed", age=1)
    home.restore(made, force=True)
    assert (home.root / "openclaw.json").read_text() == "{}"


def test_a_file_that_is_replaced_all_the_time_is_one_of_those_that_it_was(home: Home) -> None:
    """As indexes are written: beside, and renamed."""
    path = home.write("agents/main/sessions/sessions.json", b"0" * MIB)
    ended, begun = threading.Event(), threading.Event()

    def replace() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            other = home.root.parent / "new"
            other.write_bytes(b"%d" % (number % 10) * MIB)
            other.replace(path)
            begun.set()

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        assert begun.wait(60)
        snapshots = [home.backup() for _ in range(5)]
    finally:
        ended.set()
        writer.join()
    for made in snapshots:
        assert made.status == "complete"
        content = copy_of(made, "agents/main/sessions/sessions.json").read_bytes()
        assert (len(content), len(set(content))) == (MIB, 1)
        check(home, made)
