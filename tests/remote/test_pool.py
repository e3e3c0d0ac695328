"""Connections that commands share: how many channels, what becomes of them when one breaks, and what is counted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncssh
import pytest

from sidecar.errors import ChannelRefused, ConnectionBroken, HostTimedOut, HostUnreachable, RemoteFailed
from sidecar.remote import connect, links
from sidecar.remote import pool as pool_module
from sidecar.remote.pool import Host, SshConnectionPool
from sidecar.remote.process import RemoteProcess
from tests.client import eventually
from tests.remote.pools import Here, MakeSshd, said
from tests.remote.slow_link import DistantSshd
from tests.remote.sshd import PASSPHRASE, Sshd

ALL_CHANNELS = 8
READY = b"ready\n"
# Prints when it runs, and ends with its input.
WAITING = "echo ready; exec cat"


@pytest.fixture
def host(sshd: Sshd, here: Here) -> Host:
    here.know(sshd)
    return here.host(sshd)


@pytest.fixture
async def clean(sshd: Sshd, pool: SshConnectionPool) -> AsyncIterator[None]:
    """The shared host has nothing left of the test."""
    yield
    await pool.close()
    await sshd.wait_until_no_processes(5)
    await eventually(lambda: not sshd.connections(), "no connection is left")


async def started(pool: SshConnectionPool, host: Host, command: str = WAITING) -> RemoteProcess:
    process = await pool.open(host, command)
    try:
        assert await process.read() == READY
    except BaseException:
        process.close()
        raise
    return process


async def fill(pool: SshConnectionPool, host: Host, number: int = ALL_CHANNELS) -> list[RemoteProcess]:
    return list(await asyncio.gather(*(started(pool, host) for _ in range(number))))


async def ended(process: RemoteProcess) -> None:
    """Let a command end by itself."""
    process.write_eof()
    assert await process.read() == b""


async def settled() -> None:
    """Let all that can go on go on, as far as it gets without a host."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.usefixtures("clean")
class TestChannels:
    async def test_all_commands_share_one_connection(self, sshd: Sshd, host: Host, pool: SshConnectionPool) -> None:
        outputs = await asyncio.gather(*(said(pool, host, f"echo {number}") for number in range(20)))

        assert outputs == [f"{number}\n".encode() for number in range(20)]
        assert sshd.connections() == 1

    async def test_no_more_than_eight_run_at_once_and_the_others_wait_in_order(
        self, sshd: Sshd, host: Host, pool: SshConnectionPool
    ) -> None:
        running = await fill(pool, host)
        order: list[int] = []

        async def next_one(number: int) -> None:
            process = await started(pool, host)
            order.append(number)
            running.append(process)

        waiting = []
        for number in range(4):
            waiting.append(asyncio.create_task(next_one(number)))
            await settled()
        # A shell that has said that it is ready may not have become cat yet.
        assert sum(one.command.endswith("cat") for one in sshd.processes()) == ALL_CHANNELS
        assert order == []
        for served in range(1, 5):
            await ended(running[served])
            await waiting[served - 1]
            assert order == list(range(served))
        for process in running:
            process.close()

    async def test_a_waiter_that_is_cancelled_takes_nobodys_place(self, host: Host, pool: SshConnectionPool) -> None:
        running = await fill(pool, host)
        waiting = [asyncio.create_task(started(pool, host)) for _ in range(3)]
        await settled()
        waiting[0].cancel()
        await ended(running.pop())
        running.append(await waiting[1])
        # It has its place, but doesn't know so yet.
        running.pop().close()
        await settled()
        waiting[2].cancel()
        await asyncio.wait(waiting)
        if not waiting[2].cancelled():  # the host was so fast that it had begun
            running.append(waiting[2].result())
        for process in running:
            process.close()
        for process in await fill(pool, host):
            process.close()

    async def test_a_command_that_is_cancelled_while_it_begins_leaves_nothing(
        self, sshd: Sshd, host: Host, pool: SshConnectionPool
    ) -> None:
        await pool.connect(host)
        for turns in range(40):
            opening = asyncio.create_task(pool.open(host, WAITING))
            for _ in range(turns // 4):
                await asyncio.sleep(0)
            opening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                (await opening).close()
        await sshd.wait_until_no_processes(5)
        for process in await fill(pool, host):
            process.close()
        assert sshd.connections() == 1

    async def test_an_sftp_session_that_is_cancelled_while_it_begins_leaves_nothing(
        self, sshd: Sshd, host: Host, pool: SshConnectionPool
    ) -> None:
        async def use() -> None:
            async with pool.sftp(host) as client:
                await client.realpath(".")

        await pool.connect(host)
        for turns in range(40):
            using = asyncio.create_task(use())
            for _ in range(turns):
                await asyncio.sleep(0)
            using.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await using
        await asyncio.gather(*(use() for _ in range(2 * ALL_CHANNELS)))
        for process in await fill(pool, host):
            process.close()

    async def test_a_place_is_free_again_when_the_host_has_ended_the_command_too(
        self, sshd: Sshd, host: Host, pool: SshConnectionPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sidecar.remote.process.CLOSE_S", 60.0)
        running = await fill(pool, host)
        await ended(running.pop())
        (await started(pool, host, "echo ready; exec sleep 1000")).close()
        waiting = asyncio.create_task(started(pool, host))
        assert not (await asyncio.wait([waiting], timeout=0.3))[0]
        (sleep,) = [one for one in sshd.processes() if "sleep 1000" in one.command]
        os.kill(sleep.pid, 9)
        running.append(await waiting)
        for process in running:
            process.close()

    async def test_a_command_that_ignores_its_end_keeps_its_place_for_a_moment_only(
        self, sshd: Sshd, host: Host, pool: SshConnectionPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sidecar.remote.process.CLOSE_S", 0.2)
        running = [await started(pool, host, "echo ready; exec sleep 1000") for _ in range(ALL_CHANNELS)]
        for process in running:
            process.close()
        await ended(await started(pool, host))
        for one in sshd.processes():
            os.kill(one.pid, 9)


class TestMaxSessions:
    async def test_more_commands_than_the_host_takes_wait_and_succeed(
        self, sshd_two_sessions: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(sshd_two_sessions)
        host = here.host(sshd_two_sessions)
        commands = (said(pool, host, f"sleep 0.02; echo {number}") for number in range(12))

        assert await asyncio.gather(*commands) == [f"{number}\n".encode() for number in range(12)]
        assert sshd_two_sessions.connections() == 1

    async def test_a_command_begins_where_others_are_about_to_end(
        self, sshd_two_sessions: Sshd, here: Here, pool: SshConnectionPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # As for a host that is slower with an end than we wait for it.
        monkeypatch.setattr("sidecar.remote.process.CLOSE_S", 0.0)
        here.know(sshd_two_sessions)
        host = here.host(sshd_two_sessions)
        for _ in range(10):
            running = await fill(pool, host, 2)
            for process in running:
                process.close()
            assert await said(pool, host, "echo in") == b"in\n"

    async def test_a_command_waits_for_as_long_as_others_run(
        self, sshd_two_sessions: Sshd, here: Here, pool: SshConnectionPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool_module, "REFUSED_S", 0.1)
        here.know(sshd_two_sessions)
        host = here.host(sshd_two_sessions)
        running = await fill(pool, host, 2)
        waiting = asyncio.create_task(said(pool, host, "echo in"))
        assert not (await asyncio.wait([waiting], timeout=0.4))[0]
        await ended(running[0])
        assert await waiting == b"in\n"
        running[1].close()

    async def test_a_host_that_takes_none_refuses(
        self, make_sshd: MakeSshd, here: Here, pool: SshConnectionPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool_module, "REFUSED_S", 0.05)
        sshd = make_sshd(max_sessions=0)
        here.know(sshd)
        host = here.host(sshd)
        answers = await asyncio.gather(*(said(pool, host, "echo in") for _ in range(12)), return_exceptions=True)

        assert {type(answer) for answer in answers} == {ChannelRefused}
        assert "ssh open channel failed" in str(answers[0])
        assert pool.is_connected(host.id)


@asynccontextmanager
async def scripted(
    here: Here,
    sshd: Sshd,
    on_session: Callable[[asyncssh.SSHServerConnection], Any] = lambda _: None,
    on_command: Callable[[asyncssh.SSHServerConnection], Any] = lambda _: None,
) -> AsyncIterator[tuple[Host, list[str]]]:
    """A host that does what a real one does at the wrong moment only; and the commands that it was asked to run."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    commands: list[str] = []

    class Session(asyncssh.SSHServerSession[str]):
        def __init__(self, connection: asyncssh.SSHServerConnection) -> None:
            self._connection = connection

        def exec_requested(self, command: str) -> bool:
            commands.append(command)
            on_command(self._connection)
            return False

    class Server(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            self._connection = conn

        def begin_auth(self, username: str) -> bool:
            return False

        def session_requested(self) -> Any:
            on_session(self._connection)
            return Session(self._connection)

    listener = await asyncssh.listen("127.0.0.1", 0, server_factory=Server, server_host_keys=[key], config=None)
    async with listener:
        port = listener.get_port()
        here.known_hosts.write_text(f"[127.0.0.1]:{port} {key.export_public_key().decode()}")
        yield here.host(sshd, port=port), commands


class TestLostConnections:
    async def test_a_lost_connection_is_opened_again_for_the_next_command(
        self, make_sshd: MakeSshd, here: Here, pool: SshConnectionPool
    ) -> None:
        sshd = make_sshd()
        here.know(sshd)
        host = here.host(sshd)
        process = await started(pool, host)
        assert pool.is_connected(host.id)
        pool.facts(host)["known"] = True
        sshd.restart()

        with pytest.raises(ConnectionBroken, match="connection closed"):
            await process.read()
        process.close()
        await eventually(lambda: not pool.is_connected(host.id), "the status tells that it is lost")
        assert await said(pool, host, "echo in") == b"in\n"
        assert pool.is_connected(host.id)
        assert pool.facts(host) == {}

    async def test_a_command_that_comes_before_the_loss_is_known_runs_once(
        self, make_sshd: MakeSshd, here: Here, pool: SshConnectionPool
    ) -> None:
        sshd = make_sshd()
        here.know(sshd)
        host = here.host(sshd)
        await pool.connect(host)
        sshd.restart()
        answer = await asyncio.gather(said(pool, host, "echo once >>effects"), return_exceptions=True)

        assert answer[0] == b"" or isinstance(answer[0], ConnectionBroken)
        if answer[0] == b"":
            assert (sshd.home / "effects").read_text() == "once\n"
        await said(pool, host, "true")

    @pytest.mark.parametrize("way", ["abort", "close"])
    async def test_a_command_that_may_have_begun_is_never_run_again(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool, way: str
    ) -> None:
        async with scripted(here, sshd, on_command=lambda connection: getattr(connection, way)()) as (host, commands):
            with pytest.raises(ConnectionBroken, match="connection closed"):
                await pool.open(host, "effect")
            assert commands == ["effect"]
            await eventually(lambda: not pool.is_connected(host.id), "the loss is noticed")

    async def test_a_command_whose_effect_has_been_seen_is_never_run_again(
        self, make_sshd: MakeSshd, here: Here, pool: SshConnectionPool
    ) -> None:
        sshd = make_sshd()
        here.know(sshd)
        host = here.host(sshd)
        running = asyncio.create_task(said(pool, host, "echo once >>effects; exec sleep 1000"))
        await eventually(lambda: (sshd.home / "effects").exists(), "the command has begun")
        sshd.restart()

        with pytest.raises(ConnectionBroken, match="connection closed"):
            await running
        await said(pool, host, "true")
        assert (sshd.home / "effects").read_text() == "once\n"

    async def test_a_connection_that_ends_before_a_command_begins_is_opened_again_once(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        asked: list[asyncssh.SSHServerConnection] = []

        def end(connection: asyncssh.SSHServerConnection) -> None:
            asked.append(connection)
            connection.abort()

        async with scripted(here, sshd, end) as (host, commands):
            with pytest.raises(ConnectionBroken, match="connection closed"):
                await pool.open(host, "effect")
        assert len(asked) == 2
        assert commands == []

    async def test_what_the_host_refuses_to_do_is_no_lost_connection_and_takes_no_place(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        async with scripted(here, sshd) as (host, commands):
            for _ in range(2 * ALL_CHANNELS):
                with pytest.raises(RemoteFailed, match="doesn't do"):
                    await pool.open(host, "effect")
            assert len(commands) == 2 * ALL_CHANNELS
            assert pool.is_connected(host.id)
            await pool.close()

    async def test_failures_to_connect_take_no_places(self, sshd: Sshd, here: Here, pool: SshConnectionPool) -> None:
        for _ in range(2 * ALL_CHANNELS):
            with pytest.raises(HostUnreachable):
                await said(pool, here.host(sshd, port=1), "true")

    async def test_those_who_wait_for_one_connection_share_its_failure(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connect, "LOGIN_S", 0.3)
        attempts = 0

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal attempts
            attempts += 1
            writers.append(writer)

        writers: list[asyncio.StreamWriter] = []
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            host = here.host(sshd, port=server.sockets[0].getsockname()[1])
            answers = await asyncio.gather(*(said(pool, host, "true") for _ in range(20)), return_exceptions=True)
            # Eight had places, and twelve came after them: each waited for one attempt at most.
            assert {type(answer) for answer in answers} == {HostTimedOut}
            assert attempts <= 3
            with pytest.raises(HostTimedOut):
                await pool.connect(host)
            for writer in writers:
                writer.close()

    async def test_the_status_tells_of_a_dead_link_within_the_keepalive(
        self,
        slow_link: Callable[..., DistantSshd],
        here: Here,
        pool: SshConnectionPool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(connect, "KEEPALIVE_S", 0.2)
        sshd = slow_link()
        here.know(sshd)
        host = here.host(sshd)
        process = await started(pool, host)
        sshd.cut()
        start_s = time.monotonic()

        with pytest.raises(HostTimedOut, match="timed out"):
            await process.read()
        assert not pool.is_connected(host.id)
        assert time.monotonic() - start_s < 5
        process.close()

    async def test_a_silent_link_that_lives_is_kept(
        self, sshd: Sshd, host: Host, pool: SshConnectionPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connect, "KEEPALIVE_S", 0.05)
        assert await said(pool, host, "sleep 1; echo in") == b"in\n"

    async def test_disconnecting_fails_what_runs_and_forgets_the_connection(
        self, sshd: Sshd, host: Host, pool: SshConnectionPool
    ) -> None:
        process = await started(pool, host)
        assert await said(pool, host, "echo in") == b"in\n"
        pool.disconnect(host.id)

        assert not pool.is_connected(host.id)
        with pytest.raises(ConnectionBroken, match="connection closed"):
            await process.read()
        process.close()
        assert await said(pool, host, "echo in") == b"in\n"
        pool.disconnect("ssh:nobody")

    async def test_disconnecting_ends_an_attempt_to_connect(
        self, sshd: Sshd, here: Here, host: Host, pool: SshConnectionPool
    ) -> None:
        connecting = asyncio.create_task(pool.connect(host))
        await settled()
        pool.disconnect(host.id)

        with pytest.raises(ConnectionBroken):
            await connecting
        await eventually(lambda: not sshd.connections(), "no connection is left")

    async def test_an_attempt_that_is_cancelled_leaves_no_connection_and_the_next_one_succeeds(
        self, sshd: Sshd, host: Host, pool: SshConnectionPool
    ) -> None:
        for turns in range(0, 60, 5):
            connecting = asyncio.create_task(pool.connect(host))
            for _ in range(turns):
                await asyncio.sleep(0)
            connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await connecting
            pool.disconnect(host.id)
        await eventually(lambda: not sshd.connections(), "no connection is left")
        for _ in range(ALL_CHANNELS):
            opening = asyncio.create_task(pool.open(host, WAITING))
            await settled()
            opening.cancel()
            await asyncio.wait([opening])
            assert opening.cancelled()
        for process in await fill(pool, host):
            process.close()


class TestIdle:
    async def test_an_idle_connection_is_closed(
        self, sshd: Sshd, host: Host, pool: SshConnectionPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(links, "IDLE_CONNECTION_S", 0.3)
        await pool.connect(host)
        await eventually(lambda: not pool.is_connected(host.id), "it is closed")
        await said(pool, host, "true")
        await eventually(lambda: not pool.is_connected(host.id), "it is closed")
        await eventually(lambda: not sshd.connections(), "the host knows it too")

    async def test_a_connection_is_idle_from_the_end_of_its_last_command(
        self, sshd: Sshd, host: Host, pool: SshConnectionPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(links, "IDLE_CONNECTION_S", 0.6)
        assert await said(pool, host, "sleep 1; echo in") == b"in\n"
        start_s = time.monotonic()
        await eventually(lambda: not pool.is_connected(host.id), "it is closed")
        assert time.monotonic() - start_s > 0.5


class TestSettings:
    async def test_other_settings_are_another_connection_and_what_runs_ends_on_the_old_one(
        self, sshd: Sshd, here: Here, host: Host, pool: SshConnectionPool
    ) -> None:
        process = await started(pool, host)
        changed = here.host(sshd, username=sshd.root.name)
        assert await said(pool, changed, "id -un") == b"root\n"
        assert sshd.connections() == 2
        await process.write(b"still here\n")
        assert await process.read() == b"still here\n"
        await ended(process)
        await eventually(lambda: sshd.connections() == 1, "the old connection is closed")
        await pool.connect(here.host(sshd, label="another"))
        await eventually(lambda: sshd.connections() == 1, "the old connection, on which nothing ran, is closed")

    async def test_what_runs_on_an_old_connection_ends_with_disconnect_and_close(
        self, sshd: Sshd, here: Here, host: Host, pool: SshConnectionPool
    ) -> None:
        for end in (lambda: pool.disconnect(host.id), None):
            process = await started(pool, host)
            await pool.connect(here.host(sshd, label=f"another {end}"))
            if end is not None:
                end()
            else:
                await pool.close()
            with pytest.raises(ConnectionBroken):
                await process.read()
            process.close()
            await eventually(lambda: not sshd.connections(), "both connections are closed")

    async def test_the_passphrase_outlives_a_change_of_other_settings(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(sshd)
        locked = {"key_path": str(sshd.encrypted_key)}
        await pool.connect(here.host(sshd, **locked), PASSPHRASE)
        await pool.connect(here.host(sshd, **locked, label="another"))

    async def test_hosts_that_another_directory_knows_are_known_from_there(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        host = here.host(sshd)
        with pytest.raises(Exception, match="not known"):
            await pool.connect(host)
        here.own_known_hosts = here.home / "elsewhere" / "known_hosts"
        await pool.trust(here.host(sshd), sshd.fingerprints["ssh-ed25519"])
        await pool.connect(here.host(sshd))


class TestTransfers:
    async def test_the_bytes_of_input_output_and_errors_are_counted(
        self, sshd: Sshd, here: Here, host: Host, pool: SshConnectionPool
    ) -> None:
        process = await pool.open(host, "cat; head -c 5000 /dev/zero >&2")
        sent = bytes(range(256)) * 4000
        received = b""
        for start in range(0, len(sent), 10_000):
            await process.write(sent[start : start + 10_000])
        process.write_eof()
        while chunk := await process.read():
            received += chunk
        counted = pool.transfers(host.id)

        assert received == sent
        assert (counted.uploaded_bytes, counted.downloaded_bytes) == (len(sent), len(sent) + 5000)
        up, down = counted.rates()
        assert (up, down) == (len(sent) // 5, (len(sent) + 5000) // 5)
        pool.disconnect(host.id)
        await pool.connect(here.host(sshd, label="another"))
        assert pool.transfers(host.id).uploaded_bytes == len(sent)
        assert pool.transfers("ssh:nobody").rates() == (0, 0)
        assert pool.transfers("ssh:nobody") is not pool.transfers("ssh:nobody"), "kept, for whatever id is asked"

    async def test_the_bytes_of_sftp_are_counted(self, sshd: Sshd, host: Host, pool: SshConnectionPool) -> None:
        (sshd.home / "large").write_bytes(b"x" * 300_000)
        async with pool.sftp(host) as client, client.open("large", "rb") as file:
            assert len(await file.read()) == 300_000
        counted = pool.transfers(host.id)

        assert 300_000 < counted.downloaded_bytes < 310_000
        assert 100 < counted.uploaded_bytes < 10_000


class TestClose:
    async def test_closing_leaves_no_task_thread_or_descriptor(self, sshd: Sshd, here: Here, host: Host) -> None:
        async def use(pool: SshConnectionPool) -> None:
            async with pool.sftp(host) as client:
                await client.realpath(".")
            process = await started(pool, host)
            await pool.close()
            with pytest.raises(ConnectionBroken):
                await process.read()

        # What asyncio keeps for later is there after the first time.
        await use(SshConnectionPool())
        descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        for _ in range(3):
            await use(SshConnectionPool())
        await eventually(lambda: len(os.listdir("/proc/self/fd")) <= descriptors, "no descriptor is left")
        await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()}, "no task is left")
        assert threading.active_count() <= threads + 1
        await eventually(lambda: not sshd.connections(), "no connection is left")

    async def test_closing_does_not_wait_for_a_host_that_says_nothing(
        self, make_sshd: MakeSshd, here: Here, pool: SshConnectionPool
    ) -> None:
        sshd = make_sshd()
        here.know(sshd)
        process = await started(pool, here.host(sshd))
        sshd.stop_all()
        start_s = time.monotonic()
        await pool.close()
        assert time.monotonic() - start_s < 2
        process.close()
        sshd.continue_all()
