"""A peer that plays the sidecar's side of a transcript to a client under test.

What a name stands for is invented here, the same each time: ``protocol/transcripts/README.md`` lists it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sidecar import PROTOCOL_VERSION, __version__
from sidecar.cancel import CancelToken
from sidecar.errors import InvalidParams
from sidecar.limits import MAX_LINE_BYTES, READ_BYTES
from sidecar.server import schema
from sidecar.server.command import Context
from sidecar.server.commands import COMMANDS
from sidecar.transcripts.lines import ANY_CHUNKS, Line, as_text, read_transcript
from sidecar.transcripts.names import SECRET, without_secrets
from sidecar.wire.framing import LineFramer, LineTooLong
from sidecar.wire.messages import Call, Item, Rejected, parse_line, result_line

HOME = "/home/user"
FINGERPRINT = "SHA256:" + "0" * 43
NUMBERS: dict[Any, Any] = {"<number>": 1, "<age>": 1.5, "<rate>": 0, "<port>": 22}
TEXTS = {
    "<openclaw>": f"{HOME}/.openclaw",
    "<home>": HOME,
    "<host-home>": HOME,
    "<fingerprint>": FINGERPRINT,
    "<time>": "2026-01-01T00:00:00Z",
    "<free>": "0.0 MiB",
}
VERSIONS = {"version": __version__, "protocolVersion": PROTOCOL_VERSION}
HANDSHAKE = frozenset({"ping", "get_sidecar_info", "rpc.discover"})
"""What a client may ask at any time: where the transcript doesn't have it, it is answered as a sidecar does."""

_HANDLE = re.compile(r"<handle-(\d+)>")
_SNAPSHOT = re.compile(r"<backup-(\d+)>")
_BY_NAME = {command.name: command for command in COMMANDS}


def play(path: Path) -> int:
    """Play a transcript to the client behind stdin and stdout; 0 if it said what stands there.

    Else 1, and stderr says what it said instead. ``OSError`` and ``ValueError`` as ``read_transcript`` has them.
    """
    peer = Peer(read_transcript(path))
    framer = LineFramer()
    try:
        while not peer.ended and (data := os.read(0, READ_BYTES)):
            _take(peer, framer.feed(data))
        if not peer.ended:
            _take(peer, framer.finish())
            peer.finish()
    except Unexpected as problem:
        print(f"{path.name}: {problem}", file=sys.stderr)  # noqa: T201 (this is a tool)
        return 1
    return 0


def _take(peer: Peer, lines: Sequence[bytes | LineTooLong]) -> None:
    for line in lines:
        if isinstance(line, LineTooLong):
            raise Unexpected(f"the client sent a line of over {MAX_LINE_BYTES} bytes")
        for said in peer.take(line):
            sys.stdout.buffer.write(said)
        sys.stdout.flush()


class Unexpected(Exception):
    """The client did something else than the transcript; the message says what, and what was due."""


class Peer:
    """One conversation, without any I/O: what the client sends goes in, what is to be sent comes out.

    ``ended`` is true when it says no more, though the client may have left its end open.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        self._acts = [line for line in lines if line.kind in {">", "<"} and line.text != ANY_CHUNKS]
        self._place = 0
        self._waiting: list[str] = []
        self._ids: dict[str, bytes] = {}
        self._next_seq: dict[str, int] = {}
        self._context = Context(running=_Nothing(), stop=lambda: None)
        self.ended = False
        self._expect()

    def take(self, line: bytes) -> list[bytes]:
        """The lines that answer one of the client's, which comes without its LF; ``Unexpected`` if it isn't due."""
        given = parse_line(line)
        for number, expected in enumerate(self._waiting):
            if self._is_said(parse_line(expected.encode()), given):
                del self._waiting[number]
                self.ended = self.ended or _asks_to_end(given)
                return self._speak()
        answer = self._handshake(given)
        if answer is None:
            due = "\n  ".join(self._waiting) or "nothing more"
            raise Unexpected(f"the client sent\n  {line.decode('utf-8', 'replace')}\nbut due was\n  {due}")
        return [answer]

    def finish(self) -> None:
        """The client has closed its end; ``Unexpected`` if it had still something to say."""
        if self._waiting:
            raise Unexpected("the client closed its end, but due was\n  " + "\n  ".join(self._waiting))

    def _expect(self) -> None:
        """What the client says before it hears the next line may come in any order."""
        while self._place < len(self._acts) and self._acts[self._place].kind == ">":
            self._waiting.append(filled_text(self._acts[self._place].text))
            self._place += 1

    def _speak(self) -> list[bytes]:
        """What is said when the client has said all that comes before it."""
        said: list[bytes] = []
        if self._waiting:
            return said
        while self._place < len(self._acts) and self._acts[self._place].kind == "<":
            said.append(self._line(json.loads(self._acts[self._place].text)))
            self._place += 1
        self._expect()
        return said

    def _is_said(self, wanted: Item | list[Item], given: Item | list[Item]) -> bool:
        if isinstance(wanted, list) != isinstance(given, list) or len(_items(wanted)) != len(_items(given)):
            return False
        pairs = list(zip(_items(wanted), _items(given), strict=True))
        if not all(_is_same(one, other) for one, other in pairs):
            return False
        for one, other in pairs:
            if one.id_json is not None and other.id_json is not None:
                self._ids[_id(one.id_json)] = other.id_json
        return True

    def _handshake(self, item: Item | list[Item]) -> bytes | None:
        if not isinstance(item, Call) or item.id_json is None or item.method not in HANDSHAKE:
            return None
        command = _BY_NAME[item.method]
        value = command.run(self._context, None)
        return result_line(item.id_json, value(CancelToken()) if command.kind == "job" else value)

    def _line(self, message: Any) -> bytes:
        filled = self._filled(message)
        if isinstance(filled, list):
            return b"[" + b",".join(map(self._text, filled)) + b"]\n"
        return self._text(filled) + b"\n"

    def _text(self, message: dict[str, Any]) -> bytes:
        """A message, with the id as the client spelled it."""
        if "method" in message:
            self._number(message["params"])
            return _dump(message)
        id_json = _dump(message["id"])
        rest = _dump({key: value for key, value in message.items() if key not in {"jsonrpc", "id"}})
        return b'{"jsonrpc":"2.0","id":%b,%b' % (self._ids.get(_id(id_json), id_json), rest[1:])

    def _number(self, params: dict[str, Any]) -> None:
        """See to it that no number is left out of a handle's, though lines were."""
        handle = params["handleId"]
        if params["seq"] == "<number>":
            params["seq"] = self._next_seq.get(handle, 0)
        self._next_seq[handle] = params["seq"] + 1

    def _filled(self, value: Any, field: str = "") -> Any:
        if isinstance(value, dict):
            return {key: self._filled(inner, key) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._filled(inner) for inner in value]
        if value == "<version>":
            return VERSIONS.get(field, value)
        if isinstance(value, str):
            return value if field == "seq" else NUMBERS.get(value, filled_text(value))
        return value


class _Nothing:
    """The streams that run: a peer has none that could be counted."""

    def __len__(self) -> int:
        return 0

    def cancel(self, _: str) -> bool:
        return False


def filled_text(text: str) -> str:
    """``text`` with what its names stand for here."""
    for name, meant in TEXTS.items():
        text = text.replace(name, meant)
    text = _HANDLE.sub(lambda match: f"00000000-0000-4000-8000-{int(match[1]):012}", text)
    return _SNAPSHOT.sub(lambda match: f"2026-01-01_{int(match[1]):06}", text)


def _items(parsed: Item | list[Item]) -> list[Item]:
    return parsed if isinstance(parsed, list) else [parsed]


def _asks_to_end(parsed: Item | list[Item]) -> bool:
    return any(isinstance(item, Call) and item.method == "shutdown" for item in _items(parsed))


def _is_same(wanted: Item, given: Item) -> bool:
    """Whether both ask for the same: the same arguments, however they are given; ids may differ."""
    if (wanted.id_json is None) != (given.id_json is None):
        return False
    if isinstance(wanted, Rejected) or isinstance(given, Rejected):
        return isinstance(wanted, Rejected) and isinstance(given, Rejected) and str(wanted.error) == str(given.error)
    return wanted.method == given.method and _arguments(wanted, wanted) == _arguments(given, wanted)


def _arguments(call: Call, wanted: Call) -> object:
    """A value that is equal for what means the same. What the transcript keeps secret is not looked at."""
    command = _BY_NAME.get(call.method)
    if command is None or command.params is None:
        return call.params if command is None else None
    named = schema.by_name(command.params, call.params if isinstance(call.params, dict) else tuple(call.params))
    if SECRET in json.dumps(wanted.params):
        named = without_secrets(named)
    try:
        return schema.parse(command.params, named)
    except InvalidParams:
        return call.params


def _id(id_json: bytes) -> str:
    return json.dumps(json.loads(id_json))


def _dump(value: Any) -> bytes:
    return as_text(value).encode()
