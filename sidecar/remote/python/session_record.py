"""What is said of a session that was counted, and what is sent on of it uncounted."""

from __future__ import annotations

from typing import Iterable, NamedTuple

from sidecar.remote.python.blocks import Compressed, Item, Lines, Skipped
from sidecar.remote.python.output import Output
from sidecar.remote.python.session_index import IndexEntry
from sidecar.remote.python.tally import Tally


class Session(NamedTuple):
    """What is known of a session without reading it: the first items of its record, and the id that the index has."""

    session_id: str
    file_path: str
    kind: str
    store: str
    indexed_id: str


class Count:
    """Counts one transcript as it comes, and sends on what it can't count. One that was rewritten is begun anew."""

    def __init__(self, output: Output) -> None:
        self.tally = Tally()
        self._output = output
        self._has_sent = False

    def restart(self) -> None:
        """Forget what was counted, and have it forgotten."""
        self.tally = Tally()
        if self._has_sent:
            self._output.say("again")
            self._has_sent = False

    def take(self, items: Iterable[Item]) -> None:
        """Count what comes."""
        for item in items:
            if isinstance(item, Lines):
                self.tally.add(item, self._output.tick)
            elif isinstance(item, Skipped):
                self.tally.skip(item)
            else:
                self._send_on(item)
            self._output.tick()

    def _send_on(self, item: Compressed) -> None:
        if self.tally.size_bytes:
            self._output.say("part", *self.tally.counts(), self.tally.size_bytes)
            self.tally = Tally()
        self._output.send(item.record, item.data)
        self._has_sent = True

    def say(self, session: Session, written_at_ms: float, archived_as: str | None, entry: IndexEntry) -> None:
        """Say what came of the session."""
        session_id, file_path, kind, store, _ = session
        size_bytes = self.tally.size_bytes
        where = [session_id, file_path, kind, size_bytes, written_at_ms, store, archived_as]
        self._output.say("session", *where, *self.tally.counts(), *entry)
