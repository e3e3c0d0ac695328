"""Cut a byte stream into lines, with a cap. Does no I/O: bytes go in, lines come out."""

from __future__ import annotations

from sidecar.limits import MAX_LINE_BYTES


class LineTooLong:
    """Stands where a line was that went over the cap and was dropped."""


TOO_LONG = LineTooLong()


class LineFramer:
    """Lines end in LF; a CR before it belongs to the ending; blank lines are passed over.

    A line of more than ``max_line_bytes`` is dropped up to its LF as it arrives, never held, and reported once.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._partial = bytearray()
        self._dropping = False

    def feed(self, data: bytes) -> list[bytes | LineTooLong]:
        """The lines that ``data`` completes, in order."""
        first, *rest = data.split(b"\n")
        self._extend(first)
        if not rest:
            return []
        lines: list[bytes | LineTooLong] = []
        self._finish_line(lines)
        *whole, last = rest
        for line in whole:
            self._append(lines, line)
        self._extend(last)
        return lines

    def finish(self) -> list[bytes | LineTooLong]:
        """The line that the end of the input completes, if there is one."""
        lines: list[bytes | LineTooLong] = []
        self._finish_line(lines)
        return lines

    def _extend(self, part: bytes) -> None:
        if self._dropping:
            return
        # One byte more may be the CR of the ending.
        if len(self._partial) + len(part) > self._max_line_bytes + 1:
            self._partial = bytearray()
            self._dropping = True
        else:
            self._partial += part

    def _finish_line(self, lines: list[bytes | LineTooLong]) -> None:
        if self._dropping:
            self._dropping = False
            lines.append(TOO_LONG)
        elif self._partial:
            line = bytes(self._partial)
            self._partial = bytearray()
            self._append(lines, line)

    def _append(self, lines: list[bytes | LineTooLong], line: bytes) -> None:
        line = line.removesuffix(b"\r")
        if len(line) > self._max_line_bytes:
            lines.append(TOO_LONG)
        elif line.strip(b" \t\r"):
            lines.append(line)
