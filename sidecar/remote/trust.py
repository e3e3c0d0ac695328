"""Which host keys are trusted: those of OpenSSH's ``known_hosts`` files, and of one of our own.

Only ours is ever written, at ``<clawpal>/known_hosts`` in the same format. A line that can't be read counts as absent.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from asyncssh import SSHKey
from asyncssh.known_hosts import SSHKnownHosts
from asyncssh.public_key import get_default_certificate_algs, get_default_public_key_algs

from sidecar.errors import HostKeyChanged, HostKeyUnknown, SourceUnreadable
from sidecar.limits import MAX_KNOWN_HOSTS_BYTES

DEFAULT_PORT = 22


class _Found(NamedTuple):
    """What the files say of one host: keys, keys of authorities, and revoked keys."""

    keys: list[SSHKey]
    authorities: list[SSHKey]
    revoked: list[SSHKey]


@dataclass(slots=True)
class KnownHosts:
    """The trusted keys of hosts, read anew for each connection."""

    paths: Sequence[str]
    own_path: str
    _read: SSHKnownHosts = field(init=False)

    def __post_init__(self) -> None:
        self._read = SSHKnownHosts()
        for path in (*self.paths, self.own_path):
            for line in _lines(path):
                try:
                    self._read.load(line)
                except (ValueError, UnicodeError):  # one bad line must not disable every host
                    continue

    def find(self, host: str, address: str, port: int) -> _Found:
        """What is known of a host under its name or address, as OpenSSH looks it up.

        Under another port than 22 it has an entry of its own, ``[host]:port``. Keys of the bare name count too, but
        only to be trusted: that they differ doesn't mean that the key has changed.
        """
        at_port = None if port == DEFAULT_PORT else port
        keys, authorities, revoked, *_ = self._read.match(host, address, at_port)
        return _Found(list(keys), list(authorities), list(revoked))

    def algorithms(self, host: str, port: int) -> list[bytes]:
        """Which algorithms to ask a host for its key in, those first in which it is known.

        Of the others none is left out: a host that is known by another kind of key is then unknown, not unreachable.
        """
        known = self.find(host, "", port)
        wanted = [algorithm for key in known.keys for algorithm in key.sig_algorithms]
        certified = get_default_certificate_algs() if known.authorities else []
        usable = get_default_public_key_algs()
        # asyncssh would ask for RSA first, OpenSSH for what it holds to be better.
        better = sorted(usable, key=lambda name: (b"ed25519" not in name, b"ecdsa" not in name))
        return list(dict.fromkeys([*certified, *(name for name in wanted if name in usable), *better]))

    def judge(self, host: str, address: str, port: int, key: SSHKey) -> None:
        """Return if ``key`` is that of the host, else raise ``HostKeyUnknown`` or ``HostKeyChanged``."""
        found = self.find(host, address, port)
        if key in found.revoked:
            raise HostKeyChanged(f"{_FAILED}: the key of {host} is revoked", **describe(host, port, key))
        if key in found.keys:
            return
        if any(known.algorithm == key.algorithm for known in self._own_entries(host, address, port)):
            raise HostKeyChanged(
                f"{_FAILED}: the key of {host} has changed, which may be an attack; its fingerprint is now "
                f"{key.get_fingerprint()}. If that is right, remove the old key from known_hosts and try again",
                **describe(host, port, key),
            )
        raise HostKeyUnknown(
            f"{_FAILED}: {host} is not known; its key has the fingerprint {key.get_fingerprint()}",
            **describe(host, port, key),
        )

    def trust(self, host: str, port: int, key: SSHKey) -> None:
        """Remember ``key`` as that of the host, durably. ``OSError`` if it can't be written."""
        name = host if port == DEFAULT_PORT else f"[{host}]:{port}"
        line = b"%b %b\n" % (name.encode(), key.export_public_key("openssh").split(b"\n")[0])
        os.makedirs(os.path.dirname(self.own_path), mode=0o700, exist_ok=True)
        # Appending one short line is atomic, and nothing that was trusted before is at risk.
        fd = os.open(self.own_path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size_bytes = os.fstat(fd).st_size
            torn = size_bytes > 0 and os.pread(fd, 1, size_bytes - 1) != b"\n" if hasattr(os, "pread") else False
            os.write(fd, b"\n" + line if torn else line)
            os.fsync(fd)
        finally:
            os.close(fd)
        self._read.load(line.decode())

    def _own_entries(self, host: str, address: str, port: int) -> Iterable[SSHKey]:
        """The keys that are on record for this very port."""
        if port == DEFAULT_PORT:
            return self.find(host, address, port).keys
        # Without a port of its own, the lookup is of exactly the names it is given.
        name, at_address = f"[{host}]:{port}", f"[{address}]:{port}" if address else ""
        exact = self._read.match(name, "", None)[0]
        return [*exact, *(self._read.match(at_address, "", None)[0] if at_address else ())]


_FAILED = "host key verification failed"


def describe(host: str, port: int, key: SSHKey) -> dict[str, str | int]:
    """What a client needs to ask its user about a key: ``{host, port, algorithm, fingerprint}``."""
    return {"host": host, "port": port, "algorithm": key.get_algorithm(), "fingerprint": key.get_fingerprint()}


def _lines(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_KNOWN_HOSTS_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return []
    if len(data) > MAX_KNOWN_HOSTS_BYTES:
        raise SourceUnreadable(f"the list of known hosts is too large: {path}")
    return data.decode("utf-8", "replace").split("\n")
