"""Which snapshots there are, how one goes, what a check finds, and that nothing outside is touched by any of it."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.backup import manifest
from sidecar.backup.disk import remove_tree
from sidecar.backup.folder import BackupFolder, Snapshot
from sidecar.backup.manifest import Entry, Head, ManifestWriter
from sidecar.backup.names import rfc3339
from sidecar.backup.progress import Progress
from sidecar.backup.verify import verify
from sidecar.cancel import CancelToken
from sidecar.errors import BackupDamaged, BackupNotFound, BackupUnverified
from sidecar.limits import MAX_REPORTED_FAILURES
from tests.unit.restore_trees import LONG_AGO_NS, Home, contents


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.root.mkdir()
    return made


@pytest.fixture
def backups(home: Home) -> Path:
    """The folder of the snapshots, made by hand."""
    path = Path(os.fsdecode(home.folder.path))
    path.mkdir(parents=True)
    return path


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that no backup may change."""
    path = tmp_path / "outside"
    (path / "tree").mkdir(parents=True)
    (path / "tree/openclaw.json").write_text("mine")
    (path / "file").write_text("mine")
    for folder in (path / "tree", path):
        os.utime(folder, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return path


def names(home: Home) -> list[str]:
    return [os.fsdecode(snapshot.name) for snapshot in home.folder.snapshots()]


def all_names(home: Home) -> list[str]:
    """What there is beside the lock."""
    return sorted(os.fsdecode(name) for name in os.listdir(home.folder.path) if name != b".lock")


def check(home: Home, snapshot: Snapshot) -> Snapshot:
    return verify(home.folder, snapshot.name, Progress(CancelToken()))


def manifest_of(home: Home, snapshot: Snapshot) -> Path:
    return Path(os.fsdecode(home.folder.manifest_of(snapshot.name)))


# The list


def test_a_folder_without_a_manifest_is_listed_as_unverified_with_its_size_and_when_it_was_made(backups: Path) -> None:
    folder = BackupFolder(os.fsencode(backups.parent))
    for name in ("2024-02-29_235958", "by hand"):
        (backups / name / "agents/main").mkdir(parents=True)
        (backups / name / "openclaw.json").write_bytes(b"1234")
        (backups / name / "agents/main/s.jsonl").write_bytes(b"1" * 5_000)
        (backups / name / "dangling").symlink_to("nowhere")
        os.utime(backups / name, ns=(LONG_AGO_NS, LONG_AGO_NS))
    by_hand, stamped = folder.snapshots()
    assert (stamped.name, stamped.created_at) == (b"2024-02-29_235958", "2024-02-29T23:59:58Z")
    assert (by_hand.name, by_hand.created_at) == (b"by hand", rfc3339(LONG_AGO_NS // 10**9))
    for snapshot in (stamped, by_hand):
        assert snapshot.path == os.fsencode(backups) + b"/" + snapshot.name
        assert snapshot.size_bytes == 4 + 5_000 + len("nowhere")
        assert (snapshot.status, snapshot.failed_items, snapshot.failures) == ("unverified", 0, [])
        with pytest.raises(BackupUnverified):
            verify(folder, snapshot.name, Progress(CancelToken()))


def test_what_is_staged_or_being_deleted_and_all_that_is_no_folder_is_never_listed(
    home: Home, backups: Path, outside: Path
) -> None:
    for name in (".partial-0123", ".deleted-0123", ".hidden"):
        (backups / name / "tree").mkdir(parents=True)
        (backups / name / "openclaw.json").write_text("{}")
    (backups / "file").write_text("1")
    (backups / "2024-01-01_000000.manifest.jsonl").write_text("{}\n")
    (backups / "2024-01-02_000000").symlink_to(outside)
    os.mkfifo(backups / "2024-01-03_000000")
    assert names(home) == []
    for no_snapshot in (b"file", b"2024-01-01_000000", b"2024-01-02_000000", b"2024-01-03_000000", b"none"):
        with pytest.raises(BackupNotFound, match="no such file"):
            home.folder.find(no_snapshot)


def test_snapshots_are_listed_by_name_descending_and_as_they_were_made(home: Home) -> None:
    home.fill()
    made = [home.backup() for _ in range(3)]
    assert home.folder.snapshots() == sorted(made, key=lambda snapshot: snapshot.name, reverse=True)
    assert len({snapshot.name for snapshot in made}) == 3


def test_where_there_is_no_folder_there_are_no_snapshots_and_none_is_made(home: Home) -> None:
    assert home.folder.snapshots() == []
    assert home.folder.delete(b"none") is False
    home.folder.clear_leftovers()
    assert not Path(os.fsdecode(home.folder.clawpal_dir)).exists()


@pytest.mark.parametrize("spoil", ["cut off", "empty", "no JSON", "another form", "a folder", "a link to nowhere"])
def test_a_manifest_that_can_not_be_read_makes_its_snapshot_unverified_and_hides_no_other(
    home: Home, spoil: str
) -> None:
    home.fill()
    one, two = home.backup(), home.backup()
    path = manifest_of(home, one)
    content = path.read_bytes()
    path.unlink()
    if spoil == "a folder":
        path.mkdir()
    elif spoil == "a link to nowhere":
        path.symlink_to("nowhere")
    else:
        spoilt = {"cut off": content[:-30], "empty": b"", "no JSON": b"\xff\n", "another form": b'{"manifest":2}\n'}
        path.write_bytes(spoilt[spoil])
    listed = {snapshot.name: snapshot for snapshot in home.folder.snapshots()}
    assert listed[two.name] == two
    assert listed[one.name].status == "unverified"
    assert listed[one.name].created_at == one.created_at
    with pytest.raises((BackupDamaged, OSError)):
        check(home, one)
    assert home.backup().status == "complete"


def test_a_snapshot_of_which_much_with_long_names_failed_is_listed_with_how_many_that_were(
    home: Home, backups: Path
) -> None:
    # The longest that the system takes, of bytes that are longest in a manifest.
    paths = [b"/".join([b"\x01" * 200] * 20) + b"/%d" % number for number in range(2 * MAX_REPORTED_FAILURES)]
    written = io.BytesIO()
    writer = ManifestWriter(written, Head("2024-01-01T00:00:00Z", "/", True))
    for path in paths:
        writer.add(Entry("failed", path, text="\x01" * 600))
    foot = writer.close()
    (backups / "2024-01-01_000000").mkdir()
    (backups / "2024-01-01_000000.manifest.jsonl").write_bytes(written.getvalue())
    (snapshot,) = home.folder.snapshots()
    assert (snapshot.status, snapshot.failed_items) == ("incomplete", len(paths))
    assert snapshot.failures == foot.failures
    assert snapshot.failures
    with manifest.opened(os.fsencode(backups / "2024-01-01_000000.manifest.jsonl")) as reader:
        assert [entry.path for entry in reader.entries()] == paths


# Deletions


def test_a_deleted_snapshot_is_gone_with_its_manifest_and_those_that_share_with_it_are_whole(home: Home) -> None:
    home.fill()
    one, two = home.backup(), home.backup()
    before = contents(Path(os.fsdecode(two.path)), exactly=True)
    assert home.folder.delete(one.name) is True
    assert home.folder.delete(one.name) is False
    assert home.folder.snapshots() == [two]
    assert all_names(home) == [os.fsdecode(two.name), f"{os.fsdecode(two.name)}.manifest.jsonl"]
    assert contents(Path(os.fsdecode(two.path)), exactly=True) == before
    assert check(home, two) == two


def test_what_a_snapshot_has_links_to_stays_when_it_is_deleted(home: Home, outside: Path) -> None:
    before = contents(outside, exactly=True)
    (home.root / "link").symlink_to(outside)
    (home.root / "folder").mkdir()
    (home.root / "folder/link").symlink_to(outside / "file")
    snapshot = home.backup()
    assert home.folder.delete(snapshot.name) is True
    assert all_names(home) == []
    assert contents(outside, exactly=True) == before


def test_a_link_among_the_snapshots_is_no_snapshot_and_is_not_followed(
    home: Home, backups: Path, outside: Path
) -> None:
    before = contents(outside, exactly=True)
    (backups / "link").symlink_to(outside)
    assert home.folder.delete(b"link") is False
    assert (backups / "link").is_symlink()
    assert contents(outside, exactly=True) == before


def test_folders_that_may_not_be_written_to_are_deleted_too(home: Home) -> None:
    home.write("locked/inner/file", "1")
    for path in ("locked/inner", "locked"):
        (home.root / path).chmod(0o500)
    snapshot = home.backup()
    for folder, _, _ in os.walk(snapshot.path, topdown=False):
        os.chmod(folder, 0o500)
    assert home.folder.delete(snapshot.name) is True
    assert all_names(home) == []
    for path in ("locked", "locked/inner"):
        (home.root / path).chmod(0o700)


@pytest.mark.parametrize("stop", ["before the manifest goes", "before the folder is synced", "before it is removed"])
def test_a_deletion_that_was_interrupted_is_not_listed_and_ends_at_the_next_start(
    home: Home, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    home.fill()
    one, two = home.backup(), home.backup()

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as context:
        if stop == "before the manifest goes":
            context.setattr(os, "unlink", die)
        elif stop == "before the folder is synced":
            context.setattr("sidecar.backup.folder.fsync_folder", die)
        else:
            context.setattr("sidecar.backup.folder.remove_tree", die)
        with pytest.raises(Killed):
            home.folder.delete(one.name)
    assert home.folder.snapshots() == [two]
    assert len(all_names(home)) > 2
    home.folder.clear_leftovers()
    assert all_names(home) == [os.fsdecode(two.name), f"{os.fsdecode(two.name)}.manifest.jsonl"]
    assert check(home, two) == two


# What is left over


@pytest.mark.parametrize("name", [".deleted-0123", ".partial-0123"])
@pytest.mark.parametrize("kind", ["a link to a folder", "a link to a file", "a file", "a folder with a link"])
def test_what_is_left_over_goes_and_what_a_link_there_leads_to_stays(
    home: Home, backups: Path, outside: Path, name: str, kind: str
) -> None:
    before = contents(outside, exactly=True)
    path = backups / name
    if kind == "a link to a folder":
        path.symlink_to(outside)
    elif kind == "a link to a file":
        path.symlink_to(outside / "file")
    elif kind == "a file":
        path.write_text("1")
    else:
        (path / "tree").mkdir(parents=True)
        (path / "tree/link").symlink_to(outside)
    home.folder.clear_leftovers()
    assert all_names(home) == []
    assert contents(outside, exactly=True) == before


def test_a_folder_that_became_a_link_is_not_followed_when_it_is_removed(tmp_path: Path, outside: Path) -> None:
    before = contents(outside, exactly=True)
    (tmp_path / "link").symlink_to(outside)
    remove_tree(os.fsencode(tmp_path / "link"))
    assert contents(outside, exactly=True) == before
    assert not (tmp_path / "link").is_symlink()


def test_what_another_is_staging_stays_until_its_process_ends(home: Home) -> None:
    with home.folder.staging() as staging:
        os.mkdir(staging.tree)
        Path(os.fsdecode(staging.tree), "file").write_text("1")
        BackupFolder(home.folder.clawpal_dir).clear_leftovers()
        assert os.listdir(staging.tree) == [b"file"]
        assert names(home) == []
    assert all_names(home) == []


def test_what_another_is_staging_stays_where_its_lock_can_not_be_looked_at(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def fail(path: bytes, *others: int) -> int:
        if path.endswith(b"/lock"):
            raise OSError(errno.EMFILE, "Too many open files", path)
        return opened(path, *others)

    with home.folder.staging() as staging:
        os.mkdir(staging.tree)
        with monkeypatch.context() as context:
            context.setattr(os, "open", fail)
            home.folder.clear_leftovers()
        assert os.path.isdir(staging.tree)
    assert all_names(home) == []


def test_a_manifest_whose_folder_never_came_goes_and_a_folder_that_is_called_like_one_stays(
    home: Home, backups: Path
) -> None:
    (backups / "2024-01-01_000000.manifest.jsonl").write_text("{}\n")
    (backups / "odd.manifest.jsonl").mkdir()
    (backups / "odd.manifest.jsonl/openclaw.json").write_text("{}")
    home.folder.clear_leftovers()
    assert all_names(home) == ["odd.manifest.jsonl"]
    assert names(home) == ["odd.manifest.jsonl"]
    assert home.folder.delete(b"odd.manifest.jsonl") is True
    assert all_names(home) == []


def test_the_folder_of_the_snapshots_is_for_its_owner_only_and_so_are_manifests(home: Home) -> None:
    home.write("openclaw.json", "{}", mode=0o644)
    snapshot = home.backup()
    os.chmod(home.folder.path, 0o755)
    home.backup()
    assert stat.S_IMODE(os.stat(home.folder.path).st_mode) == 0o700
    assert stat.S_IMODE(manifest_of(home, snapshot).stat().st_mode) == 0o600


def test_a_backup_that_can_not_be_given_its_name_leaves_no_manifest(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.write("openclaw.json", "{}")
    rename = os.rename

    def fail(source: bytes, target: bytes) -> None:
        if source.endswith(b"/tree"):
            raise OSError(5, "Input/output error", source)
        rename(source, target)

    with monkeypatch.context() as context:
        context.setattr(os, "rename", fail)
        with pytest.raises(OSError, match="Input/output error"):
            home.backup()
    assert all_names(home) == []


def test_a_place_to_stage_in_that_can_not_be_locked_is_not_left(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write("openclaw.json", "{}")
    opened = os.open

    def fail(path: bytes, *others: int) -> int:
        if path.endswith(b"/lock"):
            raise OSError(5, "Input/output error", path)
        return opened(path, *others)

    with monkeypatch.context() as context:
        context.setattr(os, "open", fail)
        with pytest.raises(OSError, match="Input/output error"):
            home.backup()
    assert all_names(home) == []


# The check

Damage = Callable[[Path], object]


def flip(path: Path, at: int = 0, bit: int = 1) -> None:
    """Flip a bit, so that size and time stay."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[at] ^= bit
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_link(path: Path) -> None:
    """What reads as before, but lies outside the snapshot."""
    elsewhere = path.parents[3] / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


DAMAGE: dict[str, tuple[Damage, str]] = {
    "a flipped bit": (lambda tree: flip(tree / "workspace/script.sh"), "workspace/script.sh"),
    "a flipped bit at the end": (
        lambda tree: flip(tree / "agents/main/sessions/s1.jsonl", -1, 0x80),
        "agents/main/sessions/s1.jsonl",
    ),
    "a flipped bit in a database": (lambda tree: flip(tree / "memory/main.sqlite", 5_000), "memory/main.sqlite"),
    "a file cut off": (lambda tree: os.truncate(tree / "openclaw.json", 3), "openclaw.json"),
    "a file emptied": (lambda tree: os.truncate(tree / "openclaw.json", 0), "openclaw.json"),
    "a file that grew": (
        lambda tree: os.truncate(tree / "openclaw.json", 99),
        "openclaw.json",
    ),
    "a file missing": (lambda tree: (tree / "workspace/deep/er/note.md").unlink(), "workspace/deep/er/note.md"),
    "a folder missing": (lambda tree: (tree / "empty").rmdir(), "empty"),
    "a link missing": (lambda tree: (tree / "link").unlink(), "link"),
    "a link elsewhere": (lambda tree: replace_link(tree / "link", "workspace/other"), "link"),
    "a file more": (lambda tree: (tree / "workspace/more").write_text("1"), "workspace/more"),
    "a folder more": (lambda tree: (tree / "zzz").mkdir(), "zzz"),
    "a link more": (lambda tree: (tree / "memory/zzz").symlink_to("x"), "memory/zzz"),
    "a FIFO more": (lambda tree: os.mkfifo(tree / "agents/fifo"), "agents/fifo"),
    "a folder for a file": (lambda tree: replace_by_folder(tree / "openclaw.json"), "openclaw.json"),
    "a link for a file": (lambda tree: replace_by_link(tree / "workspace/script.sh"), "workspace/script.sh"),
    "the side file of a database": (
        lambda tree: (tree / "memory/main.sqlite-wal").write_text("1"),
        "memory/main.sqlite-wal",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found_and_named_and_the_other_snapshots_pass(home: Home, what: str) -> None:
    damage, named = DAMAGE[what]
    home.fill()
    snapshot, other = home.backup(share=False), home.backup(share=False)
    assert check(home, snapshot) == snapshot
    damage(Path(os.fsdecode(snapshot.path)))
    with pytest.raises(BackupDamaged) as raised:
        check(home, snapshot)
    details = raised.value.details
    assert details["failedItems"] == 1 == len(details["failures"])
    assert details["failures"][0]["path"] == named
    assert named in raised.value.message
    assert details["failures"][0]["error"] in raised.value.message
    assert check(home, other) == other


def test_where_much_is_damaged_the_first_are_named_and_all_are_counted(home: Home) -> None:
    for number in range(3 * MAX_REPORTED_FAILURES):
        home.write(f"workspace/{number:03}", str(number))
    snapshot = home.backup()
    shutil.rmtree(Path(os.fsdecode(snapshot.path), "workspace"))
    with pytest.raises(BackupDamaged, match=r"workspace: it is missing, and 60 more") as raised:
        check(home, snapshot)
    assert raised.value.details["failedItems"] == 3 * MAX_REPORTED_FAILURES + 1
    assert len(raised.value.details["failures"]) == MAX_REPORTED_FAILURES


def test_a_bit_flipped_anywhere_in_a_manifest_is_found(home: Home) -> None:
    home.write("openclaw.json", "1")
    (home.root / "link").symlink_to("openclaw.json")
    snapshot = home.backup()
    path = manifest_of(home, snapshot)
    whole = path.read_bytes()
    missed = []
    for at in range(len(whole)):
        for bit in (1, 1 << at % 8):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            try:
                check(home, snapshot)
            except BackupDamaged:
                continue
            missed.append(whole[max(0, at - 10) : at + 5])
    assert not missed
    path.write_bytes(whole)
    assert check(home, snapshot) == snapshot


@pytest.mark.parametrize("lines", ["all but the foot", "all but the last entry", "the foot alone", "an entry twice"])
def test_a_manifest_with_lines_missing_or_added_is_found(home: Home, lines: str) -> None:
    home.fill()
    snapshot = home.backup()
    path = manifest_of(home, snapshot)
    whole = path.read_bytes().splitlines(keepends=True)
    spoilt = {
        "all but the foot": whole[:-1],
        "all but the last entry": whole[:-2] + whole[-1:],
        "the foot alone": whole[-1:],
        "an entry twice": [*whole[:-1], whole[-2], whole[-1]],
    }
    path.write_bytes(b"".join(spoilt[lines]))
    with pytest.raises(BackupDamaged):
        check(home, snapshot)


def test_a_snapshot_that_is_not_there_can_not_be_checked(home: Home) -> None:
    with pytest.raises(BackupNotFound):
        verify(home.folder, b"none", Progress(CancelToken()))
