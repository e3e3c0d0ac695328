"""The engine for Python, as ``sidecar/remote/README.md`` specifies it: read a request from stdin, answer it on stdout.

It is sent over stdin and runs under Python 3.8 or newer with nothing but the standard library, so this folder imports
nothing else of the project. The rules that it follows are explained in ``sidecar/core`` and ``sidecar/stores``, in the
modules that the ones here are the twins of; tests hold the two together.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import traceback
from functools import partial
from typing import Any, Callable, Dict

from sidecar.remote.python.errors import FAULTS, Fault, HomeUnknown, told
from sidecar.remote.python.host import Host
from sidecar.remote.python.limits import INPUT_BYTES, LEASE_S
from sidecar.remote.python.locations import find_openclaw_dir
from sidecar.remote.python.optional_sqlite import sqlite3
from sidecar.remote.python.output import Output
from sidecar.remote.python.text import wire_name
from sidecar.remote.python.watchdog import Watchdog
from sidecar.remote.python.worker import watched
from sidecar.remote.python.zstd import Zstd

FINISHING = frozenset(("remove", "backup", "restore", "verify", "delete-backup"))
"""What is told that its input has ended, and then given ``FINISH_S`` to leave things as they should be."""


def read_request() -> dict[str, Any] | None:
    """The request; ``None`` if the input ends before it does. The process ends if it is too long in coming."""
    line = b""
    while not line.endswith(b"\n"):
        signal.alarm(LEASE_S)
        piece = sys.stdin.buffer.readline(INPUT_BYTES)
        if not piece:
            return None
        line += piece
    request: dict[str, Any] = json.loads(line)
    return request


Ops = Dict[str, Callable[[Host, Dict[str, Any]], None]]
"""What can be asked for, by name."""


def answer(ops: Ops, request: dict[str, Any], output: Output, watchdog: Watchdog) -> None:
    """Do what is asked for, and say how it ended."""
    try:
        _do(ops, request, output, watchdog)
        end: list[Any] = ["end"]
    except FAULTS as error:
        end = ["fail", *told(error), error.kind if isinstance(error, Fault) else None]
        if isinstance(error, Fault) and error.details:
            end.append(error.details)
    except Exception as error:  # a fault of ours: the traceback is for the log
        traceback.print_exc()
        end = ["fail", None, None, f"the helper failed: {type(error).__name__}", "remote_failed"]
    watchdog.let_end()
    output.say(*end)
    output.flush()


def _do(ops: Ops, request: dict[str, Any], output: Output, watchdog: Watchdog) -> None:
    try:
        openclaw_dir: str | None = find_openclaw_dir(request)
        unknown = None
    except HomeUnknown as error:
        openclaw_dir, unknown = None, error
    version = ".".join(map(str, sys.version_info[:3]))
    shown = None if openclaw_dir is None else wire_name(openclaw_dir)
    output.say("hello", "python", version, time.time() * 1000, shown, sqlite3 is not None, Zstd().is_there)
    output.flush()
    if openclaw_dir is None:
        raise unknown or HomeUnknown
    ops[request["op"]](Host(openclaw_dir, output, watchdog, request["nonce"]), request)


def main(ops: Ops) -> None:
    """Read the request from stdin, and answer it on stdout."""
    request = read_request()
    if request is None or not re.fullmatch("[0-9a-f]+", request["nonce"]) or request["op"] not in ops:
        os._exit(1)
    output = Output(1)
    output.finishes = request["op"] in FINISHING
    output.add(f"\nclawpal-helper {request['nonce']}\n".encode())
    try:
        status = watched(output, partial(answer, ops, request, output))
    except OSError as error:  # no process could be made
        output.say("fail", *told(error), None)
        output.flush()
        status = 0
    os._exit(status)
