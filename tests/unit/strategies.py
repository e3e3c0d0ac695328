"""Lines of transcripts, good and bad, for Hypothesis to draw: JSON as text, since that is where the oddities are."""

from __future__ import annotations

from itertools import cycle

from hypothesis import strategies as st

from sidecar.core.blocks import ReadInto

PIECES = [
    b"a",
    b"user",
    b"{",
    b"}",
    b":",
    b",",
    b"\\n",
    b'\\"',
    b"\\\\",
    b"\\/",
    b"\\u0041",
    b"\\ud83d",
    b"\\uDE00",
    b"\\ud83d\\ude00",
    b"ud83d",
    "é🙂".encode(),
    "\u2028".encode(),
    b"\x7f",
    b"\xff",
    b"\xc3",
    b"\xe2\x82",
    b"\xed\xa0\xbd",
    b"\xf4\x90\x80\x80",
]
WRONG_PIECES = [b"\x00", b"\x01", b"\x1f", b"\t", b"\r", b"\n", b"\\x", b"\\u12", b"\\", b'"']
SCALARS = [b"true", b"false", b"null", b"0", b"-0", b"1.5", b"1e5", b"1E+400", b"-1e-400", b"9" * 25, b"7" * 400]
WRONG_SCALARS = [b"01", b"1.", b".5", b"-", b"+1", b"1e", b"0x10", b"NaN", b"Infinity", b"-Infinity", b"nul", b"'a'"]
GARBAGE = [
    b"\x00",
    b"garbage}",
    b"{",
    b"}",
    b"null",
    b"[]",
    b'"text"',
    b"42",
    b"{}{}",
    b"{},",
    b"\xff",
    b"\xef\xbb\xbf{}",
]
BLANKS = [b"", b" ", b"\t ", b"\r", b" \r"]


def nested(depth: int) -> bytes:
    """A value that is ``depth`` levels deep, an even number."""
    return b'{"a":[' * (depth // 2) + b"]}" * (depth // 2)


CONTAINERS = [b"[]", b"{}", b"[1, [2]]", b'{"role":"user"}', nested(300)]


def strings(pieces: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(pieces), max_size=5).map(lambda chosen: b'"' + b"".join(chosen) + b'"')


def values(*, wrong: bool) -> st.SearchStrategy[bytes]:
    """JSON values; with ``wrong``, some that only look like it."""
    if wrong:
        return st.one_of(strings(PIECES + WRONG_PIECES), st.sampled_from(SCALARS + WRONG_SCALARS + CONTAINERS))
    return st.one_of(strings(PIECES), st.sampled_from(SCALARS + CONTAINERS))


def spelled(*words: bytes) -> st.SearchStrategy[bytes]:
    """One of ``words`` as a JSON string; now and then its first character is an escape."""
    return st.sampled_from(
        [b'"%b"' % word for word in words] * 3 + [b'"\\u%04x%b"' % (word[0], word[1:]) for word in words]
    )


@st.composite
def objects(draw: st.DrawFn, usual: dict[bytes, st.SearchStrategy[bytes]], *, wrong: bool) -> bytes:
    """An object with the ``usual`` members and up to two others, in any order, some of them twice, oddly spaced."""
    odd = st.tuples(st.one_of(spelled(*usual), strings(PIECES)), values(wrong=wrong))
    members = [(draw(spelled(name)), draw(value)) for name, value in usual.items()]
    members = draw(st.permutations(members + draw(st.lists(odd, max_size=2))))
    colon = draw(st.sampled_from([b":", b": ", b"\t:\r"]))
    comma = draw(st.sampled_from([b",", b", ", b" \r, "] + [b",\n"] * wrong))
    return b"{" + comma.join(key + colon + value for key, value in members) + b"}"


def entries(*, wrong: bool) -> st.SearchStrategy[bytes]:
    """Entries of any type; with ``wrong``, some that are torn by a line feed or are not JSON."""
    roles = spelled(b"user", b"assistant", b"toolResult")
    return objects(
        {
            b"type": spelled(b"message", b"message", b"message", b"session", b"model_change"),
            b"timestamp": spelled(b"2026-11-22T20:16:19.852Z", b"2026-11-22T20:15:53.605Z", b"t" * 64, b"t" * 65),
            b"message": objects({b"role": roles, b"content": values(wrong=wrong)}, wrong=wrong),
            b"id": values(wrong=wrong),
        },
        wrong=wrong,
    )


@st.composite
def mutations(draw: st.DrawFn, texts: st.SearchStrategy[bytes], inserted: list[bytes]) -> bytes:
    """A text with up to four bytes deleted, flipped, or something inserted."""
    text = bytearray(draw(texts))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(text)))
        match draw(st.sampled_from(("delete", "flip", "insert", "cut"))):
            case "delete":
                del text[place : place + 1]
            case "flip" if place < len(text):
                text[place] ^= 1 << draw(st.integers(0, 7))
            case "insert":
                text[place:place] = draw(st.sampled_from(inserted))
            case _:
                del text[place : place + draw(st.integers(0, 40))]
    return bytes(text)


def cuts(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """``data`` in pieces, cut anywhere."""
    places = st.lists(st.integers(0, len(data)), max_size=8).map(sorted)
    return places.map(lambda cut: [data[start:end] for start, end in zip([0, *cut], [*cut, len(data)], strict=True)])


def reader(data: bytes, read_sizes: list[int]) -> ReadInto:
    """Delivers ``data`` in pieces of ``read_sizes``, over and over."""
    sizes = cycle(read_sizes)
    place = 0

    def read_into(space: memoryview) -> int:
        nonlocal place
        piece = data[place : place + min(next(sizes), len(space))]
        space[: len(piece)] = piece
        place += len(piece)
        return len(piece)

    return read_into
