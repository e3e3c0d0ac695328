"""``make bench-gate``: fails where something has become much slower, or memory grows with the data.

Processor time of the sidecar beside that of the baseline, the best of some rounds in which they take turns: not
seconds, of which a machine has more or fewer. What is too much is measured once more before it counts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sidecar.limits import MIB
from tests.bench import measures, preview, results
from tests.bench.corpora import corpus, database_of, tree_of
from tests.bench.process import Sidecar

SLACK = 1.8
"""How much worse than in the committed results a ratio may be: less than twice, and more than machines differ."""
ROUNDS = 3
FLAT = 1.5
"""How much more memory ten times the data may take."""
_FLOOR_BYTES = 3 * MIB
"""What counts as little memory, whatever part of it the data took."""
_TREES = {"A": "a", "C": "c", "D": "d"}


class Check(NamedTuple):
    name: str
    limit: float
    measure: Callable[[], float]


def checks() -> Iterator[Check]:
    committed = results.load()

    def limit(subject: str, theirs: str = "baseline") -> float:
        known = committed.ratio(subject, "cpu_s", theirs=theirs)
        assert known, f"the committed results have no processor time of {subject}"
        return known.median * SLACK

    for letter, small in _TREES.items():
        name = corpus(small).describes
        yield Check(f"{name}: processor time, of the baseline's", limit(letter), partial(_scans, small))
        yield Check(f"{name}: memory, of that for a tenth", FLAT, partial(_growth, small))
    yield Check("preview: processor time, of the baseline's", limit("preview"), _previews)
    yield Check("SQLite: processor time, of that for files", limit("S", "files"), _databases)


def _scans(letter: str) -> float:
    tree = tree_of(corpus(letter))
    return _best(lambda: measures.baseline(tree).cpu_s, lambda: _analysis_cpu_s(tree))


def _databases() -> float:
    files = corpus("a")
    return _best(lambda: _analysis_cpu_s(tree_of(files)), lambda: _analysis_cpu_s(database_of(files)))


def _previews() -> float:
    (transcript,) = tree_of(corpus("c")).glob("agents/*/sessions/*.jsonl")
    return _best(lambda: preview.run("baseline", transcript).cpu_s, lambda: preview.run("sidecar", transcript).cpu_s)


def _best(theirs: Callable[[], float], ours: Callable[[], float]) -> float:
    rounds = [(theirs(), ours()) for _ in range(ROUNDS)]
    return min(mine for _, mine in rounds) / min(other for other, _ in rounds)


def _growth(letter: str) -> float:
    whole, tenth = (max(_FLOOR_BYTES, _analysis_peak_bytes(tree_of(corpus(of)))) for of in (letter, f"{letter}10"))
    return whole / tenth


def _analysis_cpu_s(tree: Path) -> float:
    with Sidecar(tree) as sidecar:
        return measures.analysed(sidecar)[0].cpu_s


def _analysis_peak_bytes(tree: Path) -> int:
    with Sidecar(tree) as sidecar:
        return measures.analysed(sidecar)[0].above_idle_bytes


def main() -> None:
    failed = False
    for check in checks():
        found = check.measure()
        if found > check.limit:
            print(f"{check.name}: {found:.2f}, over {check.limit:.2f}; once more")
            found = check.measure()
        failed |= found > check.limit
        print(f"{check.name}: {found:.2f}, {'OVER' if found > check.limit else 'of at most'} {check.limit:.2f}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
