"""Names of snapshots: ``YYYY-MM-DD_HHMMSS`` in UTC, and ``-2``, ``-3`` … behind it where one second has several."""

from __future__ import annotations

import os
import re
import time
from typing import Iterator

from sidecar.errors import InvalidParams, SourceUnreadable
from sidecar.limits import MAX_NAME_BYTES, MAX_SNAPSHOTS_A_SECOND
from sidecar.text import file_name

FOLDER = b"backups"
"""Where snapshots are, in the ClawPal directory; what is not a snapshot there has a dot before its name."""
MANIFEST_SUFFIX = b".manifest.jsonl"
STAGED = b".partial-"
DELETED = b".deleted-"
_STAMPED = re.compile(rb"(\d{4})-(\d\d)-(\d\d)_(\d\d)(\d\d)(\d\d)(?:-\d+)?")


def checked_name(name: str) -> bytes:
    """The file name of the snapshot of this wire name. ``InvalidParams`` if that is no plain name of a folder.

    What begins with a dot is never a snapshot: that is what is staged or being deleted.
    """
    if not name or name.startswith(".") or any(character in name for character in "/\\\0"):
        raise InvalidParams("backupName: not a valid name")
    try:
        plain = os.fsencode(file_name(name))
    except UnicodeError:
        raise InvalidParams("backupName: not a valid name") from None
    if os.path.splitdrive(plain)[0]:
        # On Windows "D:" leads to another drive, without a separator.
        raise InvalidParams("backupName: not a valid name")
    if len(plain) + len(MANIFEST_SUFFIX) > MAX_NAME_BYTES:
        raise InvalidParams("backupName: the name is too long")
    return plain


def names_for(created_at_s: float) -> Iterator[bytes]:
    """The names that a snapshot made at this time may have, the one to try first first.

    ``SourceUnreadable`` behind the last, which is that of the ``MAX_SNAPSHOTS_A_SECOND``-th.
    """
    stamp = time.strftime("%Y-%m-%d_%H%M%S", time.gmtime(created_at_s)).encode()
    yield stamp
    for number in range(2, MAX_SNAPSHOTS_A_SECOND + 1):
        yield b"%s-%d" % (stamp, number)
    raise SourceUnreadable(f"this second has {MAX_SNAPSHOTS_A_SECOND} snapshots already; try again")


def created_at(name: bytes) -> str | None:
    """The time, RFC 3339, that a name tells; ``None`` if it tells none."""
    match = _STAMPED.fullmatch(name)
    return "{}-{}-{}T{}:{}:{}Z".format(*(part.decode() for part in match.groups())) if match else None


def rfc3339(seconds: float) -> str:
    """A time as the wire has it, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
