"""What is measured: each function runs both sides once, in turn, and adds a round of figures to the results."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tests.bench import preview
from tests.bench.baseline import Measured
from tests.bench.process import COMMAND, OverBefore, Run, Sidecar, cpu_s, pipe, plain_environ, settled_bytes
from tests.bench.results import Results
from tests.bench.slow_disk import on_slow_disk

PACKAGES = ("jsonrpcserver", "msgspec", "orjson", "pydantic")
"""What every start imports, and what one does that also speaks to hosts."""
PACKAGES_FOR_HOSTS = (*PACKAGES, "asyncssh")
REQUESTS = 2_000
SLOW_DISK_S = 5.0
"""After which the reading is cancelled."""
CANCEL_AFTER = (0.3, 0.5, 0.7)
"""Parts of the time of the whole."""

_WAIT = "import sys; print('ready', flush=True); sys.stdin.read()"
_ECHO = "import sys\nfor line in sys.stdin.buffer:\n    sys.stdout.buffer.write(line); sys.stdout.buffer.flush()"
_COUNT = re.compile(rb'"messageCount":(\d+)')
_REQUEST = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'


class NotHere(Exception):
    """This machine or account can't do what would be measured."""


def scan(results: Results, subject: str, tree: Path) -> None:
    """The analysis of a tree, and the baseline's."""
    theirs = baseline(tree)
    with Sidecar(tree) as sidecar:
        ours, messages = analysed(sidecar)
    if messages != theirs.messages:
        raise SystemExit(f"{tree}: the sidecar counts {messages} messages, the baseline {theirs.messages}")
    add_measured(results, subject, "baseline", theirs)
    add_run(results, subject, "sidecar", ours)


def databases(results: Results, tree: Path, same_in_files: Path) -> None:
    """The analysis of a tree in SQLite, and our own of the same conversations in files."""
    counts = []
    for side, home in (("files", same_in_files), ("sidecar", tree)):
        with Sidecar(home) as sidecar:
            run, messages = analysed(sidecar)
        counts.append(messages)
        add_run(results, "S", side, run)
    if len(set(counts)) > 1:
        raise SystemExit(f"{tree}: {counts[1]} messages, of {counts[0]} in the files")


def previews(results: Results, tree: Path) -> None:
    """The preview of a tree's one transcript, each side without a client; over pipes, when its first page comes."""
    (transcript,) = tree.glob("agents/*/sessions/*.jsonl")
    theirs, ours = preview.run("baseline", transcript), preview.run("sidecar", transcript)
    if theirs.messages != ours.messages:
        raise SystemExit(f"{transcript}: {ours.messages} messages, of the baseline's {theirs.messages}")
    add_measured(results, "preview", "baseline", theirs)
    add_measured(results, "preview", "sidecar", ours)
    with Sidecar(tree) as sidecar:
        run = sidecar.stream("preview_session_stream", agentId="main", sessionId=transcript.stem)
    results.add("preview", "sidecar", first_s=run.first_s)


def cancels(results: Results, subject: str, tree: Path, method: str, whole_s: float, **params: str) -> None:
    """From the request to cancel to the terminal, at some moments of a stream that takes ``whole_s``."""
    with Sidecar(tree) as sidecar:
        for part in CANCEL_AFTER:
            results.add(subject, "sidecar", cancel_s=_cancelled(sidecar, method, part * whole_s, params).wall_s)


def _cancelled(sidecar: Sidecar, method: str, after_s: float, params: dict[str, Any]) -> Run:
    while True:
        try:
            return sidecar.stream(method, cancel_after_s=after_s, **params)
        except OverBefore:  # the machine has become faster since the whole was measured
            after_s /= 2


def starts(results: Results) -> None:
    """A process from its spawn to its first line, and its size at rest; beside bare imports of the same packages."""
    for side, packages in (("imports", PACKAGES), ("imports with asyncssh", PACKAGES_FOR_HOSTS)):
        code = f"import {', '.join(packages)}; {_WAIT}"
        started_s = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=plain_environ()
        )
        pipe(process.stdout).readline()
        results.add("start", side, wall_s=time.perf_counter() - started_s, idle_bytes=settled_bytes(process.pid))
        process.communicate()
    started_s = time.perf_counter()
    with Sidecar(Path()) as sidecar:
        sidecar.call("ping")
        wall_s = time.perf_counter() - started_s
        results.add("start", "sidecar", wall_s=wall_s, idle_bytes=settled_bytes(sidecar.process.pid))


def requests(results: Results) -> None:
    """``REQUESTS`` pings, each after the answer to the one before, then all at once; beside lines that are echoed."""
    for side, command in (("echo", (sys.executable, "-c", _ECHO)), ("sidecar", COMMAND)):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=plain_environ())
        stdin, stdout = pipe(process.stdin), pipe(process.stdout)

        def write(data: bytes, stdin: IO[bytes] = stdin) -> None:
            stdin.write(data)
            stdin.flush()

        write(_REQUEST)
        stdout.readline()
        settled_bytes(process.pid)
        with _each_request(results, "one request at a time", side, process.pid):
            for _ in range(REQUESTS):
                write(_REQUEST)
                stdout.readline()
        with _each_request(results, "requests all at once", side, process.pid):
            writer = threading.Thread(target=write, args=(_REQUEST * REQUESTS,))
            writer.start()
            for _ in range(REQUESTS):
                stdout.readline()
            writer.join()
        process.communicate()


@contextmanager
def _each_request(results: Results, subject: str, side: str, pid: int) -> Iterator[None]:
    """What each of ``REQUESTS`` took that were made meanwhile."""
    used_s, started_s = cpu_s(pid), time.perf_counter()
    yield
    wall_s = time.perf_counter() - started_s
    results.add(subject, side, wall_s=wall_s / REQUESTS, cpu_s=(cpu_s(pid) - used_s) / REQUESTS)


def host_scan(results: Results, tree: Path, sidecar: Sidecar, host_id: str, engine: str) -> None:
    """The analysis of a host's tree, and the baseline's of the same one here."""
    theirs = baseline(tree)
    ours, messages = analysed(sidecar, at_host=host_id)
    if messages != theirs.messages:
        raise SystemExit(f"host: the sidecar counts {messages} messages, the baseline {theirs.messages}")
    add_measured(results, f"R {engine}", "baseline", theirs)
    # Not the processor time: the engine's at the host would be missing in it.
    results.add(
        f"R {engine}",
        "sidecar",
        wall_s=ours.wall_s,
        first_s=ours.first_s,
        above_idle_bytes=ours.above_idle_bytes,
    )


def cold(results: Results, subject: str, tree: Path) -> None:
    """As ``scan``, but nothing of the tree is in memory: the caches of the whole system are dropped. Needs root."""
    drop_caches()
    theirs = baseline(tree)
    with Sidecar(tree) as sidecar:
        idle_bytes = sidecar.idle_bytes()
        drop_caches()
        ours, _ = analysed(sidecar, idle_bytes)
    results.add(f"{subject} cold", "baseline", wall_s=theirs.wall_s)
    results.add(f"{subject} cold", "sidecar", wall_s=ours.wall_s, first_s=ours.first_s)


def cold_databases(results: Results, tree: Path) -> None:
    with Sidecar(tree) as sidecar:
        idle_bytes = sidecar.idle_bytes()
        drop_caches()
        run, _ = analysed(sidecar, idle_bytes)
    results.add("S cold", "sidecar", wall_s=run.wall_s, first_s=run.first_s)


def slow_disk(results: Results, subject: str, tree: Path) -> None:
    """The first batch from a slow disk, of which nothing is in memory, and a cancel while it reads."""
    try:
        with on_slow_disk(tree) as path, Sidecar(path) as sidecar:
            run = sidecar.stream("analyze_sessions_stream", cancel_after_s=SLOW_DISK_S)
    except OSError as error:
        raise NotHere(f"a slow disk can't be mounted, which takes root and FUSE: {error}") from None
    if run.first_s > SLOW_DISK_S:
        raise SystemExit(f"{tree}: a slow disk gave nothing in {SLOW_DISK_S} s")
    results.add(f"{subject} slow disk", "sidecar", first_s=run.first_s, cancel_s=run.wall_s)


def drop_caches() -> None:
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError as error:
        raise NotHere(f"the caches can't be dropped, which takes root: {error}") from None


def baseline(tree: Path) -> Measured:
    command = [sys.executable, "-m", "tests.bench.baseline", str(tree)]
    return Measured(*json.loads(subprocess.check_output(command, env=plain_environ())))


def analysed(sidecar: Sidecar, idle_bytes: int | None = None, *, at_host: str | None = None) -> tuple[Run, int]:
    """One analysis, and how many messages it counts."""
    counts: list[int] = []

    def count(line: bytes) -> None:
        counts.extend(map(int, _COUNT.findall(line)))

    if at_host is None:
        run = sidecar.stream("analyze_sessions_stream", idle_bytes=idle_bytes, each=count)
    else:
        run = sidecar.stream("remote_analyze_sessions_stream", idle_bytes=idle_bytes, each=count, hostId=at_host)
    return run, sum(counts)


def add_measured(results: Results, subject: str, side: str, measured: Measured) -> None:
    results.add(subject, side, wall_s=measured.wall_s, cpu_s=measured.cpu_s, above_idle_bytes=measured.above_idle_bytes)


def add_run(results: Results, subject: str, side: str, run: Run) -> None:
    results.add(subject, side, wall_s=run.wall_s, cpu_s=run.cpu_s, above_idle_bytes=run.above_idle_bytes)
    if run.batches > 1:  # else the first is the whole
        results.add(subject, side, first_s=run.first_s)
