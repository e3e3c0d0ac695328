"""A restore gives back exactly what a snapshot holds, can be undone, and refuses before it changes anything."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sidecar.backup import journal, restore, staging
from sidecar.backup import snapshot as making
from sidecar.backup.files import copy_file
from sidecar.backup.folder import Snapshot
from sidecar.backup.journal import Workspace
from sidecar.backup.progress import Progress
from sidecar.backup.recovery import recover
from sidecar.backup.snapshot import create
from sidecar.backup.staging import stage
from sidecar.backup.verify import verify
from sidecar.cancel import CancelToken
from sidecar.errors import (
    BackupDamaged,
    BackupNotFound,
    Cancelled,
    NoSpace,
    SourceUnreadable,
    TargetInUse,
    TargetNotWritable,
)
from sidecar.limits import FREE_SPACE_LEFT_BYTES, MIB
from tests.unit.restore_trees import Home, contents, rows

WORKSPACE = ".clawpal-restore"
T = TypeVar("T")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.root.mkdir()
    return made


def names(home: Home) -> list[bytes]:
    return [snapshot.name for snapshot in home.folder.snapshots()]


def is_untouched(home: Home, before: object, snapshot: Snapshot) -> bool:
    """Whether the tree is as it was, nothing is left in it, and no other snapshot is there."""
    return contents(home.root, exactly=True) == before and names(home) == [snapshot.name]


def test_what_was_changed_added_and_removed_is_as_it_was_to_modes_times_links_and_empty_folders(home: Home) -> None:
    home.fill()
    before, snapshot = contents(home.root), home.backup()
    home.change()
    changed = contents(home.root)
    assert changed != before
    restored = home.restore(snapshot)
    assert contents(home.root) == before
    assert restored.snapshot == snapshot
    assert restored.previous is not None
    assert restored.previous.status == "complete"
    assert home.restore(restored.previous).previous is not None
    assert contents(home.root) == changed


def test_each_file_holds_the_bytes_that_the_snapshot_does(home: Home) -> None:
    home.fill()
    snapshot = home.backup()
    home.change()
    home.restore(snapshot)
    for folder, _, files in os.walk(snapshot.path):
        for name in files:
            path = os.path.join(folder, name)
            there = os.path.join(os.fsencode(home.root), os.path.relpath(path, snapshot.path))
            assert os.path.islink(path) or Path(os.fsdecode(there)).read_bytes() == Path(os.fsdecode(path)).read_bytes()
            assert os.path.islink(path) or not os.path.samefile(path, there)


def test_an_unchanged_tree_stays_as_it_is_but_for_its_databases(home: Home) -> None:
    home.fill()
    snapshot = home.backup()
    files = [path for path in home.root.rglob("*") if path.is_file() and path.suffix != ".sqlite"]
    before, whole = [journal.state_of(os.fsencode(path)) for path in files], contents(home.root)
    progress = Progress(CancelToken())
    home.restore(snapshot, progress)
    assert [journal.state_of(os.fsencode(path)) for path in files] == before
    assert contents(home.root) == whole
    assert progress.files_copied == progress.files_total == 2


def test_a_tree_of_many_more_files_becomes_the_small_one_and_the_other_way_round(home: Home) -> None:
    home.write("one", "1")
    small, small_contents = home.backup(), contents(home.root)
    for number in range(300):
        home.write(f"workspace/{number % 7}/{number}", str(number))
    home.age_folders()
    large_contents = contents(home.root)
    large = home.restore(small).previous
    assert large is not None
    assert contents(home.root) == small_contents
    home.restore(large)
    assert contents(home.root) == large_contents


def test_a_tree_that_is_not_there_is_made_and_one_that_is_empty_is_filled(home: Home) -> None:
    home.fill()
    (home.root / "logs/gateway.log").unlink()
    (home.root / "logs").rmdir()
    (home.root / "agents/main/sessions/s1.jsonl.lock").unlink()
    home.age_folders()
    before, snapshot = contents(home.root), home.backup()
    shutil.rmtree(home.root)
    assert home.restore(snapshot).previous is None
    assert contents(home.root) == before
    shutil.rmtree(home.root)
    home.root.mkdir()
    assert home.restore(snapshot).previous is None
    assert contents(home.root) == before


def test_an_empty_tree_is_restored_over_a_full_one_and_over_none(home: Home) -> None:
    snapshot = home.backup()
    home.write("a/b/c", "c")
    home.restore(snapshot)
    assert not list(home.root.iterdir())
    home.root.rmdir()
    home.restore(snapshot)
    assert not list(home.root.iterdir())


def test_the_tree_may_be_a_link_to_a_folder(home: Home, tmp_path: Path) -> None:
    home.fill()
    before, snapshot = contents(home.root), home.backup()
    home.change()
    home.root.rename(tmp_path / "elsewhere")
    home.root.symlink_to(tmp_path / "elsewhere")
    home.restore(snapshot)
    assert home.root.is_symlink()
    assert contents(tmp_path / "elsewhere") == before


def test_what_the_rules_leave_out_stays_even_in_a_folder_that_the_snapshot_does_not_have(home: Home) -> None:
    home.write("openclaw.json", "{}")
    snapshot = home.backup()
    kept = [
        home.write("logs/gateway.log", "log"),
        home.write("cache/deep/x", "x"),
        home.write("agents/new/sessions/s.jsonl.lock", "{}"),
    ]
    gone = home.write("agents/new/sessions/s.jsonl", "{}")
    home.restore(snapshot)
    assert all(path.exists() for path in kept)
    assert not gone.exists()


def test_a_snapshot_without_sessions_leaves_transcripts_where_they_are(home: Home) -> None:
    transcript = home.write("agents/main/sessions/s.jsonl", "1")
    index = home.write("agents/main/sessions/sessions.json", "1")
    snapshot = home.backup(include_sessions=False)
    transcript.write_text("2")
    index.write_text("2")
    other = home.write("agents/main/sessions/other.jsonl", "3")
    home.restore(snapshot)
    assert (transcript.read_text(), index.read_text(), other.read_text()) == ("2", "1", "3")


def test_what_the_snapshot_could_not_read_stays_where_it_is(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write("workspace/bad", "1")
    home.write("workspace/good", "1")
    with monkeypatch.context() as context:
        if os.geteuid() == 0:

            def refuse(source: bytes, *others: Any, **options: Any) -> object:
                if source.endswith(b"bad"):
                    raise SourceUnreadable("permission denied")
                return copy_file(source, *others, **options)

            context.setattr(making, "copy_file", refuse)
        else:
            (home.root / "workspace/bad").chmod(0)
        made = home.backup()
    (home.root / "workspace/bad").chmod(0o600)
    assert made.status == "incomplete"
    for name in ("bad", "good"):
        (home.root / "workspace" / name).write_text("2")
    home.restore(made)
    assert (home.root / "workspace/bad").read_text() == "2"
    assert (home.root / "workspace/good").read_text() == "1"


def test_clawpals_own_folder_in_the_tree_stays(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.root.mkdir()
    home.folder = type(home.folder)(os.fsencode(home.root / "clawpal"))
    home.write("clawpal/instances.json", "1")
    home.write("openclaw.json", "1")
    snapshot = home.backup()
    home.write("clawpal/instances.json", "2")
    home.write("openclaw.json", "2", age=1)
    restored = home.restore(snapshot)
    assert (home.root / "openclaw.json").read_text() == "1"
    assert (home.root / "clawpal/instances.json").read_text() == "2"
    assert restored.previous is not None
    assert len(names(home)) == 2


def test_the_wal_of_another_state_of_a_database_goes(home: Home) -> None:
    file = home.database("agents/main/agent/openclaw-agent.sqlite", "one")
    snapshot = home.backup()
    code = (
        "import os, sqlite3, sys; d = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "d.execute('INSERT INTO t VALUES (?)', ('two',)); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(file)], check=True)
    sides = [Path(f"{file}{ending}") for ending in ("-wal", "-shm")]
    assert all(side.exists() for side in sides)
    restored = home.restore(snapshot)
    assert not any(side.exists() for side in sides)
    assert rows(file) == ["one"]
    assert restored.previous is not None
    home.restore(restored.previous)
    assert rows(file) == ["one", "two"]


def test_a_damaged_database_is_replaced_and_kept_as_it_was(home: Home) -> None:
    file = home.database("memory/main.sqlite", *("row" * 1000 for _ in range(20)))
    snapshot = home.backup()
    damaged = file.read_bytes()[:4096] + b"\xff" * 8192
    file.write_bytes(damaged)
    restored = home.restore(snapshot)
    assert len(rows(file)) == 20
    assert restored.previous is not None
    assert restored.previous.status == "incomplete"
    assert Path(os.fsdecode(restored.previous.path), "memory/main.sqlite").read_bytes() == damaged


def test_a_snapshot_of_the_apps_own_handlers_is_laid_over_what_is_there(home: Home) -> None:
    home.write("openclaw.json", "now")
    home.write("workspace/mine", "mine")
    file = home.database("memory/main.sqlite", "now")
    old = Home(Path(os.fsdecode(home.folder.path)) / "x")
    old.root = Path(os.fsdecode(home.folder.path)) / "2024-01-02_030405"
    old.write("openclaw.json", "then")
    old.write("agents/main/sessions/s.jsonl", "{}", 0o640)
    database = old.root / "memory/main.sqlite"
    database.parent.mkdir()
    code = (
        "import os, sqlite3, sys; d = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "d.execute('PRAGMA journal_mode = WAL'); d.execute('CREATE TABLE t (text)');"
        "d.execute('INSERT INTO t VALUES (?)', ('then',)); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(database)], check=True)
    assert (old.root / "memory/main.sqlite-wal").stat().st_size
    (snapshot,) = home.folder.snapshots()
    assert snapshot.status == "unverified"
    restored = home.restore(snapshot)
    assert restored.snapshot.status == "unverified"
    assert (home.root / "openclaw.json").read_text() == "then"
    assert (home.root / "workspace/mine").read_text() == "mine"
    assert stat.S_IMODE((home.root / "agents/main/sessions/s.jsonl").stat().st_mode) == 0o640
    with closing(sqlite3.connect(file)) as opened:
        assert opened.execute("SELECT text FROM t").fetchall() == [("then",)]
    assert restored.previous is not None
    home.restore(restored.previous)
    assert rows(file) == ["now"]


def test_nothing_is_written_through_a_link_where_the_snapshot_has_a_folder(home: Home, tmp_path: Path) -> None:
    home.write("workspace/file", "1")
    snapshot = home.backup()
    shutil.rmtree(home.root / "workspace")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("outside")
    (home.root / "workspace").symlink_to(tmp_path / "outside")
    home.restore(snapshot)
    assert not (home.root / "workspace").is_symlink()
    assert (home.root / "workspace/file").read_text() == "1"
    assert (tmp_path / "outside/file").read_text() == "outside"


def test_a_folder_that_may_not_be_written_to_is_filled_and_left_so(home: Home) -> None:
    home.write("locked/file", "1")
    (home.root / "locked").chmod(0o555)
    home.age_folders()
    before, snapshot = contents(home.root), home.backup()
    (home.root / "locked/file").chmod(0o644)
    assert (home.restore(snapshot)).previous is not None
    assert contents(home.root) == before
    (home.root / "locked").chmod(0o700)


def test_a_name_that_no_snapshot_has_is_refused(home: Home) -> None:
    home.fill()
    snapshot = home.backup()
    before = contents(home.root, exactly=True)
    with pytest.raises(BackupNotFound):
        home.restore(snapshot._replace(name=b"no-such"))
    assert is_untouched(home, before, snapshot)


@pytest.mark.parametrize("what", ["a file", "the manifest's end", "a flipped bit of the manifest"])
def test_a_damaged_snapshot_is_refused_and_nothing_is_touched(home: Home, what: str) -> None:
    home.fill()
    snapshot = home.backup()
    home.change()
    manifest = Path(os.fsdecode(home.folder.manifest_of(snapshot.name)))
    if what == "a file":
        file = Path(os.fsdecode(snapshot.path), "workspace/deep/er/note.md")
        file.write_bytes(b"n0te")
    elif what == "the manifest's end":
        manifest.write_bytes(manifest.read_bytes()[:-50])
    else:
        manifest.write_bytes(manifest.read_bytes().replace(b'"0600"', b'"0666"', 1))
    before = contents(home.root, exactly=True)
    with pytest.raises(BackupDamaged):
        home.restore(snapshot)
    assert is_untouched(home, before, snapshot)


def test_a_file_that_is_damaged_after_the_check_is_refused_when_it_is_staged(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.fill()
    snapshot = home.backup()
    home.change()

    def then_damage(*arguments: object) -> Snapshot:
        verified = verify(*arguments)  # type: ignore[arg-type]
        Path(os.fsdecode(snapshot.path), "workspace/deep/er/note.md").write_bytes(b"n0te")
        return verified

    monkeypatch.setattr(restore, "verify", then_damage)
    before = contents(home.root, exactly=True)
    with pytest.raises(BackupDamaged, match=r"note\.md"):
        home.restore(snapshot)
    assert is_untouched(home, before, snapshot)


def test_what_changes_between_the_plan_and_the_swap_is_not_lost(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.fill()
    snapshot = home.backup()
    home.change()

    def then_change(workspace: Workspace, tree: bytes, progress: Progress) -> None:
        stage(workspace, tree, progress)
        with (home.root / "openclaw.json").open("a") as file:
            file.write("more")

    monkeypatch.setattr(restore, "stage", then_change)
    with pytest.raises(TargetInUse, match=r"openclaw\.json changed"):
        home.restore(snapshot)
    assert (home.root / "openclaw.json").read_text() == '{"a": 2}more'
    assert names(home) == [snapshot.name]
    assert not (home.root / WORKSPACE).exists()
    home.restore(snapshot, force=True)
    assert (home.root / "openclaw.json").read_text() == '{"a": 1}'


def test_what_changes_after_its_state_was_kept_is_not_lost(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write("openclaw.json", "1")
    snapshot = home.backup()
    home.write("openclaw.json", "2", age=1)

    def then_change(*arguments: object) -> Snapshot:
        made = create(*arguments)  # type: ignore[arg-type]
        home.write("openclaw.json", "3", age=2)
        return made

    monkeypatch.setattr(restore, "create", then_change)
    with pytest.raises(TargetInUse, match=r"openclaw\.json changed"):
        home.restore(snapshot)
    assert (home.root / "openclaw.json").read_text() == "3"


def test_a_full_disk_is_told_before_anything_changes(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.fill()
    snapshot = home.backup()
    home.change()
    before = contents(home.root, exactly=True)

    def full(_folder: bytes, _needed_bytes: int) -> None:
        raise NoSpace("no space left on device")

    monkeypatch.setattr(restore, "check_space", full)
    with pytest.raises(NoSpace):
        home.restore(snapshot)
    assert is_untouched(home, before, snapshot)


@pytest.mark.parametrize("turn", range(0, 60, 3))
def test_a_cancel_at_any_step_before_the_swap_leaves_nothing(home: Home, turn: int) -> None:
    home.fill()
    snapshot = home.backup()
    home.change()
    before = contents(home.root, exactly=True)
    token = CancelToken()
    steps = 0

    def look() -> None:
        nonlocal steps
        steps += 1
        if steps > turn * 5:
            token.cancel()

    progress = Progress(token, look)
    try:
        home.restore(snapshot, progress)
    except Cancelled:
        assert is_untouched(home, before, snapshot)
    else:
        assert progress.phase == "done"


def test_phases_come_in_order_and_counts_end_with_the_totals(home: Home) -> None:
    home.fill()
    snapshot = home.backup()
    home.change()
    phases: list[str] = []
    progress = Progress(CancelToken(), lambda: phases.append(progress.phase))
    home.restore(snapshot, progress)
    assert list(dict.fromkeys([*phases, progress.phase])) == ["snapshot", "config", "agents", "memory", "done"]
    assert progress.files_copied == progress.files_total > 0
    assert progress.bytes_copied == progress.bytes_total > 0
    assert not progress.may_be_cancelled


def test_while_a_restore_runs_another_is_refused_and_recovery_does_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.fill()
    before, snapshot = contents(home.root), home.backup()
    home.change()
    seen: list[str] = []

    def meanwhile(workspace: Workspace, tree: bytes, progress: Progress) -> None:
        stage(workspace, tree, progress)
        recover(os.fsencode(home.root))
        monkeypatch.setattr(restore, "stage", stage)
        with pytest.raises(TargetInUse, match="another restore"):
            home.restore(snapshot)
        seen.append("refused")

    monkeypatch.setattr(restore, "stage", meanwhile)
    home.restore(snapshot)
    assert seen == ["refused"]
    assert contents(home.root) == before


@needs_root
@pytest.mark.parametrize("what", ["a file", "a folder", "another's folder that is another's to write", "the top"])
def test_what_belongs_to_another_is_found_before_the_first_change(what: str, shared_folder: Path) -> None:
    home = Home(shared_folder)
    home.root.mkdir()
    home.fill()
    for path in [shared_folder, *shared_folder.rglob("*")]:
        os.chown(path, 65_534, 65_534, follow_symlinks=False)
    snapshot = as_other(home.backup)
    as_other(home.change)
    {
        "a file": lambda: os.chown(home.root / "openclaw.json", 0, 0),
        "a folder": lambda: os.chown(home.root / "workspace/new/folder", 0, 0),
        "another's folder that is another's to write": lambda: os.chown(home.root / "agents/other/sessions", 0, 0),
        "the top": lambda: os.chown(home.root, 0, 0),
    }[what]()
    before = contents(home.root, exactly=True)
    with pytest.raises(TargetNotWritable) as raised:
        as_other(lambda: home.restore(snapshot))
    named = {
        "a file": "openclaw.json",
        "a folder": "workspace/new/folder",
        "another's folder that is another's to write": "agents/other/sessions",
        "the top": "",
    }[what]
    assert raised.value.details["failedItems"] >= 1
    assert any(named in failure["path"] for failure in raised.value.details["failures"])
    assert "permission denied" in raised.value.message
    assert is_untouched(home, before, snapshot)


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    # Not pytest's folder, which is its user's alone.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def as_other(work: Callable[[], T]) -> T:
    """Do it as a user who isn't root."""
    os.setegid(65_534)
    os.seteuid(65_534)
    try:
        return work()
    finally:
        os.seteuid(0)
        os.setegid(0)


def test_a_plan_that_can_not_be_written_leaves_the_tree_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.fill()
    snapshot = home.backup()
    home.change()
    before = contents(home.root, exactly=True)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "write", fail)
    with pytest.raises(NoSpace):
        home.restore(snapshot)
    assert is_untouched(home, before, snapshot)


def test_a_copy_that_can_not_be_written_leaves_the_tree_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.fill()
    snapshot = home.backup()
    home.change()
    before = contents(home.root, exactly=True)

    def fail(source: bytes, target: bytes, progress: Progress) -> None:
        raise OSError(28, "No space left on device", target)

    monkeypatch.setattr(staging, "copy_file", fail)
    monkeypatch.setattr(staging, "clone", lambda *_: False)
    with pytest.raises(NoSpace):
        home.restore(snapshot)
    assert is_untouched(home, before, snapshot)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Something mounted at ``folder``; skips the test where this user may not mount."""
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounts aren't allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


needs_mount = pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root mounts")


@needs_mount
@pytest.mark.parametrize("kind", ["another file system", "a folder of this one"])
def test_a_mount_point_in_the_tree_is_refused_by_name_if_something_in_it_changes(
    home: Home, tmp_path: Path, kind: str
) -> None:
    (home.root / "workspace/with space").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    options = ["-t", "tmpfs", "tmpfs"] if kind == "another file system" else ["--bind", str(tmp_path / "outside")]
    with mounted(home.root / "workspace/with space", *options):
        home.write("workspace/with space/file", "1")
        home.write("workspace/other", "1")
        snapshot = home.backup()
        home.write("workspace/other", "2", age=1)
        home.restore(snapshot)
        home.write("workspace/with space/file", "2", age=1)
        before = contents(home.root, exactly=True)
        with pytest.raises(TargetNotWritable, match=r"workspace/with space.*mount point"):
            home.restore(snapshot)
        assert contents(home.root, exactly=True) == before


@needs_mount
def test_the_tree_may_be_a_mount_point(home: Home) -> None:
    with mounted(home.root, "-t", "tmpfs", "tmpfs"):
        home.fill()
        before, snapshot = contents(home.root), home.backup()
        home.change()
        home.restore(snapshot)
        assert contents(home.root) == before


@needs_mount
def test_a_disk_that_is_too_small_is_told_before_anything_changes(home: Home) -> None:
    with mounted(home.root, "-t", "tmpfs", "-o", f"size={FREE_SPACE_LEFT_BYTES + 3 * MIB}", "tmpfs"):
        home.write("large", b"1" * 2 * MIB)
        snapshot = home.backup()
        home.write("large", b"2" * 2 * MIB, age=1)
        before = contents(home.root, exactly=True)
        with pytest.raises(NoSpace, match="no space left on device"):
            home.restore(snapshot)
        assert is_untouched(home, before, snapshot)
