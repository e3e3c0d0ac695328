"""A preview shows what plain ``json`` reads from whole lines, however oddly they are written or read, in pages."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.cancel import CancelToken
from sidecar.core.blocks import Block, RecordBlocks
from sidecar.core.preview import MessageReader, PageBuilder, PreviewMessage, PreviewPage
from sidecar.demo.sample import SampleWriter
from sidecar.errors import Cancelled, ReplyTooLarge, SessionNotFound, SourceUnreadable
from sidecar.limits import (
    BLOCK_BYTES,
    DEFAULT_PAGE_MESSAGES,
    FIRST_PAGE_AGE_MS,
    KIB,
    MAX_PAGE_MESSAGES,
    MIB,
    PAGE_AGE_MS,
    PAGE_BYTES,
    UTF8_CHECK_BYTES,
)
from sidecar.streams import preview
from sidecar.streams.base import Event, Outcome
from sidecar.streams.preview import PreviewStream, preview_session
from sidecar.wire.messages import encode, event_line
from tests.oracle import JSON_WHITESPACE, parse_object, text_of
from tests.unit.strategies import (
    BLANKS,
    GARBAGE,
    PIECES,
    WRONG_PIECES,
    mutations,
    nested,
    objects,
    reader,
    spelled,
    strings,
    values,
)

REAL_TREES = Path(__file__).resolve().parents[3] / "shared" / "real-openclaw"
REAL_TRANSCRIPTS = sorted(REAL_TREES.glob("2026.7.1-jsonl/agents/*/sessions/*.jsonl*"))

Message = tuple[str, str]

USER = (
    b'{"type":"message","id":"a1","parentId":null,"timestamp":"2026-11-22T20:16:19.852Z",'
    b'"message":{"role":"user","content":"hi","timestamp":1795378579852}}'
)


# What must come out


def shown(data: bytes) -> tuple[list[Message], int]:
    """Role and content of each message of a transcript, and how many lines are no entries: with ``json``."""
    messages = []
    skipped_lines = 0
    for line in data.split(b"\n"):
        if line.strip(JSON_WHITESPACE):
            try:
                entry = parse_object(line)
            except ValueError:
                skipped_lines += 1
            else:
                if entry.get("type") == "message":
                    messages.append(shown_of(entry.get("message")))
    return messages, skipped_lines


def shown_of(message: Any) -> Message:
    fields = message if isinstance(message, dict) else {}
    role, content = text_of(fields.get("role")), fields.get("content")
    if isinstance(content, list):
        texts = [text_of(block.get("text")) for block in content if isinstance(block, dict)]
        text: str | None = "\n".join(text for text in texts if text is not None)
    else:
        text = text_of(content)
    return "unknown" if role is None else role, text or ""


# What comes out


def previewed(
    data: bytes, read_sizes: list[int] | None = None, blocks: RecordBlocks | None = None
) -> tuple[list[Message], int]:
    """What a client reads from the pages of a preview of ``data``, read in pieces of ``read_sizes`` over and over."""
    blocks = blocks or RecordBlocks()
    read_into = reader(data, read_sizes or [BLOCK_BYTES])
    messages = MessageReader()
    pages = PageBuilder(3)
    found: list[Message] = []
    while block := blocks.read(read_into):
        for some in messages.read(block):
            for page in pages.add(some):
                found += decoded(page)
            # Fails while a view of the buffer is open, as the growth that a longer line needs would.
            block.buffer.append(0)
            block.buffer.pop()
    if pages.waiting:
        found += decoded(pages.take())
    return found, messages.skipped_lines


def decoded(page: PreviewPage) -> list[Message]:
    """The messages of a page, from its line on the wire, which must be one line of strict JSON."""
    line = event_line("session-preview:page", "h", 0, page)
    text = line.decode()
    assert text.index("\n") == len(text) - 1
    assert "\u2028" not in text
    assert "\u2029" not in text
    params = json.loads(text, parse_constant=pytest.fail)["params"]
    for message in params["messages"]:
        assert list(message) == ["role", "content"]
        for part in message.values():
            part.encode()  # fails on a lone surrogate
    return [(message["role"], message["content"]) for message in params["messages"]]


def of_content(content: bytes, role: bytes = b"user") -> bytes:
    return USER.replace(b'"hi"', content).replace(b"user", role)


CONTENTS = {
    "a string": (b'"hi"', "hi"),
    "an empty string": (b'""', ""),
    "a string between spaces": (b' \t "hi" ', "hi"),
    "escapes": (b'"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\u0041"', '"\\/\b\f\n\r\té' + "A"),
    "an escaped NUL": (b'"a\\u0000b"', "a\x00b"),
    "a DEL character": (b'"\x7f"', "\x7f"),
    "raw U+2028 and U+2029": ('"a\u2028b\u2029c"'.encode(), "a\u2028b\u2029c"),
    "escaped U+2028": (b'"\\u2028"', "\u2028"),
    "U+2028 after an escaped backslash": (b'"\\\\' + '\u2028"'.encode(), "\\\u2028"),
    "other line ends of Unicode": ('"\x85"'.encode(), "\x85"),
    "raw characters of all widths": ('"é数🙂"'.encode(), "é数🙂"),
    "a surrogate pair": (b'"\\ud83d\\ude00"', "😀"),
    "a lone high surrogate": (b'"cut \\ud83d"', "cut \ufffd"),
    "a lone low surrogate": (b'"\\uDE00 cut"', "\ufffd cut"),
    "two high surrogates": (b'"\\ud83d\\ud83d\\ude00"', "\ufffd😀"),
    "a low surrogate before a high one": (b'"\\ude00\\ud83d"', "\ufffd\ufffd"),
    "what looks like a surrogate behind an escaped backslash": (b'"\\\\ud83d"', "\\ud83d"),
    "invalid UTF-8": (b'"a\xffb"', "a\ufffdb"),
    "invalid UTF-8 right before the quote": (b'"\xf0\x9f"', "\ufffd"),
    "UTF-8 of a surrogate": (b'"\xed\xa0\xbd"', "\ufffd\ufffd\ufffd"),
    "overlong UTF-8": (b'"\xc0\xaf"', "\ufffd\ufffd"),
    "invalid UTF-8 and a lone surrogate": (b'"\xff\\ud83d"', "\ufffd\ufffd"),
    "halves of a character with ASCII between": (b'"\xc3a\xa9"', "\ufffda\ufffd"),
    "a text block": (b'[{"type":"text","text":"hi"}]', "hi"),
    "two text blocks": (b'[{"type":"text","text":"a"},{"type":"text","text":"b"}]', "a\nb"),
    "an empty text block between others": (b'[{"text":"a"},{"text":""},{"text":"b"}]', "a\n\nb"),
    "one empty text block": (b'[{"text":""}]', ""),
    "no blocks": (b"[]", ""),
    "an image alone": (b'[{"type":"image","data":"iVBORw0KGgo","mimeType":"image/png"}]', ""),
    "a text and an image": (b'[{"type":"text","text":"see"},{"type":"image","data":"iVBORw0KGgo"}]', "see"),
    "thinking and a text": (b'[{"type":"thinking","thinking":"hm"},{"type":"text","text":"so"}]', "so"),
    "a text and a tool call": (b'[{"text":"a"},{"type":"toolCall","arguments":{"text":"no","content":["no"]}}]', "a"),
    "texts that aren't strings": (b'[{"text":1},{"text":null},{"text":["a"]},{"text":{"text":"b"}},{"text":"c"}]', "c"),
    "blocks that aren't objects": (b'["a",1,null,[{"text":"b"}],{"text":"c"}]', "c"),
    "blocks of which none is an object": (b'["a",1,null]', ""),
    "a text given twice, the second right": (b'[{"text":1,"text":"b"}]', "b"),
    "a text given twice, the second wrong": (b'[{"text":"a","text":1}]', ""),
    "a text in an escaped key": (b'[{"t\\u0065xt":"a"}]', "a"),
    "a text that begins with a lone surrogate, after one that ends with one": (
        b'[{"text":"a\\ud83d"},{"text":"\\ude00b"}]',
        "a\ufffd\n\ufffdb",
    ),
    "invalid UTF-8 at the ends of texts": (b'[{"text":"\xc3"},{"text":"\xa9"}]', "\ufffd\n\ufffd"),
    "U+2028 in blocks": ('[{"text":"\u2028"},{"text":"\u2029"}]'.encode(), "\u2028\n\u2029"),
    "invalid UTF-8 in what is not shown": (b'[{"text":"a","\xff":"\xff"},{"type":"\xff"}]', "a"),
    "a lone surrogate in what is not shown": (b'[{"text":"a"},{"thinking":"\\ud83d"}]', "a"),
    "what looks like a list of blocks in a string": (
        b'"\\"content\\":[{\\"text\\":\\"a\\"}]"',
        '"content":[{"text":"a"}]',
    ),
    "spaces before the list": (b' [ { "text" : "a" } , { "text" : "b" } ] ', "a\nb"),
    "null": (b"null", ""),
    "a number": (b"1e999", ""),
    "true": (b"true", ""),
    "an object": (b'{"text":"a"}', ""),
    "content given twice, the second right": (b'5,"content":"b"', "b"),
    "content given twice, the second wrong": (b'"a","content":{}', ""),
    "content given twice, first a list": (b'[{"text":"a"}],"content":"b"', "b"),
    "content given twice, then a list": (b'"b","content":[{"text":"a"}]', "a"),
    "300 levels of nesting": (nested(300), ""),
    "300 levels of nesting in a block": (b'[{"text":"a"},{"x":%b},3]' % nested(300), "a"),
}


@pytest.mark.parametrize(("content", "text"), CONTENTS.values(), ids=CONTENTS)
def test_content_is_shown_as_the_contract_says(content: bytes, text: str) -> None:
    assert previewed(of_content(content)) == ([("user", text)], 0)
    assert shown(of_content(content)) == ([("user", text)], 0)


MESSAGES = {
    "keys in another order": (b'{"message":{"content":"hi","role":"user"},"type":"message"}', ("user", "hi")),
    "a type written with an escape": (USER.replace(b'"message",', b'"messag\\u0065",', 1), ("user", "hi")),
    "any other role": (of_content(b'"hi"', b"toolResult"), ("toolResult", "hi")),
    "a role with a line end of Unicode": (of_content(b'"hi"', "\u2028".encode()), ("\u2028", "hi")),
    "a long role": (of_content(b'"hi"', b"r" * 10_000), ("r" * 10_000, "hi")),
    "a long role with a lone surrogate": (
        of_content(b'"hi"', b"r" * 10_000 + b"\\ud83d"),
        ("r" * 10_000 + "\ufffd", "hi"),
    ),
    "invalid UTF-8 in the role": (of_content(b'"hi"', b"user\xff"), ("user\ufffd", "hi")),
    "a bash execution": (b'{"type":"message","message":{"role":"bashExecution","output":"o"}}', ("bashExecution", "")),
    "no role": (b'{"type":"message","message":{"content":"hi"}}', ("unknown", "hi")),
    "no role beside a list": (b'{"type":"message","message":{"content":[{"text":"hi"}]}}', ("unknown", "hi")),
    "no role beside a lone surrogate": (b'{"type":"message","message":{"content":"\\ud83d"}}', ("unknown", "\ufffd")),
    "an empty role": (of_content(b'"hi"', b""), ("", "hi")),
    "an empty role beside a lone surrogate": (of_content(b'"\\ud83d"', b""), ("", "\ufffd")),
    "null as role": (USER.replace(b'"user"', b"null"), ("unknown", "hi")),
    "a number as role": (USER.replace(b'"user"', b"7"), ("unknown", "hi")),
    "an object as role": (USER.replace(b'"user"', b'{"role":"user"}'), ("unknown", "hi")),
    "a role given twice, the second wrong": (USER.replace(b'"user"', b'"user","role":[]'), ("unknown", "hi")),
    "no message": (b'{"type":"message"}', ("unknown", "")),
    "null as message": (b'{"type":"message","message":null}', ("unknown", "")),
    "a string as message": (b'{"type":"message","message":"hi"}', ("unknown", "")),
    "an array as message": (b'{"type":"message","message":[{"role":"user","content":"hi"}]}', ("unknown", "")),
    "an empty message": (b'{"type":"message","message":{}}', ("unknown", "")),
    "a message given twice, the second empty": (USER[:-1] + b',"message":{}}', ("unknown", "")),
    "a list of which the message is given twice": (
        of_content(b'[{"text":"a"}]')[:-1] + b',"message":{}}',
        ("unknown", ""),
    ),
    "a type given twice, the second right": (b'{"type":5,' + USER[1:], ("user", "hi")),
    "content far behind": (
        b'{"type":"message","message":{"role":"user","details":"%b","content":[{"text":"a"}]}}' % (b"x" * 1_000),
        ("user", "a"),
    ),
}


@pytest.mark.parametrize(("line", "message"), MESSAGES.values(), ids=MESSAGES)
def test_an_oddly_formed_message_is_shown(line: bytes, message: Message) -> None:
    assert previewed(line) == ([message], 0)
    assert shown(line) == ([message], 0)


OTHER_LINES = {
    "a header": (b'{"type":"session","version":3,"id":"s1"}', 0),
    "another type": (USER.replace(b'"message",', b'"compaction",', 1), 0),
    "another type with a list": (of_content(b'[{"text":"a"}]').replace(b'"message",', b'"custom_message",', 1), 0),
    "another type with a text as message": (b'{"type":"custom","message":"hi"}', 0),
    "no type": (b'{"message":{"role":"user","content":"hi"}}', 0),
    "no type and a text as message": (b'{"message":"hi"}', 0),
    "a number as type": (USER.replace(b'"message",', b"7,", 1), 0),
    "a type with invalid UTF-8": (USER.replace(b'"message",', b'"message\xff",', 1), 0),
    "a type given twice, the second wrong": (USER.replace(b'"message",', b'"message","type":null,', 1), 0),
    "an empty object": (b"{}", 0),
    "a blank line": (b" \t\r", 0),
    "a torn line": (USER[:-9], 1),
    "a line torn within a list": (of_content(b'[{"text":"a"}]')[:-40], 1),
    "two records glued on one line": (USER + USER, 1),
    "a torn record glued to a whole one": (USER[:40] + USER, 1),
    "a raw tab in the content": (of_content(b'"a\tb"'), 1),
    "a raw NUL in a text": (of_content(b'[{"text":"a\x00b"}]'), 1),
    "an unknown escape": (of_content(b'"\\x41"'), 1),
    "an escape of an invalid byte": (of_content(b'"\\\xff"'), 1),
    "half an escape": (of_content(b'"\\ud83"'), 1),
    "a byte order mark": (b"\xef\xbb\xbf" + USER, 1),
    "NaN": (of_content(b"NaN"), 1),
    "invalid UTF-8 outside of strings": (USER[:-1] + b"\xff}", 1),
    "a lone surrogate outside of strings": (USER[:-1] + b"\\ud83d}", 1),
    "an array": (b"[" + USER + b"]", 1),
    "null": (b"null", 1),
    "the word undefined": (b"undefined", 1),
}


@pytest.mark.parametrize(("line", "skipped_lines"), OTHER_LINES.values(), ids=OTHER_LINES)
def test_a_line_without_a_message_shows_nothing_and_is_counted_if_it_is_no_entry(
    line: bytes, skipped_lines: int
) -> None:
    data = USER + b"\n" + line + b"\n" + USER
    assert previewed(data) == ([("user", "hi")] * 2, skipped_lines)
    assert shown(data) == ([("user", "hi")] * 2, skipped_lines)


def test_a_value_that_spans_a_line_feed_is_two_skipped_lines() -> None:
    data = USER.replace(b',"message"', b',\n"message"') + b"\n" + USER
    assert previewed(data) == shown(data) == ([("user", "hi")], 2)


def test_an_empty_transcript_shows_nothing() -> None:
    assert previewed(b"") == ([], 0)


def test_a_line_nested_too_deep_for_any_parser_is_skipped_and_the_next_one_is_shown() -> None:
    for content in (nested(200_000), b'[{"text":"a","x":%b}]' % nested(200_000)):
        data = of_content(content) + b"\n" + USER
        assert previewed(data) == shown(data) == ([("user", "hi")], 1)


ODD_LINES = [
    *(of_content(content) for content, _ in CONTENTS.values()),
    *(line for line, _ in MESSAGES.values()),
    *(line for line, _ in OTHER_LINES.values()),
]


@pytest.mark.parametrize("line", ODD_LINES)
def test_a_line_that_is_longer_than_a_block_is_shown_like_a_short_one(line: bytes) -> None:
    filler = b'"filler":"\xff\\\\' + b"x" * BLOCK_BYTES + b'",'
    data = USER + b"\n" + line.replace(b"{", b"{" + filler, 1).replace(b',"}', b'"}') + b"\n" + USER
    assert previewed(data) == shown(data)
    # and as the last one, which need not have a line feed
    data = data.removesuffix(b"\n" + USER)
    assert previewed(data) == shown(data)


@pytest.mark.parametrize("width", [2, 3, 4])
def test_a_character_is_never_torn_where_a_long_text_is_checked_in_pieces(width: int) -> None:
    character = {2: "é", 3: "数", 4: "🙂"}[width].encode()
    for before in range(UTF8_CHECK_BYTES - 2 * width, UTF8_CHECK_BYTES + 2):
        for text in (character, character[:-1], character[1:], character[:-1] + b"a"):
            line = of_content(b'"' + b"x" * before + text + b"y" * UTF8_CHECK_BYTES + character + b'"')
            assert previewed(line) == shown(line)


@pytest.mark.parametrize("content", [b'"%b"', b'[{"type":"text","text":"%b"}]', b'[{"text":"a"},{"text":"%b"}]'])
def test_a_long_text_is_shown_whole(content: bytes) -> None:
    for text in (b"x" * 700_000, "naïve 数据 🙂\u2028".encode() * 40_000, b"\xff\\n" * 200_000, b"\\ud83d" * 60_000):
        data = of_content(content % text) + b"\n" + USER
        assert previewed(data) == shown(data)


@pytest.mark.parametrize(
    "path",
    REAL_TRANSCRIPTS
    or [pytest.param(REAL_TREES, marks=pytest.mark.skip(reason=f"no real OpenClaw transcripts below {REAL_TREES}"))],
    ids=lambda path: f"{path.parts[-3]}/{path.name[:24]}",
)
def test_a_real_transcript_shows_what_json_reads(path: Path) -> None:
    data = path.read_bytes()
    messages, skipped_lines = shown(data)
    assert skipped_lines == 0
    assert previewed(data) == (messages, 0)
    assert previewed(data, [997, 65_536]) == (messages, 0)


def texts() -> st.SearchStrategy[bytes]:
    return strings(
        [*PIECES, "\u2028".encode(), "\u2029".encode(), b"\\u0000", b"\\ud83d\\ude00", b"\\ude00", b"\xf0\x9f"]
    )


@st.composite
def lists(draw: st.DrawFn, *, wrong: bool) -> bytes:
    """Lists of content blocks, and of what else may be in a list."""
    kinds = spelled(b"text", b"thinking", b"image", b"toolCall")
    block = objects({b"type": kinds, b"text": st.one_of(texts(), texts(), values(wrong=wrong))}, wrong=wrong)
    other = objects({b"type": kinds, b"thinking": texts()}, wrong=wrong)
    items = draw(st.lists(st.one_of(block, block, other, values(wrong=wrong)), max_size=4))
    return b"[" + draw(st.sampled_from([b",", b" , "])).join(items) + b"]"


def entries(*, wrong: bool) -> st.SearchStrategy[bytes]:
    """Entries, most of them messages, with content of any form; with ``wrong``, some that are no JSON."""
    roles = st.one_of(spelled(b"user", b"assistant", b"toolResult"), values(wrong=wrong))
    contents = st.one_of(texts(), lists(wrong=wrong), lists(wrong=wrong), values(wrong=wrong))
    message = objects({b"role": roles, b"content": contents}, wrong=wrong)
    types = spelled(b"message", b"message", b"message", b"custom_message")
    return objects({b"type": types, b"id": values(wrong=wrong), b"message": message}, wrong=wrong)


@st.composite
def usual_entries(draw: st.DrawFn) -> bytes:
    """Messages with their fields where OpenClaw has them, so that the content is found without a detour."""
    content = draw(st.one_of(texts(), lists(wrong=False), lists(wrong=True)))
    return of_content(content, draw(st.sampled_from([b"user", b"assistant", b"a\\ud83d", b"\xff"])))


LINES = st.one_of(
    usual_entries(), entries(wrong=False), entries(wrong=True), st.sampled_from([*ODD_LINES, *GARBAGE, *BLANKS])
)
READ_SIZES = st.lists(st.sampled_from([1, 3, 17, 100, 1_000, BLOCK_BYTES]), min_size=1, max_size=4)


@settings(max_examples=200)
@given(line=st.one_of(usual_entries(), entries(wrong=False)))
def test_any_entry_is_shown_as_json_reads_it(line: bytes) -> None:
    assert previewed(line) == shown(line)


@settings(max_examples=150)
@given(line=entries(wrong=True), behind=st.sampled_from([b"", b"\n" + USER, USER, b"\r\n"]))
def test_a_broken_entry_is_shown_or_skipped_as_json_reads_it(line: bytes, behind: bytes) -> None:
    assert previewed(line + behind) == shown(line + behind)


@settings(max_examples=100)
@given(lines=st.lists(LINES, max_size=6), ending=st.sampled_from([b"\n", b"\r\n"]), read_sizes=READ_SIZES)
def test_any_lines_are_shown_as_json_reads_them_however_they_are_cut(
    lines: list[bytes], ending: bytes, read_sizes: list[int]
) -> None:
    data = ending.join(lines)
    assert previewed(data, read_sizes) == shown(data)


def sample_lines() -> list[bytes]:
    writer = SampleWriter(seed=11, now_ms=1_795_378_579_852)
    lines = [line for line in writer.lines("s1", 1_795_378_000_000, 20_000) if len(line) < 1_500]
    for path in REAL_TRANSCRIPTS[:2]:
        lines += [line for line in path.read_bytes().splitlines(keepends=True) if len(line) < 1_500]
    return lines


@settings(max_examples=400)
@given(
    data=mutations(
        st.lists(st.sampled_from(sample_lines()), min_size=1, max_size=3).map(b"".join),
        [*PIECES, *WRONG_PIECES, b'"text":"again",', b'"content":[],', b'"content":[', b'"role":7,', b"NaN"],
    ),
    read_sizes=READ_SIZES,
)
def test_a_real_line_with_bytes_deleted_inserted_or_flipped_is_shown_as_json_reads_it(
    data: bytes, read_sizes: list[int]
) -> None:
    assert previewed(data, read_sizes) == shown(data)


@settings(max_examples=8)
@given(seed=st.integers(0, 2**32), read_sizes=READ_SIZES.filter(lambda sizes: max(sizes) > 50))
def test_megabytes_of_lines_of_all_sizes_are_shown_as_json_reads_them(seed: int, read_sizes: list[int]) -> None:
    rng = random.Random(seed)
    lines = [*ODD_LINES, *BLANKS]
    long_lines = [of_content(json.dumps("é" * rng.choice((20_000, 300_000))).encode()) for _ in range(3)]
    data = b"\n".join(rng.choices(lines, k=2_000) + rng.choices([*long_lines, *lines], k=60))
    assert previewed(data, read_sizes) == shown(data)


def peak_bytes(data: bytes, *, read: bool) -> int:
    """The most memory that it takes to have ``data`` in blocks, and to read its messages."""
    read_into = reader(data, [BLOCK_BYTES])
    tracemalloc.start()
    try:
        blocks, messages = RecordBlocks(), MessageReader()
        while block := blocks.read(read_into):
            for _ in messages.read(block) if read else ():
                pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", [b'"see"', b'"\\ud83d"', b"null", b'"\xff"', b"see"])
def test_a_line_with_a_large_image_costs_no_more_memory_than_to_hold_it(text: bytes) -> None:
    image = b'{"type":"image","data":"%b"}' % (b"iVBORw0KGgo=" * 550_000)
    data = USER + b"\n" + of_content(b'[{"type":"text","text":%b},%b]' % (text, image)) + b"\n" + USER
    assert peak_bytes(data, read=True) < peak_bytes(data, read=False) + BLOCK_BYTES


# Pages


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, ms: float) -> None:
        self.now_s += ms / 1000


@pytest.fixture
def clock() -> Clock:
    return Clock()


def message(size_bytes: int = 2) -> PreviewMessage:
    """A message whose role and content are of ``size_bytes`` together."""
    return PreviewMessage("", msgspec.Raw(b'"' + b"x" * (size_bytes - 2) + b'"'))


def taken(pages: PageBuilder, messages: list[PreviewMessage]) -> list[PreviewPage]:
    """The pages that go out when ``messages`` are read one by one."""
    out: list[PreviewPage] = []
    for one in messages:
        out += pages.add([one])
        if pages.due:
            out.append(pages.take())
    return out


def test_a_page_goes_out_when_it_holds_as_many_messages_as_a_page(clock: Clock) -> None:
    pages = PageBuilder(3, clock)
    assert [len(page.messages) for page in taken(pages, [message()] * 3)] == [3]
    assert not pages.waiting
    assert [len(page.messages) for page in taken(pages, [message()] * 8)] == [3, 3]
    assert len(pages.take().messages) == 2


def test_messages_that_are_read_together_are_cut_into_pages_in_order(clock: Clock) -> None:
    pages = PageBuilder(3, clock)
    messages = [message(number) for number in range(2, 10)]
    found = [*pages.add(messages), pages.take()]
    assert [one for page in found for one in page.messages] == messages
    assert [(page.page, page.offset, page.total_messages) for page in found] == [(1, 0, 3), (2, 3, 6), (3, 6, 8)]


def test_a_page_closes_before_a_message_that_does_not_fit(clock: Clock) -> None:
    pages = PageBuilder(500, clock)
    third = PAGE_BYTES // 3
    assert [len(page.messages) for page in taken(pages, [message(third)] * 7)] == [3, 3]
    exact = PageBuilder(500, clock)
    assert [len(page.messages) for page in taken(exact, [message(PAGE_BYTES // 4)] * 8)] == [4, 4]


def test_a_role_counts_for_the_size_of_a_page(clock: Clock) -> None:
    pages = PageBuilder(500, clock)
    long_role = PreviewMessage("r" * (PAGE_BYTES - 1), msgspec.Raw(b'""'))
    assert len(taken(pages, [long_role] * 3)) == 3


def test_a_message_larger_than_a_page_has_one_of_its_own(clock: Clock) -> None:
    pages = PageBuilder(500, clock)
    messages = [message(), message(PAGE_BYTES + 1), message(), message(3 * PAGE_BYTES), message(3 * PAGE_BYTES)]
    found = [*taken(pages, messages), *([pages.take()] if pages.waiting else [])]
    assert [one.messages for one in found] == [[one] for one in messages]


def test_a_hundred_messages_of_two_megabytes_are_a_hundred_pages(clock: Clock) -> None:
    assert len(taken(PageBuilder(100, clock), [message(2 * MIB)] * 100)) == 100


@given(sizes=st.lists(st.sampled_from([2, 100, 60_000, 140_000, 300_000]), max_size=60), page_size=st.integers(1, 20))
def test_pages_are_never_larger_than_they_may_be_and_lose_nothing(sizes: list[int], page_size: int) -> None:
    pages = PageBuilder(page_size, Clock())
    messages = [message(size) for size in sizes]
    found = list(pages.add(messages))
    if pages.waiting:
        found.append(pages.take())
    assert [one for page in found for one in page.messages] == messages
    for page, behind in zip(found, [*found[1:], None], strict=False):
        size = sum(len(one.content) for one in page.messages)
        assert len(page.messages) == 1 or (len(page.messages) <= page_size and size <= PAGE_BYTES)
        if behind:  # a page that isn't the last is full
            next_size = len(behind.messages[0].content)
            assert len(page.messages) == page_size or size + next_size > PAGE_BYTES
    assert [page.total_messages for page in found] == [page.offset + len(page.messages) for page in found]
    assert pages.total_messages == len(messages)


def test_the_first_page_goes_out_early_since_someone_waits_for_it(clock: Clock) -> None:
    pages = PageBuilder(100, clock)
    assert not taken(pages, [message()])
    clock.advance(FIRST_PAGE_AGE_MS - 1)
    assert not pages.due
    clock.advance(2)
    assert pages.due


def test_a_later_page_goes_out_when_its_first_message_is_old(clock: Clock) -> None:
    pages = PageBuilder(100, clock)
    taken(pages, [message()])
    pages.take()
    clock.advance(1_000)
    assert not pages.due
    assert not taken(pages, [message()])
    clock.advance(PAGE_AGE_MS - 1)
    assert not taken(pages, [message()])
    clock.advance(2)
    assert [len(page.messages) for page in taken(pages, [message()])] == [3]


def test_the_age_of_a_page_counts_from_its_own_first_message_though_others_were_read_with_it(clock: Clock) -> None:
    pages = PageBuilder(2, clock)
    found = []
    for page in pages.add([message()] * 5):
        found.append(page)
        clock.advance(PAGE_AGE_MS - 1)
    assert len(found) == 2
    assert not pages.due
    clock.advance(2)
    assert pages.due


def test_no_page_is_due_without_a_message_however_late_it_is(clock: Clock) -> None:
    pages = PageBuilder(1, clock)
    assert list(pages.add([])) == []
    clock.advance(100_000)
    assert not pages.due
    assert not pages.waiting


def test_no_message_is_held_longer_than_a_session_is() -> None:
    assert FIRST_PAGE_AGE_MS < PAGE_AGE_MS <= 50


# The stream and the eager command


def blocks_of(data: bytes) -> Iterator[Block]:
    blocks = RecordBlocks()
    read_into = reader(data, [BLOCK_BYTES])
    while block := blocks.read(read_into):
        yield block


def stream_of(data: bytes, page_size: int | None = None) -> PreviewStream:
    return PreviewStream(lambda token: blocks_of(data), "main", "s1", page_size)


def sent(stream: PreviewStream, token: CancelToken | None = None) -> Iterator[Event]:
    """The events of ``stream``, each noted as sent."""
    for event in stream.events(token or CancelToken()):
        if event is not None:
            stream.sent(event)
            yield event


def ended(stream: PreviewStream, outcome: Outcome) -> list[tuple[str, Any]]:
    return [(event.method, msgspec.to_builtins(event.payload)) for event in stream.closing(outcome)]


def page_sizes(stream: PreviewStream) -> list[int]:
    return [len(json.loads(encode(event.payload))["messages"]) for event in sent(stream)]


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No page goes out for its age."""
    monkeypatch.setattr(preview, "PageBuilder", lambda page_size: PageBuilder(page_size, Clock()))


@pytest.mark.usefixtures("unhurried")
def test_a_stream_is_its_pages_and_a_terminal_that_counts_them() -> None:
    data = b"\n".join(
        [b'{"type":"session","id":"s1"}', *[of_content(b'"%d"' % number) for number in range(5)], b"torn"]
    )
    stream = stream_of(data, 2)
    events = list(sent(stream))
    assert {event.method for event in events} == {"session-preview:page"}
    assert [json.loads(encode(event.payload)) for event in events] == [
        {
            "page": page,
            "offset": offset,
            "messages": [{"role": "user", "content": str(number)} for number in numbers],
            "totalMessages": offset + len(numbers),
        }
        for page, offset, numbers in ((1, 0, [0, 1]), (2, 2, [2, 3]), (3, 4, [4]))
    ]
    assert ended(stream, Outcome()) == [
        ("session-preview:done", {"totalMessages": 5, "cancelled": False, "skippedLines": 1})
    ]


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (None, DEFAULT_PAGE_MESSAGES),
        (0, 1),
        (-5, 1),
        (1, 1),
        (7, 7),
        (500, 500),
        (501, MAX_PAGE_MESSAGES),
        (10**30, MAX_PAGE_MESSAGES),
    ],
)
def test_the_page_size_is_clamped(asked: int | None, given: int) -> None:
    assert page_sizes(stream_of((USER + b"\n") * 501, asked))[0] == given


def test_the_page_sizes_are_those_of_the_contract() -> None:
    assert (DEFAULT_PAGE_MESSAGES, MAX_PAGE_MESSAGES) == (100, 500)


def test_a_session_without_messages_has_no_pages() -> None:
    stream = stream_of(b'{"type":"session"}\n\n')
    assert page_sizes(stream) == []
    assert ended(stream, Outcome())[-1][1]["totalMessages"] == 0


def test_a_session_that_is_not_there_ends_with_words_that_the_frontend_looks_for() -> None:
    stream = PreviewStream(lambda token: None, "main", "s1")
    with pytest.raises(SessionNotFound, match="no such file") as raised:
        next(stream.events(CancelToken()))
    assert raised.value.kind == "session_not_found"
    assert ended(stream, Outcome(error=raised.value)) == [
        ("sessions:error", {"error": raised.value.message, "kind": "session_not_found"}),
        ("session-preview:done", {"totalMessages": 0, "cancelled": False, "skippedLines": 0}),
    ]
    with pytest.raises(SessionNotFound):
        preview_session(lambda token: None, "main", "s1", CancelToken())


def test_a_cancelled_stream_stops_before_the_next_block_and_says_what_it_has_sent() -> None:
    token = CancelToken()
    stream = stream_of((USER + b"\n") * 20_000, 10)
    events = sent(stream, token)
    next(events)
    token.cancel()
    with pytest.raises(Cancelled):
        list(events)
    (notice, _), (terminal, done) = ended(stream, Outcome(cancelled=True))
    assert (notice, terminal) == ("sessions:cancelled", "session-preview:done")
    assert done["cancelled"]
    assert 10 <= done["totalMessages"] < 20_000


def test_a_cancelled_stream_counts_only_what_was_sent() -> None:
    stream = stream_of((USER + b"\n") * 50, 10)
    made = [event for event in stream.events(CancelToken()) if event is not None]
    assert len(made) == 5
    stream.sent(made[0])
    stream.sent(made[1])
    assert ended(stream, Outcome(cancelled=True))[-1][1]["totalMessages"] == 20


@pytest.mark.usefixtures("unhurried")
def test_an_error_in_the_middle_comes_after_the_full_pages_before_it() -> None:
    def breaks(token: CancelToken) -> Iterator[Block]:
        yield from blocks_of((USER + b"\n") * 25)
        raise SourceUnreadable("input/output error")

    stream = PreviewStream(breaks, "main", "s1", 10)
    events = sent(stream)
    assert len([next(events), next(events)]) == 2
    with pytest.raises(SourceUnreadable):
        next(events)
    assert ended(stream, Outcome(error=SourceUnreadable("input/output error"))) == [
        ("sessions:error", {"error": "input/output error", "kind": "source_unreadable"}),
        ("session-preview:done", {"totalMessages": 20, "cancelled": False, "skippedLines": 0}),
    ]


def test_a_stream_gives_way_while_it_finds_nothing_to_show() -> None:
    stream = stream_of(b'{"type":"custom","data":"%b"}\n' % (b"x" * 2_000) * 300)
    events = list(stream.events(CancelToken()))
    assert len(events) > 10
    assert set(events) == {None}


def test_a_block_without_a_byte_stands_for_a_record_that_was_too_long() -> None:
    def overlong(token: CancelToken) -> Iterator[Block]:
        yield from blocks_of(USER)
        yield Block(bytearray(), 0, 0)
        yield from blocks_of(USER)

    stream = PreviewStream(overlong, "main", "s1")
    assert sum(page_sizes(stream)) == 2
    assert ended(stream, Outcome())[-1][1]["skippedLines"] == 1


def test_the_eager_answer_is_whole_where_much_lies_between_two_messages() -> None:
    other = b'{"type":"custom","data":"%b"}\n' % (b"x" * 2_000) * 50
    data = other + USER + b"\n" + other + USER + b"\n" + other
    answer = preview_session(lambda token: blocks_of(data), "main", "s1", CancelToken())
    assert json.loads(encode(answer)) == [{"role": "user", "content": "hi"}] * 2


@pytest.mark.parametrize("count", [0, 1, 2, 3_000])
def test_the_eager_answer_has_the_same_messages_as_the_stream(count: int) -> None:
    lines = random.Random(3).choices(ODD_LINES, k=count)
    data = b"\n".join(lines)
    answer = encode(preview_session(lambda token: blocks_of(data), "main", "s1", CancelToken()))
    assert "\u2028" not in answer.decode()
    assert [(one["role"], one["content"]) for one in json.loads(answer)] == shown(data)[0]


def test_an_eager_answer_that_grows_too_large_is_given_up_early_for_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "MAX_REPLY_BYTES", MIB)
    taken_blocks = 0

    def endless(token: CancelToken) -> Iterator[Block]:
        nonlocal taken_blocks
        while True:
            taken_blocks += 1
            yield from blocks_of(of_content(b'"%b"' % (b"x" * 100 * KIB)))

    with pytest.raises(ReplyTooLarge, match="preview_session_stream") as raised:
        preview_session(endless, "main", "s1", CancelToken(), stream_instead="remote_preview_session_stream")
    assert raised.value.details == {"streamInstead": "remote_preview_session_stream"}
    assert taken_blocks == 11


def test_a_cancelled_eager_command_stops_before_the_next_block() -> None:
    token = CancelToken()

    def endless(asked: CancelToken) -> Iterator[Block]:
        while True:
            yield from blocks_of(USER)
            asked.cancel()

    with pytest.raises(Cancelled):
        preview_session(endless, "main", "s1", token)
