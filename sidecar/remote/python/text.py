"""Names and text: the twin of ``sidecar/text.py``.

Names and paths are ``str`` of UTF-8 with ``surrogateescape``, whatever the locale, and ``bytes`` where the system gets
them.
"""

from __future__ import annotations

import re

from sidecar.remote.python.limits import MAX_NAME_BYTES

_INVALID = "\ufffd"
_ESCAPED_BYTE = re.compile(f"{_INVALID}([89a-f][0-9a-f])")
_TO_ESCAPE = re.compile(f"[\udc80-\udcff]|{_INVALID}(?=[89a-f][0-9a-f])")
INVALID_BYTE = re.compile("[\udc80-\udcff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def raw(name: str) -> bytes:
    """A name or path as the system has it."""
    return name.encode("utf-8", "surrogateescape")


def spelled(name: bytes) -> str:
    """A name or path as it is held here."""
    return name.decode("utf-8", "surrogateescape")


def wire_name(name: str) -> str:
    """A name as it appears on the wire, as ``sidecar/text.py`` says."""
    return name if name.isascii() else _TO_ESCAPE.sub(_escape, name)


def file_name(name: str) -> str:
    """The name of a wire name; ``UnicodeError`` if it is none."""
    pieces = enumerate(_ESCAPED_BYTE.split(name))
    return spelled(b"".join(bytes.fromhex(piece) if number % 2 else piece.encode() for number, piece in pieces))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    escaped = bytes([code - 0xDC00]) if match[0] != _INVALID else match[0].encode()
    return "".join(f"{_INVALID}{byte:02x}" for byte in escaped)


def mended(text: str) -> str:
    """``text`` with U+FFFD for each half of a surrogate pair."""
    return text if text.isascii() else _SURROGATE.sub(_INVALID, text)


def objection_to_name(name: str) -> str | None:
    """Why a wire name can't be that of a file."""
    if name in {"", ".", ".."} or any(character in name for character in "/\\\0"):
        return "not a valid name"
    try:
        return "the name is too long" if len(raw(file_name(name))) > MAX_NAME_BYTES else None
    except UnicodeError:
        return "not a valid name"


def without_ending(name: str, ending: str) -> str:
    """``name`` without ``ending``, if it ends so."""
    return name[: -len(ending)] if ending and name.endswith(ending) else name
