"""Records a conversation: stands between a client and a sidecar, passes on what they say, and writes it down.

A line is written before it is passed on, so that what answers it stands after it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from sidecar.errors import HomeUnknown
from sidecar.limits import MAX_LINE_BYTES, MIB, READ_BYTES
from sidecar.server import schema
from sidecar.server.commands import COMMANDS
from sidecar.stores.locations import ActivePaths, expand
from sidecar.transcripts.lines import Line, as_text
from sidecar.transcripts.names import Names, without_secrets
from sidecar.wire.framing import LineFramer, LineTooLong

_PARAMS = {command.name: command.params for command in COMMANDS if command.params}


def record(path: Path, command: Sequence[str]) -> int:
    """Serve the client behind stdin and stdout by a process of ``command``; its exit code, as a shell gives it.

    ``FileExistsError`` if there is such a file, ``OSError`` if it can't be written. Only its owner may read it.
    """
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        transcript = Transcript(file, Names(_texts()))
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda number, _: process.send_signal(number))
            # A daemon: nothing can wake it from a read of an input that stays open.
            threading.Thread(target=_pass_on_requests, args=(process, transcript), daemon=True).start()
            assert process.stdout is not None
            for line in process.stdout:
                transcript.said(line)
                try:
                    _write_all(1, line)
                except OSError:
                    break  # the client is gone, and leaving here tells the process so
        return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _pass_on_requests(process: subprocess.Popen[bytes], transcript: Transcript) -> None:
    framer = LineFramer()
    assert process.stdin is not None
    with process.stdin:
        while data := os.read(0, READ_BYTES):
            for line in framer.feed(data):
                transcript.sent(line)
            try:
                process.stdin.write(data)
                process.stdin.flush()
            except OSError:  # it has ended
                return
        for line in framer.finish():
            transcript.sent(line)


class Transcript:
    """A file that is written as things are said; what two threads say is one line after the other."""

    def __init__(self, file: BinaryIO, names: Names) -> None:
        self._file = file
        self._names = names
        self._lock = threading.Lock()

    def sent(self, line: bytes | LineTooLong) -> None:
        """Write down what the client said."""
        with self._lock:
            if isinstance(line, LineTooLong):
                self._write(Line("#", f"# Here a line of over {MAX_LINE_BYTES // MIB} MiB was sent."))
            else:
                self._write(Line(">", self._names.named_text(_without_secrets(line))))

    def said(self, line: bytes) -> None:
        """Write down what the sidecar said."""
        with self._lock:
            self._write(Line("<", as_text(self._names.named(without_secrets(json.loads(line))))))

    def _write(self, line: Line) -> None:
        self._file.write(f"{line}\n".encode())
        self._file.flush()


def _without_secrets(line: bytes) -> str:
    """The line as it is, unless it has a password or a passphrase in it."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return line.decode("utf-8", "replace")
    calls = [_with_named_params(call) for call in value] if isinstance(value, list) else _with_named_params(value)
    blank = without_secrets(calls)
    return line.decode("utf-8", "replace") if blank == calls else as_text(blank)


def _with_named_params(call: Any) -> Any:
    """A call whose parameters all have names, where they can have some."""
    if not (isinstance(call, dict) and isinstance(call.get("params"), list)):
        return call
    model = _PARAMS.get(call["method"]) if isinstance(call.get("method"), str) else None
    return {**call, "params": schema.by_name(model, tuple(call["params"]))} if model else call


def _texts() -> dict[str, str]:
    try:
        return {"<openclaw>": ActivePaths().openclaw_dir(os.environ), "<home>": expand("~", os.environ)}
    except HomeUnknown:
        return {}


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
