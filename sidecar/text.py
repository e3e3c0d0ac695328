"""Text that may go on the wire: names of any bytes made printable and back, JSON with half a surrogate pair mended."""

from __future__ import annotations

import os
import re

_INVALID = "\ufffd"
_ESCAPED_BYTE = re.compile(f"{_INVALID}([89a-f][0-9a-f])")
_TO_ESCAPE = re.compile(f"[\udc80-\udcff]|{_INVALID}(?=[89a-f][0-9a-f])")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_BACKSLASH = 0x5C


def wire_name(name: str | bytes) -> str:
    """A file name or path, as ``os`` functions take it, as it appears on the wire: itself, if it is UTF-8.

    Each byte that is not becomes U+FFFD and two hex digits ("\\xff" -> "�ff"), and so that no two names look alike,
    so do the bytes of a real U+FFFD which two such digits follow. ``file_name`` takes it back exactly.
    """
    if isinstance(name, str) and name.isascii():
        return name
    spelled = os.fsencode(name).decode("utf-8", "surrogateescape")
    return spelled if spelled.isascii() else _TO_ESCAPE.sub(_escape, spelled)


def file_name(name: str) -> str:
    """The file name, as ``os`` functions take it, of a wire name."""
    if _INVALID not in name:
        return name
    # re.split puts what the group matched, two hex digits, at the odd places.
    pieces = enumerate(_ESCAPED_BYTE.split(name))
    return os.fsdecode(b"".join(bytes.fromhex(piece) if number % 2 else piece.encode() for number, piece in pieces))


def mend_surrogates(text: bytearray, start: int, end: int) -> bool:
    """Turn each lone surrogate escape of the JSON in ``text[start:end]`` into ``\\ufffd``, in place.

    True if there was one. Node writes one for an emoji that was cut in half; Rust's parsers and ours refuse it.
    """
    mended = False
    position = start
    while match := _SURROGATE.search(text, position, end):
        position = match.end()
        if not _is_escape(text, match.start(), start):
            position = match.start() + 2
            continue
        if _is_high(text, match):
            low = _SURROGATE.match(text, match.end(), end)
            if low and not _is_high(text, low):
                position = low.end()
                continue
        at = match.start()
        # A match keeps the bytearray from being resized, not from being written: the new text is of the same length.
        text[at : at + 6] = b"\\ufffd"
        mended = True
    return mended


def _is_high(text: bytearray, match: re.Match[bytes]) -> bool:
    return text[match.start() + 3] in b"89abAB"


def _is_escape(text: bytearray, at: int, start: int) -> bool:
    """Whether the backslash at ``at`` begins an escape: an even number of backslashes stands before it."""
    before = at
    while before > start and text[before - 1] == _BACKSLASH:
        before -= 1
    return (at - before) % 2 == 0


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    escaped = bytes([code - 0xDC00]) if match[0] != _INVALID else match[0].encode()
    return "".join(f"{_INVALID}{byte:02x}" for byte in escaped)
