"""What is fuzzed: each target takes any bytes, and raises where something doesn't hold.

Shared by ``python -m tests.fuzz`` and by the tests that run them over what Hypothesis draws.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from sidecar.core.blocks import RecordBlocks
from sidecar.core.preview import MessageReader
from sidecar.core.transcript import Tally, entry_ids
from sidecar.errors import SidecarError
from sidecar.limits import DECODE_BYTES
from sidecar.server.commands import COMMANDS
from sidecar.server.connection import Connection
from sidecar.wire.framing import TOO_LONG, LineFramer, LineTooLong
from sidecar.wire.messages import Rejected, error_line, parse_line, result_line
from tests.client import check_output
from tests.oracle import JSON_WHITESPACE, analyse_transcript, parse_object, text_of
from tests.unit.strategies import reader

MAX_LINE_BYTES = 24
"""Of the framer, which must then deal with lines over the limit now and then."""
WITHIN_S = 20.0

# A fuzzer may come upon any path: nothing that chooses one, writes, deletes, or reaches out to a host.
_READING = {
    "analyze_sessions",
    "analyze_sessions_stream",
    "cancel_stream",
    "get_sidecar_info",
    "list_backups",
    "list_session_files",
    "list_session_files_stream",
    "ping",
    "preview_session",
    "preview_session_stream",
    "rpc.discover",
    "shutdown",
    "ssh_status",
    "verify_backup_stream",
}
_COMMANDS = tuple(command for command in COMMANDS if command.name in _READING)


def frame(data: bytes) -> None:
    """The first byte says how the others are cut; lines must be the same as of the whole."""
    step, data = (data[0] % 16 + 1, data[1:]) if data else (1, data)
    framer = LineFramer(MAX_LINE_BYTES)
    found: list[bytes | LineTooLong] = []
    for place in range(0, len(data), step):
        found += framer.feed(data[place : place + step])
    found += framer.finish()
    lines = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    wanted = [
        TOO_LONG if len(line) > MAX_LINE_BYTES else line
        for line in lines
        if len(line) > MAX_LINE_BYTES or line.strip(b" \t\r")
    ]
    assert found == wanted, (found, wanted)


def parse(line: bytes) -> None:
    """Whatever is on a line, each item of it can be answered, and what plain ``json`` refuses is refused."""
    parsed = parse_line(line)
    items = parsed if isinstance(parsed, list) else [parsed]
    for item in items:
        if isinstance(item, Rejected):
            assert isinstance(item.error, SidecarError)
            json.loads(error_line(item.id_json, item.error))
        else:
            assert isinstance(item.params, dict | list)
            if item.id_json is not None:
                json.loads(result_line(item.id_json, None))
    if any(not isinstance(item, Rejected) for item in items):
        json.loads(line.decode("utf-8"), parse_constant=_refuse)


def converse(data: bytes) -> None:
    """A conversation in this process, whatever comes in: its lines keep the rules of the wire, nothing is unexpected.

    Commands work on the home of this process, which should be an empty one.
    """
    written = bytearray()

    async def write(output: bytes) -> None:
        written.extend(output)

    async def chunks() -> AsyncIterator[bytes]:
        middle = len(data) // 2
        for chunk in (data[:middle], data[middle:]):
            if chunk:
                yield chunk

    async def run() -> None:
        async with asyncio.timeout(WITHIN_S):
            await Connection(write, _COMMANDS).run(chunks())

    with _logged_errors() as logged:
        asyncio.run(run())
    assert not logged, logged[0].getMessage()
    check_output(bytes(written))


def read_transcript(data: bytes) -> None:
    """Counts, entries and messages of a transcript are what plain ``json`` finds in it."""
    step, data = (data[0] * 5 + 1, data[1:]) if data else (1, data)
    tally, messages = Tally(), MessageReader()
    shown: list[tuple[str, str]] = []
    ids: list[str | None] = []
    blocks = RecordBlocks()
    read_into = reader(data, [step])
    while block := blocks.read(read_into):
        tally.add(block)
        ids += entry_ids(block)
        for some in messages.read(block):
            shown += [(message.role, json.loads(bytes(message.content).decode("utf-8"))) for message in some]
    wanted = analyse_transcript(data)
    found = (tally.messages, tally.users, tally.assistants, tally.last_activity, tally.header_id, tally.skipped_lines)
    names = ("messageCount", "userMessageCount", "assistantMessageCount", "lastActivity", "headerId", "skippedLines")
    assert found == tuple(wanted[name] for name in names), (found, wanted)
    assert shown == list(_messages_of(data))
    assert messages.skipped_lines == tally.skipped_lines
    assert ids.count(None) >= tally.skipped_lines


def read_long_lines(data: bytes) -> None:
    """The same of lines that are longer than what is decoded at once, which takes another way."""
    read_transcript(data.replace(b"FILL", b"x" * DECODE_BYTES * 9))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "framer": frame,
    "parser": parse,
    "connection": converse,
    "transcript": read_transcript,
    "long-lines": read_long_lines,
}


def _messages_of(data: bytes) -> Iterator[tuple[str, str]]:
    for line in data.split(b"\n"):
        if not line.strip(JSON_WHITESPACE):
            continue
        try:
            entry = parse_object(line)
        except ValueError:
            continue
        if entry.get("type") == "message":
            yield _shown(entry.get("message"))


def _shown(message: object) -> tuple[str, str]:
    fields = message if isinstance(message, dict) else {}
    content = fields.get("content")
    if isinstance(content, list):
        texts = [text_of(block.get("text")) for block in content if isinstance(block, dict)]
        content = "\n".join(text for text in texts if text is not None)
    role = text_of(fields.get("role"))
    return "unknown" if role is None else role, text_of(content) or ""


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def _logged_errors() -> Iterator[list[logging.LogRecord]]:
    """What goes into the log meanwhile: an error of the sidecar itself is told there, and nowhere else."""
    kept = _Kept()
    logging.getLogger().addHandler(kept)
    try:
        yield kept.records
    finally:
        logging.getLogger().removeHandler(kept)


def _refuse(constant: str) -> None:
    raise ValueError(constant)
