"""What a snapshot makes of files that change, vanish or can't be read while it is made."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from pathlib import Path

import pytest

from sidecar.backup import files
from sidecar.backup.progress import Progress
from sidecar.backup.snapshot import Options, create
from sidecar.cancel import CancelToken
from tests.database_writer import assert_one_state, writing
from tests.unit.restore_trees import Home, copy_of, entries

LINE = b'{"type":"message"}\n'
NOBODY = 65534


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.write("openclaw.json", "{}")
    return home


class Interfering(Progress):
    """Does something once, after the first block of a file was copied."""

    def __init__(self, path: str, interfere: object, times: int = 1) -> None:
        super().__init__(CancelToken())
        self._path = os.fsencode(path)
        self._interfere = interfere
        self._left = times

    def step(self, size_bytes: int = 0) -> None:
        super().step(size_bytes)
        if size_bytes and self.current_path == self._path and self._left:
            self._left -= 1
            assert callable(self._interfere)
            self._interfere()


def test_of_a_file_that_grows_all_the_time_the_copy_is_what_it_was_at_some_time(home: Home) -> None:
    path = home.write("agents/main/sessions/live.jsonl", LINE * 200_000)
    stop = threading.Event()

    def append() -> None:
        with open(path, "ab", buffering=0) as file:
            while not stop.is_set():
                file.write(LINE)

    writer = threading.Thread(target=append)
    writer.start()
    try:
        made = home.backup()
    finally:
        stop.set()
        writer.join()
    copy = copy_of(made, "agents/main/sessions/live.jsonl")
    content = copy.read_bytes()
    assert made.status == "complete"
    assert path.read_bytes().startswith(content)
    assert content.endswith(LINE)
    entry = entries(home, made)["agents/main/sessions/live.jsonl"]
    assert (entry.size_bytes, entry.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_a_file_that_is_rewritten_while_it_is_copied_is_copied_again(home: Home) -> None:
    path = home.write("workspace/notes.md", b"old" * 1_000_000)
    progress = Interfering("workspace/notes.md", lambda: path.write_bytes(b"new" * 1_000_000))
    made = create(os.fsencode(home.root), home.folder, Options(), progress)
    assert made.status == "complete"
    assert copy_of(made, "workspace/notes.md").read_bytes() == b"new" * 1_000_000
    assert (progress.files_copied, progress.bytes_copied) == (progress.files_total, progress.bytes_total)


def test_a_file_that_is_rewritten_each_time_makes_the_snapshot_incomplete_by_name(home: Home) -> None:
    path = home.write("workspace/busy.bin", b"0" * 3_000_000)
    contents = iter(range(10**6))
    progress = Interfering("workspace/busy.bin", lambda: path.write_bytes(b"%07d" % next(contents) * 428_571), 10**6)
    made = create(os.fsencode(home.root), home.folder, Options(), progress)
    assert (made.status, made.failed_items) == ("incomplete", 1)
    assert made.failures[0]["path"] == "workspace/busy.bin"
    assert "changed" in made.failures[0]["error"]
    assert home.folder.find(made.name) == made
    assert not copy_of(made, "workspace/busy.bin").exists()
    assert (progress.files_copied, progress.bytes_copied) == (progress.files_total, progress.bytes_total)


def test_a_file_that_vanishes_before_it_is_opened_is_no_failure(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home.write("workspace/gone.md", "soon gone")
    original = files._open

    def vanish(name: bytes) -> int:
        if name.endswith(b"gone.md"):
            path.unlink(missing_ok=True)
        return original(name)

    monkeypatch.setattr(files, "_open", vanish)
    made = home.backup()
    assert made.status == "complete"
    assert "workspace/gone.md" not in entries(home, made)


def test_what_is_no_file_is_passed_over_and_named(home: Home) -> None:
    os.mkfifo(home.root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home.root / "socket"))
        made = home.backup()
    found = entries(home, made)
    assert made.status == "complete"
    assert {name for name, entry in found.items() if entry.kind == "leftOut"} == {"fifo", "socket"}


def test_links_stay_links_wherever_they_lead(home: Home) -> None:
    for name, target in {"loop": "loop", "out": "/etc/passwd", "dangling": "nowhere", "up": ".."}.items():
        (home.root / name).symlink_to(target)
    made = home.backup()
    tree = copy_of(made)
    assert {name: os.readlink(tree / name) for name in ("loop", "out", "dangling", "up")} == {
        "loop": "loop",
        "out": "/etc/passwd",
        "dangling": "nowhere",
        "up": "..",
    }
    assert made.status == "complete"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_what_may_not_be_read_makes_the_snapshot_incomplete_by_name(home: Home, tmp_path: Path) -> None:
    home.write("credentials/token", "secret")
    (home.root / "closed").mkdir()
    home.write("closed/inside", "hidden")
    (home.root / "closed").chmod(0)
    clawpal = tmp_path / "clawpal"
    clawpal.mkdir()
    for path in (clawpal, home.root, home.root / "openclaw.json", home.root / "credentials"):
        os.chown(path, NOBODY, NOBODY)
    for folder in tmp_path.parents:
        if folder.is_relative_to(tmp_path.parents[1]):
            folder.chmod(0o755)
    tmp_path.chmod(0o755)
    child = os.fork()
    if child == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        made = home.backup()
        os._exit(0 if made.failed_items == 2 else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    (listed,) = home.folder.snapshots()
    assert listed.status == "incomplete"
    assert {failure["path"]: failure["error"].partition(":")[0] for failure in listed.failures} == {
        "closed": "permission denied",
        "credentials/token": "permission denied",
    }
    assert entries(home, listed)["openclaw.json"].kind == "file"


def test_a_database_that_is_written_all_the_time_is_copied_in_one_pass_as_one_state(home: Home) -> None:
    path = home.root / "state" / "openclaw.sqlite"
    path.parent.mkdir()
    seen = []

    class Watching(Progress):
        def step(self, size_bytes: int = 0) -> None:
            super().step(size_bytes)
            if size_bytes and self.current_path == b"state/openclaw.sqlite":
                seen.append(size_bytes)

    with writing(path, rows=50_000):
        progress = Watching(CancelToken())
        made = create(os.fsencode(home.root), home.folder, Options(), progress)
    assert made.status == "complete"
    copy = copy_of(made, "state/openclaw.sqlite")
    # Its pages once, and once more for the digest.
    assert len(seen) > 10
    assert sum(seen) <= 2.1 * copy.stat().st_size
    assert_one_state(copy)
    assert sorted(os.listdir(copy.parent)) == ["openclaw.sqlite"]
