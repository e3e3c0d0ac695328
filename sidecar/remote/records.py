"""What an engine says, as records (README.md beside this): bytes in, records out, no I/O."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from sidecar.core.transcript import REJECTED
from sidecar.errors import (
    BACKUP_ERRORS,
    BrokenCompression,
    BrokenDatabase,
    HomeUnknown,
    InvalidParams,
    RemoteFailed,
    SidecarError,
    SourceUnreadable,
)
from sidecar.limits import BLOCK_BYTES, MAX_ENTRY_BYTES, MAX_NOISE_BYTES, MAX_RECORD_BYTES
from sidecar.text import file_name

FORWARDED = frozenset(("frame", "piece", "cold"))
"""Records of what an engine can't open, and sends on as it is."""

_WITH_BYTES = FORWARDED | {"lines"}
_LF = 0x0A

_decode = msgspec.json.Decoder(list[Any]).decode

_TOLD: dict[str, type[SidecarError]] = {
    error.kind: error
    for error in (
        HomeUnknown,
        InvalidParams,
        SourceUnreadable,
        BrokenDatabase,
        BrokenCompression,
        *BACKUP_ERRORS,
    )
}
"""What an engine may say that a command fails with."""


class EngineRun(Protocol):
    """An engine at work. ``read`` gives its output as it comes and raises as ``RemoteProcess.read`` does."""

    async def read(self) -> bytes: ...

    def close(self) -> None:
        """End it, at any time, and all that it has on the host."""


StartEngine = Callable[[Mapping[str, Any]], Coroutine[Any, Any, EngineRun]]
"""Starts an engine with a request, which has a ``nonce`` and an ``op``."""


class Record(NamedTuple):
    """A record's name, its other items, and the bytes that follow it."""

    name: str
    items: list[Any]
    data: bytes = b""


class RecordReader:
    """Cuts an engine's output, in chunks cut anywhere, into records.

    What comes before the sentinel is passed over. ``RemoteFailed`` for what is no record: it is of another program.
    """

    def __init__(self, nonce: str) -> None:
        self._sentinel = f"\nclawpal-helper {nonce}\n".encode()
        self._waiting = bytearray()
        self._searched = 0
        self._begun = False
        self._head: Record | None = None
        """One whose bytes are not all there yet; their number is its last item."""

    def feed(self, chunk: bytes) -> list[Record]:
        """The records that are whole with ``chunk``."""
        self._waiting += chunk
        records: list[Record] = []
        if not self._begun and not self._find_sentinel():
            return records
        place = 0
        while True:
            if self._head is not None:
                *items, size_bytes = self._head.items
                end = place + size_bytes
                if len(self._waiting) <= end:
                    break
                if self._waiting[end] != _LF:
                    raise _garbled("bytes that are no record")
                records.append(Record(self._head.name, items, bytes(self._waiting[place:end])))
                self._head, place = None, end + 1
                self._searched = place
                continue
            end = self._waiting.find(b"\n", max(place, self._searched))
            if end < 0:
                self._searched = len(self._waiting)
                if len(self._waiting) - place > MAX_RECORD_BYTES:
                    raise _garbled("a line without an end")
                break
            record = _record(self._waiting[place:end])
            place = self._searched = end + 1
            if record.name in _WITH_BYTES:
                self._head = record
            else:
                records.append(record)
        del self._waiting[:place]
        self._searched -= place
        return records

    def _find_sentinel(self) -> bool:
        found = self._waiting.find(self._sentinel)
        if found < 0:
            if len(self._waiting) > MAX_NOISE_BYTES:
                raise _garbled("something else than what was started there")
            return False
        del self._waiting[: found + len(self._sentinel)]
        self._begun = True
        return True


class Records:
    """The records of a run, of which one may be put back."""

    def __init__(self, records: Iterator[Record | None]) -> None:
        self._records = records
        self._back: Record | None = None

    def __iter__(self) -> Iterator[Record | None]:
        return self

    def __next__(self) -> Record | None:
        record, self._back = self._back, None
        return record if record is not None else next(self._records)

    def put_back(self, record: Record) -> None:
        self._back = record

    def next_told(self) -> Record | None:
        """The next record, waited for here; ``None`` if there is none."""
        return next((record for record in self if record is not None), None)


def system_error(code: str, name: str | None) -> OSError:
    """The error of the system that ``code`` ("ENOENT") names, in this system's words."""
    number = getattr(errno, code, None)
    words = os.strerror(number) if number is not None else code
    return OSError(number, words, file_name(name)) if name is not None else OSError(number, words)


def described(code: str | None, name: str | None, message: str | None) -> OSError | SidecarError:
    """The error of an item, as records tell of it."""
    return system_error(code, name) if code else RemoteFailed(file_name(message or ""))


def failure(
    code: str | None,
    name: str | None,
    message: str | None,
    kind: str | None,
    details: Mapping[str, Any] | None = None,
) -> OSError | SidecarError:
    """The error that a command failed with, as a ``fail`` record tells of it."""
    if code:
        return system_error(code, name)
    return _TOLD.get(kind or "", RemoteFailed)(file_name(message or ""), **(details or {}))


def _record(line: bytearray) -> Record:
    try:
        name, *items = _decode(line)
    except (*REJECTED, ValueError):
        raise _garbled(bytes(line[:80]).decode("utf-8", "replace")) from None
    # The longest line that is taken may end anywhere in the block that completed it.
    if name in _WITH_BYTES and not (
        items and type(items[-1]) is int and 0 <= items[-1] <= MAX_ENTRY_BYTES + BLOCK_BYTES
    ):
        raise _garbled(f"a size that can't be: {items}")
    return Record(name, items)


def _garbled(what: str) -> RemoteFailed:
    return RemoteFailed(f"the host's answer can't be understood: {what}")
