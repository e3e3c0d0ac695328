"""``make bench``: time, first batch, cancel, memory, start-up and requests, beside the handlers' way, in one run.

The baseline and the sidecar take turns, round by round, so that a machine that drifts slows both. A run of all parts
writes ``results.json``, the plots beside it, and the README's tables. Nothing here passes or fails: the last column
says what the project aims at; ``make bench-gate`` is what fails.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import pytest
from rich.console import Console

from tests.bench import measures, plots, report, results
from tests.bench import small as small_machine
from tests.bench.corpora import CORPORA, corpus, database_of, size_bytes, tree_of
from tests.bench.remote import connected, loopback_host
from tests.bench.results import Results
from tests.remote.client import HOST_ID

ENGINES = ("node", "python")
Part = Callable[[Results, int], None]
"""Measures something so many times."""


def in_turns(measure: Callable[[Results], None], found: Results, rounds: int) -> None:
    """``rounds`` times, after once that warms the page cache and counts for nothing."""
    measure(results.begun(1, {}))
    for _ in range(rounds):
        measure(found)


def scans(letter: str, found: Results, rounds: int) -> None:
    tree = tree_of(corpus(letter))
    in_turns(lambda into: measures.scan(into, letter, tree), found, rounds)
    if letter in "BC":
        whole = found.of(letter, "sidecar", "wall_s")
        assert whole
        for _ in range(rounds):
            measures.cancels(found, letter, tree, "analyze_sessions_stream", whole.median)


def previews(found: Results, rounds: int) -> None:
    tree = tree_of(corpus("C"))
    in_turns(lambda into: measures.previews(into, tree), found, rounds)
    whole = found.of("preview", "sidecar", "wall_s")
    assert whole
    (transcript,) = tree.glob("agents/*/sessions/*.jsonl")
    params = {"agentId": "main", "sessionId": transcript.stem}
    for _ in range(rounds):
        measures.cancels(found, "preview", tree, "preview_session_stream", whole.median, **params)


def databases(found: Results, rounds: int) -> None:
    in_files = corpus("B")
    tree = database_of(in_files)
    in_turns(lambda into: measures.databases(into, tree, tree_of(in_files)), found, rounds)


def hosts(found: Results, rounds: int) -> None:
    """Each side by a connection that is open; what the host has is found out in the round that doesn't count."""
    tree = tree_of(corpus("B"))
    for engine in ENGINES:
        with loopback_host(tree, engine) as host, connected(host) as sidecar:
            measure = partial(measures.host_scan, tree=tree, sidecar=sidecar, host_id=HOST_ID, engine=engine)
            in_turns(measure, found, rounds)


def small(found: Results, rounds: int) -> None:
    """Once, whatever ``rounds``: whether something fails, and what it takes."""
    trees = [*map(tree_of, CORPORA), database_of(corpus("B"))]
    ended = [each for tree in trees for each in small_machine.here(tree)]
    try:
        ended += [each for tree in trees for each in small_machine.at_host("node", tree)]
        for letter in "AD":
            for engine in ("python", "sftp"):
                ended += small_machine.at_host(engine, tree_of(corpus(letter)))
    finally:  # also where there can be no host
        found.add(
            "small",
            "sidecar",
            streams=len(ended),
            peak_bytes=max(each.peak_bytes for each in ended),
            private_bytes=max(each.private_bytes for each in ended),
        )


def cold(found: Results, rounds: int) -> None:
    for _ in range(rounds):
        for letter in "BD":
            measures.cold(found, letter, tree_of(corpus(letter)))
        measures.cold_databases(found, database_of(corpus("B")))


def slow_disk(found: Results, rounds: int) -> None:
    for _ in range(rounds):
        for letter in "BD":
            measures.slow_disk(found, letter, tree_of(corpus(letter)))


PARTS: dict[str, Part] = {
    **{each.letter: partial(scans, each.letter) for each in CORPORA},
    "P": previews,
    "S": databases,
    "R": hosts,
    "start": lambda found, rounds: in_turns(measures.starts, found, rounds),
    "requests": lambda found, rounds: in_turns(measures.requests, found, rounds),
    "cold": cold,
    "slow": slow_disk,
    "small": small,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--parts", default=",".join(PARTS), help="which, with commas between; some of them only print (default: all)"
    )
    parser.add_argument("--draw", action="store_true", help="measure nothing: draw what the last run of all has found")
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    if not set(parts) <= set(PARTS):
        parser.error(f"the parts are {','.join(PARTS)}")
    console = Console(width=130)
    found = results.load() if arguments.draw else measured(parts, arguments.rounds, console)
    console.print(report.table(found))
    if not arguments.draw:
        if set(parts) != set(PARTS):
            return
        results.save(found)
    plots.write_all(found)
    report.write_readme(found)


def measured(parts: list[str], rounds: int, console: Console) -> Results:
    console.print("writing what is not there yet below .bench, 3 GB in all")
    found = results.begun(rounds, {each.letter: size_bytes(tree_of(each)) for each in CORPORA})
    for part in parts:
        found.add_load()
        console.print(f"{part}: {rounds} rounds, load {found.machine.load[-1]}")
        try:
            PARTS[part](found, rounds)
        except (measures.NotHere, pytest.skip.Exception) as error:
            console.print(f"{part}: not measured: {error}")
    found.add_load()
    return found


if __name__ == "__main__":
    main()
