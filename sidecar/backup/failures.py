"""What went wrong with the items of one piece of work: all counted, the first ones named."""

from __future__ import annotations

from sidecar.limits import MAX_REPORTED_FAILURES
from sidecar.text import wire_name


class Failures:
    """Counts items that failed, and keeps the first ``MAX_REPORTED_FAILURES``, as the wire shows them."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[dict[str, str]] = []

    def add(self, path: bytes, error: str) -> None:
        """Note that the item at ``path`` failed."""
        self.count += 1
        if len(self.first) < MAX_REPORTED_FAILURES:
            self.first.append({"path": wire_name(path), "error": error})

    @property
    def sentence(self) -> str:
        """The first, and how many more. There must be one."""
        more = f", and {self.count - 1} more" if self.count > 1 else ""
        return f"{self.first[0]['path']}: {self.first[0]['error']}{more}"

    @property
    def details(self) -> dict[str, object]:
        """What an error tells of them to programs."""
        return {"failedItems": self.count, "failures": self.first}
