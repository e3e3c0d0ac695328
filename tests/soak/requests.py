"""Any number of small requests, good and bad, and the answer that each must get: ``python -m tests.soak.requests``."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tests.client import Message, SidecarProcess

MIB = 1024 * 1024
WARM_UP_REQUESTS = 20_000
# What may stay of any number of requests; measured is far less.
GROWTH_BYTES = 8 * MIB
# How much of what was asked may be unanswered: enough to keep both sides at work.
UNANSWERED_REQUESTS = 2_000
_LINES_A_WRITE = 50

Expected = Callable[[Message], bool]


class Request(NamedTuple):
    """A line, and what its answer must be; ``None`` if there must be none."""

    line: bytes
    expected: Expected | None


class Measured(NamedTuple):
    """What a run showed: how fast it was, and how much memory it took at its peak and left behind."""

    requests: int
    wall_s: float
    peak_bytes: int
    left_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.requests:,} small requests: {self.wall_s:.1f} s, {self.requests / self.wall_s:,.0f} a second; "
            f"peak above the warm process {self.peak_bytes / MIB:.1f} MiB, left {self.left_bytes / MIB:.1f} MiB"
        )


def small_requests(rng: random.Random, count: int) -> Iterator[Request]:
    """``count`` requests that are answered at once, so in their order; names and ids that never come again."""
    for number in range(count):
        yield rng.choice(_KINDS)(f"{number:x}-{rng.getrandbits(64):x}")


def _call(method: str, params: Any = None, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, **({} if params is None else {"params": params}), **more}


def _answered(call: dict[str, Any], result: Any = ..., code: int | None = None) -> Request:
    return Request(orjson.dumps(call) + b"\n", _expects(call["id"], result, code))


def _expects(request_id: object, result: Any = ..., code: int | None = None) -> Expected:
    def expected(reply: Message) -> bool:
        if not isinstance(reply, dict) or reply.get("id", ...) != request_id:
            return False
        if code is not None:
            return bool(reply.get("error", {}).get("code") == code)
        return "result" in reply and result in (..., reply["result"])

    return expected


def _batch(name: str) -> Request:
    calls = [_call("ping", id=name), _call(name, id=1), _call(name), 17]
    parts = [_expects(name, "pong"), _expects(1, code=-32601), _expects(None, code=-32600)]

    def expected(replies: Message) -> bool:
        return isinstance(replies, list) and [part(reply) for part, reply in zip(parts, replies, strict=True)] == [
            True
        ] * len(parts)

    return Request(orjson.dumps(calls) + b"\n", expected)


_KINDS: tuple[Callable[[str], Request], ...] = (
    lambda name: _answered(_call("ping", id=name), "pong"),
    lambda name: _answered(_call("ping", {name: name}, id=name), "pong"),
    lambda name: _answered(_call("get_sidecar_info", id=name)),
    lambda name: _answered(_call("cancel_stream", {"handleId": name}, id=name), False),
    lambda name: _answered(_call("ssh_status", {"hostId": name}, id=name), "disconnected"),
    lambda name: _answered(_call("ssh_disconnect", {"hostId": name}, id=name), True),
    lambda name: _answered(_call("get_ssh_transfer_stats", {"hostId": name}, id=name)),
    lambda name: _answered(_call("set_active_clawpal_data_dir", {"path": f"/no/{name}"}, id=name), True),
    lambda name: _answered(_call("cancel_stream", {"handleId": 5, name: 5}, id=name), code=-32602),
    lambda name: _answered(_call("preview_session_stream", {"agentId": name, "sessionId": None}, id=name), code=-32602),
    lambda name: _answered(_call(name, id=name), code=-32601),
    lambda name: Request(b'{"jsonrpc":"1.0","id":"%b","method":"ping"}\n' % name.encode(), _expects(name, code=-32600)),
    lambda name: Request(b'{"jsonrpc":"2.0","id":"%b"\n' % name.encode(), _expects(None, code=-32700)),
    lambda name: Request(b"%b\r\n" % name.encode(), _expects(None, code=-32700)),
    lambda name: Request(orjson.dumps(_call(name)) + b"\n", None),
    lambda name: Request(orjson.dumps(_call("preview_session_stream", {"agentId": name})) + b"\n", None),
    lambda name: Request(orjson.dumps([_call(name), _call("ping")]) + b"\n", None),
    _batch,
)


async def ask(process: SidecarProcess, requests: Iterator[Request]) -> int:
    """Send requests and read answers side by side; how many there were. ``AssertionError`` if one is answered wrong."""
    unanswered: asyncio.Queue[Request | None] = asyncio.Queue(UNANSWERED_REQUESTS)
    count = 0

    async def send() -> None:
        nonlocal count
        lines: list[bytes] = []
        for request in requests:
            count += 1
            lines.append(request.line)
            if len(lines) == _LINES_A_WRITE or unanswered.full():
                await process.send(b"".join(lines))
                lines.clear()
            if request.expected is not None:
                await unanswered.put(request)
        await process.send(b"".join(lines))
        await unanswered.put(None)

    async def read() -> None:
        while (request := await unanswered.get()) is not None:
            assert request.expected is not None
            reply = await process.read()
            assert request.expected(reply), f"{request.line!r} was answered with {reply}"

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(send())
        tasks.create_task(read())
    return count


async def measure(process: SidecarProcess, count: int) -> Measured:
    """Ask ``count`` requests of a process that has been asked every kind before."""
    rng = random.Random(count)
    # From here on there is what deals with hosts, and what it remembers of them.
    await process.rejected("ssh_connect", {"hostId": "ssh:nobody"})
    await ask(process, small_requests(rng, WARM_UP_REQUESTS))
    await process.at_rest()
    warm_bytes = process.resident_bytes()
    process.begin_peak()
    begun_s = time.monotonic()
    asked = await ask(process, small_requests(rng, count))
    wall_s = time.monotonic() - begun_s
    await process.at_rest()
    assert (await process.call("get_sidecar_info"))["openHandles"] == 0
    return Measured(asked, wall_s, process.peak_bytes() - warm_bytes, process.resident_bytes() - warm_bytes)


async def run(count: int) -> int:
    with tempfile.TemporaryDirectory() as home:
        async with SidecarProcess(Path(home)) as process:
            measured = await measure(process, count)
            print(measured)
            process.close_stdin()
            assert await process.read_to_end() == []
            assert await process.exit_code() == 0
            return 0 if measured.peak_bytes < GROWTH_BYTES else 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.requests", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    sys.exit(asyncio.run(run(parser.parse_args().count)))


if __name__ == "__main__":
    main()
