"""Items of a stream that failed: all counted, the first ones named."""

from __future__ import annotations

import msgspec

from sidecar.errors import SidecarError, describe_os_error
from sidecar.limits import MAX_REPORTED_FAILURES
from sidecar.text import wire_name


class Failure(msgspec.Struct):
    """One item that could not be read, as the wire shows it."""

    path: str
    error: str


class FailedItems:
    """Counts the failures of one stream and keeps the first ``MAX_REPORTED_FAILURES``."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[Failure] = []

    def add(self, path: str, error: OSError | SidecarError) -> None:
        """Note that the item at ``path`` (a wire name) failed."""
        self.count += 1
        if len(self.first) < MAX_REPORTED_FAILURES:
            text = describe_os_error(error) if isinstance(error, OSError) else error.message
            self.first.append(Failure(path, wire_name(text)))
