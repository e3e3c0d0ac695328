"""How far a backup, a restore or a check has come, for whoever looks; and the place where each is cancelled."""

from __future__ import annotations

from typing import Callable

from sidecar.cancel import CancelToken


class Progress:
    """Written by the work, read now and then by who reports it; ``step`` is called at least every few milliseconds.

    ``look`` is called with each step. Counts are of files and of bytes of their contents.
    """

    def __init__(self, token: CancelToken, look: Callable[[], None] | None = None) -> None:
        self.phase = "snapshot"
        self.files_copied = 0
        self.bytes_copied = 0
        self.files_total = 0
        self.bytes_total = 0
        self.current_path: bytes | None = None
        """Relative to the top of the tree."""
        self.may_be_cancelled = True
        """False while stopping would leave less than finishing does."""
        self._token = token
        self._look = look

    def step(self, size_bytes: int = 0) -> None:
        """Count bytes that are done. ``Cancelled`` if that was asked for."""
        self.bytes_copied += size_bytes
        if self.may_be_cancelled:
            self._token.check()
        if self._look is not None:
            self._look()

    def expect(self, files: int, size_bytes: int) -> None:
        """Begin to count anew, with what is to come."""
        self.files_copied = self.bytes_copied = 0
        self.files_total, self.bytes_total = files, size_bytes

    def done_with(self, expected_bytes: int, done_bytes: int) -> None:
        """Count a file that is done, and put the total right if it was of another size than expected."""
        self.files_copied += 1
        self.bytes_total += done_bytes - expected_bytes

    def all_done(self) -> None:
        """Make the totals what was done: of a tree that others write, more or less may come than was expected."""
        self.files_total, self.bytes_total = self.files_copied, self.bytes_copied
