"""Host keys: which are trusted, how one becomes so, and what is never sent to a host that isn't."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest

from sidecar.errors import HostKeyChanged, HostKeyUnknown, LoginRefused, SourceUnreadable
from sidecar.remote.pool import Host, SshConnectionPool
from tests.remote.pools import Here, MakeSshd, keygen, said
from tests.remote.sshd import PASSWORD, Sshd

FAILED = "host key verification failed"


@pytest.fixture(scope="module")
def other() -> Iterator[Sshd]:
    """Another host, for its keys."""
    with Sshd() as host:
        yield host


async def unknown(pool: SshConnectionPool, host: Host) -> HostKeyUnknown:
    with pytest.raises(HostKeyUnknown, match=FAILED) as caught:
        await pool.connect(host)
    assert not pool.is_connected(host.id)
    return caught.value


async def changed(pool: SshConnectionPool, host: Host) -> HostKeyChanged:
    with pytest.raises(HostKeyChanged, match=FAILED) as caught:
        await pool.connect(host)
    assert not pool.is_connected(host.id)
    return caught.value


def line(host: Sshd, key: str, name: str | None = None) -> str:
    return f"{name or f'[{host.host}]:{host.port}'} {key}\n"


class TestUnknown:
    async def test_an_unknown_host_is_an_error_that_tells_its_key(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        error = await unknown(pool, here.host(sshd))

        assert error.details == {
            "host": sshd.host,
            "port": sshd.port,
            "algorithm": "ssh-ed25519",
            "fingerprint": sshd.fingerprints["ssh-ed25519"],
        }
        assert sshd.fingerprints["ssh-ed25519"] in error.message
        assert not here.own_known_hosts.exists()

    async def test_the_key_that_was_shown_can_be_trusted_and_then_is(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        host = here.host(sshd)
        shown = (await unknown(pool, host)).details["fingerprint"]
        await pool.trust(host, shown)

        assert here.own_known_hosts.read_text() == line(sshd, sshd.host_keys["ssh-ed25519"])
        assert stat.S_IMODE(here.own_known_hosts.stat().st_mode) == 0o600
        assert not here.known_hosts.exists()
        await pool.connect(host)
        assert pool.is_connected(host.id)

    async def test_trust_opens_no_connection_and_needs_no_login(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        host = here.host(sshd, username="nobody-of-this-name", auth_method="password", password="wrong")
        for _ in range(2):
            await pool.trust(host, sshd.fingerprints["ssh-ed25519"])

        assert not pool.is_connected(host.id)
        assert len(here.own_known_hosts.read_text().splitlines()) == 1
        assert "nobody-of-this-name" not in sshd.log

    async def test_another_fingerprint_than_the_hosts_is_refused_and_changes_nothing(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        # That of a key which the host has too, but didn't show.
        with pytest.raises(HostKeyUnknown) as caught:
            await pool.trust(here.host(sshd), sshd.fingerprints["ssh-rsa"])

        assert caught.value.details["fingerprint"] == sshd.fingerprints["ssh-ed25519"]
        assert not here.own_known_hosts.exists()

    async def test_a_trusted_host_can_not_be_trusted_by_another_key_as_well(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(sshd)
        with pytest.raises(HostKeyUnknown, match="trusted already") as caught:
            await pool.trust(here.host(sshd), "SHA256:" + "A" * 43)

        assert caught.value.details["fingerprint"] == sshd.fingerprints["ssh-ed25519"]
        assert caught.value.details["port"] == sshd.port

    async def test_a_name_that_would_write_other_entries_is_not_written(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.configure("Host alias", f"HostName {sshd.host}", f"Port {sshd.port}", "HostKeyAlias *,web")
        with pytest.raises(SourceUnreadable, match="known_hosts"):
            await pool.trust(here.alias("alias"), sshd.fingerprints["ssh-ed25519"])

        assert not here.own_known_hosts.exists()


class TestKnown:
    @pytest.mark.parametrize("algorithm", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"])
    async def test_the_key_by_which_a_host_is_known_is_asked_for(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool, algorithm: str
    ) -> None:
        here.known_hosts.write_text(sshd.known_hosts_line(algorithm))
        await pool.connect(here.host(sshd))

    async def test_hashed_names_are_known(self, sshd: Sshd, here: Here, pool: SshConnectionPool) -> None:
        here.know(sshd)
        keygen("-H", "-f", here.known_hosts)

        assert here.known_hosts.read_text().startswith("|1|")
        await pool.connect(here.host(sshd))

    async def test_our_own_file_counts_as_well(self, sshd: Sshd, here: Here, pool: SshConnectionPool) -> None:
        here.own_known_hosts.parent.mkdir()
        here.own_known_hosts.write_text(sshd.known_hosts_line())
        await pool.connect(here.host(sshd))

    async def test_a_key_of_the_bare_name_is_good_for_every_port(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.known_hosts.write_text(line(sshd, sshd.host_keys["ssh-ed25519"], sshd.host))
        await pool.connect(here.host(sshd))

    async def test_another_key_of_the_bare_name_says_nothing_of_this_port(
        self, sshd: Sshd, other: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.known_hosts.write_text(line(sshd, other.host_keys["ssh-ed25519"], sshd.host))
        await unknown(pool, here.host(sshd))

    async def test_a_key_of_the_address_says_nothing_of_the_name(
        self, sshd: Sshd, other: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.known_hosts.write_text(line(sshd, sshd.host_keys["ssh-ed25519"]))
        await unknown(pool, here.host(sshd, host="localhost"))
        here.known_hosts.write_text(line(sshd, other.host_keys["ssh-ed25519"]))
        await unknown(pool, here.host(sshd, host="localhost"))

    async def test_case_does_not_count_in_names(self, sshd: Sshd, here: Here, pool: SshConnectionPool) -> None:
        key = sshd.host_keys["ssh-ed25519"]
        here.known_hosts.write_text(line(sshd, key, f"[LocalHost]:{sshd.port}"))
        await pool.connect(here.host(sshd, host="LOCALhost"))

    async def test_lines_that_cannot_be_read_do_not_count(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        broken = [b"one-word", b"|1|not base 64 ssh-ed25519 AAAA", b"@strange host ssh-ed25519 AAAA", b"\xff\xfe \x00"]
        broken += [
            b"host ssh-ed25519 AAAA",
            b"[unclosed ssh-ed25519",
            b"# a comment",
            b"@revoked",
            b"10.0.0.0/99 ssh-rsa",
        ]
        here.known_hosts.write_bytes(b"\n".join([*broken, sshd.known_hosts_line().encode()]))
        await pool.connect(here.host(sshd))

    async def test_what_a_crash_left_of_a_line_does_not_swallow_the_next(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.own_known_hosts.parent.mkdir()
        here.own_known_hosts.write_text("[127.0.0.1]:1 ssh-ed255")
        await pool.trust(here.host(sshd), sshd.fingerprints["ssh-ed25519"])

        assert here.own_known_hosts.read_text().splitlines()[1] + "\n" == sshd.known_hosts_line("ssh-ed25519")
        await pool.connect(here.host(sshd))

    async def test_an_alias_for_keys_stands_for_name_and_port(
        self, sshd: Sshd, other: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.configure(
            *("Host alias", f"HostName {sshd.host}", f"Port {sshd.port}", f"User {sshd.user}"),
            *("HostKeyAlias bastion", f"IdentityFile {sshd.client_key}"),
        )
        host = here.alias("alias")
        error = await unknown(pool, host)
        assert (error.details["host"], error.details["port"]) == ("bastion", 22)
        here.known_hosts.write_text(line(sshd, other.host_keys["ssh-ed25519"], "bastion"))
        await changed(pool, host)
        here.known_hosts.write_text("")
        await pool.trust(host, sshd.fingerprints["ssh-ed25519"])
        assert here.own_known_hosts.read_text().startswith("bastion ssh-ed25519 ")
        await pool.connect(host)

    async def test_the_files_that_the_configuration_names_count_instead(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        (here.ssh / "mine").write_text(sshd.known_hosts_line())
        here.configure(
            *("Host alias", f"HostName {sshd.host}", f"Port {sshd.port}", f"User {sshd.user}"),
            *("UserKnownHostsFile ~/.ssh/mine", f"IdentityFile {sshd.client_key}"),
        )
        await pool.connect(here.alias("alias"))


class TestChanged:
    async def test_a_changed_key_is_an_error_of_its_own_and_is_never_accepted(
        self, make_sshd: MakeSshd, here: Here, pool: SshConnectionPool
    ) -> None:
        sshd = make_sshd()
        host = here.host(sshd)
        await pool.trust(host, sshd.fingerprints["ssh-ed25519"])
        await pool.connect(host)
        before = here.own_known_hosts.read_text()
        sshd.restart(new_host_keys=True)

        with pytest.raises(HostKeyChanged, match=FAILED):
            await said(pool, host, "echo in")
        error = await changed(pool, host)
        assert error.details["fingerprint"] == sshd.fingerprints["ssh-ed25519"]
        with pytest.raises(HostKeyChanged):
            await pool.trust(host, sshd.fingerprints["ssh-ed25519"])
        assert here.own_known_hosts.read_text() == before

    async def test_a_host_that_is_known_by_another_kind_of_key_is_unknown(
        self, make_sshd: MakeSshd, other: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        sshd = make_sshd(key_types=["ed25519"])
        here.known_hosts.write_text(line(sshd, other.host_keys["ssh-rsa"]))
        host = here.host(sshd)

        await pool.trust(host, (await unknown(pool, host)).details["fingerprint"])
        await pool.connect(host)

    async def test_of_several_known_keys_one_is_enough(
        self, sshd: Sshd, other: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        keys = other.host_keys["ssh-ed25519"], sshd.host_keys["ssh-ed25519"]
        here.known_hosts.write_text("".join(line(sshd, key) for key in keys))
        await pool.connect(here.host(sshd))

    @pytest.mark.parametrize("name", [None, "*", "127.0.0.1"])
    async def test_a_revoked_key_is_good_for_nothing(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool, name: str | None
    ) -> None:
        key = sshd.host_keys["ssh-ed25519"]
        here.known_hosts.write_text(f"@revoked {line(sshd, key, name)}" + line(sshd, key) + line(sshd, key, sshd.host))
        error = await changed(pool, here.host(sshd))

        assert "revoked" in error.message
        assert error.details["fingerprint"] == sshd.fingerprints["ssh-ed25519"]
        with pytest.raises(HostKeyChanged):
            await pool.trust(here.host(sshd), sshd.fingerprints["ssh-ed25519"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("authority") / "ca"
    keygen("-q", "-t", "ed25519", "-N", "", "-f", path)
    return path


@pytest.fixture(scope="module")
def certified(authority: Path) -> Iterator[Sshd]:
    """A host with a certificate for its ed25519 key, for the name ``localhost`` alone."""
    key = authority.with_name("host_key")
    keygen("-q", "-t", "ed25519", "-N", "", "-f", key)
    keygen("-q", "-s", authority, "-I", "host", "-h", "-n", "localhost", f"{key}.pub")
    with Sshd(key_types=["rsa"], extra=[f"HostKey {key}", f"HostCertificate {key}-cert.pub"]) as host:
        yield host


class TestCertificates:
    async def test_a_certificate_of_a_trusted_authority_is_enough(
        self, certified: Sshd, authority: Path, here: Here, pool: SshConnectionPool
    ) -> None:
        public_key = authority.with_suffix(".pub").read_text()
        here.known_hosts.write_text(f"@cert-authority [localhost]:* {public_key}")
        await pool.connect(here.host(certified, host="localhost"))

    async def test_a_certificate_for_another_name_is_not_but_the_key_itself_may_be(
        self, certified: Sshd, authority: Path, here: Here, pool: SshConnectionPool
    ) -> None:
        authorities = f"@cert-authority * {authority.with_suffix('.pub').read_text()}"
        here.known_hosts.write_text(authorities)
        error = await unknown(pool, here.host(certified))
        assert error.details["algorithm"] == "ssh-ed25519"
        assert error.details["fingerprint"] in keygen("-l", "-f", authority.with_name("host_key.pub"))
        await pool.trust(here.host(certified), error.details["fingerprint"])
        await pool.connect(here.host(certified))

    @pytest.mark.parametrize("is_host_key", [True, False], ids=["host", "authority"])
    async def test_a_certificate_of_or_by_a_revoked_key_is_not(
        self, certified: Sshd, authority: Path, here: Here, pool: SshConnectionPool, is_host_key: bool
    ) -> None:
        public_keys = [path.with_suffix(".pub").read_text() for path in (authority, authority.with_name("host_key"))]
        here.known_hosts.write_text(f"@cert-authority * {public_keys[0]}@revoked * {public_keys[is_host_key]}")
        await (changed if is_host_key else unknown)(pool, here.host(certified, host="localhost"))

    async def test_an_authority_of_other_hosts_is_none_of_this_one(
        self, certified: Sshd, authority: Path, here: Here, pool: SshConnectionPool
    ) -> None:
        here.known_hosts.write_text(f"@cert-authority *.example {authority.with_suffix('.pub').read_text()}")
        await unknown(pool, here.host(certified, host="localhost"))


class _Recorder(asyncssh.SSHServer):
    """Notes who tries to log in, and with what."""

    def __init__(self, attempts: list[str]) -> None:
        self._attempts = attempts

    def begin_auth(self, username: str) -> bool:
        self._attempts.append(username)
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        self._attempts.append(password)
        return False


@asynccontextmanager
async def recording(attempts: list[str], key: asyncssh.SSHKey) -> AsyncIterator[int]:
    """The port of a server that an in-process one has to be: a real one keeps what it is sent to itself."""
    listener = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=lambda: _Recorder(attempts), server_host_keys=[key], config=None
    )
    async with listener:
        yield listener.get_port()


class TestPasswords:
    async def test_nothing_of_a_login_reaches_a_host_that_is_not_trusted(
        self, sshd: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        attempts: list[str] = []
        key, old = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
        async with recording(attempts, key) as port:
            host = here.host(sshd, port=port, username="me", auth_method="password", password=PASSWORD)
            await unknown(pool, host)
            with pytest.raises(HostKeyUnknown):
                await pool.trust(host, old.get_fingerprint())
            entry = f"[127.0.0.1]:{port} {{}}\n"
            here.known_hosts.write_text(entry.format(old.export_public_key().decode().strip()))
            await changed(pool, host)
            assert attempts == []
            here.known_hosts.write_text(entry.format(key.export_public_key().decode().strip()))
            with pytest.raises(LoginRefused):
                await pool.connect(host)
            assert attempts[0] == "me"
            assert PASSWORD in attempts

    async def test_trust_sends_nothing_of_a_login(self, sshd: Sshd, here: Here, pool: SshConnectionPool) -> None:
        attempts: list[str] = []
        key = asyncssh.generate_private_key("ssh-ed25519")
        async with recording(attempts, key) as port:
            host = here.host(sshd, port=port, auth_method="password", password=PASSWORD)
            await pool.trust(host, key.get_fingerprint())

        assert attempts == []
