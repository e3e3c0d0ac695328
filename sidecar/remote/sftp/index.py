"""Take entries out of a host's ``sessions.json`` over SFTP: as ``stores/index_rewrite.py``, as far as SFTP allows.

SFTP tells no number of a file, and its time in whole seconds, so that only the whole content tells whether the index is
still the one that was read. Between that look and our rename lies one round trip: what OpenClaw writes then, and
without its lock, is lost. Where the server can't rename over a file at once, the entries stay.
"""

from __future__ import annotations

import errno
import posixpath
import stat
from collections.abc import Set
from contextlib import aclosing, suppress
from functools import partial

from asyncssh.sftp import SFTPAttrs

from sidecar.limits import MAX_INDEX_PIECE_BYTES, MAX_INDEX_TRIES
from sidecar.remote.sftp.files import HostFile, HostFiles
from sidecar.remote.sftp.flow import aside
from sidecar.remote.sftp.locks import Locks, temporary_name
from sidecar.stores.index_rewrite import INDEX_NAME, without_entries
from sidecar.stores.session_index import BrokenIndex


async def forget_transcripts(files: HostFiles, locks: Locks, folder: str, names: Set[str]) -> None:
    """Take the entries whose transcript is one of ``names`` out of the ``sessions.json`` in ``folder``, if it is there.

    ``SidecarError`` or ``OSError`` (``TimeoutError`` if OpenClaw keeps it busy) if it can't be done: then the file is
    as OpenClaw left it.
    """
    path = posixpath.join(folder, INDEX_NAME)
    with suppress(FileNotFoundError):
        await files.stat(path, INDEX_NAME)
        async with locks.index():
            for _ in range(MAX_INDEX_TRIES):
                if await _rewrite(files, path, names):
                    return
        raise TimeoutError(errno.ETIMEDOUT, f"the session index changed {MAX_INDEX_TRIES} times while it was rewritten")


async def _rewrite(files: HostFiles, path: str, names: Set[str]) -> bool:
    """Rewrite the index once; False if it changed meanwhile, so that it is to be done again."""
    async with files.opened(path, INDEX_NAME) as file:
        if file.size_bytes > MAX_INDEX_PIECE_BYTES:
            raise BrokenIndex("the session index is too large to be rewritten")
        text = await file.read_all(file.size_bytes)
        was = file.attrs
    try:
        pieces = await aside(partial(without_entries, text, names), len(text))
    except BrokenIndex:
        if await _is_still(files, path, text):
            raise
        return False
    return pieces is None or await _put_in_place(files, path, text, was, pieces)


async def _put_in_place(files: HostFiles, path: str, text: bytes, was: SFTPAttrs, pieces: list[memoryview]) -> bool:
    """Make ``pieces`` the index if it still holds ``text``."""
    name = temporary_name()
    temporary_path = posixpath.join(posixpath.dirname(path), name)
    file = await files.create(temporary_path, 0o600, name)
    try:
        try:
            await _let_belong(file, was)
            await file.write_all(pieces)
            await _sync(file)
        finally:
            await file.close()
        if not await _is_still(files, path, text):
            return False
        await files.replace(path, temporary_path, INDEX_NAME)
        return True
    finally:
        with suppress(FileNotFoundError):
            await files.remove(temporary_path, name)


async def _let_belong(file: HostFile, was: SFTPAttrs) -> None:
    """Give a new file the mode and, if this user may, the owner of the one that it is to replace."""
    await file.look()
    if was.uid is not None and was.gid is not None and (file.attrs.uid, file.attrs.gid) != (was.uid, was.gid):
        with suppress(OSError):
            await file.give_owner(was.uid, was.gid)
    if was.permissions is not None:
        await file.give_mode(stat.S_IMODE(was.permissions))


async def _sync(file: HostFile) -> None:
    try:
        await file.sync()
    except OSError as error:
        if error.errno != errno.ENOSYS:  # as of servers other than OpenSSH
            raise


async def _is_still(files: HostFiles, path: str, text: bytes) -> bool:
    """Whether a file holds ``text`` and is the same a moment later, as far as its time and size tell."""
    try:
        async with files.opened(path, INDEX_NAME) as file:
            if file.size_bytes != len(text):
                return False
            place = 0
            async with aclosing(file.pieces(file.size_bytes)) as pieces:
                async for piece in pieces:
                    if text[place : place + len(piece)] != piece:
                        return False
                    place += len(piece)
        now = await files.stat(path, INDEX_NAME)
    except FileNotFoundError:
        return False
    return place == len(text) and (now.size, now.mtime) == (file.attrs.size, file.attrs.mtime)
