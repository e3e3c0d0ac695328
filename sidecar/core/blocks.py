"""Cut what a reader delivers into blocks of whole records, in one reused buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sidecar.limits import BLOCK_BYTES, BLOCK_GROWTH_BYTES, MAX_ENTRY_BYTES

ReadInto = Callable[[memoryview], int]
"""Fills the start of a buffer and returns how many bytes it wrote; 0 at the end."""


class Block(NamedTuple):
    """Whole records: ``buffer[start:end]``, valid until the next block is read."""

    buffer: bytearray
    start: int
    end: int


class RecordBlocks:
    """Reads blocks of whole records, each ended by ``separator``, except the last, which the end of the data may end.

    The buffer is one block long. A record longer than that makes it grow to hold it, and it shrinks again afterwards. A
    record over ``max_record_bytes`` is passed over up to its separator and counted in ``overlong``.
    """

    def __init__(self, separator: bytes = b"\n", max_record_bytes: int = MAX_ENTRY_BYTES) -> None:
        self._separator = separator
        self._max_record_bytes = max_record_bytes
        self._buffer = bytearray(BLOCK_BYTES)
        self.restart()

    def restart(self) -> None:
        """Forget what is left of the data before: the next ``read`` begins anew."""
        self.overlong = 0
        self._start = self._end = 0
        self._skipping = False

    def read(self, read_into: ReadInto) -> Block | None:
        """The next block, or ``None`` at the end of the data."""
        self._make_room()
        while True:
            searched = max(0, self._end - len(self._separator) + 1)
            with memoryview(self._buffer) as view, view[self._end : self._end + BLOCK_BYTES] as space:
                count = read_into(space)
            if count == 0:
                return self._last_block()
            self._end += count
            if self._skipping and not self._skip(searched):
                continue
            cut = self._buffer.rfind(self._separator, searched, self._end) + len(self._separator)
            if cut >= len(self._separator):
                block = Block(self._buffer, self._start, cut)
                self._start = cut
                if block.start < block.end:
                    return block
            if self._end - self._start > self._max_record_bytes:
                self.overlong += 1
                self._skipping = True
                self._drop()
            self._make_room()

    def _make_room(self) -> None:
        """Move the part of a record that is left to the front, and give the buffer the size that it needs."""
        left = self._end - self._start
        if self._start:
            self._buffer[:left] = self._buffer[self._start : self._end]
            self._start, self._end = 0, left
        if left == len(self._buffer):
            self._buffer.extend(bytes(max(BLOCK_GROWTH_BYTES, left // 8)))
        elif len(self._buffer) > BLOCK_BYTES and left < BLOCK_BYTES // 2:
            del self._buffer[BLOCK_BYTES:]

    def _skip(self, searched: int) -> bool:
        """Pass over the rest of an overlong record; False while its end is not in the buffer."""
        end = self._buffer.find(self._separator, searched, self._end)
        if end < 0:
            self._drop()
            self._make_room()
            return False
        self._start = end + len(self._separator)
        self._skipping = False
        return True

    def _drop(self) -> None:
        """Give up what is in the buffer, but for what may be the beginning of a separator."""
        self._start = max(self._start, self._end - len(self._separator) + 1)

    def _last_block(self) -> Block | None:
        block = Block(self._buffer, self._start, self._end)
        self._start = self._end
        return None if self._skipping or block.start == block.end else block
