"""Homes of which the analysis is much longer than the transcripts."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sidecar.demo.sample import SampleWriter


def write_topics(home: Path, sessions: int, now_ms: int) -> None:
    """An agent ``main`` with that many topics ``s-topic-0000`` … of one session, links to one small file.

    The index gives their model a name of 7,000 letters, so that each takes as much and more on the wire.
    """
    folder = home / ".openclaw" / "agents" / "main" / "sessions"
    folder.mkdir(parents=True)
    first = folder / "s-topic-0000.jsonl"
    first.write_bytes(b"".join(list(SampleWriter(1, now_ms).lines("s", now_ms, 1_000))[:4]))
    for number in range(1, sessions):
        os.link(first, folder / f"s-topic-{number:04}.jsonl")
    entry = {"sessionId": "s", "updatedAt": now_ms, "totalTokens": 7, "model": "m" * 7_000}
    (folder / "sessions.json").write_text(json.dumps({"agent:main:main": entry}))
