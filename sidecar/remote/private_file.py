"""Small files that hold secrets: read whole, and replaced whole under a lock, for the eyes of their owner only."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from sidecar.errors import SourceUnreadable
from sidecar.limits import HOST_LOCK_WAIT_S, KIB, MAX_HOST_FILE_BYTES, MAX_HOST_FILE_TRIES
from sidecar.stores.file_lock import held
from sidecar.stores.files import open_folder, open_regular
from sidecar.stores.index_rewrite import Folder
from sidecar.text import wire_name


class _Found(NamedTuple):
    """A file's text and how the file stood when it was read; no text if there is no file."""

    text: bytes | None
    state: os.stat_result | None


def read(path: str) -> bytes | None:
    """The text of the file at ``path``; ``None`` if there is none.

    ``SourceUnreadable`` if it is no regular file, or over ``MAX_HOST_FILE_BYTES``; ``OSError`` if it can't be read.
    """
    return _read(path).text


def rewrite(path: str, change: Callable[[bytes | None], bytes | None]) -> None:
    """Put what ``change`` makes of the text of the file at ``path`` in its place; nothing if that is ``None``.

    ``change`` may be called again, if another program wrote the file meanwhile. A missing folder is created. If
    ``path`` is a link, the file that it leads to is replaced. Errors of ``read`` and of ``change``, and
    ``SourceUnreadable`` if the lock stays taken or the text is too large: then the file is as it was.
    """
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    target = os.path.realpath(path)
    folder_path, name = os.path.split(target)
    # The lock stays where it is: to remove it would let two hold it at once.
    with open_folder(folder_path) as opened, held(os.fsencode(f"{target}.lock"), HOST_LOCK_WAIT_S):
        folder = Folder(*opened)
        for _ in range(MAX_HOST_FILE_TRIES):
            found = _read(target)
            text = change(found.text)
            if text is None or _put_in_place(folder, name, found.state, text):
                return
    raise SourceUnreadable(f"changed {MAX_HOST_FILE_TRIES} times while it was rewritten: {wire_name(target)}")


def _read(path: str) -> _Found:
    try:
        fd, _, _ = open_regular(path)
    except FileNotFoundError:
        return _Found(None, None)
    except SourceUnreadable as error:
        raise SourceUnreadable(f"{error.message}: {wire_name(path)}") from None
    with os.fdopen(fd, "rb") as file:
        state = os.fstat(fd)
        text = file.read(MAX_HOST_FILE_BYTES + 1)
    if len(text) > MAX_HOST_FILE_BYTES:
        raise _too_large(path)
    return _Found(text, state)


def _put_in_place(folder: Folder, name: str, was: os.stat_result | None, text: bytes) -> bool:
    """Make ``text`` that of the file ``name``; False if it isn't the file any more that ``was`` tells of."""
    if len(text) > MAX_HOST_FILE_BYTES:
        raise _too_large(name)
    # One name for all: only who holds the lock uses it, so what a crash left is overwritten by the next change.
    new_name = f"{name}.new"
    with suppress(FileNotFoundError):
        folder.remove(new_name)
    fd = folder.create(new_name, 0o600)
    try:
        try:
            _let_belong(fd, was)
            left = memoryview(text)
            while left:
                left = left[os.write(fd, left) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        if not _same(was, _state(folder, name)):
            return False
        folder.replace(name, by=new_name)
        return True
    finally:
        with suppress(FileNotFoundError):
            folder.remove(new_name)


def _let_belong(fd: int, was: os.stat_result | None) -> None:
    """Keep a new file from all but its owner, who is that of the file before it, if this process may say so."""
    if hasattr(os, "fchown"):
        if was is not None and was.st_uid != os.fstat(fd).st_uid:
            with suppress(PermissionError):
                os.fchown(fd, was.st_uid, was.st_gid)
        os.fchmod(fd, stat.S_IRUSR | stat.S_IWUSR)


def _state(folder: Folder, name: str) -> os.stat_result | None:
    try:
        return folder.stat(name)
    except FileNotFoundError:
        return None


def _same(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    if one is None or other is None:
        return one is other
    return os.path.samestat(one, other) and (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _too_large(path: str) -> SourceUnreadable:
    return SourceUnreadable(f"over {MAX_HOST_FILE_BYTES // KIB} KiB: {wire_name(path)}")
