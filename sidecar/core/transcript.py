"""Count what a transcript holds: its messages, by role, and when the last one was written.

Each line is decoded by itself, so that neither a record torn by a line break nor two glued together can pass for what
it is not. msgspec checks the whole grammar and builds only the fields that are counted. What it refuses and plain
``json`` would take (half a surrogate pair, a field of an unexpected type, invalid UTF-8 in a field that is read) takes
a slower way to the same answer, tested against ``json`` line by line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from json import loads
from typing import Any

import msgspec

from sidecar.core.blocks import Block
from sidecar.limits import BLOCK_BYTES, DECODE_BYTES, MAX_TEXT_CHARS, MAX_TIMESTAMP_CHARS
from sidecar.text import mend_surrogates

_QUOTE = 0x22
_NOT_BLANK = re.compile(rb"[^ \t\r\n]")
# The longest spelling of a text that matters: each character as \uXXXX, and the quotes.
_LONGEST_TEXT_BYTES = 6 * MAX_TEXT_CHARS + 2

REJECTED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for text that it doesn't take; nested deeper than the interpreter's limit counts as that."""


class _Message(msgspec.Struct, gc=False):
    role: str | None = None


class Entry(msgspec.Struct, gc=False):
    """One line of a transcript, as far as it is counted; a field is ``None`` where it is absent or no string."""

    type: str | None = None
    id: str | None = None
    timestamp: str | None = None
    message: _Message | None = None


class _RawMessage(msgspec.Struct, gc=False):
    role: msgspec.Raw = msgspec.Raw()


class _RawEntry(msgspec.Struct, gc=False):
    type: msgspec.Raw = msgspec.Raw()
    id: msgspec.Raw = msgspec.Raw()
    timestamp: msgspec.Raw = msgspec.Raw()
    message: msgspec.Raw = msgspec.Raw()


_decode_entry = msgspec.json.Decoder(Entry).decode
_decode_raw_entry = msgspec.json.Decoder(_RawEntry).decode
_decode_raw_message = msgspec.json.Decoder(_RawMessage).decode


Counts = tuple[int, int, int, str | None, str | None, bool, int]
"""What a ``Tally`` holds, in the order of ``Tally.add_counts``."""


class Tally:
    """The counts of one transcript, fed with blocks of whole lines in file order.

    ``skipped_lines`` counts lines that are not a JSON object; blank ones count as nothing. ``last_activity`` is the
    outer timestamp of the last message that has one. ``header_id`` is the id of the first entry if that is a header.
    """

    __slots__ = ("_begun", "assistants", "header_id", "last_activity", "messages", "skipped_lines", "users")

    def __init__(self) -> None:
        self.messages = 0
        self.users = 0
        self.assistants = 0
        self.last_activity: str | None = None
        self.skipped_lines = 0
        self.header_id: str | None = None
        self._begun = False

    def add(self, block: Block) -> None:
        """Count the lines of ``block``; only the last one of a transcript may lack its line feed."""
        buffer, start, end = block
        if end - start > BLOCK_BYTES:
            self._add_long_lines(block)
            return
        with memoryview(buffer) as view:
            source = BytesIO(view[start:end])
        while lines := source.readlines(DECODE_BYTES):
            self._add_lines(lines)

    def add_whole(self, text: bytes) -> None:
        """Count a whole transcript that is at most one block long."""
        self._add_lines(BytesIO(text).readlines())

    def add_counts(
        self,
        messages: int,
        users: int,
        assistants: int,
        last_activity: str | None,
        header_id: str | None,
        begun: bool,
        skipped_lines: int,
    ) -> None:
        """Add what another tally counted of the lines that come next; ``begun``: whether an entry was among them."""
        self.messages += messages
        self.users += users
        self.assistants += assistants
        self.skipped_lines += skipped_lines
        if last_activity is not None:
            self.last_activity = last_activity
        if begun and not self._begun:
            self._begun = True
            self.header_id = header_id

    def counts(self) -> Counts:
        """What ``add_counts`` takes: a tally that is given them goes on where this one stands."""
        return (
            self.messages,
            self.users,
            self.assistants,
            self.last_activity,
            self.header_id,
            self._begun,
            self.skipped_lines,
        )

    def _add_lines(self, lines: list[bytes]) -> None:
        entries: list[Entry] = []
        rest = map(_decode_entry, lines)
        refused = 0
        while True:
            try:
                entries.extend(rest)
            except REJECTED:
                # What came before the refused line is in the list already, and the iterator stands behind it.
                entry = self._decode_refused(bytearray(lines[len(entries) + refused]))
                if entry is None:
                    refused += 1
                else:
                    entries.append(entry)
            else:
                break
        self._count(entries)

    def _add_long_lines(self, block: Block) -> None:
        """Decode lines in place: copies of one that is 100 MB long would cost more than the line."""
        buffer, start, end = block
        while start < end:
            line_end = buffer.find(b"\n", start, end) + 1 or end
            try:
                with memoryview(buffer) as view, view[start:line_end] as line:
                    entry: Entry | None = _decode_entry(line)
            except REJECTED:
                entry = self._decode_refused(buffer, start, line_end)
            if entry is not None:
                self._count([entry])
            start = line_end

    def _count(self, entries: list[Entry]) -> None:
        if not self._begun and entries:
            self._begun = True
            if entries[0].type == "session":
                self.header_id = entries[0].id and entries[0].id[:MAX_TEXT_CHARS]
        roles = [entry.message and entry.message.role for entry in entries if entry.type == "message"]
        if not roles:
            return
        self.messages += len(roles)
        self.users += roles.count("user")
        self.assistants += roles.count("assistant")
        for entry in reversed(entries):
            if entry.type == "message" and entry.timestamp is not None and len(entry.timestamp) <= MAX_TIMESTAMP_CHARS:
                self.last_activity = entry.timestamp
                break

    def _decode_refused(self, buffer: bytearray, start: int = 0, end: int | None = None) -> Entry | None:
        """The entry of a line that msgspec refused; ``None`` if it holds none, counted unless it is blank."""
        end = len(buffer) if end is None else end
        entry = _decode_loosely(buffer, start, end)
        if entry is None and _NOT_BLANK.search(buffer, start, end):
            self.skipped_lines += 1
        return entry


def _decode_loosely(buffer: bytearray, start: int, end: int) -> Entry | None:
    """What a line holds whatever the types of its fields; ``None`` if it is no object. Mends surrogates in place."""
    mend_surrogates(buffer, start, end)
    with memoryview(buffer) as view, view[start:end] as line:
        try:
            raw = _decode_raw_entry(line)
        except REJECTED:
            return None
        try:
            role = _text(_decode_raw_message(raw.message).role)
        except REJECTED:
            role = None
        entry = Entry(_text(raw.type), _text(raw.id), _text(raw.timestamp), _Message(role))
        # Raw fields are views of the line, and a buffer with a view open can't grow.
        del raw
    return entry


def _text(raw: msgspec.Raw) -> str | None:
    """The string that ``raw`` spells, invalid UTF-8 replaced; ``None`` for another type, or one too long to matter."""
    view = memoryview(raw)
    if not 0 < len(view) <= _LONGEST_TEXT_BYTES or view[0] != _QUOTE:
        return None
    value: Any = loads(bytes(view).decode("utf-8", "replace"))
    return str(value)


def entry_ids(block: Block) -> Iterator[str | None]:
    """The id of each entry in ``block`` but headers; ``None`` for a line that is no entry, or one without an id."""
    buffer, start, end = block
    while start < end:
        line_end = buffer.find(b"\n", start, end) + 1 or end
        line = buffer[start:line_end]
        start = line_end
        if not _NOT_BLANK.search(line):
            continue
        try:
            entry: Entry | None = _decode_entry(line)
        except REJECTED:
            entry = _decode_loosely(line, 0, len(line))
        if entry is None:
            yield None
        elif entry.type != "session":
            yield entry.id
