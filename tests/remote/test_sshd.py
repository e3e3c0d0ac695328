"""The hosts of these tests are what they say: real logins, real faults, and nothing that outlives them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.client import WITHIN_S, eventually, is_running
from tests.remote import sshd as sshd_module
from tests.remote.node import node_executable
from tests.remote.slow_link import DistantSshd
from tests.remote.sshd import KEY_TYPES, PASSPHRASE, PASSWORD, Sshd, cannot, sshd_program, tools_folder

FOR_EVER = "sleep 1000"
# Long enough for an answer that comes at all.
NO_ANSWER_WITHIN_S = 0.5


def run(host: Sshd, command: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        host.ssh_command(command, user=user), capture_output=True, text=True, timeout=WITHIN_S, check=False
    )


def said(host: Sshd, command: str, user: str | None = None) -> str:
    ended = run(host, command, user)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@contextlib.asynccontextmanager
async def connected(host: Sshd, **options: Any) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """A connection of asyncssh that knows the host; by its key, unless told otherwise."""
    known = asyncssh.import_known_hosts("".join(map(host.known_hosts_line, host.host_keys)))
    chosen = {"username": host.user, "client_keys": [str(host.client_key)], **options}
    async with asyncssh.connect(
        host.host, host.port, config=None, agent_path=None, known_hosts=known, **chosen
    ) as connection:
        yield connection


async def echoed(process: asyncssh.SSHClientProcess[str], text: str) -> str:
    process.stdin.write(text + "\n")
    return (await process.stdout.readline()).rstrip("\n")


class TestLogins:
    def test_an_ordinary_user_and_root_log_in_with_homes_of_their_own(self, sshd: Sshd) -> None:
        for account in (sshd.walker, sshd.root):
            assert said(sshd, 'id -u; echo ~; echo "$HOME"; pwd', account.name).splitlines() == [
                str(account.uid),
                *[str(account.home)] * 3,
            ]

    def test_an_ordinary_user_may_not_do_what_root_may(self, sshd: Sshd) -> None:
        ended = run(sshd, f"touch {sshd.root.home}/mine", sshd.walker.name)

        assert ended.returncode != 0
        assert "Permission denied" in ended.stderr

    def test_the_system_never_sees_the_accounts(self, sshd: Sshd) -> None:
        assert said(sshd, f"getent passwd {sshd.walker.uid}").startswith("walker:")
        with pytest.raises(KeyError):
            pwd.getpwuid(sshd.walker.uid)

    async def test_a_password_lets_the_ordinary_user_in_but_not_root(self, sshd: Sshd) -> None:
        by_password = {"client_keys": None, "password": PASSWORD}

        async with connected(sshd, username=sshd.walker.name, **by_password) as connection:
            assert (await connection.run("id -un", check=True)).stdout == "walker\n"
        with pytest.raises(asyncssh.PermissionDenied):
            async with connected(sshd, username=sshd.root.name, **by_password):
                pass

    async def test_a_wrong_password_lets_nobody_in(self, sshd: Sshd) -> None:
        with pytest.raises(asyncssh.PermissionDenied):
            async with connected(sshd, username=sshd.walker.name, client_keys=None, password=PASSWORD[:-1]):
                pass

    async def test_the_encrypted_key_logs_in_once_its_passphrase_is_given(self, sshd: Sshd) -> None:
        key = [str(sshd.encrypted_key)]

        async with connected(sshd, client_keys=key, passphrase=PASSPHRASE) as connection:
            assert (await connection.run("echo in", check=True)).stdout == "in\n"
        with pytest.raises(asyncssh.KeyEncryptionError):
            asyncssh.read_private_key(key[0], PASSPHRASE[:-1])

    async def test_files_are_read_over_sftp(self, sshd: Sshd, tmp_path: Path) -> None:
        (sshd.home / "read me").write_bytes(b"\xff\x00")

        async with connected(sshd) as connection, connection.start_sftp_client() as client:
            assert await client.realpath(".") == str(sshd.home)
            await client.get("read me", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == b"\xff\x00"


class TestOptions:
    async def test_a_connection_has_as_many_sessions_as_the_host_allows(self, sshd_two_sessions: Sshd) -> None:
        async with (
            connected(sshd_two_sessions) as connection,
            connection.create_process("cat") as first,
            connection.create_process("cat"),
        ):
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.create_process("cat")
            assert await echoed(first, "still here") == "still here"

    @pytest.mark.parametrize("shell", ["sh", "bash", "tcsh", "fish"])
    def test_the_login_shell_is_the_one_asked_for(self, make_sshd: Callable[..., Sshd], shell: str) -> None:
        host = make_sshd(shell=sshd_module.program(shell))

        for name in host.accounts:
            own_pid = "$fish_pid" if shell == "fish" else "$$"
            assert said(host, f"cat /proc/{own_pid}/comm; true", name) == shell

    def test_a_host_has_only_the_tools_that_are_in_its_path(self, make_sshd: Callable[..., Sshd]) -> None:
        with_python = make_sshd()
        path = tools_folder(with_python.folder / "bin", ["sh", "cat"], node=node_executable())
        host = make_sshd(path=str(path), shell="/bin/sh")

        look = "for tool in cat node python3; do command -v $tool; done; node --version"
        assert said(with_python, "command -v python3").endswith("/python3")
        for command in (look, f"sh -lc '{look}'"):
            assert said(host, command).splitlines() == [f"{path}/cat", f"{path}/node", "v24.19.0"]

    def test_variables_reach_every_command(self, make_sshd: Callable[..., Sshd]) -> None:
        host = make_sshd(environment={"OPENCLAW_HOME": "/a b", "LANG": "C"})

        assert said(host, 'echo "$OPENCLAW_HOME:$LANG"') == "/a b:C"

    async def test_a_line_of_configuration_wins_over_the_usual_ones(self, make_sshd: Callable[..., Sshd]) -> None:
        host = make_sshd(extra=["PasswordAuthentication no"])

        with pytest.raises(asyncssh.PermissionDenied):
            async with connected(host, client_keys=None, password=PASSWORD):
                pass

    def test_a_host_has_the_kinds_of_key_asked_for(self, make_sshd: Callable[..., Sshd]) -> None:
        assert list(make_sshd(key_types=["ecdsa"]).host_keys) == ["ecdsa-sha2-nistp256"]
        assert list(make_sshd(key_types=KEY_TYPES).host_keys) == ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"]


class TestHostKeys:
    def test_fingerprints_are_what_the_host_shows(self, sshd: Sshd) -> None:
        scan = ["ssh-keyscan", "-p", str(sshd.port), sshd.host]
        keys = subprocess.run(scan, capture_output=True, timeout=WITHIN_S, check=True).stdout
        shown = subprocess.run(["ssh-keygen", "-l", "-f", "-"], input=keys, capture_output=True, check=True).stdout

        assert {line.split()[1] for line in shown.decode().splitlines()} == set(sshd.fingerprints.values())
        assert len(sshd.fingerprints) == len(KEY_TYPES)

    def test_a_restarted_host_has_its_port_and_its_keys(self, make_sshd: Callable[..., Sshd]) -> None:
        host = make_sshd()
        before = (host.port, host.fingerprints)
        host.restart()

        assert (host.port, host.fingerprints) == before
        assert said(host, "echo back") == "back"

    def test_a_host_with_new_keys_is_a_stranger_on_the_same_port(self, make_sshd: Callable[..., Sshd]) -> None:
        host = make_sshd()
        as_before = host.ssh_command("true")
        known = (host.folder / "known_hosts").read_text()
        port, fingerprints = host.port, set(host.fingerprints.values())
        host.restart(new_host_keys=True)

        assert said(host, "echo new") == "new"
        (host.folder / "known_hosts").write_text(known)
        refused = subprocess.run(as_before, capture_output=True, text=True, timeout=WITHIN_S, check=False)
        assert refused.returncode == 255
        assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in refused.stderr
        assert host.port == port
        assert not fingerprints & set(host.fingerprints.values())


class TestFaults:
    async def test_connections_are_counted_while_they_stand(self, make_sshd: Callable[..., Sshd]) -> None:
        host = make_sshd()

        assert host.connections() == 0
        async with connected(host), connected(host):
            assert host.connections() == 2
        await eventually(lambda: host.connections() == 0, "both connections have ended")

    async def test_a_killed_host_drops_its_connections_and_takes_no_more(self, make_sshd: Callable[..., Sshd]) -> None:
        host = make_sshd()
        async with connected(host) as connection:
            host.kill()
            await asyncio.wait_for(connection.wait_closed(), WITHIN_S)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host.host, host.port)).close()

    async def test_a_stopped_host_answers_nothing_until_it_goes_on(self, make_sshd: Callable[..., Sshd]) -> None:
        host = make_sshd()
        async with connected(host) as connection, connection.create_process("cat") as process:
            assert await echoed(process, "before") == "before"
            host.stop_all()
            answer = asyncio.create_task(echoed(process, "meanwhile"))
            with socket.create_connection((host.host, host.port)) as stranger:
                stranger.settimeout(NO_ANSWER_WITHIN_S)
                with pytest.raises(TimeoutError):
                    stranger.recv(1)
                assert not (await asyncio.wait([answer], timeout=NO_ANSWER_WITHIN_S))[0]
                host.continue_all()
                stranger.settimeout(WITHIN_S)
                assert stranger.recv(8) == b"SSH-2.0-"
            assert await answer == "meanwhile"

    def test_a_small_disk_is_full_for_the_host_only(self, make_sshd: Callable[..., Sshd]) -> None:
        host = make_sshd()
        host.mount_small_disk(host.home / "disk", 64 * 1024)

        ended = run(host, "head -c 1000000 /dev/zero > disk/file")
        assert "No space left on device" in ended.stderr
        assert said(host, "wc -c < disk/file") == "65536"
        assert said(host, "head -c 1000000 /dev/zero > file; wc -c < file") == "1000000"


class TestProcesses:
    async def test_what_runs_on_the_host_is_seen_while_it_runs(self, make_sshd: Callable[..., Sshd]) -> None:
        host = make_sshd()
        async with connected(host) as connection, connection.create_process("exec cat") as process:
            assert await echoed(process, "ready") == "ready"
            assert [one.command for one in host.processes()] == ["cat"]
            assert is_running(host.processes()[0].pid)
            with pytest.raises(AssertionError, match="cat"):
                await host.wait_until_no_processes(NO_ANSWER_WITHIN_S)
            process.stdin.write_eof()
            await host.wait_until_no_processes(WITHIN_S)

    async def test_an_orphan_is_seen_when_neither_parent_nor_connection_nor_sshd_is_left(
        self, make_sshd: Callable[..., Sshd]
    ) -> None:
        host = make_sshd()
        said(host, f"exec env -i setsid -f {FOR_EVER} </dev/null >/dev/null 2>&1")
        await eventually(lambda: host.connections() == 0, "the connection has ended")
        host.kill()

        await eventually(lambda: [one.command for one in host.processes()] == [FOR_EVER], "the orphan is seen, alone")


class TestEnd:
    @staticmethod
    def everything(host: Sshd) -> list[int]:
        """A process of each kind that a host has; those of sshd can do nothing for their own end."""
        said(host, f"exec setsid -f {FOR_EVER} </dev/null >/dev/null 2>&1")
        command = host.ssh_command("echo in; exec cat")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout
            assert client.stdout.readline() == "in\n"
            host.stop_all()
            client.kill()
        assert len(host.processes()) == 2
        return host.all_pids()

    def test_nothing_is_left_of_a_host_when_its_test_fails(self) -> None:
        host = Sshd()
        pids = []

        def fail() -> None:
            with host:
                pids.extend(self.everything(host))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert len(pids) > 4
        assert not [pid for pid in pids if is_running(pid)]
        assert not host.folder.exists()

    async def test_nothing_is_left_of_a_host_when_the_tests_are_killed(self) -> None:
        script = (
            "import sys; from tests.remote.test_sshd import *\n"
            "with Sshd() as host: print(host.folder, *TestEnd.everything(host), flush=True); sys.stdin.read()"
        )
        tests = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", script),
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert tests.stdout
        folder, *numbers = (await tests.stdout.readline()).decode().split()
        pids = [int(number) for number in numbers]
        assert len(pids) > 4
        assert all(map(is_running, pids))
        tests.kill()
        await tests.wait()

        await eventually(lambda: not any(map(is_running, pids)), "all of the host has ended")
        await eventually(lambda: not os.path.exists(folder), "its folder is gone")


class TestSlowLink:
    async def test_a_link_that_is_cut_loses_everything_and_tells_nobody(
        self, slow_link: Callable[..., DistantSshd]
    ) -> None:
        host = slow_link()
        async with connected(host) as connection, connection.create_process("cat") as process:
            assert await echoed(process, "before") == "before"
            host.cut()
            carried_bytes = host.carried_bytes()
            answer = asyncio.create_task(echoed(process, "meanwhile"))
            assert not (await asyncio.wait([answer], timeout=NO_ANSWER_WITHIN_S))[0]
            assert host.carried_bytes() == carried_bytes
            assert host.connections() == 1
            with pytest.raises(TimeoutError):
                socket.create_connection((host.host, host.port), NO_ANSWER_WITHIN_S).close()
            host.restore()
            assert await asyncio.wait_for(answer, WITHIN_S) == "meanwhile"

    def test_a_narrow_link_carries_so_much_in_a_second(self, slow_link: Callable[..., DistantSshd]) -> None:
        host = slow_link()
        host.shape(rate_mbit=8)
        carried_bytes, start_s = host.carried_bytes(), time.monotonic()
        sent = said(host, "head -c 1000000 /dev/zero | tr '\\0' x")
        lasted_s, carried_bytes = time.monotonic() - start_s, host.carried_bytes() - carried_bytes

        assert 1_000_000 < carried_bytes < 1_200_000
        # Its buffer lets some more through at the beginning of an interval.
        assert lasted_s > 0.9
        assert len(sent) == 1_000_000

    async def test_a_long_link_is_late_in_both_directions(self, slow_link: Callable[..., DistantSshd]) -> None:
        host = slow_link()
        async with connected(host) as connection, connection.create_process("cat") as process:
            assert await echoed(process, "before") == "before"
            host.shape(delay_ms=100)
            start_s = time.monotonic()
            assert await echoed(process, "late") == "late"
            assert time.monotonic() - start_s >= 0.2

    def test_two_links_stand_side_by_side_and_leave_no_device(self) -> None:
        def devices() -> set[int]:
            return {index for index, _ in socket.if_nameindex()}

        with DistantSshd() as first, DistantSshd() as second:
            assert said(first, "echo first") == "first"
            assert said(second, "echo second") == "second"
            assert first.host != second.host
            own = {first.device_index, second.device_index}
            assert own <= devices()

        assert not own & devices()


class TestMissing:
    def test_a_machine_without_sshd_skips_and_says_why(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CI", raising=False)
        monkeypatch.setattr(sshd_module, "_SYSTEM_FOLDERS", "/nowhere")

        with pytest.raises(pytest.skip.Exception, match="openssh-server"):
            sshd_program()

    def test_under_ci_what_is_missing_is_a_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CI", "true")

        with pytest.raises(pytest.fail.Exception, match="this needs more"):
            cannot("this needs more")
