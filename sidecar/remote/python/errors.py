"""What can go wrong, and what records say of it: the twin of ``sidecar/errors.py``."""

from __future__ import annotations

import errno

from sidecar.remote.python.text import spelled, wire_name


class Fault(Exception):
    """What can't be read or done, other than by the system's word; the message is for people."""

    kind = "source_unreadable"
    details: dict[str, object] | None = None
    """What else is known of it, for programs."""


class HomeUnknown(Fault):
    """There is no home directory, and what is asked for hangs on it."""

    kind = "home_unknown"


class InvalidParams(Fault):
    """The request asks for what can't be."""

    kind = "invalid_params"


class BrokenDatabase(Fault):
    """A database is damaged, or of a form that is not known."""

    kind = "broken_database"


class BrokenCompression(Fault):
    """Compressed data is damaged or cut off."""

    kind = "broken_compression"


class BrokenIndex(Fault):
    """A session index is not a JSON object of entries."""

    kind = "broken_index"


class Rewritten(Exception):
    """What was read of a transcript and what is left of it are not of one state: begin again."""


class Vanished(Exception):
    """There is no such session any more."""


FAULTS = (OSError, Fault)


def told(error: BaseException) -> list[str | None]:
    """What records say of an ``OSError`` or ``Fault``: the name of its code, the file name, the message."""
    code = errno.errorcode.get(error.errno or 0) if isinstance(error, OSError) else None
    if isinstance(error, OSError) and code:
        name = error.filename
        shown = None if name is None else wire_name(spelled(name) if isinstance(name, bytes) else str(name))
        return [code, shown, None]
    return [None, None, wire_name(str(error))]
