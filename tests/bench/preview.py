"""The preview of a transcript, beside the same one done with orjson.

Each side is a process that writes its notifications to the null device. ``python -m tests.bench.preview SIDE PATH``
prints a ``Measured`` as JSON, without what the start and the imports took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from tests.bench.baseline import Measured
from tests.bench.process import begin_peak, plain_environ, status_bytes

PAGE_MESSAGES = 100


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
    begin_peak(os.getpid())
    idle_bytes = status_bytes(os.getpid(), "VmRSS")
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    messages = preview(path, lambda line: os.write(out, line))
    wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    return Measured(wall_s, cpu_s, status_bytes(os.getpid(), "VmHWM") - idle_bytes, messages)


def run(side: str, path: Path) -> Measured:
    command = [sys.executable, "-m", "tests.bench.preview", side, str(path)]
    return Measured(*json.loads(subprocess.check_output(command, env=plain_environ())))


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
