"""What goes into a snapshot: everything in the OpenClaw directory but what the table here leaves out.

A path is judged from the top of the tree, never by a name found deep inside: ``workspace/cache`` is the user's, and a
skill may have a folder ``logs``. What is left out of a snapshot is left alone by its restore.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from sidecar.limits import MAX_NAME_BYTES

PHASES = ("config", "agents", "memory")
"""The order in which a tree is copied, as the frontend shows it; ``config`` is all that has no phase of its own."""

RESTORE_FOLDER = b".clawpal-restore"
"""Where a restore stages files and keeps its journal, at the top of the tree that it restores."""


class Rule(NamedTuple):
    """What is left out: a path from the top, in which ``*`` stands for any part of one name; and why."""

    path: str
    reason: str


LEFT_OUT = (
    Rule("cache", "made anew by OpenClaw, Control UI assets among it"),
    Rule("control-ui", "made anew by OpenClaw"),
    Rule("tmp", "of running processes"),
    Rule("logs", "nothing that a restore needs"),
    Rule("plugin-skills", "links that OpenClaw makes anew"),
    Rule("agents/*/sessions/*.jsonl.lock", "lock of a running process"),
    Rule("agents/*/sessions/sessions.json.lock", "lock of a running process"),
    Rule("agents/*/sessions/sessions.json.*.tmp", "half-written"),
    Rule("agents/*/sessions/.usage-cost-cache*.tmp", "half-written"),
    Rule("agents/*/agent/openclaw-agent.sqlite.generation-lock.sqlite*", "lock of a running process"),
    Rule("agents/*/agent/openclaw-agent.sqlite.generation-writer.sqlite*", "lock of a running process"),
    Rule("agents/*/agent/openclaw-agent.sqlite.reindex-lock.sqlite*", "lock of a running process"),
    Rule("agents/*/agent/openclaw-agent.sqlite.memory-reindex-*", "left over from indexing"),
    Rule(RESTORE_FOLDER.decode(), "of a restore by the sidecar"),
)
TRANSCRIPTS = (
    Rule("agents/*/sessions/*.jsonl*", "a JSONL transcript (includeSessions: false)"),
    Rule("agents/*/sessions_archive/*.jsonl*", "a JSONL transcript (includeSessions: false)"),
)
"""What ``includeSessions: false`` leaves out besides."""

CLAWPAL = "ClawPal's own directory"
_DATABASE_ENDINGS = (b".sqlite", b".sqlite3", b".db")
_SIDE_ENDINGS = (b"-wal", b"-shm", b"-journal")
DATABASE_MAGIC = b"SQLite format 3\0"


class Selection:
    """The rules, as they hold for one tree."""

    def __init__(self, include_sessions: bool = True, clawpal_dir: bytes | None = None) -> None:
        self.include_sessions = include_sessions
        self._rules = LEFT_OUT if include_sessions else LEFT_OUT + TRANSCRIPTS
        self._any = re.compile("|".join(f"({_pattern(rule.path)})" for rule in self._rules).encode(), re.DOTALL)
        self._clawpal = _identity(clawpal_dir)

    def reason_to_leave_out(self, path: bytes, status: os.stat_result) -> str | None:
        """Why what lies at ``path``, relative to the top, stays out; ``None`` if it goes in."""
        if self._clawpal == (status.st_dev, status.st_ino):
            return CLAWPAL
        match = self._any.fullmatch(path)
        return self._rules[match.lastindex - 1].reason if match and match.lastindex else None


def phase_of(path: bytes) -> str:
    """The phase in which what lies at ``path`` is copied."""
    top = path.partition(b"/")[0]
    return top.decode() if top in {b"agents", b"memory"} else "config"


def order_of(path: bytes) -> tuple[int, list[bytes]]:
    """What walks and manifests are sorted by: phases, then folders before what is in them, names by their bytes."""
    return PHASES.index(phase_of(path)), path.split(b"/")


def is_database_name(path: bytes) -> bool:
    """Whether a file is called as databases are. Such a one is opened by SQLite alone; see ``databases.py``."""
    return path.endswith(_DATABASE_ENDINGS)


def database_beside(path: bytes) -> bytes | None:
    """The database that ``path`` would belong to as its ``-wal``, ``-shm`` or ``-journal``."""
    for ending in _SIDE_ENDINGS:
        if path.endswith(ending):
            return path[: -len(ending)]
    return None


def side_files(path: bytes) -> list[bytes]:
    """What SQLite may have beside the database at ``path``: of a long name, only what can have one."""
    room_bytes = MAX_NAME_BYTES - len(os.path.basename(path))
    return [path + ending for ending in _SIDE_ENDINGS if len(ending) <= room_bytes]


def _pattern(path: str) -> str:
    return "[^/]*".join(map(re.escape, path.split("*")))


def _identity(folder: bytes | None) -> tuple[int, int] | None:
    try:
        status = os.stat(folder) if folder is not None else None
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status else None
