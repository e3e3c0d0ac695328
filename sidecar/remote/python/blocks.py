"""Cut what a reader delivers into blocks of whole records: the twin of ``sidecar/core/blocks.py``."""

from __future__ import annotations

from typing import Any, Callable, Iterator, NamedTuple, Union

from sidecar.remote.python.limits import BLOCK_BYTES, BLOCK_GROWTH_BYTES, MAX_ENTRY_BYTES

Tick = Callable[[], None]
"""What long work calls every few milliseconds: it keeps the output alive."""
ReadInto = Callable[[memoryview], int]
"""Fills the start of a buffer and returns how many bytes it wrote; 0 at the end."""


class Lines(NamedTuple):
    """Whole lines, ``buffer[start:end]``, valid until more is asked for; only the last one may lack its line feed."""

    buffer: bytes | bytearray
    start: int
    end: int


class Skipped(NamedTuple):
    """Lines that were passed over as too long, and their size."""

    lines: int
    size_bytes: int


class Compressed(NamedTuple):
    """What is sent on as it is: the items of its record but the last, and its bytes."""

    record: list[Any]
    data: bytes

    @property
    def is_row(self) -> bool:
        """Whether it is one row, and not part of a stream."""
        return bool(self.record[0] == "frame")


Item = Union[Lines, Skipped, Compressed]
"""A part of a transcript, as it comes."""


class RecordBlocks:
    """Reads blocks of whole records in one reused buffer, as ``sidecar/core/blocks.py``."""

    def __init__(self, separator: bytes = b"\n", max_record_bytes: int = MAX_ENTRY_BYTES) -> None:
        self.overlong = 0
        self._separator = separator
        self._max_record_bytes = max_record_bytes
        self._buffer = bytearray(BLOCK_BYTES)
        self._start = self._end = 0
        self._skipping = False

    def read(self, read_into: ReadInto) -> Lines | None:
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
                block = Lines(self._buffer, self._start, cut)
                self._start = cut
                if block.start < block.end:
                    return block
            if self._end - self._start > self._max_record_bytes:
                self.overlong += 1
                self._skipping = True
                self._drop()
            self._make_room()

    def _make_room(self) -> None:
        left = self._end - self._start
        if self._start:
            self._buffer[:left] = self._buffer[self._start : self._end]
            self._start, self._end = 0, left
        if left == len(self._buffer):
            self._buffer.extend(bytes(max(BLOCK_GROWTH_BYTES, left // 8)))
        elif len(self._buffer) > BLOCK_BYTES and left < BLOCK_BYTES // 2:
            del self._buffer[BLOCK_BYTES:]

    def _skip(self, searched: int) -> bool:
        end = self._buffer.find(self._separator, searched, self._end)
        if end < 0:
            self._drop()
            self._make_room()
            return False
        self._start = end + len(self._separator)
        self._skipping = False
        return True

    def _drop(self) -> None:
        self._start = max(self._start, self._end - len(self._separator) + 1)

    def _last_block(self) -> Lines | None:
        block = Lines(self._buffer, self._start, self._end)
        self._start = self._end
        return None if self._skipping or block.start == block.end else block


def lines_of(source: ReadInto) -> Iterator[Lines | Skipped]:
    """What ``source`` delivers as lines; those over ``MAX_ENTRY_BYTES`` are skipped, and told at the end."""
    read_bytes = given_bytes = 0

    def counted(space: memoryview) -> int:
        nonlocal read_bytes
        count = source(space)
        read_bytes += count
        return count

    blocks = RecordBlocks()
    while True:
        block = blocks.read(counted)
        if block is None:
            break
        given_bytes += block.end - block.start
        yield block
    if blocks.overlong:
        yield Skipped(blocks.overlong, read_bytes - given_bytes)


def chunk_reader(chunks: Iterator[bytes]) -> ReadInto:
    """A ``ReadInto`` of what ``chunks`` gives."""
    waiting = memoryview(b"")

    def read_into(space: memoryview) -> int:
        nonlocal waiting
        while not waiting:
            chunk = next(chunks, None)
            if chunk is None:
                return 0
            waiting = memoryview(chunk)
        count = min(len(space), len(waiting))
        space[:count] = waiting[:count]
        waiting = waiting[count:]
        return count

    return read_into
