"""Make one connection to a host: through its jumps, to a host key that is trusted, with the keys that there are.

Nothing secret is sent before the host's key was found trusted, and nothing secret is in an error.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import asyncssh
from asyncssh.config import ConfigParseError, SSHClientConfig

from sidecar.errors import (
    ConnectionBroken,
    HostKeyChanged,
    HostTimedOut,
    HostUnreachable,
    LoginRefused,
    PassphraseNeeded,
    RemoteFailed,
    SidecarError,
    describe_os_error,
)
from sidecar.limits import (
    CONNECT_S,
    KEEPALIVE_S,
    LOGIN_S,
    MAX_JUMPS,
    MAX_KEEPALIVES_UNANSWERED,
)
from sidecar.remote.client_config import load, usable_config
from sidecar.remote.hosts import SshHost
from sidecar.remote.keys import Keys, default_paths, load_keys
from sidecar.remote.trust import DEFAULT_PORT, KnownHosts
from sidecar.stores.locations import expand, home_dir

COMPRESSED = True
SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"
_ERROR_NUMBER = re.compile(r"\[Errno (\d+)\]")


@dataclass(slots=True)
class Surroundings:
    """What a connection depends on beside the host: where we know hosts from, and this user's environment."""

    known_hosts_path: str
    environ: Mapping[str, str]

    @property
    def home(self) -> str:
        return home_dir(self.environ)


@dataclass(frozen=True, slots=True)
class _Hop:
    """One host on the way, under the name by which it was asked for."""

    name: str
    port: int | None = None
    user: str | None = None
    key_path: str | None = None
    password: str | None = field(default=None, repr=False)
    passphrase: str | None = field(default=None, repr=False)
    config: tuple[Path, ...] = ()
    depth: int = 0


class _Client(asyncssh.SSHClient):
    """Judges the host's key, and tells when the connection has ended."""

    def __init__(self, known: KnownHosts, accepted: str | None, lost: Callable[[], None]) -> None:
        self._known = known
        self._accepted = accepted
        self._lost = lost
        self.refusal: SidecarError | None = None
        self.trusted = False

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        try:
            self._known.judge(host, addr, port, key)
        except HostKeyChanged as error:
            self.refusal = error
        except SidecarError as error:
            self.refusal = error
            if self._accepted == key.get_fingerprint():
                self._known.trust(host, port, key)
                self.trusted = True
        else:
            self.refusal = None
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._lost()


class HostKeyTrusted(Exception):
    """The key that was to be accepted was found and written down; nothing else was done."""


async def connect(
    host: SshHost,
    passphrase: str | None,
    surroundings: Surroundings,
    lost: Callable[[], None] = lambda: None,
    accepted: str | None = None,
) -> asyncssh.SSHClientConnection:
    """A connection that is logged in; ``lost`` is called when it has ended. ``SidecarError`` if none is to be had.

    With ``accepted``, the fingerprint of a key to be trusted: raises ``HostKeyTrusted`` at the first host on the way
    that is unknown and has exactly this key.
    """
    hop = _Hop(
        host.host,
        host.port,
        host.username or None,
        host.key_path if host.auth_method == "key" else None,
        host.password if host.auth_method == "password" else None,
        passphrase or host.passphrase,
    )
    try:
        if host.auth_method != "ssh_config":
            return await _connect(hop, surroundings, lost, accepted)
        with usable_config(surroundings.home, host.host) as paths:
            # What the form has as its default is no choice: the configuration makes it.
            port = None if host.port == DEFAULT_PORT else host.port
            return await _connect(replace(hop, port=port, config=tuple(paths)), surroundings, lost, accepted)
    except ConfigParseError as error:
        raise RemoteFailed(f"~/.ssh/config can't be read: {error}") from None


async def _connect(
    hop: _Hop,
    surroundings: Surroundings,
    lost: Callable[[], None],
    accepted: str | None,
    over: asyncssh.SSHClientConnection | None = None,
) -> asyncssh.SSHClientConnection:
    """A connection to ``hop``, ``over`` another one or over what its configuration names; closes that if it fails."""
    config = load(list(hop.config), hop.name, hop.user, hop.port)
    port = int(str(config.get("Port", DEFAULT_PORT)))
    known = KnownHosts(_known_hosts_paths(config, surroundings), surroundings.known_hosts_path)
    known_as = str(config.get("HostKeyAlias") or config.get("Hostname") or hop.name)
    keys = Keys()
    jump = over or await _connect_jumps(hop, config, surroundings, accepted)

    def ended() -> None:
        if jump:
            jump.close()
        lost()

    client = _Client(known, accepted, ended)
    try:
        keys, options = await _credentials(hop, config, surroundings)
        return await asyncssh.connect(
            hop.name,
            hop.port if hop.port is not None else (),
            config=list(hop.config),
            username=hop.user if hop.user is not None else (),
            tunnel=jump,
            client_factory=lambda: client,
            known_hosts=lambda host, address, at_port: _trusted(known, host, address, at_port),
            server_host_key_algs=[name.decode() for name in known.algorithms(known_as, port)],
            connect_timeout=CONNECT_S,
            login_timeout=LOGIN_S,
            compression_algs=["zlib@openssh.com", "none"] if COMPRESSED else ["none"],
            keepalive_interval=KEEPALIVE_S,
            keepalive_count_max=MAX_KEEPALIVES_UNANSWERED,
            gss_auth=False,
            gss_kex=False,
            x509_trusted_certs=None,
            **options,
        )
    except BaseException as error:
        if jump:
            jump.close()
        if not isinstance(error, Exception):
            raise
        if client.trusted:
            raise HostKeyTrusted from None
        raise client.refusal or _described(error, hop.name, keys) from None


async def _connect_jumps(
    hop: _Hop, config: SSHClientConfig, surroundings: Surroundings, accepted: str | None
) -> asyncssh.SSHClientConnection | None:
    """A connection to the last of the hosts that lead to this one, if the configuration names any."""
    if hop.depth >= MAX_JUMPS:
        raise RemoteFailed(f"~/.ssh/config leads over more than {MAX_JUMPS} hosts to {hop.name}")
    jump = None
    for named in str(config.get("ProxyJump") or "").split(",") if config.get("ProxyJump") else ():
        user, _, place = named.strip().rpartition("@")
        name, port = _name_and_port(place)
        step = _Hop(name, port, user or None, config=hop.config, passphrase=hop.passphrase, depth=hop.depth + 1)
        jump = await _connect(step, surroundings, lambda: None, accepted, jump)
    return jump


async def _credentials(hop: _Hop, config: SSHClientConfig, surroundings: Surroundings) -> tuple[Keys, dict[str, Any]]:
    """The keys for a hop, and what to tell asyncssh of them."""
    if hop.password is not None:
        return Keys(), {
            "password": hop.password,
            "client_keys": None,
            "preferred_auth": "password,keyboard-interactive",
        }
    named = [hop.key_path] if hop.key_path else cast("list[str]", config.get("IdentityFile", []))
    paths = [expand(path, surroundings.environ) for path in named] or default_paths(surroundings.home)
    keys = await asyncio.to_thread(load_keys, paths, hop.passphrase, required=hop.key_path is not None)
    # Without keys asyncssh looks for some itself, where they were looked for already; and asks the agent.
    wanted = keys.public_parts() if config.get("IdentitiesOnly") else None
    return keys, {"client_keys": keys.opened, "agent_identities": wanted}


def _trusted(known: KnownHosts, host: str, address: str, port: int | None) -> tuple[list[Any], ...]:
    """What asyncssh may trust without asking: authorities. Each key of a host itself is judged by ``_Client``."""
    found = known.find(host, address, port or DEFAULT_PORT)
    return ([], found.authorities, found.revoked, [], [], [], [])


def _known_hosts_paths(config: SSHClientConfig, surroundings: Surroundings) -> list[str]:
    default = [os.path.join(surroundings.home, ".ssh", name) for name in ("known_hosts", "known_hosts2")]
    users = cast("list[str]", config.get("UserKnownHostsFile", default))
    systems = cast("list[str]", config.get("GlobalKnownHostsFile", [SYSTEM_KNOWN_HOSTS]))
    return [expand(path, surroundings.environ) for path in (*users, *systems)]


def _name_and_port(place: str) -> tuple[str, int | None]:
    """The parts of ``host``, ``host:port`` or ``[address]:port``."""
    name, separator, port = place.rpartition(":")
    if not separator or not port.isdigit() or (":" in name and not name.endswith("]")):
        return place.strip("[]"), None
    return name.strip("[]"), int(port)


def _described(error: Exception, name: str, keys: Keys) -> SidecarError:
    """What went wrong, in the words that the frontend looks for (CONTRACT section 4)."""
    if isinstance(error, SidecarError):
        return error
    if isinstance(error, asyncssh.PermissionDenied):
        if keys.locked:
            return PassphraseNeeded(
                f"the key needs a passphrase, or another one: {keys.locked[0]}", path=keys.locked[0]
            )
        return LoginRefused(f"permission denied: {name} accepts none of the keys or passwords that there are for it")
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return HostKeyChanged(f"host key verification failed: {error}")
    if isinstance(error, TimeoutError):
        return HostTimedOut(f"timed out: {name} didn't answer within {CONNECT_S:.0f} s")
    if isinstance(error, asyncssh.ConnectionLost):
        if "timeout" in str(error).lower():
            return HostTimedOut(f"timed out: {name} didn't finish the login within {LOGIN_S:.0f} s")
        return HostUnreachable(f"connection closed by {name}: {error}")
    if isinstance(error, socket.gaierror):
        return HostUnreachable(f"the name {name} can't be resolved: {error.strerror}")
    if isinstance(error, OSError):
        return HostUnreachable(f"{_words_of(error)}: {name}")
    if isinstance(error, asyncssh.ChannelOpenError):
        return HostUnreachable(f"failed to open channel to {name}: {error}")
    if isinstance(error, (asyncssh.Error, ConnectionError)):
        return ConnectionBroken(f"no connection to {name}: {error}")
    return RemoteFailed(f"no connection to {name}: {error}")


def _words_of(error: OSError) -> str:
    """The system's words: asyncio has its own for a failed connection, and of several attempts tells all at once."""
    if error.filename is not None:
        return describe_os_error(error)
    numbers = [error.errno] if error.errno else [int(number) for number in _ERROR_NUMBER.findall(str(error))]
    return ", ".join(dict.fromkeys(os.strerror(number).lower() for number in numbers)) or describe_os_error(error)
