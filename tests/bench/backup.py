"""``python -m tests.bench.backup``: backups, checks and restores as a client sees them, beside ``cp``, and restic.

The baseline is what a careful script does: ``cp -a``, ``sha256sum`` of every file, ``sync -f``. It and the sidecar take
turns; before each run the disk is synced, so that none pays for another. Nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from rich.console import Console
from rich.table import Table

from sidecar.limits import MIB, YOUNG_S
from tests.bench.corpora import ROOT
from tests.bench.figures import mib_of, ms_of, ratios_of
from tests.bench.process import SETTLE_S, pipe, settled_bytes, status_bytes

_PASSWORD = {"RESTIC_PASSWORD": "bench", "RESTIC_PROGRESS_FPS": "0.01"}
_CANCEL_AFTER = (0.2, 0.5, 0.8)
"""Parts of the time of a whole backup."""


class Tree(NamedTuple):
    """What is backed up: how many files, each how large, and a database."""

    letter: str
    describes: str
    files: int
    file_bytes: int
    database_bytes: int = 0


TREES = (
    Tree("B", "1,000 files of 1 MB", 1_000, 1_000_000),
    Tree("C", "one file of 2 GB", 1, 2_000_000_000),
    Tree("D", "100,000 files of 2 KB", 100_000, 2_000),
    Tree("S", "a database of 200 MB, 1,000 files of 20 KB", 1_000, 20_000, 200_000_000),
)
SMALL = {"C": 200_000_000}


class Run(NamedTuple):
    """One stream: its time, its memory above that of the idle process, what its terminal told."""

    wall_s: float
    above_idle_bytes: int
    told: dict[str, Any]


class Times(NamedTuple):
    """Of each round."""

    baseline_s: list[float]
    first: list[Run]
    second: list[Run]
    checksum_s: list[float]
    verify: list[Run]
    copy_back_s: list[float]
    restore: list[Run]
    cancel_s: list[float]
    restic_first_s: list[float]
    restic_second_s: list[float]


class Sidecar:
    """A sidecar over pipes, with directories of its own."""

    def __init__(self, openclaw_dir: Path, clawpal_dir: Path) -> None:
        environ = {**os.environ, "CLAWPAL_OPENCLAW_DIR": str(openclaw_dir), "CLAWPAL_DATA_DIR": str(clawpal_dir)}
        command = [sys.executable, "-m", "sidecar"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ)
        self._backups = clawpal_dir / "backups"
        self._ids = itertools.count(1)
        self._call("ping")

    def stream(self, method: str, cancel_after_s: float | None = None, **params: Any) -> Run:
        """Run a stream to its terminal; with a cancel, the time is from there on."""
        pid = self._process.pid
        idle_bytes = settled_bytes(pid)
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        subprocess.run(["sync"], check=True)
        started_s = time.perf_counter()
        handle = self._call(method, **params)
        if cancel_after_s is not None:
            time.sleep(cancel_after_s)
            started_s = time.perf_counter()
            self._send("cancel_stream", handleId=handle)
        while True:
            message = orjson.loads(pipe(self._process.stdout).readline())
            if message.get("method", "").endswith((":done", ":error")):
                break
        wall_s = time.perf_counter() - started_s
        while any(self._backups.glob(".deleted-*")):  # what a cancel leaves to a thread, which the next run is spared
            time.sleep(SETTLE_S)
        if message["method"].endswith(":error") and cancel_after_s is None:
            raise SystemExit(f"{method}: {message}")
        return Run(wall_s, status_bytes(pid, "VmHWM") - idle_bytes, message["params"])

    def _send(self, method: str, **params: Any) -> int:
        number = next(self._ids)
        stdin = pipe(self._process.stdin)
        stdin.write(orjson.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}) + b"\n")
        stdin.flush()
        return number

    def _call(self, method: str, **params: Any) -> Any:
        number = self._send(method, **params)
        # The reply to a cancel may come after the end of what it was to cancel.
        while (reply := orjson.loads(pipe(self._process.stdout).readline())).get("id") != number:
            pass
        if "error" in reply:
            raise SystemExit(f"{method}: {reply}")
        return reply["result"]

    def close(self) -> None:
        pipe(self._process.stdin).close()
        self._process.wait()
        pipe(self._process.stdout).close()


def written(tree: Tree, folder: Path) -> Path:
    """Write ``tree`` into ``folder``; always the same."""
    chance = random.Random(tree.letter)
    block = chance.randbytes(MIB)
    sessions = folder / "agents" / "main" / "sessions"
    sessions.mkdir(parents=True)
    for number in range(tree.files):
        with open(sessions / f"s-{number:06}.jsonl", "wb") as file:
            start = chance.randrange(MIB // 2)
            left = tree.file_bytes
            while left > 0:
                left -= file.write(block[start : start + min(left, MIB)])
                start = 0
    if tree.database_bytes:
        path = folder / "agents" / "main" / "agent" / "openclaw-agent.sqlite"
        path.parent.mkdir()
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE transcript_events(session_id TEXT, seq INTEGER, event_json TEXT)")
            rows = ((f"s{number % 100}", number, chance.randbytes(1_000).hex()) for number in range(10**9))
            for _ in range(tree.database_bytes // 2_000 // 1_000):
                database.executemany(
                    "INSERT INTO transcript_events VALUES (?, ?, ?)", [next(rows) for _ in range(1000)]
                )
            database.execute("CREATE INDEX by_session ON transcript_events(session_id, seq)")
        database.close()
    return folder


def damage(openclaw: Path) -> None:
    """Take away every third file, and spoil every other third."""
    for number, path in enumerate(sorted((openclaw / "agents").rglob("*.jsonl"))):
        if number % 3 == 0:
            path.unlink()
        elif number % 3 == 1:
            path.write_bytes(b"spoiled")


def timed(command: str, **environ: str) -> float:
    subprocess.run(["sync"], check=True)
    started_s = time.perf_counter()
    subprocess.run(["bash", "-ec", command], check=True, stdout=subprocess.DEVNULL, env={**os.environ, **environ})
    return time.perf_counter() - started_s


def measured(tree: Tree, rounds: int, folder: Path, say: Callable[[str], None]) -> Times:
    """All that is done with one tree, ``rounds`` times."""
    openclaw = written(tree, folder / "openclaw")
    time.sleep(YOUNG_S)
    times = Times([], [], [], [], [], [], [], [], [], [])
    # Nothing is removed before all backups are made: soon after many files went, ext4 is slow to make new ones.
    for number in range(rounds):
        say(f"{tree.letter}: backups, round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}")
        place = folder / str(number)
        place.mkdir()
        measure_backups(openclaw, place, times)
    first_place = folder / "0"
    sidecar = Sidecar(openclaw, first_place / "clawpal")
    for number in range(rounds):
        say(f"{tree.letter}: restores, round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}")
        measure_restores(openclaw, first_place, sidecar, times)
        if not tree.database_bytes:  # of which a copy holds the same in other bytes
            timed(f"cd {openclaw} && sha256sum --quiet -c {first_place}/sums")
    for part in _CANCEL_AFTER * rounds:
        wait_s = part * statistics.median(run.wall_s for run in times.first)
        cancelled = sidecar.stream("backup_before_upgrade_stream", cancel_after_s=wait_s, share=False)
        if "error" in cancelled.told:  # else it was done before
            times.cancel_s.append(cancelled.wall_s)
    sidecar.close()
    return times


def measure_backups(openclaw: Path, place: Path, times: Times) -> None:
    sums = "cd copy && find . -type f -print0 | xargs -0 sha256sum"
    times.baseline_s.append(timed(f"cd {place} && cp -a {openclaw} copy && ({sums} > ../sums) && sync -f copy"))
    sidecar = Sidecar(openclaw, place / "clawpal")
    times.first.append(sidecar.stream("backup_before_upgrade_stream"))
    times.second.append(sidecar.stream("backup_before_upgrade_stream"))
    times.checksum_s.append(timed(f"cd {place}/copy && sha256sum --quiet -c ../sums"))
    name = times.first[-1].told["info"]["name"]
    times.verify.append(sidecar.stream("verify_backup_stream", backupName=name))
    sidecar.close()
    if shutil.which("restic"):
        restic = f"restic -q --no-cache -r {place}/restic"
        timed(f"{restic} init", **_PASSWORD)
        times.restic_first_s.append(timed(f"{restic} backup {openclaw}", **_PASSWORD))
        times.restic_second_s.append(timed(f"{restic} backup {openclaw}", **_PASSWORD))


def measure_restores(openclaw: Path, place: Path, sidecar: Sidecar, times: Times) -> None:
    damage(openclaw)
    times.copy_back_s.append(timed(f"cp -a {place}/copy/. {openclaw}/ && sync -f {openclaw}"))
    damage(openclaw)
    name = times.first[0].told["info"]["name"]
    times.restore.append(sidecar.stream("restore_from_backup_stream", backupName=name))


def add(table: Table, tree: Tree, times: Times) -> None:
    def walls(runs: Sequence[Run]) -> list[float]:
        return [run.wall_s for run in runs]

    first, second, verify, restore = map(walls, (times.first, times.second, times.verify, times.restore))
    table.add_row(
        f"{tree.letter}: {tree.describes}; backup beside cp, sha256sum, sync",
        ms_of(times.baseline_s),
        ms_of(first),
        ratios_of(times.baseline_s, first),
        "≤ 1.50",
    )
    table.add_row("   second backup beside the first", ms_of(first), ms_of(second), ratios_of(first, second), "≤ 0.35")
    table.add_row(
        "   check beside sha256sum -c", ms_of(times.checksum_s), ms_of(verify), ratios_of(times.checksum_s, verify), ""
    )
    table.add_row(
        "   restore of two thirds beside cp back and sync",
        ms_of(times.copy_back_s),
        ms_of(restore),
        ratios_of(times.copy_back_s, restore),
        "",
    )
    peaks = [run.above_idle_bytes for run in (*times.first, *times.second, *times.verify, *times.restore)]
    table.add_row("   peak above idle, of all four", "", mib_of(peaks), "", "≤ 8 MiB")
    if times.cancel_s:
        worst_s = max(times.cancel_s)
        told = f"{statistics.median(times.cancel_s) * 1000:,.0f} ms (max {worst_s * 1000:,.0f})"
        table.add_row("   cancel to terminal", "", told, "", "≤ 100 ms")
    if times.restic_first_s:
        told = f"{ms_of(times.restic_first_s)}, then {ms_of(times.restic_second_s)}"
        table.add_row("   restic, for comparison", told, "", ratios_of(times.restic_first_s, first), "")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.backup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trees", default="BCDS", help="their letters (default: all)")
    parser.add_argument("--small", action="store_true", help="with a tenth of C, for a look")
    arguments = parser.parse_args()
    console = Console(width=130)
    title = f"{arguments.rounds} rounds, medians"
    ROOT.mkdir(exist_ok=True)
    for tree in TREES:
        if tree.letter in arguments.trees:
            chosen = tree._replace(file_bytes=SMALL.get(tree.letter, tree.file_bytes)) if arguments.small else tree
            with tempfile.TemporaryDirectory(dir=ROOT.resolve()) as folder:
                times = measured(chosen, arguments.rounds, Path(folder), console.print)
            table = Table("what", "baseline", "sidecar", "ratio (min–max)", "aim", title=title)
            add(table, chosen, times)
            console.print(table)


if __name__ == "__main__":
    main()
