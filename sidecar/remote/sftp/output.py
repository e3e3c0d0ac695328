"""The output of the SFTP engine: records of README.md, in chunks that wait for their reader."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from typing import Any

import msgspec

from sidecar.errors import SidecarError
from sidecar.limits import CHUNK_BYTES, SFTP_OUTPUT_BYTES
from sidecar.text import wire_name

BEAT = b'["beat"]\n'

_encode = msgspec.json.Encoder().encode


class Output:
    """Whole records, in chunks; whoever tells more than ``SFTP_OUTPUT_BYTES`` at once, or ahead, waits."""

    def __init__(self) -> None:
        self._chunks: deque[bytearray] = deque()
        self._size_bytes = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._is_unread = False

    async def begin(self, nonce: str, *hello: Any) -> None:
        """Say that all that follows is ours, then the first record."""
        self._add(b"\nclawpal-helper " + nonce.encode() + b"\n" + _encode(hello) + b"\n")

    async def tell(self, *record: Any) -> None:
        """Add a record; returns when there is room for more."""
        self._add(_encode(record) + b"\n")
        await self._room.wait()

    async def tell_bytes(self, name: str, data: memoryview) -> None:
        """Add a record that is followed by bytes, which are copied."""
        self._add(_encode((name, len(data))) + b"\n", data, b"\n")
        await self._room.wait()

    async def fail(self, path: str, error: OSError | SidecarError) -> None:
        """Add what became of the item at ``path``, a wire name."""
        await self.tell("failed", path, *told(error))

    def take(self) -> bytes:
        """The first chunk; empty if there is none."""
        if not self._chunks:
            return b""
        chunk = bytes(self._chunks.popleft())
        self._size_bytes -= len(chunk)
        if self._size_bytes < SFTP_OUTPUT_BYTES:
            self._room.set()
        return chunk

    async def wait(self) -> None:
        """Wait for the next chunk, or ``wake``."""
        self._changed.clear()
        if not self._chunks:
            await self._changed.wait()

    def wake(self) -> None:
        """End a ``wait``."""
        self._changed.set()

    def let_go(self) -> None:
        """Nothing is read any more: what is told from now on is lost, and waits for nobody."""
        self._is_unread = True
        self._chunks.clear()
        self._room.set()
        self._changed.set()

    def _add(self, *parts: bytes | memoryview) -> None:
        if self._is_unread:
            return
        size_bytes = sum(map(len, parts))
        if not self._chunks or len(self._chunks[-1]) + size_bytes > CHUNK_BYTES:
            self._chunks.append(bytearray())
        for part in parts:
            self._chunks[-1] += part
        self._size_bytes += size_bytes
        if self._size_bytes >= SFTP_OUTPUT_BYTES:
            self._room.clear()
        self._changed.set()


def told(error: OSError | SidecarError) -> tuple[str | None, str | None, str | None]:
    """Code, file name and message of an error, as records have them."""
    if isinstance(error, SidecarError):
        return None, None, wire_name(error.message)
    file_name = None if error.filename is None else wire_name(str(error.filename))
    return errno.errorcode.get(error.errno or 0, "EIO"), file_name, None
