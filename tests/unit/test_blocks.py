"""Blocks hold whole records, whatever the pieces in which the data is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.blocks import ReadInto, RecordBlocks
from sidecar.limits import BLOCK_BYTES
from tests.unit.strategies import reader

READ_SIZES = st.lists(st.sampled_from([1, 2, 7, 60, 1_000, BLOCK_BYTES]), min_size=1, max_size=4)
SEPARATORS = [b"\n", b"\n  },\n", b"ab"]


def blocks_of(blocks: RecordBlocks, read_into: ReadInto) -> list[bytes]:
    found = []
    while block := blocks.read(read_into):
        found.append(bytes(block.buffer[block.start : block.end]))
    return found


def records_of(data: bytes, separator: bytes) -> list[bytes]:
    """The records in ``data``, each with its separator."""
    *whole, last = data.split(separator)
    return [record + separator for record in whole] + ([last] if last else [])


@pytest.mark.parametrize("separator", SEPARATORS)
@given(
    pieces=st.lists(st.sampled_from([b"a", b"b", b"\n", b"  },\n", b"\n  },\n", b"x" * 300]), max_size=40),
    read_sizes=READ_SIZES,
)
def test_blocks_put_together_are_the_data_and_each_ends_a_record(
    separator: bytes, pieces: list[bytes], read_sizes: list[int]
) -> None:
    data = b"".join(pieces)
    found = blocks_of(RecordBlocks(separator), reader(data, read_sizes))
    assert b"".join(found) == data
    assert all(block.endswith(separator) for block in found[:-1])
    assert all(found)


@pytest.mark.parametrize("separator", SEPARATORS)
@given(
    lengths=st.lists(st.sampled_from([0, 1, 5, 39, 40, 41, 80, 81, 200]), max_size=12),
    read_sizes=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    ended=st.booleans(),
)
def test_records_over_the_limit_are_counted_and_no_other_record_is_lost(
    separator: bytes, lengths: list[int], read_sizes: list[int], ended: bool
) -> None:
    max_bytes = 40
    records = [b"%d" % (number % 10) * length + separator for number, length in enumerate(lengths)]
    data = b"".join(records) if ended else b"".join(records).removesuffix(separator)
    blocks = RecordBlocks(separator, max_record_bytes=max_bytes)
    found = records_of(b"".join(blocks_of(blocks, reader(data, read_sizes))), separator)
    # What is seen whole within one read may pass, since it is in memory already.
    surely_kept = [record for record in records_of(data, separator) if len(record) <= max_bytes]
    assert [record for record in found if len(record) <= max_bytes] == surely_kept
    assert all(len(record) <= max_bytes + max(read_sizes) for record in found)
    assert len(found) + blocks.overlong == len(records_of(data, separator))


@pytest.mark.parametrize("read_sizes", [[BLOCK_BYTES], [100_000], [1, 70_000]])
def test_a_record_of_many_blocks_comes_whole_and_its_room_is_given_back(read_sizes: list[int]) -> None:
    long_record = b"x" * (5 * BLOCK_BYTES) + b"\n"
    data = b"first\n" + long_record + b"y\n" * BLOCK_BYTES
    blocks = RecordBlocks()
    read_into = reader(data, read_sizes)
    found, sizes = [], []
    while block := blocks.read(read_into):
        found.append(bytes(block.buffer[block.start : block.end]))
        sizes.append(len(block.buffer))
    assert b"".join(found) == data
    assert any(long_record in block for block in found)
    assert max(sizes) > 5 * BLOCK_BYTES
    assert sizes[-1] == BLOCK_BYTES


def test_a_full_buffer_of_whole_records_is_one_block() -> None:
    data = b"x" * (BLOCK_BYTES - 1) + b"\n"
    assert blocks_of(RecordBlocks(), reader(data * 3, [BLOCK_BYTES])) == [data] * 3


def test_no_data_gives_no_block() -> None:
    assert RecordBlocks().read(reader(b"", [1])) is None


def test_data_without_a_separator_is_one_block() -> None:
    assert blocks_of(RecordBlocks(), reader(b"torn", [1])) == [b"torn"]


def test_an_overlong_last_record_is_counted_though_nothing_ends_it() -> None:
    blocks = RecordBlocks(max_record_bytes=10)
    assert blocks_of(blocks, reader(b"short\n" + b"x" * 50, [4])) == [b"short\n"]
    assert blocks.overlong == 1


def test_after_a_restart_nothing_is_left_of_the_data_before() -> None:
    blocks = RecordBlocks(max_record_bytes=10)
    blocks.read(reader(b"one\ntwo, torn", [6]))
    blocks.restart()
    assert blocks_of(blocks, reader(b"x" * 50 + b"\nnext\n", [7])) == [b"next\n"]
    assert blocks.overlong == 1
    blocks.restart()
    assert blocks_of(blocks, reader(b"a\n", [7])) == [b"a\n"]
    assert blocks.overlong == 0


def test_an_error_of_the_reader_comes_through() -> None:
    def read_into(space: memoryview) -> int:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        RecordBlocks().read(read_into)
