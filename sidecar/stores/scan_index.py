"""The index of what analyses have counted, as they use it: a folder's entries in the order of its transcripts.

It is never trusted over the data, only with ``scan_entry``'s reasons, and whatever is wrong with it costs time and
nothing else: what it can't tell is counted, what it can't take is not remembered. SQLite is loaded when the first
transcript is looked up, which homes with none over ``UNREMEMBERED_BYTES`` never do.
"""

from __future__ import annotations

import logging
import os
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from sidecar.limits import REMEMBERED_A_PAGE, REMEMBERED_A_WRITE
from sidecar.stores.file_systems import is_on_shared_file_system
from sidecar.stores.scan_entry import Entry, decode, encode

if TYPE_CHECKING:
    from sidecar.stores.scan_rows import Rows

log = logging.getLogger(__name__)


class Key(NamedTuple):
    """A transcript in its folder; in the order of these an analysis goes through it."""

    is_archive: bool
    session_id: bytes


class Row(NamedTuple):
    """What is kept under a key: an entry, as ``encode`` writes it."""

    key: Key
    data: bytes


_BEFORE_ALL = Key(False, b"")


class ScanIndex:
    """The index below ``folder``, for one analysis, by one thread at a time, any. ``close`` may be called at any time.

    It is opened when it is first asked. After its first fault it is asked no more, or told no more if it can't be
    written.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._rows: Rows | None = None
        self._readable = self._writable = True
        self._is_shared: dict[int, bool] = {}

    def entries_in(self, path: str) -> FolderEntries:
        """What is known of the transcripts in the folder at ``path``."""
        return FolderEntries(self, path)

    def may_know(self, path: str) -> bool:
        """Whether what is in the folder at ``path`` may be remembered: not where times are by another's clock."""
        try:
            device = os.stat(path).st_dev
            if device not in self._is_shared:
                self._is_shared[device] = is_on_shared_file_system(path)
        except OSError:
            return False
        return not self._is_shared[device]

    def page(self, path: str, after: Key) -> list[Row]:
        """The next rows of a folder, in order; fewer than ``REMEMBERED_A_PAGE`` are the last."""
        if not self._readable:
            return []
        try:
            return self._opened().page(os.fsencode(path), after)
        except OSError as error:
            log.info("the index of transcripts is not read: %s", error)
            self._readable = self._writable = False
            return []

    def write(self, path: str, rows: list[Row], gone: list[Key]) -> None:
        """Put rows of a folder into the index, and take others out."""
        if not self._writable:
            return
        try:
            self._opened().write(os.fsencode(path), rows, gone)
        except OSError as error:
            log.info("the index of transcripts is not written: %s", error)
            self._writable = False

    def close(self) -> None:
        if self._rows is not None:
            self._rows.close()
            self._rows = None

    def _opened(self) -> Rows:
        if self._rows is None:
            # Most of the time nothing is asked of it, and SQLite takes a megabyte.
            from sidecar.stores.scan_rows import Rows

            self._rows = Rows(self._folder)
        return self._rows


class FolderEntries:
    """The entries of one folder, asked for by ascending keys. What is passed over has gone, or isn't remembered now.

    Names that are no UTF-8 may sort differently here and in the folder: those are counted anew. Leaving the ``with``
    block writes what is left to write; not so a generator that is closed, which may be in the loop's thread.
    """

    def __init__(self, index: ScanIndex, path: str) -> None:
        self._index = index
        self._path = path
        self._may_know: bool | None = None
        self._page: list[Row] = []
        self._at = 0
        self._last = _BEFORE_ALL
        self._more = True
        self._rows: list[Row] = []
        self._gone: list[Key] = []

    def find(self, key: Key) -> Entry | None:
        """What is known under ``key``, which is no smaller than any that was asked for before."""
        if self._may_know is None:
            self._may_know = self._index.may_know(self._path)
        while self._may_know and (row := self._next()) is not None and row.key <= key:
            self._at += 1
            if row.key == key:
                return decode(row.data)
            self._forget(row.key)
        return None

    def keep(self, key: Key, entry: Entry) -> None:
        data = encode(entry)
        if self._may_know and data is not None:
            self._rows.append(Row(key, data))
            self._write_if(REMEMBERED_A_WRITE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._may_know or kind is GeneratorExit:
            return
        while kind is None and (row := self._next()) is not None:
            self._at += 1
            self._forget(row.key)
        self._write_if(1)

    def _next(self) -> Row | None:
        """The first row that was not passed yet."""
        if self._at == len(self._page) and self._more:
            self._page, self._at = self._index.page(self._path, self._last), 0
            self._more = len(self._page) == REMEMBERED_A_PAGE
            if self._page:
                self._last = self._page[-1].key
        return self._page[self._at] if self._at < len(self._page) else None

    def _forget(self, key: Key) -> None:
        self._gone.append(key)
        self._write_if(REMEMBERED_A_WRITE)

    def _write_if(self, at_least: int) -> None:
        if len(self._rows) + len(self._gone) >= at_least:
            self._index.write(self._path, self._rows, self._gone)
            self._rows, self._gone = [], []
