"""Read the messages of a transcript as ``{role, content}``, and cut them into pages.

Content goes through as the JSON text that it is: to make a string of it and text again costs more than all the rest.
As in ``transcript``, each line is decoded by itself and msgspec checks its whole grammar; what it refuses and plain
``json`` would take goes a slower way to the same answer, tested against ``json`` line by line.
"""

from __future__ import annotations

import re
import time
from codecs import utf_8_decode
from collections.abc import Callable, Iterator
from io import BytesIO

import msgspec

from sidecar.core.blocks import Block
from sidecar.core.transcript import REJECTED
from sidecar.limits import (
    BLOCK_BYTES,
    CONTENT_KEY_WITHIN_BYTES,
    DECODE_BYTES,
    FIRST_PAGE_AGE_MS,
    PAGE_AGE_MS,
    PAGE_BYTES,
    UTF8_CHECK_BYTES,
)
from sidecar.text import mend_surrogates

_UNKNOWN_ROLE = "unknown"
_EMPTY = b'""'
_QUOTE, _BRACKET, _BRACE = b'"[{'
_LIST_AHEAD = b'"content":['
_NOT_BLANK = re.compile(rb"[^ \t\r\n]")


class PreviewMessage(msgspec.Struct, gc=False):
    """A message as the wire shows it; ``content`` is the JSON text of a string, in valid UTF-8."""

    role: str
    content: msgspec.Raw


class PreviewPage(msgspec.Struct, rename="camel"):
    """The payload of ``session-preview:page``: ``offset`` messages were on the pages before."""

    page: int
    offset: int
    messages: list[PreviewMessage]
    total_messages: int


class _ContentBlock(msgspec.Struct, gc=False):
    text: msgspec.Raw = msgspec.Raw()


class _ListMessage(msgspec.Struct, gc=False):
    role: str = _UNKNOWN_ROLE
    content: list[_ContentBlock] = []


class _ListEntry(msgspec.Struct, gc=False):
    """An entry whose content is a list of blocks, as most are."""

    type: str = ""
    message: _ListMessage = msgspec.field(default_factory=_ListMessage)


class _Message(msgspec.Struct, gc=False):
    role: str = _UNKNOWN_ROLE
    content: msgspec.Raw = msgspec.Raw(_EMPTY)


class _Entry(msgspec.Struct, gc=False):
    """An entry whose content may be anything."""

    type: str = ""
    message: _Message = msgspec.field(default_factory=_Message)


class _RawMessage(msgspec.Struct, gc=False):
    role: msgspec.Raw = msgspec.Raw()
    content: msgspec.Raw = msgspec.Raw(_EMPTY)


class _RawEntry(msgspec.Struct, gc=False):
    """An entry whose fields may be anything."""

    type: msgspec.Raw = msgspec.Raw()
    message: msgspec.Raw = msgspec.Raw()


_decode_list_entry = msgspec.json.Decoder(_ListEntry).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode
_decode_raw_entry = msgspec.json.Decoder(_RawEntry).decode
_decode_raw_message = msgspec.json.Decoder(_RawMessage).decode
_decode_blocks = msgspec.json.Decoder(list[_ContentBlock]).decode
_decode_values = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_block = msgspec.json.Decoder(_ContentBlock).decode
_decode_text = msgspec.json.Decoder(str).decode

_Found = tuple[str, bytes]
"""Role and content of a message; the content as JSON, which may still hold invalid UTF-8."""


class MessageReader:
    """Reads the messages of one transcript, fed with blocks of whole lines in file order.

    ``skipped_lines`` counts, as ``Tally`` does, lines that are not a JSON object; blank ones count as nothing.
    """

    def __init__(self) -> None:
        self.skipped_lines = 0

    def read(self, block: Block) -> Iterator[list[PreviewMessage]]:
        """The messages of ``block``, those of a few lines at a time; they outlive it.

        A block without a byte in it stands for a record that was passed over as too long.
        """
        buffer, start, end = block
        if start == end:
            self.skipped_lines += 1
        elif end - start > BLOCK_BYTES:
            yield from self._read_long_lines(block)
        else:
            with memoryview(buffer) as view:
                source = BytesIO(view[start:end])
            while lines := source.readlines(DECODE_BYTES):
                yield self._read_lines(lines)

    def _read_lines(self, lines: list[bytes]) -> list[PreviewMessage]:
        roles, contents = [], []
        for line in lines:
            try:
                found = _find_listed(line) if line.find(_LIST_AHEAD, 0, CONTENT_KEY_WITHIN_BYTES) >= 0 else _find(line)
            except REJECTED:
                found = self._find_in_refused(bytearray(line), 0, len(line))
            if found is not None:
                role, content = found
                roles.append(role)
                contents.append(content)
        return _messages(roles, contents)

    def _read_long_lines(self, block: Block) -> Iterator[list[PreviewMessage]]:
        """Decode lines in place: copies of one that is 100 MB long would cost more than the line."""
        buffer, start, end = block
        while start < end:
            line_end = buffer.find(b"\n", start, end) + 1 or end
            listed = buffer.find(_LIST_AHEAD, start, min(start + CONTENT_KEY_WITHIN_BYTES, line_end)) >= 0
            try:
                with memoryview(buffer) as view, view[start:line_end] as line:
                    found = _find_listed(line) if listed else _find(line)
            except REJECTED:
                found = self._find_in_refused(buffer, start, line_end)
            yield _messages([found[0]], [found[1]]) if found else []
            start = line_end

    def _find_in_refused(self, buffer: bytearray, start: int, end: int) -> _Found | None:
        """The message on a line that msgspec refused; a line without an entry is counted, unless it is blank."""
        mend_surrogates(buffer, start, end)
        try:
            with memoryview(buffer) as view, view[start:end] as line:
                return _find_loosely(line)
        except REJECTED:
            if _NOT_BLANK.search(buffer, start, end):
                self.skipped_lines += 1
            return None


# Raw fields are views of the line, and a buffer with a view open can't grow: none outlives the functions below.


def _find_listed(line: bytes | memoryview) -> _Found | None:
    """As ``_find``, where the content looks like a list, which need not be read twice then; refuses any other."""
    entry = _decode_list_entry(line)
    if entry.type != "message":
        return None
    message = entry.message
    return message.role, _joined_texts(message.content)


def _find(line: bytes | memoryview) -> _Found | None:
    """The message on a line, ``None`` if there is another entry. Refuses fields of unexpected types."""
    entry = _decode_entry(line)
    if entry.type != "message":
        return None
    message = entry.message
    return message.role, _text_of(message.content)


def _find_loosely(line: memoryview) -> _Found | None:
    """As ``_find``, whatever the types of the fields; refuses only what is no object."""
    entry = _decode_raw_entry(line)
    if _string(entry.type) != "message":
        return None
    try:
        message = _decode_raw_message(entry.message)
    except REJECTED:
        return _UNKNOWN_ROLE, _EMPTY
    role = _string(message.role)
    return _UNKNOWN_ROLE if role is None else role, _text_of(message.content)


def _text_of(content: msgspec.Raw) -> bytes:
    """The text of a content of any type, as JSON."""
    first = _first_byte(content)
    if first == _QUOTE:
        return bytes(content)
    if first != _BRACKET:
        return _EMPTY
    try:
        return _joined_texts(_decode_blocks(content))
    except REJECTED:  # one of them is no object
        return _joined_texts(
            [_decode_block(value) for value in _decode_values(content) if _first_byte(value) == _BRACE]
        )


def _joined_texts(blocks: list[_ContentBlock]) -> bytes:
    texts = []
    for block in blocks:
        if block.text:
            text = b"" + block.text  # a copy, sooner made than by bytes()
            if text[0] == _QUOTE:
                texts.append(text)
    if len(texts) == 1:
        return texts[0]
    return b'"%b"' % b"\\n".join([text[1:-1] for text in texts])


def _string(raw: msgspec.Raw) -> str | None:
    """The string that ``raw`` spells, ``None`` for another type."""
    return _decode_text(_mend_utf8(bytes(raw))) if raw and _first_byte(raw) == _QUOTE else None


def _first_byte(raw: msgspec.Raw) -> int:
    return memoryview(raw)[0]


def _messages(roles: list[str], contents: list[bytes]) -> list[PreviewMessage]:
    text = b"".join(contents)
    # One text is checked sooner than its parts; they begin and end in quotes, so none can complete another's character.
    if not (text.isascii() or _is_utf8(text)):
        contents = list(map(_mend_utf8, contents))
    return list(map(PreviewMessage, roles, map(msgspec.Raw, contents)))


def _is_utf8(text: bytes) -> bool:
    """Whether ``text`` is valid, which msgspec doesn't ask of strings that it hands on as they are."""
    try:
        if len(text) <= UTF8_CHECK_BYTES:
            text.decode()
        else:
            for _ in _decoded(text, "strict"):
                pass
    except UnicodeDecodeError:
        return False
    return True


def _mend_utf8(text: bytes) -> bytes:
    """``text`` with U+FFFD for what is not UTF-8 in it."""
    return b"".join([piece.encode() for piece in _decoded(text, "replace")])


def _decoded(text: bytes, errors: str) -> Iterator[str]:
    """``text`` in pieces, since a character may take four times as much memory as a byte."""
    start = 0
    with memoryview(text) as view:
        while start < len(view):
            end = start + UTF8_CHECK_BYTES
            piece, count = utf_8_decode(view[start:end], errors, end >= len(view))
            yield piece
            start += count


class PageBuilder:
    """Gathers messages into pages of at most ``page_size`` and about ``PAGE_BYTES``, none held over ``PAGE_AGE_MS``.

    A message larger than ``PAGE_BYTES`` has a page of its own. The first page closes sooner (``FIRST_PAGE_AGE_MS``),
    since someone waits for it.
    """

    def __init__(self, page_size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._page_size = page_size
        self._clock = clock
        self._age_s = FIRST_PAGE_AGE_MS / 1000
        self._due_at_s = 0.0
        self._messages: list[PreviewMessage] = []
        self._size_bytes = 0
        self._pages = 0
        self.total_messages = 0

    def add(self, messages: list[PreviewMessage]) -> Iterator[PreviewPage]:
        """Add messages that were read at about the same time; gives the pages that are full before the last one."""
        if not self._messages:
            self._due_at_s = self._clock() + self._age_s
        size_bytes = self._size_bytes
        for message in messages:
            message_bytes = len(message.role) + len(message.content)
            size_bytes += message_bytes
            if (size_bytes > PAGE_BYTES and self._messages) or len(self._messages) == self._page_size:
                yield self.take()
                size_bytes = message_bytes
            self._messages.append(message)
        self._size_bytes = size_bytes

    @property
    def waiting(self) -> bool:
        """Whether there are messages that no page was made of yet."""
        return bool(self._messages)

    @property
    def due(self) -> bool:
        """Whether a page should go out now: ask after each ``add``, also one of nothing."""
        return self.waiting and (
            len(self._messages) == self._page_size or self._size_bytes >= PAGE_BYTES or self._clock() >= self._due_at_s
        )

    def take(self) -> PreviewPage:
        """The messages gathered since the last page."""
        messages, self._messages = self._messages, []
        self._size_bytes = 0
        self._age_s = PAGE_AGE_MS / 1000
        self._due_at_s = self._clock() + self._age_s
        self._pages += 1
        offset = self.total_messages
        self.total_messages += len(messages)
        return PreviewPage(self._pages, offset, messages, self.total_messages)
