"""Make one connection to a host: through its jumps, to a host key that is trusted, with the keys that there are.

Nothing secret is sent before the host's key was found trusted, and nothing secret is in an error.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import asyncssh
from asyncssh.config import SSHClientConfig

from sidecar.errors import (
    ConnectionBroken,
    HostKeyUnknown,
    RemoteFailed,
    SidecarError,
    SourceUnreadable,
    describe_os_error,
)
from sidecar.limits import (
    CONNECT_S,
    KEEPALIVE_S,
    LOGIN_S,
    MAX_JUMPS,
    MAX_KEEPALIVES_UNANSWERED,
)
from sidecar.remote.client_config import no_config, usable_algorithms, usable_config
from sidecar.remote.hosts import SshHost
from sidecar.remote.keys import Agent, Keys, default_paths, in_order, load_keys
from sidecar.remote.refusals import described, timed_out
from sidecar.remote.trust import DEFAULT_PORT, FAILED, KnownHosts, describe
from sidecar.stores.locations import expand, home_dir

COMPRESSED = True
SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"


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
    """One host on the way, under the name by which it was asked for; ``depth`` is 0 for the one at its end."""

    name: str
    port: int | None = None
    user: str | None = None
    key_path: str | None = None
    password: str | None = field(default=None, repr=False)
    passphrase: str | None = field(default=None, repr=False)
    is_configured: bool = False
    depth: int = 0


@dataclass(slots=True)
class _Attempt:
    """One try of a hop: what it needs, and what is learnt from it."""

    hop: _Hop
    surroundings: Surroundings
    paths: list[Path]
    config: SSHClientConfig
    known: KnownHosts
    jump: asyncssh.SSHClientConnection | None
    keys: Keys
    agent: Agent | None
    accepted: str | None

    @property
    def known_as(self) -> tuple[str, int]:
        """Under which name and port ``known_hosts`` files have it; an alias stands for both."""
        if alias := self.config.get("HostKeyAlias"):
            return str(alias), DEFAULT_PORT
        return str(self.config.get("Hostname") or self.hop.name), int(str(self.config.get("Port", DEFAULT_PORT)))


class HostKeyTrusted(Exception):
    """The key that was to be accepted was found, and is trusted now; nothing else was done."""


class _Client(asyncssh.SSHClient):
    """Judges the host's key, and tells when the connection has begun and ended."""

    def __init__(self, attempt: _Attempt, connected: Callable[[], None], lost: Callable[[], None]) -> None:
        self._attempt = attempt
        self._connected = connected
        self._lost = lost
        self.refusal: SidecarError | HostKeyTrusted | None = None
        self.has_ended = False

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:  # noqa: ARG002
        self._connected()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.has_ended = True
        self._lost()

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002
        # The address is not looked at: behind a jump it is the jump's.
        at_port = DEFAULT_PORT if self._attempt.config.get("HostKeyAlias") else port
        try:
            self._judge(host, at_port, key)
        except (SidecarError, HostKeyTrusted) as error:
            self.refusal = error
        except OSError as error:
            self.refusal = RemoteFailed(f"the host's key can't be remembered: {error.strerror}")
        return self.refusal is None

    def _judge(self, host: str, port: int, key: asyncssh.SSHKey) -> None:
        known, accepted = self._attempt.known, self._attempt.accepted
        is_accepted = accepted == key.get_fingerprint()
        try:
            known.judge(host, port, key)
        except HostKeyUnknown:
            if not is_accepted:
                raise
            known.trust(host, port, key)
        if is_accepted:
            raise HostKeyTrusted
        if accepted is not None and self._attempt.hop.depth == 0:
            raise HostKeyUnknown(
                f"{FAILED}: {host} is trusted already, by another key: {key.get_fingerprint()}",
                **describe(host, port, key),
            )


async def connect(
    host: SshHost, passphrase: str | None, surroundings: Surroundings, lost: Callable[[], None] = lambda: None
) -> asyncssh.SSHClientConnection:
    """A connection that is logged in; ``lost`` is called when it has ended. ``SidecarError`` if none is to be had."""
    return await _connect(_hop_of(host, passphrase), surroundings, lost)


async def trust_key(host: SshHost, passphrase: str | None, surroundings: Surroundings, fingerprint: str) -> None:
    """Trust the host, or a jump before it, if its key is unknown and has exactly this fingerprint.

    Nothing more is done there: a login is needed at the jumps before it alone. Returns also if this very key is
    trusted already. ``HostKeyUnknown`` if the key is another one, ``HostKeyChanged`` if another one was trusted before,
    ``SidecarError`` if it is not to be had.
    """
    try:
        connection = await _connect(_hop_of(host, passphrase), surroundings, lambda: None, accepted=fingerprint)
    except HostKeyTrusted:
        return
    connection.abort()
    raise HostKeyUnknown(f"{FAILED}: the host has shown no key")


def _hop_of(host: SshHost, passphrase: str | None) -> _Hop:
    hop = _Hop(
        host.host,
        host.port,
        host.username or None,
        host.key_path if host.auth_method == "key" else None,
        host.password if host.auth_method == "password" else None,
        passphrase or host.passphrase,
    )
    if host.auth_method != "ssh_config":
        return hop
    # What the form has as its default is no choice: the configuration makes it.
    return replace(hop, port=None if host.port == DEFAULT_PORT else host.port, is_configured=True)


async def _connect(
    hop: _Hop,
    surroundings: Surroundings,
    lost: Callable[[], None],
    accepted: str | None = None,
    over: asyncssh.SSHClientConnection | None = None,
) -> asyncssh.SSHClientConnection:
    """A connection to ``hop``, ``over`` another one or over what its configuration names; closes that if it fails."""
    jump, agent, connection = over, None, None
    try:
        # asyncssh reads the configuration from files only, and again while it connects.
        with tempfile.TemporaryDirectory(prefix="clawpal-sidecar-", ignore_cleanup_errors=True) as folder:
            paths, config, known = await asyncio.to_thread(_read, hop, surroundings, folder)
            jump = over or await _connect_jumps(hop, config, surroundings, accepted)
            keys = await asyncio.to_thread(_load_keys, hop, config, surroundings)
            agent = _agent(hop, config, surroundings)
            attempt = _Attempt(hop, surroundings, paths, config, known, jump, keys, agent, accepted)
            connection = await _log_in(attempt, lost)
    except OSError as error:
        raise SourceUnreadable(describe_os_error(error)) from None
    finally:
        if connection is None and jump is not None:
            jump.close()
        if agent is not None:
            agent.close()
    return connection


def _read(hop: _Hop, surroundings: Surroundings, folder: str) -> tuple[list[Path], SSHClientConfig, KnownHosts]:
    if hop.is_configured:
        paths, config = usable_config(surroundings.home, hop.name, folder, hop.user, hop.port)
    else:
        paths, config = [], no_config(hop.name, hop.user, hop.port)
    return paths, config, KnownHosts(_known_hosts_paths(config, surroundings), surroundings.known_hosts_path)


async def _log_in(attempt: _Attempt, lost: Callable[[], None]) -> asyncssh.SSHClientConnection:
    """A connection over the jump; its certificate counts before its key, which counts if that is not good."""
    authorities, revoked = attempt.known.authorities(*attempt.known_as)
    if authorities and attempt.accepted is None:
        try:
            return await _try(attempt, lost, ([], authorities, revoked, [], [], [], []))
        except asyncssh.HostKeyNotVerifiable:
            pass
    try:
        return await _try(attempt, lost, ([], [], [], [], [], [], []))
    except asyncssh.HostKeyNotVerifiable as error:
        raise described(error, attempt.hop.name, None, agent_refused=False) from None


async def _try(
    attempt: _Attempt, lost: Callable[[], None], known_hosts: tuple[list[Any], ...]
) -> asyncssh.SSHClientConnection:
    """Connect and log in, within the limits. ``HostKeyNotVerifiable`` if no key was there to be judged."""
    hop, loop = attempt.hop, asyncio.get_running_loop()
    algorithms = attempt.known.algorithms(*attempt.known_as, certified=bool(known_hosts[1]))
    has_answered = False
    client: _Client | None = None

    def answered() -> None:
        nonlocal has_answered
        has_answered = True
        limit.reschedule(loop.time() + LOGIN_S)

    def made() -> _Client:
        nonlocal client
        client = _Client(attempt, answered, lost)
        return client

    try:
        async with asyncio.timeout(CONNECT_S) as limit:
            credentials = await _credentials(attempt)
            connection = await asyncssh.connect(
                hop.name,
                hop.port if hop.port is not None else (),
                config=attempt.paths,
                username=hop.user if hop.user is not None else (),
                tunnel=attempt.jump,
                proxy_command=_proxy_command(attempt),
                client_factory=made,
                known_hosts=lambda _host, _address, _port: known_hosts,
                server_host_key_algs=[name.decode() for name in algorithms],
                connect_timeout=None,
                login_timeout=0,
                compression_algs=["zlib@openssh.com", "none"] if COMPRESSED else ["none"],
                keepalive_interval=KEEPALIVE_S,
                keepalive_count_max=MAX_KEEPALIVES_UNANSWERED,
                # What is none of a helper's business, and what asyncssh would fail for.
                gss_auth=False,
                gss_kex=False,
                x509_trusted_certs=None,
                client_host_keysign=False,
                pkcs11_provider=None,
                agent_forwarding=False,
                x11_forwarding=False,
                request_pty=False,
                command=None,
                env=None,
                send_env=None,
                **usable_algorithms(attempt.config),
                **credentials,
            )
    except Exception as error:
        if client is not None and client.refusal is not None:
            raise client.refusal from None
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            raise
        if isinstance(error, TimeoutError) and limit.expired():
            raise timed_out(hop.name, has_answered=has_answered) from None
        locked_path = next(iter(attempt.keys.locked), None)
        refused = attempt.agent is not None and attempt.agent.has_refused
        raise described(error, hop.name, locked_path, agent_refused=refused) from None
    connection.set_tunnel(attempt.jump)
    if client is None or client.has_ended:
        raise ConnectionBroken(f"connection closed by {hop.name}, right after the login")
    return connection


async def _connect_jumps(
    hop: _Hop, config: SSHClientConfig, surroundings: Surroundings, accepted: str | None
) -> asyncssh.SSHClientConnection | None:
    """A connection to the last of the hosts that lead to this one, if the configuration names any."""
    if hop.depth >= MAX_JUMPS:
        raise RemoteFailed(f"~/.ssh/config leads over more than {MAX_JUMPS} hosts to {hop.name}")
    jump = None
    for named in str(config.get("ProxyJump") or "").split(",") if config.get("ProxyJump") else ():
        user, _, place = named.strip().removeprefix("ssh://").rpartition("@")
        name, port = _name_and_port(place)
        step = _Hop(name, port, user or None, passphrase=hop.passphrase, is_configured=True, depth=hop.depth + 1)
        jump = await _connect(step, surroundings, lambda: None, accepted, jump)
    return jump


def _proxy_command(attempt: _Attempt) -> list[str] | tuple[()]:
    """The command to connect through, if there is one: OpenSSH gives it to the user's shell."""
    command = attempt.config.get("ProxyCommand")
    if command is None or os.name == "nt":
        return ()
    shell = attempt.surroundings.environ.get("SHELL") or "/bin/sh"
    # To asyncssh a connection has gone when stderr is closed, which is no reason for a command that sends it elsewhere.
    return ["/bin/sh", "-c", 'exec "$0" -c "$1" 9>&2', shell, f"exec {command}"]


def _load_keys(hop: _Hop, config: SSHClientConfig, surroundings: Surroundings) -> Keys:
    if hop.password is not None:
        return Keys()
    named = [hop.key_path] if hop.key_path else cast("list[str] | None", config.get("IdentityFile"))
    paths = default_paths(surroundings.home) if named is None else [expand(one, surroundings.environ) for one in named]
    certificates = cast("list[str]", config.get("CertificateFile", []))
    return load_keys(
        paths,
        hop.passphrase,
        required=hop.key_path is not None,
        certificate_paths=[expand(path, surroundings.environ) for path in certificates],
    )


def _agent(hop: _Hop, config: SSHClientConfig, surroundings: Surroundings) -> Agent | None:
    environ = surroundings.environ
    path = cast("str | None", config.get("IdentityAgent", "SSH_AUTH_SOCK"))
    if hop.password is not None or path is None:
        return None
    if path == "SSH_AUTH_SOCK" or path.startswith("$"):
        path = environ.get(path.removeprefix("$"), "")
    # Windows has an agent at a place of its own.
    return Agent(expand(path, environ) if path else "") if path or os.name == "nt" else None


async def _credentials(attempt: _Attempt) -> dict[str, Any]:
    """What to log in with, as asyncssh takes it. It looks for no keys itself, nor asks an agent."""
    if attempt.hop.password is not None:
        return {
            "password": attempt.hop.password,
            "client_keys": None,
            "preferred_auth": "password,keyboard-interactive",
        }
    held = await attempt.agent.keys() if attempt.agent is not None else []
    keys = in_order(attempt.keys, held, only_named=bool(attempt.config.get("IdentitiesOnly")))
    return {"client_keys": keys or None, "client_certs": attempt.keys.certificates, "agent_path": None}


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
