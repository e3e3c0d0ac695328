"""How JSON is parsed, and text taken out of it, whatever it is of."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from sidecar.remote.python.text import mended


def refuse(constant: str) -> NoReturn:
    """Raise for what Python's parser takes though it is not JSON: ``NaN``, say."""
    raise ValueError(f"{constant} is not JSON")


# What numbers say doesn't matter, and Python refuses to convert long ones.
scan = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=refuse).scan_once  # type: ignore[attr-defined]
UNREADABLE = (ValueError, StopIteration, RecursionError)
"""What the parser raises where there is no JSON."""


def text_in(fields: dict[str, Any], name: str) -> str | None:
    """A field that is a string, with U+FFFD for each half of a surrogate pair."""
    value = fields.get(name)
    return mended(value) if type(value) is str else None
