"""The home directory on which transcripts are played: the same bytes and times whenever it is written.

Its sessions are years old, so that how they are judged doesn't depend on the day. Beside ``.openclaw`` it holds other
homes, for transcripts that choose one: ``brief`` (two agents with one session each), ``large`` (an agent with many
sessions and one with a long one: any stream of either is more than a pipe holds) and ``broken`` (``agents`` is a file,
``.ssh/config`` is a folder, and ``.clawpal/instances.json`` is cut off).
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from sidecar.backup.manifest import Entry, Head, ManifestWriter

LONG_AGO_MS = 1_714_557_600_000
LARGE_SESSIONS = 1_200
LONG_SESSION_MESSAGES = 1_200
"""At 300 bytes or more for each, over twice of what a client reads at once and a pipe holds together."""

_INSTANCES = [
    {"id": "local", "instanceType": "local", "label": "This computer", "sshHostConfig": None},
    {
        "id": "ssh:attic",
        "instanceType": "remote_ssh",
        "label": "Attic",
        "openclawHome": "/srv/claw",
        "clawpalDataDir": None,
        "sshHostConfig": {
            "id": "ssh:attic",
            "label": "Attic",
            "host": "attic.example.org",
            "port": 22,
            "username": "me",
            "authMethod": "key",
            "keyPath": "~/.ssh/attic",
            "password": None,
            "colour": "#a0c0ff",
        },
    },
]
_ANSWER = "Here is what I found. " * 12


def write_sample_home(home: Path) -> None:
    agents = home / ".openclaw" / "agents"
    _write(agents / "main" / "sessions" / "budget.jsonl", _header("budget"), _ask(1), _answer(2), _ask(3), _answer(4))
    _write(
        agents / "main" / "sessions" / "greeting.jsonl", _header("greeting"), _ask(1), _answer(2), _answer(3), b'{"ty'
    )
    _write(agents / "main" / "sessions" / "reset.jsonl", _header("reset"))
    _write(agents / "main" / "sessions" / "budget.trajectory.jsonl", _ask(1))
    _write_index(agents / "main", {"budget": ("claude-sonnet-4-5", 48_211), "greeting": ("gpt-5.2", 912)})
    _write(agents / "research" / "sessions" / "paper-topic-4.jsonl", _header("other"), _ask(1), _answer(2), _answer(3))
    _write(agents / "research" / "sessions_archive" / "notes.jsonl", _header("notes"), _ask(1), _answer(2), _ask(3))
    (agents / "research" / "sessions" / "lost.jsonl").symlink_to("moved-away.jsonl")
    _write_index(agents / "research", {"paper": ("kimi-k2", 5_120)})
    (agents / "scratch" / "sessions").mkdir(parents=True)
    _write(home / ".clawpal" / "instances.json", json.dumps({"instances": _INSTANCES, "version": 3}).encode())
    _write(home / ".ssh" / "config", b"Include more\n\nHost *\n    User dev\n    IdentityFile ~/.ssh/id_ed25519\n")
    _write(
        home / ".ssh" / "more", b"Host lab\n    HostName %h.example.org\n    Port 2222\nHost attic lab-?\n    User me\n"
    )

    _write_snapshots(home / ".clawpal" / "backups")

    brief = home / "brief" / ".openclaw" / "agents"
    _write(brief / "main" / "sessions" / "hello.jsonl", _header("hello"), _ask(1), _answer(2), _ask(3), _answer(4))
    _write(brief / "research" / "sessions" / "reset.jsonl", _header("reset"))

    large = home / "large" / ".openclaw" / "agents"
    first = large / "main" / "sessions" / "s-0000.jsonl"
    _write(first, _header("s"), _ask(1), _answer(2), _ask(3), _answer(4))
    for number in range(1, LARGE_SESSIONS):
        os.link(first, first.with_name(f"s-{number:04}.jsonl"))
    _write(large / "talk" / "sessions" / "long.jsonl", _header("long"), _answer(1) * LONG_SESSION_MESSAGES)

    (home / "broken" / ".openclaw").mkdir(parents=True)
    (home / "broken" / ".openclaw" / "agents").write_text("a file where a folder should be")
    _write(home / "broken" / ".clawpal" / "instances.json", b'{"instances": [{"id": "ssh:lab"')
    (home / "broken" / ".ssh" / "config").mkdir(parents=True)


def _write_snapshots(backups: Path) -> None:
    """One without a manifest, and one of which a file isn't what its manifest says."""
    _write(backups / "by-hand" / "openclaw.json", b"{}\n")
    os.utime(backups / "by-hand", (LONG_AGO_MS / 1000, LONG_AGO_MS / 1000))
    damaged = backups / "2024-05-01_100000"
    _write(damaged / "openclaw.json", b"{}\n")
    with open(f"{damaged}.manifest.jsonl", "wb") as file:
        writer = ManifestWriter(file, Head("2024-05-01T10:00:00Z", "/home/user/.openclaw", include_sessions=True))
        writer.add(Entry("dir", b"", mode=0o755))
        writer.add(
            Entry("file", b"openclaw.json", 0o644, LONG_AGO_MS * 1_000_000, 3, hashlib.sha256(b"[]\n").hexdigest())
        )
        writer.close()
    os.utime(f"{damaged}.manifest.jsonl", (LONG_AGO_MS / 1000, LONG_AGO_MS / 1000))


def _write(path: Path, *lines: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(lines))
    os.utime(path, (LONG_AGO_MS / 1000, LONG_AGO_MS / 1000))


def _write_index(agent: Path, sessions: dict[str, tuple[str, int]]) -> None:
    index = {
        f"agent:{agent.name}:{session_id}": {
            "sessionId": session_id,
            "updatedAt": LONG_AGO_MS,
            "model": model,
            "totalTokens": tokens,
        }
        for session_id, (model, tokens) in sessions.items()
    }
    (agent / "sessions" / "sessions.json").write_text(json.dumps(index, indent=2))


def _header(session_id: str) -> bytes:
    return _line({"type": "session", "version": 3, "id": session_id, "timestamp": _time(0), "cwd": "/home/user"})


def _ask(minute: int) -> bytes:
    return _message(minute, "user", "What about the second one?")


def _answer(minute: int) -> bytes:
    return _message(minute, "assistant", [{"type": "text", "text": _ANSWER}])


def _message(minute: int, role: str, content: object) -> bytes:
    return _line(
        {
            "type": "message",
            "id": f"{minute:08x}",
            "timestamp": _time(minute),
            "message": {"role": role, "content": content},
        }
    )


def _time(minute: int) -> str:
    return f"2024-05-01T10:{minute:02}:00.000Z"


def _line(entry: dict[str, object]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"
