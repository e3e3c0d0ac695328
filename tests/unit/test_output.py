"""The output: what a reader gets, whatever the output is, and that nobody in the loop waits for the reader."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.server.stdio import OutputWriter

_MORE_THAN_A_PIPE_HOLDS = bytes(range(256)) * 4096


@contextlib.contextmanager
def _writer(fd: int) -> Iterator[OutputWriter]:
    writer = OutputWriter(fd)
    try:
        yield writer
    finally:
        writer.close()
        os.close(fd)


def _read_all(fd: int, size_bytes: int) -> bytes:
    data = b""
    while len(data) < size_bytes and (piece := os.read(fd, size_bytes - len(data))):
        data += piece
    os.close(fd)
    return data


def _pipe(_: Path) -> tuple[int, int]:
    return os.pipe()


def _socket(_: Path) -> tuple[int, int]:
    ends = socket.socketpair()
    return ends[0].detach(), ends[1].detach()


def _terminal(_: Path) -> tuple[int, int]:
    reader, writer = os.openpty()
    tty.setraw(writer)
    return reader, writer


def _file(folder: Path) -> tuple[int, int]:
    path = folder / "output"
    return os.open(path, os.O_RDONLY | os.O_CREAT), os.open(path, os.O_WRONLY)


@pytest.mark.parametrize("make", [_pipe, _socket, _terminal, _file])
async def test_all_arrives_in_order_whatever_the_output_is(make: object, tmp_path: Path) -> None:
    assert callable(make)
    reader, fd = make(tmp_path)
    lines = [b"first\n", _MORE_THAN_A_PIPE_HOLDS, b"last\n"]
    size_bytes = sum(map(len, lines))
    # A file is read when all is written; of the others the writer waits for the reader.
    loop = asyncio.get_running_loop()
    reading = loop.run_in_executor(None, _read_all, reader, size_bytes) if make is not _file else None
    with _writer(fd) as writer:
        async with asyncio.timeout(10):
            for line in lines:
                await writer.write(line)
        data = await asyncio.wait_for(reading, 10) if reading else _read_all(reader, size_bytes)
        assert data == b"".join(lines)


@pytest.mark.parametrize("filled_bytes", [0, 1, 65_536])
async def test_the_loop_goes_on_while_the_reader_reads_nothing(filled_bytes: int) -> None:
    reader, fd = os.pipe()
    os.set_blocking(fd, False)
    filled = os.write(fd, bytes(filled_bytes)) if filled_bytes else 0
    os.set_blocking(fd, True)
    size_bytes = filled + len(_MORE_THAN_A_PIPE_HOLDS)
    looked = threading.Event()

    def read_later() -> bytes:
        looked.wait(10)  # a loop that is held up never sets it
        return _read_all(reader, size_bytes)

    reading = asyncio.get_running_loop().run_in_executor(None, read_later)
    with _writer(fd) as writer:
        writing = asyncio.create_task(writer.write(_MORE_THAN_A_PIPE_HOLDS))
        done, _ = await asyncio.wait((writing,), timeout=0.05)
        looked.set()
        assert not done
        async with asyncio.timeout(10):
            await writing
            assert await reading == bytes(filled) + _MORE_THAN_A_PIPE_HOLDS


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux writes at once")
async def test_what_there_is_room_for_takes_no_thread() -> None:
    reader, fd = os.pipe()
    with _writer(fd) as writer:
        await writer.write(b"line\n")
        assert "stdout" not in "".join(thread.name for thread in threading.enumerate())
    assert _read_all(reader, 5) == b"line\n"


async def test_an_output_that_is_gone_is_an_error() -> None:
    reader, fd = os.pipe()
    os.close(reader)
    with _writer(fd) as writer:
        with pytest.raises(BrokenPipeError):
            await writer.write(b"line\n")
        with pytest.raises(BrokenPipeError):
            await writer.write(b"line\n")
