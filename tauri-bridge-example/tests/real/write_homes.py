"""Write homes into a folder: ``sample``, with sessions of both eras; ``large`` and ``huge``, to analyse for seconds."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from sidecar.demo.eras import EraPlan, write_both_eras
from tests.topics import write_topics

AGENTS = (
    EraPlan("main", 60_000, in_files=30, in_database=40, archives=12),
    EraPlan("research", 200_000, in_files=120, archives=5),
    EraPlan("scratch", 3_000, in_files=60),
)
LARGE_SESSIONS = 20_000
HUGE_SESSIONS = 50_000

folder = Path(sys.argv[1])
now_ms = time.time_ns() // 1_000_000
write_both_eras(folder / "sample" / ".openclaw", AGENTS, now_ms=now_ms)
write_topics(folder / "large", LARGE_SESSIONS, now_ms)
write_topics(folder / "huge", HUGE_SESSIONS, now_ms)
