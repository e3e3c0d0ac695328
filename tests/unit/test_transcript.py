"""The scanner counts what plain ``json`` counts over whole lines, however oddly they are written or read."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.blocks import RecordBlocks
from sidecar.core.transcript import Tally
from sidecar.demo.sample import SampleWriter
from sidecar.limits import BLOCK_BYTES
from tests.oracle import Wire, analyse_transcript
from tests.unit.strategies import BLANKS, GARBAGE, PIECES, WRONG_PIECES, entries, mutations, nested, reader

REAL_TREES = Path(__file__).resolve().parents[3] / "shared" / "real-openclaw"
REAL_TRANSCRIPTS = sorted(path for path in REAL_TREES.glob("*/agents/*/sessions/*.jsonl*") if path.suffix != ".zst")

HEADER = b'{"type":"session","version":3,"id":"s1","timestamp":"2026-11-22T20:00:00.000Z","cwd":"/w"}'
USER = (
    b'{"type":"message","id":"a1","parentId":null,"timestamp":"2026-11-22T20:16:19.852Z",'
    b'"message":{"role":"user","content":"hi","timestamp":1795378579852}}'
)
ASSISTANT = USER.replace(b"user", b"assistant").replace(b"19.852Z", b"20.000Z")


def counted(data: bytes, read_sizes: list[int] | None = None, blocks: RecordBlocks | None = None) -> Wire:
    """What ``Tally`` makes of ``data``, read in pieces of ``read_sizes`` over and over."""
    blocks = blocks or RecordBlocks()
    read_into = reader(data, read_sizes or [BLOCK_BYTES])
    tally = Tally()
    while block := blocks.read(read_into):
        tally.add(block)
    return {
        "messageCount": tally.messages,
        "userMessageCount": tally.users,
        "assistantMessageCount": tally.assistants,
        "lastActivity": tally.last_activity,
        "headerId": tally.header_id,
        "skippedLines": tally.skipped_lines + blocks.overlong,
    }


def of_content(content: bytes) -> bytes:
    return USER.replace(b'"hi"', content)


COUNTED_LINES = {
    "a plain message": USER,
    "a message between spaces and tabs": b" \t" + USER + b" \t",
    "a message that ends in CRLF": USER + b"\r",
    "keys in another order": b'{"message":{"content":"hi","role":"user"},"timestamp":"2026-11-22T20:16:19.852Z",'
    b'"type":"message"}',
    "keys and values written as escapes": USER.replace(b'"type":"message"', b'"\\u0074ype":"messag\\u0065"'),
    "raw U+2028 and U+2029": of_content('"a\u2028b\u2029c"'.encode()),
    "a DEL character": of_content(b'"\x7f"'),
    "an escaped NUL": of_content(b'"\\u0000"'),
    "invalid UTF-8 in the content": of_content(b'"\xff\xc3\xe2\x82"'),
    "invalid UTF-8 right before the quote": of_content(b'"\xf0\x9f"'),
    "UTF-8 of a surrogate": of_content(b'"\xed\xa0\xbd"'),
    "invalid UTF-8 in a key": USER.replace(b'"id"', b'"i\xffd"'),
    "a lone high surrogate": of_content(b'"cut \\ud83d"'),
    "a lone low surrogate": of_content(b'"\\uDE00 cut"'),
    "two high surrogates": of_content(b'"\\ud83d\\ud83d\\ude00"'),
    "a low surrogate before a high one": of_content(b'"\\ude00\\ud83d"'),
    "a high surrogate before another escape": of_content(b'"\\ud83d\\n"'),
    "a lone surrogate after an escaped backslash": of_content(b'"\\\\\\ud83d"'),
    "what looks like a surrogate behind an escaped backslash": of_content(b'"\\\\ud83d"'),
    "a lone surrogate in a key": USER.replace(b'"id"', b'"\\ud83d"'),
    "a whole surrogate pair": of_content(b'"\\ud83d\\ude00"'),
    "a number of 5,000 digits": of_content(b"9" * 5_000),
    "a number beyond every float": of_content(b"1e999"),
    "a minus zero": of_content(b"-0"),
    "300 levels of nesting": of_content(nested(300)),
    "a type given twice, the second right": USER.replace(b'"type"', b'"type":5,"type"'),
    "a role given twice, the second right": USER.replace(b'"role"', b'"role":[],"role"'),
    "a number as id": USER.replace(b'"a1"', b"17"),
}


@pytest.mark.parametrize("line", COUNTED_LINES.values(), ids=COUNTED_LINES)
def test_an_unusual_but_valid_message_is_counted(line: bytes) -> None:
    wanted = {
        "messageCount": 1,
        "userMessageCount": 1,
        "assistantMessageCount": 0,
        "lastActivity": "2026-11-22T20:16:19.852Z",
        "headerId": None,
        "skippedLines": 0,
    }
    assert counted(line + b"\n") == wanted
    assert analyse_transcript(line + b"\n") == wanted


SKIPPED_LINES = {
    "a torn line": USER[:-9],
    "two records glued on one line": USER + ASSISTANT,
    "two records with a comma between": USER + b"," + ASSISTANT,
    "a torn record glued to a whole one": USER[:40] + ASSISTANT,
    "a record with something behind it": USER + b"x",
    "a raw tab in a string": of_content(b'"a\tb"'),
    "a raw NUL in a string": of_content(b'"a\x00b"'),
    "a raw escape character in a string": of_content(b'"a\x1bb"'),
    "a raw carriage return in a string": of_content(b'"a\rb"'),
    "a NUL behind the record": USER + b"\x00",
    "nothing but NUL": b"\x00" * 16,
    "a form feed alone": b"\x0c",
    "a byte order mark": b"\xef\xbb\xbf" + USER,
    "NaN": of_content(b"NaN"),
    "Infinity": of_content(b"Infinity"),
    "minus Infinity": of_content(b"-Infinity"),
    "an unknown escape": of_content(b'"\\x41"'),
    "half an escape": of_content(b'"\\u12"'),
    "a leading zero": of_content(b"01"),
    "a trailing comma": USER[:-1] + b",}",
    "single quotes": USER.replace(b'"hi"', b"'hi'"),
    "invalid UTF-8 outside of strings": USER[:-1] + b"\xff}",
    "U+2028 outside of strings": USER + "\u2028".encode(),
    "a lone surrogate outside of strings": USER[:-1] + b"\\ud83d}",
    "an array": b"[" + USER + b"]",
    "a string": b'"message"',
    "a number": b"42",
    "null": b"null",
}


@pytest.mark.parametrize("line", SKIPPED_LINES.values(), ids=SKIPPED_LINES)
def test_a_line_that_is_no_json_object_is_skipped_and_counted(line: bytes) -> None:
    data = USER + b"\n" + line + b"\n" + ASSISTANT + b"\n"
    wanted = {
        "messageCount": 2,
        "userMessageCount": 1,
        "assistantMessageCount": 1,
        "lastActivity": "2026-11-22T20:16:20.000Z",
        "headerId": None,
        "skippedLines": 1,
    }
    assert counted(data) == wanted
    assert analyse_transcript(data) == wanted


OTHER_ENTRIES = {
    "another type": USER.replace(b'"message",', b'"compaction",', 1),
    "the type in other letters": USER.replace(b'"message",', b'"Message",', 1),
    "no type": b'{"message":{"role":"user"}}',
    "a number as type": USER.replace(b'"message",', b"7,", 1),
    "invalid UTF-8 in the type": USER.replace(b'"message",', b'"message\xff",', 1),
    "a lone surrogate in the type": USER.replace(b'"message",', b'"message\\ud83d",', 1),
    "a type given twice, the second wrong": USER.replace(b'"message",', b'"message","type":null,', 1),
    "an empty object": b"{}",
}


@pytest.mark.parametrize("line", OTHER_ENTRIES.values(), ids=OTHER_ENTRIES)
def test_an_entry_of_another_type_is_no_message_and_not_skipped(line: bytes) -> None:
    assert counted(line)["messageCount"] == analyse_transcript(line)["messageCount"] == 0
    assert counted(line)["skippedLines"] == analyse_transcript(line)["skippedLines"] == 0


NO_ROLE = {
    "no message": b'{"type":"message"}',
    "null as message": b'{"type":"message","message":null}',
    "a string as message": b'{"type":"message","message":"user"}',
    "an array as message": b'{"type":"message","message":[{"role":"user"}]}',
    "no role": b'{"type":"message","message":{"content":"user"}}',
    "a number as role": b'{"type":"message","message":{"role":1}}',
    "an object as role": b'{"type":"message","message":{"role":{"role":"user"}}}',
    "invalid UTF-8 in the role": b'{"type":"message","message":{"role":"user\xff"}}',
    "a lone surrogate in the role": b'{"type":"message","message":{"role":"\\ud83duser"}}',
    "the role beside the message": b'{"type":"message","role":"user","message":{}}',
    "a message given twice, the second empty": b'{"type":"message","message":{"role":"user"},"message":{}}',
    "a role given twice, the second wrong": b'{"type":"message","message":{"role":"user","role":3}}',
}


@pytest.mark.parametrize("line", NO_ROLE.values(), ids=NO_ROLE)
def test_a_message_without_a_proper_role_counts_for_no_role(line: bytes) -> None:
    wanted = {"messageCount": 1, "userMessageCount": 0, "assistantMessageCount": 0, "skippedLines": 0}
    assert wanted.items() <= counted(line).items()
    assert wanted.items() <= analyse_transcript(line).items()


@pytest.mark.parametrize(
    ("timestamp", "shown"),
    [
        (b'"2026-11-22T20:16:19.852Z"', "2026-11-22T20:16:19.852Z"),
        (b'""', ""),
        (b'"' + b"t" * 64 + b'"', "t" * 64),
        (b'"' + b"\\u0074" * 64 + b'"', "t" * 64),
        (b'"' + b"\\ud83d\\ude00" * 64 + b'"', "😀" * 64),
        (b'"' + b"\\ud83d\\ude00" * 63 + b'\\ud83d"', "😀" * 63 + "\ufffd"),
        (b'"\xff"', "\ufffd"),
        (b'"\\ud83d"', "\ufffd"),
        (b'"\\\\ud83d \\ud83d"', "\\ud83d \ufffd"),
        (b'"' + b"t" * 65 + b'"', "earlier"),
        (b"1795378579852", "earlier"),
        (b"1e999", "earlier"),
        (b"null", "earlier"),
        (b'["x"]', "earlier"),
        (b'"first","timestamp":"second"', "second"),
        (b'"first","timestamp":2', "earlier"),
    ],
)
def test_last_activity_is_the_last_timestamp_that_is_a_short_text(timestamp: bytes, shown: str) -> None:
    earlier = USER.replace(b"2026-11-22T20:16:19.852Z", b"earlier")
    data = earlier + b"\n" + USER.replace(b'"2026-11-22T20:16:19.852Z"', timestamp) + b"\n" + HEADER
    assert counted(data)["lastActivity"] == shown
    assert analyse_transcript(data)["lastActivity"] == shown


@pytest.mark.parametrize(
    ("data", "header_id"),
    [
        (HEADER, "s1"),
        (HEADER + b"\r\n" + USER, "s1"),
        (b"\n" + HEADER, "s1"),
        (b"torn\n" + HEADER, "s1"),
        (HEADER.replace(b"s1", b"\\u0073\xff\\ud83d"), "s\ufffd\ufffd"),
        (HEADER.replace(b'"s1"', b'"' + b"s" * 512 + b'"'), "s" * 512),
        (HEADER.replace(b'"s1"', b"1"), None),
        (HEADER.replace(b'"session"', b'"message"'), None),
        (HEADER[:-1], None),
        (USER + b"\n" + HEADER, None),
        (b"", None),
    ],
)
def test_the_header_id_is_that_of_the_first_entry_if_it_is_a_session_header(data: bytes, header_id: str | None) -> None:
    assert counted(data)["headerId"] == header_id
    assert analyse_transcript(data)["headerId"] == header_id


def test_an_empty_transcript_counts_nothing() -> None:
    assert counted(b"") == analyse_transcript(b"")
    assert set(counted(b"").values()) == {0, None}


def test_blank_lines_are_not_skipped_lines() -> None:
    data = b"\n\r\n \t\r\n" + USER + b"\n\n\n"
    assert counted(data) == analyse_transcript(data)
    assert counted(data)["skippedLines"] == 0


def test_a_torn_last_line_is_skipped_and_counted() -> None:
    data = HEADER + b"\n" + USER + b"\n" + ASSISTANT[:50]
    assert counted(data)["messageCount"] == 1
    assert counted(data)["skippedLines"] == 1


def test_a_last_line_without_a_line_feed_counts() -> None:
    assert counted(HEADER + b"\n" + USER)["messageCount"] == 1


def test_a_value_that_spans_a_line_feed_is_two_skipped_lines() -> None:
    data = USER.replace(b',"message"', b',\n"message"') + b"\n" + ASSISTANT
    assert counted(data) == analyse_transcript(data)
    assert counted(data)["messageCount"] == 1
    assert counted(data)["skippedLines"] == 2


def test_a_line_nested_too_deep_for_any_parser_is_skipped_and_the_next_one_counts() -> None:
    data = of_content(nested(200_000)) + b"\n" + ASSISTANT
    assert counted(data) == analyse_transcript(data)
    assert counted(data)["skippedLines"] == 1


def test_one_bad_line_among_thousands_costs_none_of_the_others() -> None:
    lines = [USER, ASSISTANT] * 3_000
    for place in (0, 1, 777, 2_000, 2_001, 5_999):
        lines[place] = of_content(b'"\\ud83d"') if place % 2 else USER[:-1]
    data = b"\n".join(lines)
    assert counted(data, [5_000]) == analyse_transcript(data)


def test_a_line_longer_than_a_block_is_counted_whole() -> None:
    image = of_content(b'"' + b"iVBORw0KGgo" * 400_000 + b'"')
    data = b"\n".join((HEADER, ASSISTANT, image, ASSISTANT, image[:-1], image.replace(b"iVB", b"\\ud83d"), USER))
    found = counted(data)
    assert found == analyse_transcript(data)
    assert (found["messageCount"], found["userMessageCount"], found["skippedLines"]) == (5, 3, 1)


def test_a_long_line_of_a_wrong_type_or_with_a_lone_surrogate_is_counted_like_a_short_one() -> None:
    filler = b'"filler":"' + b"\xff\\\\" * 200_000 + b'",'
    lines = [*COUNTED_LINES.values(), *OTHER_ENTRIES.values(), *NO_ROLE.values()]
    for line in lines:
        data = line.replace(b"{", b"{" + filler, 1).replace(b',"}', b'"}')
        assert counted(data + b"\n" + ASSISTANT) == analyse_transcript(data + b"\n" + ASSISTANT), line


@pytest.mark.parametrize("read_size", [1_000, 64 * 1024, BLOCK_BYTES])
def test_an_overlong_record_is_passed_over_and_counted_and_the_next_ones_count(read_size: int) -> None:
    overlong = of_content(b'"' + b"x" * 3 * BLOCK_BYTES + b'"')
    data = b"\n".join((HEADER, USER, overlong, ASSISTANT, overlong))
    found = counted(data, [read_size], RecordBlocks(max_record_bytes=BLOCK_BYTES))
    assert found == counted(b"\n".join((HEADER, USER, b"x", ASSISTANT, b"x")))
    assert found["skippedLines"] == 2


@pytest.mark.parametrize(
    "path",
    REAL_TRANSCRIPTS
    or [pytest.param(REAL_TREES, marks=pytest.mark.skip(reason=f"no real OpenClaw transcripts below {REAL_TREES}"))],
    ids=lambda path: f"{path.parts[-3]}/{path.name[:24]}",
)
def test_a_real_transcript_counts_as_json_says(path: Path) -> None:
    data = path.read_bytes()
    wanted = analyse_transcript(data)
    assert wanted["skippedLines"] == 0
    assert counted(data) == wanted
    assert counted(data, [997, 65_536]) == wanted


LINES = st.one_of(
    entries(wrong=False),
    entries(wrong=True),
    st.sampled_from([*COUNTED_LINES.values(), *SKIPPED_LINES.values(), *NO_ROLE.values(), *GARBAGE, *BLANKS, HEADER]),
)
READ_SIZES = st.lists(st.sampled_from([1, 3, 17, 100, 1_000, BLOCK_BYTES]), min_size=1, max_size=4)


@settings(max_examples=150)
@given(line=entries(wrong=False))
def test_any_entry_counts_as_json_says(line: bytes) -> None:
    assert counted(line) == analyse_transcript(line)


@settings(max_examples=150)
@given(line=entries(wrong=True), behind=st.sampled_from([b"", b"\n" + USER, USER, b"\r\n"]))
def test_a_broken_entry_counts_as_json_says(line: bytes, behind: bytes) -> None:
    assert counted(line + behind) == analyse_transcript(line + behind)


@settings(max_examples=100)
@given(lines=st.lists(LINES, max_size=8), ending=st.sampled_from([b"\n", b"\r\n"]), read_sizes=READ_SIZES)
def test_any_lines_count_as_json_says_however_they_are_read(
    lines: list[bytes], ending: bytes, read_sizes: list[int]
) -> None:
    data = ending.join(lines)
    assert counted(data, read_sizes) == analyse_transcript(data)


def sample_lines() -> list[bytes]:
    writer = SampleWriter(seed=7, now_ms=1_795_378_579_852)
    lines = [line for line in writer.lines("s1", 1_795_378_000_000, 20_000) if len(line) < 1_500]
    if REAL_TRANSCRIPTS:
        lines += [line for line in REAL_TRANSCRIPTS[0].read_bytes().splitlines(keepends=True) if len(line) < 1_500]
    return lines


@settings(max_examples=500)
@given(
    data=mutations(
        st.lists(st.sampled_from(sample_lines()), min_size=1, max_size=3).map(b"".join),
        [*PIECES, *WRONG_PIECES, b'"type":"message",', b'"timestamp":"later",', b"NaN", b"\xef\xbb\xbf"],
    ),
    read_sizes=READ_SIZES,
)
def test_a_real_line_with_bytes_deleted_inserted_or_flipped_counts_as_json_says(
    data: bytes, read_sizes: list[int]
) -> None:
    assert counted(data, read_sizes) == analyse_transcript(data)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), read_sizes=READ_SIZES.filter(lambda sizes: max(sizes) > 50))
def test_megabytes_of_lines_of_all_sizes_count_as_json_says(seed: int, read_sizes: list[int]) -> None:
    rng = random.Random(seed)
    lines = [*COUNTED_LINES.values(), *SKIPPED_LINES.values(), *NO_ROLE.values(), *BLANKS]
    long_lines = [of_content(json.dumps("é" * rng.choice((20_000, 300_000))).encode()) for _ in range(3)]
    data = b"\n".join(rng.choices(lines, k=3_000) + rng.choices([*long_lines, *lines], k=60))
    assert counted(data, read_sizes) == analyse_transcript(data)
