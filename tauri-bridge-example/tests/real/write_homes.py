"""Write homes into a folder: those that are named, or all.

``sample`` has sessions of both eras, ``small`` a few files, ``large`` and ``huge`` are analysed for seconds, and
``long`` has a session of 100,000 messages.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sidecar.demo.eras import EraPlan, write_both_eras
from sidecar.demo.sample import iso_time
from tests.topics import write_topics

AGENTS = (
    EraPlan("main", 60_000, in_files=30, in_database=40, archives=12),
    EraPlan("research", 200_000, in_files=120, archives=5),
    EraPlan("scratch", 3_000, in_files=60),
)
SMALL_AGENTS = (EraPlan("main", 8_000, in_files=12, archives=2),)
LARGE_SESSIONS = 20_000
HUGE_SESSIONS = 50_000
LONG_MESSAGES = 100_000


def write_long(home: Path, now_ms: int) -> None:
    """An agent ``main`` with the session ``long``, whose messages are from one line to twenty."""
    folder = home / ".openclaw" / "agents" / "main" / "sessions"
    folder.mkdir(parents=True)
    with (folder / "long.jsonl").open("w") as file:
        file.write(json.dumps({"type": "session", "version": 4, "id": "long", "timestamp": iso_time(now_ms)}) + "\n")
        for number in range(LONG_MESSAGES):
            text = f"Message {number}. " + "Some words that fill a line. " * (number * 7 % 20)
            message = {"role": "assistant" if number % 2 else "user", "content": text}
            entry = {"type": "message", "id": f"{number:08x}", "timestamp": iso_time(now_ms), "message": message}
            file.write(json.dumps(entry) + "\n")


now_ms = time.time_ns() // 1_000_000
HOMES: dict[str, Callable[[Path], None]] = {
    "sample": lambda home: write_both_eras(home / ".openclaw", AGENTS, now_ms=now_ms),
    "small": lambda home: write_both_eras(home / ".openclaw", SMALL_AGENTS, now_ms=now_ms),
    "large": lambda home: write_topics(home, LARGE_SESSIONS, now_ms),
    "huge": lambda home: write_topics(home, HUGE_SESSIONS, now_ms),
    "long": lambda home: write_long(home, now_ms),
}
folder = Path(sys.argv[1])
for name in sys.argv[2:] or HOMES:
    HOMES[name](folder / name)
