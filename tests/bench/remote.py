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
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from rich.console import Console
from rich.table import Table

from sidecar.demo.sample import AgentPlan, write_tree
from tests.bench.__main__ import _mib, _ms, _pipe, settled_bytes, status_bytes
from tests.bench.corpora import CORPORA, ROOT, Corpus, tree_of
from tests.remote.client import HOST_ID, write_instance
from tests.remote.node import node_executable
from tests.remote.slow_link import DistantSshd
from tests.remote.sshd import tools_folder

_NOW_MS = 1_795_392_000_000
_SLOW_MBIT, _SLOW_DELAY_MS = 10.0, 25.0
PREVIEW = Corpus("P", "a transcript of 10 MB", AgentPlan("main", 1, 10_000_000, 14_000, 0.0), 0.0)
_RUN = """
import sys
import sidecar.remote.connect
from sidecar.__main__ import main
sidecar.remote.connect.COMPRESSED = sys.argv.pop() == "yes"
main()
"""


class Run(NamedTuple):
    """One stream, from the request on."""

    first_s: float
    wall_s: float
    above_idle_bytes: int
    carried_bytes: int
    items: int


class Client:
    """A sidecar over pipes that is connected to a host."""

    def __init__(self, host: DistantSshd, folder: Path, compressed: bool) -> None:
        write_instance(folder / ".clawpal", host, host.account)
        (folder / ".clawpal" / "known_hosts").write_text(host.known_hosts_line() + "\n")
        self._host = host
        self.process = subprocess.Popen(
            [sys.executable, "-c", _RUN, "yes" if compressed else "no"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "HOME": str(folder)},
        )
        self.call("ssh_connect")

    def call(self, method: str, **params: Any) -> Any:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"hostId": HOST_ID, **params}}
        stdin = _pipe(self.process.stdin)
        stdin.write(orjson.dumps(request) + b"\n")
        stdin.flush()
        return orjson.loads(self.line())["result"]

    def line(self) -> bytes:
        return _pipe(self.process.stdout).readline()

    def stream(self, method: str, **params: Any) -> Run:
        """Run a stream to its end, its memory above that of the connected process."""
        pid = self.process.pid
        idle_bytes = settled_bytes(pid)
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        carried_bytes = self._host.carried_bytes()
        started_s = time.perf_counter()
        self.call(method, **params)
        first_s = 0.0
        items = 0
        while b':done","params":' not in (line := self.line())[:80]:
            if b"error" in line[:60]:
                raise SystemExit(line.decode())
            first_s = first_s or time.perf_counter()
            items += line.count(b'"headerId":') + line.count(b'"role":')
        return Run(
            first_s - started_s,
            time.perf_counter() - started_s,
            status_bytes(pid, "VmHWM") - idle_bytes,
            self._host.carried_bytes() - carried_bytes,
            items,
        )

    def close(self) -> None:
        _pipe(self.process.stdin).close()
        self.process.wait()
        _pipe(self.process.stdout).close()


@contextmanager
def host_with(corpus: Corpus, engine: str) -> Iterator[DistantSshd]:
    """A host that has the corpus, and one engine."""
    programs = {"node": {"node": node_executable()}, "python": {"python3": Path("/usr/bin/python3")}, "sftp": {}}
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = tools_folder(Path(folder) / "bin", ("sh", "cat", "uname", "env"), **programs[engine])
        with DistantSshd(path=str(path)) as host:
            source = tree_of(corpus) if corpus in CORPORA else _written(corpus)
            shutil.copytree(source, host.home / ".openclaw", copy_function=os.link)
            subprocess.run(["chmod", "-R", "a+rX", str(host.home / ".openclaw")], check=True)
            yield host


def _written(corpus: Corpus) -> Path:
    path = ROOT / corpus.letter
    if not path.exists():
        write_tree(path, (corpus.plan,), seed=ord(corpus.letter), now_ms=_NOW_MS)
    return path.resolve()


def runs_of(corpus: Corpus, engine: str, slow: bool, compressed: bool, rounds: int) -> list[Run]:
    """Several runs on one connection; the first one finds out what the host has, too."""
    with host_with(corpus, engine) as host, tempfile.TemporaryDirectory() as folder:
        if slow:
            host.shape(rate_mbit=_SLOW_MBIT, delay_ms=_SLOW_DELAY_MS)
        client = Client(host, Path(folder), compressed)
        request: dict[str, Any] = {"method": "remote_analyze_sessions_stream"}
        if corpus is PREVIEW:
            client_id = next((host.home / ".openclaw/agents/main/sessions").glob("*.jsonl")).stem
            request = {"method": "remote_preview_session_stream", "agentId": "main", "sessionId": client_id}
        found = [client.stream(**request) for _ in range(rounds + 1)]
        client.close()
    return found


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
                        _ms([first.first_s]),
                        _ms([run.first_s for run in runs]),
                        _ms([run.wall_s for run in runs]),
                        f"{statistics.median(run.carried_bytes for run in runs) / 1e6:.2f} MB",
                        _mib([first.above_idle_bytes]),
                        _mib([run.above_idle_bytes for run in runs]),
                        json.dumps(sorted({run.items for run in runs})),
                    )
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
