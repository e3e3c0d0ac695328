"""A second snapshot shares what did not change, and nothing else; each of the two is whole without the other."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.backup import manifest, sharing
from sidecar.backup.files import clone
from sidecar.backup.folder import Snapshot
from sidecar.backup.progress import Progress
from sidecar.backup.snapshot import Options, create
from sidecar.cancel import CancelToken
from tests.unit.restore_trees import LONG_AGO_NS, Home, check, contents, rows


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    # What a test wrote a moment ago is too young to be taken for unchanged.
    monkeypatch.setattr(sharing, "YOUNG_S", -1.0)
    made = Home(tmp_path)
    made.root.mkdir()
    return made


def path_in(snapshot: Snapshot, name: str) -> Path:
    return Path(os.fsdecode(snapshot.path), name)


def are_shared(one: Snapshot, two: Snapshot, name: str) -> bool:
    """Whether both have it as one file. Where the file system shares what two files hold, there are two."""
    return path_in(one, name).samefile(path_in(two, name))


def files_of(home: Home, snapshot: Snapshot) -> dict[str, manifest.Entry]:
    with manifest.opened(home.folder.manifest_of(snapshot.name)) as reader:
        return {os.fsdecode(entry.path): entry for entry in reader.entries() if entry.kind == "file"}


def has_no_clones(folder: Path) -> bool:
    (folder / "one").write_bytes(b"1" * 10_000)
    return not clone(os.fsencode(folder / "one"), os.fsencode(folder / "two"))


def test_all_files_of_an_unchanged_tree_are_shared_databases_among_them(home: Home, tmp_path: Path) -> None:
    home.fill()
    one, two = home.backup(), home.backup()
    files = files_of(home, one)
    assert files_of(home, two) == files
    assert files["memory/main.sqlite"].is_database
    if has_no_clones(tmp_path):
        assert all(are_shared(one, two, name) for name in files)
    before = contents(path_in(two, ""), exactly=True)
    assert contents(path_in(one, ""), exactly=True) == before
    check(home, one, two)
    assert home.folder.delete(one.name)
    assert contents(path_in(two, ""), exactly=True) == before
    check(home, two)


def test_what_is_shared_is_counted_as_what_is_copied_is(home: Home) -> None:
    home.fill()
    told = []
    for _ in range(2):
        progress = Progress(CancelToken())
        made = create(os.fsencode(home.root), home.folder, Options(), progress)
        assert progress.files_copied == progress.files_total == len(files_of(home, made))
        assert progress.bytes_copied == progress.bytes_total == made.size_bytes
        told.append((progress.files_copied, made.size_bytes, made.status))
    assert told[0] == told[1]


def test_with_no_share_every_file_is_a_copy(home: Home) -> None:
    home.fill()
    one, two = home.backup(), home.backup(share=False)
    assert not any(are_shared(one, two, name) for name in files_of(home, one))
    assert all(path_in(two, name).stat().st_nlink == 1 for name in files_of(home, two))
    check(home, one, two)


def content(home: Home) -> None:
    home.write("workspace/file", "new!", age=1)


def content_alone(home: Home) -> None:
    """As ``touch -r`` or an editor that keeps times would: only the time of the inode tells."""
    (home.root / "workspace/file").write_text("new!")
    os.utime(home.root / "workspace/file", ns=(LONG_AGO_NS, LONG_AGO_NS))


def mode(home: Home) -> None:
    (home.root / "workspace/file").chmod(0o640)


def time_alone(home: Home) -> None:
    os.utime(home.root / "workspace/file", ns=(LONG_AGO_NS, LONG_AGO_NS + 7_000))


def owner(home: Home) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(home.root / "workspace/file", 65_534, 65_534)


@pytest.mark.parametrize("change", [content, content_alone, mode, time_alone, owner])
def test_a_file_that_changed_in_anything_is_not_shared(home: Home, change: Callable[[Home], None]) -> None:
    file = home.write("workspace/file", "old!")
    home.write("workspace/other", "other")
    one = home.backup()
    change(home)
    two = home.backup()
    assert not are_shared(one, two, "workspace/file")
    assert path_in(one, "workspace/file").read_text() == "old!"
    copy, now = path_in(two, "workspace/file"), file.stat()
    assert copy.read_text() == file.read_text()
    assert (copy.stat().st_mode, copy.stat().st_mtime_ns) == (now.st_mode, now.st_mtime_ns)
    if os.geteuid() == 0:
        assert (copy.stat().st_uid, copy.stat().st_gid) == (now.st_uid, now.st_gid)
    check(home, one, two)


def test_a_file_written_anew_with_the_same_content_and_times_is_shared_after_all(home: Home, tmp_path: Path) -> None:
    home.write("workspace/file", "same" * 1_000)
    one = home.backup()
    home.write("workspace/file.new", "same" * 1_000).rename(home.root / "workspace/file")
    two = home.backup()
    assert files_of(home, two)["workspace/file"].source != files_of(home, one)["workspace/file"].source
    if has_no_clones(tmp_path):
        assert are_shared(one, two, "workspace/file")
    assert sorted(os.listdir(path_in(two, "workspace"))) == ["file"]
    check(home, one, two)


def test_a_database_with_a_new_row_in_its_wal_is_not_shared(home: Home) -> None:
    file = home.database("memory/main.sqlite", "one")
    one, before = home.backup(), file.stat()
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("INSERT INTO t VALUES ('two')")
        assert Path(f"{file}-wal").stat().st_size
        # The file of the database itself is as it was.
        assert file.stat() == before
        two = home.backup()
        assert not are_shared(one, two, "memory/main.sqlite")
    assert rows(path_in(one, "memory/main.sqlite")) == ["one"]
    assert rows(path_in(two, "memory/main.sqlite")) == ["one", "two"]


def test_a_file_that_is_too_young_to_tell_is_copied_and_nothing_of_it_is_kept_to_tell_later(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.write("workspace/file", "1")
    monkeypatch.setattr(sharing, "YOUNG_S", 3_600.0)
    one = home.backup()
    assert files_of(home, one)["workspace/file"].source is None
    monkeypatch.setattr(sharing, "YOUNG_S", -1.0)
    (home.root / "workspace/file").write_text("2")
    os.utime(home.root / "workspace/file", ns=(LONG_AGO_NS, LONG_AGO_NS))
    two = home.backup()
    assert (path_in(one, "workspace/file").read_text(), path_in(two, "workspace/file").read_text()) == ("1", "2")


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_a_link(path: Path) -> None:
    path.rename(path.with_name("x"))
    path.symlink_to("x")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut off": lambda path: os.truncate(path, 2),
    "gone": lambda path: path.unlink(),
    "of another mode": lambda path: path.chmod(0o666),
    "of another time": lambda path: os.utime(path),
    "a folder": become_a_folder,
    "a link": become_a_link,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_in_the_snapshot_before_is_copied_anew(home: Home, damage: Callable[[Path], object]) -> None:
    home.write("workspace/file", "whole")
    one = home.backup()
    damage(path_in(one, "workspace/file"))
    two = home.backup()
    assert path_in(two, "workspace/file").read_text() == "whole"
    assert path_in(two, "workspace/file").stat().st_nlink == 1
    check(home, two)


def test_digests_of_a_manifest_that_is_not_as_it_was_written_are_not_taken_over(home: Home) -> None:
    home.write("workspace/one", "1" * 100)
    home.write("workspace/two", "2")
    older, newer = home.backup(), home.backup()
    path = Path(os.fsdecode(home.folder.manifest_of(newer.name)))
    text = path.read_text()
    digest = files_of(home, newer)["workspace/one"].sha256
    path.write_text(text.replace(digest, digest[::-1]))
    assert path.read_text() != text
    made = home.backup()
    assert files_of(home, made) == files_of(home, older)
    check(home, older, made)


def test_a_snapshot_without_a_manifest_has_nothing_to_share(home: Home) -> None:
    home.write("workspace/file", "1")
    one = home.backup()
    os.unlink(home.folder.manifest_of(one.name))
    two = home.backup()
    assert not are_shared(one, two, "workspace/file")


def test_a_file_with_as_many_links_as_it_can_have_is_copied(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write("workspace/file", "1")
    one = home.backup()

    def refuse(*_: object) -> None:
        raise OSError(31, "Too many links")

    monkeypatch.setattr(sharing, "clone", lambda *_: False)
    monkeypatch.setattr(os, "link", refuse)
    two = home.backup()
    assert not are_shared(one, two, "workspace/file")
    check(home, one, two)


def test_names_that_sort_unlike_their_paths_are_found_again(home: Home, tmp_path: Path) -> None:
    names = [
        "a/b",
        "a-b",
        "a.b",
        "a",
        "ab",
        os.fsdecode(b"a\xff"),
        "agents/x/a",
        "agents.x",
        "memory/a",
        "memory-a",
        "z",
    ]
    for name in names:
        if name != "a":
            home.write(name, name.encode("utf-8", "surrogateescape"))
    one, two = home.backup(), home.backup()
    assert len(files_of(home, one)) == len(names) - 1
    if has_no_clones(tmp_path):
        assert all(are_shared(one, two, name) for name in files_of(home, one))
