"""Lines come out the same however the bytes are cut, and a line over the cap costs only itself."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.wire.framing import TOO_LONG, LineFramer, LineTooLong
from tests.unit.strategies import cuts

Lines = list[bytes | LineTooLong]
CAP = 8
PIECES = [b"\n", b"\r\n", b"\r", b" ", b"\t", b"\x0b", b"a", b"{}", b"\x00", b"\xff", b"x" * 7, b"y" * 9]
STREAMS = st.lists(st.sampled_from(PIECES), max_size=24).map(b"".join)


def framed(pieces: list[bytes], max_line_bytes: int = CAP) -> Lines:
    framer = LineFramer(max_line_bytes)
    return [line for piece in pieces for line in framer.feed(piece)] + framer.finish()


def lines_of(data: bytes) -> Lines:
    """The same from the whole input at once."""
    lines: Lines = []
    for line in (line.removesuffix(b"\r") for line in data.split(b"\n")):
        if len(line) > CAP:
            lines.append(TOO_LONG)
        elif line.strip(b" \t\r"):
            lines.append(line)
    return lines


@settings(max_examples=200)
@given(data=STREAMS, cut=st.data())
def test_lines_are_the_same_whole_byte_by_byte_and_cut_anywhere(data: bytes, cut: st.DataObject) -> None:
    wanted = lines_of(data)
    assert framed([data]) == wanted
    assert framed([data[place : place + 1] for place in range(len(data))]) == wanted
    assert framed(cut.draw(cuts(data))) == wanted


@given(data=STREAMS, cut=st.data())
def test_each_line_comes_with_the_piece_that_completes_it(data: bytes, cut: st.DataObject) -> None:
    framer, fed = LineFramer(CAP), b""
    found: Lines = []
    for piece in cut.draw(cuts(data)):
        fed += piece
        found += framer.feed(piece)
        assert found == lines_of(fed[: fed.rfind(b"\n") + 1])


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"one\ntwo\n", [b"one", b"two"]),
        (b"one\r\ntwo\r\n", [b"one", b"two"]),
        (b"\n \r\n\t\n\r\n\r\r\none\n", [b"one"]),
        (b"one", [b"one"]),
        (b"a\rb\n", [b"a\rb"]),
        (b"a\r\r\n", [b"a\r"]),
        (b" a \n", [b" a "]),
        ("a\u2028b\n".encode(), ["a\u2028b".encode()]),
        (b"a\x0bb\x0cc\x85\n", [b"a\x0bb\x0cc\x85"]),
        (b"\x0c\n\x00\n", [b"\x0c", b"\x00"]),
        (b"", []),
    ],
)
def test_only_a_line_feed_ends_a_line(data: bytes, lines: Lines) -> None:
    assert framed([data]) == lines


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_the_cap_is_of_the_line_without_its_ending(ending: bytes) -> None:
    assert framed([b"x" * CAP + ending]) == [b"x" * CAP]
    assert framed([b"x" * (CAP + 1) + ending]) == [TOO_LONG]


@pytest.mark.parametrize("piece_bytes", [1, 3, 100])
def test_a_line_over_the_cap_is_reported_once_and_the_next_one_works(piece_bytes: int) -> None:
    data = b"before\n" + b"x" * 50 + b"\nafter\n"
    pieces = [data[place : place + piece_bytes] for place in range(0, len(data), piece_bytes)]
    assert framed(pieces) == [b"before", TOO_LONG, b"after"]


def test_a_line_over_the_cap_that_nothing_ends_is_reported_at_the_end() -> None:
    framer = LineFramer(CAP)
    assert framer.feed(b"x" * 50) == []
    assert framer.finish() == [TOO_LONG]
    assert framer.finish() == []
