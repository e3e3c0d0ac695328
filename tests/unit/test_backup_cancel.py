"""A cancel doesn't wait for what was staged to be removed, which may take long: many files, or one that is large."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.backup import disk, restore
from sidecar.backup.progress import Progress
from sidecar.backup.snapshot import Options, create
from sidecar.cancel import CancelToken
from sidecar.errors import Cancelled
from tests.unit.restore_trees import Home, contents

DEADLINE_S = 30.0


class Removal:
    """Stands for a file system on which to remove a file takes until ``may_go_on`` is set."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()

    def unlink(self, path: bytes) -> None:
        self.may_go_on.wait(DEADLINE_S)
        os.unlink(path)

    def end(self) -> None:
        self.may_go_on.set()
        for thread in threading.enumerate():
            if thread.name == "removal":
                thread.join(DEADLINE_S)


@pytest.fixture
def removal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Removal]:
    made = Removal()
    monkeypatch.setattr(disk, "_unlink", made.unlink)
    yield made
    made.end()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.fill()
    return made


def test_a_cancelled_backup_ends_while_what_was_staged_is_still_being_removed(home: Home, removal: Removal) -> None:
    token = CancelToken()

    def look() -> None:
        if progress.files_copied == 2:
            token.cancel()

    progress = Progress(token, look)
    with pytest.raises(Cancelled):
        create(os.fsencode(home.root), home.folder, Options(), progress)
    assert not removal.may_go_on.is_set()
    assert home.folder.snapshots() == []
    removal.end()
    assert os.listdir(home.folder.path) == [b".lock"]


def test_a_cancelled_restore_ends_while_what_was_staged_is_still_being_removed(
    home: Home, removal: Removal, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = home.backup()
    home.change()
    before = contents(home.root)
    token = CancelToken()
    monkeypatch.setattr(restore, "sync_tree", lambda _path, _progress: token.cancel())
    with pytest.raises(Cancelled):
        home.restore(snapshot, Progress(token))
    assert not removal.may_go_on.is_set()
    removal.end()
    assert contents(home.root) == before
    assert [one.name for one in home.folder.snapshots()] == [snapshot.name]
