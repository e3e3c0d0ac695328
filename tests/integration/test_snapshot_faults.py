"""A backup that fails or is cancelled at any step leaves earlier snapshots as they were, and none that isn't whole."""

from __future__ import annotations

import builtins
import errno
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sidecar.backup import databases, disk, files, sharing, snapshot
from sidecar.backup.folder import Snapshot
from sidecar.backup.progress import Progress
from sidecar.backup.snapshot import Options, create
from sidecar.backup.verify import verify
from sidecar.cancel import CancelToken
from sidecar.errors import Cancelled, NoSpace, SidecarError
from sidecar.limits import FREE_SPACE_LEFT_BYTES, KIB, MIB
from tests.client import WITHIN_S
from tests.unit.restore_trees import LONG_AGO_NS, Contents, Home, contents, rows

MAX_STEPS = 1_000
BLOCK_BYTES = 16 * KIB
SEAMS = ("open", "write", "mkdir", "rename", "replace", "link", "symlink", "unlink", "rmdir", "utime", "chmod", "fsync")
"""What of ``os`` a backup changes a disk by."""


class Scene:
    """A tree of which much was backed up twice, and some has changed since; and the snapshots, known to the byte."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)
        self.home.root.mkdir()
        self.home.fill()
        self.home.write("workspace/again", "the same, written again")
        self.earlier = [self.home.backup(), self.home.backup()]
        self.home.write("openclaw.json", '{"a": 2}', age=1)
        self.home.write("workspace/again", "the same, written again")
        self.home.write("workspace/new", "new" * 100)
        self.home.age_folders()
        self.before = self.kept()

    def kept(self) -> list[Contents | bytes]:
        """What the earlier snapshots hold, and their manifests."""
        found: list[Contents | bytes] = []
        for one in self.earlier:
            found.append(contents(Path(os.fsdecode(one.path)), exactly=True))
            found.append(Path(os.fsdecode(self.home.folder.manifest_of(one.name))).read_bytes())
        return found

    def new(self) -> list[Snapshot]:
        return [one for one in self.home.folder.snapshots() if one not in self.earlier]

    def check(self) -> list[Snapshot]:
        """The new snapshots, which are whole; the earlier ones are as they were."""
        assert self.kept() == self.before
        listed = self.home.folder.snapshots()
        assert all(one in listed for one in self.earlier)
        new = self.new()
        for one in new:
            assert verify(self.home.folder, one.name, Progress(CancelToken())) == one
            if one.status == "complete":
                assert rows(Path(os.fsdecode(one.path), "memory/main.sqlite")) == ["remembered"]
                assert Path(os.fsdecode(one.path), "openclaw.json").read_text() == '{"a": 2}'
        return new

    def all_names(self) -> set[bytes]:
        """What there is beside the lock."""
        return set(os.listdir(self.home.folder.path)) - {b".lock"}

    def names_of(self, *snapshots: Snapshot) -> set[bytes]:
        """What there is to be."""
        return {
            name for one in snapshots for name in (one.name, self.home.folder.manifest_of(one.name).split(b"/")[-1])
        }

    def clear(self) -> None:
        """As the next start does; what is left then is of the snapshots that are listed."""
        self.home.folder.clear_leftovers()
        listed = self.home.folder.snapshots()
        assert self.all_names() == self.names_of(*listed)

    def forget_new(self) -> None:
        for one in self.new():
            assert self.home.folder.delete(one.name)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    # Else nothing is old enough yet to be shared.
    monkeypatch.setattr(sharing, "YOUNG_S", 0)
    # To wait for the disk hundreds of times takes minutes; that a sync can fail is a step like others.
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    monkeypatch.setattr(snapshot, "sync_tree", lambda _path, _progress: os.fsync(0))
    return Scene(tmp_path)


class Faults:
    """Lets what is done to the disk fail: the call of this number, before or after it did what it does."""

    def __init__(self, number: int, code: int, *, after: bool = False, and_on: bool = False) -> None:
        self.steps: list[str] = []
        self._number = number
        self._code = code
        self._after = after
        self._and_on = and_on

    @property
    def failed(self) -> bool:
        return len(self.steps) >= self._number

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.steps.append(name)
            count = len(self.steps)
            if count != self._number and not (self._and_on and count > self._number):
                return function(*arguments, **options)
            path = next((each for each in arguments if isinstance(each, bytes | str)), None)
            if self._after:
                done = function(*arguments, **options)
                if name == "open":
                    os.close(done)
                elif name == "open file":
                    done.close()
            raise OSError(self._code, os.strerror(self._code), path)

        return call


def try_to(work: Callable[[], object]) -> None:
    with suppress(OSError, SidecarError):
        work()


def settled() -> None:
    """Wait for what is removed behind the back of a backup that failed or was cancelled."""
    for thread in threading.enumerate():
        if thread.name == "removal":
            thread.join(WITHIN_S)
            assert not thread.is_alive()


class FaultyFile:
    """The file of a manifest, whose writes are steps too."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self._file = file
        self.write = faults.around("write to a file", self._write)
        self.flush = faults.around("flush", file.flush)

    def _write(self, data: bytes) -> None:
        self._file.write(data)

    def __enter__(self) -> FaultyFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()


@contextmanager
def faults_in(faults: Faults) -> Iterator[Faults]:
    with pytest.MonkeyPatch.context() as context:
        for name in SEAMS:
            context.setattr(os, name, faults.around(name, getattr(os, name)))

        def opened(*arguments: Any) -> FaultyFile:
            return FaultyFile(builtins.open(*arguments), faults)

        context.setattr(snapshot, "open", faults.around("open file", opened), raising=False)
        yield faults


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["input/output", "no space"])
@pytest.mark.parametrize("how", ["instead of it", "after it", "from it on"])
def test_an_error_at_any_step_leaves_the_snapshots_before_and_none_that_is_not_whole(
    scene: Scene, code: int, how: str
) -> None:
    told: set[type] = set()
    for number in range(1, MAX_STEPS):
        with faults_in(Faults(number, code, after=how == "after it", and_on=how == "from it on")) as faults:
            try:
                made = scene.home.backup()
            except (OSError, SidecarError) as error:
                told.add(type(error))
                made = None
        new = scene.check()
        assert made is None or made in new, (number, faults.steps[-3:])
        scene.clear()
        assert scene.check() == new, (number, faults.steps[-3:])
        scene.forget_new()
        if not faults.failed:
            break
    assert 60 < number < MAX_STEPS - 1
    assert made is not None
    assert made.status == "complete"
    assert told == ({NoSpace} if code == errno.ENOSPC else {OSError})
    assert scene.check() == []


def test_a_single_error_leaves_nothing_that_the_next_start_has_to_remove(scene: Scene) -> None:
    left = []
    for number in range(1, MAX_STEPS):
        with faults_in(Faults(number, errno.EIO)) as faults:
            try_to(scene.home.backup)
            settled()
        if scene.all_names() != scene.names_of(*scene.home.folder.snapshots()):
            left.append(faults.steps[number - 1])
        scene.clear()
        scene.forget_new()
        if not faults.failed:
            break
    # What can't be removed can't be removed.
    assert set(left) <= {"unlink", "rmdir"}


def test_errors_while_a_snapshot_is_deleted_leave_it_whole_or_gone(scene: Scene) -> None:
    for number in range(1, MAX_STEPS):
        one = scene.home.backup()
        with faults_in(Faults(number, errno.EIO)) as faults:
            try_to(partial(scene.home.folder.delete, one.name))
        assert scene.check() in ([], [one]), faults.steps
        scene.clear()
        assert scene.check() in ([], [one]), faults.steps
        scene.forget_new()
        if not faults.failed:
            break
    assert 20 < number < MAX_STEPS - 1


# Cancels


class CancelledAt(Progress):
    """Cancelled when the step of this number is done; keeps how many bytes were done at each."""

    def __init__(self, number: int) -> None:
        self.seen: list[int] = []
        token = CancelToken()

        def look() -> None:
            self.seen.append(self.bytes_copied)
            if len(self.seen) == number:
                token.cancel()

        super().__init__(token, look)


def test_a_cancel_at_any_step_ends_the_backup_with_that_step_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "COPY_BYTES", BLOCK_BYTES)
    monkeypatch.setattr(databases, "DATABASE_PAGES_A_STEP", BLOCK_BYTES // 4_096)
    monkeypatch.setattr(sharing, "YOUNG_S", 0)
    monkeypatch.setattr(snapshot, "sync_tree", lambda _path, progress: progress.step())
    scene = Scene(tmp_path)
    scene.home.write("workspace/large", os.urandom(200 * KIB))
    scene.home.database("memory/large.sqlite", *("row" * 400 for _ in range(100)))
    for number in range(1, MAX_STEPS):
        progress = CancelledAt(number)
        try:
            create(os.fsencode(scene.home.root), scene.home.folder, Options(), progress)
        except Cancelled:
            assert len(progress.seen) == number
        else:
            break
        settled()
        assert scene.all_names() == scene.names_of(*scene.earlier), number
        assert scene.kept() == scene.before
    assert 60 < number < MAX_STEPS - 1
    assert max(after - before for before, after in itertools.pairwise(progress.seen)) <= BLOCK_BYTES
    assert len(scene.check()) == 1


@pytest.mark.parametrize("at", range(4))
def test_a_cancel_while_the_disk_is_synced_waits_for_no_sync(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """The sync is one that lasts until the test is over."""
    monkeypatch.setattr(snapshot, "sync_tree", disk.sync_tree)
    syncing, over = threading.Event(), threading.Event()

    def sync(_path: bytes) -> bool:
        syncing.set()
        assert over.wait(WITHIN_S)
        return True

    monkeypatch.setattr(disk, "_syncfs", sync)
    token = CancelToken()
    steps_after = 0

    def look() -> None:
        nonlocal steps_after
        if syncing.is_set():
            steps_after += 1
            if steps_after > at:
                token.cancel()

    try:
        with pytest.raises(Cancelled):
            create(os.fsencode(scene.home.root), scene.home.folder, Options(), Progress(token, look))
        assert steps_after == at + 1
        settled()
        assert scene.all_names() == scene.names_of(*scene.earlier)
    finally:
        over.set()
        for thread in threading.enumerate():
            if thread.name == "sync":
                thread.join(WITHIN_S)


# Full disks

needs_mount = pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root mounts")


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    """A disk of this size at ``folder``; skips the test where this user may not mount."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounts aren't allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@needs_mount
def test_a_disk_that_is_too_small_is_told_before_anything_is_copied(tmp_path: Path) -> None:
    home = Home(tmp_path)
    clawpal = Path(os.fsdecode(home.folder.clawpal_dir))
    with small_disk(clawpal, FREE_SPACE_LEFT_BYTES + 3 * MIB):
        home.write("workspace/small", b"1" * MIB)
        earlier = home.backup()
        home.write("workspace/large", b"1" * (4 * MIB))
        before = contents(clawpal, exactly=True)
        progress = Progress(CancelToken())
        with pytest.raises(NoSpace, match=r"no space left on device: .* are needed"):
            create(os.fsencode(home.root), home.folder, Options(share=False), progress)
        assert progress.bytes_copied == 0
        before.pop("backups")
        after = contents(clawpal, exactly=True)
        after.pop("backups")
        assert after == before
        assert home.folder.snapshots() == [earlier]


@needs_mount
@pytest.mark.parametrize("what", ["a file", "a database", "a database that crashed", "many files"])
def test_a_disk_that_others_fill_meanwhile_is_told_and_nothing_is_left(tmp_path: Path, what: str) -> None:
    home = Home(tmp_path)
    clawpal = Path(os.fsdecode(home.folder.clawpal_dir))
    with small_disk(clawpal, FREE_SPACE_LEFT_BYTES + 16 * MIB):
        home.write("openclaw.json", "{}")
        earlier = home.backup()
        if what == "a file":
            home.write("workspace/large", b"1" * (6 * MIB))
        elif what == "many files":
            for number in range(300):
                home.write(f"workspace/{number}", b"1")
        else:
            file = home.database("memory/large.sqlite", *("row" * MIB for _ in range(2)))
            if what == "a database that crashed":
                crash(file)
        free_bytes = 256 * KIB
        steps = 0
        filled = clawpal / "filled by another"

        def look() -> None:
            nonlocal steps
            if progress.phase in {"config", "memory"} and not filled.exists():
                steps += 1
                if steps > 2:
                    status = os.statvfs(clawpal)
                    with filled.open("wb") as file:
                        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - free_bytes)

        progress = Progress(CancelToken(), look)
        with pytest.raises(NoSpace, match="no space left on device"):
            create(os.fsencode(home.root), home.folder, Options(), progress)
        assert filled.exists()
        assert home.folder.snapshots() == [earlier]
        assert len(os.listdir(home.folder.path)) == 3  # the lock, the snapshot, its manifest
        filled.unlink()
        made = home.backup()
        assert (made.status, made.failures) == ("complete", [])


def crash(file: Path) -> None:
    """Leave a database as a process does that is killed with a transaction in the WAL, and without the ``-shm``."""
    code = (
        "import os, sqlite3, sys; d = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "d.execute('INSERT INTO t VALUES (?)', ('two',)); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(file)], check=True)
    Path(f"{file}-shm").unlink()
    os.utime(file, ns=(LONG_AGO_NS, LONG_AGO_NS))


@needs_mount
def test_a_disk_without_room_to_recover_a_database_is_told_instead_of_calling_it_damaged(tmp_path: Path) -> None:
    home = Home(tmp_path)
    file = home.database("memory/large.sqlite", *("row" * MIB for _ in range(8)))
    crash(file)
    # For the database, but not for that and a copy to recover it in.
    with small_disk(Path(os.fsdecode(home.folder.clawpal_dir)), FREE_SPACE_LEFT_BYTES + 26 * MIB):
        with pytest.raises(NoSpace, match="no space left on device: no space left on device"):
            create(os.fsencode(home.root), home.folder, Options(), Progress(CancelToken()))
        assert home.folder.snapshots() == []
