"""What stands for the Rust handlers: one process, ``orjson.loads`` for each line, the whole result in memory.

``python -m tests.bench.baseline TREE`` prints the seconds that it took, without the imports, and counts messages.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import orjson


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
    started_s = time.perf_counter()
    result = analyse(sys.argv[1])
    orjson.dumps(result)
    print(time.perf_counter() - started_s, sum(session["messageCount"] for session in result))


if __name__ == "__main__":
    main()
