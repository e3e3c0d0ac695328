"""One line of any length, read in place."""

from __future__ import annotations

import json
import re
from typing import Any, Container, NamedTuple, Tuple

from sidecar.remote.python.blocks import Tick
from sidecar.remote.python.limits import MAX_DEPTH, MAX_TEXT_BYTES, STRING_BYTES

_SPACE = re.compile(rb"[ \t\r\n]*")
_SCALAR = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")
# Bounded, since each repetition of a group takes memory until the end of the match.
_IN_STRING = re.compile(rb'(?:[^"\\\x00-\x1f]+|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})){0,1000}')
_QUOTE, _COMMA, _COLON, _BRACE, _END_BRACE, _BRACKET, _END_BRACKET = b'",:{}[]'
_LONGEST_ESCAPE = 6

Span = Tuple[int, int]

# What LongLine calls the objects and arrays that matter, and the fields in them whose places it keeps.
_INNER = {
    ("", "", _BRACE): "entry",
    ("entry", "message", _BRACE): "message",
    ("message", "content", _BRACKET): "content",
    ("content", "", _BRACE): "block",
}
_WANTED: dict[str, Container[str]] = {"entry": {"type", "id", "timestamp"}, "message": {"role", "content"}}


class _Open(NamedTuple):
    """An array or object that is being read, and which value it is in the one around it."""

    start: int
    closing: int
    where: str
    name: str


class _NotJson(Exception):
    pass


class LongLine:
    """Finds the fields that matter in one line of any length without building the others, or copying any.

    ``fields`` are the places of the values of an entry's ``type``, ``id`` and ``timestamp`` and its message's ``role``
    and ``content``; ``texts`` those of the texts of a content's objects, ``None`` where that is no string. Of two
    fields of one name the last one counts.
    """

    def __init__(self, buffer: bytes | bytearray, start: int, end: int, tick: Tick) -> None:
        self.fields: dict[str, Span] = {}
        self.texts: list[Span | None] = []
        self._buffer = buffer
        self._start = start
        self._end = end
        self._tick = tick
        self._open: list[_Open] = []

    def is_entry(self) -> bool:
        """Read the line; False if it is not a JSON object."""
        try:
            self._read()
        except _NotJson:
            return False
        return True

    def is_blank(self) -> bool:
        """Whether there is nothing but white space."""
        return self._after_space(self._start) == self._end

    def entry(self) -> dict[str, Any]:
        """What ``parse_entry`` gives, as far as it matters."""
        entry: dict[str, Any] = {name: self.text(name) for name in ("type", "id", "timestamp")}
        entry["message"] = {"role": self.text("role")}
        return entry

    def text(self, name: str) -> str | None:
        """What a field says, if it is a string of some length."""
        start, end = self.fields.get(name, (0, 0))
        return self._decoded(start, end) if 0 < end - start <= MAX_TEXT_BYTES else None

    def shown_bytes(self) -> int:
        """About how long ``shown`` is."""
        spans = [*self.fields.values(), *filter(None, self.texts)]
        return sum(end - start for start, end in spans if self._buffer[start] == _QUOTE)

    def shown(self) -> bytes:
        """The line with only what a preview shows of it."""
        fields = b",".join(self._string(b"role", self.fields.get("role")) + self._content())
        line = b",".join([*self._string(b"type", self.fields.get("type")), b'"message":{%b}' % fields])
        return b"{%b}" % line

    def _content(self) -> list[bytes]:
        span = self.fields.get("content")
        if span is None or self._buffer[span[0]] != _BRACKET:
            return self._string(b"content", span)
        return [b'"content":[%b]' % b",".join([b"{%b}" % b"".join(self._string(b"text", text)) for text in self.texts])]

    def _string(self, name: bytes, span: Span | None) -> list[bytes]:
        if span is None or self._buffer[span[0]] != _QUOTE:
            return []
        return [b'"%b":%b' % (name, bytes(self._buffer[span[0] : span[1]]))]

    def _decoded(self, start: int, end: int) -> str | None:
        if self._buffer[start] != _QUOTE:
            return None
        return str(json.loads(self._buffer[start:end].decode("utf-8", "replace")))

    def _read(self) -> None:
        """Go from one value to the next, in and out of arrays and objects."""
        place, where, name = self._after_space(self._start), "", ""
        if self._byte(place) != _BRACE:
            raise _NotJson
        while True:
            start = self._after_space(place)
            first = self._byte(start)
            self._forget(where, name, first)
            if first in (_BRACE, _BRACKET):
                closing = self._go_in(start, where, name)
                where = _INNER.get((where, name, first), "")
                place = self._after_space(start + 1)
                if self._byte(place) != closing:
                    place, name = self._to_value(place, where)
                    continue
            else:
                place = self._after_string(start + 1) if first == _QUOTE else self._after_scalar(start)
                self._note(where, name, start, place)
            place, where = self._go_out(place, where)
            if not self._open:
                break
            if self._byte(place) != _COMMA:
                raise _NotJson
            place, name = self._to_value(self._after_space(place + 1), where)
        if place != self._end:
            raise _NotJson

    def _go_in(self, start: int, where: str, name: str) -> int:
        if len(self._open) == MAX_DEPTH:
            raise _NotJson
        closing = _END_BRACE if self._buffer[start] == _BRACE else _END_BRACKET
        self._open.append(_Open(start, closing, where, name))
        return closing

    def _go_out(self, place: int, where: str) -> tuple[int, str]:
        """Leave the arrays and objects that end at ``place``."""
        self._tick()
        place = self._after_space(place)
        while self._open and self._byte(place) == self._open[-1].closing:
            start, _, where, name = self._open.pop()
            self._note(where, name, start, place + 1)
            place = self._after_space(place + 1)
        return place, where

    def _to_value(self, place: int, where: str) -> tuple[int, str]:
        """Pass over the key, if this is an object; gives what it says, if that may matter."""
        if self._open[-1].closing == _END_BRACKET:
            return place, ""
        if self._byte(place) != _QUOTE:
            raise _NotJson
        end = self._after_string(place + 1)
        name = ""
        if where and end - place <= _LONGEST_ESCAPE * len('"timestamp"'):
            name = self._decoded(place, end) or ""
        end = self._after_space(end)
        if self._byte(end) != _COLON:
            raise _NotJson
        return end + 1, name

    def _forget(self, where: str, name: str, first: int) -> None:
        """Drop what is known of a value that the one which begins replaces."""
        if where == "entry" and name == "message":
            self.fields.pop("role", None)
            self.fields.pop("content", None)
            self.texts.clear()
        elif where == "message" and name == "content":
            self.texts.clear()
        elif where == "content" and first == _BRACE:
            self.texts.append(None)

    def _note(self, where: str, name: str, start: int, end: int) -> None:
        if name in _WANTED.get(where, ()):
            self.fields[name] = start, end
        elif where == "block" and name == "text":
            self.texts[-1] = (start, end) if self._buffer[start] == _QUOTE else None

    def _byte(self, place: int) -> int:
        return self._buffer[place] if place < self._end else -1

    def _after_space(self, place: int) -> int:
        match = _SPACE.match(self._buffer, place, self._end)
        assert match
        return match.end()

    def _after_scalar(self, place: int) -> int:
        match = _SCALAR.match(self._buffer, place, self._end)
        if not match:
            raise _NotJson
        return match.end()

    def _after_string(self, place: int) -> int:
        while True:
            match = _IN_STRING.match(self._buffer, place, min(self._end, place + STRING_BYTES))
            assert match
            if self._byte(match.end()) == _QUOTE:
                return match.end() + 1
            if match.end() == place:
                raise _NotJson
            place = match.end()
            self._tick()
