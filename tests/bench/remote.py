"""``python -m tests.bench.remote``: analyses and previews of a host over a real sshd, as a sidecar's client sees them.

The link is as it is on this machine, then shaped to 10 Mbit/s and 50 ms there and back; with SSH's compression and
without. Needs root, for the link. Nothing passes or fails.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from sidecar.demo.sample import AgentPlan, write_tree
from tests.bench.corpora import CORPORA, ROOT, Corpus, linked, tree_of
from tests.bench.figures import mib_of, ms_of
from tests.bench.process import COMMAND, Run, Sidecar
from tests.remote.client import HOST_ID, write_instance
from tests.remote.node import node_executable
from tests.remote.slow_link import DistantSshd
from tests.remote.sshd import Sshd, tools_folder

_NOW_MS = 1_795_392_000_000
_SLOW_MBIT, _SLOW_DELAY_MS = 10.0, 25.0
PREVIEW = Corpus("P", "a transcript of 10 MB", AgentPlan("main", 1, 10_000_000, 14_000, 0.0))
_RUN = """
import sys
import sidecar.remote.connect
from sidecar.__main__ import main
sidecar.remote.connect.COMPRESSED = sys.argv.pop() == "yes"
main()
"""


class RemoteRun(NamedTuple):
    """One stream, what the link carried for it, and how many sessions or messages came."""

    run: Run
    carried_bytes: int
    items: int


@contextmanager
def connected(host: Sshd, command: Sequence[str] = COMMAND) -> Iterator[Sidecar]:
    """A sidecar with a connection to the host, which it knows as ``HOST_ID``."""
    with tempfile.TemporaryDirectory() as folder:
        clawpal_dir = Path(folder) / ".clawpal"
        write_instance(clawpal_dir, host, host.account)
        (clawpal_dir / "known_hosts").write_text(host.known_hosts_line() + "\n")
        with Sidecar(command=command, HOME=folder) as sidecar:
            sidecar.call("ssh_connect", hostId=HOST_ID)
            yield sidecar


@contextmanager
def loopback_host(tree: Path, engine: str) -> Iterator[Sshd]:
    """A host on this machine, without a link of its own, that has the tree, and one engine."""
    with tempfile.TemporaryDirectory() as folder, Sshd(path=path_with(engine, Path(folder))) as host:
        _give(host, tree)
        yield host


@contextmanager
def host_with(corpus: Corpus, engine: str) -> Iterator[DistantSshd]:
    """A host behind a link that can be shaped, that has the corpus, and one engine."""
    with tempfile.TemporaryDirectory() as folder, DistantSshd(path=path_with(engine, Path(folder))) as host:
        _give(host, tree_of(corpus) if corpus in CORPORA else _written(corpus))
        yield host


def path_with(engine: str, folder: Path) -> str:
    """A ``PATH`` for a host on which only that engine runs; it is written into ``folder``."""
    programs = {"node": {"node": node_executable()}, "python": {"python3": Path("/usr/bin/python3")}, "sftp": {}}
    os.chmod(folder, 0o755)
    return str(tools_folder(folder / "bin", ("sh", "cat", "uname", "env", "cp", "flock", "sync"), **programs[engine]))


def _give(host: Sshd, tree: Path) -> None:
    shutil.copytree(tree, host.home / ".openclaw", copy_function=linked)
    subprocess.run(["chmod", "-R", "a+rX", str(host.home / ".openclaw")], check=True)


def _written(corpus: Corpus) -> Path:
    path = ROOT / corpus.letter
    if not path.exists():
        write_tree(path, (corpus.plan,), seed=ord(corpus.letter), now_ms=_NOW_MS)
    return path.resolve()


def runs_of(corpus: Corpus, engine: str, slow: bool, compressed: bool, rounds: int) -> list[RemoteRun]:
    """Several runs on one connection; the first one finds out what the host has, too."""
    command = [sys.executable, "-c", _RUN, "yes" if compressed else "no"]
    with host_with(corpus, engine) as host, connected(host, command) as sidecar:
        if slow:
            host.shape(rate_mbit=_SLOW_MBIT, delay_ms=_SLOW_DELAY_MS)
        method, params = "remote_analyze_sessions_stream", {"hostId": HOST_ID}
        if corpus is PREVIEW:
            session_id = next((host.home / ".openclaw/agents/main/sessions").glob("*.jsonl")).stem
            method, params = "remote_preview_session_stream", {**params, "agentId": "main", "sessionId": session_id}
        return [run_of(host, sidecar, method, params) for _ in range(rounds + 1)]


def run_of(host: DistantSshd, sidecar: Sidecar, method: str, params: dict[str, Any]) -> RemoteRun:
    counts: list[int] = []

    def count(line: bytes) -> None:
        counts.append(line.count(b'"sessionId":') + line.count(b'{"role":'))

    carried_bytes = host.carried_bytes()
    run = sidecar.stream(method, each=count, **params)
    return RemoteRun(run, host.carried_bytes() - carried_bytes, sum(counts))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.remote", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpora", default="ADP", help="A, B, C, D of the other bench, P a preview of 10 MB")
    parser.add_argument("--engines", default="node,python,sftp")
    parser.add_argument("--links", default="fast,slow")
    parser.add_argument("--compression", default="no,yes")
    arguments = parser.parse_args()
    table = Table(
        *("corpus", "engine", "link", "compressed", "first, cold", "first", "all", "carried"),
        *("peak above idle, cold", "peak above idle", "items"),
    )
    for corpus in (*CORPORA, PREVIEW):
        for engine in arguments.engines.split(","):
            for link in arguments.links.split(","):
                for compression in arguments.compression.split(","):
                    if corpus.letter not in arguments.corpora:
                        continue
                    first, *runs = runs_of(corpus, engine, link == "slow", compression == "yes", arguments.rounds)
                    table.add_row(
                        f"{corpus.letter}: {corpus.describes}",
                        engine,
                        link,
                        compression,
                        ms_of([first.run.first_s]),
                        ms_of([each.run.first_s for each in runs]),
                        ms_of([each.run.wall_s for each in runs]),
                        f"{statistics.median(each.carried_bytes for each in runs) / 1e6:.2f} MB",
                        mib_of([first.run.above_idle_bytes]),
                        mib_of([each.run.above_idle_bytes for each in runs]),
                        json.dumps(sorted({each.items for each in runs})),
                    )
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
