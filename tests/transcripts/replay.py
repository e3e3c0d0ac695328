"""Play a transcript to a real sidecar and write down how it went.

``protocol/transcripts/README.md`` says what the lines of a transcript are, and which names stand in them for what
differs from run to run. After its last line the client closes stdin, and the sidecar must exit with 0 without another
word. Each transcript has one stream at a time, since the order between streams is not fixed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sidecar.transcripts.lines import ANY_CHUNKS, Line, as_text
from sidecar.transcripts.names import Names
from tests.client import COMMAND, SidecarProcess, environment
from tests.transcripts.sample_host import KEYS, Key, SampleHost

FOLDER = Path(__file__).parents[2] / "protocol" / "transcripts"
_YEAR_OF_SAMPLE = "2024"
CHUNKS = frozenset(
    {
        "sessions:chunk",
        "session-preview:page",
        "session-files:chunk",
        "backup:progress",
        "restore:progress",
        "verify:progress",
    }
)


def sent_methods(lines: Sequence[Line]) -> set[str]:
    """The commands that are called in a transcript, alone or in a batch."""
    methods = set()
    for line in lines:
        if line.kind == ">":
            try:
                sent = json.loads(line.text)
            except ValueError:
                continue
            for call in sent if isinstance(sent, list) else [sent]:
                if isinstance(call, dict) and isinstance(call.get("method"), str):
                    methods.add(call["method"])
    return methods


def key_of_host(lines: Sequence[Line]) -> Key | None:
    """What a transcript wants to be known of its host's key; ``None`` if it has no host."""
    for line in lines:
        word, _, key = line.text.partition(" ")
        if line.kind == "$" and word == "host":
            return next(known for known in KEYS if known == (key or "trusted"))
    return None


async def replay(
    lines: Sequence[Line], home: Path, host: SampleHost | None = None, command: Sequence[str] = COMMAND
) -> list[Line]:
    """The transcript as it went: its own comments and sent lines, and what the sidecar had to say in between."""
    names = names_of(home, host)
    env = dict(names.real(line.text).split("=", 1) for line in lines if line.kind == "$" and "=" in line.text)
    went: list[Line] = []
    # The keys of an agent are those of who runs the tests.
    async with SidecarProcess(home, command=command, env={**environment(home), "SSH_AUTH_SOCK": "", **env}) as process:
        reader = _Reader(process, names)
        for line in lines:
            if line.kind == ">":
                await process.send(names.real(line.text).encode() + b"\n")
                went.append(line)
            elif line.kind != "<":
                went.append(line)
            elif line.text == ANY_CHUNKS:
                await reader.pass_over_chunks()
                went.append(line)
            elif (text := await reader.next()) is not None:
                went.append(Line("<", text))
        process.close_stdin()
        while (text := await reader.next()) is not None:
            went.append(Line("<", text))
        assert await process.exit_code() == 0
    return went


def names_of(home: Path, host: SampleHost | None) -> Names:
    """The names of a conversation over the sample home, whose own times are always the same."""
    texts = {"<openclaw>": str(home / ".openclaw"), "<home>": str(home)}
    if host is None:
        return Names(texts, fixed=_YEAR_OF_SAMPLE)
    texts |= {"<host-home>": str(host.home), "<fingerprint>": host.fingerprint}
    return Names(texts, fixed=_YEAR_OF_SAMPLE, rules={"port": ("<port>", host.port.__eq__)})


class _Reader:
    """Reads messages with names put in, one ahead where a ``< ...`` made it look."""

    def __init__(self, process: SidecarProcess, names: Names) -> None:
        self._process = process
        self._names = names
        self._ahead: list[Any] = []

    async def next(self) -> str | None:
        message = self._ahead.pop() if self._ahead else await self._process.read()
        return None if message is None else as_text(self._names.named(message))

    async def pass_over_chunks(self) -> None:
        self._names.counts_differ_from_now_on()
        while (message := await self._process.read()) is not None:
            if not (isinstance(message, dict) and message.get("method") in CHUNKS):
                self._ahead.append(message)
                return
