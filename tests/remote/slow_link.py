"""A host behind a link that a test can make slow, or dead."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.remote.sshd import KEY_TYPES, Sshd, cannot, program, require_root

_RELAY = Path(__file__).with_name("relay.py")
_PORT = 2222
_WITHIN_S = 20.0


class DistantSshd(Sshd):
    """A host in a network namespace of its own, reached over a link that loses, delays and limits packets. Needs root.

    No packet is refused, only lost, so neither side is told that a link is dead.
    """

    def __init__(
        self,
        *,
        max_sessions: int = 10,
        shell: str = "/bin/bash",
        path: str | None = None,
        environment: Mapping[str, str] | None = None,
        key_types: Sequence[str] = KEY_TYPES,
        extra: Iterable[str] = (),
    ) -> None:
        require_root("a link of its own")
        self._ip = program("ip")
        if not os.path.exists("/dev/net/tun"):
            cannot("a link of its own needs /dev/net/tun")
        super().__init__(
            max_sessions=max_sessions,
            shell=shell,
            path=path,
            environment=environment,
            key_types=key_types,
            extra=extra,
        )
        self.device_index = 0
        self._relay: subprocess.Popen[str] | None = None
        self._rate_mbit: float | None = None
        self._delay_ms = 0.0
        self._is_cut = False

    def cut(self) -> None:
        """Let the link go dead: what is on its way and what is sent from now on is lost, in both directions."""
        self._is_cut = True
        self._order()

    def restore(self) -> None:
        """The end of ``cut``."""
        self._is_cut = False
        self._order()

    def shape(self, *, rate_mbit: float | None = None, delay_ms: float = 0.0) -> None:
        """Let each direction carry no more than ``rate_mbit`` in a second, if given, and each packet be late."""
        self._rate_mbit = rate_mbit
        self._delay_ms = delay_ms
        self._order()

    def carried_bytes(self) -> int:
        """What the link has carried so far, in both directions, with the headers of IP and TCP."""
        return self._order()

    def _order(self) -> int:
        assert self._relay
        assert self._relay.stdin
        order = {
            "bytes_per_s": (self._rate_mbit or 0) * 1_000_000 / 8,
            "delay_s": self._delay_ms / 1_000,
            "cut": self._is_cut,
        }
        self._relay.stdin.write(json.dumps(order) + "\n")
        self._relay.stdin.flush()
        return int(self._answer())

    def _answer(self) -> str:
        assert self._relay
        assert self._relay.stdout
        answer = self._relay.stdout.readline()
        assert answer, f"the link ended with {self._relay.wait(_WITHIN_S)}"
        return answer

    def _namespaces(self) -> list[str]:
        return [*super()._namespaces(), "--net"]

    def _begin(self) -> None:
        super()._begin()
        self._relay = subprocess.Popen(
            [sys.executable, "-I", str(_RELAY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        here, there = self._answer().split()
        self.device_index = socket.if_nametoindex(here)
        near, self.host = _addresses(self.device_index)
        within = ("nsenter", "--net", "--target", str(self._supervisor_pid))
        _run(self._ip, "link", "set", there, "netns", str(self._supervisor_pid))
        for device, own, peer, prefix in ((here, near, self.host, ()), (there, self.host, near, within)):
            _run(*prefix, self._ip, "address", "add", own, "peer", peer, "dev", device)
            _run(*prefix, self._ip, "link", "set", device, "up")
        _run(*within, self._ip, "link", "set", "lo", "up")

    def _choose_port(self) -> int:
        return _PORT

    def _end(self) -> None:
        with contextlib.ExitStack() as both:
            both.callback(super()._end)
            if self._relay is None:
                return
            with self._relay as relay:
                assert relay.stdin
                relay.stdin.close()
                try:
                    relay.wait(_WITHIN_S)
                except subprocess.TimeoutExpired:
                    relay.kill()
                    raise


def _addresses(index: int) -> tuple[str, str]:
    """Two addresses that no other link has: a device's number is its own, and 198.18.0.0/15 is set aside for tests."""
    first = (198 << 24) + (18 << 16) + index % (1 << 15) * 4 + 1
    near, far = (".".join(str(byte) for byte in number.to_bytes(4, "big")) for number in (first, first + 1))
    return near, far


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
