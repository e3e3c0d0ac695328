"""Logins: with keys, an agent, passwords, and what ``~/.ssh/config`` says; and why there is none."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from sidecar.errors import (
    HostKeyUnknown,
    HostTimedOut,
    HostUnreachable,
    LoginRefused,
    PassphraseNeeded,
    RemoteFailed,
    SidecarError,
    SourceUnreadable,
)
from sidecar.remote import connect, refusals
from sidecar.remote.pool import Host, SshConnectionPool
from tests.client import WITHIN_S, eventually, is_running
from tests.remote.pools import Here, MakeSshd, keygen, said
from tests.remote.slow_link import DistantSshd
from tests.remote.sshd import PASSPHRASE, PASSWORD, Sshd

WRONG = "no such passphrase"


@pytest.fixture(scope="module")
def jump() -> Iterator[Sshd]:
    with Sshd() as host:
        yield host


@pytest.fixture(scope="module")
def second_jump() -> Iterator[Sshd]:
    with Sshd(key_types=["ed25519"]) as host:
        yield host


async def refused(pool: SshConnectionPool, host: Host, words: str = "permission denied") -> LoginRefused:
    with pytest.raises(LoginRefused, match=words) as caught:
        await pool.connect(host)
    return caught.value


def stanza(alias: str, host: Sshd, *more: str) -> list[str]:
    """What a configuration says of a host, but for how to log in there."""
    return [f"Host {alias}", f"HostName {host.host}", f"Port {host.port}", f"User {host.user}", *more]


@contextmanager
def agent(here: Here, *keys: Path, options: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """An ``ssh-agent`` that holds these keys, and of whose socket ``here`` knows."""
    path = str(here.home / "agent")
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL) as process:
        try:
            deadline_s = time.monotonic() + WITHIN_S
            while not os.path.exists(path):
                assert time.monotonic() < deadline_s
            here.environ["SSH_AUTH_SOCK"] = path
            for key in keys:
                _add(path, key, options)
            yield process
        finally:
            process.terminate()


def _add(agent_path: str, key: Path, options: tuple[str, ...]) -> None:
    ask = key.parent / "ask"
    ask.write_text(f"#!/bin/sh\necho '{PASSPHRASE}'\n")
    ask.chmod(0o755)
    environ = {**os.environ, "SSH_AUTH_SOCK": agent_path, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
    subprocess.run(["ssh-add", "-q", *options, key], env=environ, check=True, capture_output=True)


class TestKeys:
    async def test_a_key_file_logs_in(self, sshd: Sshd, here: Here, pool: SshConnectionPool) -> None:
        here.know(sshd)

        for account in (sshd.walker, sshd.root):
            host = here.host(sshd, id=account.name, username=account.name)
            assert await said(pool, host, "id -un") == f"{account.name}\n".encode()

    async def test_a_key_where_openssh_looks_for_one_needs_no_name(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(sshd)
        host = here.host(sshd, key_path=None)
        await refused(pool, host)
        shutil.copy(sshd.client_key, here.ssh / "id_ed25519")
        await pool.connect(host)

    async def test_where_a_key_is_named_no_other_is_offered(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(sshd)
        shutil.copy(sshd.client_key, here.ssh / "id_ed25519")
        keygen("-q", "-t", "ed25519", "-N", "", "-f", here.ssh / "stranger")
        await refused(pool, here.host(sshd, key_path="~/.ssh/stranger"))
        shutil.copy(sshd.encrypted_key, here.ssh / "locked")
        with pytest.raises(PassphraseNeeded):
            await pool.connect(here.host(sshd, key_path="~/.ssh/locked"))

    async def test_a_key_file_that_is_not_there_or_is_none_says_which(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(sshd)
        with pytest.raises(SourceUnreadable, match=r"no such file.*/missing"):
            await pool.connect(here.host(sshd, key_path="~/.ssh/missing"))
        (here.ssh / "text").write_text("not a key")
        with pytest.raises(SourceUnreadable, match=r"no private key.*/text"):
            await pool.connect(here.host(sshd, key_path="~/.ssh/text"))

    @pytest.mark.parametrize("form", ["RFC4716", "PEM", "PKCS8"])
    async def test_an_encrypted_key_asks_for_its_passphrase_in_every_form(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool, form: str
    ) -> None:
        here.know(sshd)
        key = here.ssh / "locked"
        keygen("-q", "-t", "ecdsa", "-m", form, "-N", PASSPHRASE, "-f", key)
        with sshd.authorized_keys.open("a") as file:
            file.write(key.with_suffix(".pub").read_text())
        host = here.host(sshd, key_path=str(key))

        for wrong in (None, WRONG):
            with pytest.raises(PassphraseNeeded, match="passphrase") as caught:
                await pool.connect(host, wrong)
            assert caught.value.details == {"path": str(key)}
        await pool.connect(host, PASSPHRASE)

    async def test_a_passphrase_that_was_good_is_kept_until_disconnect(
        self, make_sshd: MakeSshd, here: Here, pool: SshConnectionPool
    ) -> None:
        sshd = make_sshd()
        here.know(sshd)
        host = here.host(sshd, key_path=str(sshd.encrypted_key))
        await pool.connect(host, PASSPHRASE)
        sshd.restart()
        await eventually(lambda: not pool.is_connected(host.id), "the end of the connection is noticed")
        with pytest.raises(PassphraseNeeded):
            await pool.connect(host, WRONG)

        assert await said(pool, host, "echo in") == b"in\n"
        pool.disconnect(host.id)
        with pytest.raises(PassphraseNeeded):
            await said(pool, host, "echo in")

    async def test_a_stored_passphrase_is_as_good(self, sshd: Sshd, here: Here, pool: SshConnectionPool) -> None:
        here.know(sshd)
        await pool.connect(here.host(sshd, key_path=str(sshd.encrypted_key), passphrase=PASSPHRASE))

    async def test_a_certificate_beside_a_key_is_shown(
        self, make_sshd: MakeSshd, here: Here, pool: SshConnectionPool
    ) -> None:
        authority, key = here.home / "ca", here.ssh / "id"
        for path in (authority, key):
            keygen("-q", "-t", "ed25519", "-N", "", "-f", path)
        sshd = make_sshd(extra=[f"TrustedUserCAKeys {authority}.pub"])
        here.know(sshd)
        host = here.host(sshd, key_path=str(key))
        await refused(pool, host)
        keygen("-q", "-s", authority, "-I", "me", "-n", sshd.user, f"{key}.pub")
        await pool.connect(host)


class TestAgent:
    async def test_the_keys_of_an_agent_log_in(self, sshd: Sshd, here: Here, pool: SshConnectionPool) -> None:
        here.know(sshd)
        with agent(here, sshd.client_key):
            await pool.connect(here.host(sshd, key_path=None))

    async def test_a_locked_key_that_the_agent_holds_needs_no_passphrase(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(sshd)
        with agent(here, sshd.encrypted_key):
            await pool.connect(here.host(sshd, key_path=str(sshd.encrypted_key)))

    async def test_where_only_named_keys_are_wanted_the_agent_gives_no_others(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(sshd)
        keygen("-q", "-t", "ed25519", "-N", "", "-f", here.ssh / "stranger")
        with agent(here, sshd.client_key, sshd.encrypted_key):
            for named, works in ((here.ssh / "stranger", False), (sshd.encrypted_key, True)):
                here.configure(*stanza("alias", sshd, "IdentitiesOnly yes", f"IdentityFile {named}"))
                if works:
                    await pool.connect(here.alias("alias"))
                else:
                    await refused(pool, here.alias("alias"))
            shutil.copy(sshd.client_key, here.ssh / "id_ed25519")
            here.configure(*stanza("alias", sshd, "IdentitiesOnly yes", "IdentityFile none"))
            await refused(pool, here.alias("alias", id="none"))

    @pytest.mark.parametrize("suffix", ["", ".pub"])
    async def test_a_public_key_names_one_of_the_agents(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool, suffix: str
    ) -> None:
        here.know(sshd)
        shutil.copy(f"{sshd.client_key}.pub", here.ssh / "mine.pub")
        with agent(here, sshd.client_key):
            await pool.connect(here.host(sshd, id="form", key_path=f"~/.ssh/mine{suffix}"))
            here.configure(*stanza("alias", sshd, "IdentitiesOnly yes", f"IdentityFile ~/.ssh/mine{suffix}"))
            await pool.connect(here.alias("alias"))

    async def test_a_named_key_does_not_stand_behind_all_that_the_agent_holds(
        self, make_sshd: MakeSshd, here: Here, pool: SshConnectionPool
    ) -> None:
        sshd = make_sshd(extra=["MaxAuthTries 3"])
        here.know(sshd)
        strangers = [here.ssh / f"stranger{number}" for number in range(4)]
        for stranger in strangers:
            keygen("-q", "-t", "ed25519", "-N", "", "-f", stranger)
        with agent(here, *strangers):
            await pool.connect(here.host(sshd))
            # A host that has seen too many says so in words of its own.
            await refused(pool, here.host(sshd, id="other", key_path=None))
        with agent(here, *strangers, sshd.encrypted_key):
            await pool.connect(here.host(sshd, id="locked", key_path=str(sshd.encrypted_key)))

    async def test_an_agent_that_refuses_to_sign_is_told_of(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here.know(sshd)
        # It would ask for each use, and has nobody to ask.
        monkeypatch.setenv("SSH_ASKPASS", "/bin/false")
        monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
        with agent(here, sshd.client_key, options=("-c",)):
            error = await refused(pool, here.host(sshd, key_path=None), "agent refused operation")

        assert "sign_and_send_pubkey" in error.message

    async def test_an_agent_that_has_gone_is_no_obstacle(self, sshd: Sshd, here: Here, pool: SshConnectionPool) -> None:
        here.know(sshd)
        here.environ["SSH_AUTH_SOCK"] = str(here.home / "gone")
        await pool.connect(here.host(sshd))

    async def test_the_configuration_may_name_another_agent_or_none(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(sshd)
        with agent(here, sshd.client_key):
            path = here.environ["SSH_AUTH_SOCK"]
            here.configure(*stanza("alias", sshd, "IdentityAgent none"))
            await refused(pool, here.alias("alias"))
            for words in (path, "SSH_AUTH_SOCK", "$OTHER"):
                here.environ["OTHER"] = path
                here.configure(*stanza("alias", sshd, f"IdentityAgent {words}"))
                await pool.connect(here.alias("alias", id=words))


class TestPasswords:
    async def test_a_password_lets_in_and_a_wrong_one_does_not(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(sshd)
        by_password = {"username": sshd.walker.name, "auth_method": "password", "key_path": None}
        await pool.connect(here.host(sshd, **by_password, password=PASSWORD))
        for wrong in (PASSWORD[:-1], "", None):
            await refused(pool, here.host(sshd, id="other", **by_password, password=wrong))

    async def test_no_secret_is_in_an_error_or_a_log(
        self,
        sshd: Sshd,
        here: Here,
        pool: SshConnectionPool,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        here.know(sshd)
        caplog.set_level(logging.DEBUG)
        caplog.set_level(logging.DEBUG, "asyncssh")
        secret, other = "a-secret-password", "a-secret-passphrase"
        hosts = [
            here.host(sshd, auth_method="password", password=secret),
            here.host(sshd, id="locked", key_path=str(sshd.encrypted_key), passphrase=other),
            here.host(sshd, id="password", auth_method="password", username=sshd.walker.name, password=PASSWORD),
        ]
        shown = []
        for host in hosts:
            try:
                await pool.connect(host)
            except SidecarError as error:
                shown += [error.message, repr(error), repr(error.details), repr(host)]
        with pytest.raises(PassphraseNeeded):
            await pool.connect(hosts[1], other)

        assert pool.is_connected("password")
        assert len(shown) == 8
        assert "Auth failed for user" in caplog.text
        for text in (*shown, caplog.text):
            assert not [word for word in (secret, other, PASSWORD) if word in text]


class TestConfiguration:
    async def test_an_alias_is_all_that_must_be_said(self, sshd: Sshd, here: Here, pool: SshConnectionPool) -> None:
        here.know(sshd)
        here.configure(
            *("Host other", "HostName 192.0.2.1", "Include more/*.conf", "Host *", f"IdentityFile {sshd.client_key}")
        )
        (here.ssh / "more").mkdir()
        # The first value counts, of files in the order of their names.
        (here.ssh / "more" / "b.conf").write_text("Host alias\nUser nobody\nPort 1\n")
        (here.ssh / "more" / "a.conf").write_text("\n".join(stanza("alias", sshd)))
        (here.ssh / "config").write_text("Include more/*.conf\n" + (here.ssh / "config").read_text())

        assert await said(pool, here.alias("alias"), "id -un") == f"{sshd.user}\n".encode()

    async def test_what_the_form_says_wins(self, sshd: Sshd, here: Here, pool: SshConnectionPool) -> None:
        here.know(sshd)
        here.configure(
            *("Host alias", "User nobody", "Port 1", f"HostName {sshd.host}", f"IdentityFile {sshd.client_key}")
        )
        host = here.alias("alias", username=sshd.root.name, port=sshd.port)
        assert await said(pool, host, "id -un") == b"root\n"

    @pytest.mark.parametrize(
        ("criteria", "holds"),
        [
            ("host 127.0.0.1", True),
            ("originalhost alias", True),
            ("host 127.0.0.1 originalhost other", False),
            ('exec "test -d ~"', True),
            ('exec "exit 1"', False),
            ("all", True),
            ('originalhost "alias" # a comment', True),
        ],
    )
    async def test_a_match_decides_whether_its_block_counts(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool, criteria: str, holds: bool
    ) -> None:
        here.know(sshd)
        here.configure(
            *("Host alias", f"HostName {sshd.host}", f"Port {sshd.port}", f"IdentityFile {sshd.client_key}"),
            *(f"Match {criteria}", f"User {sshd.root.name}", "Match all", f"User {sshd.walker.name}"),
        )
        assert await said(pool, here.alias("alias"), "id -un") == (b"root\n" if holds else b"walker\n")

    @pytest.mark.parametrize(
        "line",
        [
            "Frobnicate yes",
            "Port twenty",
            "User",
            "User two words",
            "Compression perhaps",
            'User "unclosed',
            "User it's",
            "IdentityFile ~/.ssh/%Q",
            "IdentityFile ${NO_SUCH_VARIABLE}/key",
            "HostName %Q",
            "CertificateFile ~/.ssh/missing-cert.pub",
            "PKCS11Provider /missing.so",
            "EnableSSHKeySign yes",
            "Ciphers of-tomorrow",
            "MACs of-tomorrow,of-next-year",
            "KexAlgorithms of-tomorrow",
            "HostKeyAlgorithms of-tomorrow",
            "PubkeyAcceptedAlgorithms of-tomorrow",
            "Frobnicate \udcff\udcfe",
            'Match ""',
            "Match frobnicated yes",
            "Match",
            "Host",
            "Include ~/.ssh/config",
            "Include missing-*",
            'Include "unclosed',
        ],
    )
    @pytest.mark.parametrize("where", ["first", "included"])
    async def test_one_line_that_is_not_understood_disables_nothing(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool, line: str, where: str
    ) -> None:
        here.know(sshd)
        text = f"{line}\n".encode(errors="surrogateescape")
        if where == "included":
            (here.ssh / "broken").write_bytes(text)
            text = b"Include broken\n"
        proper = "\n".join(["", *stanza("alias", sshd, f"IdentityFile {sshd.client_key}"), ""])
        (here.ssh / "config").write_bytes(text + proper.encode())

        assert await said(pool, here.alias("alias"), "id -un") == f"{sshd.user}\n".encode()

    @pytest.mark.parametrize("head", ["Match frobnicated yes", "Match", 'Match ""', 'Match host "unclosed', "Host"])
    async def test_what_follows_a_head_that_is_not_understood_is_nobodys(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool, head: str
    ) -> None:
        here.know(sshd)
        here.configure(
            *("Host alias", f"HostName {sshd.host}", f"Port {sshd.port}", f"IdentityFile {sshd.client_key}"),
            *(head, f"User {sshd.root.name}", "Host alias", f"User {sshd.walker.name}"),
        )
        assert await said(pool, here.alias("alias"), "id -un") == b"walker\n"

    async def test_a_comment_behind_a_value_costs_not_the_value(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(sshd)
        here.configure(
            *("Host alias # the host's alias", f"HostName {sshd.host} # it's here", f"Port {sshd.port} # and there"),
            *(f"User {sshd.user}#", f"User {sshd.user}", f'IdentityFile "{sshd.client_key}" # "mine"'),
        )
        host = here.alias("alias", username=sshd.user)
        assert await said(pool, host, "echo in") == b"in\n"

    async def test_no_line_of_the_file_is_in_a_log(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool, caplog: pytest.LogCaptureFixture
    ) -> None:
        here.know(sshd)
        here.configure(*stanza("alias", sshd, "User my s3cret", f"IdentityFile {sshd.client_key}"))
        await pool.connect(here.alias("alias"))

        assert "config, line 5" in caplog.text
        assert "s3cret" not in caplog.text

    async def test_files_that_include_each_other_have_an_end(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(sshd)
        here.configure("Include config config", *stanza("alias", sshd, f"IdentityFile {sshd.client_key}"))
        await pool.connect(here.alias("alias"))

    async def test_what_a_match_runs_runs_few_times(self, sshd: Sshd, here: Here, pool: SshConnectionPool) -> None:
        here.know(sshd)
        here.configure(
            f'Match exec "echo >>{here.home}/runs"', *stanza("alias", sshd, f"IdentityFile {sshd.client_key}")
        )
        await pool.connect(here.alias("alias"))
        # Here, and where asyncssh connects.
        assert len((here.home / "runs").read_text()) == 2

    async def test_nothing_is_left_of_the_copies_that_are_read(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here.know(sshd)
        folder = here.home / "tmp"
        folder.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        here.configure("Match exec", *stanza("alias", sshd, f"IdentityFile {sshd.client_key}"))
        await pool.connect(here.alias("alias"))

        assert list(folder.iterdir()) == []

    async def test_a_proxy_command_is_for_the_shell(self, sshd: Sshd, here: Here, pool: SshConnectionPool) -> None:
        here.know(sshd)
        errors = here.home / "errors"
        proxy = here.home / "proxy.py"
        proxy.write_text(_PROXY)
        here.configure(
            *stanza("alias", sshd, f"IdentityFile {sshd.client_key}"),
            f'ProxyCommand "{sys.executable}" "{proxy}" %h %p 2>"{errors}"',
        )
        assert await said(pool, here.alias("alias"), "echo in") == b"in\n"
        pid = int(errors.read_text())
        assert is_running(pid)
        await pool.close()
        await eventually(lambda: not is_running(pid), "the command has ended with the connection")

    async def test_settings_for_other_purposes_are_not_ours(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(sshd)
        with agent(here, sshd.client_key):
            here.configure(
                *stanza("alias", sshd, f"ForwardAgent {here.environ['SSH_AUTH_SOCK']}", "RequestTTY force"),
                "RemoteCommand exit 3",
                *("SetEnv NAME=value", "SendEnv HOME", "ForwardX11Trusted yes", "LocalForward 1 localhost:2"),
            )
            host = here.alias("alias")
            command = 'echo "${SSH_AUTH_SOCK-none}"; tty || true'
            assert await said(pool, host, command) == b"none\nnot a tty\n"
            async with pool.sftp(host) as client:
                assert await client.realpath(".") == str(sshd.home)


_PROXY = """
import os, select, socket, sys
print(os.getpid(), file=sys.stderr, flush=True)
link = socket.create_connection((sys.argv[1], int(sys.argv[2])))
while True:
    ready = select.select([0, link], [], [])[0]
    for source, target in ((0, link.sendall), (link, lambda data: os.write(1, data))):
        if source in ready:
            data = os.read(0, 65536) if source == 0 else link.recv(65536)
            if not data:
                sys.exit()
            target(data)
"""


class TestJumps:
    @pytest.fixture
    def over_one(self, sshd: Sshd, jump: Sshd, here: Here) -> Host:
        here.configure(
            *stanza("target", sshd, "ProxyJump jump", f"IdentityFile {sshd.client_key}"),
            *stanza("jump", jump, f"IdentityFile {jump.client_key}"),
        )
        return here.alias("target")

    async def test_a_host_is_reached_over_another(
        self, sshd: Sshd, jump: Sshd, here: Here, pool: SshConnectionPool, over_one: Host
    ) -> None:
        here.know(sshd, jump)
        assert await said(pool, over_one, "echo in") == b"in\n"
        assert jump.connections() == 1
        await pool.close()
        await eventually(lambda: not jump.connections() + sshd.connections(), "both connections have ended")

    async def test_a_host_is_reached_over_two_others_as_they_are_named_in_the_line(
        self, sshd: Sshd, jump: Sshd, second_jump: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(sshd, jump, second_jump)
        here.configure(
            f"Host target\nProxyJump {jump.user}@{jump.host}:{jump.port},ssh://second",
            *stanza("target", sshd, f"IdentityFile {sshd.client_key}"),
            *stanza("second", second_jump, f"IdentityFile {second_jump.client_key}"),
            *(f"Match host {jump.host}", f"IdentityFile {jump.client_key}"),
        )
        assert await said(pool, here.alias("target"), "echo in") == b"in\n"
        assert (jump.connections(), second_jump.connections()) == (1, 1)

    async def test_a_jump_may_have_a_jump(
        self, sshd: Sshd, jump: Sshd, second_jump: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(sshd, jump, second_jump)
        here.configure(
            *stanza("target", sshd, "ProxyJump second", f"IdentityFile {sshd.client_key}"),
            *stanza("second", second_jump, "ProxyJump jump", f"IdentityFile {second_jump.client_key}"),
            *stanza("jump", jump, f"IdentityFile {jump.client_key}"),
        )
        assert await said(pool, here.alias("target"), "echo in") == b"in\n"
        assert (jump.connections(), second_jump.connections()) == (1, 1)

    async def test_each_key_on_the_way_is_shown_and_accepted_in_turn(
        self, sshd: Sshd, jump: Sshd, here: Here, pool: SshConnectionPool, over_one: Host
    ) -> None:
        for host in (jump, sshd):
            with pytest.raises(HostKeyUnknown) as caught:
                await pool.connect(over_one)
            assert caught.value.details["port"] == host.port
            assert caught.value.details["fingerprint"] == host.fingerprints["ssh-ed25519"]
            with pytest.raises(HostKeyUnknown):
                await pool.trust(over_one, "SHA256:" + "A" * 43)
            await pool.trust(over_one, caught.value.details["fingerprint"])
        await pool.connect(over_one)
        await eventually(lambda: (jump.connections(), sshd.connections()) == (1, 1), "no other connection is left")

    async def test_the_key_of_the_jumps_address_is_not_that_of_the_host_behind_it(
        self, sshd: Sshd, jump: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        key = jump.host_keys["ssh-ed25519"].split()[1]
        here.know(jump)
        # Behind the jump the host has a name of its own, under which another key is shown than its address has here.
        with here.known_hosts.open("a") as file:
            file.write(f"[{jump.host}]:{sshd.port} ssh-ed25519 {key}\n")
        here.configure(
            *("Host target", "HostName localhost", f"Port {sshd.port}", f"User {sshd.user}", "ProxyJump jump"),
            *stanza("jump", jump, f"IdentityFile {jump.client_key}"),
        )
        with pytest.raises(HostKeyUnknown) as caught:
            await pool.connect(here.alias("target"))
        assert caught.value.details["host"] == "localhost"

    async def test_a_line_that_is_not_understood_of_a_jump_disables_nothing(
        self, sshd: Sshd, jump: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(sshd, jump)
        here.configure(
            *stanza("target", sshd, "ProxyJump jump", f"IdentityFile {sshd.client_key}"),
            *stanza("jump", jump, "Compression perhaps", f"IdentityFile {jump.client_key}"),
        )
        await pool.connect(here.alias("target"))

    async def test_jumps_that_lead_to_each_other_are_an_error(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.configure("Host *", "ProxyJump jump")
        with pytest.raises(RemoteFailed, match="more than"):
            await pool.connect(here.alias("target"))

    async def test_a_host_that_the_jump_cannot_reach_leaves_no_connection(
        self, jump: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(jump)
        here.configure(
            *("Host target", "HostName 127.0.0.1", "Port 1", "ProxyJump jump"),
            *stanza("jump", jump, f"IdentityFile {jump.client_key}"),
        )
        with pytest.raises(HostUnreachable, match=r"failed to open channel.*refused"):
            await pool.connect(here.alias("target"))
        await eventually(lambda: not jump.connections(), "no connection is left")

    async def test_a_jump_that_ends_ends_the_connection(
        self, sshd: Sshd, make_sshd: MakeSshd, here: Here, pool: SshConnectionPool
    ) -> None:
        jump = make_sshd()
        here.know(sshd, jump)
        here.configure(
            *stanza("target", sshd, "ProxyJump jump", f"IdentityFile {sshd.client_key}"),
            *stanza("jump", jump, f"IdentityFile {jump.client_key}"),
        )
        await pool.connect(here.alias("target"))
        jump.kill()
        await eventually(lambda: not pool.is_connected("ssh:host"), "the end of the jump is noticed")


@asynccontextmanager
async def listening(answer: bytes = b"", *, ends: bool = False) -> AsyncIterator[int]:
    """The port of something that is no sshd: it says ``answer``, and then nothing, or goodbye."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        if ends:
            writer.close()
        else:
            writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        for writer in writers:
            writer.close()
        server.close()
        await server.wait_closed()


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (connect, refusals):
        monkeypatch.setattr(module, "CONNECT_S", 0.4)
        monkeypatch.setattr(module, "LOGIN_S", 0.8)


class TestNoConnection:
    @pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
    async def test_a_port_where_nothing_listens_refuses(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool, name: str
    ) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            host = here.host(sshd, host=name, port=taken.getsockname()[1])
            with pytest.raises(HostUnreachable, match=f"^connection refused: {name}$"):
                await pool.connect(host)

    async def test_a_name_that_nobody_knows(self, sshd: Sshd, here: Here, pool: SshConnectionPool) -> None:
        with pytest.raises(HostUnreachable, match=r"nobody\.invalid can't be resolved"):
            await pool.connect(here.host(sshd, host="nobody.invalid"))

    async def test_a_host_that_loses_all_packets_is_given_up_in_time(
        self, slow_link: Callable[..., DistantSshd], here: Here, pool: SshConnectionPool, short_limits: None
    ) -> None:
        host = slow_link()
        host.cut()
        start_s = time.monotonic()
        with pytest.raises(HostTimedOut, match=r"timed out: .* didn't answer"):
            await pool.connect(here.host(host))
        assert 0.3 < time.monotonic() - start_s < 5

    async def test_a_host_that_says_nothing_is_given_up_in_time(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool, short_limits: None
    ) -> None:
        async with listening() as port:
            start_s = time.monotonic()
            with pytest.raises(HostTimedOut, match=r"timed out: .* the login"):
                await pool.connect(here.host(sshd, port=port))
            assert 0.7 < time.monotonic() - start_s < 5

    async def test_a_stopped_host_is_given_up_in_time(
        self, make_sshd: MakeSshd, here: Here, pool: SshConnectionPool, short_limits: None
    ) -> None:
        sshd = make_sshd()
        sshd.stop_all()
        with pytest.raises(HostTimedOut, match="timed out"):
            await pool.connect(here.host(sshd))
        sshd.continue_all()

    async def test_a_stopped_agent_is_no_obstacle_for_long(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sidecar.remote.keys.AGENT_S", 0.2)
        here.know(sshd)
        with agent(here, sshd.encrypted_key) as process:
            process.send_signal(signal.SIGSTOP)
            try:
                await pool.connect(here.host(sshd))
            finally:
                process.send_signal(signal.SIGCONT)

    async def test_what_ends_at_once_has_closed_the_connection(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        async with listening(ends=True) as port:
            with pytest.raises(HostUnreachable, match=r"connection (closed|reset)"):
                await pool.connect(here.host(sshd, port=port))

    async def test_what_is_no_sshd_is_unreachable(self, sshd: Sshd, here: Here, pool: SshConnectionPool) -> None:
        async with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 1000) as port:
            with pytest.raises(HostUnreachable):
                await pool.connect(here.host(sshd, port=port))

    async def test_an_unreadable_list_of_hosts_says_which(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.known_hosts.mkdir()
        with pytest.raises(SourceUnreadable, match=re.escape(str(here.known_hosts))):
            await pool.connect(here.host(sshd))
