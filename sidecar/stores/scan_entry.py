"""What is remembered of a transcript that was counted, and when that may be relied on.

A state of a file is told by its ``Stamp``. Each write gives a file a new time of change, which no program can set, so
what has the stamp of then has the bytes of then. For that to be true of a write that follows at once, or comes while
the file is read, a file is remembered only if it was ``YOUNG_S`` old when it was looked at, which is the coarsest step
in which a file system counts time, and if it stood the same after it was read. Where that isn't so either, because
another machine's clock gives the times, nothing is remembered at all. Not noticed is what bypasses these times: a write
to the disk's device, or through a memory map that is not yet written out. On Windows the time of change is that of
creation: a program that writes as many bytes as there were, and sets the time of modification back, is not noticed.

A transcript is appended to, almost always. One that has grown is counted from where it ended, if the bytes around that
place and at its start are those of then (``digest``). What differs anywhere else is then not noticed: a program would
have to change bytes in the midst of a file, in place, leave its length and what stands before its end as they were, and
append to it, all between two analyses. OpenClaw puts a new file in the place of one that it rewrites.
"""

from __future__ import annotations

import os
import time
import zlib
from hashlib import sha256
from typing import NamedTuple

import msgspec

from sidecar import __version__
from sidecar.core.transcript import Counts
from sidecar.limits import DIGESTED_BYTES, YOUNG_S

_FORMAT = 1
"""Goes up when entries come to hold something else between two releases."""
VERSION = zlib.crc32(f"{__version__} {_FORMAT}".encode()) & 0x7FFFFFFF
"""What another release has counted may differ: its entries are none here."""
_CHECKSUM_BYTES = 4


class Stamp(NamedTuple):
    """What tells one state of a file from another."""

    device: int
    inode: int
    size_bytes: int
    modified_at_ns: int
    changed_at_ns: int


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A transcript as it was counted: ``text_bytes`` is its size, decompressed.

    ``digest`` is empty if it can't be counted on from its end: it is compressed, or its last line may get longer.
    """

    stamp: Stamp
    text_bytes: int
    digest: bytes
    counts: Counts


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


def stamp_of(fd: int) -> Stamp:
    """How the open file stands now."""
    found = os.fstat(fd)
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def is_young(stamp: Stamp) -> bool:
    """Whether a change from now on might not show in the file's times; also of one that they place in the future."""
    return time.time_ns() - max(stamp.modified_at_ns, stamp.changed_at_ns) < YOUNG_S * 1_000_000_000


def digest_of(fd: int, size_bytes: int) -> bytes:
    """Of the start and end of the first ``size_bytes``; empty if they don't end with a line. May move the offset."""
    end = _read_at(fd, max(0, size_bytes - DIGESTED_BYTES), min(size_bytes, DIGESTED_BYTES))
    if not end.endswith(b"\n"):
        return b""
    start = _read_at(fd, 0, min(size_bytes, DIGESTED_BYTES))
    return sha256(start + end).digest()[:16]


def has_grown(entry: Entry, fd: int, stamp: Stamp) -> bool:
    """Whether the file, now of ``stamp``, is that of ``entry`` with something appended."""
    was = entry.stamp
    return (
        entry.digest != b""
        and (was.device, was.inode) == (stamp.device, stamp.inode)
        and was.size_bytes < stamp.size_bytes
        and entry.digest == digest_of(fd, was.size_bytes)
    )


def encode(entry: Entry) -> bytes | None:
    """For ``decode``; ``None`` if it can't be written down: a number over 64 bits, half a surrogate pair."""
    try:
        payload = _encoder.encode(entry)
    except (OverflowError, ValueError):
        return None
    return _checksum(payload) + payload


def decode(data: bytes) -> Entry | None:
    """The entry that ``encode`` wrote; ``None`` for anything else, such as half of one after a loss of power."""
    payload = data[_CHECKSUM_BYTES:]
    if _checksum(payload) != data[:_CHECKSUM_BYTES]:
        return None
    try:
        return _decoder.decode(payload)
    except msgspec.MsgspecError:
        return None


def _checksum(payload: bytes) -> bytes:
    return zlib.crc32(payload, VERSION).to_bytes(_CHECKSUM_BYTES, "big")


if hasattr(os, "pread"):

    def _read_at(fd: int, at: int, count: int) -> bytes:
        return os.pread(fd, count, at)

else:  # Windows

    def _read_at(fd: int, at: int, count: int) -> bytes:
        os.lseek(fd, at, os.SEEK_SET)
        return os.read(fd, count)
