"""What a file below ``agents/<agent>/`` is, by its name alone.

| name | role |
| --- | --- |
| ``<id>.jsonl`` | ``transcript`` |
| ``<id>.trajectory.jsonl``, ``<id>.trajectory-path.json`` | ``trajectory``: a trace of the session, and where it lies |
| ``<id>.checkpoint.<uuid>.jsonl`` | ``checkpoint``: a copy made before a compaction |
| ``<id>.jsonl.lock`` | ``lock`` |
| ``<id>.jsonl.reset.<ts>``, ``<id>.jsonl.deleted.<ts>``; the same with ``.zst`` or ``.<32 hex>.zst`` | ``archive`` |
| ``<key>.<id>.jsonl.imported-<ms>``, with ``.<n>`` after that if two would clash | ``import`` |
| ``<sha256>.jsonl.zst`` | ``cold`` |
| indexes and their locks, temporary files, ``.bak.<ts>``, archived or imported traces and checkpoints | none of these |

Imports lie in ``session-sqlite-import-archive``, cold files in ``sessions/cold``, all others in ``FOLDERS``. An import
with the key ``archive-tier`` had no entry in the index, so that it is in no database either: it may be the only copy.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from sidecar.core.analysis import ArchivedAs, Kind
from sidecar.text import wire_name

Role = Literal["transcript", "trajectory", "checkpoint", "lock", "archive", "import", "cold"]

FOLDERS: tuple[tuple[str, Kind], ...] = (("sessions", "sessions"), ("sessions_archive", "archive"))
"""Where an agent's live transcripts and archives lie, and the kind of what lies there."""
LIVE_FOLDER = "sessions"
IMPORT_FOLDER = "session-sqlite-import-archive"
ALL_FOLDERS = (*(folder for folder, _ in FOLDERS), IMPORT_FOLDER)
SUFFIX = ".jsonl"

_TRACE = ".trajectory"
_UUID = "-".join(f"[0-9a-f]{{{digits}}}" for digits in (8, 4, 4, 4, 12))
_TIMESTAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}-[0-9]{2}-[0-9]{2}(?:\.[0-9]{3})?Z"
# Names are any characters, a line feed too (DOTALL); of two places where one could be cut, the last counts (greedy).
_CHECKPOINT = re.compile(rf"(.+)\.checkpoint\.{_UUID}", re.DOTALL)
_ARCHIVE = re.compile(rf"(.+)\.jsonl\.(reset|deleted)\.{_TIMESTAMP}((?:\.[0-9a-f]{{32}})?\.zst)?", re.DOTALL)
_ARCHIVED_AS: dict[str, ArchivedAs] = {"reset": "reset", "deleted": "deleted"}
_IMPORT = re.compile(r"(.+)\.jsonl\.imported-[0-9]+(?:\.[0-9]+)?", re.DOTALL)


class SessionFileName(NamedTuple):
    """What a name says. ``stem`` is the id of the session that the file is of, or is a trace, copy or lock of.

    Of an import it is ``<key>.<id>``, both shortened and with odd characters replaced; a key may have dots, so that its
    end can't be told. Of a cold file it is the digest.
    """

    role: Role
    stem: str
    archived_as: ArchivedAs = None
    compressed: bool = False


class Archive(NamedTuple):
    """A file whose name is its id: where it lies, how it is called, whose transcript it is, what became of that."""

    folder: str
    name: str
    stem: str
    archived_as: ArchivedAs


def classify(name: str) -> SessionFileName | None:
    """What a file of this name is; ``None`` if it is neither a session nor anything that belongs to one."""
    if name.endswith(".jsonl"):
        return _of_jsonl(name.removesuffix(".jsonl"))
    # One search that nearly every other name fails, so that the patterns are for those that may match.
    if ".jsonl." not in name:
        stem = name.removesuffix(".trajectory-path.json")
        return SessionFileName("trajectory", stem) if stem and stem != name else None
    if name.endswith(".jsonl.lock"):
        stem = name.removesuffix(".jsonl.lock")
        return SessionFileName("lock", stem) if stem else None
    found = _of_moved(name)
    return found if found and _is_session(found.stem) else None


def is_transcript(name: str) -> bool:
    """Whether a file of this name is a live transcript: not a trace of a session, nor a compaction's copy of one."""
    return name.endswith(".jsonl") and _is_session(name.removesuffix(".jsonl"))


def is_archive(name: SessionFileName, folder: str) -> bool:
    """Whether a file that is no live transcript is a session nevertheless, where it lies."""
    if folder == IMPORT_FOLDER:
        return name.role == "import"
    return name.role == "archive" or (name.role == "transcript" and folder != LIVE_FOLDER)


def indexed_id(stem: str) -> str:
    """The id under which an index knows a session, a wire name: topics share that of the one they belong to."""
    return wire_name(stem.partition("-topic-")[0] if "-topic-" in stem else stem)


def _of_jsonl(stem: str) -> SessionFileName | None:
    """What the file ``<stem>.jsonl`` is."""
    if _is_session(stem):
        return SessionFileName("transcript", stem)
    if match := _CHECKPOINT.fullmatch(stem):
        return SessionFileName("checkpoint", match[1])
    traced = stem.removesuffix(_TRACE)
    return SessionFileName("trajectory", traced) if traced else None


def _of_moved(name: str) -> SessionFileName | None:
    """What the former transcript, or trace, of this name is."""
    if match := _ARCHIVE.fullmatch(name):
        stem, reason, compression = match.groups()
        return SessionFileName("archive", stem, _ARCHIVED_AS[reason], compression is not None)
    if match := _IMPORT.fullmatch(name):
        return SessionFileName("import", match[1], "imported")
    if name.endswith(".jsonl.zst"):
        return SessionFileName("cold", name.removesuffix(".jsonl.zst"), None, True)
    return None


def _is_session(stem: str) -> bool:
    """Whether ``<stem>.jsonl`` is a session's own transcript, live or wherever it was moved."""
    return stem != "" and not stem.endswith(_TRACE) and not (".checkpoint." in stem and _CHECKPOINT.fullmatch(stem))
