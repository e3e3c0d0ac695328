"""``preview_session``, streamed and eager: the messages of one session, in the order of its transcript."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import msgspec

from sidecar.cancel import CancelToken
from sidecar.core.blocks import Block
from sidecar.core.preview import MessageReader, PageBuilder, PreviewMessage, PreviewPage
from sidecar.errors import ReplyTooLarge, SessionNotFound
from sidecar.limits import DEFAULT_PAGE_MESSAGES, KEPT_FREE_BYTES, MAX_PAGE_MESSAGES, MAX_REPLY_BYTES, MIB
from sidecar.streams.base import Event, Events, Outcome, sessions_closing

OpenTranscript = Callable[[CancelToken], Iterator[Block | None] | None]
"""Gives the transcript of the session as ``Home.transcript`` does."""

log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode


class PreviewDone(msgspec.Struct, rename="camel"):
    """The payload of ``session-preview:done``: what was sent up to the end, whatever the end was."""

    total_messages: int
    cancelled: bool
    skipped_lines: int


class PreviewStream:
    """``session-preview:page`` for the messages of a session, in the order of its transcript, and its ``:done``."""

    def __init__(
        self, open_transcript: OpenTranscript, agent_id: str, session_id: str, page_size: int | None = None
    ) -> None:
        self._open_transcript = open_transcript
        self._names = agent_id, session_id
        page_size = DEFAULT_PAGE_MESSAGES if page_size is None else page_size
        self._pages = PageBuilder(min(max(page_size, 1), MAX_PAGE_MESSAGES))
        self._reader = MessageReader()
        self._sent_messages = 0

    def events(self, token: CancelToken) -> Events:
        """``SessionNotFound``, or what the store raises where the transcript can't be read."""
        keep_freed_memory()
        pages = self._pages
        for messages in _messages(self._reader, self._open_transcript, self._names, token):
            for page in pages.add(messages):
                yield Event("session-preview:page", page)
            yield Event("session-preview:page", pages.take()) if pages.due else None
        if pages.waiting:
            yield Event("session-preview:page", pages.take())

    def sent(self, event: Event) -> None:
        assert isinstance(event.payload, PreviewPage)
        self._sent_messages = event.payload.total_messages

    def closing(self, outcome: Outcome) -> list[Event]:
        done = PreviewDone(self._sent_messages, outcome.cancelled, self._reader.skipped_lines)
        return sessions_closing(outcome, Event("session-preview:done", done))


def keep_freed_memory() -> None:
    """Have glibc keep up to ``KEPT_FREE_BYTES`` that are freed for what is needed next; elsewhere this does nothing.

    It gives back what is over 128 KiB until something larger was freed. Each page of messages, and each line made of
    one, would be of memory fresh from the system, which has to clear it: a fifth of the time of a preview.
    """
    # Freeing a block that was mapped by itself makes its size the new bound, and twice that what is kept in a heap.
    bytes(KEPT_FREE_BYTES // 2)


def preview_session(
    open_transcript: OpenTranscript,
    agent_id: str,
    session_id: str,
    token: CancelToken,
    stream_instead: str = "preview_session_stream",
) -> msgspec.Raw:
    """All messages of a session, as the JSON text of their array.

    ``ReplyTooLarge``, which names ``stream_instead``, as soon as that is certain.
    """
    reader = MessageReader()
    # Text holds many short messages in a tenth of the memory that they take one by one.
    text = bytearray(b"[")
    for messages in _messages(reader, open_transcript, (agent_id, session_id), token):
        if messages:
            text += b"," if len(text) > 1 else b""
            text += memoryview(_encode(messages))[1:-1]
        if len(text) > MAX_REPLY_BYTES:
            raise ReplyTooLarge(
                f"the answer is over {MAX_REPLY_BYTES // MIB} MiB; use {stream_instead}", streamInstead=stream_instead
            )
    text += b"]"
    if reader.skipped_lines:
        log.warning("preview_session left out %d lines that are no entries", reader.skipped_lines)
    return msgspec.Raw(text)


def _messages(
    reader: MessageReader, open_transcript: OpenTranscript, names: tuple[str, str], token: CancelToken
) -> Iterator[list[PreviewMessage]]:
    blocks = open_transcript(token)
    if blocks is None:
        raise SessionNotFound(*names)
    for block in blocks:
        token.check()
        if block is None:
            yield []
        else:
            yield from reader.read(block)
