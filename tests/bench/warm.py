"""``python -m tests.bench.warm``: what an analysis costs that follows another, as ratios to the baseline of one run.

Baseline and sidecar take turns, round by round. Each analysis is the first of its process, and counts from the request
to ``sessions:done``; the baseline, without its imports. Nothing here passes or fails: the last column says what the
project aims at.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sidecar.demo.sample import AgentPlan
from sidecar.limits import YOUNG_S
from tests.bench import measures
from tests.bench.baseline import Measured
from tests.bench.corpora import CORPORA, Corpus, tree_of
from tests.bench.figures import mib_of, ms_of, ratios_of
from tests.bench.process import Sidecar

_GROWN_FILES = 10
_LINES = 20 * (
    b'{"type":"message","id":"a","timestamp":"2026-11-22T00:00:00.000Z",'
    b'"message":{"role":"user","content":[{"type":"text","text":"one more"}]}}\n'
)
_SETTLE_S = YOUNG_S + 0.5
"""What was changed more recently is not remembered."""
LARGER = Corpus("E", "20,000 files of 10 KB", AgentPlan("main", 20_000, 10_000, 600, 0.0))
"""As many as D has, but large enough to be remembered."""
_ROWS = {
    "first, without an index": ("--no-index", ""),
    "first, fills the index": ("", ""),
    "again": ("", "B ≤ 0.03"),
    f"{_GROWN_FILES} files have grown": ("", "B ≤ 0.05"),
}
"""The options of the process, and what the project aims at."""


def by_sidecar(tree: Path, clawpal_dir: Path, row: str) -> Measured:
    command = [sys.executable, "-m", "sidecar", *_ROWS[row][0].split()]
    with Sidecar(tree, command=command, CLAWPAL_DATA_DIR=clawpal_dir) as sidecar:
        run, messages = measures.analysed(sidecar)
    return Measured(run.wall_s, run.cpu_s, run.above_idle_bytes, messages)


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


def measure(corpus: Corpus, rounds: int) -> tuple[list[Measured], dict[str, list[Measured]]]:
    """The costs of the baseline and of each row, a round each, after one that warms the page cache."""
    tree = tree_of(corpus)
    baselines: list[Measured] = []
    rows: dict[str, list[Measured]] = defaultdict(list)
    for number in range(rounds + 1):
        time.sleep(_SETTLE_S)
        costs = [measures.baseline(tree)]
        with tempfile.TemporaryDirectory() as folder:
            *before, after = _ROWS
            costs += [by_sidecar(tree, Path(folder), row) for row in before]
            with grown(tree):
                costs.append(by_sidecar(tree, Path(folder), after))
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
            table.add_row(f"{corpus.letter}: {corpus.describes}", ms_of(base_wall_s), "1", ms_of(base_cpu_s), "1")
            for row, costs in rows.items():
                wall_s, cpu_s = [cost.wall_s for cost in costs], [cost.cpu_s for cost in costs]
                table.add_row(
                    f"   {row}",
                    ms_of(wall_s),
                    ratios_of(base_wall_s, wall_s, digits=3),
                    ms_of(cpu_s),
                    ratios_of(base_cpu_s, cpu_s, digits=3),
                    mib_of([cost.above_idle_bytes for cost in costs]),
                    _ROWS[row][1],
                )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
