"""Decompress zstd, never holding more of it than was asked for, whatever the data claims of itself.

OpenClaw compresses rows of a transcript one frame each, with their size in the header, and archives as a stream, whose
header tells no size.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import zstandard

from sidecar.core.blocks import ReadInto
from sidecar.errors import BrokenCompression
from sidecar.limits import MAX_ZSTD_WINDOW_BYTES, ROW_PIECE_BYTES, ZSTD_FEED_BYTES, ZSTD_GROWTH_BYTES, ZSTD_READ_BYTES

HEADER_BYTES = 18


class _OfThread(threading.local):
    """One a thread: zstandard works in it without the interpreter's lock, so that two would spoil each other's work."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor()


_of_thread = _OfThread()


def content_bytes(frame: bytes) -> int | None:
    """The size of its content as a frame's header, its first ``HEADER_BYTES``, tells it; ``None`` if it doesn't."""
    try:
        size_bytes = zstandard.frame_content_size(frame)
    except zstandard.ZstdError as error:
        raise _broken(error) from None
    return size_bytes if size_bytes >= 0 else None


def decompress(frame: bytes, max_bytes: int) -> bytes | None:
    """The content of one whole frame; ``None`` if it is over ``max_bytes``, or its header tells no size."""
    size_bytes = content_bytes(frame)
    if size_bytes is None or size_bytes > max_bytes:
        return None
    try:
        return _of_thread.decompressor.decompress(frame)
    except zstandard.ZstdError as error:
        raise _broken(error) from None


class ZstdReader:
    """A ``ReadInto`` of what the frames that ``read_into`` delivers hold, one after another.

    ``BrokenCompression`` where they are damaged, or end in the middle of one.
    """

    __slots__ = ("_decompressor", "_frame", "_input", "_ready", "_source", "_waiting")

    def __init__(self, read_into: ReadInto) -> None:
        self._source = read_into
        self._input = memoryview(bytearray(ZSTD_READ_BYTES))
        self._waiting = self._input[:0]
        self._ready = memoryview(b"")
        # One of its own: it holds as much as the frame's window, and that goes with it.
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW_BYTES)
        self._frame = self._decompressor.decompressobj(ZSTD_GROWTH_BYTES)

    def __call__(self, space: memoryview) -> int:
        while not self._ready:
            if not self._waiting:
                self._waiting = self._input[: self._source(self._input)]
            if self._waiting:
                self._feed()
            elif self._frame.eof:
                return 0
            else:
                raise BrokenCompression("the compressed data ends in the middle")
        count = min(len(space), len(self._ready))
        space[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _feed(self) -> None:
        if self._frame.eof:
            self._frame = self._decompressor.decompressobj(ZSTD_GROWTH_BYTES)
        piece = self._waiting[:ZSTD_FEED_BYTES]
        try:
            self._ready = memoryview(self._frame.decompress(piece))
        except zstandard.ZstdError as error:
            raise _broken(error) from None
        self._waiting = self._waiting[len(piece) - len(self._frame.unused_data) :]


def pieces(read_into: ReadInto) -> Iterator[bytes]:
    """What ``read_into`` delivers, in pieces of at most ``ROW_PIECE_BYTES``."""
    piece = memoryview(bytearray(ROW_PIECE_BYTES))
    while count := read_into(piece):
        yield bytes(piece[:count])


def _broken(error: zstandard.ZstdError) -> BrokenCompression:
    return BrokenCompression(f"the compressed data can't be read: {error}")
