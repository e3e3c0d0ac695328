"""``python -m tests.bench.warm``: what an analysis costs that follows another, as ratios to the baseline of one run.

Baseline and sidecar take turns, round by round. Each analysis is the first of its process, and counts from the request
to ``sessions:done``; the baseline, without its imports. Nothing here passes or fails: the last column says what the
project aims at.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import orjson
from rich.console import Console
from rich.table import Table

from sidecar.demo.sample import AgentPlan
from tests.bench.corpora import CORPORA, Corpus, tree_of

_MIB = 1024 * 1024
_GROWN_FILES = 10
_LINES = 20 * (
    b'{"type":"message","id":"a","timestamp":"2026-11-22T00:00:00.000Z",'
    b'"message":{"role":"user","content":[{"type":"text","text":"one more"}]}}\n'
)
_SETTLE_S = 2.5
"""What was changed more recently is not remembered."""
_BASELINE = """
import sys, time
import orjson
from tests.bench.baseline import analyse
wall_s, cpu_s = time.perf_counter(), time.process_time()
orjson.dumps(analyse(sys.argv[1]))
print(time.perf_counter() - wall_s, time.process_time() - cpu_s)
"""
LARGER = Corpus("E", "20,000 files of 10 KB", AgentPlan("main", 20_000, 10_000, 600, 0.0))
"""As many as D has, but large enough to be remembered."""
_ROWS = {
    "first, without an index": ("--no-index", ""),
    "first, fills the index": ("", ""),
    "again": ("", "B ≤ 0.03"),
    f"{_GROWN_FILES} files have grown": ("", "B ≤ 0.05"),
}
"""The options of the process, and what the project aims at."""


class Cost(NamedTuple):
    wall_s: float
    cpu_s: float
    above_idle_bytes: int = 0
    messages: int = 0


def by_baseline(tree: Path) -> Cost:
    output = subprocess.check_output([sys.executable, "-c", _BASELINE, str(tree)], text=True)
    wall_s, cpu_s = map(float, output.split())
    return Cost(wall_s, cpu_s)


def by_sidecar(tree: Path, clawpal_dir: Path, *options: str) -> Cost:
    environ = {**os.environ, "CLAWPAL_OPENCLAW_DIR": str(tree), "CLAWPAL_DATA_DIR": str(clawpal_dir)}
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
    process.stdin.flush()
    process.stdout.readline()
    idle_bytes = _settled_bytes(process.pid)
    # Start the peak anew: the imports' own is over.
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    cpu_s, wall_s = _cpu_s(process.pid), time.perf_counter()
    process.stdin.write(b'{"jsonrpc":"2.0","id":2,"method":"analyze_sessions_stream"}\n')
    process.stdin.flush()
    lines = [process.stdout.readline()]
    while b'"method":"sessions:done"' not in lines[-1][:80]:
        lines.append(process.stdout.readline())
    wall_s, cpu_s = time.perf_counter() - wall_s, _cpu_s(process.pid) - cpu_s
    above_idle_bytes = _status_bytes(process.pid, "VmHWM") - idle_bytes
    process.communicate()
    sessions = (session for line in lines[1:-1] for session in orjson.loads(line)["params"]["sessions"])
    return Cost(wall_s, cpu_s, above_idle_bytes, sum(session["messageCount"] for session in sessions))


@contextmanager
def grown(tree: Path) -> Iterator[None]:
    """Append to some of the transcripts, and take it back."""
    files = sorted(tree.rglob("*.jsonl"))
    files = files[:: max(1, len(files) // _GROWN_FILES)][:_GROWN_FILES]
    sizes = [file.stat().st_size for file in files]
    try:
        for file in files:
            with file.open("ab") as stream:
                stream.write(_LINES)
        yield
    finally:
        for file, size in zip(files, sizes, strict=True):
            os.truncate(file, size)


def measure(corpus: Corpus, rounds: int) -> tuple[list[Cost], dict[str, list[Cost]]]:
    """The costs of the baseline and of each row, a round each, after one that warms the page cache."""
    tree = tree_of(corpus)
    baselines: list[Cost] = []
    rows: dict[str, list[Cost]] = defaultdict(list)
    for number in range(rounds + 1):
        time.sleep(_SETTLE_S)
        costs = [by_baseline(tree)]
        with tempfile.TemporaryDirectory() as folder:
            cold, fills, again, after = _ROWS
            costs += [by_sidecar(tree, Path(folder), *_ROWS[row][0].split()) for row in (cold, fills, again)]
            with grown(tree):
                costs.append(by_sidecar(tree, Path(folder), *_ROWS[after][0].split()))
        messages = [cost.messages for cost in costs[1:]]
        if messages != [messages[0]] * 3 + [messages[0] + _LINES.count(b"\n") * _GROWN_FILES]:
            raise SystemExit(f"{tree}: messages counted: {messages}")
        if number:
            baselines.append(costs[0])
            for row, cost in zip(_ROWS, costs[1:], strict=True):
                rows[row].append(cost)
    return baselines, rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.warm", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--corpora", default="BDE", help="their letters; E is 20,000 files of 10 KB (default: BDE)")
    arguments = parser.parse_args()
    table = Table("what", "wall", "ratio", "CPU", "ratio (min–max)", "peak above idle", "aim")
    table.title = f"{arguments.rounds} rounds, medians; load {os.getloadavg()[0]:.1f}; aim of the peak: 4 MiB"
    for corpus in (*CORPORA, LARGER):
        if corpus.letter in arguments.corpora:
            baselines, rows = measure(corpus, arguments.rounds)
            base_wall_s, base_cpu_s = [cost.wall_s for cost in baselines], [cost.cpu_s for cost in baselines]
            table.add_row(f"{corpus.letter}: {corpus.describes}", _ms(base_wall_s), "1", _ms(base_cpu_s), "1", "", "")
            for row, costs in rows.items():
                wall_s, cpu_s = [cost.wall_s for cost in costs], [cost.cpu_s for cost in costs]
                peak = max(cost.above_idle_bytes for cost in costs) / _MIB
                aim = _ROWS[row][1]
                ratios = _ratio(base_wall_s, wall_s), _ratio(base_cpu_s, cpu_s)
                table.add_row(f"   {row}", _ms(wall_s), ratios[0], _ms(cpu_s), ratios[1], f"≤ {peak:.1f} MiB", aim)
    Console(width=140).print(table)


def _ratio(baseline: list[float], ours: list[float]) -> str:
    ratios = [mine / theirs for theirs, mine in zip(baseline, ours, strict=True)]
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})"


def _ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:,.0f} ms"


def _cpu_s(pid: int) -> float:
    """Of all threads; none of those that serve an analysis ends before the process does."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def _status_bytes(pid: int, field: str) -> int:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields[field].split()[0]) * 1024


def _settled_bytes(pid: int) -> int:
    before = -1
    while (now := _status_bytes(pid, "VmRSS")) != before:
        before = now
        time.sleep(0.3)
    return now


if __name__ == "__main__":
    main()
