"""A snapshot holds what the tree held, and says by name what it doesn't, whoever changes the tree meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.backup import disk, files, snapshot
from sidecar.backup.disk import sync_tree
from sidecar.backup.files import copy_file
from sidecar.backup.folder import BackupFolder, Snapshot
from sidecar.backup.progress import Progress
from sidecar.backup.snapshot import Options, create
from sidecar.cancel import CancelToken
from sidecar.errors import Cancelled, SourceUnreadable
from sidecar.limits import COPY_BYTES, MAX_COPIES, MAX_REPORTED_FAILURES
from tests.unit.restore_trees import LONG_AGO_NS, Home, check, contents, entries

DEADLINE_S = 60
NOBODY = 65_534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.root.mkdir()
    return made


def tree_of(made: Snapshot) -> Path:
    return Path(os.fsdecode(made.path))


# What a tree holds


@pytest.mark.parametrize("umask", [0o022, 0o077, 0])
def test_a_snapshot_holds_contents_modes_times_links_and_empty_folders(home: Home, umask: int) -> None:
    home.fill()
    for name in ("logs/gateway.log", "agents/main/sessions/s1.jsonl.lock"):
        (home.root / name).unlink()
    (home.root / "logs").rmdir()
    for mode in (0o400, 0o604, 0o777, 0o4755, 0o2750, 0o1644):
        home.write(f"modes/{mode:o}", f"{mode:o}", mode)
        (home.root / f"modes/folder {mode:o}").mkdir()
        (home.root / f"modes/folder {mode:o}").chmod(mode)
    home.write("large", os.urandom(3 * COPY_BYTES + 17))
    home.age_folders()
    before = os.umask(umask)
    try:
        made = home.backup()
    finally:
        os.umask(before)
    found, wanted = contents(tree_of(made)), contents(home.root)
    assert sorted(found) == sorted(wanted)
    for name, (kind, *rest) in wanted.items():
        if kind == "dir":
            # The modes of folders are in the manifest: a copy has to be filled, and to be removed one day.
            assert entries(home, made)["" if name == "." else name].mode == stat.S_IMODE(int(str(rest[0]), 8))
            assert found[name][2] == rest[1]
        else:
            assert found[name] == (kind, *rest), name
    assert (made.status, made.failed_items, made.failures) == ("complete", 0, [])
    check(home, made)


def test_digests_sizes_and_totals_are_those_of_the_files(home: Home) -> None:
    home.fill()
    home.write("large", os.urandom(2 * COPY_BYTES))
    progress = Progress(CancelToken())
    made = create(os.fsencode(home.root), home.folder, Options(), progress)
    named = {name: entry for name, entry in entries(home, made).items() if entry.kind == "file"}
    for name, entry in named.items():
        content = (tree_of(made) / name).read_bytes()
        assert (entry.sha256, entry.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
        assert entry.is_database or content == (home.root / name).read_bytes()
    assert made.size_bytes == sum(entry.size_bytes for entry in named.values())
    assert progress.bytes_copied == progress.bytes_total == made.size_bytes
    assert progress.files_copied == progress.files_total == len(named)


def test_phases_come_in_order(home: Home) -> None:
    home.fill()
    seen: list[str] = []
    progress = Progress(CancelToken(), lambda: seen.append(progress.phase))
    create(os.fsencode(home.root), home.folder, Options(), progress)
    assert list(dict.fromkeys(seen)) == ["snapshot", "config", "agents", "memory"]


def test_links_stay_links_dangling_looping_and_of_any_bytes(home: Home) -> None:
    targets = [b"nowhere", b"/", b"..", b"loop", b"a\xffb\xfe", b"x" * 3_000, "ü�ff\n".encode(), b" "]
    home.write("folder/file", "1")
    (home.root / "folder/loop").symlink_to("loop")
    for number, target in enumerate(targets):
        os.symlink(target, os.fsencode(home.root / f"folder/{number}"))
    made = home.backup()
    for number, target in enumerate(targets):
        assert os.readlink(os.fsencode(tree_of(made) / f"folder/{number}")) == target
        assert entries(home, made)[f"folder/{number}"].kind == "link"
    assert made.size_bytes == 1
    check(home, made)


def test_sockets_and_fifos_are_passed_over_and_named(home: Home) -> None:
    home.write("openclaw.json", "{}")
    os.mkfifo(home.root / "fifo")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener, contextlib.chdir(home.root):
        listener.bind("socket")
    made = home.backup()
    assert sorted(os.listdir(made.path)) == [b"openclaw.json"]
    named = entries(home, made)
    assert {name for name, entry in named.items() if entry.kind == "leftOut"} == {"fifo", "socket"}
    assert named["fifo"].text == "a socket, a FIFO or a device"
    assert made.status == "complete"
    check(home, made)


def test_a_hard_link_in_the_tree_is_a_file_of_its_own_in_the_snapshot(home: Home) -> None:
    home.write("one", "1")
    os.link(home.root / "one", home.root / "two")
    made = home.backup()
    assert not (tree_of(made) / "one").samefile(tree_of(made) / "two")
    assert not (tree_of(made) / "one").samefile(home.root / "one")


def test_a_file_of_holes_is_the_same_to_every_reader(home: Home) -> None:
    path = home.write("holes", b"x")
    os.truncate(path, 3_000_000)
    made = home.backup()
    assert (tree_of(made) / "holes").read_bytes() == b"x" + bytes(2_999_999)


def test_a_tree_of_nothing_is_a_snapshot_of_nothing(home: Home) -> None:
    made = home.backup()
    assert (os.listdir(made.path), made.size_bytes, made.status) == ([], 0, "complete")
    check(home, made)


def test_a_tree_that_is_not_there_makes_no_snapshot(home: Home) -> None:
    home.root.rmdir()
    with pytest.raises(FileNotFoundError):
        home.backup()
    assert os.listdir(home.folder.path) == [b".lock"]


def test_names_of_any_bytes_and_any_length_go_in(home: Home) -> None:
    names = [bytes([byte]) for byte in range(1, 256) if byte not in b"./"] + [b"x" * 255, b"\xff" * 255, b"x\n" * 120]
    (home.root / "workspace").mkdir()
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(home.root), b"workspace", name))).write_bytes(name)
    made = home.backup()
    assert sorted(os.listdir(os.path.join(made.path, b"workspace"))) == sorted(names)
    second = home.backup()
    check(home, made, second)


# What can't be read


@contextlib.contextmanager
def another_user() -> Iterator[Path]:
    """A folder that belongs to another user than root; pytest's own is its user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, NOBODY, NOBODY)
        yield Path(folder)


BACKUP_AS_OTHER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from sidecar.backup.folder import BackupFolder
from sidecar.backup.progress import Progress
from sidecar.backup.snapshot import Options, create
from sidecar.cancel import CancelToken
os.setgroups([]); os.setgid(65534); os.setuid(65534)
made = create(os.fsencode(sys.argv[2]), BackupFolder(os.fsencode(sys.argv[3])), Options(), Progress(CancelToken()))
print(os.fsdecode(made.name))
"""


def backup_as_other(home: Home) -> Snapshot:
    project = Path(__file__).parents[2]
    arguments = [project, home.root, os.fsdecode(home.folder.clawpal_dir)]
    done = subprocess.run(
        [sys.executable, "-c", BACKUP_AS_OTHER, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (made,) = [made for made in home.folder.snapshots() if os.fsdecode(made.name) == done.stdout.strip()]
    return made


@needs_root
def test_what_can_not_be_read_is_named_in_the_snapshot_the_list_and_the_manifest(home: Home) -> None:
    with another_user() as folder:
        home = Home(folder)
        home.root.mkdir()
        for name in ("openclaw.json", "secret", "workspace/file", "workspace/locked", "closed/inside", "blind/inside"):
            home.write(name, name, 0o644)
        home.database("memory/main.sqlite", "one")
        home.database("memory/secret.sqlite", "two")
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
        unreadable = ["secret", "workspace/locked", "memory/secret.sqlite", "closed", "blind/inside"]
        for name in unreadable[:3]:
            os.chown(home.root / name, 0, 0)
            (home.root / name).chmod(0o600)
        os.chown(home.root / "closed", 0, 0)
        (home.root / "closed").chmod(0o700)
        (home.root / "blind").chmod(0o400)
        made = backup_as_other(home)
        assert made.status == "incomplete"
        assert made.failed_items == len(unreadable)
        assert {failure["path"] for failure in made.failures} == set(unreadable)
        assert all("permission denied" in failure["error"] for failure in made.failures)
        assert home.folder.snapshots() == [made]
        named = entries(home, made)
        assert {name for name, entry in named.items() if entry.kind == "failed"} == set(unreadable)
        for name in ("openclaw.json", "workspace/file", "memory/main.sqlite"):
            assert (tree_of(made) / name).is_file()
            assert named[name].kind == "file"
        assert not any((tree_of(made) / name).exists() for name in unreadable if name != "closed")
        check(home, made)
        # The next one doesn't take what it can't read from elsewhere.
        assert backup_as_other(home).failed_items == len(unreadable)


def test_more_failures_than_are_reported_are_all_counted_and_in_the_manifest(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3 * MAX_REPORTED_FAILURES):
        home.write(f"workspace/{number:03}", "1")

    def refuse(*_: object, **__: object) -> None:
        raise SourceUnreadable("input/output error")

    monkeypatch.setattr(snapshot, "copy_file", refuse)
    made = home.backup()
    assert made.failed_items == 3 * MAX_REPORTED_FAILURES
    assert len(made.failures) == MAX_REPORTED_FAILURES
    named = [entry for entry in entries(home, made).values() if entry.kind == "failed"]
    assert len(named) == made.failed_items
    assert os.listdir(tree_of(made) / "workspace") == []


# What changes meanwhile


def while_copied(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], object]) -> None:
    """Let something happen each time a block of a file was read, which says how many that were."""
    read, count = files._read, 0

    def counting(fd: int, size_bytes: int) -> bytes:
        nonlocal count
        data = read(fd, size_bytes)
        count += 1
        act(count)
        return data

    monkeypatch.setattr(files, "_read", counting)


def copied(source: Path, target: Path) -> files.Copied:
    return copy_file(os.fsencode(source), os.fsencode(target), Progress(CancelToken()))


@pytest.mark.parametrize("moment", ["found", "opened"])
def test_a_file_that_vanishes_is_in_the_snapshot_or_not_and_no_failure(
    home: Home, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    file = home.write("workspace/file", "1")
    home.write("workspace/other", "2")

    def vanish(*arguments: object, **options: object) -> object:
        file.unlink(missing_ok=True)
        return copy_file(*arguments, **options)  # type: ignore[arg-type]

    if moment == "found":
        monkeypatch.setattr(snapshot, "copy_file", vanish)
    else:
        while_copied(monkeypatch, lambda _: file.unlink(missing_ok=True))
    progress = Progress(CancelToken())
    made = create(os.fsencode(home.root), home.folder, Options(), progress)
    assert (made.status, made.failures) == ("complete", [])
    assert ("workspace/file" in entries(home, made)) == (moment == "opened")
    assert (tree_of(made) / "workspace/other").read_text() == "2"
    assert progress.files_copied == progress.files_total
    assert progress.bytes_copied == progress.bytes_total
    check(home, made)


def test_totals_end_as_what_was_done_though_more_and_less_came_than_was_found_at_first(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "grows", "goes", "shrinks"):
        home.write(f"workspace/{name}", "1" * 100)
    (home.root / "z").mkdir()

    def change(source: bytes, *others: object, **options: object) -> object:
        if source.endswith(b"/a"):
            home.write("workspace/grows", "2" * 500)
            home.write("z/new", "2" * 50)
            home.write("workspace/shrinks", "2")
            (home.root / "workspace/goes").unlink()
        return copy_file(source, *others, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(snapshot, "copy_file", change)
    progress = Progress(CancelToken())
    made = create(os.fsencode(home.root), home.folder, Options(), progress)
    assert made.size_bytes == progress.bytes_copied == progress.bytes_total == 100 + 500 + 1 + 50
    assert progress.files_copied == progress.files_total == 4


def test_a_file_that_becomes_another_thing_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fifo", "folder", "link"):
        home.write(name, "1")

    def become(source: bytes, *others: object, **options: object) -> object:
        os.unlink(source)
        {
            b"fifo": os.mkfifo,
            b"folder": os.mkdir,
            b"link": lambda path: os.symlink(b"/etc/passwd", path),
        }[os.path.basename(source)](source)
        return copy_file(source, *others, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(snapshot, "copy_file", become)
    made = home.backup()
    assert {failure["path"] for failure in made.failures} == {"fifo", "folder", "link"}
    assert os.listdir(made.path) == []


def test_of_a_file_that_others_append_to_a_prefix_that_it_had_is_copied(home: Home) -> None:
    lines = [b"%06d the same as ever\n" % number for number in range(60_000)]
    file = home.write("agents/main/sessions/s.jsonl", b"".join(lines[:20_000]))
    stop, written = threading.Event(), threading.Event()

    def append() -> None:
        with file.open("ab", buffering=0) as opened:
            for line in lines[20_000:]:
                opened.write(line)
                written.set()
                if stop.is_set():
                    return

    thread = threading.Thread(target=append)
    thread.start()
    try:
        assert written.wait(DEADLINE_S)
        snapshots = [home.backup() for _ in range(5)]
    finally:
        stop.set()
        thread.join(DEADLINE_S)
    sizes = []
    for made in snapshots:
        assert made.status == "complete"
        content = (tree_of(made) / "agents/main/sessions/s.jsonl").read_bytes()
        assert b"".join(lines).startswith(content)
        sizes.append(len(content))
    assert sizes == sorted(sizes)
    assert sizes[0] >= 20_000 * len(lines[0])
    check(home, *snapshots)


def test_a_file_that_grows_is_as_it_was_when_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"a" * 5_000)
    monkeypatch.setattr(files, "COPY_BYTES", 1_000)

    def grow(_count: int) -> None:
        with source.open("ab") as file:
            file.write(b"b" * 10)

    while_copied(monkeypatch, grow)
    made = copied(source, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"a" * 5_000
    assert (made.size_bytes, made.sha256) == (5_000, hashlib.sha256(b"a" * 5_000).hexdigest())
    assert (tmp_path / "target").stat().st_mtime_ns == made.status.st_mtime_ns


@pytest.mark.parametrize("change", ["rewritten", "cut off", "both"])
def test_a_file_that_changes_once_is_copied_as_it_is_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"a" * 5_000)
    os.utime(source, ns=(LONG_AGO_NS, LONG_AGO_NS))
    monkeypatch.setattr(files, "COPY_BYTES", 1_000)
    now = {"rewritten": b"b" * 5_000, "cut off": b"a" * 700, "both": b"b" * 1_500}[change]

    def act(count: int) -> None:
        if count == 2:
            with source.open("r+b") as file:
                file.write(now)
                file.truncate()

    while_copied(monkeypatch, act)
    progress = Progress(CancelToken())
    made = copy_file(os.fsencode(source), os.fsencode(tmp_path / "target"), progress)
    assert (tmp_path / "target").read_bytes() == now
    assert (made.size_bytes, made.sha256) == (len(now), hashlib.sha256(now).hexdigest())
    assert progress.bytes_copied == len(now)


@pytest.mark.parametrize("keeps_its_time", [False, True])
def test_a_change_right_after_the_file_was_written_is_seen_even_where_its_times_do_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keeps_its_time: bool
) -> None:
    # The clock of a file system moves in steps, so that two writes in a row may have one time.
    source = tmp_path / "source"
    source.write_bytes(b"a" * 2_000)
    monkeypatch.setattr(files, "SETTLED_NS", 10**18)
    monkeypatch.setattr(files, "COPY_BYTES", 1_000)
    written_at_ns = source.stat().st_mtime_ns

    def act(count: int) -> None:
        if count == 2:
            with source.open("r+b") as file:
                file.write(b"b" * 2_000)
            if keeps_its_time:
                os.utime(source, ns=(written_at_ns, written_at_ns))

    while_copied(monkeypatch, act)
    copied(source, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"b" * 2_000


def test_a_file_that_is_rewritten_all_the_time_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home.write("workspace/restless", b"0" * 5_000)
    home.write("workspace/still", "1")
    monkeypatch.setattr(files, "COPY_BYTES", 1_000)
    reads = 0

    def rewrite(count: int) -> None:
        nonlocal reads
        reads = count
        with file.open("r+b") as opened:
            opened.write(b"%d" % (count % 10) * 5_000)

    while_copied(monkeypatch, rewrite)
    progress = Progress(CancelToken())
    made = create(os.fsencode(home.root), home.folder, Options(), progress)
    assert [failure["path"] for failure in made.failures] == ["workspace/restless"]
    assert f"{MAX_COPIES} times" in made.failures[0]["error"]
    assert os.listdir(tree_of(made) / "workspace") == ["still"]
    assert reads < 4 * MAX_COPIES * 5
    assert progress.files_copied == progress.files_total == 1
    assert progress.bytes_copied == progress.bytes_total == 1
    check(home, made)


def test_a_folder_that_others_fill_and_empty_meanwhile_leaves_a_snapshot_that_is_whole(home: Home) -> None:
    for number in range(300):
        home.write(f"workspace/{number % 10}/{number}", f"{number}" * 100)
    stop, turned = threading.Event(), threading.Event()

    def churn() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            folder = home.root / f"workspace/{turn % 10}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            for number in range(5):
                (folder / f"new-{turn}-{number}").write_text("new")
            turned.set()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        assert turned.wait(DEADLINE_S)
        snapshots = [home.backup() for _ in range(8)]
    finally:
        stop.set()
        thread.join(DEADLINE_S)
    check(home, *snapshots)


# Names and places


def test_snapshots_of_one_second_have_names_of_their_own(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write("openclaw.json", "{}")
    monkeypatch.setattr(snapshot, "time", Stopped)
    monkeypatch.setattr(snapshot, "sync_tree", lambda *_: None)
    made = [home.backup() for _ in range(12)]
    assert [one.name for one in made[:3]] == [b"2026-11-24_180000", b"2026-11-24_180000-2", b"2026-11-24_180000-3"]
    assert len({one.name for one in made}) == 12
    assert {one.created_at for one in made} == {"2026-11-24T18:00:00Z"}
    assert sorted(home.folder.snapshots()) == sorted(made)


class Stopped:
    """A clock that doesn't move."""

    @staticmethod
    def time() -> float:
        return 1_795_543_200.0


def test_many_backups_at_once_have_names_of_their_own_and_are_all_whole(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.fill()
    monkeypatch.setattr(snapshot, "time", Stopped)
    begin = threading.Barrier(6, timeout=DEADLINE_S)
    made: list[Snapshot] = []

    def work() -> None:
        begin.wait()
        folder = BackupFolder(home.folder.clawpal_dir)
        made.append(create(os.fsencode(home.root), folder, Options(), Progress(CancelToken())))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len({one.name for one in made}) == 6
    check(home, *made)
    assert len(os.listdir(home.folder.path)) == 2 * 6 + 1


def test_a_name_that_a_folder_of_somebody_elses_has_is_not_taken(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write("openclaw.json", "{}")
    monkeypatch.setattr(snapshot, "time", Stopped)
    backups = Path(os.fsdecode(home.folder.path))
    (backups / "2026-11-24_180000").mkdir(parents=True)
    (backups / "2026-11-24_180000-2.manifest.jsonl").write_text("not ours\n")
    (backups / "2026-11-24_180000-3").symlink_to("nowhere")
    assert home.backup().name == b"2026-11-24_180000-4"
    assert (backups / "2026-11-24_180000-2.manifest.jsonl").read_text() == "not ours\n"
    assert os.listdir(backups / "2026-11-24_180000") == []


def test_what_is_staged_is_for_its_owner_only_whatever_the_tree_allows(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.write("openclaw.json", "{}", 0o666)
    home.root.chmod(0o777)
    modes: list[int] = []

    def look(path: bytes, progress: Progress) -> None:
        modes.extend(stat.S_IMODE(os.stat(each).st_mode) for each in (path, os.path.join(path, b"manifest")))
        sync_tree(path, progress)

    monkeypatch.setattr(snapshot, "sync_tree", look)
    before = os.umask(0)
    try:
        made = home.backup()
    finally:
        os.umask(before)
    assert modes == [0o700, 0o600]
    assert stat.S_IMODE(os.stat(home.folder.path).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(home.folder.manifest_of(made.name)).st_mode) == 0o600


def test_where_there_is_no_syncfs_each_file_and_folder_is_synced(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.fill()
    monkeypatch.setattr(disk, "_syncfs", lambda _: False)
    synced: set[str] = set()
    fsync = os.fsync

    def note(fd: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    made = home.backup()
    staged = os.path.dirname(next(path for path in synced if path.endswith("/tree")))
    expected = {"manifest", "tree"}
    for folder, folders, names in os.walk(tree_of(made)):
        for name in [*folders, *names]:
            if not os.path.islink(os.path.join(folder, name)):
                expected.add(os.path.join("tree", os.path.relpath(os.path.join(folder, name), tree_of(made))))
    assert {f"{staged}/{name}" for name in expected} <= synced
    assert os.fsdecode(home.folder.path) in synced


def test_a_disk_that_can_not_be_synced_makes_no_snapshot(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.fill()

    def fail(_path: bytes) -> bool:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(disk, "_syncfs", fail)
    with pytest.raises(OSError, match="Input/output error"):
        home.backup()
    assert os.listdir(home.folder.path) == [b".lock"]


def test_a_cancel_inside_one_large_file_ends_with_that_step_and_leaves_nothing(home: Home) -> None:
    with home.write("large").open("wb") as file:
        file.truncate(40 * COPY_BYTES)
    os.utime(home.root / "large", ns=(LONG_AGO_NS, LONG_AGO_NS))
    token, steps = CancelToken(), 0

    def look() -> None:
        nonlocal steps
        steps += 1
        if progress.bytes_copied > 20 * COPY_BYTES:
            token.cancel()

    progress = Progress(token, look)
    with pytest.raises(Cancelled):
        create(os.fsencode(home.root), home.folder, Options(), progress)
    assert progress.bytes_copied <= 22 * COPY_BYTES
    assert os.listdir(home.folder.path) == [b".lock"]
    assert not home.folder.snapshots()
