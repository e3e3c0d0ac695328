"""``python -m tests.bench.files``: the list of session files, streamed and eager, at 1,000 and 100,000 files.

Each figure is of a sidecar over pipes, as its client sees it: does the list need a stream? Nothing passes or fails.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tests.bench.corpora import ROOT
from tests.bench.figures import mib_of, ms_of
from tests.bench.process import Sidecar, settled_bytes, status_bytes

COUNTS = (1_000, 100_000)
SUFFIXES = (".jsonl", ".trajectory.jsonl", ".trajectory-path.json", ".jsonl.deleted.2026-11-22T20-19-10.375Z.zst")


class Listing(NamedTuple):
    """One listing, from the request on."""

    first_line_s: float
    wall_s: float
    longest_line_bytes: int
    all_lines_bytes: int
    above_idle_bytes: int
    files: int


def tree(count: int) -> Path:
    """A home with ``count`` files, all of one agent, empty but for their sizes; written if it isn't there yet."""
    path = ROOT / f"files-{count}"
    if not path.exists():
        names = random.Random(count)
        unfinished = path.with_suffix(".partial")
        folder = unfinished / "agents" / "main" / "sessions"
        folder.mkdir(parents=True)
        for number in range(count):
            session_id = uuid.UUID(int=names.getrandbits(128), version=4)
            with open(folder / f"{session_id}{SUFFIXES[number % len(SUFFIXES)]}", "wb") as file:
                file.truncate(names.randrange(1_000_000))
        unfinished.rename(path)
    return path.resolve()


def listing(openclaw_dir: Path, method: str) -> Listing:
    sidecar = Sidecar(openclaw_dir)
    sidecar.call("ping")
    pid = sidecar.process.pid
    idle_bytes = settled_bytes(pid)
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    sizes: list[int] = []
    files = 0
    first_s = 0.0
    started_s = time.perf_counter()
    sidecar.send(method)
    for line in _lines(sidecar, method):
        first_s = first_s or time.perf_counter()
        sizes.append(len(line))
        files += line.count(b'"relativePath":')
    wall_s = time.perf_counter() - started_s
    above_idle_bytes = status_bytes(pid, "VmHWM") - idle_bytes
    sidecar.close()
    return Listing(first_s - started_s, wall_s, max(sizes), sum(sizes), above_idle_bytes, files)


def _lines(sidecar: Sidecar, method: str) -> Iterator[bytes]:
    """The lines that carry files: the eager reply, or the chunks of the stream up to its terminal."""
    reply = sidecar.line()
    if method == "list_session_files":
        yield reply
        return
    while b'"method":"session-files:done"' not in (line := sidecar.line())[:80]:
        yield line


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.files", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    table = Table("files", "form", "first files", "all files", "longest line", "all lines", "peak above idle")
    for count in COUNTS:
        for form, method in (("stream", "list_session_files_stream"), ("eager", "list_session_files")):
            found = [listing(tree(count), method) for _ in range(arguments.rounds + 1)][1:]  # the first warms the cache
            if {each.files for each in found} != {count}:
                raise SystemExit(f"{method}: {found[0].files} files of {count}")
            table.add_row(
                f"{count:,}",
                form,
                ms_of([each.first_line_s for each in found]),
                ms_of([each.wall_s for each in found]),
                f"{statistics.median(each.longest_line_bytes for each in found):,.0f} B",
                f"{statistics.median(each.all_lines_bytes for each in found):,.0f} B",
                mib_of([each.above_idle_bytes for each in found]),
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
