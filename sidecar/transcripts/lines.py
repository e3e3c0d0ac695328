"""The lines of a transcript: ``protocol/transcripts/README.md`` says what each kind means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

ANY_CHUNKS = "..."
"""The text of a ``<`` line that stands for any number of lines with a part of a stream's result."""

Kind = Literal["#", "$", ">", "<"]


class Line(NamedTuple):
    """A line of a transcript: what it is, and its text."""

    kind: Kind
    text: str

    def __str__(self) -> str:
        return self.text if self.kind == "#" else f"{self.kind} {self.text}"


def read_transcript(path: Path) -> list[Line]:
    """The lines of a file. ``OSError`` if it can't be read, ``ValueError`` if it is no transcript."""
    lines = [_parse(text, f"{path}:{number}") for number, text in enumerate(_texts(path), 1)]
    acts = [line for line in lines if line.kind != "#"]
    for line, following in zip(acts, [*acts[1:], None], strict=True):
        if line == Line("<", ANY_CHUNKS) and (
            following is None or following.kind != "<" or following.text == ANY_CHUNKS
        ):
            raise ValueError(f"{path}: another '<' line must follow '< ...'")
    return lines


def write_transcript(path: Path, lines: Sequence[Line]) -> None:
    """Replace the file by these lines."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def as_text(value: Any) -> str:
    """A JSON value as a transcript has it: on one line, without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _texts(path: Path) -> list[str]:
    # Not as text, and not splitlines: both end a line at characters that may stand in one.
    return path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")


def _parse(text: str, place: str) -> Line:
    if not text or text.startswith("#"):
        return Line("#", text)
    for kind in ("$", ">", "<"):
        if text.startswith(f"{kind} "):
            return Line(kind, text[2:])
    raise ValueError(f"{place}: not a line of a transcript: {text[:80]}")
