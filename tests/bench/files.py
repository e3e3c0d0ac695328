"""``python -m tests.bench.files``: the list of session files, streamed and eager, at 1,000 and 100,000 files.

Each figure is of a sidecar over pipes, as its client sees it: does the list need a stream? Nothing passes or fails.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from rich.console import Console
from rich.table import Table

from sidecar.server import commands
from sidecar.server.commands import Command
from sidecar.streams.files import SessionFilesStream, list_session_files
from tests.bench.__main__ import _mib, _ms, _pipe, settled_bytes, status_bytes
from tests.bench.corpora import ROOT

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


def serve() -> None:
    """Run a sidecar that has both commands, whether or not the table has them yet."""
    if "list_session_files" not in {command.name for command in commands.COMMANDS}:
        commands.COMMANDS += (
            Command(
                "list_session_files",
                None,
                "job",
                lambda context, _: partial(list_session_files, context.openclaw_dir()),
                "",
            ),
            Command(
                "list_session_files_stream",
                "BatchParams",
                "stream",
                lambda context, params: SessionFilesStream(context.openclaw_dir(), params.batch_size),
                "",
            ),
        )
    from sidecar.server.stdio import serve_stdio

    sys.exit(serve_stdio())


def listing(openclaw_dir: Path, method: str) -> Listing:
    environ = {**os.environ, "CLAWPAL_OPENCLAW_DIR": str(openclaw_dir)}
    arguments = [sys.executable, "-m", "tests.bench.files", "--serve"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as process:
        stdin, stdout = _pipe(process.stdin), _pipe(process.stdout)

        def send(name: str) -> None:
            stdin.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": name}).encode() + b"\n")
            stdin.flush()

        send("ping")
        stdout.readline()
        idle_bytes = settled_bytes(process.pid)
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")
        sizes: list[int] = []
        files = 0
        first_s = 0.0
        started_s = time.perf_counter()
        send(method)
        for line in _lines(stdout, method):
            first_s = first_s or time.perf_counter()
            sizes.append(len(line))
            files += line.count(b'"relativePath":')
        wall_s = time.perf_counter() - started_s
        above_idle_bytes = status_bytes(process.pid, "VmHWM") - idle_bytes
        stdin.close()
        process.wait()
    return Listing(first_s - started_s, wall_s, max(sizes), sum(sizes), above_idle_bytes, files)


def _lines(stdout: IO[bytes], method: str) -> Iterator[bytes]:
    """The lines that carry files: the eager reply, or the chunks of the stream up to its terminal."""
    reply = stdout.readline()
    if method == "list_session_files":
        yield reply
        return
    while b'"method":"session-files:done"' not in (line := stdout.readline())[:80]:
        yield line


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.files", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
    table = Table("files", "form", "first files", "all files", "longest line", "all lines", "peak above idle")
    for count in COUNTS:
        for form, method in (("stream", "list_session_files_stream"), ("eager", "list_session_files")):
            found = [listing(tree(count), method) for _ in range(arguments.rounds + 1)][1:]  # the first warms the cache
            if {each.files for each in found} != {count}:
                raise SystemExit(f"{method}: {found[0].files} files of {count}")
            table.add_row(
                f"{count:,}",
                form,
                _ms([each.first_line_s for each in found]),
                _ms([each.wall_s for each in found]),
                f"{statistics.median(each.longest_line_bytes for each in found):,.0f} B",
                f"{statistics.median(each.all_lines_bytes for each in found):,.0f} B",
                _mib([each.above_idle_bytes for each in found]),
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
