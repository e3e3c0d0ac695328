"""The entries on lines: what ``sidecar/core/transcript.py`` decodes, as far as it matters."""

from __future__ import annotations

from typing import Any, Iterator

from sidecar.remote.python.blocks import Lines, Tick
from sidecar.remote.python.json_values import UNREADABLE, scan
from sidecar.remote.python.limits import BLOCK_BYTES, LONG_LINE_BYTES
from sidecar.remote.python.long_line import LongLine

_BLANKS = " \t\r\n"


def parse_entry(line: str) -> dict[str, Any] | None:
    """The object that is all of ``line``, with its numbers replaced by others; ``None`` if there is none."""
    try:
        entry, end = scan(line, 0)
    except UNREADABLE:
        return None
    return entry if end == len(line) and type(entry) is dict else None


def entries(lines: Lines, tick: Tick) -> Iterator[dict[str, Any] | None]:
    """The entry on each line that is not blank, as far as it matters; ``None`` for a line that holds none."""
    buffer, start, end = lines
    if end - start <= BLOCK_BYTES:
        yield from _entries_of_text(buffer, start, end)
        return
    while start < end:
        tick()
        line_end = buffer.find(b"\n", start, end) + 1 or end
        if line_end - start <= LONG_LINE_BYTES:
            yield from _entries_of_text(buffer, start, line_end)
        else:
            line = LongLine(buffer, start, line_end, tick)
            if not line.is_blank():
                yield line.entry() if line.is_entry() else None
        start = line_end


def _entries_of_text(buffer: bytes | bytearray, start: int, end: int) -> Iterator[dict[str, Any] | None]:
    with memoryview(buffer) as view, view[start:end] as part:
        text = str(part, "utf-8", "replace")
    for line in text.split("\n"):
        stripped = line.strip(_BLANKS)
        if stripped:
            yield parse_entry(stripped)
