"""A walk leaves out what belongs to a database, not what is only called so, and nothing of ClawPal's goes in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.backup.folder import BackupFolder
from sidecar.backup.rules import CLAWPAL, Selection
from sidecar.backup.tree import walk
from tests.unit.restore_trees import Home

SIDES = ("-wal", "-shm", "-journal")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.root.mkdir()
    return made


def kinds(home: Home) -> dict[str, str]:
    return {os.fsdecode(found.path): found.kind for found in walk(os.fsencode(home.root), Selection())}


@pytest.mark.parametrize("name", ["main.sqlite", "main.db", "main.sqlite3", "no ending"])
def test_what_sqlite_has_beside_a_database_is_left_out(home: Home, name: str) -> None:
    home.database(f"memory/{name}", "one")
    for side in SIDES:
        home.write(f"memory/{name}{side}", "of SQLite")
    assert kinds(home) == {
        "": "dir",
        "memory": "dir",
        f"memory/{name}": "file",
        **{f"memory/{name}{side}": "leftOut" for side in SIDES},
    }


@pytest.mark.parametrize("beside", ["nothing", "a folder", "a link to a database", "a file that is none"])
@pytest.mark.parametrize("side", SIDES)
def test_a_file_that_is_only_called_like_one_of_sqlites_goes_in(home: Home, beside: str, side: str) -> None:
    name = "notes" if beside == "a file that is none" else "notes.db"
    home.write(f"workspace/{name}{side}", "mine")
    if beside == "a folder":
        (home.root / "workspace" / name).mkdir()
    elif beside == "a link to a database":
        home.database("elsewhere/real.db", "one")
        (home.root / "workspace" / name).symlink_to("../elsewhere/real.db")
    elif beside == "a file that is none":
        home.write(f"workspace/{name}", "mine too")
    assert kinds(home)[f"workspace/{name}{side}"] == "file"
    copy = Path(os.fsdecode(home.backup().path), "workspace", name + side)
    assert copy.read_text() == "mine"


@pytest.mark.parametrize("is_there", [False, True], ids=["not there yet", "there"])
def test_the_first_backup_into_the_tree_itself_holds_nothing_of_clawpal(home: Home, is_there: bool) -> None:
    home.fill()
    home.folder = BackupFolder(os.fsencode(home.root / "deep/clawpal"))
    (home.root / "deep").mkdir()
    if is_there:
        home.write("deep/clawpal/instances.json", "[]")
    snapshots = [home.backup(), home.backup()]
    for snapshot in snapshots:
        assert snapshot.status == "complete"
        assert os.path.exists(os.path.join(snapshot.path, b"openclaw.json"))
        assert os.listdir(os.path.join(snapshot.path, b"deep")) == []
    left_out = [found for found in walk(os.fsencode(home.root), Selection(True, home.folder.clawpal_dir)) if found.text]
    assert CLAWPAL in {found.text for found in left_out if found.path == b"deep/clawpal"}
