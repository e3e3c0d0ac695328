"""The trees that are measured, written once below ``.bench/`` by the package's own sample writers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sidecar.demo.database import AgentDatabase
from sidecar.demo.sample import AgentPlan, write_config, write_tree

ROOT = Path(".bench")
_AGENT = "main"
_NOW_MS = 1_795_392_000_000
_WRITER = 1
"""Goes up when the sample writer changes what it writes, so that old trees are not mistaken for new ones."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """A tree by its letter, or a longer name."""

    letter: str
    describes: str
    plan: AgentPlan


CORPORA = (
    Corpus("A", "110 MB in 1,000 files", AgentPlan(_AGENT, 1_000, 110_000, 3_000, 0.0)),
    Corpus("B", "1 GB in 1,000 files", AgentPlan(_AGENT, 1_000, 1_000_000, 14_000, 0.0)),
    Corpus("C", "one file of 500 MB", AgentPlan(_AGENT, 1, 500_000_000, 14_000, 0.0)),
    Corpus("D", "20,000 files of 2 KB", AgentPlan(_AGENT, 20_000, 2_000, 600, 0.0)),
)
SMALL = (
    Corpus("a", "60 MB in 600 files", AgentPlan(_AGENT, 600, 100_000, 3_000, 0.0)),
    Corpus("a10", "6 MB in 60 files", AgentPlan(_AGENT, 60, 100_000, 3_000, 0.0)),
    Corpus("c", "one file of 100 MB", AgentPlan(_AGENT, 1, 100_000_000, 14_000, 0.0)),
    Corpus("c10", "one file of 10 MB", AgentPlan(_AGENT, 1, 10_000_000, 14_000, 0.0)),
    Corpus("d", "5,000 files of 2 KB", AgentPlan(_AGENT, 5_000, 2_000, 600, 0.0)),
    Corpus("d10", "500 files of 2 KB", AgentPlan(_AGENT, 500, 2_000, 600, 0.0)),
)
"""Of the forms of A, C and D, for what is to take seconds; a tenth of each."""


def corpus(letter: str) -> Corpus:
    """The one of that letter."""
    (found,) = (corpus for corpus in (*CORPORA, *SMALL) if corpus.letter == letter)
    return found


def tree_of(corpus: Corpus) -> Path:
    """The tree's path; it is written if it isn't there yet."""
    return _kept(f"{corpus.letter}-{_WRITER}", lambda path: write_corpus(corpus, path))


def database_of(corpus: Corpus) -> Path:
    """The path of a tree with the same conversations in SQLite, as OpenClaw 2026.9.6 keeps them: zstd rows."""
    source = tree_of(corpus)
    return _kept(f"{corpus.letter}-sqlite-{_WRITER}", lambda path: write_database(source, path))


def write_corpus(corpus: Corpus, path: Path) -> None:
    write_tree(path, (corpus.plan,), seed=int.from_bytes(corpus.letter.encode(), "big"), now_ms=_NOW_MS)


def write_database(source: Path, path: Path) -> None:
    """Write the sessions of ``source``, a tree with one agent, into a database in the new tree ``path``."""
    write_config(path)
    sessions = source / "agents" / _AGENT / "sessions"
    index = json.loads((sessions / "sessions.json").read_bytes())
    database = AgentDatabase(path / "agents" / _AGENT)
    with closing(database.connection):
        for key, entry in index.items():
            session_id = entry["sessionId"]
            entry.pop("sessionFile")
            database.connection.execute("BEGIN")
            database.add_node(key, session_id, json.dumps(entry, ensure_ascii=False))
            database.add_window(session_id, key, entry["sessionStartedAt"])
            with open(sessions / f"{session_id}.jsonl", "rb") as transcript:
                lines = (line.removesuffix(b"\n") for line in transcript)
                database.add_rows(session_id, lines, created_at_ms=entry["sessionStartedAt"])
            database.connection.execute("COMMIT")


def linked(source: str, target: str) -> None:
    """A second name for a file, or a copy on another file system; for ``shutil.copytree``."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def size_bytes(tree: Path) -> int:
    """What the transcripts of a tree take, uncompressed."""
    return sum(path.stat().st_size for path in tree.glob("agents/*/sessions/*.jsonl"))


def _kept(name: str, write: Callable[[Path], None]) -> Path:
    path = ROOT / name
    if not path.exists():
        unfinished = path.with_suffix(".partial")
        write(unfinished)
        unfinished.rename(path)
    return path.resolve()
