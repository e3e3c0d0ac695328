"""Databases in places where SQLite can't reach, or where something else lies by the time that they are copied."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.backup import databases
from sidecar.backup.progress import Progress
from sidecar.backup.snapshot import Options, create
from sidecar.cancel import CancelToken
from tests.unit.restore_trees import Home, check, contents, copy_of, entries, rows

MAX_SQLITE_PATH_BYTES = 504
LONGEST = 255


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.root.mkdir()
    return made


def name_of(size: int) -> str:
    return ".sqlite".rjust(size, "d")


def moved(home: Home, path: str, *rows: str) -> Path:
    """A database that was made elsewhere, since SQLite can't make it here; and closed."""
    made = home.database("short", *rows)
    (home.root / path).parent.mkdir(parents=True, exist_ok=True)
    return made.rename(home.root / path)


@pytest.mark.parametrize("size", [LONGEST, 252, 251, 248, 247, 244, 240])
def test_a_database_whose_name_leaves_no_room_for_the_names_beside_it_is_copied_and_restored(
    home: Home, size: int
) -> None:
    path = f"workspace/{name_of(size)}"
    moved(home, path, "one", "two")
    home.age_folders()
    before = contents(home.root, exactly=True)
    made, again = home.backup(), home.backup()
    for one in (made, again):
        assert (one.status, one.failures) == ("complete", [])
        assert entries(home, one)[path].is_database
        check(home, one)
    plain = copy_of(made, path).rename(copy_of(made, "plain"))
    assert rows(plain) == ["one", "two"]
    (home.root / path).unlink()
    home.restore(again)
    assert contents(home.root, exactly=True).keys() == before.keys()
    restored = (home.root / path).rename(home.root / "plain")
    assert rows(restored) == ["one", "two"]


@pytest.mark.parametrize("size", [LONGEST, 248])
def test_what_is_only_called_like_a_database_may_have_the_longest_name(home: Home, size: int) -> None:
    home.write(f"workspace/{name_of(size)}", "no database at all")
    made = home.backup()
    assert made.status == "complete"
    assert copy_of(made, f"workspace/{name_of(size)}").read_text() == "no database at all"


def test_a_database_whose_copy_lies_too_deep_for_sqlite_is_copied_through_it(home: Home) -> None:
    """A snapshot lies deeper than its tree."""
    room_bytes = MAX_SQLITE_PATH_BYTES - len(os.fsencode(home.root / "workspace/folder/main.sqlite"))
    path = f"workspace/{'folder' + 'd' * min(room_bytes, 200)}/main.sqlite"
    path = path if room_bytes <= 200 else path.replace("/main", f"/{'d' * (room_bytes - 201)}/main")
    (home.root / path).parent.mkdir(parents=True)
    home.database(path, "one")
    made = home.backup()
    assert len(os.fsencode(copy_of(made, path))) > MAX_SQLITE_PATH_BYTES
    assert (made.status, made.failures) == ("complete", [])
    assert entries(home, made)[path].is_database
    assert rows(copy_of(made, path).rename(copy_of(made, "plain"))) == ["one"]


@pytest.mark.parametrize("content", [b"", b"1", b"no database at all" * 1_000])
def test_what_is_only_called_like_a_database_is_whole_though_it_lies_too_deep_for_sqlite(
    home: Home, content: bytes
) -> None:
    path = "workspace/" + "/".join(["d" * 100] * 6) + "/thumbs.db"
    home.write(path, content)
    made = home.backup()
    assert (made.status, made.failures) == ("complete", [])
    assert copy_of(made, path).read_bytes() == content


def test_a_database_that_lies_too_deep_for_sqlite_is_kept_and_named(home: Home) -> None:
    path = "workspace/" + "/".join(["d" * 100] * 6) + "/main.sqlite"
    content = moved(home, path, "one").read_bytes()
    made = home.backup()
    assert [failure["path"] for failure in made.failures] == [path]
    assert copy_of(made, path).read_bytes() == content
    check(home, made)


def becomes(file: Path, other: str, elsewhere: Path) -> None:
    file.unlink()
    if other == "a FIFO":
        os.mkfifo(file)
    elif other == "a link":
        file.symlink_to(elsewhere)
    else:
        file.mkdir()


# SQLite would wait for whoever writes to a FIFO, so that one must be seen before.
@pytest.mark.parametrize(
    ("moment", "other"),
    [
        ("found", "a FIFO"),
        *((moment, other) for moment in ("found", "looked at", "copied") for other in ("a link", "a folder")),
    ],
)
def test_a_database_that_becomes_something_else_is_named_and_no_other_is_copied_for_it(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, other: str
) -> None:
    file = home.database("memory/main.sqlite", "one")
    elsewhere = Home(tmp_path / "elsewhere").database("secret.sqlite", "secret")

    def change() -> None:
        if stat.S_ISREG(file.lstat().st_mode):
            becomes(file, other, elsewhere)

    def before(name: str, module: object, seam: Callable[..., object]) -> None:
        def changed(*arguments: object) -> object:
            change()
            return seam(*arguments)

        monkeypatch.setattr(module, name, changed)

    if moment == "looked at":
        before("_copy_once", databases, databases._copy_once)
    elif moment == "copied":
        before("_copy_pages", databases, databases._copy_pages)
    # The step before a file is opened still shows what comes before it.
    progress = Progress(
        CancelToken(), lambda: change() if moment == "found" and progress.current_path == b"memory" else None
    )
    made = create(os.fsencode(home.root), home.folder, Options(), progress)
    assert (made.status, [failure["path"] for failure in made.failures]) == ("incomplete", ["memory/main.sqlite"])
    assert entries(home, made)["memory/main.sqlite"].kind == "failed"
    assert os.listdir(copy_of(made, "memory")) == []
    check(home, made)


@pytest.mark.parametrize("moment", ["_copy_once", "_copy_pages", "_check"])
def test_a_database_that_vanishes_below_a_link_is_not_in_the_snapshot_and_no_failure(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Its real path isn't the one by which it was found."""
    file = home.database("memory/main.sqlite", "one")
    link = tmp_path / "link"
    link.symlink_to(home.root)
    seam = getattr(databases, moment)

    def vanishing(*arguments: object) -> object:
        file.unlink(missing_ok=True)
        return seam(*arguments)

    monkeypatch.setattr(databases, moment, vanishing)
    made = create(os.fsencode(link), home.folder, Options(), Progress(CancelToken()))
    assert (made.status, made.failures) == ("complete", [])
    assert list(entries(home, made)) == ["", "memory"]
    check(home, made)
