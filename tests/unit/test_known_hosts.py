"""What ``known_hosts`` files say of hosts, whatever stands in them. Logins against them are in ``tests/remote``."""

from __future__ import annotations

import os
import stat
from functools import cache
from pathlib import Path

import asyncssh
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.errors import HostKeyChanged, HostKeyUnknown, SidecarError, SourceUnreadable
from sidecar.remote import trust
from sidecar.remote.trust import KnownHosts


def key(name: str, algorithm: str = "ssh-ed25519") -> asyncssh.SSHKey:
    return _made(name, algorithm)


@cache
def _made(name: str, algorithm: str) -> asyncssh.SSHKey:
    return asyncssh.generate_private_key(algorithm, comment=name).convert_to_public()


def public(name: str, algorithm: str = "ssh-ed25519") -> str:
    return key(name, algorithm).export_public_key().decode().strip()


def known(folder: Path, *lines: str) -> KnownHosts:
    (folder / "known_hosts").write_text("\n".join(lines) + "\n")
    return KnownHosts([str(folder / "known_hosts"), str(folder / "missing")], str(folder / "own" / "known_hosts"))


def verdict(hosts: KnownHosts, host: str, port: int, name: str) -> str:
    try:
        hosts.judge(host, port, key(name))
    except SidecarError as error:
        return error.kind
    return "known"


@pytest.mark.parametrize(
    ("line", "host", "port", "expected"),
    [
        ("web {old}", "web", 22, "host_key_changed"),
        ("web {new}", "web", 22, "known"),
        ("WEB {new}", "Web", 22, "known"),
        ("web,10.0.0.1 {new}", "10.0.0.1", 22, "known"),
        ("other {new}", "web", 22, "host_key_unknown"),
        ("[web]:22 {new}", "web", 22, "host_key_unknown"),
        ("[web]:2222 {new}", "web", 2222, "known"),
        ("[web]:2222 {old}", "web", 2222, "host_key_changed"),
        ("[web]:2222 {old}", "web", 22, "host_key_unknown"),
        ("web {new}", "web", 2222, "known"),
        ("web {old}", "web", 2222, "host_key_unknown"),
        ("*.example {new}", "web.example", 22, "known"),
        ("*.example,!web.example {new}", "web.example", 22, "host_key_unknown"),
        ("*.example {old}", "web.example", 22, "host_key_changed"),
        ("@revoked * {new}", "web", 22, "host_key_changed"),
        ("@revoked * {old}", "web", 22, "host_key_unknown"),
        ("@cert-authority * {new}", "web", 22, "host_key_unknown"),
        ("2001:db8::1 {new}", "2001:DB8::1", 22, "known"),
        ("# web {new}", "web", 22, "host_key_unknown"),
    ],
)
def test_a_line_is_read_as_openssh_reads_it(tmp_path: Path, line: str, host: str, port: int, expected: str) -> None:
    hosts = known(tmp_path, line.format(old=public("old"), new=public("new")))

    assert verdict(hosts, host, port, "new") == expected


def test_a_key_that_is_trusted_by_name_and_revoked_by_port_is_not_trusted(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"web {public('new')}", f"@revoked [web]:2222 {public('new')}")

    assert verdict(hosts, "web", 2222, "new") == "host_key_changed"
    assert verdict(hosts, "web", 22, "new") == "known"


def test_a_key_of_the_bare_name_does_not_stand_for_another_one_of_the_port(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"[web]:2222 {public('old')}", f"web {public('new')}")

    assert verdict(hosts, "web", 2222, "new") == "host_key_changed"


def test_the_algorithm_of_a_known_key_is_asked_for_first_and_no_other_left_out(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"[web]:2222 {public('web', 'ecdsa-sha2-nistp256')}", f"web {public('rsa', 'ssh-rsa')}")
    usual = KnownHosts([], str(tmp_path / "none")).algorithms("web", 22, certified=False)

    assert usual[0] == b"ssh-ed25519"
    at_port = hosts.algorithms("web", 2222, certified=False)
    assert at_port[0] == b"ecdsa-sha2-nistp256"
    assert at_port[1].startswith(b"rsa-sha2-")
    assert hosts.algorithms("web", 22, certified=False)[0].startswith(b"rsa-sha2-")
    assert set(at_port) == set(usual)
    assert b"-cert-" in hosts.algorithms("web", 22, certified=True)[0]


def test_what_is_trusted_is_known_at_once_and_later_and_stands_for_that_port_alone(tmp_path: Path) -> None:
    hosts = known(tmp_path)
    hosts.trust("Web", 2222, key("new"))
    hosts.trust("2001:db8::1", 22, key("new"))
    own = tmp_path / "own" / "known_hosts"

    for read in (hosts, known(tmp_path)):
        assert verdict(read, "web", 2222, "new") == "known"
        assert verdict(read, "2001:db8::1", 22, "new") == "known"
        assert verdict(read, "web", 22, "new") == "host_key_unknown"
    assert own.read_text() == f"[web]:2222 {public('new')}\n2001:db8::1 {public('new')}\n"
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    assert stat.S_IMODE(own.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "*", "a,b", "!a", "|1|a", "#a", "@revoked", "a?"])
def test_a_name_that_means_something_else_in_the_file_is_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceUnreadable):
        known(tmp_path).trust(name, 22, key("new"))
    assert not os.path.exists(tmp_path / "own")


def test_a_list_that_is_too_large_is_an_error_and_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "MAX_KNOWN_HOSTS_BYTES", 10)
    with pytest.raises(SourceUnreadable, match="too large"):
        known(tmp_path, f"web {public('new')}")


def test_the_errors_tell_what_to_ask_the_user(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"web {public('old')}")
    for host, kind in (("web", HostKeyChanged), ("other", HostKeyUnknown)):
        with pytest.raises(kind, match="host key verification failed") as caught:
            hosts.judge(host, 22, key("new"))
        assert caught.value.details == {
            "host": host,
            "port": 22,
            "algorithm": "ssh-ed25519",
            "fingerprint": key("new").get_fingerprint(),
        }


_PARTS = st.sampled_from(["web", "@revoked", "@cert-authority", "|1|", "|1|AA==|AA==", "*", "!", ",", "[web]:22", "#"])
_TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
_KEYS = st.sampled_from(["ssh-ed25519", "ssh-rsa AAAA", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA", "1024 35 1", "x" * 300])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.one_of(_PARTS, _TEXTS, _KEYS), max_size=4).map(" ".join), max_size=8), st.binary(max_size=9)
)
def test_no_other_line_hides_a_good_one(tmp_path: Path, lines: list[str], tail: bytes) -> None:
    hosts = known(tmp_path)
    good = f"[web]:2222 {public('new')}\n".encode()
    other = "\n".join(lines).replace(public("new"), "").encode()
    (tmp_path / "known_hosts").write_bytes(other + b"\n" + good + tail)
    hosts = KnownHosts([str(tmp_path / "known_hosts")], str(tmp_path / "own"))

    assert verdict(hosts, "web", 2222, "new") == "known"
