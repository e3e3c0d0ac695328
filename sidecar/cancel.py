"""The flag by which a stream or job is told to stop, from any thread."""

from __future__ import annotations

import threading

from sidecar.errors import Cancelled


class CancelToken:
    """Set once, from any thread; long work calls ``check`` between files and between blocks of one."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        self._event.set()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raise ``Cancelled`` if the token is set."""
        if self._event.is_set():
            raise Cancelled

    def wait(self, timeout_s: float) -> bool:
        """Wait until the token is set; ``False`` if ``timeout_s`` passed first."""
        return self._event.wait(timeout_s)
