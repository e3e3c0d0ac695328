"""A home with sessions in all kinds of stores, sound and damaged ones, and what a plain look at it must find."""

from __future__ import annotations

from pathlib import Path

from sidecar.demo.eras import EraPlan, write_both_eras
from sidecar.demo.sample import AgentPlan, SampleWriter
from tests.sqlite_trees import Archive, Schema, Session, SqliteAgent, stream_compressed

NOW_MS = 1_795_000_000_000
DAMAGED_AGENT = "damaged"
SESSIONS = 72 + 76 + 72 + 3 + 30 + 30 + 12 + 1
"""As ``write_home`` makes them, agent by agent; of those in the damaged one, one can be read."""

_LARGE_BYTES = 8_000_000
_OLD_SCHEMAS: tuple[Schema, ...] = (8, 19)


def write_home(home: Path) -> None:
    """Files and databases of both eras with the archives of each, one large session, damaged ones."""
    openclaw = home / ".openclaw"
    eras = (
        EraPlan("files", 20_000, in_files=60, archives=12),
        EraPlan("half", 30_000, in_files=20, in_database=40, archives=16),
        EraPlan("rows", 15_000, in_database=60, archives=12),
    )
    write_both_eras(openclaw, eras, now_ms=NOW_MS)
    agents = openclaw / "agents"
    SampleWriter(50, NOW_MS).write_agent(agents / "large", AgentPlan("large", 3, _LARGE_BYTES, header_only_share=0))
    for schema in _OLD_SCHEMAS:
        writer = SampleWriter(schema, NOW_MS)
        transcripts = [
            (session_id, b"".join(lines)) for session_id, _, lines in writer.sessions(AgentPlan("old", 30, 8_000))
        ]
        sessions = [Session(session_id, transcript, {"updatedAt": NOW_MS}) for session_id, transcript in transcripts]
        SqliteAgent(agents / f"schema{schema}", schema, sessions).close()
    _write_cold(agents / "cold")
    _write_damaged(agents / DAMAGED_AGENT)


def _write_cold(folder: Path) -> None:
    transcripts = [
        (session_id, b"".join(lines))
        for session_id, _, lines in SampleWriter(23, NOW_MS).sessions(AgentPlan("cold", 12, 40_000))
    ]
    cold = [
        Session(session_id, transcript, None, "file" if number % 2 else "sqlite")
        for number, (session_id, transcript) in enumerate(transcripts[:8])
    ]
    archives = [
        Archive(f"{session_id}.jsonl.deleted.2026-11-2{number}T10-00-00.000Z.{number:032x}.zst", transcript)
        for number, (session_id, transcript) in enumerate(transcripts[8:])
    ]
    SqliteAgent(folder, 23, cold, archives).close()


def _write_damaged(folder: Path) -> None:
    """A database that is none, a torn archive, torn lines, an index cut off."""
    (folder / "agent").mkdir(parents=True)
    (folder / "agent" / "openclaw-agent.sqlite").write_bytes(b"SQLite format 3\0" + b"\xff" * 5_000)
    sessions = folder / "sessions"
    sessions.mkdir()
    lines = list(SampleWriter(99, NOW_MS).lines("torn", NOW_MS, 20_000))
    (sessions / "torn.jsonl").write_bytes(
        b"".join(line[: -5 if number % 3 else None] for number, line in enumerate(lines))
    )
    frame = stream_compressed(b"".join(lines))
    (sessions / "cut.jsonl.reset.2026-11-20T10-00-00.000Z.zst").write_bytes(frame[: len(frame) // 2])
    (sessions / "sessions.json").write_bytes(b'{"agent:damaged:main": {"sessionId": "torn"')
