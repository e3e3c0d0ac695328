"""A sidecar over pipes, as its client sees it, and what the system tells of a process."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import orjson

SETTLE_S = 0.3
COMMAND = (sys.executable, "-m", "sidecar", "--no-index")
_CPU_CLOCK_SCHED = 2


class Run(NamedTuple):
    """One stream, from its request on, and what its terminal told.

    Of one that is cancelled, ``wall_s`` counts from the cancel on. ``first_s`` is 0 if the terminal came first.
    """

    first_s: float
    batches: int
    wall_s: float
    cpu_s: float
    above_idle_bytes: int
    told: dict[str, Any]


class OverBefore(Exception):
    """A stream ended before it was cancelled."""


class Sidecar:
    """A sidecar over pipes, which is given the directories that are named. After a ``with`` it has ended."""

    def __init__(
        self, openclaw_dir: Path | None = None, *, command: Sequence[str] = COMMAND, **environ: str | Path
    ) -> None:
        if openclaw_dir is not None:
            environ["CLAWPAL_OPENCLAW_DIR"] = openclaw_dir
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**plain_environ(), **environ}
        )
        self._ids = itertools.count(1)

    def send(self, method: str, **params: Any) -> int:
        """Send a request, and give its id."""
        number = next(self._ids)
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        stdin = pipe(self.process.stdin)
        stdin.write(orjson.dumps(request) + b"\n")
        stdin.flush()
        return number

    def line(self) -> bytes:
        line = pipe(self.process.stdout).readline()
        if not line:
            raise SystemExit(f"the sidecar ended with {self.process.wait()}")
        return line

    def call(self, method: str, **params: Any) -> Any:
        self.send(method, **params)
        return _result(method, self.line())

    def idle_bytes(self) -> int:
        """The size at rest; the peak begins anew, since the imports' own is over."""
        self.call("ping")
        idle_bytes = settled_bytes(self.process.pid)
        begin_peak(self.process.pid)
        return idle_bytes

    def stream(
        self,
        method: str,
        *,
        idle_bytes: int | None = None,
        cancel_after_s: float | None = None,
        each: Callable[[bytes], object] = lambda line: None,
        **params: Any,
    ) -> Run:
        """Run a stream to its terminal; ``each`` sees the lines before that. An error ends the bench.

        ``OverBefore`` if it ended before ``cancel_after_s`` had passed.

        Its memory is above ``idle_bytes``, or above what the process has at rest before.
        """
        pid = self.process.pid
        if idle_bytes is None:
            idle_bytes = self.idle_bytes()
        used_s = cpu_s(pid)
        started_s = time.perf_counter()
        handle = self.call(method, **params)
        cancel: threading.Timer | None = None
        cancelled_s = []
        if cancel_after_s is not None:

            def send_cancel() -> None:
                cancelled_s.append(time.perf_counter())
                self.send("cancel_stream", handleId=handle)

            cancel = threading.Timer(cancel_after_s, send_cancel)
            cancel.start()
        first_s, batches = 0.0, 0
        while True:
            line = self.line()
            begin = line[:80]
            if b':done","params":' in begin or b':error","params":' in begin:
                break
            if not begin.startswith(b'{"jsonrpc":"2.0","id":'):  # else the answer to the cancel
                first_s = first_s or time.perf_counter() - started_s
                batches += 1
                each(line)
        ended_s = time.perf_counter()
        told = orjson.loads(line)
        if cancel is not None:
            cancel.join()
            if cancelled_s[0] > ended_s or not told["params"].get("cancelled"):
                raise OverBefore(f"{method}: it was over before it was cancelled, after {cancel_after_s} s")
            started_s = cancelled_s[0]
        elif told["method"].endswith(":error"):
            raise SystemExit(f"{method}: {told}")
        above_idle_bytes = status_bytes(pid, "VmHWM") - idle_bytes
        return Run(first_s, batches, ended_s - started_s, cpu_s(pid) - used_s, above_idle_bytes, told["params"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.process.kill()
        self.close()

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # what it was sent last, and has not read
            pipe(self.process.stdin).close()
        self.process.wait()
        pipe(self.process.stdout).close()


def plain_environ() -> dict[str, str]:
    """The variables of this process without what keeps Python from caching modules, as an app has them."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def status_bytes(pid: int, field: str) -> int:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields[field].split()[0]) * 1024


def settled_bytes(pid: int) -> int:
    """The resident size once it has stopped growing: modules that the first reply doesn't need are loaded after it."""
    before = -1
    while (now := status_bytes(pid, "VmRSS")) != before:
        before = now
        time.sleep(SETTLE_S)
    return now


def begin_peak(pid: int) -> None:
    """Let ``VmHWM`` count from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def cpu_s(pid: int) -> float:
    """The processor time of a process that runs, all its threads', to the nanosecond."""
    # What clock_getcpuclockid(3) gives; Python has no name for it.
    return time.clock_gettime(~pid << 3 | _CPU_CLOCK_SCHED)


def _result(method: str, line: bytes) -> Any:
    reply = orjson.loads(line)
    if "error" in reply:
        raise SystemExit(f"{method}: {reply}")
    return reply["result"]
