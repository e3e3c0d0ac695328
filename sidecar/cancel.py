"""The flag by which a stream or job is told to stop, from any thread."""

from __future__ import annotations

from sidecar.errors import Cancelled


class CancelToken:
    """Set once, from any thread; long work calls ``check`` between files and between blocks of one."""

    __slots__ = ("cancelled",)

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def check(self) -> None:
        """Raise ``Cancelled`` if the token is set."""
        if self.cancelled:
            raise Cancelled
