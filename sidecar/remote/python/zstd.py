"""Open zstd, where the host can, or send it on as it is: the twin of ``sidecar/core/zstd.py``."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Iterator

from sidecar.remote.python.blocks import Compressed, Item, Tick, chunk_reader, lines_of
from sidecar.remote.python.errors import BrokenCompression
from sidecar.remote.python.limits import MAX_ENTRY_BYTES, ZSTD_FEED_BYTES, ZSTD_WINDOW_LOG


class Zstd:
    """Opens zstd with what Python brings since 3.14, or with the package ``zstandard`` if it happens to be there."""

    def __init__(self) -> None:
        self._new: Callable[[], Any] | None = _new_decompressor()

    @property
    def is_there(self) -> bool:
        return self._new is not None

    def expanded(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """What the frames hold, in pieces of some MiB at most; ``BrokenCompression`` if they are damaged or cut off."""
        assert self._new is not None
        frame = None
        for chunk in chunks:
            left = chunk
            while left:
                frame = self._new() if frame is None or frame.eof else frame
                fed = left[:ZSTD_FEED_BYTES]
                try:
                    piece = frame.decompress(fed)
                except Exception as error:  # each library has its own
                    raise BrokenCompression(f"the compressed data can't be read: {error}") from None
                left = left[len(fed) - len(frame.unused_data) :]
                if piece:
                    yield piece
        if frame is None or not frame.eof:
            raise BrokenCompression("the compressed data ends in the middle")

    def opened(self, frame: bytes, tick: Tick) -> bytes | None:
        """What is in one frame; ``None`` if it is damaged or too large, which is for others to say."""
        text = bytearray()
        try:
            for piece in self.expanded([frame]):
                tick()
                text += piece
                if len(text) > MAX_ENTRY_BYTES:
                    return None
        except BrokenCompression:
            return None
        return bytes(text)


def _new_decompressor() -> Callable[[], Any] | None:
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        pass
    else:
        bound = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
        return lambda: zstd.ZstdDecompressor(options=bound)
    try:
        import zstandard
    except ImportError:
        return None
    return lambda: zstandard.ZstdDecompressor(max_window_size=1 << ZSTD_WINDOW_LOG).decompressobj()


def content_bytes(frame: bytes) -> int | None:
    """The size of its content as a frame's first ``ZSTD_HEADER_BYTES`` tell it; ``None`` if they don't."""
    broken = BrokenCompression("the compressed data can't be read: error when determining content size")
    if frame[1:4] == b"\x2a\x4d\x18" and 0x50 <= frame[0] <= 0x5F:
        return 0  # a frame to be passed over
    if frame[:4] != b"\x28\xb5\x2f\xfd" or len(frame) < 5 or frame[4] & 0x08:
        raise broken
    descriptor = frame[4]
    is_single = descriptor >> 5 & 1
    place = 6 - is_single + (0, 1, 2, 4)[descriptor & 3]
    size = (is_single, 2, 4, 8)[descriptor >> 6]
    field = frame[place : place + size]
    if len(field) < size:
        raise broken
    told_bytes = int.from_bytes(field, "little")
    return (told_bytes + 256 if size == 2 else told_bytes) if size else None


def compressed_lines(chunks: Iterator[bytes], zstd: Zstd | None) -> Iterator[Item]:
    """The lines in a zstd stream, or the stream as it is."""
    if zstd is not None and zstd.is_there:
        yield from lines_of(chunk_reader(zstd.expanded(chunks)))
    else:
        yield from sent_on(chunks, "piece")


def sent_on(chunks: Iterator[bytes], record: str) -> Iterator[Compressed]:
    """A zstd stream as it is; ``BrokenCompression`` if there is nothing of it."""
    chunk = b""
    for chunk in chunks:
        yield Compressed([record], chunk)
    if not chunk:
        raise BrokenCompression("the compressed data ends in the middle")
