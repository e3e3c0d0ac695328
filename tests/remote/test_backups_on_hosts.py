"""Backups on a host, over a real sshd: made, checked, restored, cancelled there; what is left when things break."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.demo.sample import AgentPlan, write_tree
from tests.client import SidecarProcess, eventually, methods
from tests.database_writer import assert_one_state, writing
from tests.remote.client import HOST_ID, write_instance
from tests.remote.node import node_executable
from tests.remote.sshd import Account, Sshd, tools_folder

NOW_MS = 1_795_392_000_000
ON_HOST = {"hostId": HOST_ID}
TOOLS = ("sh", "cat", "uname", "env", "cp", "flock", "sync")
HUGE_BYTES = 400_000_000
LEFT_WITHIN_S = 8.0
"""The host gives what works on a backup 5 s to clear up."""

MakeSshd = Callable[..., Sshd]
Connected = Callable[..., SidecarProcess]


@pytest.fixture(params=["python", "node"])
def programs(request: pytest.FixtureRequest) -> dict[str, Path]:
    """What a host has that can make backups."""
    return {"python3": Path("/usr/bin/python3")} if request.param == "python" else {"node": node_executable()}


@pytest.fixture
def make_host(make_sshd: MakeSshd, programs: dict[str, Path], tmp_path: Path) -> MakeSshd:
    """Makes a host that has no more than that."""

    def make(**more: Any) -> Sshd:
        tools = tmp_path / "tools"
        tools.mkdir()
        tmp_path.chmod(0o755)
        for folder in tools.parents:
            if folder.is_relative_to(tmp_path.parents[1]):
                folder.chmod(0o755)
        path = tools_folder(tools / "bin", TOOLS, **programs)
        return make_sshd(path=str(path), **more)

    return make


@pytest.fixture
def sidecar_of(tmp_path: Path) -> Connected:
    """A sidecar whose user knows a host and trusts it."""

    def start(host: Sshd, account: Account | None = None, **more: Any) -> SidecarProcess:
        home = tmp_path / "home"
        home.mkdir()
        write_instance(home / ".clawpal", host, account or host.account, **more)
        (home / ".clawpal" / "known_hosts").write_text(host.known_hosts_line() + "\n")
        return SidecarProcess(home)

    return start


def write_openclaw(account: Account) -> Path:
    """A small tree, with what a shell would stumble over."""
    openclaw = account.home / ".openclaw"
    write_tree(openclaw, (AgentPlan("main", 3, 5_000, 3_000, 0.0),), now_ms=NOW_MS)
    (openclaw / "openclaw.json").write_text('{"token": "secret"}')
    (openclaw / "openclaw.json").chmod(0o600)
    (openclaw / "workspace").mkdir()
    (openclaw / "workspace" / "$(touch broken); 'x' \"y\"\n.md").write_text("a name")
    os.symlink("nowhere", openclaw / "workspace" / "link")
    (openclaw / "cache").mkdir()
    (openclaw / "cache" / "asset").write_text("made anew")
    for path in openclaw.rglob("*"):
        # Node can't set times to the nanosecond.
        os.utime(path, (NOW_MS / 1000, NOW_MS / 1000), follow_symlinks=False)
    account.own(openclaw)
    return openclaw


def state_of(tree: Path) -> dict[str, tuple[object, ...]]:
    """What a restore must give back, of each path but the caches."""
    state: dict[str, tuple[object, ...]] = {}
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        status = path.lstat()
        if path.is_symlink():
            state[name] = ("link", os.readlink(path))
        elif path.is_dir():
            state[name] = ("dir", status.st_mode, status.st_uid)
        else:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            state[name] = (content, status.st_mode, status.st_mtime_ns, status.st_uid)
    return state


def backups_of(account: Account) -> list[str]:
    folder = account.home / ".clawpal" / "backups"
    return sorted(name for name in os.listdir(folder) if name != ".lock") if folder.exists() else []


@contextmanager
def running(command: list[str]) -> Iterator[None]:
    """A program that says when it is ready, and runs until the end."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()


async def done(sidecar: SidecarProcess, method: str, **params: Any) -> Any:
    """The payload of the terminal of a stream that must succeed."""
    events = await sidecar.collect(await sidecar.start_stream({**ON_HOST, **params}, method))
    assert events[-1]["method"].endswith(":done"), events[-1]
    return events[-1]["params"]


async def failed(sidecar: SidecarProcess, method: str, **params: Any) -> Any:
    events = await sidecar.collect(await sidecar.start_stream({**ON_HOST, **params}, method))
    assert events[-1]["method"].endswith(":error"), events[-1]
    return events[-1]["params"]


@pytest.mark.parametrize("user", ["walker", "root"])
async def test_a_backup_on_a_host_is_made_checked_and_restored_there(
    make_host: MakeSshd, sidecar_of: Connected, user: str
) -> None:
    host = make_host()
    account = host.accounts[user]
    openclaw = write_openclaw(account)
    before = state_of(openclaw)
    async with sidecar_of(host, account) as sidecar:
        made = (await done(sidecar, "remote_backup_before_upgrade_stream"))["info"]
        assert made["status"] == "complete"
        assert made["path"] == str(account.home / ".clawpal" / "backups" / made["name"])
        assert (await done(sidecar, "remote_verify_backup_stream", backupName=made["name"]))["info"] == made
        assert await sidecar.call("remote_list_backups", ON_HOST) == [made]

        (openclaw / "openclaw.json").write_text("{}")
        (openclaw / "cache" / "asset").write_text("newer")
        (openclaw / "workspace" / "new.md").write_text("was not there")
        session = next((openclaw / "agents" / "main" / "sessions").glob("*.jsonl"))
        session.unlink()
        account.own(openclaw)
        restored = await done(sidecar, "remote_restore_from_backup_stream", backupName=made["name"])
        assert restored["info"] == made
        assert restored["message"] == f"Restored from backup '{made['name']}'"
        now = state_of(openclaw)
        assert (openclaw / "cache" / "asset").read_text() == "newer"
        assert {**now, "cache/asset": None} == {**before, "cache/asset": None}

        previous = restored["previous"]["name"]
        assert await sidecar.call("remote_restore_from_backup", {**ON_HOST, "backupName": previous})
        assert (openclaw / "openclaw.json").read_text() == "{}"
        assert (openclaw / "workspace" / "new.md").exists()
        assert not session.exists()
        assert await sidecar.call("remote_delete_backup", {**ON_HOST, "backupName": made["name"]}) is True
        assert await sidecar.call("remote_delete_backup", {**ON_HOST, "backupName": made["name"]}) is False
        await host.wait_until_no_processes(1.0)
    folder = account.home / ".clawpal" / "backups"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.glob("*.manifest.jsonl"))
    assert all(path.lstat().st_uid == account.uid for path in folder.rglob("*"))


async def test_the_answer_of_the_eager_backup_has_no_path(make_host: MakeSshd, sidecar_of: Connected) -> None:
    host = make_host()
    write_openclaw(host.account)
    async with sidecar_of(host) as sidecar:
        made = await sidecar.call("remote_backup_before_upgrade", ON_HOST)
        assert made["path"] == ""
        (listed,) = await sidecar.call("remote_list_backups", ON_HOST)
        assert {**listed, "path": ""} == made


async def test_a_chosen_clawpal_directory_of_the_host_has_its_backups(
    make_host: MakeSshd, sidecar_of: Connected, tmp_path: Path
) -> None:
    host = make_host()
    write_openclaw(host.account)
    async with sidecar_of(host) as sidecar:
        path = tmp_path / "home" / ".clawpal" / "instances.json"
        stored = json.loads(path.read_text())
        for instance in stored["instances"]:
            instance["clawpalDataDir"] = "~/elsewhere"
        path.write_text(json.dumps(stored))
        made = (await done(sidecar, "remote_backup_before_upgrade_stream"))["info"]
        assert made["path"] == str(host.home / "elsewhere" / "backups" / made["name"])


async def test_a_database_that_is_written_all_the_time_is_one_state_in_the_backup(
    make_host: MakeSshd, sidecar_of: Connected
) -> None:
    host = make_host()
    openclaw = write_openclaw(host.account)
    path = openclaw / "state.sqlite"
    with writing(path):
        host.account.own(openclaw)
        async with sidecar_of(host) as sidecar:
            made = (await done(sidecar, "remote_backup_before_upgrade_stream"))["info"]
    assert made["status"] == "complete"
    assert_one_state(Path(made["path"]) / "state.sqlite")
    assert not [name for name in os.listdir(made["path"]) if name.endswith(("-wal", "-shm"))]


async def begun(sidecar: SidecarProcess, account: Account) -> str:
    """The handle of a backup of which something is staged already."""
    openclaw = write_openclaw(account)
    (openclaw / "huge.bin").touch()
    os.truncate(openclaw / "huge.bin", HUGE_BYTES)
    account.own(openclaw)
    handle = await sidecar.start_stream(ON_HOST, "remote_backup_before_upgrade_stream")
    await eventually(lambda: any(name.startswith(".partial-") for name in backups_of(account)), "something is staged")
    return handle


async def test_a_cancelled_backup_leaves_nothing_on_the_host(
    make_host: MakeSshd, sidecar_of: Connected, record_measured: Callable[[str], None]
) -> None:
    host = make_host()
    async with sidecar_of(host) as sidecar:
        handle = await begun(sidecar, host.account)
        started_s = time.monotonic()
        assert await sidecar.call("cancel_stream", {"handleId": handle})
        events = await sidecar.collect(handle)
        took_ms = (time.monotonic() - started_s) * 1000
        record_measured(f"cancel of a backup on a host: terminal after {took_ms:.1f} ms")
        assert methods(events)[-2:] == ["backup:cancelled", "backup:error"]
        assert events[-1]["params"]["kind"] == "cancelled"
        assert backups_of(host.account) == []
        await host.wait_until_no_processes(LEFT_WITHIN_S)


@pytest.mark.parametrize("how", ["kill the sidecar", "kill the sshd", "disconnect"])
async def test_a_lost_connection_leaves_nothing_on_the_host(
    make_host: MakeSshd, sidecar_of: Connected, how: str
) -> None:
    host = make_host()
    async with sidecar_of(host) as sidecar:
        handle = await begun(sidecar, host.account)
        if how == "kill the sidecar":
            sidecar.send_signal(signal.SIGKILL)
        else:
            if how == "disconnect":
                assert await sidecar.call("ssh_disconnect", ON_HOST)
            else:
                host.kill()
            events = await sidecar.collect(handle)
            assert events[-1]["method"] == "backup:error"
            assert events[-1]["params"]["kind"] == "connection_lost"
        await host.wait_until_no_processes(LEFT_WITHIN_S)
        assert backups_of(host.account) == []


async def test_what_a_killed_process_left_is_cleared_by_the_next_backup(
    make_host: MakeSshd, sidecar_of: Connected
) -> None:
    host = make_host()
    async with sidecar_of(host) as sidecar:
        handle = await begun(sidecar, host.account)
        for process in host.processes():
            os.kill(process.pid, signal.SIGKILL)
        events = await sidecar.collect(handle)
        assert events[-1]["method"] == "backup:error"
        assert any(name.startswith(".partial-") for name in backups_of(host.account))
        (host.home / ".openclaw" / "huge.bin").unlink()
        made = (await done(sidecar, "remote_backup_before_upgrade_stream"))["info"]
        assert backups_of(host.account) == [made["name"], f"{made['name']}.manifest.jsonl"]


async def test_a_full_disk_of_the_host_is_a_clear_error(make_host: MakeSshd, sidecar_of: Connected) -> None:
    host = make_host()
    write_openclaw(host.account)
    (host.home / ".clawpal").mkdir()
    host.account.own(host.home / ".clawpal")
    host.mount_small_disk(host.home / ".clawpal" / "backups", 64 * 1024)
    async with sidecar_of(host) as sidecar:
        error = await failed(sidecar, "remote_backup_before_upgrade_stream")
        assert error["kind"] == "no_space"
        assert "no space left on device" in error["error"]
        assert await sidecar.call("remote_list_backups", ON_HOST) == []


async def test_a_home_that_cannot_be_written_is_a_clear_error(make_host: MakeSshd, sidecar_of: Connected) -> None:
    host = make_host()
    write_openclaw(host.account)
    host.home.chmod(0o555)
    async with sidecar_of(host, host.walker) as sidecar:
        error = await failed(sidecar, "remote_backup_before_upgrade_stream")
        assert error["kind"] == "source_unreadable"
        assert "permission denied" in error["error"]
        assert ".clawpal" in error["error"]


async def test_a_snapshot_in_which_a_bit_was_flipped_is_refused_and_nothing_is_touched(
    make_host: MakeSshd, sidecar_of: Connected
) -> None:
    host = make_host()
    openclaw = write_openclaw(host.account)
    async with sidecar_of(host) as sidecar:
        made = (await done(sidecar, "remote_backup_before_upgrade_stream"))["info"]
        kept = Path(made["path"]) / "openclaw.json"
        content = bytearray(kept.read_bytes())
        content[3] ^= 4
        kept.write_bytes(content)
        (openclaw / "openclaw.json").write_text("changed since")
        before = state_of(openclaw)
        for method in ("remote_verify_backup_stream", "remote_restore_from_backup_stream"):
            error = await failed(sidecar, method, backupName=made["name"])
            assert error["kind"] == "backup_damaged"
            assert [failure["path"] for failure in error["failures"]] == ["openclaw.json"]
        rejected = await sidecar.rejected("remote_restore_from_backup", {**ON_HOST, "backupName": made["name"]})
        assert rejected["data"]["failures"][0]["path"] == "openclaw.json"
        assert state_of(openclaw) == before


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\0b", "$(touch x)/.."])
async def test_what_is_no_name_is_refused_on_the_host_too(
    make_host: MakeSshd, sidecar_of: Connected, name: str
) -> None:
    host = make_host()
    write_openclaw(host.account)
    async with sidecar_of(host) as sidecar:
        for method in ("remote_delete_backup", "remote_restore_from_backup"):
            rejected = await sidecar.rejected(method, {**ON_HOST, "backupName": name})
            assert rejected["data"]["kind"] == "invalid_params"
    assert backups_of(host.account) == []


async def test_a_restore_is_refused_while_a_process_of_the_host_has_a_database_open(
    make_host: MakeSshd, sidecar_of: Connected
) -> None:
    host = make_host()
    openclaw = write_openclaw(host.account)
    database = sqlite3.connect(openclaw / "state.sqlite")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE t(x)")
    database.close()
    host.account.own(openclaw)
    async with sidecar_of(host) as sidecar:
        made = (await done(sidecar, "remote_backup_before_upgrade_stream"))["info"]
        hold = (
            f"import sqlite3; used = sqlite3.connect({str(openclaw / 'state.sqlite')!r});"
            " used.execute('SELECT * FROM t'); print('ready', flush=True); input()"
        )
        with running(host.ssh_command(f'/usr/bin/python3 -c "{hold}"')):
            error = await failed(sidecar, "remote_restore_from_backup_stream", backupName=made["name"])
            assert error["kind"] == "target_in_use", error
            assert "state.sqlite" in error["users"][0]
            assert "python3" in error["users"][0]
        await host.wait_until_no_processes(LEFT_WITHIN_S)
        await done(sidecar, "remote_restore_from_backup_stream", backupName=made["name"])


async def test_a_host_without_python_says_what_it_lacks(
    make_sshd: MakeSshd, sidecar_of: Connected, tmp_path: Path
) -> None:
    host = make_sshd(path=str(tools_folder(tmp_path / "bare", TOOLS)))
    async with sidecar_of(host) as sidecar:
        rejected = await sidecar.rejected("remote_backup_before_upgrade", ON_HOST)
        assert rejected["data"]["kind"] == "remote_failed"
        assert "Python 3.8" in rejected["message"]
