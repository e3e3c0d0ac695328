"""Compressed data comes out as it went in, in pieces of any size, or is said to be broken; it never fills memory."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.blocks import ReadInto
from sidecar.core.zstd import HEADER_BYTES, ZstdReader, content_bytes, decompress
from sidecar.errors import BrokenCompression
from sidecar.limits import MAX_ZSTD_WINDOW_BYTES, MIB
from tests.sqlite_trees import stream_compressed
from tests.unit.strategies import cuts, reader

TEXT = b'{"type":"message","message":{"role":"user"}}\n' * 3_000
NOISE = random.Random(1).randbytes(300_000)


def one_frame(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def read_all(read_into: ReadInto, space_bytes: int = 64 * 1024) -> bytes:
    space = bytearray(space_bytes)
    found = bytearray()
    with memoryview(space) as view:
        while count := read_into(view):
            found += space[:count]
    return bytes(found)


@pytest.mark.parametrize("compress", [one_frame, stream_compressed])
@pytest.mark.parametrize("data", [b"", b"x", TEXT, NOISE])
def test_what_was_compressed_comes_out_whole(compress: Callable[[bytes], bytes], data: bytes) -> None:
    assert read_all(ZstdReader(reader(compress(data), [1, 7, 100_000]))) == data


@given(data=st.data(), frames=st.lists(st.binary(max_size=200), min_size=1, max_size=4))
def test_frames_one_after_another_are_one_text_however_they_are_cut(data: st.DataObject, frames: list[bytes]) -> None:
    compressed = b"".join(one_frame(frame) for frame in frames)
    sizes = [len(piece) for piece in data.draw(cuts(compressed)) if piece] or [1]
    found = read_all(ZstdReader(reader(compressed, sizes)), data.draw(st.integers(1, 50)))
    assert found == b"".join(frames)


@pytest.mark.parametrize("cut", [0, 1, 5, 40, -1])
def test_data_that_ends_in_the_middle_of_a_frame_is_broken(cut: int) -> None:
    with pytest.raises(BrokenCompression, match="ends in the middle"):
        read_all(ZstdReader(reader(stream_compressed(NOISE)[:cut], [1_000])))


def test_data_that_ends_in_the_middle_of_a_later_frame_is_broken() -> None:
    with pytest.raises(BrokenCompression, match="ends in the middle"):
        read_all(ZstdReader(reader(one_frame(TEXT) + one_frame(TEXT)[:-3], [1_000])))


@pytest.mark.parametrize("data", [b"plain text, as it is", TEXT, one_frame(TEXT) + b"garbage after it"])
def test_data_that_is_no_frame_is_broken(data: bytes) -> None:
    with pytest.raises(BrokenCompression, match="can't be read"):
        read_all(ZstdReader(reader(data, [1_000])))


@given(place=st.integers(0, 400), bit=st.integers(0, 7))
def test_a_flipped_bit_gives_some_text_or_says_that_it_is_broken(place: int, bit: int) -> None:
    frame = bytearray(stream_compressed(NOISE[:200] + TEXT[:2_000]))
    frame[place % len(frame)] ^= 1 << bit
    with suppress(BrokenCompression):
        read_all(ZstdReader(reader(bytes(frame), [1_000])))
    with suppress(BrokenCompression):
        decompress(bytes(frame), 10_000)


def test_a_window_over_the_limit_is_refused_rather_than_held() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=24, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    frame = compressor.compress(NOISE) + compressor.flush()
    assert zstandard.get_frame_parameters(frame).window_size > MAX_ZSTD_WINDOW_BYTES
    with pytest.raises(BrokenCompression, match="can't be read"):
        read_all(ZstdReader(reader(frame, [1_000])))


def test_a_gigabyte_in_a_few_bytes_costs_no_gigabyte() -> None:
    compressor = zstandard.ZstdCompressor(level=3).compressobj()
    bomb = b"".join(compressor.compress(bytes(MIB)) for _ in range(1024)) + compressor.flush()
    assert len(bomb) < 64 * 1024
    read_into = ZstdReader(reader(bomb, [64 * 1024]))
    space = memoryview(bytearray(MIB))
    tracemalloc.start()
    try:
        for _ in range(200):
            assert read_into(space)
        assert tracemalloc.get_traced_memory()[1] < 20 * MIB
    finally:
        tracemalloc.stop()


def test_a_frame_tells_its_size_before_it_is_decompressed() -> None:
    assert content_bytes(one_frame(TEXT)[:HEADER_BYTES]) == len(TEXT)
    assert content_bytes(stream_compressed(TEXT)[:HEADER_BYTES]) is None
    assert content_bytes(one_frame(b"")) == 0


@pytest.mark.parametrize("header", [b"", b"\x28", b"no frame at all, and longer than a header"])
def test_a_header_that_is_none_is_broken(header: bytes) -> None:
    with pytest.raises(BrokenCompression):
        content_bytes(header)


def test_a_whole_frame_is_decompressed_at_once_up_to_a_size() -> None:
    assert decompress(one_frame(TEXT), len(TEXT)) == TEXT
    assert decompress(one_frame(TEXT), len(TEXT) - 1) is None
    assert decompress(stream_compressed(TEXT), len(TEXT)) is None


def test_frames_are_decompressed_in_several_threads_at_once() -> None:
    """Each thread has others', of other sizes and contents, at the same time."""
    texts = [random.Random(number).randbytes(1_000 + 7_000 * number) * 3 for number in range(8)]
    frames = [zstandard.ZstdCompressor().compress(text) for text in texts]

    def wrong(first: int) -> int:
        places = [(first + step) % len(texts) for step in range(2_000)]
        return sum(decompress(frames[place], MIB) != texts[place] for place in places)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(wrong, range(4))) == [0] * 4


def test_a_whole_frame_that_is_cut_off_is_broken() -> None:
    with pytest.raises(BrokenCompression, match="can't be read"):
        decompress(one_frame(NOISE)[:-1], len(NOISE))
