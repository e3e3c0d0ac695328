"""Write OpenClaw state directories of any size, always the same ones for the same seed.

The demo, the tests and the benchmarks all use these files. Lines have the shapes, key orders and sizes that OpenClaw
2026.7.1 writes: entries of a median of about 300 bytes, tool results up to 160 KB, a rare base64 image. Text is drawn
from a pool made once, so that a gigabyte takes seconds.
"""

from __future__ import annotations

import json
import os
import random
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_DAY_MS = 86_400_000
_WORDS = [
    "the",
    "session",
    "tool",
    "file",
    "path",
    "error",
    "build",
    "test",
    "agent",
    "result",
    "line",
    "read",
    "write",
    "check",
    "value",
    "config",
    "update",
    "branch",
    "commit",
    "server",
    "client",
    "message",
    "token",
    "batch",
    "stream",
    "handle",
    "cancel",
    "memory",
    "limit",
    "return",
    "import",
    "class",
    "function",
    "async",
    "await",
    "yield",
    "queue",
    "buffer",
    "parse",
    "decode",
    "encode",
    "index",
    "store",
    "archive",
    "preview",
    "backup",
    "restore",
    "digest",
    "manifest",
    "host",
    "connection",
    "channel",
    "key",
    "trust",
    "naïve",
    "café",
    "größe",
    "数据",
    "会话",
    "備份",
    "🙂",
    "✓",
]
_PIECES = 400
_MODELS = (("anthropic", "claude-sonnet-4-5"), ("openai", "gpt-5.2"), ("moonshot", "kimi-k2"))
_TOOLS = ("exec", "read", "write", "web_fetch")


@dataclass(frozen=True, slots=True)
class AgentPlan:
    """What to write for one agent: how many sessions, and about how long each transcript is."""

    name: str
    sessions: int
    session_bytes: int
    index_entry_bytes: int = 1_500
    header_only_share: float = 1 / 12


def write_tree(root: Path, agents: tuple[AgentPlan, ...], *, seed: int = 1, now_ms: int) -> None:
    """Write ``openclaw.json`` and ``agents/<name>/sessions``, transcripts and ``sessions.json``, below ``root``."""
    write_config(root)
    for number, plan in enumerate(agents):
        SampleWriter(seed * 1_000 + number, now_ms).write_agent(root / "agents" / plan.name, plan)


def write_config(root: Path) -> None:
    """Write ``openclaw.json`` into ``root``, which is made if it is not there."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "openclaw.json").write_text('{\n  // made by the sample writer\n  "gateway": {"mode": "local"},\n}\n')


class SampleWriter:
    """Makes transcripts and indexes of one agent from one seed."""

    def __init__(self, seed: int, now_ms: int) -> None:
        self._random = random.Random(seed)
        self._now_ms = now_ms
        self._short = [self._text(40, 240) for _ in range(_PIECES)]
        self._medium = [self._text(600, 4_000) for _ in range(_PIECES // 4)]
        self._long = [self._text(20_000, 60_000) for _ in range(8)]
        self._image = "iVBORw0KGgo" + "".join(self._random.choices("ABCDEFGHabcdefgh0123456789+/", k=120_000))

    def write_agent(self, folder: Path, plan: AgentPlan) -> None:
        sessions = folder / "sessions"
        sessions.mkdir(parents=True, exist_ok=True)
        with open(sessions / "sessions.json", "w", encoding="utf-8") as index:
            index.write("{")
            for number, (session_id, updated_ms, transcript) in enumerate(self.sessions(plan)):
                path = sessions / f"{session_id}.jsonl"
                write_dated(path, transcript, updated_ms)
                index.write(",\n  " if number else "\n  ")
                entry = self.index_entry(session_id, str(path), updated_ms, plan.index_entry_bytes)
                key = "main" if number == 0 else f"explicit:{session_id}"
                text = json.dumps(entry, indent=2, ensure_ascii=False).replace("\n", "\n  ")
                index.write(f'"agent:{plan.name}:{key}": {text}')
            index.write("\n}")

    def sessions(self, plan: AgentPlan) -> Iterator[tuple[str, int, Iterator[bytes]]]:
        """Yield the id, the time of the last change, and the lines of each session, which are to be taken at once."""
        for _ in range(plan.sessions):
            session_id = self.uuid()
            updated_ms = self._now_ms - int(self._random.expovariate(1 / 20) * _DAY_MS)
            header_only = self._random.random() < plan.header_only_share
            yield session_id, updated_ms, self._cut(session_id, 0 if header_only else plan.session_bytes, updated_ms)

    def _cut(self, session_id: str, size_bytes: int, updated_ms: int) -> Iterator[bytes]:
        """Whole lines up to about ``size_bytes``; 0 gives the bare header that a reset leaves."""
        produced = 0
        for line in self.lines(session_id, updated_ms - _DAY_MS // 4, size_bytes):
            if not produced or produced + len(line) <= size_bytes * 1.02:
                produced += len(line)
                yield line
            elif produced > size_bytes * 0.9:
                break

    def lines(self, session_id: str, started_ms: int, size_bytes: int) -> Iterator[bytes]:
        """Yield lines of one transcript, header first; somewhat more of them than ``size_bytes``."""
        rng = self._random
        provider, model = rng.choice(_MODELS)
        clock_ms, parent = started_ms, "null"

        def entry(kind: str, rest: str) -> bytes:
            nonlocal clock_ms, parent
            clock_ms += rng.randrange(300, 9_000)
            this = f"{rng.getrandbits(32):08x}"
            line = f'{{"type":"{kind}","id":"{this}","parentId":{parent},"timestamp":"{iso_time(clock_ms)}",{rest}}}\n'
            parent = f'"{this}"'
            return line.encode()

        def message(body: str) -> bytes:
            return entry("message", f'"message":{{{body},"timestamp":{clock_ms}}}')

        def usage() -> str:
            count = rng.randrange(20_000)
            return (
                f'"api":"openai-completions","provider":"{provider}","model":"{model}","usage":{{"input":{count},'
                f'"output":{count // 30},"cacheRead":{count // 2},"cacheWrite":0,"totalTokens":{count + count // 30},'
                '"cost":{"input":0.0329,"output":0.0003,"cacheRead":0.0032,"cacheWrite":0,"total":0.0366}}'
            )

        yield (
            f'{{"type":"session","version":3,"id":"{session_id}","timestamp":"{iso_time(clock_ms)}",'
            '"cwd":"/home/user/.openclaw/workspace"}\n'
        ).encode()
        if not size_bytes:
            return
        yield entry("model_change", f'"provider":"{provider}","modelId":"{model}"')
        yield entry("thinking_level_change", '"thinkingLevel":"low"')
        produced = 600
        while produced < size_bytes * 1.2 + 4_000:
            turn = [message(f'"role":"user","content":{rng.choice(self._short)}')]
            for _ in range(rng.choice((0, 0, 1, 1, 2, 4))):
                tool, call_id = rng.choice(_TOOLS), f"call_{rng.getrandbits(40):010x}"
                call = f'"id":"{call_id}","name":"{tool}","arguments":{{"command":{rng.choice(self._short)}}}'
                blocks = f'{self._text_block(self._short)},{{"type":"toolCall",{call}}}'
                turn.append(message(f'"role":"assistant","content":[{blocks}],{usage()},"stopReason":"toolUse"'))
                about = f'"role":"toolResult","toolCallId":"{call_id}","toolName":"{tool}"'
                turn.append(message(f'{about},"content":[{self._tool_output(size_bytes)}],"isError":false'))
            thinking = f'{{"type":"thinking","thinking":{rng.choice(self._short)}}}'
            answer = self._text_block(self._medium if rng.random() < 0.3 else self._short)
            turn.append(message(f'"role":"assistant","content":[{thinking},{answer}],{usage()},"stopReason":"stop"'))
            if rng.random() < 0.02:
                turn.append(
                    entry("compaction", f'"summary":{rng.choice(self._short)},"tokensBefore":120000,"fromHook":false')
                )
            produced += sum(map(len, turn))
            yield from turn

    def uuid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def _tool_output(self, size_bytes: int) -> str:
        draw = self._random.random()
        if draw < 0.01 and size_bytes > 400_000:
            image = f'{{"type":"image","data":"{self._image}","mimeType":"image/png"}}'
            return '{"type":"text","text":"Read image file [image/png]"},' + image
        if draw < 0.06 and size_bytes > 400_000:
            return self._text_block(self._long)
        return self._text_block(self._medium if draw < 0.5 else self._short)

    def _text_block(self, texts: list[str]) -> str:
        return f'{{"type":"text","text":{self._random.choice(texts)}}}'

    def _text(self, low: int, high: int) -> str:
        """A JSON string of words, with the escapes that real text has: newlines, quotes, tabs."""
        wanted, parts, length = self._random.randrange(low, high), [], 0
        while length < wanted:
            word = self._random.choice(_WORDS)
            draw = self._random.random()
            parts.append(
                f'"{word}"' if draw < 0.04 else f"{word}\n" if draw < 0.12 else f"\t{word}" if draw < 0.14 else word
            )
            length += len(word) + 1
        return json.dumps(" ".join(parts), ensure_ascii=False)

    def index_entry(self, session_id: str, path: str, updated_ms: int, size_bytes: int) -> dict[str, object]:
        provider, model = self._random.choice(_MODELS)
        return {
            "sessionId": session_id,
            "updatedAt": updated_ms,
            "sessionStartedAt": updated_ms - 3_600_000,
            "systemSent": True,
            "abortedLastRun": False,
            "chatType": "direct",
            "modelProvider": provider,
            "model": model,
            "inputTokens": self._random.randrange(30_000),
            "outputTokens": self._random.randrange(3_000),
            "totalTokens": self._random.randrange(60_000),
            "totalTokensFresh": True,
            "sessionFile": path,
            "systemPromptReport": {
                "source": "run",
                "tools": [
                    {"name": f"tool{n}", "schemaChars": 300 + n} for n in range(max(0, (size_bytes - 600) // 80))
                ],
            },
        }


def write_dated(path: Path, pieces: Iterable[bytes], changed_ms: int) -> None:
    """Write a file that was last changed at that time."""
    with open(path, "wb", buffering=1 << 20) as file:
        file.writelines(pieces)
    os.utime(path, (changed_ms / 1000, changed_ms / 1000))


def iso_time(ms: int) -> str:
    """As OpenClaw writes a time."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"
