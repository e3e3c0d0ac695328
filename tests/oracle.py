"""What CONTRACT section 2 says of transcripts and indexes, in the plainest way: whole files and ``json``.

Shares no code with the package, so that the two can only agree by both being right.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, NoReturn

import zstandard

JSON_WHITESPACE = b" \t\r\n"
MAX_TIMESTAMP_CHARS = 64
DAY_MS = 86_400_000
MAX_COUNT = 2**62

Wire = dict[str, Any]


def analyse_transcript(data: bytes) -> Wire:
    """The fields of a session that its transcript alone decides."""
    entries: list[Wire] = []
    skipped_lines = 0
    for line in data.split(b"\n"):
        if line.strip(JSON_WHITESPACE):
            try:
                entries.append(parse_object(line))
            except ValueError:
                skipped_lines += 1
    messages = [entry for entry in entries if entry.get("type") == "message"]
    roles = [entry["message"].get("role") for entry in messages if isinstance(entry.get("message"), dict)]
    timestamps = [text_of(entry.get("timestamp"), MAX_TIMESTAMP_CHARS) for entry in messages]
    return {
        "messageCount": len(messages),
        "userMessageCount": roles.count("user"),
        "assistantMessageCount": roles.count("assistant"),
        "lastActivity": next((found for found in reversed(timestamps) if found is not None), None),
        "headerId": text_of(entries[0].get("id")) if entries and entries[0].get("type") == "session" else None,
        "skippedLines": skipped_lines,
    }


def analyse_tree(openclaw_dir: str, now_ms: float) -> dict[str, list[Wire]]:
    """Every session of each agent that has one, agents by name, sessions by folder and stem."""
    agents_dir = os.path.join(openclaw_dir, "agents")
    names = sorted(os.listdir(agents_dir)) if os.path.isdir(agents_dir) else []
    agents = {wire_name(os.fsencode(name)): analyse_agent(os.path.join(agents_dir, name), now_ms) for name in names}
    return {agent: sessions for agent, sessions in agents.items() if sessions}


def analyse_agent(agent_dir: str, now_ms: float) -> list[Wire]:
    try:
        with open(os.path.join(agent_dir, "sessions", "sessions.json"), "rb") as file:
            index = read_index(file.read())
    except (OSError, ValueError):
        index = {}
    sessions = []
    for folder in ("sessions", "sessions_archive", "session-sqlite-import-archive"):
        path = os.path.join(agent_dir, folder)
        names = sorted(os.listdir(path)) if os.path.isdir(path) else []
        stems = sorted(name.removesuffix(".jsonl") for name in names if folder == "sessions" and is_transcript(name))
        archives = [name for name in names if is_archive(name, folder)]
        paths = [os.path.join(path, name) for name in (*(f"{stem}.jsonl" for stem in stems), *archives)]
        sessions += [analyse_session(path, index, now_ms) for path in paths if os.path.isfile(path)]
    return sessions


def analyse_session(path: str, index: dict[str, Wire], now_ms: float) -> Wire:
    with open(path, "rb") as file:
        data = file.read()
    if path.endswith(".zst"):
        data = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    counts = analyse_transcript(data)
    name = wire_name(os.fsencode(os.path.basename(path)))
    live = is_transcript(name) and os.path.basename(os.path.dirname(path)) == "sessions"
    stem, _, ending = name.rpartition(".jsonl")
    reason = re.match(r"\.(reset|deleted|imported)\b", ending)
    known = index.get(stem.split("-topic-")[0], {"updatedAt": 0, "totalTokens": 0, "model": None})
    age_days = max(0.0, (now_ms - (known["updatedAt"] or os.stat(path).st_mtime_ns / 1e6)) / DAY_MS)
    if len(data) < 500 or counts["messageCount"] == 0:
        category = "empty"
    elif counts["userMessageCount"] <= 1 and age_days > 7:
        category = "low_value"
    else:
        category = "valuable"
    return counts | {
        "agent": wire_name(os.fsencode(os.path.basename(os.path.dirname(os.path.dirname(path))))),
        "sessionId": stem if live else name,
        "filePath": wire_name(os.fsencode(path)),
        "sizeBytes": len(data),
        "ageDays": age_days,
        "totalTokens": known["totalTokens"],
        "model": known["model"],
        "category": category,
        "kind": "sessions" if live else "archive",
        "store": "jsonl",
        "archivedAs": reason[1] if reason else None,
    }


def read_index(data: bytes) -> dict[str, Wire]:
    """What ``sessions.json`` says, by session id; ``ValueError`` if it is not a JSON object."""
    index: dict[str, Wire] = {}
    for entry in parse_object(data).values():
        session_id = text_of(entry.get("sessionId")) if isinstance(entry, dict) else None
        if session_id is None:
            continue
        known = {
            "updatedAt": count_of(entry.get("updatedAt")),
            # As the app's Rust handlers read them: tokens as a u64, the time as a f64.
            "totalTokens": count_of(entry.get("totalTokens")) if isinstance(entry.get("totalTokens"), int) else 0,
            "model": text_of(entry.get("model")),
        }
        if session_id not in index or known["updatedAt"] >= index[session_id]["updatedAt"]:
            index[session_id] = known
    return index


def is_archive(name: str, folder: str) -> bool:
    if folder == "session-sqlite-import-archive":
        return re.search(r"\.jsonl\.imported-\d+$", name) is not None and ".trajectory.jsonl" not in name
    moved = re.search(
        r"\.jsonl\.(reset|deleted)\.\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(\.\d{3})?Z((\.[0-9a-f]{32})?\.zst)?$", name
    )
    return moved is not None or (folder == "sessions_archive" and is_transcript(name))


def is_transcript(name: str) -> bool:
    """OpenClaw writes traces and compaction checkpoints beside a transcript, under its name with something added."""
    if not name.endswith(".jsonl") or name == ".jsonl":
        return False
    return not re.search(r"\.(trajectory|checkpoint\.[^.]*)\.jsonl$", name, re.IGNORECASE)


def wire_name(name: bytes) -> str:
    """A name of any bytes as text: each byte that is not UTF-8 as U+FFFD and two hex digits.

    So are the three bytes of a real U+FFFD that could be read as that.
    """
    text = name.decode("utf-8", "surrogateescape")
    shown = ""
    for place, character in enumerate(text):
        if "\udc80" <= character <= "\udcff":
            shown += f"\ufffd{ord(character) - 0xDC00:02x}"
        elif character == "\ufffd" and re.match("[89a-f][0-9a-f]", text[place + 1 :]):
            shown += "\ufffdef\ufffdbf\ufffdbd"
        else:
            shown += character
    return shown


def parse_object(text: bytes) -> dict[str, Any]:
    """The JSON object that is all of ``text``; ``ValueError`` if there is none."""
    try:
        value = json.loads(text.decode("utf-8", "replace"), parse_int=_integer, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def text_of(value: object, max_chars: int | None = None) -> str | None:
    """A string with U+FFFD for each lone surrogate; ``None`` for what is no string, or a longer one."""
    if not isinstance(value, str) or (max_chars is not None and len(value) > max_chars):
        return None
    return re.sub("[\ud800-\udfff]", "\ufffd", value)


def count_of(value: object) -> int:
    """A whole number of something, 0 for what can't be one; a fraction of a millisecond is dropped."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    return int(value) if 0 <= value < MAX_COUNT else 0


def _integer(digits: str) -> float:
    """``int()`` refuses over 4,300 digits, which are JSON all the same."""
    return int(digits) if len(digits) < 1_000 else float(digits)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
