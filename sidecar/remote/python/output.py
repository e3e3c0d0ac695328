"""Records on stdout: the twin of ``sidecar/remote/sftp/output.py``."""

from __future__ import annotations

import json
import os
import select
import time
from typing import Any

from sidecar.remote.python.limits import BEAT_S, OUTPUT_AGE_S, OUTPUT_BYTES, SAFE_WRITE_BYTES
from sidecar.remote.python.watchdog import Watchdog


class Output:
    """Records on stdout: gathered for some milliseconds, one at least every second, blocking when the reader is slow.

    When nobody reads any more the process ends; while it ``finishes`` something, that goes on in silence.
    """

    def __init__(self, descriptor: int) -> None:
        self.finishes = False
        self.is_over = False
        """Whether the input has ended; set only while the process ``finishes``."""
        self.watchdog: Watchdog | None = None
        self._descriptor = descriptor
        self._waiting = bytearray()
        self._waiting_since_s = 0.0
        self._written_at_s = time.monotonic()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def say(self, *items: Any) -> None:
        """Add a record."""
        self.add(json.dumps(items, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n")
        self.tick()

    def send(self, items: list[Any], *pieces: bytes | memoryview) -> None:
        """Add a record with the bytes that follow it."""
        self.add(json.dumps([*items, sum(map(len, pieces))], separators=(",", ":")).encode() + b"\n")
        for piece in pieces:
            self.add(piece)
        self.add(b"\n")
        self.tick()

    def add(self, data: bytes | memoryview) -> None:
        """Add bytes as they are."""
        if not self._waiting:
            self._waiting_since_s = time.monotonic()
        if len(data) >= OUTPUT_BYTES:
            self.flush()
            self._write(data)
            return
        self._waiting += data
        if len(self._waiting) >= OUTPUT_BYTES:
            self.flush()

    def tick(self) -> None:
        """Write what has waited long enough, or that there is nothing new."""
        now_s = time.monotonic()
        if self._waiting:
            if now_s - self._waiting_since_s > OUTPUT_AGE_S:
                self.flush()
        elif now_s - self._written_at_s > BEAT_S:
            self._write(b'["beat"]\n')

    def tick_without_waiting(self) -> None:
        """The same as far as it can be done without waiting for the reader: for when something is held meanwhile."""
        now_s = time.monotonic()
        if not self._waiting:
            if now_s - self._written_at_s > BEAT_S and self._poll.poll(0):
                self._write(b'["beat"]\n')
        elif now_s - self._waiting_since_s > OUTPUT_AGE_S:
            while self._waiting and self._poll.poll(0):
                self._write(self._waiting[:SAFE_WRITE_BYTES])
                del self._waiting[:SAFE_WRITE_BYTES]

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, bytearray()
        if waiting:
            self._write(waiting)

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        with memoryview(data) as view:
            left = view
            while left and self._may_write():
                try:
                    left = left[os.write(self._descriptor, left[:SAFE_WRITE_BYTES] if self.finishes else left) :]
                except BlockingIOError:
                    self._poll.poll(BEAT_S * 1000)
                except OSError:  # nobody reads any more
                    if not self.finishes:
                        os._exit(0)
                    self.is_over = True
                    return
        self._written_at_s = time.monotonic()
        # Here, since this is done at least once a second.
        if self.watchdog is not None and not self.watchdog.is_there:
            self._go_unwatched(self.watchdog)

    def _go_unwatched(self, watchdog: Watchdog) -> None:
        """Nobody would end this process any more."""
        self.is_over = True
        if not self.finishes:
            watchdog.remove()
            os._exit(1)

    def _may_write(self) -> bool:
        """Wait for the reader, but not for one who has gone while we finish."""
        while self.finishes and not self._poll.poll(BEAT_S * 1000):
            if self.is_over:
                return False
        return True
