"""The counts of a transcript: the twin of the ``Tally`` of ``sidecar/core/transcript.py``."""

from __future__ import annotations

from typing import Any

from sidecar.remote.python.blocks import Lines, Skipped, Tick
from sidecar.remote.python.entries import entries
from sidecar.remote.python.json_values import text_in
from sidecar.remote.python.limits import MAX_TEXT_CHARS, MAX_TIMESTAMP_CHARS


class Tally:
    """The counts of one transcript, or of a part of it, fed with its lines; the fields are those of records."""

    def __init__(self) -> None:
        self.messages = 0
        self.users = 0
        self.assistants = 0
        self.last_activity: str | None = None
        self.header_id: str | None = None
        self.begun = False
        self.skipped_lines = 0
        self.size_bytes = 0

    def counts(self) -> list[Any]:
        """What records say of the lines, in their order."""
        roles = [self.messages, self.users, self.assistants]
        return [*roles, self.last_activity, self.header_id, self.begun, self.skipped_lines]

    def add(self, lines: Lines, tick: Tick) -> None:
        """Count whole lines."""
        self.size_bytes += lines.end - lines.start
        for entry in entries(lines, tick):
            self.count(entry)

    def skip(self, skipped: Skipped) -> None:
        """Count lines that nobody has read."""
        self.skipped_lines += skipped.lines
        self.size_bytes += skipped.size_bytes

    def count(self, entry: dict[str, Any] | None) -> None:
        """Count one entry, or a line that is none."""
        if entry is None:
            self.skipped_lines += 1
            return
        if not self.begun:
            self.begun = True
            if entry.get("type") == "session":
                header_id = text_in(entry, "id")
                self.header_id = header_id and header_id[:MAX_TEXT_CHARS]
        if entry.get("type") != "message":
            return
        self.messages += 1
        message = entry.get("message")
        role = message.get("role") if type(message) is dict else None
        if role == "user":
            self.users += 1
        elif role == "assistant":
            self.assistants += 1
        timestamp = text_in(entry, "timestamp")
        if timestamp is not None and len(timestamp) <= MAX_TIMESTAMP_CHARS:
            self.last_activity = timestamp
