"""Which host keys are trusted: those of OpenSSH's ``known_hosts`` files, and of one of our own.

Only ours is ever written, at ``<clawpal>/known_hosts`` in the same format. A line that can't be read counts as absent.
Hosts are looked up by their names alone, as OpenSSH does: an address is that of whoever has it today.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from asyncssh import SSHKey
from asyncssh.known_hosts import SSHKnownHosts
from asyncssh.public_key import get_default_certificate_algs, get_default_public_key_algs

from sidecar.errors import HostKeyChanged, HostKeyUnknown, SourceUnreadable
from sidecar.limits import MAX_KNOWN_HOSTS_BYTES

DEFAULT_PORT = 22
FAILED = "host key verification failed"

_LINE = re.compile(r"(?P<marker>@\S+\s+)?(?P<names>[^#@\s]\S*)(?P<key>\s.+)")
# What would make another entry of it, or one of more hosts than this.
_NO_NAME = re.compile(r"[\s,*?!|/#@]|^$")


class _Found(NamedTuple):
    """What the files say of one name: keys, keys of authorities, and revoked keys."""

    keys: list[SSHKey]
    authorities: list[SSHKey]
    revoked: list[SSHKey]


@dataclass(slots=True)
class KnownHosts:
    """The trusted keys of hosts, read anew for each connection; takes a while for long lists."""

    paths: Sequence[str]
    own_path: str
    _read: SSHKnownHosts = field(init=False)

    def __post_init__(self) -> None:
        self._read = SSHKnownHosts()
        for path in (*self.paths, self.own_path):
            for line in _lines(path):
                match = _LINE.fullmatch(line.strip())
                if match is None:
                    continue
                # Case counts in what is hashed only; what is looked up is in lower case.
                names = match["names"] if match["names"].startswith("|") else match["names"].lower()
                try:
                    self._read.load(f"{match['marker'] or ''}{names}{match['key']}")
                except ValueError:  # one bad line must not disable every host
                    continue

    def authorities(self, host: str, port: int) -> tuple[list[SSHKey], list[SSHKey]]:
        """Whose certificates are good for this host, and the revoked keys, which aren't in any case."""
        found = self._find(_entry_name(host, port)), self._find(host.lower())
        return [*found[0].authorities, *found[1].authorities], [*found[0].revoked, *found[1].revoked]

    def algorithms(self, host: str, port: int, *, certified: bool) -> list[bytes]:
        """Which algorithms to ask a host for its key in, those first in which it is known.

        Of the others none is left out: a host that is known by another kind of key is then unknown, not unreachable.
        """
        known = [*self._find(_entry_name(host, port)).keys, *self._find(host.lower()).keys]
        wanted = [algorithm for key in known for algorithm in key.sig_algorithms]
        certificates = get_default_certificate_algs() if certified else []
        usable = get_default_public_key_algs()
        # asyncssh would ask for RSA first, OpenSSH for what it holds to be better.
        better = sorted(usable, key=lambda name: (name != b"ssh-ed25519", not name.startswith(b"ecdsa-")))
        return list(dict.fromkeys([*certificates, *(name for name in wanted if name in usable), *better]))

    def judge(self, host: str, port: int, key: SSHKey) -> None:
        """Return if ``key`` is that of the host, else raise ``HostKeyUnknown`` or ``HostKeyChanged``.

        Under another port than 22 a host has an entry of its own, ``[host]:port``. Keys of the bare name count too,
        but only to be trusted: that they differ doesn't mean that the key has changed.
        """
        own, bare = self._find(_entry_name(host, port)), self._find(host.lower())
        if key in own.revoked or key in bare.revoked:
            raise HostKeyChanged(f"{FAILED}: the key of {host} is revoked", **describe(host, port, key))
        if key in own.keys:
            return
        if any(known.algorithm == key.algorithm for known in own.keys):
            raise HostKeyChanged(
                f"{FAILED}: the key of {host} has changed, which may be an attack; its fingerprint is now "
                f"{key.get_fingerprint()}. If that is right, remove the old key from known_hosts and try again",
                **describe(host, port, key),
            )
        if key in bare.keys:
            return
        raise HostKeyUnknown(
            f"{FAILED}: {host} is not known; its key has the fingerprint {key.get_fingerprint()}",
            **describe(host, port, key),
        )

    def trust(self, host: str, port: int, key: SSHKey) -> None:
        """Remember ``key`` as that of the host, durably. ``OSError`` if it can't be written."""
        if _NO_NAME.search(host):
            raise SourceUnreadable(f"a host of such a name can't be written into known_hosts: {host}")
        line = b"%b %b\n" % (_entry_name(host, port).encode(), key.export_public_key("openssh").split(b"\n")[0])
        os.makedirs(os.path.dirname(self.own_path), mode=0o700, exist_ok=True)
        # Appending one short line is atomic, and nothing that was trusted before is at risk.
        fd = os.open(self.own_path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        try:
            is_torn = os.fstat(fd).st_size > 0 and os.lseek(fd, -1, os.SEEK_END) >= 0 and os.read(fd, 1) != b"\n"
            os.write(fd, b"\n" + line if is_torn else line)
            os.fsync(fd)
        finally:
            os.close(fd)
        self._read.load(line.decode())

    def _find(self, name: str) -> _Found:
        keys, authorities, revoked, *_ = self._read.match(name, "", None)
        return _Found(list(keys), list(authorities), list(revoked))


def describe(host: str, port: int, key: SSHKey) -> dict[str, str | int]:
    """What a client needs to ask its user about a key: ``{host, port, algorithm, fingerprint}``."""
    return {"host": host, "port": port, "algorithm": key.get_algorithm(), "fingerprint": key.get_fingerprint()}


def _entry_name(host: str, port: int) -> str:
    return host.lower() if port == DEFAULT_PORT else f"[{host.lower()}]:{port}"


def _lines(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_KNOWN_HOSTS_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return []
    if len(data) > MAX_KNOWN_HOSTS_BYTES:
        raise SourceUnreadable(f"the list of known hosts is too large: {path}")
    return data.decode("utf-8", "replace").split("\n")
