"""What stands for the Rust handlers: one process, ``orjson.loads`` for each line, the whole result in memory.

``python -m tests.bench.baseline TREE`` prints a ``Measured`` as JSON, without what the start and the imports took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, NamedTuple

import orjson

from tests.bench.process import begin_peak, status_bytes


class Measured(NamedTuple):
    """Work in a process of its own, without its start."""

    wall_s: float
    cpu_s: float
    above_idle_bytes: int
    messages: int


def analyse(openclaw_dir: str) -> list[dict[str, Any]]:
    result = []
    now_ms = time.time() * 1000
    agents = os.path.join(openclaw_dir, "agents")
    for agent in sorted(os.listdir(agents)):
        folder = os.path.join(agents, agent, "sessions")
        with open(os.path.join(folder, "sessions.json"), "rb") as file:
            index = {entry["sessionId"]: entry for entry in orjson.loads(file.read()).values()}
        names = (name for name in sorted(os.listdir(folder)) if name.endswith(".jsonl"))
        result += [analyse_file(agent, folder, name, index, now_ms) for name in names]
    return result


def analyse_file(agent: str, folder: str, name: str, index: dict[str, Any], now_ms: float) -> dict[str, Any]:
    path = os.path.join(folder, name)
    messages = users = assistants = 0
    last_activity = None
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        for line in file:
            entry = orjson.loads(line)
            if entry.get("type") == "message":
                messages += 1
                role = entry["message"].get("role")
                users += role == "user"
                assistants += role == "assistant"
                last_activity = entry.get("timestamp", last_activity)
    known = index.get(name.removesuffix(".jsonl"), {})
    age_days = max(0.0, (now_ms - known.get("updatedAt", 0)) / 86_400_000)
    empty, low_value = size < 500 or not messages, users <= 1 and age_days > 7
    return {
        "agent": agent,
        "sessionId": name.removesuffix(".jsonl"),
        "filePath": path,
        "sizeBytes": size,
        "messageCount": messages,
        "userMessageCount": users,
        "assistantMessageCount": assistants,
        "lastActivity": last_activity,
        "ageDays": age_days,
        "totalTokens": known.get("totalTokens", 0),
        "model": known.get("model"),
        "category": "empty" if empty else "low_value" if low_value else "valuable",
        "kind": "sessions",
    }


def main() -> None:
    own_pid = os.getpid()
    begin_peak(own_pid)
    idle_bytes = status_bytes(own_pid, "VmRSS")
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    result = analyse(sys.argv[1])
    orjson.dumps(result)
    wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    messages = sum(session["messageCount"] for session in result)
    measured = Measured(wall_s, cpu_s, status_bytes(own_pid, "VmHWM") - idle_bytes, messages)
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
