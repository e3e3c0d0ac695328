"""A real sidecar and a real sshd: what a client sees when hosts, links and files misbehave, and what is left there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.demo.sample import AgentPlan, SampleWriter, write_tree
from tests.client import SidecarProcess, environment, methods, request_line, sessions_of
from tests.remote.client import HOST_ID, write_instance
from tests.remote.node import node_executable
from tests.remote.slow_link import DistantSshd
from tests.remote.sshd import Account, Sshd, tools_folder
from tests.sqlite_trees import Session, SqliteAgent

NOW_MS = 1_795_392_000_000
HUGE_BYTES = 300_000_000
TOOLS = ("sh", "cat", "uname", "env")
ON_HOST = {"hostId": HOST_ID}
# So that what takes 15 s can be seen in 3.
IMPATIENT = """
import sidecar.limits
sidecar.limits.KEEPALIVE_S = 1.0
from sidecar.__main__ import main
main()
"""
LEASE_S = 20.0

MakeSshd = Callable[..., Sshd]


@pytest.fixture(scope="module")
def folders() -> Iterator[Sshd]:
    """A host whose folder holds the programs of the others."""
    with Sshd() as host:
        yield host


@pytest.fixture(scope="module")
def paths(folders: Sshd) -> dict[str, str]:
    """The ``PATH`` of hosts on which one engine alone can run."""
    programs = {"node": {"node": node_executable()}, "python": {"python3": Path("/usr/bin/python3")}, "sftp": {}}
    return {engine: str(tools_folder(folders.folder / engine, TOOLS, **found)) for engine, found in programs.items()}


@pytest.fixture
def make_home(tmp_path: Path) -> Callable[..., Path]:
    """Makes a home of the sidecar's user, where a host is known and trusted."""

    def make(host: Sshd, account: Account | None = None, **more: Any) -> Path:
        write_instance(tmp_path / ".clawpal", host, account or host.account, **more)
        (tmp_path / ".clawpal" / "known_hosts").write_text(host.known_hosts_line() + "\n")
        return tmp_path

    return make


def write_huge(account: Account) -> None:
    """Agent ``main`` with a session of a few lines, ``a``, and one that takes seconds to read, ``huge``."""
    folder = account.home / ".openclaw" / "agents" / "main" / "sessions"
    folder.mkdir(parents=True)
    lines = list(SampleWriter(2, NOW_MS).lines("huge", NOW_MS, 2_000_000))
    (folder / "a.jsonl").write_bytes(b"".join(lines[:5]))
    block = b"".join(lines)
    with open(folder / "huge.jsonl", "wb") as file:
        file.writelines(block for _ in range(HUGE_BYTES // len(block) + 1))
    account.own(account.home / ".openclaw")


def write_small(account: Account, sessions: int = 3) -> None:
    write_tree(account.home / ".openclaw", (AgentPlan("main", sessions, 5_000, 3_000, 0.0),), now_ms=NOW_MS)
    account.own(account.home / ".openclaw")


def impatient(home: Path) -> SidecarProcess:
    return SidecarProcess(home, command=(sys.executable, "-c", IMPATIENT))


async def begun(sidecar: SidecarProcess, host: Sshd) -> str:
    """The handle of an analysis of which one session has come, while the host reads on."""
    handle = await sidecar.start_stream({**ON_HOST, "batchSize": 1}, "remote_analyze_sessions_stream")
    chunk = await sidecar.notification(handle)
    assert chunk["method"] == "sessions:chunk"
    assert [session["sessionId"] for session in sessions_of([chunk])] == ["a"]
    assert host.processes()
    return handle


def kinds(events: list[Any]) -> list[str]:
    return [event["params"]["kind"] for event in events if event["method"] == "sessions:error"]


async def works(sidecar: SidecarProcess, sessions: int) -> None:
    """The next command works."""
    handle = await sidecar.start_stream({**ON_HOST}, "remote_analyze_sessions_stream")
    events = await sidecar.collect(handle)
    assert methods(events)[-1] == "sessions:done"
    assert kinds(events) == []
    assert events[-1]["params"]["totalSessions"] == sessions


@pytest.mark.parametrize("engine", ["node", "python", "sftp"])
@pytest.mark.parametrize("user", ["walker", "root"])
async def test_a_cancel_ends_the_stream_at_once_and_leaves_nothing_on_the_host(
    make_sshd: MakeSshd,
    paths: dict[str, str],
    make_home: Callable[..., Path],
    engine: str,
    user: str,
    record_measured: Callable[[str], None],
) -> None:
    host = make_sshd(path=paths[engine])
    account = host.accounts[user]
    write_huge(account)
    async with SidecarProcess(make_home(host, account)) as sidecar:
        if engine == "sftp":
            handle = await sidecar.start_stream({**ON_HOST, "batchSize": 1}, "remote_analyze_sessions_stream")
            await sidecar.notification(handle)
        else:
            handle = await begun(sidecar, host)
        started_s = time.monotonic()
        assert await sidecar.call("cancel_stream", {"handleId": handle})
        events = await sidecar.collect(handle)
        took_ms = (time.monotonic() - started_s) * 1000
        record_measured(f"cancel of an analysis on a host ({engine}, {user}): terminal after {took_ms:.1f} ms")
        assert methods(events)[-2:] == ["sessions:cancelled", "sessions:done"]
        assert events[-1]["params"]["cancelled"]
        await host.wait_until_no_processes(1.0)
        assert await sidecar.call("ssh_status", ON_HOST) == "connected"


@pytest.mark.parametrize("how", ["disconnect", "kill the sidecar", "close its output"])
async def test_nothing_is_left_on_the_host_when_the_client_goes(
    make_sshd: MakeSshd, paths: dict[str, str], make_home: Callable[..., Path], how: str
) -> None:
    host = make_sshd(path=paths["node"])
    write_huge(host.account)
    async with SidecarProcess(make_home(host)) as sidecar:
        handle = await begun(sidecar, host)
        if how == "disconnect":
            assert await sidecar.call("ssh_disconnect", ON_HOST) is True
            events = await sidecar.collect(handle)
            assert kinds(events) == ["connection_lost"]
            assert events[-1]["params"]["totalSessions"] == 1
            assert await sidecar.call("ssh_status", ON_HOST) == "disconnected"
        elif how == "kill the sidecar":
            sidecar.send_signal(signal.SIGKILL)
        else:
            sidecar.close_stdout()
        await host.wait_until_no_processes(1.0)


async def test_an_sshd_that_is_killed_in_the_middle_is_an_error_with_partial_counts_and_the_next_command_works(
    make_sshd: MakeSshd, paths: dict[str, str], make_home: Callable[..., Path]
) -> None:
    host = make_sshd(path=paths["node"])
    write_huge(host.account)
    async with SidecarProcess(make_home(host)) as sidecar:
        handle = await begun(sidecar, host)
        host.kill()
        events = await sidecar.collect(handle)
        assert kinds(events) == ["connection_lost"]
        assert events[-1]["method"] == "sessions:done"
        assert events[-1]["params"]["totalSessions"] == 1
        assert not events[-1]["params"]["cancelled"]
        await host.wait_until_no_processes(1.0)
        refused = await sidecar.rejected("remote_list_session_files", ON_HOST)
        assert refused["data"]["kind"] == "host_unreachable"
        assert refused["data"]["retryable"]
        assert "connection refused" in refused["message"].lower()
        host.restart()
        (host.home / ".openclaw/agents/main/sessions/huge.jsonl").unlink()
        await works(sidecar, 1)


async def test_an_sshd_that_stands_still_is_noticed_by_the_keepalive(
    make_sshd: MakeSshd, paths: dict[str, str], make_home: Callable[..., Path]
) -> None:
    host = make_sshd(path=paths["node"])
    write_huge(host.account)
    async with impatient(make_home(host)) as sidecar:
        handle = await begun(sidecar, host)
        host.stop_all()
        events = await sidecar.collect(handle)
        assert kinds(events) == ["timed_out"]
        assert "timed out" in events[-2]["params"]["error"]
        assert await sidecar.call("ssh_status", ON_HOST) == "disconnected"
        host.continue_all()
        (host.home / ".openclaw/agents/main/sessions/huge.jsonl").unlink()
        await works(sidecar, 1)


async def test_a_link_that_dies_silently_is_noticed_on_both_sides(
    slow_link: Callable[..., DistantSshd], make_home: Callable[..., Path], paths: dict[str, str]
) -> None:
    host = slow_link(path=paths["node"])
    write_huge(host.account)
    os.truncate(host.home / ".openclaw/agents/main/sessions/huge.jsonl", 0)
    # Held back by the link, the host is at work for as long as the test takes.
    write_tree(host.home / ".openclaw", (AgentPlan("zz", 4_000, 500, 400, 0.0),), now_ms=NOW_MS)
    host.account.own(host.home / ".openclaw")
    host.shape(rate_mbit=0.5)
    async with impatient(make_home(host)) as sidecar:
        handle = await begun(sidecar, host)
        host.cut()
        cut_at_s = time.monotonic()
        events = await sidecar.collect(handle)
        assert kinds(events) == ["timed_out"]
        assert time.monotonic() - cut_at_s < 10
        await host.wait_until_no_processes(LEASE_S + 2 - (time.monotonic() - cut_at_s))
        host.restore()
        host.shape()
        await works(sidecar, 4_002)


async def test_a_changed_host_key_is_refused_until_the_old_one_is_removed(
    make_sshd: MakeSshd, paths: dict[str, str], make_home: Callable[..., Path]
) -> None:
    host = make_sshd(path=paths["node"], key_types=("ed25519",))
    write_small(host.account)
    home = make_home(host)
    async with SidecarProcess(home) as sidecar:
        await works(sidecar, 3)
        host.restart(new_host_keys=True)
        for method in ("remote_analyze_sessions", "ssh_connect"):
            error = await sidecar.rejected(method, ON_HOST)
            assert error["data"]["kind"] == "host_key_changed"
            assert "host key verification failed" in error["message"].lower()
        fingerprint = error["data"]["fingerprint"]
        refused = await sidecar.rejected("trust_ssh_host_key", {**ON_HOST, "fingerprint": fingerprint})
        assert refused["data"]["kind"] == "host_key_changed"
        (home / ".clawpal" / "known_hosts").unlink()
        assert await sidecar.call("trust_ssh_host_key", {**ON_HOST, "fingerprint": fingerprint}) is True
        await works(sidecar, 3)


@pytest.mark.parametrize("engine", ["node", "python"])
async def test_what_a_shell_prints_before_it_is_passed_over(
    make_sshd: MakeSshd, paths: dict[str, str], make_home: Callable[..., Path], engine: str
) -> None:
    host = make_sshd(path=paths[engine])
    write_small(host.account)
    noise = 'printf "Welcome!\\n["; printf "\\\\377\\\\0 [\\"agent\\",\\"no\\",1]\\n"; printf "no line feed" \n'
    for name in (".bashrc", ".profile"):
        (host.home / name).write_text(noise)
    host.account.own(host.home / ".bashrc", host.home / ".profile")
    async with SidecarProcess(make_home(host)) as sidecar:
        await works(sidecar, 3)


@pytest.mark.parametrize("shell", ["sh", "bash", "fish", "tcsh", "zsh"])
async def test_any_login_shell_will_do(make_sshd: MakeSshd, make_home: Callable[..., Path], shell: str) -> None:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"no {shell} here")
    host = make_sshd(shell=found)
    write_small(host.account)
    async with SidecarProcess(make_home(host)) as sidecar:
        await works(sidecar, 3)


async def test_a_node_that_only_a_login_shell_finds_is_found(
    make_sshd: MakeSshd, paths: dict[str, str], make_home: Callable[..., Path]
) -> None:
    host = make_sshd(path=paths["sftp"])
    folder = host.account.home / ".openclaw" / "agents" / "main"
    transcript = b"".join(SampleWriter(3, NOW_MS).lines("s", NOW_MS, 5_000))
    SqliteAgent(folder, 23, [Session("s", transcript, {})]).close()
    (host.home / ".profile").write_text(f'PATH="{paths["node"]}:$PATH"\nexport OPENCLAW_STATE_DIR="$HOME/state"\n')
    (host.home / ".openclaw").rename(host.home / "state")
    host.account.own(host.home / "state", host.home / ".profile")
    async with SidecarProcess(make_home(host)) as sidecar:
        await works(sidecar, 1)


async def test_the_home_that_the_app_has_chosen_for_a_host_is_read(
    make_sshd: MakeSshd, paths: dict[str, str], make_home: Callable[..., Path]
) -> None:
    host = make_sshd(path=paths["node"], environment={"OPENCLAW_STATE_DIR": "/nowhere"})
    write_small(host.account)
    (host.home / "chosen $(x) 'y'").mkdir()
    (host.home / ".openclaw").rename(host.home / "chosen $(x) 'y'" / ".openclaw")
    host.account.own(host.home / "chosen $(x) 'y'")
    async with SidecarProcess(make_home(host, home="~/chosen $(x) 'y'")) as sidecar:
        await works(sidecar, 3)


@pytest.mark.parametrize("engine", ["node", "python"])
async def test_without_room_for_a_copy_the_database_is_a_failed_item_and_the_rest_goes_on(
    make_sshd: MakeSshd, paths: dict[str, str], make_home: Callable[..., Path], engine: str
) -> None:
    host = make_sshd(path=paths[engine], shell="/bin/sh", extra=("PermitUserEnvironment yes",))
    small = host.home / "small-disk"
    host.mount_small_disk(small, 64 * 1024)
    (host.home / ".ssh").mkdir(exist_ok=True)
    (host.home / ".ssh" / "environment").write_text(f"TMPDIR={small}\n")
    write_small(host.account)
    transcript = b"".join(SampleWriter(3, NOW_MS).lines("s", NOW_MS, 400_000))
    crash(SqliteAgent(host.home / ".openclaw" / "agents" / "second", 23, [Session("s", transcript, {})]))
    host.account.own(host.home / ".openclaw", host.home / ".ssh")
    async with SidecarProcess(make_home(host)) as sidecar:
        handle = await sidecar.start_stream(ON_HOST, "remote_analyze_sessions_stream")
        events = await sidecar.collect(handle)
        assert kinds(events) == []
        done = events[-1]["params"]
        assert (done["totalSessions"], done["failedItems"]) == (3, 1)
        assert "openclaw-agent.sqlite" in done["failures"][0]["path"]
        assert "no space" in done["failures"][0]["error"]


def crash(agent: SqliteAgent) -> None:
    """Leave the database as a killed gateway does: rows in the WAL, and no index of it."""
    connection = sqlite3.connect(agent.path, isolation_level=None)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("UPDATE transcript_events SET created_at = created_at + 1")
    copies = {suffix: Path(f"{agent.path}{suffix}").read_bytes() for suffix in ("", "-wal")}
    connection.close()
    agent.close()
    for suffix, data in copies.items():
        Path(f"{agent.path}{suffix}").write_bytes(data)
    Path(f"{agent.path}-shm").unlink(missing_ok=True)


async def test_an_agent_that_vanishes_while_it_is_read_is_what_was_seen_of_it(
    make_sshd: MakeSshd, paths: dict[str, str], make_home: Callable[..., Path]
) -> None:
    host = make_sshd(path=paths["node"])
    write_huge(host.account)
    write_tree(host.home / ".openclaw", (AgentPlan("second", 50, 3_000, 2_000, 0.0),), now_ms=NOW_MS)
    host.account.own(host.home / ".openclaw")
    async with SidecarProcess(make_home(host)) as sidecar:
        handle = await begun(sidecar, host)
        shutil.rmtree(host.home / ".openclaw/agents/second")
        events = await sidecar.collect(handle)
        assert kinds(events) == []
        assert events[-1]["params"]["totalSessions"] == 2
        await works(sidecar, 2)


async def test_a_host_that_is_not_known_is_an_error_of_its_own(tmp_path: Path) -> None:
    async with SidecarProcess(tmp_path) as sidecar:
        for method in ("ssh_connect", "remote_analyze_sessions", "remote_clear_all_sessions"):
            error = await sidecar.rejected(method, {"hostId": "ssh:nobody"})
            assert error["data"]["kind"] == "host_not_found"
        handle = await sidecar.start_stream({"hostId": "ssh:nobody"}, "remote_list_session_files_stream")
        events = await sidecar.collect(handle)
        assert methods(events) == ["sessions:error", "session-files:done"]
        assert kinds(events) == ["host_not_found"]
        assert await sidecar.call("ssh_status", {"hostId": "ssh:nobody"}) == "disconnected"
        assert await sidecar.call("ssh_disconnect", {"hostId": "ssh:nobody"}) is True


async def test_a_disconnect_counts_for_the_connects_before_it(
    make_sshd: MakeSshd, paths: dict[str, str], make_home: Callable[..., Path]
) -> None:
    host = make_sshd(path=paths["node"])
    async with SidecarProcess(make_home(host)) as sidecar:
        # At once, so that the first is still loading what it needs, and the others wait for a thread.
        lines = [request_line("ssh_connect", ON_HOST, f"connect-{number}") for number in range(9)]
        await sidecar.send(b"".join([*lines, request_line("ssh_disconnect", ON_HOST, "disconnect")]))
        assert (await sidecar.reply("disconnect"))["result"] is True
        for number in range(9):
            error = (await sidecar.reply(f"connect-{number}"))["error"]
            assert error["data"]["kind"] == "connection_lost"
        assert await sidecar.call("ssh_status", ON_HOST) == "disconnected"
        assert await sidecar.call("ssh_connect", ON_HOST) is True


async def test_many_streams_of_one_host_share_its_channels_and_all_end(
    make_sshd: MakeSshd, paths: dict[str, str], make_home: Callable[..., Path]
) -> None:
    host = make_sshd(path=paths["node"], max_sessions=2)
    write_small(host.account)
    async with SidecarProcess(make_home(host)) as sidecar:
        handles = [await sidecar.start_stream(ON_HOST, "remote_analyze_sessions_stream") for _ in range(12)]
        for handle in handles:
            events = await sidecar.collect(handle)
            assert kinds(events) == []
            assert events[-1]["params"]["totalSessions"] == 3
        assert host.connections() == 1


async def test_what_goes_on_here_never_waits_for_a_host(
    make_sshd: MakeSshd, paths: dict[str, str], make_home: Callable[..., Path]
) -> None:
    host = make_sshd(path=paths["node"])
    write_small(host.account)
    home = make_home(host)
    write_tree(home / ".openclaw", (AgentPlan("here", 5, 3_000, 2_000, 0.0),), now_ms=NOW_MS)
    async with SidecarProcess(home) as sidecar:
        await works(sidecar, 3)
        host.stop_all()
        remote = [await sidecar.start_stream(ON_HOST, "remote_analyze_sessions_stream") for _ in range(20)]
        asked = [await sidecar.request("remote_list_session_files", ON_HOST) for _ in range(10)]
        handle = await sidecar.start_stream()
        events = await asyncio.wait_for(sidecar.collect(handle), 5)
        assert events[-1]["params"]["totalSessions"] == 5
        assert len(await asyncio.wait_for(sidecar.call("list_session_files"), 5)) > 4
        host.continue_all()
        for each in remote:
            assert (await sidecar.collect(each))[-1]["params"]["totalSessions"] == 3
        for request_id in asked:
            assert "result" in await sidecar.reply(request_id)


async def test_a_client_that_does_not_read_holds_the_host_back_and_memory_stays_flat(
    make_sshd: MakeSshd, paths: dict[str, str], make_home: Callable[..., Path], record_measured: Callable[[str], None]
) -> None:
    host = make_sshd(path=paths["node"])
    write_huge(host.account)
    async with SidecarProcess(make_home(host)) as sidecar:
        await sidecar.call("ssh_connect", ON_HOST)
        assert await sidecar.call("remote_list_session_files", ON_HOST)
        before_bytes = sidecar.resident_bytes()
        params = {**ON_HOST, "agentId": "main", "sessionId": "huge"}
        handle = await sidecar.start_stream(params, "remote_preview_session_stream")
        await sidecar.output_is_blocked()
        await sidecar.at_rest()
        growth_bytes = sidecar.resident_bytes() - before_bytes
        record_measured(
            f"a client that doesn't read a preview of 300 MB on a host: {growth_bytes / 2**20:.1f} MiB more"
        )
        assert growth_bytes < 8 * 2**20
        assert host.processes()
        assert await sidecar.call("cancel_stream", {"handleId": handle})
        await sidecar.collect(handle)
        await host.wait_until_no_processes(1.0)


async def test_secrets_are_in_no_output(make_sshd: MakeSshd, tmp_path: Path, make_home: Callable[..., Path]) -> None:
    host = make_sshd()
    home = make_home(host)
    path = home / ".clawpal" / "instances.json"
    stored = json.loads(path.read_text())
    stored["instances"][0]["sshHostConfig"] |= {"authMethod": "password", "password": "s3cret-word", "keyPath": None}
    path.write_text(json.dumps(stored))
    command = (sys.executable, "-m", "sidecar", "--log-level", "debug")
    async with SidecarProcess(home, command=command, env=environment(home)) as sidecar:
        error = await sidecar.rejected("ssh_connect_with_passphrase", {**ON_HOST, "passphrase": "s3cret-phrase"})
        assert error["data"]["kind"] == "login_refused"
        assert "permission denied" in error["message"]
        assert "s3cret" not in json.dumps(error)
        assert "s3cret" not in sidecar.stderr()
