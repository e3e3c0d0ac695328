"""A tree that somebody uses isn't restored: who it is, is said by name, and nothing is touched."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar.backup import in_use, restore
from sidecar.backup.progress import Progress
from sidecar.backup.rules import Selection
from sidecar.backup.staging import stage
from sidecar.cancel import CancelToken
from sidecar.errors import TargetInUse
from sidecar.limits import LOCK_STALE_S
from tests.unit.restore_trees import Home, contents, rows

AGENT = "agents/main/agent/openclaw-agent.sqlite"
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="tells of Linux's /proc")

CONNECT = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("SELECT count(*) FROM sqlite_master").fetchone()
print("open", flush=True)
sys.stdin.read()
"""
WAIT = """
import sys
print("running", flush=True)
sys.stdin.read()
"""


@contextmanager
def process(code: str, *arguments: object) -> Iterator[int]:
    """A process that has done what it is to do, and then waits."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline()
        yield child.pid


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    # Locks of gateways that run here for others are no concern of these tests.
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(in_use, "_temporary_folders", lambda: [os.fsencode(tmp_path / "tmp")])
    made = Home(tmp_path)
    made.root.mkdir()
    made.fill()
    (made.root / "agents/main/sessions/s1.jsonl.lock").unlink()
    return made


def users(home: Home) -> list[str]:
    root = os.fsencode(home.root)
    return in_use.users_of(root, in_use.databases_below(root, Selection(), Progress(CancelToken())))


def lock(path: Path, **said: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"createdAt": "2026-01-01T00:00:00.000Z", **said}))
    return path


def started_at(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def ended_pid() -> int:
    with process(WAIT) as pid:
        pass
    return pid


def test_nobody_uses_a_tree_that_nobody_has_open(home: Home) -> None:
    assert users(home) == []


@needs_proc
def test_a_restore_is_refused_while_a_process_has_a_database_open_unless_it_is_forced(home: Home) -> None:
    snapshot = home.backup()
    home.write("openclaw.json", "changed", age=1)
    with process(CONNECT, home.root / AGENT) as pid:
        before = contents(home.root, exactly=True)
        with pytest.raises(TargetInUse) as raised:
            home.restore(snapshot)
        comm = Path(f"/proc/{pid}/comm").read_text().strip()
        sentence = f"process {pid} ({comm}) has {AGENT} open"
        assert sentence in raised.value.message
        assert sentence in raised.value.details["users"]
        assert raised.value.retryable
        assert contents(home.root, exactly=True) == before
        assert len(home.folder.snapshots()) == 1
        assert not (home.root / ".clawpal-restore").exists()
        home.restore(snapshot, force=True)
    assert (home.root / "openclaw.json").read_text() == '{"a": 1}'
    assert rows(home.root / AGENT) == ["one", "two"]
    home.restore(snapshot)


@needs_proc
def test_who_connects_while_files_are_staged_is_seen_before_the_swap(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = home.backup()
    home.write("openclaw.json", "changed", age=1)
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.readline();" + CONNECT, home.root / AGENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def then_connect(*arguments: object) -> None:
            stage(*arguments)  # type: ignore[arg-type]
            child.stdin.write(b"\n")  # type: ignore[union-attr]
            child.stdin.flush()  # type: ignore[union-attr]
            assert child.stdout.readline()  # type: ignore[union-attr]

        monkeypatch.setattr(restore, "stage", then_connect)
        with pytest.raises(TargetInUse):
            home.restore(snapshot)
        assert (home.root / "openclaw.json").read_text() == "changed"
        child.stdin.close()


@needs_proc
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="takes two users")
def test_the_lock_on_a_database_shows_whose_files_another_user_may_not_look_at(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        home = Home(folder)
        home.root.mkdir()
        database = home.database(AGENT, "one")
        with process(CONNECT, database) as pid:
            was_open = subprocess.run(
                [
                    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c"),
                    "import os, sys; sys.path.insert(0, sys.argv[2]); from sidecar.backup import in_use;"
                    f"print(*in_use.users_of(os.fsencode(sys.argv[1]), [{AGENT.encode()!r}]), sep='\\n')",
                    *(home.root, Path(in_use.__file__).parents[2]),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
        if "ModuleNotFoundError" in was_open.stderr or "Permission" in was_open.stderr:
            pytest.skip("another user may not read this project")
        assert was_open.returncode == 0, was_open.stderr
        assert f"process {pid} " in was_open.stdout
        assert AGENT in was_open.stdout


@needs_proc
def test_what_the_system_says_of_locks_is_read_with_or_without_a_process(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    status = (home.root / AGENT).stat()
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    (tmp_path / "locks").write_text(
        f"1: POSIX  ADVISORY  READ {os.getpid()} {place} 128 128\n"
        f"2: OFDLCK ADVISORY  READ -1 {place} 0 EOF\n"
        f"2: -> FLOCK  ADVISORY  WRITE 999999999 {place} 0 EOF\n"
        "3: nonsense\n"
    )
    real_open = open
    monkeypatch.setattr(
        "builtins.open",
        lambda path, *rest, **options: real_open(
            tmp_path / "locks" if path == "/proc/locks" else path, *rest, **options
        ),
    )
    assert users(home) == [
        f"a process that the system doesn't name has {AGENT} open",
        f"process 999999999 has {AGENT} open",
    ]


@pytest.mark.parametrize(
    "place", ["gateway.0a1b2c3d.lock", "tmp/openclaw-0/gateway.state.lock", "tmp/openclaw/gateway.0a1b2c3d.lock"]
)
def test_a_gateway_that_runs_is_in_the_way_of_a_restore(home: Home, place: str) -> None:
    snapshot = home.backup()
    with process(WAIT) as pid:
        file = lock(home.root / place, pid=pid, configPath="/elsewhere/openclaw.json")
        with pytest.raises(TargetInUse, match=f"process {pid} .*{file.name}"):
            home.restore(snapshot)
        home.restore(snapshot, force=True)
    assert users(home) == []


def test_a_lock_in_the_systems_folder_counts_if_it_is_about_this_tree(home: Home, tmp_path: Path) -> None:
    with process(WAIT) as pid:
        file = lock(tmp_path / "tmp/openclaw-1000/gateway.0a1b2c3d.lock", pid=pid, configPath="/other/openclaw.json")
        assert users(home) == []
        lock(file, pid=pid, configPath=str(home.root / "openclaw.json"))
        (user,) = users(home)
        assert f"process {pid}" in user
        assert str(file) in user
        (tmp_path / "way").symlink_to(home.root)
        lock(file, pid=pid, configPath="/other/openclaw.json", stateDir=str(tmp_path / "way"))
        assert len(users(home)) == 1
        lock(file, pid=pid)
        assert users(home) == []


@needs_proc
@pytest.mark.parametrize("key", ["startTime", "starttime"])
def test_a_lock_of_an_ended_process_is_stale_even_if_another_has_its_number(home: Home, key: str) -> None:
    file = home.root / "tmp/openclaw-0/gateway.state.lock"
    with process(WAIT) as pid:
        lock(file, pid=pid, **{key: started_at(pid)})
        assert len(users(home)) == 1
        lock(file, pid=pid, **{key: started_at(pid) - 1})
        assert users(home) == []
    lock(file, pid=ended_pid())
    assert users(home) == []
    lock(file, pid=2**70)
    assert users(home) == []


@pytest.mark.parametrize("name", ["s1.jsonl.lock", "sessions.json.lock"])
def test_a_session_that_is_being_written_is_in_the_way(home: Home, name: str) -> None:
    file = home.root / "agents/main/sessions" / name
    with process(WAIT) as pid:
        lock(file, pid=pid)
        (user,) = users(home)
        assert f"process {pid}" in user
        assert f"agents/main/sessions/{name}" in user
    assert users(home) == []


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": "x"}', '{"pid": true}', '{"pid": -1}'])
def test_a_lock_that_names_no_process_counts_while_it_is_young(home: Home, content: str) -> None:
    file = lock(home.root / "tmp/openclaw-0/gateway.state.lock")
    file.write_text(content)
    assert len(users(home)) == 1
    old_s = file.stat().st_mtime - LOCK_STALE_S - 60
    os.utime(file, (old_s, old_s))
    assert users(home) == []


def test_a_lock_that_is_no_file_is_passed_over(home: Home) -> None:
    folder = home.root / "tmp/openclaw-0"
    (folder / "gateway.a.lock").mkdir(parents=True)
    os.mkfifo(folder / "gateway.b.lock")
    (folder / "gateway.c.lock").symlink_to("/nowhere")
    assert users(home) == []


@needs_proc
def test_a_gateway_is_seen_by_the_database_that_it_keeps_locked(home: Home, tmp_path: Path) -> None:
    state = hashlib.sha256(os.fsencode(home.root / "state/openclaw.sqlite")).hexdigest()[:8]
    inside = home.root / "tmp/openclaw-0/gateway.state.lock.sqlite"
    outside = tmp_path / f"tmp/openclaw-state-locks-0/gateway-lifecycle.{state}.lock.sqlite"
    for file in (inside, outside):
        file.parent.mkdir(parents=True)
        file.touch()
        with process("import sys; file = open(sys.argv[1], 'rb');" + WAIT, file) as pid:
            (user,) = users(home)
            assert f"process {pid}" in user
            assert file.name in user
    assert users(home) == []


@pytest.mark.skipif(os.name == "nt", reason="no lsof there")
def test_where_there_is_no_proc_lsof_is_asked(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/lsof"
    fake.write_text(f'#!/bin/sh\nprintf "p77\\ncnode\\nf3\\nn%s\\np{os.getpid()}\\ncme\\nnx\\n" "$6"\nexit 1\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(sys, "platform", "darwin")
    (first, *_) = users(home)
    assert first.startswith("process 77 (node) has ")
    assert first.endswith(".sqlite open")
    fake.unlink()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert users(home) == []
