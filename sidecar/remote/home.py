"""The OpenClaw directory of a host, as ``stores.base.Home``: what an engine there says, made into sessions here.

Runs in worker threads, and waits for the network in small steps, so that nothing there can hold a thread for long.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar.cancel import CancelToken
from sidecar.core.analysis import IndexEntry, SessionAnalysis, Transcript, analyse
from sidecar.core.blocks import Block
from sidecar.core.failures import FailedItems
from sidecar.core.transcript import Tally
from sidecar.errors import (
    BrokenCompression,
    BrokenDatabase,
    ConnectionBroken,
    InvalidParams,
    SessionNotFound,
    SidecarError,
)
from sidecar.remote.folders import RemoteFolders, folders_in
from sidecar.remote.records import FORWARDED, EngineRun, Record, RecordReader, Records, StartEngine, described, failure
from sidecar.remote.waiting import in_steps
from sidecar.stores.base import SessionFile
from sidecar.stores.locations import objection_to_name

if TYPE_CHECKING:
    from sidecar.remote.forwarded import ForwardedTranscript


class RemoteHome:
    """What lies on the host that ``start`` starts engines on; ``loop`` is the one that connections live in."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start: StartEngine) -> None:
        self._loop = loop
        self._start = start
        self.now_ms = 0.0

    def agents(self, token: CancelToken, failed: FailedItems) -> Iterator[RemoteAgent | None]:
        """As ``Home.agents``."""
        with closing(self.run({"op": "analyze"}, token)) as run:
            records = Records(run)
            for record in records:
                if record is None:
                    yield None
                elif record.name == "hello":
                    self.now_ms = float(record.items[2])
                elif record.name == "agent":
                    agent = RemoteAgent(records, failed, *record.items)
                    yield agent
                    agent.pass_over_rest()
                elif record.name == "failed":
                    note_failure(failed, record)

    def files(self, token: CancelToken, failed: FailedItems) -> Iterator[SessionFile | None]:
        """As ``Home.files``."""
        with closing(self.run({"op": "files"}, token)) as run:
            records = Records(run)
            for record in records:
                if record is None:
                    yield None
                elif record.name == "piece":
                    records.put_back(record)
                    _put_size_into_row(records, failed)
                elif record.name == "file":
                    path, relative_path, agent, kind, size_bytes = record.items
                    yield SessionFile(path, relative_path, agent, kind, size_bytes)
                elif record.name == "failed":
                    note_failure(failed, record)

    def transcript(self, agent_id: str, session_id: str, token: CancelToken) -> Iterator[Block | None]:
        """As ``Home.transcript``."""
        for field, name in (("sessionId", session_id), ("agentId", agent_id)):
            if objection := objection_to_name(name):
                raise InvalidParams(f"{field}: {objection}")
        return self._transcript(agent_id, session_id, token)

    def _transcript(self, agent_id: str, session_id: str, token: CancelToken) -> Iterator[Block | None]:
        request = {"op": "preview", "agentId": agent_id, "sessionId": session_id}
        with closing(self.run(request, token)) as run:
            records = Records(run)
            for record in records:
                if record is None:
                    yield None
                elif record.name == "none":
                    raise SessionNotFound(agent_id, session_id)
                elif record.name == "lines":
                    yield Block(bytearray(record.data), 0, len(record.data))
                elif record.name == "skipped":
                    yield from [Block(bytearray(), 0, 0)] * record.items[0]
                elif record.name in FORWARDED:
                    records.put_back(record)
                    yield from _forwarded(records).blocks()

    def folders_of(self, agent_id: str, token: CancelToken) -> RemoteFolders:
        """As ``deletion.Deletable.folders_of``."""
        if objection := objection_to_name(agent_id):
            raise InvalidParams(f"agentId: {objection}")
        (folders,) = self._folders(agent_id, token)
        return folders

    def folders_of_all(self, token: CancelToken) -> list[RemoteFolders]:
        """As ``deletion.Deletable.folders_of_all``."""
        return self._folders(None, token)

    def _folders(self, agent_id: str | None, token: CancelToken) -> list[RemoteFolders]:
        run = partial(self.run, token=token)
        return list(folders_in(run({"op": "names", "agentId": agent_id}), run))

    def run(self, request: Mapping[str, Any], token: CancelToken) -> Generator[Record | None, None, None]:
        """The records of one run of an engine; ``None`` now and then while none has come. Ends with its ``end``.

        ``SidecarError`` or ``OSError`` if it failed, or could not be started, or if the connection broke. Leaving early
        ends it on the host.
        """
        nonce = secrets.token_hex(16)
        reader = RecordReader(nonce)
        run: EngineRun | None = None
        try:
            started = self._start({"nonce": nonce, **request})
            run = yield from in_steps(self._loop, started, token, lambda late: late.close())
            while True:
                chunk: bytes = yield from in_steps(self._loop, run.read(), token)
                if not chunk:
                    raise ConnectionBroken("connection closed: the answer of the host has no end")
                for record in reader.feed(chunk):
                    if record.name == "end":
                        return
                    if record.name == "fail":
                        raise failure(*record.items)
                    if record.name != "beat":
                        yield record
        finally:
            if run is not None:
                with suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(run.close)


class _Arriving:
    """What has come of a session before its record: counts, and what only this side could open."""

    def __init__(self) -> None:
        self._tally = Tally()
        self._size_bytes = 0
        self._written_at_ms: float | None = None
        self.broken: SidecarError | None = None

    def add_part(self, *counts: Any) -> None:
        *counted, size_bytes = counts
        self._tally.add_counts(*counted)
        self._size_bytes += size_bytes

    def add_forwarded(self, records: Records) -> Iterator[None]:
        """Count what ``records`` give next; notes in ``broken`` if it can't be opened."""
        forwarded = _forwarded(records)
        try:
            for block in forwarded.blocks():
                self._tally.add(block)
                self._tally.skipped_lines += block.start == block.end
                self._size_bytes += block.end - block.start
                yield None
        except (BrokenCompression, BrokenDatabase) as error:
            self.broken = error
        self._written_at_ms = forwarded.written_at_ms

    def session(self, agent: str, items: list[Any], now_ms: float) -> SessionAnalysis:
        """The session that the items of a ``session`` record complete."""
        session_id, path, kind, own_bytes, modified_at_ms, store, archived_as, *counts = items
        updated_at_ms, total_tokens, model = counts[-3:]
        self._tally.add_counts(*counts[:-3])
        written_at_ms = modified_at_ms if self._written_at_ms is None else self._written_at_ms
        size_bytes = self._size_bytes + own_bytes
        transcript = Transcript(agent, session_id, path, kind, size_bytes, written_at_ms, store, archived_as)
        return analyse(transcript, self._tally, IndexEntry(updated_at_ms, total_tokens, model), now_ms)


class RemoteAgent:
    """The sessions of one agent of the host, as they arrive; ``stores.base.AgentSource``."""

    def __init__(self, records: Records, failed: FailedItems, agent: str, total: int) -> None:
        self.agent = agent
        self.sessions_total = total
        self._records = records
        self._failed = failed

    def sessions(self, now_ms: float) -> Iterator[SessionAnalysis | None]:
        """As ``Store.sessions``."""
        arriving = _Arriving()
        for record in self._records:
            if record is None:
                yield None
            elif record.name == "session":
                if arriving.broken is None:
                    yield arriving.session(self.agent, record.items, now_ms)
                else:
                    self._failed.add(_path_of(record.items), arriving.broken)
                arriving = _Arriving()
            elif record.name == "failed":
                note_failure(self._failed, record)
                arriving = _Arriving()
            elif record.name == "again":
                arriving = _Arriving()
            elif record.name == "part":
                arriving.add_part(*record.items)
            elif record.name in FORWARDED and arriving.broken is None:
                self._records.put_back(record)
                yield from arriving.add_forwarded(self._records)
            elif record.name == "total":
                self.sessions_total = record.items[0]
            elif record.name == "agent":
                self._records.put_back(record)
                return

    def pass_over_rest(self) -> None:
        """Take what is left of this agent."""
        for _ in self.sessions(0.0):
            pass


def _put_size_into_row(records: Records, failed: FailedItems) -> None:
    """Find out the size of an archive that comes next, for the row behind it; the row fails if it can't be read."""
    size_bytes, broken = 0, None
    try:
        size_bytes = _forwarded(records).size_bytes()
    except (BrokenCompression, BrokenDatabase) as error:
        broken = error
    row = next((record for record in records if record is not None and record.name not in FORWARDED), None)
    if row is None:
        return
    if row.name != "file":
        records.put_back(row)
    elif broken is None:
        records.put_back(row._replace(items=[*row.items[:-1], size_bytes]))
    else:
        path, relative_path, *_ = row.items
        failed.add(f"{path}#{relative_path.partition('#')[2]}", broken)


def _forwarded(records: Records) -> ForwardedTranscript:
    # Most hosts open everything themselves, and then neither SQLite nor zstd is needed here.
    from sidecar.remote.forwarded import ForwardedTranscript

    return ForwardedTranscript(records)


def note_failure(failed: FailedItems, record: Record) -> None:
    """Note what a ``failed`` record says."""
    path, code, name, message = record.items
    failed.add(path, described(code, name, message))


def _path_of(items: list[Any]) -> str:
    """How a session of an engine's record is named among failures."""
    session_id, path, _, _, _, store, *_ = items
    return f"{path}#{session_id}" if store == "sqlite" else str(path)
