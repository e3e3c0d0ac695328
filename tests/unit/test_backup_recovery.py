"""A restore that fails or is killed at any step leaves the tree wholly as it was, or wholly as it is to be."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar.backup import folder, journal, recovery, restore, snapshot
from sidecar.backup.journal import Workspace
from sidecar.backup.recovery import recover
from sidecar.errors import SidecarError, SourceUnreadable
from tests.unit.restore_trees import Contents, Home, contents

WORKSPACE = ".clawpal-restore"
MAX_STEPS = 500


class Scene:
    """A tree in one state, and the snapshot of another; both known to the byte."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)
        self.home.root.mkdir()
        self.home.fill()
        self.wanted = self.home.backup()
        self.home.change()
        self.changed = self.home.backup()
        self.home.restore(self.wanted)
        self.new = contents(self.home.root, exactly=True)
        self.home.restore(self.changed)
        self.old = contents(self.home.root, exactly=True)
        assert self.old != self.new
        self.forget_others()

    @property
    def root(self) -> bytes:
        return os.fsencode(self.home.root)

    def now(self) -> Contents:
        return contents(self.home.root, exactly=True)

    def reset(self) -> None:
        """Back to the state at first."""
        if self.now() != self.old:
            self.home.restore(self.changed)
            assert self.now() == self.old
        self.forget_others()

    def names(self) -> set[bytes]:
        return {snapshot.name for snapshot in self.home.folder.snapshots()}

    def forget_others(self) -> None:
        self.home.folder.clear_leftovers()
        for name in self.names() - {self.wanted.name, self.changed.name}:
            self.home.folder.delete(name)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    # What a killed process wrote is there, on the disk or not; to wait for the disk hundreds of times takes minutes.
    for module in (recovery, restore, snapshot):
        monkeypatch.setattr(module, "sync_tree", lambda *_: None)
    for module in (journal, folder):
        monkeypatch.setattr(module, "fsync_folder", lambda *_: None)
    return Scene(tmp_path)


@contextmanager
def at_step(number: int, act: Callable[[], None], *, and_after: bool = False) -> Iterator[list[str]]:
    """Let ``act`` happen before the step of this number, and with ``and_after`` before each that follows."""
    steps: list[str] = []

    def step(_what: str) -> None:
        steps.append(_what)
        if len(steps) == number or (and_after and len(steps) > number):
            act()

    before = journal.step
    journal.step = step
    try:
        yield steps
    finally:
        journal.step = before


def fail() -> None:
    raise OSError(5, "Input/output error")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(work: Callable[[], object]) -> bool:
    """Do it in a process of its own; whether it lived to its end."""
    return wait(start(work))


def start(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return pid


def wait(pid: int) -> bool:
    _, status = os.waitpid(pid, 0)
    assert not (os.WIFEXITED(status) and os.WEXITSTATUS(status) == 1), "the child raised"
    return os.WIFEXITED(status)


def test_an_error_at_any_step_leaves_the_tree_as_it_was(scene: Scene) -> None:
    for number in range(1, MAX_STEPS):
        with at_step(number, fail) as steps:
            try:
                scene.home.restore(scene.wanted)
            except SidecarError:
                assert scene.now() == scene.old, steps
                assert scene.names() == {scene.wanted.name, scene.changed.name}, steps
                assert not (scene.home.root / WORKSPACE).exists(), steps
            else:
                assert scene.now() == scene.new
                break
    assert 40 < number < MAX_STEPS - 1
    assert len(steps) == number - 1


def test_errors_from_any_step_on_leave_a_tree_that_is_whole_when_they_have_ended(scene: Scene) -> None:
    told: list[str] = []
    for number in range(1, MAX_STEPS):
        with at_step(number, fail, and_after=True) as steps:
            try:
                scene.home.restore(scene.wanted)
            except SourceUnreadable as error:
                told.append(error.message)
            except SidecarError:
                assert scene.now() == scene.old, steps
            else:
                break
        recover(scene.root)
        # Where not even that it is to be undone could be written down, it is finished.
        assert scene.now() in (scene.old, scene.new), steps
        assert not (scene.home.root / WORKSPACE).exists()
        scene.reset()
    assert 40 < number < MAX_STEPS - 1
    assert told
    assert all("next start" in message for message in told)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes of this kind")
def test_a_kill_at_any_step_leaves_a_tree_that_recovery_makes_whole(scene: Scene) -> None:
    ends = set()
    for number in range(1, MAX_STEPS):

        def work(number: int = number) -> None:
            with at_step(number, die):
                scene.home.restore(scene.wanted)

        lived = in_child(work)
        recover(scene.root)
        now = scene.now()
        assert now in (scene.old, scene.new), number
        assert not (scene.home.root / WORKSPACE).exists()
        ends.add(now == scene.new)
        if lived:
            break
        scene.reset()
    assert 40 < number < MAX_STEPS - 1
    assert ends == {False, True}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes of this kind")
def test_a_kill_while_recovery_works_is_recovered_from(scene: Scene) -> None:
    for number in range(10, MAX_STEPS, 7):

        def work(number: int = number) -> None:
            with at_step(number, die):
                scene.home.restore(scene.wanted)

        if in_child(work):
            break
        for step in (1, 2, 5, 11, 23):

            def again(step: int = step) -> None:
                with at_step(step, die):
                    recover(scene.root)

            in_child(again)
        recover(scene.root)
        assert scene.now() in (scene.old, scene.new), number
        scene.reset()
    assert number > 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes of this kind")
def test_a_restore_that_was_killed_while_it_was_undone_is_undone(scene: Scene) -> None:
    for number in range(30, MAX_STEPS, 9):

        def work(number: int = number) -> None:
            with at_step(number, fail) as steps:
                count = journal.step

                def step(_what: str) -> None:
                    count(_what)
                    if len(steps) == number + 12:
                        die()

                journal.step = step
                scene.home.restore(scene.wanted)

        pid = start(work)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            break
        recover(scene.root)
        assert scene.now() == scene.old, number
        scene.reset()
    assert number > 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes of this kind")
def test_many_processes_that_recover_at_once_do_so_once(scene: Scene) -> None:
    def work() -> None:
        with at_step(50, die):
            scene.home.restore(scene.wanted)

    for _ in range(5):
        assert not in_child(work)
        children = [start(lambda: recover(scene.root)) for _ in range(6)]
        ends = [wait(child) for child in children]
        assert all(ends)
        recover(scene.root)
        # But for the time of the top, which one may take back to that of another's making its folder there.
        assert {**scene.now(), ".": None} == {**scene.new, ".": None}
        scene.reset()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes of this kind")
def test_the_next_restore_ends_what_the_one_before_began(scene: Scene) -> None:
    def work() -> None:
        with at_step(50, die):
            scene.home.restore(scene.wanted)

    assert not in_child(work)
    assert scene.now() not in (scene.old, scene.new)
    restored = scene.home.restore(scene.changed)
    assert scene.now() == scene.old
    assert restored.previous is not None
    scene.home.restore(restored.previous)
    assert scene.now() == scene.new


def test_where_there_is_nothing_to_recover_nothing_happens(scene: Scene, tmp_path: Path) -> None:
    recover(os.fsencode(tmp_path / "no such folder"))
    before = scene.home.root.stat()
    with at_step(1, fail) as steps:
        recover(scene.root)
    assert not steps
    assert scene.home.root.stat().st_ctime_ns == before.st_ctime_ns


def test_what_a_restore_left_before_its_journal_is_removed_and_the_tree_keeps_its_time(scene: Scene) -> None:
    before = scene.home.root.stat().st_mtime_ns
    workspace = Workspace(scene.root)
    lock = journal.take(workspace)
    assert lock is not None
    workspace.prepare()
    Path(os.fsdecode(workspace.new(1))).write_text("staged")
    Path(os.fsdecode(workspace.plan)).write_text("{}\n")
    recover(scene.root)  # it isn't left: the lock is held
    assert Path(os.fsdecode(workspace.new(1))).exists()
    lock.release()
    recover(scene.root)
    assert scene.now() == scene.old
    assert scene.home.root.stat().st_mtime_ns == before


def test_a_journal_that_can_not_be_read_is_kept_and_told_of(scene: Scene) -> None:
    workspace = Workspace(scene.root)
    lock = journal.take(workspace)
    assert lock is not None
    Path(os.fsdecode(workspace.journal)).write_text("{nonsense\n")
    lock.release()
    with pytest.raises(SourceUnreadable, match="journal"):
        recover(scene.root)
    assert Path(os.fsdecode(workspace.journal)).exists()
    with pytest.raises(SourceUnreadable, match="journal"):
        scene.home.restore(scene.wanted)


@pytest.mark.parametrize("kind", ["a file", "a link"])
def test_something_else_in_the_place_of_its_folder_is_left_alone(scene: Scene, tmp_path: Path, kind: str) -> None:
    place = scene.home.root / WORKSPACE
    if kind == "a file":
        place.write_text("mine")
    else:
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to(tmp_path / "elsewhere")
    recover(scene.root)
    with pytest.raises(SourceUnreadable, match="in the way"):
        scene.home.restore(scene.wanted)
    assert place.is_symlink() or place.read_text() == "mine"


def test_a_list_is_read_backwards_as_it_is_read_forwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "list"
    operations = [
        journal.Operation("put", b"\xff" * (number % 90) + b"x", number, [1, 2, 3], 0o644, 5, [1, 2], 7, "ab", "text")
        for number in range(200)
    ]
    with path.open("wb") as file:
        for operation in operations:
            journal.write(file, operation)
    monkeypatch.setattr(journal, "MAX_MANIFEST_LINE_BYTES", 1_000)
    assert list(journal.read(os.fsencode(path))) == operations
    assert list(journal.read_backwards(os.fsencode(path))) == operations[::-1]
