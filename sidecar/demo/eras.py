"""Write a home in which both eras of OpenClaw have left their sessions: files, databases, and archives of each.

That is how a home looks after an update: some agents are imported, one only half of it, others not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sidecar.demo.database import AgentDatabase, stream_compressed
from sidecar.demo.sample import AgentPlan, SampleWriter, iso_time, write_config, write_dated

_SESSIONS_PER_ORIGINAL = 4
_ARCHIVE_BYTES = 20_000

_TALK = (
    ("user", "I updated OpenClaw, and my old sessions are gone. Where are they?"),
    ("assistant", "Let me look into this agent's folder."),
    ("toolResult", ""),  # the names of the agent's files
    ("assistant", "All here: some in a database, some in files, and archives of both."),
    ("user", "Can I see them as one list?"),
    ("assistant", "You are looking at it."),
)


@dataclass(frozen=True, slots=True)
class EraPlan:
    """What to write for one agent: how many sessions of each era, how many archives, how long a transcript about."""

    name: str
    session_bytes: int
    in_files: int = 0
    in_database: int = 0
    archives: int = 0


DEMO_AGENTS = (
    EraPlan("main", 160_000, in_files=90, in_database=140, archives=32),
    EraPlan("research", 420_000, in_files=110, archives=10),
    EraPlan("scratch", 3_000, in_files=170),
    EraPlan("support", 24_000, in_database=320, archives=28),
)


def write_both_eras(root: Path, agents: tuple[EraPlan, ...] = DEMO_AGENTS, *, seed: int = 1, now_ms: int) -> None:
    """Write ``openclaw.json`` and ``agents/<name>`` below ``root``."""
    write_config(root)
    for number, plan in enumerate(agents):
        _AgentWriter(root / "agents" / plan.name, plan, seed * 1_000 + number, now_ms).write()


class _AgentWriter:
    """Writes one agent's folder."""

    def __init__(self, folder: Path, plan: EraPlan, seed: int, now_ms: int) -> None:
        self._folder = folder
        self._plan = plan
        self._now_ms = now_ms
        self._writer = SampleWriter(seed, now_ms)
        self._imports = folder / "session-sqlite-import-archive"

    def write(self) -> None:
        plan = self._plan
        (self._folder / "sessions").mkdir(parents=True)
        if plan.in_files:
            self._writer.write_agent(self._folder, AgentPlan(plan.name, plan.in_files, plan.session_bytes))
        if not plan.in_database:
            self._write_file_archives()
            return
        self._imports.mkdir()
        database = AgentDatabase(self._folder)
        with closing(database.connection) as connection:
            connection.execute("BEGIN")
            self._write_rows(database)
            self._write_database_archives(database)
            connection.execute("COMMIT")

    def _write_rows(self, database: AgentDatabase) -> None:
        """A talk that makes sense, and the rest. Of some the originals stay, as ``doctor --fix`` leaves them."""
        plan = AgentPlan(self._plan.name, self._plan.in_database - 1, self._plan.session_bytes)
        talk_id = self._writer.uuid()
        self._add_session(database, "main", talk_id, self._now_ms, self._talk(talk_id))
        for number, (session_id, updated_ms, transcript) in enumerate(self._writer.sessions(plan)):
            lines = list(transcript)
            self._add_session(database, f"explicit:{session_id}", session_id, updated_ms, lines)
            if number % _SESSIONS_PER_ORIGINAL == 0:
                write_dated(self._import_path(session_id), lines, updated_ms)

    def _add_session(
        self, database: AgentDatabase, key: str, session_id: str, updated_ms: int, lines: list[bytes]
    ) -> None:
        key = f"agent:{self._plan.name}:{key}"
        entry = self._writer.index_entry(session_id, "", updated_ms, 1_500)
        del entry["sessionFile"]  # the second era has none
        database.add_window(session_id, key, updated_ms)
        database.add_node(key, session_id, json.dumps(entry))
        database.add_rows(session_id, (line.removesuffix(b"\n") for line in lines), created_at_ms=updated_ms)

    def _write_file_archives(self) -> None:
        """Archives of the first era: the transcript itself, under another name."""
        for number, session_id, updated_ms, transcript in self._archived():
            path = self._archive_path(session_id, "deleted" if number % 2 else "reset", updated_ms)
            write_dated(path, (transcript,), updated_ms)

    def _write_database_archives(self, database: AgentDatabase) -> None:
        """Archives of four kinds in turn, of which the agent's folder may hold all."""
        for number, session_id, updated_ms, transcript in self._archived():
            kind = number % 4
            if kind == 0:
                write_dated(self._archive_path(session_id, "reset", updated_ms), (transcript,), updated_ms)
            elif kind == 1:  # an original whose session the database no longer has
                write_dated(self._import_path(session_id), (transcript,), updated_ms)
            else:
                path = self._archive_path(session_id, "deleted", updated_ms, f".{number:032x}.zst")
                frame = stream_compressed(transcript)
                key = f"agent:{self._plan.name}:explicit:{session_id}"
                database.add_transcript_archive(path.name, key, "deleted", frame, "zstd", updated_ms)
                if kind == 2:  # else OpenClaw has not come to write the file
                    write_dated(path, (frame,), updated_ms)

    def _archived(self) -> Iterator[tuple[int, str, int, bytes]]:
        plan = AgentPlan(self._plan.name, self._plan.archives, min(self._plan.session_bytes, _ARCHIVE_BYTES))
        for number, (session_id, updated_ms, transcript) in enumerate(self._writer.sessions(plan)):
            yield number, session_id, updated_ms, b"".join(transcript)

    def _archive_path(self, session_id: str, reason: str, at_ms: int, ending: str = "") -> Path:
        time = iso_time(at_ms).replace(":", "-")
        return self._folder / "sessions" / f"{session_id}.jsonl.{reason}.{time}{ending}"

    def _import_path(self, session_id: str) -> Path:
        name = f"agent_{self._plan.name}_explicit_{session_id}.{session_id}.jsonl.imported-{self._now_ms}"
        return self._imports / name

    def _talk(self, session_id: str) -> list[bytes]:
        """The lines of ``_TALK``, which has just ended."""
        started_ms = self._now_ms - len(_TALK) * 1_000
        names = sorted(path.name for path in (self._folder / "sessions").iterdir())
        listing = "".join(f"{name}\n" for name in ("openclaw-agent.sqlite", *names))
        lines: list[dict[str, object]] = [
            {"type": "session", "version": 4, "id": session_id, "timestamp": iso_time(started_ms), "cwd": "/home/user"}
        ]
        parent_id = None
        for number, (role, text) in enumerate(_TALK, 1):
            at_ms = started_ms + number * 1_000
            entry_id = f"{number:08x}-{session_id[9:]}"
            content = text if role == "user" else [{"type": "text", "text": text or listing}]
            entry = {"type": "message", "id": entry_id, "parentId": parent_id, "timestamp": iso_time(at_ms)}
            lines.append({**entry, "message": {"role": role, "content": content, "timestamp": at_ms}})
            parent_id = entry_id
        return [json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for line in lines]
