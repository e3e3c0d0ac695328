"""This side of a connection, for tests: a user's home, what is in it, and a pool of connections from there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from sidecar.remote.connect import Surroundings
from sidecar.remote.hosts import SshHost
from sidecar.remote.pool import Host, SshConnectionPool
from tests.remote.sshd import Sshd

HOST_ID = "ssh:host"


class Here:
    """A user's home, with ``.ssh`` and a ClawPal directory in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ssh = home / ".ssh"
        self.ssh.mkdir(mode=0o700)
        self.own_known_hosts = home / ".clawpal" / "known_hosts"
        self.environ = {"HOME": str(home), "SHELL": "/bin/sh"}

    @property
    def known_hosts(self) -> Path:
        return self.ssh / "known_hosts"

    def know(self, *hosts: Sshd) -> None:
        """Have OpenSSH's file name these hosts, with all their keys."""
        lines = [host.known_hosts_line(algorithm) for host in hosts for algorithm in host.host_keys]
        self.known_hosts.write_text("".join(lines))

    def configure(self, *lines: str) -> None:
        """Write ``~/.ssh/config``."""
        (self.ssh / "config").write_text("\n".join(lines) + "\n")

    def host(self, to: Sshd, **changes: Any) -> Host:
        """How to get there: by key as its usual account, unless something else is asked for."""
        settings = {
            "id": HOST_ID,
            "label": "a host",
            "host": to.host,
            "port": to.port,
            "username": to.user,
            "auth_method": "key",
            "key_path": str(to.client_key),
        }
        return self._host(settings | changes)

    def alias(self, alias: str, **changes: Any) -> Host:
        """A host as the form makes it for an alias of ``~/.ssh/config``."""
        settings = {
            "id": HOST_ID,
            "label": alias,
            "host": alias,
            "port": 22,
            "username": "",
            "auth_method": "ssh_config",
        }
        return self._host(settings | changes)

    def _host(self, settings: dict[str, Any]) -> Host:
        return Host(SshHost(**settings), Surroundings(str(self.own_known_hosts), self.environ))


async def said(pool: SshConnectionPool, host: Host, command: str, **options: Any) -> bytes:
    """All that a command prints."""
    output = b""
    async with aclosing(pool.exec_streaming(host, command, **options)) as chunks:
        async for chunk in chunks:
            output += chunk
    return output


def keygen(*arguments: str | Path) -> str:
    """What ``ssh-keygen`` prints."""
    command = ["ssh-keygen", *map(str, arguments)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout


MakeSshd = Callable[..., Sshd]
