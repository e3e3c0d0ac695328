"""What a file is, by its name alone: the twin of ``sidecar/stores/session_names.py``."""

from __future__ import annotations

import re
from typing import NamedTuple

from sidecar.remote.python.text import wire_name, without_ending

FOLDERS = (("sessions", "sessions"), ("sessions_archive", "archive"))
"""Where an agent's live transcripts and archives lie, and the kind of what lies there."""
LIVE_FOLDER = "sessions"
IMPORT_FOLDER = "session-sqlite-import-archive"
ALL_FOLDERS = (*(folder for folder, _ in FOLDERS), IMPORT_FOLDER)

SUFFIX = ".jsonl"
_TRACE = ".trajectory"
_UUID = "-".join(f"[0-9a-f]{{{digits}}}" for digits in (8, 4, 4, 4, 12))
_TIMESTAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}-[0-9]{2}-[0-9]{2}(?:\.[0-9]{3})?Z"
_CHECKPOINT = re.compile(rf"(.+)\.checkpoint\.{_UUID}", re.DOTALL)
_ARCHIVE = re.compile(rf"(.+)\.jsonl\.(reset|deleted)\.{_TIMESTAMP}(?:(?:\.[0-9a-f]{{32}})?\.zst)?", re.DOTALL)
_IMPORT = re.compile(r"(.+)\.jsonl\.imported-[0-9]+(?:\.[0-9]+)?", re.DOTALL)


class SessionFileName(NamedTuple):
    """What a name says: ``role`` and ``stem`` as in ``sidecar/stores/session_names.py``."""

    role: str
    stem: str
    archived_as: str | None = None


def classify(name: str) -> SessionFileName | None:
    """What a file of this name is; ``None`` if it is neither a session nor anything that belongs to one."""
    if name.endswith(SUFFIX):
        return _of_jsonl(without_ending(name, SUFFIX))
    if ".jsonl." not in name:
        stem = without_ending(name, ".trajectory-path.json")
        return SessionFileName("trajectory", stem) if stem and stem != name else None
    if name.endswith(".jsonl.lock"):
        stem = without_ending(name, ".jsonl.lock")
        return SessionFileName("lock", stem) if stem else None
    found = _of_moved(name)
    return found if found and _is_session(found.stem) else None


def is_transcript(name: str) -> bool:
    """Whether a file of this name is a live transcript."""
    return name.endswith(SUFFIX) and _is_session(without_ending(name, SUFFIX))


def _of_jsonl(stem: str) -> SessionFileName | None:
    if _is_session(stem):
        return SessionFileName("transcript", stem)
    match = _CHECKPOINT.fullmatch(stem)
    if match:
        return SessionFileName("checkpoint", match[1])
    traced = without_ending(stem, _TRACE)
    return SessionFileName("trajectory", traced) if traced else None


def _of_moved(name: str) -> SessionFileName | None:
    match = _ARCHIVE.fullmatch(name)
    if match:
        return SessionFileName("archive", match[1], match[2])
    match = _IMPORT.fullmatch(name)
    if match:
        return SessionFileName("import", match[1], "imported")
    return SessionFileName("cold", without_ending(name, ".jsonl.zst")) if name.endswith(".jsonl.zst") else None


def _is_session(stem: str) -> bool:
    return stem != "" and not stem.endswith(_TRACE) and not (".checkpoint." in stem and _CHECKPOINT.fullmatch(stem))


def indexed_id(stem: str) -> str:
    """The id under which the index knows a transcript: topics share the one of the session they belong to."""
    return wire_name(stem.partition("-topic-")[0] if "-topic-" in stem else stem)


INDEX_NAME = "sessions.json"
