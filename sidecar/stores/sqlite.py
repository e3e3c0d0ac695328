"""Sessions as OpenClaw keeps them since 2026.7.2: ``agents/<agent>/agent/openclaw-agent.sqlite``."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from heapq import merge
from itertools import chain
from typing import NamedTuple

from sidecar.cancel import CancelToken
from sidecar.core.analysis import Kind, SessionAnalysis, Transcript, analyse
from sidecar.core.blocks import Block
from sidecar.core.failures import FailedItems
from sidecar.core.transcript import Tally
from sidecar.errors import Cancelled, SidecarError
from sidecar.limits import MAX_REREADS
from sidecar.stores.base import SessionFile
from sidecar.stores.locations import AgentFolder
from sidecar.stores.session_index import BrokenIndex, SessionIndex, decode_members
from sidecar.stores.session_names import indexed_id
from sidecar.stores.sqlite_open import Database
from sidecar.stores.sqlite_rows import Rewritten, Vanished
from sidecar.stores.sqlite_tables import (
    ArchiveRow,
    archive_rows,
    look_up_tables,
    read_index,
    session_ids,
)
from sidecar.stores.sqlite_transcripts import Transcripts, in_one_state, rewritten_meanwhile
from sidecar.text import file_name, wire_name

FILE = "openclaw-agent.sqlite"


class _Place(NamedTuple):
    """Where in the database a transcript is: the session of this id, or the archive of this name."""

    name: str
    kind: Kind
    indexed_id: str


class SqliteStore:
    """The sessions in one agent's database: by id, live or in cold storage, then archives by name.

    The database is opened when it is first needed, and closed when ``sessions``, ``transcript`` or ``files`` ends, or
    by ``close``; what is asked after that opens it again. Asked by one thread at a time, any. Holds the ids and names,
    and while it analyses 18 bytes for each. What can't be read goes into ``failed``.
    """

    def __init__(self, agent: AgentFolder, token: CancelToken, failed: FailedItems) -> None:
        self.agent = wire_name(agent.name)
        self._path = os.path.join(agent.path, "agent", FILE)
        self._shown_path = wire_name(self._path)
        self._sessions_folder = os.path.join(agent.path, "sessions")
        self._token = token
        self._failed = failed
        self._database = Database(self._path, token)
        self._transcripts: Transcripts | None = None
        self._ids: list[str] = []
        self._archives: list[ArchiveRow] = []
        self._beside: list[ArchiveRow] = []
        self._listed = False
        self._vanished = 0

    @property
    def sessions_total(self) -> int:
        """How many sessions are known here; goes down when one vanishes before it is read."""
        self._list()
        return len(self._ids) + len(self._archives) - self._vanished

    def __contains__(self, session_id: str) -> bool:
        """Whether the session of this id, a wire name, is in the database; being archived there doesn't count."""
        self._list()
        sought = file_name(session_id)
        place = bisect_left(self._ids, sought)
        return place < len(self._ids) and self._ids[place] == sought

    def ids(self) -> set[str]:
        """The ids, as on the wire, of all sessions and archives here, also of archives that are files as well."""
        try:
            self._list()
            archives = (row.name for row in chain(self._archives, self._beside))
            return {wire_name(name) for name in chain(self._ids, archives)}
        finally:
            self.close()

    def holds_entries(self, session_id: str, entry_ids: Iterable[str]) -> bool:
        """Whether the session is in the database with all entries of these ids; False if that can't be read."""
        try:
            transcripts = self._open()
            return transcripts is not None and transcripts.has_entries(file_name(session_id), entry_ids)
        except Cancelled:
            raise
        except (OSError, SidecarError, Rewritten, Vanished):
            return False  # Not proved; and why it can't be read, its analysis tells.

    def close(self) -> None:
        """Let go of the database; what is asked next opens it again."""
        self._database.close()

    def sessions(self, now_ms: float) -> Iterator[SessionAnalysis | None]:
        """Analyse one session after another; ``None`` between the blocks of a large one."""
        try:
            self._list()
            index = self._read_index()
            for place in chain(self._live_places(), self._archive_places()):
                yield from self._analysed(place, index, now_ms)
        finally:
            self.close()

    def transcript(self, session_id: str) -> Iterator[Block] | None:
        """The transcript of a session or archive as blocks of whole lines; ``None`` if it isn't here.

        ``OSError`` or ``SidecarError`` where it can't be read, also here: if it is rewritten after its first block, for
        what was taken of it can't be taken back.
        """
        name = file_name(session_id)
        try:
            transcripts = self._open()
            if transcripts is not None and transcripts.has_session(name):
                return self._closing(transcripts.of_session(name))
            if transcripts is not None and transcripts.has_archive(name) and not self._lies_beside(name):
                return self._closing(transcripts.of_archive(name))
        except BaseException:
            self.close()
            raise
        self.close()
        return None

    def files(self) -> Iterator[SessionFile]:
        """One row for each session and archive, its size that of the transcript."""
        before_id = f"agents/{self.agent}/agent/{FILE}#"
        try:
            self._list()
            for place in merge(self._live_places(), self._archive_places(), key=lambda place: place.name):
                try:
                    size_bytes = in_one_state(partial(self._size_bytes, place))
                except Vanished:
                    continue
                except Cancelled:
                    raise
                except (OSError, SidecarError) as error:
                    self._failed.add(self._shown(place), error)
                else:
                    relative_path = before_id + wire_name(place.name)
                    yield SessionFile(self._shown_path, relative_path, self.agent, place.kind, size_bytes)
        finally:
            self.close()

    def _open(self) -> Transcripts | None:
        """What reads the transcripts; ``None`` if there is no database."""
        if self._transcripts is None and os.path.lexists(self._path):
            tables = look_up_tables(self._database)
            self._transcripts = Transcripts(self._database, tables, self._sessions_folder, self._token)
        return self._transcripts

    def _list(self) -> None:
        """Find out, once, which sessions and archives there are; those that were found before a failure stay."""
        if self._listed:
            return
        try:
            transcripts = self._open()
            if transcripts is not None:
                self._ids.extend(session_ids(self._database, transcripts.tables))
                rows = archive_rows(self._database, transcripts.tables)
                for row in rows:
                    (self._beside if self._lies_beside(row.name) else self._archives).append(row)
        except Cancelled:
            self.close()
            raise
        except (OSError, SidecarError) as error:
            self._failed.add(self._shown_path, error)
        self._listed = True

    def _lies_beside(self, archive_name: str) -> bool:
        """Whether the archive is also a file, which is listed where files are."""
        if os.path.basename(archive_name) != archive_name or "\0" in archive_name:
            return False
        return os.path.isfile(os.path.join(self._sessions_folder, archive_name))

    def _live_places(self) -> Iterator[_Place]:
        return (_Place(session_id, "sessions", indexed_id(session_id)) for session_id in self._ids)

    def _archive_places(self) -> Iterator[_Place]:
        return (_Place(name, "archive", indexed_id(session_id)) for name, session_id in self._archives)

    def _shown(self, place: _Place) -> str:
        return f"{self._shown_path}#{wire_name(place.name)}"

    def _read_index(self) -> SessionIndex:
        ids = (place.indexed_id for place in chain(self._live_places(), self._archive_places()))
        index = SessionIndex(sorted(ids))
        table = self._transcripts and self._transcripts.tables.index
        if not table or not (self._ids or self._archives):
            return index
        unreadable = False

        def remember(entry: bytes) -> None:
            nonlocal unreadable
            members = decode_members(bytearray(b'{"":%b}' % entry)) if isinstance(entry, bytes) else None
            unreadable = unreadable or members is None
            index.remember(members or ())

        try:
            read_index(self._database, table, remember)
            if unreadable:
                raise BrokenIndex(f"an entry of the session index, table {table}, can't be read")
        except Cancelled:
            raise
        except (OSError, SidecarError) as error:
            self._failed.add(self._shown_path, error)
        return index

    def _analysed(
        self, place: _Place, index: SessionIndex, now_ms: float
    ) -> Generator[SessionAnalysis | None, None, None]:
        try:
            tally, transcript = yield from self._tally(place)
        except Vanished:
            self._vanished += 1
        except Cancelled:
            raise
        except (OSError, SidecarError) as error:
            self._failed.add(self._shown(place), error)
        else:
            yield analyse(transcript, tally, index[place.indexed_id], now_ms)

    def _tally(self, place: _Place) -> Generator[None, None, tuple[Tally, Transcript]]:
        """The counts of a transcript in one state: it is read anew if it was rewritten, or moved, meanwhile."""
        for attempt in range(1, MAX_REREADS + 1):
            tally = Tally()
            try:
                with closing(self._blocks(place)) as blocks:
                    for number, block in enumerate(blocks):
                        if number:
                            yield
                        tally.add(block)
            except Rewritten:
                continue
            except Vanished:
                if attempt < MAX_REREADS:
                    continue
                raise
            progress = self._opened().progress
            tally.skipped_lines += progress.skipped_lines
            return tally, Transcript(
                self.agent,
                wire_name(place.name),
                self._shown_path,
                place.kind,
                progress.size_bytes,
                progress.written_at_ms,
                "sqlite",
                progress.archived_as,
            )
        raise rewritten_meanwhile()

    def _blocks(self, place: _Place) -> Generator[Block, None, None]:
        transcripts = self._opened()
        return transcripts.of_session(place.name) if place.kind == "sessions" else transcripts.of_archive(place.name)

    def _size_bytes(self, place: _Place) -> int:
        transcripts = self._opened()
        if place.kind == "sessions":
            return transcripts.session_size_bytes(place.name)
        return transcripts.archive_size_bytes(place.name)

    def _opened(self) -> Transcripts:
        transcripts = self._open()
        if transcripts is None:
            raise Vanished
        return transcripts

    def _closing(self, blocks: Iterator[Block]) -> Iterator[Block]:
        try:
            yield from blocks
        except (Rewritten, Vanished):
            raise rewritten_meanwhile() from None
        finally:
            self.close()
