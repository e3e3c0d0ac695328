"""Runs an engine here as a host would: its bootstrap on the command line, its script and a request on stdin."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

from sidecar.remote import engines
from tests.remote.node import node_executable

DEADLINE_S = 60
LEASE_S = 5
NONCE = "c0ffee5eed"
SENTINEL = f"\nclawpal-helper {NONCE}\n".encode()
WITH_BYTES = frozenset(("cold", "frame", "lines", "piece"))
"""The records that are followed by as many bytes as their last item says, and a line feed."""

SCRIPTS = Path(engines.__file__).parent


@dataclass(frozen=True)
class Engine:
    """What runs, and what it is given to read first."""

    name: str
    command: tuple[str, ...]
    script: bytes

    def patched(self, old: str, new: str) -> Engine:
        """The same with another script, to see in a second what takes twenty."""
        assert self.script.count(old.encode()) == 1, f"{old!r} is not once in the script"
        return replace(self, script=self.script.replace(old.encode(), new.encode()))


def node(executable: str | None = None, *options: str) -> Engine:
    """The Node engine, with the Node of the wheel unless told otherwise."""
    command = (executable or str(node_executable()), "--no-warnings", *options, "-e", engines.NODE_BOOTSTRAP)
    return Engine("node", command, engines.node_script())


def node_of_modules() -> Engine:
    """The Node engine as its modules are, with the imports that the script does without."""
    return replace(node(), script=f'import "{(SCRIPTS / "node" / "main.mjs").as_uri()}";'.encode())


def python(executable: str = sys.executable, *options: str) -> Engine:
    """The Python engine, with the Python of the tests unless told otherwise."""
    command = (executable, *options, "-u", "-c", engines.PYTHON_BOOTSTRAP)
    return Engine("python", command, engines.python_script())


def bare_node() -> str | None:
    """A Node of the system that has neither ``node:sqlite`` nor zstd, if there is one."""
    found = shutil.which("node")
    asked = 'process.exit(process.getBuiltinModule?.("node:sqlite") || require("zlib").zstdDecompressSync ? 1 : 0)'
    return found if found and subprocess.run([found, "-e", asked], check=False).returncode == 0 else None


class Record(NamedTuple):
    """One record: what its line holds, and the bytes behind it."""

    items: list[Any]
    data: bytes | None = None

    @property
    def name(self) -> str:
        return str(self.items[0])


class Run:
    """A running engine. Its input stays open, with a lease, until ``close_input``; it is killed at the deadline."""

    def __init__(
        self,
        engine: Engine,
        request: dict[str, Any],
        *,
        environ: dict[str, str] | None = None,
        lease: bool = True,
        in_a_socket: bool = False,
    ) -> None:
        """``in_a_socket``: stdin and stdout are one socket, as of sshd, here a small one that never blocks."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed when the run ends)
        self._socket: socket.socket | None = None
        theirs: socket.socket | None = None
        if in_a_socket:
            self._socket, theirs = _socket_pair()
        self.process = subprocess.Popen(
            engine.command,
            stdin=theirs.fileno() if theirs else subprocess.PIPE,
            stdout=theirs.fileno() if theirs else subprocess.PIPE,
            stderr=self._errors,
            env=environ,
            start_new_session=True,
        )
        self._input: IO[bytes]
        self._output: IO[bytes]
        if self._socket is not None and theirs is not None:
            theirs.close()
            self._input, self._output = self._socket.makefile("wb"), self._socket.makefile("rb")
        else:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self._input, self._output = self.process.stdin, self.process.stdout
        self._killer = threading.Timer(DEADLINE_S, self.kill)
        self._killer.daemon = True
        self._killer.start()
        self._ended = threading.Event()
        line = json.dumps({"nonce": NONCE, **request}).encode() + b"\n"
        self.send(b"%d\n" % len(engine.script) + engine.script + line)
        if lease:
            threading.Thread(target=self._renew, daemon=True).start()

    def send(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ValueError):  # it has ended, or its input was closed
            self._input.write(data)
            self._input.flush()

    def _renew(self) -> None:
        while not self._ended.wait(LEASE_S):
            self.send(b"\n")

    def records(self) -> Iterator[Record]:
        """What comes after the sentinel, up to the last record, or to the end of the output if it was cut off."""
        self._pass_over_noise()
        while (line := self._output.readline()).endswith(b"\n"):
            items = json.loads(line)
            data = None
            if items[0] in WITH_BYTES:
                data = self._output.read(items[-1])
                after = self._output.read(1)
                if len(data) < items[-1] or not after:
                    return
                assert after == b"\n", f"{after!r} after the bytes of {items}"
            yield Record(items, data)
            if items[0] in {"end", "fail"}:
                return

    def _pass_over_noise(self) -> None:
        seen = b""
        while not seen.endswith(SENTINEL):
            byte = self._output.read(1)
            assert byte, f"no sentinel in {seen!r}; stderr: {self.errors()}"
            seen += byte

    def errors(self) -> str:
        """What it has written to stderr."""
        self._errors.seek(0)
        return self._errors.read().decode("utf-8", "replace")

    def close_input(self) -> None:
        self._ended.set()
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def close_output(self) -> None:
        """Read no more: the next write fails."""
        self._output.close()

    def wait(self) -> int:
        """How it ended, once it has; the deadline holds here too."""
        return self.process.wait()

    def kill(self) -> None:
        """End it and whatever it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_input()
        self.kill()
        self.process.wait()
        self._killer.cancel()
        self._output.close()
        if self._socket is not None:
            self._socket.close()
        self._errors.close()


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    theirs.setblocking(False)
    return ours, theirs


def request_for(op: str, home: Path | None = None, **fields: Any) -> dict[str, Any]:
    """A request about the OpenClaw directory ``home``, given by way of the environment."""
    env = {} if home is None else {"CLAWPAL_OPENCLAW_DIR": str(home)}
    return {"op": op, "env": env, "openclawHome": None, **fields}


def told(engine: Engine, request: dict[str, Any], **options: Any) -> list[Record]:
    """All that an engine says but beats; it must say that this is all, and end well when its input does."""
    with Run(engine, request, **options) as run:
        records = [record for record in run.records() if record.name != "beat"]
        assert records, run.errors()
        assert records[-1].name in {"end", "fail"}, f"cut off after {records[-1].items}: {run.errors()}"
        run.close_input()
        assert run.wait() == 0, run.errors()
        assert run.errors() == ""
    return records
