"""``python -m tests.bench.preview``: the preview of a transcript of 500 MB, beside the same one done with orjson.

Each side is a process that writes its notifications to the null device; they take turns, and medians are printed.
Nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from rich.console import Console
from rich.table import Table

from tests.bench.__main__ import _mib, _ms, _ratios, status_bytes
from tests.bench.corpora import CORPORA, tree_of

PAGE_MESSAGES = 100


class Measured(NamedTuple):
    """One preview in a process of its own, without its start."""

    wall_s: float
    cpu_s: float
    above_idle_bytes: int
    messages: int


def baseline(path: str, write: Callable[[bytes], object]) -> int:
    """The whole line as a value, the content as ``str``: what stands for the Rust handlers."""
    handle_id = str(uuid.uuid4())
    page: list[dict[str, str]] = []
    total = pages = 0

    def flush() -> None:
        nonlocal page, pages
        pages += 1
        params = {
            "handleId": handle_id,
            "seq": pages - 1,
            "page": pages,
            "offset": total - len(page),
            "messages": page,
            "totalMessages": total,
        }
        write(orjson.dumps({"jsonrpc": "2.0", "method": "session-preview:page", "params": params}) + b"\n")
        page = []

    with open(path, "rb") as file:
        for line in file:
            entry = orjson.loads(line)
            if entry.get("type") == "message":
                message = entry["message"]
                role = message.get("role")
                role = role if isinstance(role, str) else "unknown"
                page.append({"role": role, "content": text_of(message.get("content"))})
                total += 1
                if len(page) == PAGE_MESSAGES:
                    flush()
    if page:
        flush()
    return total


def text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(
        [block["text"] for block in content if isinstance(block, dict) and isinstance(block.get("text"), str)]
    )


def sidecar(path: str) -> Callable[[str, Callable[[bytes], object]], int]:
    """What the sidecar does between opening the file and the write, ready to be called; imports it all."""
    from sidecar.cancel import CancelToken
    from sidecar.core.blocks import Block, RecordBlocks
    from sidecar.stores.files import BoundedReader, open_regular
    from sidecar.streams.base import Outcome
    from sidecar.streams.preview import PreviewDone, PreviewStream
    from sidecar.wire.messages import event_line

    def blocks(token: CancelToken) -> Iterator[Block]:
        file = open_regular(path)
        records = RecordBlocks()
        source = BoundedReader(file.fd, file.size_bytes, token)
        while block := records.read(source):
            yield block
        os.close(file.fd)

    def preview(path: str, write: Callable[[bytes], object]) -> int:
        handle_id = str(uuid.uuid4())
        stream = PreviewStream(blocks, "main", "s", PAGE_MESSAGES)
        seq = 0
        for event in stream.events(CancelToken()):
            if event is not None:
                write(event_line(event.method, handle_id, seq, event.payload))
                stream.sent(event)
                seq += 1
        done = stream.closing(Outcome())[-1]
        assert isinstance(done.payload, PreviewDone)
        return done.payload.total_messages

    return preview


def measure(side: str, path: str) -> Measured:
    """Runs in the process that is measured."""
    preview = baseline if side == "baseline" else sidecar(path)
    out = os.open(os.devnull, os.O_WRONLY)
    Path("/proc/self/clear_refs").write_text("5")
    idle_bytes = status_bytes(os.getpid(), "VmRSS")
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    messages = preview(path, lambda line: os.write(out, line))
    wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    return Measured(wall_s, cpu_s, status_bytes(os.getpid(), "VmHWM") - idle_bytes, messages)


def run(side: str, path: str) -> Measured:
    output = subprocess.check_output([sys.executable, "-m", "tests.bench.preview", "--measure", side, path], text=True)
    return Measured(*json.loads(output))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.preview", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--measure", nargs=2, metavar=("SIDE", "PATH"), help=argparse.SUPPRESS)
    parser.add_argument("path", nargs="?", help="a transcript (default: corpus C)")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    path = arguments.path or str(next((tree_of(CORPORA[2]) / "agents" / "main" / "sessions").glob("*.jsonl")))
    sides: dict[str, list[Measured]] = {"baseline": [], "sidecar": []}
    for number in range(arguments.rounds + 1):
        for side, measured in sides.items():
            found = run(side, path)
            if number:  # the first warms the page cache
                measured.append(found)
    theirs, ours = sides.values()
    if {found.messages for found in theirs} != {found.messages for found in ours}:
        raise SystemExit(f"the two don't show the same number of messages: {theirs[0].messages}, {ours[0].messages}")
    table = Table(
        "preview", "baseline", "sidecar", "ratio (min–max)", "aim", title=f"{arguments.rounds} rounds, medians"
    )
    for name, aim, figures in (
        ("wall", "≤ 0.60", [[found.wall_s for found in side] for side in (theirs, ours)]),
        ("processor", "", [[found.cpu_s for found in side] for side in (theirs, ours)]),
    ):
        table.add_row(name, _ms(figures[0]), _ms(figures[1]), _ratios(*figures), aim)
    peaks = [[found.above_idle_bytes for found in side] for side in (theirs, ours)]
    table.add_row("peak above idle", _mib(peaks[0]), _mib(peaks[1]), "", "≤ 8 MiB")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
