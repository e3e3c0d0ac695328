"""The home directory on which transcripts are played: the same bytes and times whenever it is written.

Its sessions are years old, so that how they are judged doesn't depend on the day. Beside ``.openclaw`` it holds other
homes, for transcripts that choose one:

* ``brief``: two agents with one session each;
* ``large``: an agent with many sessions and one with a long one: any stream of either is more than a pipe holds;
* ``huge``: a file of 1 TiB in ``.openclaw`` and another in a snapshot, for which no disk has room and which no check
  gets through while somebody waits (they take nothing of the disk), and an archived session of over 256 MiB of text;
* ``broken``: ``agents`` and ``.clawpal/backups`` are files, ``.ssh/config`` is a folder, ``.clawpal/instances.json`` is
  cut off;
* ``damaged``: an agent whose database is none, and one with an archived session whose compressed data is cut off;
* ``busy``: a session in use, as its lock says, which counts for half an hour and is of the year 2100;
* ``blocked``: ``.openclaw`` is a file. Like ``busy``, it has a snapshot to restore.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path

import zstandard

from sidecar.backup.manifest import Entry, Head, ManifestWriter

LONG_AGO_MS = 1_714_557_600_000
LARGE_SESSIONS = 1_200
"""At 300 bytes or more for each, over twice of what a client reads at once and a pipe holds together."""
LONG_SESSION_MESSAGES = 8_000
"""So too, and over what may wait here of what a host sends (512 KiB in the channel, as much behind it)."""
HUGE_BYTES = 2**40
"""Of a file that is one hole. At 10 GB/s it takes over a minute and a half to read, five times what a test waits."""
HUGE_SESSION_MESSAGES = 300
HUGE_MESSAGE_BYTES = 2**20
"""Together more than one answer may hold."""
HUGE_SESSION = "talk.jsonl.deleted.2024-05-01T10-00-00.000Z.zst"
SNAPSHOT = "2024-05-01_100000"
FAR_FROM_NOW_S = 4_102_444_800
"""The first second of the year 2100."""

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

    _write_brief(home / "brief")
    _write_large(home / "large")
    _write_huge(home / "huge")
    _write_broken(home / "broken")
    _write_damaged(home / "damaged")
    _write_busy(home / "busy")
    _write_blocked(home / "blocked")


def _write_brief(home: Path) -> None:
    agents = home / ".openclaw" / "agents"
    _write(agents / "main" / "sessions" / "hello.jsonl", _header("hello"), _ask(1), _answer(2), _ask(3), _answer(4))
    _write(agents / "research" / "sessions" / "reset.jsonl", _header("reset"))


def _write_large(home: Path) -> None:
    agents = home / ".openclaw" / "agents"
    first = agents / "main" / "sessions" / "s-0000.jsonl"
    _write(first, _header("s"), _ask(1), _answer(2), _ask(3), _answer(4))
    for number in range(1, LARGE_SESSIONS):
        os.link(first, first.with_name(f"s-{number:04}.jsonl"))
    _write(agents / "talk" / "sessions" / "long.jsonl", _header("long"), _answer(1) * LONG_SESSION_MESSAGES)


def _write_huge(home: Path) -> None:
    _write(home / ".openclaw" / "agents" / "main" / "sessions" / HUGE_SESSION, _huge_session())
    snapshot = home / ".clawpal" / "backups" / SNAPSHOT
    for tree in (home / ".openclaw", snapshot):
        _write(tree / "recording.bin")
        os.truncate(tree / "recording.bin", HUGE_BYTES)
        os.utime(tree / "recording.bin", (LONG_AGO_MS / 1000, LONG_AGO_MS / 1000))
    _write_manifest(snapshot, "recording.bin", HUGE_BYTES, hashlib.sha256(b"nobody gets that far").hexdigest())


def _write_broken(home: Path) -> None:
    _write(home / ".openclaw" / "agents", b"a file where a folder should be")
    _write(home / ".clawpal" / "backups", b"a file where a folder should be")
    _write(home / ".clawpal" / "instances.json", b'{"instances": [{"id": "ssh:lab"')
    (home / ".ssh" / "config").mkdir(parents=True)


def _write_damaged(home: Path) -> None:
    agents = home / ".openclaw" / "agents"
    _write(agents / "main" / "agent" / "openclaw-agent.sqlite", b"no database, but as long as the head of one. " * 4)
    _write(agents / "research" / "sessions" / "gone.jsonl.deleted.2024-05-01T10-00-00.000Z.zst", _cut_off())


def _write_busy(home: Path) -> None:
    session = home / ".openclaw" / "agents" / "main" / "sessions" / "hello.jsonl"
    _write(session, _header("hello"), _ask(1))
    lock = Path(f"{session}.lock")
    _write(lock, b"{}")
    os.utime(lock, (FAR_FROM_NOW_S, FAR_FROM_NOW_S))
    _write_snapshot_by_hand(home / ".clawpal" / "backups")


def _write_blocked(home: Path) -> None:
    _write(home / ".openclaw", b"a file where a folder should be")
    _write_snapshot_by_hand(home / ".clawpal" / "backups")


@cache
def _huge_session() -> bytes:
    message = _message(1, "assistant", "a" * HUGE_MESSAGE_BYTES)
    return zstandard.compress(_header("talk") + message * HUGE_SESSION_MESSAGES)


def _cut_off() -> bytes:
    whole = zstandard.compress(_header("gone") + _ask(1) + _answer(2))
    return whole[: len(whole) // 2]


def _write_snapshots(backups: Path) -> None:
    """One without a manifest, and one of which a file isn't what its manifest says."""
    _write_snapshot_by_hand(backups)
    _write(backups / SNAPSHOT / "openclaw.json", b"{}\n")
    _write_manifest(backups / SNAPSHOT, "openclaw.json", 3, hashlib.sha256(b"[]\n").hexdigest())


def _write_snapshot_by_hand(backups: Path) -> None:
    _write(backups / "by-hand" / "openclaw.json", b"{}\n")
    os.utime(backups / "by-hand", (LONG_AGO_MS / 1000, LONG_AGO_MS / 1000))


def _write_manifest(snapshot: Path, file: str, size_bytes: int, sha256: str) -> None:
    """That of a snapshot with one file in it."""
    path = Path(f"{snapshot}.manifest.jsonl")
    with path.open("wb") as stream:
        writer = ManifestWriter(stream, Head("2024-05-01T10:00:00Z", "/home/user/.openclaw", include_sessions=True))
        writer.add(Entry("dir", b"", mode=0o755))
        writer.add(Entry("file", file.encode(), 0o644, LONG_AGO_MS * 1_000_000, size_bytes, sha256))
        writer.close()
    os.utime(path, (LONG_AGO_MS / 1000, LONG_AGO_MS / 1000))


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
