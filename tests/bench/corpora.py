"""The trees that are measured, written once below ``.bench/`` by the package's own sample writer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sidecar.demo.sample import AgentPlan, write_tree

ROOT = Path(".bench")
_NOW_MS = 1_795_392_000_000
_WRITER = 1
"""Goes up when the sample writer changes what it writes, so that old trees are not mistaken for new ones."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """A tree by its letter (FIELD-NOTES), with the most that our wall time may be of the baseline's."""

    letter: str
    describes: str
    plan: AgentPlan
    max_wall_ratio: float


CORPORA = (
    Corpus("A", "110 MB in 1,000 files", AgentPlan("main", 1_000, 110_000, 3_000, 0.0), 0.60),
    Corpus("B", "1 GB in 1,000 files", AgentPlan("main", 1_000, 1_000_000, 14_000, 0.0), 0.40),
    Corpus("C", "one file of 500 MB", AgentPlan("main", 1, 500_000_000, 14_000, 0.0), 0.35),
    Corpus("D", "20,000 files of 2 KB", AgentPlan("main", 20_000, 2_000, 600, 0.0), 0.70),
)


def tree_of(corpus: Corpus) -> Path:
    """The tree's path; it is written if it isn't there yet."""
    path = ROOT / f"{corpus.letter}-{_WRITER}"
    if not path.exists():
        unfinished = path.with_suffix(".partial")
        write_tree(unfinished, (corpus.plan,), seed=ord(corpus.letter), now_ms=_NOW_MS)
        unfinished.rename(path)
    return path.resolve()
