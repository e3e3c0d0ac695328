"""Sessions as OpenClaw kept them up to 2026.7: ``agents/<agent>/sessions/<id>.jsonl``, and the archive beside it."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator

from sidecar.cancel import CancelToken
from sidecar.core.analysis import Kind, SessionAnalysis, Transcript, analyse
from sidecar.core.blocks import RecordBlocks
from sidecar.core.failures import FailedItems
from sidecar.core.transcript import Tally
from sidecar.errors import SourceUnreadable
from sidecar.limits import BLOCK_BYTES, MAX_REREADS
from sidecar.stores.files import BoundedReader, OpenFile, open_folder, open_regular
from sidecar.stores.locations import AgentFolder
from sidecar.stores.session_index import BrokenIndex, SessionIndex, read_index
from sidecar.text import wire_name

FOLDERS: tuple[tuple[str, Kind], ...] = (("sessions", "sessions"), ("sessions_archive", "archive"))
_SUFFIX = ".jsonl"
_CHECKPOINT = re.compile(r"\.checkpoint\.[^.]*\.jsonl$")


class JsonlStore:
    """The JSONL transcripts of one agent, listed and sorted when it is made. What can't be read goes into ``failed``.

    Holds one string for each session and 26 bytes beside it, whatever the size of the transcripts and of the index.
    """

    def __init__(self, agent: AgentFolder, token: CancelToken, failed: FailedItems) -> None:
        self.agent = wire_name(agent.name)
        self._failed = failed
        self._folder = agent.path
        self._token = token
        self._blocks = RecordBlocks()
        self._stems = {folder: self._list(folder) for folder, _ in FOLDERS}
        self.files_total = sum(map(len, self._stems.values()))
        self._index = self._read_index() if self.files_total else SessionIndex([])

    def sessions(self, now_ms: float) -> Iterator[SessionAnalysis | None]:
        """Analyse one session after another, in order of folder and name; ``None`` between the blocks of a large one.

        A file that has vanished since it was listed is no session any more: ``files_total`` goes down by one.
        """
        for folder, kind in FOLDERS:
            path = os.path.join(self._folder, folder)
            try:
                yield from self._sessions_in(path, kind, now_ms)
            except OSError as error:  # of the folder: it has gone since, say
                self._failed.add(wire_name(path), error)

    def _sessions_in(self, path: str, kind: Kind, now_ms: float) -> Iterator[SessionAnalysis | None]:
        stems = self._stems[os.path.basename(path)]
        if not stems:
            return
        shown_path = os.path.join(wire_name(path), "")
        with open_folder(path) as (folder_fd, before_name):
            for stem in stems:
                self._token.check()
                name = stem + _SUFFIX
                shown_file = shown_path + wire_name(name)
                try:
                    file = open_regular(before_name + name, folder_fd)
                    try:
                        tally = self._tally_small(file)
                        if tally is None:
                            tally, file = yield from self._tally_large(file)
                    finally:
                        os.close(file.fd)
                except FileNotFoundError as error:
                    if os.path.lexists(os.path.join(path, name)):
                        self._failed.add(shown_file, error)
                    else:
                        self.files_total -= 1
                except (OSError, SourceUnreadable) as error:
                    self._failed.add(shown_file, error)
                else:
                    transcript = Transcript(
                        self.agent, wire_name(stem if kind == "sessions" else name), shown_file, kind, *file[1:]
                    )
                    yield analyse(transcript, tally, self._index[_indexed_id(stem)], now_ms)

    def _tally_small(self, file: OpenFile) -> Tally | None:
        """The counts of a transcript of at most one block, read at once; ``None`` if it is larger, or shrank."""
        if file.size_bytes > BLOCK_BYTES:
            return None
        text = os.read(file.fd, file.size_bytes)
        if len(text) < file.size_bytes:
            return None
        tally = Tally()
        tally.add_whole(text)
        return tally

    def _tally_large(self, file: OpenFile) -> Generator[None, None, tuple[Tally, OpenFile]]:
        """The counts of a transcript read in blocks, and the size that they are of."""
        fd, size_bytes, modified_at_ms = file
        for _ in range(MAX_REREADS):
            os.lseek(fd, 0, os.SEEK_SET)
            tally = Tally()
            source = BoundedReader(fd, size_bytes, self._token)
            self._blocks.restart()
            while block := self._blocks.read(source):
                tally.add(block)
                if source.left:
                    yield
            tally.skipped_lines += self._blocks.overlong
            read_bytes = size_bytes - source.left
            if not source.left:
                break
            # It shrank under us, so it was written anew in place: what was counted may be half of each state.
            size_bytes = os.fstat(fd).st_size
        return tally, OpenFile(fd, read_bytes, modified_at_ms)

    def _list(self, folder: str) -> list[str]:
        """The names of the transcripts in a folder without their suffix, sorted: regular files, or links to such."""
        path = os.path.join(self._folder, folder)
        try:
            with os.scandir(path) as entries:
                return sorted(
                    entry.name.removesuffix(_SUFFIX)
                    for entry in entries
                    if is_transcript_name(entry.name) and _may_be_file(entry)
                )
        except FileNotFoundError:
            return []
        except OSError as error:
            self._failed.add(wire_name(path), error)
            return []

    def _read_index(self) -> SessionIndex:
        path = os.path.join(self._folder, "sessions", "sessions.json")
        index = SessionIndex(sorted(_indexed_id(stem) for stems in self._stems.values() for stem in stems))
        try:
            read_index(path, index, self._token)
        except (OSError, SourceUnreadable, BrokenIndex) as error:
            self._failed.add(wire_name(path), error)
        return index


def is_transcript_name(name: str) -> bool:
    """Whether a file of this name holds a session: not a trace of one, nor a compaction's copy of one."""
    return (
        name.endswith(_SUFFIX)
        and len(name) > len(_SUFFIX)
        and not name.endswith(".trajectory.jsonl")
        and not (".checkpoint." in name and _CHECKPOINT.search(name))
    )


def _may_be_file(entry: os.DirEntry[str]) -> bool:
    """A regular file or a link to one; also a broken link, since opening it will say what is wrong."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:
        return True


def _indexed_id(stem: str) -> str:
    """The id under which the index knows a transcript: topics share the one of the session they belong to."""
    return wire_name(stem.partition("-topic-")[0] if "-topic-" in stem else stem)
