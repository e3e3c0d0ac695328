"""Take entries out of ``sessions.json``: the twin of ``sidecar/stores/index_rewrite.py``."""

from __future__ import annotations

import io
import json
import os
import re
import stat
import time
import uuid
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import Any, Container, Iterator, NamedTuple

from sidecar.remote.python.blocks import Tick
from sidecar.remote.python.errors import BrokenIndex, Fault
from sidecar.remote.python.files import open_regular
from sidecar.remote.python.json_values import UNREADABLE, scan
from sidecar.remote.python.limits import INDEX_LOCK_POLL_S, INDEX_LOCK_WAIT_S, MAX_INDEX_PIECE_BYTES, MAX_INDEX_TRIES
from sidecar.remote.python.session_folders import Folder, live_lock
from sidecar.remote.python.session_names import INDEX_NAME
from sidecar.remote.python.text import INVALID_BYTE, mended, raw, spelled

_SPACES = re.compile(r"[ \t\r\n]*")
_scan_string = json.decoder.scanstring  # type: ignore[attr-defined]


def forget_transcripts(folder: Folder, names: Container[str], tick: Tick) -> None:
    """Take the entries whose transcript is one of ``names`` out of the ``sessions.json`` in ``folder``, if it is there.

    ``FAULTS`` if it can't be done: then the file is as OpenClaw left it.
    """
    with suppress(FileNotFoundError):
        folder.stat(INDEX_NAME)
        with _index_lock(folder, tick):
            for _ in range(MAX_INDEX_TRIES):
                if _rewrite(folder, names):
                    return
                tick()
        raise Fault(f"the session index changed {MAX_INDEX_TRIES} times while it was rewritten")


def without_entries(data: bytes, names: Container[str]) -> bytes | None:
    """An index's ``data`` without the entries of ``names``, nothing else in it changed; ``None`` if it has none.

    An entry's transcript is the last part of its ``sessionFile``, or, if it has none, ``<sessionId>.jsonl``.
    ``BrokenIndex`` if the data is not a JSON object, or has two entries of one key.
    """
    text = spelled(data)
    try:
        members = _members(text)
    except UNREADABLE:
        raise BrokenIndex("the session index is not a JSON object of entries") from None
    if not any(member.transcript in names for member in members):
        return None
    kept: list[str] = []
    before_end = 0
    for member in members:
        if member.transcript not in names:
            # With a member goes the comma before it, which the first one that is kept doesn't need.
            kept.append(text[before_end if kept else member.start : member.end])
        before_end = member.end
    return raw("".join([text[: members[0].start], *kept, text[before_end:]])) if kept else b"{}"


class _Member(NamedTuple):
    """An entry of the index: its place in the text, from the key's first quote, and the name of its transcript."""

    start: int
    end: int
    transcript: str | None


def _members(text: str) -> list[_Member]:
    """The entries of an index; one of ``UNREADABLE`` if it is no JSON object."""
    members: list[_Member] = []
    keys: set[str] = set()
    place = _after_spaces(text, 0)
    if text[place : place + 1] != "{":
        raise ValueError
    place = _after_spaces(text, place + 1)
    while text[place : place + 1] != "}" or keys:
        start = place
        if text[start : start + 1] != '"':
            raise ValueError
        key, place = _scan_string(text, start + 1, True)
        if INVALID_BYTE.search(text, start, place):  # in the text; an escape that says the same is none there
            raise ValueError
        if key in keys:
            raise BrokenIndex("the session index has two entries of one key")
        keys.add(key)
        place = _after_spaces(text, place)
        if text[place : place + 1] != ":":
            raise ValueError
        value_start = _after_spaces(text, place + 1)
        value, end = scan(text, value_start)
        members.append(_Member(start, end, _transcript(value, text[value_start:end])))
        place = _after_spaces(text, end)
        if text[place : place + 1] != ",":
            break
        place = _after_spaces(text, place + 1)
    if text[place : place + 1] != "}" or _after_spaces(text, place + 1) != len(text):
        raise ValueError
    return members


def _after_spaces(text: str, place: int) -> int:
    match = _SPACES.match(text, place)
    assert match
    return match.end()


def _transcript(entry: Any, text: str) -> str | None:
    """The file name of an entry's transcript; ``None`` if it names none."""
    if type(entry) is not dict:
        return None
    path = _name_in(entry, "sessionFile", text)
    if path:
        return os.path.basename(path)
    session_id = _name_in(entry, "sessionId", text)
    return f"{session_id}.jsonl" if session_id else None


def _name_in(entry: dict[str, Any], field: str, text: str) -> str | None:
    """A field that is a string; half a surrogate pair is U+FFFD there, and what is not UTF-8 is no string."""
    value = entry.get(field)
    if type(value) is not str:
        return None
    return None if INVALID_BYTE.search(value) and INVALID_BYTE.search(text) else mended(value)


def _rewrite(folder: Folder, names: Container[str]) -> bool:
    """Rewrite the index once; False if it changed meanwhile, so that it is to be done again."""
    file = open_regular(INDEX_NAME, folder.fd)
    try:
        was = os.fstat(file.fd)
        if file.size_bytes > MAX_INDEX_PIECE_BYTES:
            raise BrokenIndex("the session index is too large to be rewritten")
        try:
            data = without_entries(io.FileIO(file.fd, closefd=False).readall(), names)
        except BrokenIndex:
            if _same(was, folder.stat(INDEX_NAME)):
                raise
            return False
        # It stays open, so that no newer file can be given the number of the one that was read.
        return data is None or _put_in_place(folder, was, data)
    finally:
        os.close(file.fd)


def _put_in_place(folder: Folder, was: os.stat_result, data: bytes) -> bool:
    """Make ``data`` the index if it is still the one that ``was`` tells of."""
    # OpenClaw's own way to name such a file, so that what a crash leaves is swept up like its own.
    name = f"{INDEX_NAME}.{os.getpid()}.{uuid.uuid4()}.tmp"
    fd = folder.create(name)
    try:
        try:
            _let_belong(fd, was)
            _write_all(fd, data)
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


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _let_belong(fd: int, was: os.stat_result) -> None:
    """Give a new file the mode and, if this process may, the owner of the one that it is to replace."""
    now = os.fstat(fd)
    if (now.st_uid, now.st_gid) != (was.st_uid, was.st_gid):
        with suppress(PermissionError):
            os.fchown(fd, was.st_uid, was.st_gid)
    os.fchmod(fd, stat.S_IMODE(was.st_mode))


@contextmanager
def _index_lock(folder: Folder, tick: Tick) -> Iterator[None]:
    """Hold OpenClaw's lock of the index: wait while another holds it, take a stale one over, release only our own."""
    name = INDEX_NAME + ".lock"
    fd = _take_lock(folder, name, tick)
    try:
        created_at = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        os.write(fd, json.dumps({"pid": os.getpid(), "createdAt": created_at}, separators=(",", ":")).encode())
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


def _take_lock(folder: Folder, name: str, tick: Tick) -> int:
    until_s = time.monotonic() + INDEX_LOCK_WAIT_S
    while True:
        with suppress(FileExistsError):
            return folder.create(name)
        tick()
        with suppress(FileNotFoundError):
            was = folder.stat(name, follow_symlinks=False)
            owner = live_lock(folder, name)
            if owner is None and _same(was, folder.stat(name, follow_symlinks=False)):
                folder.remove(name)
            elif owner and time.monotonic() > until_s:
                raise Fault(f"the session index is locked by {owner}")
            elif owner:
                time.sleep(INDEX_LOCK_POLL_S)


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether two looks at a name saw the same file with, as far as its times and size tell, the same content."""
    return os.path.samestat(one, other) and (one.st_size, one.st_mtime_ns, one.st_ctime_ns) == (
        other.st_size,
        other.st_mtime_ns,
        other.st_ctime_ns,
    )
