"""Play a transcript to a real sidecar and write down how it went.

Each file of ``protocol/transcripts`` is one conversation with one process, a line for each thing that happens:

    # text      a comment; so is an empty line
    $ NAME=text an environment variable of the process, before the first other line
    $ host      the same place: there is a host over SSH (``sample_host.py``), of which the sidecar knows the key;
                ``$ host unknown``: it doesn't, ``$ host changed``: it knows another one
    > text      the client sends this line, as it is
    < json      the sidecar answers this, or notifies of it
    < ...       any number of lines that carry a part of a stream's result (``CHUNKS``), also none; another ``<`` line
                must follow

After its last line the client closes stdin, and the sidecar must exit with 0 without another word. Each transcript has
one stream at a time, since the order between streams is not fixed.

What differs from run to run stands as a name, in what is sent as well as in what comes:

* ``<handle-1>``, ``<handle-2>`` …: the handles of streams, in the order of their appearance;
* ``<backup-1>``, ``<backup-2>`` …: the names of snapshots that are made, in the order of their appearance;
  ``<time>``: the value of their ``createdAt``;
* ``<openclaw>``: the directory ``.openclaw`` of the sample home (``sample_home.py``), ``<home>``: that home itself;
* ``<host-home>``: the home of the host's user, a sample home too, ``<fingerprint>``: that of the host's key;
* ``<port>``: the value of ``port``, if it is the host's;
* ``<age>``: the value of ``ageDays``, ``<rate>``: that of ``uploadBytesPerSec`` and ``downloadBytesPerSec``, if it is a
  number of at least 0;
* ``<number>``: the value of a field of ``NUMBERS``, if it is a number above 0;
* ``<version>``: the value of ``version`` and ``protocolVersion``, if it is a text;
* after a ``< ...`` also ``<number>``: the value of ``seq`` and of the totals (``TOTALS``), if it is a number.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tests.client import SidecarProcess, environment
from tests.transcripts.sample_host import KEYS, Key, SampleHost

FOLDER = Path(__file__).parents[2] / "protocol" / "transcripts"
ANY_CHUNKS = "..."
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
NUMBERS = (
    "pid",
    "uptimeMs",
    "residentBytes",
    "peakBytes",
    "totalUploadBytes",
    "totalDownloadBytes",
    "updatedAtMs",
)
RATES = ("uploadBytesPerSec", "downloadBytesPerSec")
TOTALS = ("totalAgents", "totalSessions", "totalMessages", "totalFiles", "totalSizeBytes")

# Those of the sample home are older.
_SNAPSHOT = re.compile(r"\b20(?!24)\d\d-\d\d-\d\d_\d{6}(?:-\d+)?\b")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

Kind = Literal["#", "$", ">", "<"]


class Line(NamedTuple):
    """A line of a transcript: what it is, and its text."""

    kind: Kind
    text: str

    def __str__(self) -> str:
        return self.text if self.kind == "#" else f"{self.kind} {self.text}"


def read_transcript(path: Path) -> list[Line]:
    lines = [_parse(text) for text in path.read_text(encoding="utf-8").splitlines()]
    acts = [line for line in lines if line.kind != "#"]
    for line, following in zip(acts, [*acts[1:], None], strict=True):
        if line == Line("<", ANY_CHUNKS):
            assert following is not None, f"{path}: nothing after '< ...'"
            assert following.kind == "<", f"{path}: '< ...' before '{following}'"
            assert following.text != ANY_CHUNKS, f"{path}: '< ...' twice"
    return lines


def write_transcript(path: Path, lines: Sequence[Line]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


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


async def replay(lines: Sequence[Line], home: Path, host: SampleHost | None = None) -> list[Line]:
    """The transcript as it went: its own comments and sent lines, and what the sidecar had to say in between."""
    names = Names(home, host)
    env = dict(names.real(line.text).split("=", 1) for line in lines if line.kind == "$" and "=" in line.text)
    went: list[Line] = []
    # The keys of an agent are those of who runs the tests.
    async with SidecarProcess(home, env={**environment(home), "SSH_AUTH_SOCK": "", **env}) as process:
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


class Names:
    """Puts names for what differs from run to run, and takes them back."""

    def __init__(self, home: Path, host: SampleHost | None) -> None:
        self._texts = {"<openclaw>": str(home / ".openclaw"), "<home>": str(home)}
        self._handles: dict[str, str] = {}
        self._snapshots: dict[str, str] = {}
        self._rules: dict[str, tuple[str, Callable[[Any], bool]]] = {
            "createdAt": ("<time>", _is_of_now),
            "ageDays": ("<age>", lambda value: _is_number(value) and value >= 0),
            **dict.fromkeys(RATES, ("<rate>", lambda value: _is_number(value) and value >= 0)),
            **dict.fromkeys(NUMBERS, ("<number>", lambda value: _is_number(value) and value > 0)),
            **dict.fromkeys(("version", "protocolVersion"), ("<version>", lambda value: isinstance(value, str))),
        }
        if host is not None:
            self._texts |= {"<host-home>": str(host.home), "<fingerprint>": host.fingerprint}
            self._rules["port"] = ("<port>", host.port.__eq__)

    def counts_differ_from_now_on(self) -> None:
        for field in ("seq", *TOTALS):
            self._rules[field] = ("<number>", _is_number)

    def real(self, text: str) -> str:
        """``text`` with what its names stand for."""
        for name, meant in self._texts.items():
            text = text.replace(name, meant)
        for meant, name in (self._handles | self._snapshots).items():
            text = text.replace(name, meant)
        return text

    def named(self, value: Any, field: str = "") -> Any:
        """``value``, found in ``field``, with names in it."""
        if isinstance(value, dict):
            return {key: self.named(inner, key) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.named(inner) for inner in value]
        if field in self._rules:
            name, holds = self._rules[field]
            return name if holds(value) else value
        if isinstance(value, str):
            if field in {"result", "handleId"} and _is_uuid(value):
                return self._handles.setdefault(value, f"<handle-{len(self._handles) + 1}>")
            for name, meant in self._texts.items():
                value = value.replace(meant, name)
            value = _SNAPSHOT.sub(self._name_of_snapshot, value)
        return value

    def _name_of_snapshot(self, match: re.Match[str]) -> str:
        return self._snapshots.setdefault(match[0], f"<backup-{len(self._snapshots) + 1}>")


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


def as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _parse(text: str) -> Line:
    if not text or text.startswith("#"):
        return Line("#", text)
    for kind in ("$", ">", "<"):
        if text.startswith(f"{kind} "):
            return Line(kind, text[2:])
    raise ValueError(f"not a line of a transcript: {text}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_of_now(value: object) -> bool:
    """Whether it is a time, and none of the sample home's."""
    return isinstance(value, str) and bool(_TIME.fullmatch(value)) and not value.startswith("2024")


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
