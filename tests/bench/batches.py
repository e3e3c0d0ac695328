"""``python -m tests.bench.batches``: what a batch size costs and brings, from 10 to 1,000 sessions a chunk.

For each size the sidecar analyses the same corpus; its client, as an app's bridge and page do, reads and parses every
line. ``--plot FILE`` draws it as SVG. Nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from rich.console import Console
from rich.table import Table

from tests.bench.corpora import CORPORA, Corpus, tree_of
from tests.bench.process import pipe, settled_bytes, status_bytes

SIZES = (10, 25, 50, 100, 250, 500, 1_000)
# Beyond what the protocol allows, to see what that would bring.
_RUN = """
import sys
import sidecar.limits
sidecar.limits.MAX_BATCH_SESSIONS = 1_000
from sidecar.__main__ import main
main()
"""
_KIB = 1024
_WIDTH, _HEIGHT, _LEFT, _TOP = 560, 150, 70, 40


class Run(NamedTuple):
    """One analysis, as its client sees it."""

    wall_s: float
    first_s: float
    events: int
    largest_line_bytes: int
    parse_s: float
    above_idle_bytes: int


def run(tree: Path, batch_size: int) -> Run:
    environ = {**os.environ, "CLAWPAL_OPENCLAW_DIR": str(tree)}
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN, "--no-index"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    )
    stdin, stdout = pipe(process.stdin), pipe(process.stdout)

    def send(method: str, **params: Any) -> None:
        stdin.write(orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}) + b"\n")
        stdin.flush()

    send("ping")
    stdout.readline()
    idle_bytes = settled_bytes(process.pid)
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    started_s = time.perf_counter()
    send("analyze_sessions_stream", batchSize=batch_size)
    stdout.readline()
    first_s = parse_s = 0.0
    events = largest_bytes = 0
    while True:
        line = stdout.readline()
        begun_s = time.perf_counter()
        message = orjson.loads(line)
        parse_s += time.perf_counter() - begun_s
        if message["method"] == "sessions:done":
            break
        first_s = first_s or begun_s - started_s
        events += 1
        largest_bytes = max(largest_bytes, len(line))
    wall_s = time.perf_counter() - started_s
    above_idle_bytes = status_bytes(process.pid, "VmHWM") - idle_bytes
    stdin.close()
    process.wait()
    stdout.close()
    return Run(wall_s, first_s, events, largest_bytes, parse_s, above_idle_bytes)


def medians(runs: list[Run]) -> Run:
    return Run(*(statistics.median(values) for values in zip(*runs, strict=True)))


def measured(corpus: Corpus, rounds: int) -> dict[int, Run]:
    """By batch size, after one run that warms the page cache; the sizes take turns."""
    tree = tree_of(corpus)
    run(tree, 50)
    runs: dict[int, list[Run]] = {size: [] for size in SIZES}
    for _ in range(rounds):
        for size in SIZES:
            runs[size].append(run(tree, size))
    return {size: medians(of) for size, of in runs.items()}


def table_of(corpus: Corpus, found: dict[int, Run], rounds: int) -> Table:
    title = f"{corpus.letter}: {corpus.describes}; {rounds} rounds, medians; load {os.getloadavg()[0]:.1f}"
    table = Table("batch", "first chunk", "all", "events", "a second", "longest line", "peak above idle", title=title)
    for size, one in found.items():
        table.add_row(
            str(size),
            f"{one.first_s * 1000:.0f} ms",
            f"{one.wall_s * 1000:,.0f} ms",
            f"{one.events:,.0f}",
            f"{one.events / one.wall_s:,.0f}",
            f"{one.largest_line_bytes / _KIB:,.0f} KiB",
            f"{one.above_idle_bytes / _KIB / _KIB:.1f} MiB",
        )
    return table


def plot_of(found: dict[str, dict[int, Run]]) -> str:
    """Four charts, a line for each corpus, sizes along the bottom."""
    charts = (
        ("first chunk, ms", lambda one: one.first_s * 1000),
        ("all, relative to a batch of 50", None),
        ("events a second", lambda one: one.events / one.wall_s),
        ("peak above idle, MiB", lambda one: one.above_idle_bytes / _KIB / _KIB),
    )
    colours = ("#0b7285", "#c2255c", "#5c940d", "#e67700")
    height = len(charts) * (_HEIGHT + _TOP) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH + _LEFT + 90}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    step = _WIDTH / (len(SIZES) - 1)
    for row, (name, value) in enumerate(charts):
        top = _TOP + row * (_HEIGHT + _TOP)
        series = {
            letter: [value(one) if value else one.wall_s / of[50].wall_s for one in of.values()]
            for letter, of in found.items()
        }
        most = max(max(values) for values in series.values())
        parts.append(f'<text x="{_LEFT}" y="{top - 8}" font-weight="bold">{name}</text>')
        for part in (0, 0.5, 1):
            y = top + _HEIGHT * (1 - part)
            parts.append(f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y}" y2="{y}" stroke="#dee2e6"/>')
            parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{_shown(most * part)}</text>')
        for (letter, values), colour in zip(series.items(), colours, strict=False):
            points = [(_LEFT + step * at, top + _HEIGHT * (1 - one / most)) for at, one in enumerate(values)]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            x, y = points[-1]
            parts.append(f'<text x="{x + 8}" y="{y + 4}" fill="{colour}">{letter}</text>')
    for at, size in enumerate(SIZES):
        parts.append(f'<text x="{_LEFT + step * at}" y="{height - 12}" text-anchor="middle">{size}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.batches", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--corpora", default="ABD", help="their letters (default: ABD)")
    parser.add_argument("--plot", type=Path, help="an SVG file to draw into")
    arguments = parser.parse_args()
    console = Console(width=110)
    found = {}
    for corpus in CORPORA:
        if corpus.letter in arguments.corpora:
            found[corpus.letter] = measured(corpus, arguments.rounds)
            console.print(table_of(corpus, found[corpus.letter], arguments.rounds))
    if arguments.plot:
        arguments.plot.write_text(plot_of(found), encoding="utf-8")


if __name__ == "__main__":
    main()
