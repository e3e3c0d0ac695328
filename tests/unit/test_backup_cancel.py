"""A cancel waits neither for what was staged to be removed, which may take long, nor for a database to be checked."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


class EndlessCheck(sqlite3.Connection):
    """Checks a database until it is interrupted."""

    is_checking = threading.Event()
    is_interrupted = threading.Event()

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if "quick_check" in sql:
            self.is_checking.set()
            assert self.is_interrupted.wait(DEADLINE_S)
            raise sqlite3.OperationalError("interrupted")
        return super().execute(sql, *parameters)

    def interrupt(self) -> None:
        self.is_interrupted.set()


def test_a_cancel_while_a_database_is_checked_interrupts_the_check(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(path: str, **options: Any) -> sqlite3.Connection:
        return sqlite3.Connection(path, **options) if "mode=rw" in path else EndlessCheck(path, **options)

    monkeypatch.setattr(sqlite3, "connect", connect)
    token = CancelToken()

    def look() -> None:
        if EndlessCheck.is_checking.is_set():
            token.cancel()

    with pytest.raises(Cancelled):
        create(os.fsencode(home.root), home.folder, Options(), Progress(token, look))
    assert EndlessCheck.is_interrupted.is_set()
    assert os.listdir(home.folder.path) == [b".lock"]
