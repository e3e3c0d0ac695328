"""Look up what ``sessions.json`` says of an agent's sessions, without ever holding the whole file.

OpenClaw writes the file with two spaces of indent: an object whose members each end in a line ``  },``. It is decoded
in blocks of whole members; a file of another form is gathered until a piece decodes, at the end all of it, so that any
JSON object is read and only an odd one costs memory. Real files reach 42 MB for 831 sessions, most of it reports of the
system prompt.
"""

from __future__ import annotations

import os
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from typing import Annotated, TypeVar

import msgspec

from sidecar.cancel import CancelToken
from sidecar.core.analysis import IndexEntry
from sidecar.core.blocks import Block, RecordBlocks
from sidecar.core.transcript import REJECTED
from sidecar.errors import SidecarError
from sidecar.limits import MAX_INDEX_PIECE_BYTES
from sidecar.stores.files import BoundedReader, open_regular
from sidecar.text import mend_surrogates

_MEMBER_END = b"\n  },\n"
_NO_MEMBER = re.compile(rb"\{\s*\}\s*")
_END_OF_WHOLE_NUMBERS = 2**62
_WholeNumber = Annotated[int, msgspec.Meta(ge=0, lt=_END_OF_WHOLE_NUMBERS)]
_T = TypeVar("_T")


class BrokenIndex(SidecarError):
    """An item error: the sessions of the agent are analysed without it."""

    kind, code, meaning = "broken_index", -32012, "A session index is not a JSON object of entries."


class _IndexedSession(msgspec.Struct, rename="camel", gc=False):
    session_id: str | None = None
    updated_at: _WholeNumber = 0
    total_tokens: _WholeNumber = 0
    model: str | None = None


class _RawIndexedSession(msgspec.Struct, rename="camel", gc=False):
    session_id: msgspec.Raw = msgspec.Raw()
    updated_at: msgspec.Raw = msgspec.Raw()
    total_tokens: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()


_decode_members = msgspec.json.Decoder(dict[str, _IndexedSession]).decode
_decode_raw_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_raw_session = msgspec.json.Decoder(_RawIndexedSession).decode


class SessionIndex:
    """What an index says of the sessions it was asked to remember: 18 bytes for each, whatever the file's size."""

    def __init__(self, session_ids: list[str]) -> None:
        """``session_ids``: those to remember, sorted; one that occurs twice is fine."""
        self._ids = [
            session_id
            for session_id, before in zip(session_ids, ["", *session_ids], strict=False)
            if session_id != before
        ]
        self._next = 0
        self._models: list[str | None] = [None]
        self._model_numbers: dict[str | None, int] = {None: 0}
        self.clear()

    def clear(self) -> None:
        count = len(self._ids)
        self._updated_at_ms = array("q", bytes(8 * count))
        self._total_tokens = array("q", bytes(8 * count))
        self._model_of = array("H", bytes(2 * count))

    def __getitem__(self, session_id: str) -> IndexEntry:
        # Sessions are asked for in the order of their ids, nearly always.
        place = self._next
        if place >= len(self._ids) or self._ids[place] != session_id:
            place = bisect_left(self._ids, session_id)
            if place == len(self._ids) or self._ids[place] != session_id:
                return IndexEntry()
        self._next = place + 1
        return IndexEntry(self._updated_at_ms[place], self._total_tokens[place], self._models[self._model_of[place]])

    def remember(self, sessions: Iterable[_IndexedSession]) -> None:
        """Keep what ``sessions`` say; of two for one session, what the one updated later says."""
        ids, updated_at_ms = self._ids, self._updated_at_ms
        for session in sessions:
            if session.session_id is None:
                continue
            place = bisect_left(ids, session.session_id)
            if place == len(ids) or ids[place] != session.session_id or session.updated_at < updated_at_ms[place]:
                continue
            updated_at_ms[place] = session.updated_at
            self._total_tokens[place] = session.total_tokens
            self._model_of[place] = self._model_number(session.model)

    def _model_number(self, model: str | None) -> int:
        number = self._model_numbers.setdefault(model, len(self._models))
        if number == len(self._models):
            if number > 0xFFFF:
                raise BrokenIndex("the session index names more than 65,535 models")
            self._models.append(model)
        return number


def read_index(path: str, index: SessionIndex, token: CancelToken) -> None:
    """Fill ``index`` from the ``sessions.json`` at ``path``; a missing file leaves it empty.

    ``BrokenIndex`` if it is not a JSON object (nothing is kept of it then), ``OSError`` if it can't be read.
    """
    try:
        fd, size_bytes, _ = open_regular(path)
    except FileNotFoundError:
        return
    blocks = index_blocks()
    read_into = BoundedReader(fd, size_bytes, token)
    pieces = IndexPieces(index)
    try:
        while block := blocks.read(read_into):
            pieces.add(block)
        pieces.end(is_whole=not blocks.overlong)
    except BaseException:
        index.clear()
        raise
    finally:
        os.close(fd)


def index_blocks() -> RecordBlocks:
    """What cuts the text of an index into the blocks that ``IndexPieces`` takes."""
    return RecordBlocks(_MEMBER_END, MAX_INDEX_PIECE_BYTES)


class IndexPieces:
    """Fills an index with a text that is fed block by block. ``BrokenIndex`` if that is not a JSON object."""

    def __init__(self, index: SessionIndex) -> None:
        self._index = index
        self._piece = bytearray()
        self._retry_at_bytes = 0
        self._last_was_whole = False

    @property
    def waiting_bytes(self) -> int:
        """How much was fed that could not be decoded by itself."""
        return len(self._piece)

    def add(self, block: Block) -> None:
        piece = self._piece
        piece += memoryview(block.buffer)[block.start : block.end]
        if len(piece) > MAX_INDEX_PIECE_BYTES:
            raise BrokenIndex("the session index has a piece that can't be read, or an entry over the limit")
        if not piece.endswith(_MEMBER_END) or len(piece) < self._retry_at_bytes:
            return
        piece[-2:] = b"}"
        sessions = decode_members(piece)
        if sessions is None:
            piece[-1:] = b",\n"
            self._retry_at_bytes = 2 * len(piece)
            return
        self._index.remember(sessions)
        piece[:] = b"{"
        self._last_was_whole = True

    def end(self, *, is_whole: bool) -> None:
        """There is no more; ``is_whole``: nothing was passed over."""
        if self._last_was_whole and _NO_MEMBER.fullmatch(self._piece):
            raise BrokenIndex("the session index ends in a comma")
        sessions = decode_members(self._piece) if is_whole else None
        if sessions is None:
            raise BrokenIndex("the session index is not a JSON object")
        self._index.remember(sessions)


def decode_members(text: bytearray) -> list[_IndexedSession] | None:
    """The sessions of a JSON object, ``None`` if ``text`` is not one."""
    try:
        return list(_decode_members(text).values())
    except REJECTED:
        mend_surrogates(text, 0, len(text))
        _mend_utf8(text)
    try:
        members = _decode_raw_members(text)
    except REJECTED:
        return None
    sessions = [session for raw in members.values() if (session := _decode_loosely(raw))]
    # Raw values are views of the text, and a text with a view open can't be changed.
    members.clear()
    return sessions


def _decode_loosely(raw: msgspec.Raw) -> _IndexedSession | None:
    """An entry of which some fields may be of another type or out of range; such a field counts as absent."""
    try:
        fields = _decode_raw_session(raw)
    except REJECTED:
        return None
    return _IndexedSession(
        _scalar(fields.session_id, str),
        _time_ms(fields.updated_at),
        _scalar(fields.total_tokens, _WholeNumber) or 0,
        _scalar(fields.model, str),
    )


def _time_ms(raw: msgspec.Raw) -> int:
    """A time may have a fraction, which no clock of OpenClaw's writes but JavaScript allows."""
    whole_ms = _scalar(raw, _WholeNumber)
    if whole_ms is not None:
        return whole_ms
    time_ms = _scalar(raw, float) or 0.0
    return int(time_ms) if 0 <= time_ms < _END_OF_WHOLE_NUMBERS else 0


def _scalar(raw: msgspec.Raw, wanted: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(raw, type=wanted)
    except REJECTED:
        return None


def _mend_utf8(text: bytearray) -> None:
    """Replace each invalid sequence by U+FFFD, as decoding with replacement would."""
    try:
        text.decode()
    except UnicodeDecodeError:
        text[:] = text.decode("utf-8", "replace").encode()
