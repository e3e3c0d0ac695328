"""Take entries out of ``sessions.json``: whole or not at all, and without losing what OpenClaw writes meanwhile.

OpenClaw rewrites the file on most changes of state, by a rename; some of its releases take ``sessions.json.lock``
for that, some only queue within the gateway. So both: its lock is waited for and then held, and right before our own
rename the file must still be the one that was read, else everything is done again. What is left is cut out of the text
that was read, so that not one byte of another entry changes.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import time
import uuid
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

import msgspec

from sidecar.core.transcript import REJECTED
from sidecar.errors import SourceUnreadable
from sidecar.limits import (
    INDEX_LOCK_POLL_S,
    INDEX_LOCK_WAIT_S,
    LOCK_STALE_S,
    MAX_INDEX_PIECE_BYTES,
    MAX_INDEX_TRIES,
    MAX_LOCK_BYTES,
)
from sidecar.stores.files import open_regular
from sidecar.stores.session_index import BrokenIndex
from sidecar.text import mend_surrogates

INDEX_NAME = "sessions.json"

_SPACE = rb"[ \t\r\n]*"
_BEFORE_VALUE = re.compile(rb'%b[{,]%b("[^"\\]*(?:\\.[^"\\]*)*"%b:%b)' % (_SPACE, _SPACE, _SPACE, _SPACE))
_END = re.compile(rb"%b\}%b" % (_SPACE, _SPACE))


class Folder(NamedTuple):
    """A folder held open, as ``files.open_folder`` gives it: a descriptor, or ``None``, and what comes before names."""

    fd: int | None
    before_name: str

    def remove(self, name: str) -> None:
        os.unlink(self.before_name + name, dir_fd=self.fd)

    def stat(self, name: str, *, follow_symlinks: bool = True) -> os.stat_result:
        return os.stat(self.before_name + name, dir_fd=self.fd, follow_symlinks=follow_symlinks)

    def create(self, name: str, mode: int) -> int:
        """Open a new file for writing; ``FileExistsError`` if there is one, or a link."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        return os.open(self.before_name + name, flags, mode, dir_fd=self.fd)

    def replace(self, name: str, by: str) -> None:
        os.replace(self.before_name + by, self.before_name + name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        self.sync()

    def sync(self) -> None:
        """Make what was created, renamed and removed outlast a loss of power, where the file system can."""
        if self.fd is not None:
            with suppress(OSError):
                os.fsync(self.fd)


class _LockOwner(msgspec.Struct):
    pid: Annotated[int, msgspec.Meta(ge=1)]


class _RawEntry(msgspec.Struct, rename="camel"):
    session_id: msgspec.Raw = msgspec.Raw()
    session_file: msgspec.Raw = msgspec.Raw()


_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_entry = msgspec.json.Decoder(_RawEntry).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_owner = msgspec.json.Decoder(_LockOwner).decode


def live_lock(folder: Folder, name: str) -> str | None:
    """Who holds the lock file ``name``, in words; ``None`` if there is none, or a stale one.

    OpenClaw's locks are JSON with a ``pid``. One that can't be read may be of a process that is just writing it.
    """
    try:
        age_s = time.time() - folder.stat(name, follow_symlinks=False).st_mtime
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENAMETOOLONG}:
            return None
        raise
    pid = _lock_owner(folder, name)
    # os.kill would end the process on Windows: there each lock counts for as long as it does for OpenClaw.
    if pid is None or os.name == "nt":
        holder = f"process {pid}" if pid else "an unknown process"
        return holder if age_s < LOCK_STALE_S else None
    return f"process {pid}" if _runs(pid) else None


def _lock_owner(folder: Folder, name: str) -> int | None:
    try:
        fd, size_bytes, _ = open_regular(folder.before_name + name, folder.fd)
        try:
            return _decode_owner(os.read(fd, min(size_bytes, MAX_LOCK_BYTES))).pid
        finally:
            os.close(fd)
    except (*REJECTED, OSError, SourceUnreadable):
        return None


def forget_transcripts(folder: Folder, names: Set[str]) -> None:
    """Take the entries whose transcript is one of ``names`` out of the ``sessions.json`` in ``folder``, if it is there.

    ``SidecarError`` or ``OSError`` (``TimeoutError`` if OpenClaw keeps it busy) if it can't be done: then the file is
    as OpenClaw left it.
    """
    with suppress(FileNotFoundError):
        folder.stat(INDEX_NAME)
        with _index_lock(folder):
            for _ in range(MAX_INDEX_TRIES):
                if _rewrite(folder, names):
                    return
        raise TimeoutError(errno.ETIMEDOUT, f"the session index changed {MAX_INDEX_TRIES} times while it was rewritten")


def without_entries(text: bytes, names: Set[str]) -> list[memoryview] | None:
    """The pieces of an index's ``text`` that remain without the entries of ``names``; ``None`` if all of it does.

    An entry's transcript is the last part of its ``sessionFile``, or, if it has none, ``<sessionId>.jsonl``.
    ``BrokenIndex`` if the text is not a JSON object.
    """
    members = _members(text)
    if not any(member.transcript in names for member in members):
        return None
    view = memoryview(text)
    head = view[: members[0].start]
    kept: list[memoryview] = []
    for before, member in zip([None, *members], members, strict=False):
        if member.transcript not in names:
            # With a member goes the comma before it, which the first one that is kept doesn't need.
            kept.append(view[before.end if before and kept else member.start : member.end])
    return [head, *kept, view[members[-1].end :]] if kept else [memoryview(b"{}")]


class _Member(NamedTuple):
    """An entry of the index: its place in the text, from the key's first quote, and the name of its transcript."""

    start: int
    end: int
    transcript: str | None


def _members(text: bytes) -> list[_Member]:
    source: bytes | bytearray = text
    try:
        values = _decode_members(source)
    except REJECTED:
        # Half a surrogate pair is replaced by as many bytes, so that every place stays what it was.
        source = bytearray(text)
        mend_surrogates(source, 0, len(source))
        try:
            values = _decode_members(source)
        except REJECTED:
            raise BrokenIndex("the session index is not a JSON object of entries") from None
    members = []
    place = 0
    for value in values.values():
        match = _BEFORE_VALUE.match(source, place)
        place = match.end() + len(value) if match else place
        if not match or source[match.end() : place] != bytes(value):
            break
        members.append(_Member(match.start(1), place, _transcript(value)))
    if len(members) < len(values) or (members and not _END.fullmatch(source, place)):
        raise BrokenIndex("the session index has two entries of one key")
    return members


def _transcript(entry: msgspec.Raw) -> str | None:
    """The file name of an entry's transcript; ``None`` if it names none."""
    try:
        fields = _decode_entry(entry)
    except REJECTED:
        return None
    if path := _text(fields.session_file):
        return os.path.basename(path)
    session_id = _text(fields.session_id)
    return f"{session_id}.jsonl" if session_id else None


def _text(raw: msgspec.Raw) -> str | None:
    try:
        return _decode_text(raw)
    except REJECTED:
        return None


def _rewrite(folder: Folder, names: Set[str]) -> bool:
    """Rewrite the index once; False if it changed meanwhile, so that it is to be done again."""
    fd, size_bytes, _ = open_regular(folder.before_name + INDEX_NAME, folder.fd)
    try:
        was = os.fstat(fd)
        if size_bytes > MAX_INDEX_PIECE_BYTES:
            raise BrokenIndex("the session index is too large to be rewritten")
        try:
            pieces = without_entries(io.FileIO(fd, closefd=False).readall(), names)
        except BrokenIndex:
            if _same(was, folder.stat(INDEX_NAME)):
                raise
            return False
        if os.name == "nt":  # where no open file can be replaced
            os.close(fd)
            fd = -1
        # Elsewhere it stays open, so that no newer file can be given the number of the one that was read.
        return pieces is None or _put_in_place(folder, was, pieces)
    finally:
        if fd >= 0:
            os.close(fd)


def _put_in_place(folder: Folder, was: os.stat_result, pieces: list[memoryview]) -> bool:
    """Make ``pieces`` the index if it is still the one that ``was`` tells of."""
    # OpenClaw's own way to name such a file, so that what a crash leaves is swept up like its own.
    name = f"{INDEX_NAME}.{os.getpid()}.{uuid.uuid4()}.tmp"
    fd = folder.create(name, 0o600)
    try:
        try:
            _let_belong(fd, was)
            for piece in pieces:
                _write(fd, piece)
            os.fsync(fd)
        finally:
            os.close(fd)
        if not _same(was, folder.stat(INDEX_NAME)):
            return False
        folder.replace(INDEX_NAME, by=name)
        return True
    finally:
        with suppress(FileNotFoundError):
            folder.remove(name)


def _write(fd: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(fd, piece) :]


def _let_belong(fd: int, was: os.stat_result) -> None:
    """Give a new file the mode and, if this process may, the owner of the one that it is to replace."""
    if hasattr(os, "fchown"):
        now = os.fstat(fd)
        if (now.st_uid, now.st_gid) != (was.st_uid, was.st_gid):
            with suppress(PermissionError):
                os.fchown(fd, was.st_uid, was.st_gid)
        os.fchmod(fd, stat.S_IMODE(was.st_mode))


@contextmanager
def _index_lock(folder: Folder) -> Iterator[None]:
    """Hold OpenClaw's lock of the index: wait while another holds it, take a stale one over, release only our own."""
    name = INDEX_NAME + ".lock"
    until_s = time.monotonic() + INDEX_LOCK_WAIT_S
    while (fd := _try_create(folder, name)) is None:
        with suppress(FileNotFoundError):
            was = folder.stat(name, follow_symlinks=False)
            owner = live_lock(folder, name)
            if owner is None and _same(was, folder.stat(name, follow_symlinks=False)):
                folder.remove(name)
            elif owner and time.monotonic() > until_s:
                raise TimeoutError(errno.ETIMEDOUT, f"the session index is locked by {owner}")
            elif owner:
                time.sleep(INDEX_LOCK_POLL_S)
    try:
        created_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        os.write(fd, msgspec.json.encode({"pid": os.getpid(), "createdAt": created_at}))
        yield
    finally:
        ours = os.fstat(fd)
        try:
            is_ours = os.path.samestat(ours, folder.stat(name, follow_symlinks=False))
        except FileNotFoundError:
            is_ours = False
        os.close(fd)
        if is_ours:
            folder.remove(name)


def _try_create(folder: Folder, name: str) -> int | None:
    try:
        return folder.create(name, 0o600)
    except FileExistsError:
        return None


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether two looks at a name saw the same file with, as far as its times and size tell, the same content."""
    return os.path.samestat(one, other) and (one.st_size, one.st_mtime_ns, one.st_ctime_ns) == (
        other.st_size,
        other.st_mtime_ns,
        other.st_ctime_ns,
    )


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it runs, for another user
        return True
    return True
