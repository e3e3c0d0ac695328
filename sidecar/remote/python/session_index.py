"""What ``sessions.json`` says of sessions: the twin of ``sidecar/stores/session_index.py``."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Iterable, Iterator, NamedTuple

from sidecar.remote.python.blocks import ReadInto, RecordBlocks, Tick
from sidecar.remote.python.errors import BrokenIndex
from sidecar.remote.python.files import FileReader, open_regular
from sidecar.remote.python.json_values import UNREADABLE, refuse, text_in
from sidecar.remote.python.limits import MAX_INDEX_PIECE_BYTES

_MEMBER_END = b"\n  },\n"
_NO_MEMBER = re.compile(rb"\{\s*\}\s*")
_END_OF_WHOLE_NUMBERS = 2**62
_LONGEST_NUMBER = 1_000


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) < _LONGEST_NUMBER else float(digits)


_decode_index = json.JSONDecoder(parse_int=_whole_number, parse_constant=refuse).decode


class IndexEntry(NamedTuple):
    """What an index says of a session; ``updated_at_ms`` is 0 where it says nothing."""

    updated_at_ms: int = 0
    total_tokens: int = 0
    model: str | None = None


class SessionIndex:
    """What an index says of the sessions that it was asked to remember."""

    def __init__(self, session_ids: Iterable[str]) -> None:
        self._entries: dict[str, IndexEntry] = dict.fromkeys(session_ids, IndexEntry())
        self._models: dict[str | None, str | None] = {}

    def __getitem__(self, session_id: str) -> IndexEntry:
        return self._entries.get(session_id) or IndexEntry()

    def clear(self) -> None:
        """Forget what was remembered."""
        self._entries = dict.fromkeys(self._entries, IndexEntry())

    def remember(self, members: Iterable[Any]) -> None:
        """Keep what entries say; of two for one session, what the one updated later says."""
        for member in members:
            session_id = text_in(member, "sessionId") if type(member) is dict else None
            known = None if session_id is None else self._entries.get(session_id)
            if session_id is None or known is None:
                continue
            updated_at_ms = _count_in(member, "updatedAt")
            if updated_at_ms >= known.updated_at_ms:
                model = text_in(member, "model")
                tokens = _count_in(member, "totalTokens") if type(member.get("totalTokens")) is int else 0
                self._entries[session_id] = IndexEntry(updated_at_ms, tokens, self._models.setdefault(model, model))


def _count_in(member: dict[str, Any], name: str) -> int:
    value: Any = member.get(name)
    is_number = type(value) in {int, float}
    return int(value) if is_number and 0 <= value < _END_OF_WHOLE_NUMBERS else 0


def read_index(path: str, index: SessionIndex, tick: Tick) -> None:
    """Fill ``index`` from the ``sessions.json`` at ``path``; a missing file leaves it empty.

    ``BrokenIndex`` if it is not a JSON object (nothing is kept of it then), ``OSError`` if it can't be read.
    """
    try:
        file = open_regular(path)
    except FileNotFoundError:
        return
    try:
        for members in _pieces(FileReader(file, tick)):
            index.remember(members)
    except BaseException:
        index.clear()
        raise
    finally:
        os.close(file.fd)


def _pieces(read_into: ReadInto) -> Iterator[Iterable[Any]]:
    blocks = RecordBlocks(_MEMBER_END, MAX_INDEX_PIECE_BYTES)
    piece = bytearray()
    retry_at_bytes = 0
    last_was_whole = False
    while True:
        block = blocks.read(read_into)
        if block is None:
            break
        piece += memoryview(block.buffer)[block.start : block.end]
        if len(piece) > MAX_INDEX_PIECE_BYTES:
            raise BrokenIndex("the session index has a piece that can't be read, or an entry over the limit")
        if not piece.endswith(_MEMBER_END) or len(piece) < retry_at_bytes:
            continue
        piece[-2:] = b"}"
        members = decode_members(piece)
        if members is None:
            piece[-1:] = b",\n"
            retry_at_bytes = 2 * len(piece)
            continue
        yield members
        piece[:] = b"{"
        last_was_whole = True
    if last_was_whole and _NO_MEMBER.fullmatch(piece):
        raise BrokenIndex("the session index ends in a comma")
    members = None if blocks.overlong else decode_members(piece)
    if members is None:
        raise BrokenIndex("the session index is not a JSON object")
    yield members


def decode_members(text: bytes | bytearray) -> Iterable[Any] | None:
    """The values of a JSON object, ``None`` if ``text`` is not one."""
    try:
        members = _decode_index(text.decode("utf-8", "replace"))
    except UNREADABLE:
        return None
    return members.values() if type(members) is dict else None
