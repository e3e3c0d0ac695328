"""Text that arrives in pieces, cut into blocks of whole records by what cuts files here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from sidecar.core.blocks import Block, ReadInto, RecordBlocks
from sidecar.limits import SFTP_ZSTD_STEP_BYTES


class ArrivingText:
    """The text that ``pieces`` bring, compressed perhaps.

    ``arrived_bytes`` counts what they brought, ``size_bytes`` what that holds, ``overlong`` the records passed over.
    """

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], blocks: RecordBlocks | None = None, *, is_compressed: bool = False
    ) -> None:
        self._pieces = pieces
        self._cut = blocks or RecordBlocks()
        self._fed = _Fed()
        self._read_into: ReadInto = self._fed
        self._step_bytes: int | None = None
        if is_compressed:
            # Most homes hold no compressed archive, and need not load the library.
            from sidecar.core.zstd import ZstdReader

            self._read_into, self._step_bytes = ZstdReader(self._fed), SFTP_ZSTD_STEP_BYTES
        self.arrived_bytes = 0
        self.size_bytes = 0

    @property
    def overlong(self) -> int:
        return self._cut.overlong

    async def blocks(self) -> AsyncGenerator[Block, None]:
        """The blocks, each valid until the next is asked for; other work has its turn between them."""
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                self.arrived_bytes += len(piece)
                step_bytes = self._step_bytes or len(piece) or 1
                for start in range(0, len(piece), step_bytes):
                    self._fed.feed(memoryview(piece)[start : start + step_bytes])
                    while block := self._next():
                        yield block
                        await asyncio.sleep(0)
        self._fed.end()
        while block := self._next():
            yield block
            await asyncio.sleep(0)

    def _next(self) -> Block | None:
        try:
            return self._cut.read(self._read)
        except _Hungry:
            return None

    def _read(self, space: memoryview) -> int:
        count = self._read_into(space)
        self.size_bytes += count
        return count


class _Hungry(Exception):
    """There is nothing to read before more is fed; whoever reads can go on then."""


class _Fed:
    """A ``ReadInto`` of what it is fed with."""

    def __init__(self) -> None:
        self._data = memoryview(b"")
        self._is_over = False

    def feed(self, data: memoryview) -> None:
        self._data = data

    def end(self) -> None:
        self._is_over = True

    def __call__(self, space: memoryview) -> int:
        if not self._data and not self._is_over:
            raise _Hungry
        count = min(len(space), len(self._data))
        space[:count] = self._data[:count]
        self._data = self._data[count:]
        return count


def is_compressed(name: str) -> bool:
    """Whether a transcript of this name is compressed."""
    return name.endswith(".zst")


async def at_once(data: bytes) -> AsyncGenerator[bytes, None]:
    """``data`` as the pieces that ``ArrivingText`` takes."""
    yield data
