"""``make bench``: wall time, memory, first chunk, start-up and idle size, as ratios and figures of one run.

Baseline and sidecar take turns, round by round, so that a machine that drifts slows both; medians are printed with the
spread. Nothing here passes or fails: the last column says what the project aims at.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson
from rich.console import Console
from rich.table import Table

from tests.bench.corpora import CORPORA, Corpus, tree_of

_BARE_IMPORTS = "import jsonrpcserver, msgspec, orjson, pydantic, sys; print('ready', flush=True); sys.stdin.read()"
_MIB = 1024 * 1024
SETTLE_S = 0.3


class Scan(NamedTuple):
    """One analysis by the sidecar, as its client sees it."""

    wall_s: float
    first_chunk_s: float
    above_idle_bytes: int
    messages: int


class Start(NamedTuple):
    """A process from its spawn to its first line, and its size then."""

    wall_s: float
    resident_bytes: int


class Sidecar:
    """A sidecar over pipes."""

    def __init__(self, openclaw_dir: Path) -> None:
        environ = {**os.environ, "CLAWPAL_OPENCLAW_DIR": str(openclaw_dir)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sidecar", "--no-index"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
        )

    def send(self, method: str) -> None:
        stdin = _pipe(self.process.stdin)
        stdin.write(orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method}) + b"\n")
        stdin.flush()

    def line(self) -> bytes:
        return _pipe(self.process.stdout).readline()

    def call(self, method: str) -> Any:
        self.send(method)
        return orjson.loads(self.line())["result"]

    def scan(self) -> Scan:
        self.call("ping")
        idle_bytes = settled_bytes(self.process.pid)
        # Start the peak anew: the imports' own is over.
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        started_s = time.perf_counter()
        self.call("analyze_sessions_stream")
        replied_s = time.perf_counter()
        first_s = 0.0
        messages = 0
        while b'"method":"sessions:done"' not in (line := self.line())[:80]:
            first_s = first_s or time.perf_counter()
            messages += sum(session["messageCount"] for session in orjson.loads(line)["params"]["sessions"])
        wall_s = time.perf_counter() - started_s
        above_idle_bytes = status_bytes(self.process.pid, "VmHWM") - idle_bytes
        return Scan(wall_s, first_s - replied_s, above_idle_bytes, messages)

    def close(self) -> None:
        _pipe(self.process.stdin).close()
        self.process.wait()
        _pipe(self.process.stdout).close()


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


def scan_rounds(tree: Path, rounds: int) -> tuple[list[float], list[Scan]]:
    """Baseline and sidecar in turn, after one of each that warms the page cache."""
    baselines, scans = [], []
    for number in range(rounds + 1):
        output = subprocess.check_output([sys.executable, "-m", "tests.bench.baseline", str(tree)], text=True)
        seconds, messages = output.split()
        sidecar = Sidecar(tree)
        scan = sidecar.scan()
        sidecar.close()
        if scan.messages != int(messages):
            raise SystemExit(f"{tree}: the sidecar counts {scan.messages} messages, the baseline {messages}")
        if number:
            baselines.append(float(seconds))
            scans.append(scan)
    return baselines, scans


def start_rounds(rounds: int) -> tuple[list[Start], list[Start]]:
    """Bare imports and sidecar in turn, each up to its first line."""
    bare, ours = [], []
    for _ in range(rounds):
        started_s = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-c", _BARE_IMPORTS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        _pipe(process.stdout).readline()
        bare.append(Start(time.perf_counter() - started_s, settled_bytes(process.pid)))
        process.communicate()
        started_s = time.perf_counter()
        sidecar = Sidecar(Path())
        sidecar.call("ping")
        ours.append(Start(time.perf_counter() - started_s, settled_bytes(sidecar.process.pid)))
        sidecar.close()
    return bare, ours


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--corpora", default="ABCD", help="their letters (default: all)")
    arguments = parser.parse_args()
    console = Console(width=110)
    table = Table("what", "baseline", "sidecar", "ratio (min–max)", "aim", title=f"{arguments.rounds} rounds, medians")
    for corpus in CORPORA:
        if corpus.letter in arguments.corpora:
            add_scan(table, corpus, *scan_rounds(tree_of(corpus), arguments.rounds))
    add_start(table, *start_rounds(2 * arguments.rounds))
    console.print(table)


def add_scan(table: Table, corpus: Corpus, baselines: list[float], scans: list[Scan]) -> None:
    walls = [scan.wall_s for scan in scans]
    name = f"{corpus.letter}: {corpus.describes}"
    table.add_row(
        f"{name}, wall", _ms(baselines), _ms(walls), _ratios(baselines, walls), f"≤ {corpus.max_wall_ratio:.2f}"
    )
    table.add_row("   first chunk after the reply", "", _ms([scan.first_chunk_s for scan in scans]), "", "≤ 50 ms")
    table.add_row("   peak above idle", "", _mib([scan.above_idle_bytes for scan in scans]), "", "≤ 4 MiB")


def add_start(table: Table, bare: list[Start], ours: list[Start]) -> None:
    bare_s, ours_s = [start.wall_s for start in bare], [start.wall_s for start in ours]
    table.add_row(
        "start to first reply (baseline: bare imports)", _ms(bare_s), _ms(ours_s), _ratios(bare_s, ours_s), "≤ 1.20"
    )
    bare_bytes, our_bytes = [start.resident_bytes for start in bare], [start.resident_bytes for start in ours]
    table.add_row("idle resident memory", _mib(bare_bytes), _mib(our_bytes), _ratios(bare_bytes, our_bytes), "≤ 1.20")


def _ratios(baseline: Sequence[float], ours: Sequence[float]) -> str:
    ratios = [mine / theirs for theirs, mine in zip(baseline, ours, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def _ms(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) * 1000:,.0f} ms"


def _mib(sizes: Sequence[float]) -> str:
    return f"{statistics.median(sizes) / _MIB:.1f} MiB (max {max(sizes) / _MIB:.1f})"


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


if __name__ == "__main__":
    main()
