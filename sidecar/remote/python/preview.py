"""The transcript of one session, the long lines of it cut to what ``sidecar/core/preview.py`` shows."""

from __future__ import annotations

import codecs
from typing import Any

from sidecar.remote.python.agent import AgentSessions
from sidecar.remote.python.blocks import Compressed, Lines, Skipped, Tick
from sidecar.remote.python.errors import InvalidParams
from sidecar.remote.python.host import Host
from sidecar.remote.python.limits import MIB, UNCUT_LINE_BYTES
from sidecar.remote.python.locations import find_agent
from sidecar.remote.python.long_line import LongLine
from sidecar.remote.python.text import objection_to_name
from sidecar.remote.python.zstd import Zstd


def preview(host: Host, request: dict[str, Any]) -> None:
    """Send the transcript of one session."""
    session_id = str(request["sessionId"])
    objection = objection_to_name(session_id)
    if objection:
        raise InvalidParams(f"sessionId: {objection}")
    try:
        agent = find_agent(host.openclaw_dir, str(request["agentId"]))
    except FileNotFoundError:
        host.output.say("none")
        return
    host.reports_failures = False
    zstd = Zstd()
    items = AgentSessions(agent, host, zstd).transcript(session_id)
    if items is None:
        host.output.say("none")
        return
    host.output.say("found")
    for item in items:
        if isinstance(item, Lines):
            _send_lines(host, item)
        elif isinstance(item, Skipped):
            host.output.say("skipped", item.lines)
        else:
            _send_compressed(host, item, zstd)


def _send_compressed(host: Host, item: Compressed, zstd: Zstd) -> None:
    """Send what is compressed as it is, which mostly is shorter; but not a row with an image in it."""
    text = zstd.opened(item.data, host.tick) if item.is_row and zstd.is_there else None
    if text is not None:
        # A line feed is white space there, if it is JSON at all.
        line = text.replace(b"\n", b"\r") + b"\n"
        line = _cut(line, 0, len(line), host.tick) or line
        if len(line) < len(item.data):
            host.output.send(["lines"], line)
            return
    host.output.send(item.record, item.data)


def _send_lines(host: Host, lines: Lines) -> None:
    """Send lines, the long ones without what a preview doesn't show."""
    buffer, start, end = lines
    pieces: list[bytes | memoryview] = []
    unsent = start
    with memoryview(buffer) as view:
        while end - start > UNCUT_LINE_BYTES:
            line_end = buffer.find(b"\n", start, end) + 1 or end
            if line_end - start > UNCUT_LINE_BYTES:
                cut = _cut(buffer, start, line_end, host.tick)
                if cut is not None:
                    pieces += [view[unsent:start], cut]
                    unsent = line_end
            start = line_end
        pieces.append(view[unsent:end])
        host.output.send(["lines"], *pieces)
        for piece in pieces:
            if isinstance(piece, memoryview):
                piece.release()


def _cut(buffer: bytes | bytearray, start: int, end: int, tick: Tick) -> bytes | None:
    """A line with only what a preview shows of it; ``None`` if that is most of it, or it is better judged elsewhere."""
    line = LongLine(buffer, start, end, tick)
    if not line.is_entry():
        return None
    with memoryview(buffer) as view, view[start:end] as whole:
        if line.shown_bytes() * 2 >= end - start or not _is_utf8(whole):
            return None
    return line.shown() + b"\n"


def _is_utf8(text: memoryview) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for place in range(0, len(text), MIB):
            decoder.decode(text[place : place + MIB])
        decoder.decode(b"", True)
    except UnicodeDecodeError:
        return False
    return True
