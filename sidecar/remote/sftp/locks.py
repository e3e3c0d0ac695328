"""OpenClaw's lock files on a host over SFTP: whether one is held, and holding the index's own.

Whether a process there runs can't be asked, so that a lock counts for as long as one that names no process.
"""

from __future__ import annotations

import asyncio
import errno
import os
import posixpath
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import msgspec

from sidecar.core.transcript import REJECTED
from sidecar.errors import SourceUnreadable
from sidecar.limits import INDEX_LOCK_POLL_S, INDEX_LOCK_WAIT_S, LOCK_STALE_S, MAX_LOCK_BYTES
from sidecar.remote.sftp.files import HostFile, HostFiles
from sidecar.stores.index_rewrite import INDEX_NAME

_LOCK_NAME = INDEX_NAME + ".lock"


class _Owner(msgspec.Struct):
    pid: int


_decode_owner = msgspec.json.Decoder(_Owner).decode


def temporary_name() -> str:
    """OpenClaw's own way to name a file beside its index, so that what a crash leaves is swept up like its own."""
    return f"{INDEX_NAME}.{os.getpid()}.{uuid.uuid4()}.tmp"


class Locks:
    """The locks in one folder."""

    def __init__(self, files: HostFiles, folder: str) -> None:
        self._files = files
        self._folder = folder
        self._ahead_s: float | None = None

    async def owner(self, name: str) -> str | None:
        """Who holds the lock file ``name``, in words; ``None`` if there is none, or a stale one."""
        age_s = await self._age_s(name)
        if age_s is None or age_s >= LOCK_STALE_S:
            return None
        return _words(await self._pid(posixpath.join(self._folder, name)))

    @asynccontextmanager
    async def index(self) -> AsyncGenerator[None, None]:
        """Hold OpenClaw's lock of the index: wait while another holds it, take a stale one over, release only our own.

        It names no process: of one that doesn't run there OpenClaw would think that it died, and take the lock over.
        """
        path = posixpath.join(self._folder, _LOCK_NAME)
        created_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        ours = msgspec.json.encode({"createdAt": created_at, "token": uuid.uuid4().hex})
        file = await self._taken(path)
        written = b""
        try:
            await file.write_all([memoryview(ours)])
            written = ours
            await file.close()
            yield
        finally:
            if await self._content(path) == written:
                with suppress(FileNotFoundError):
                    await self._files.remove(path, _LOCK_NAME)

    async def _taken(self, path: str) -> HostFile:
        until_s = time.monotonic() + INDEX_LOCK_WAIT_S
        while True:
            try:
                return await self._files.create(path, 0o600, _LOCK_NAME)
            except FileExistsError:
                pass
            except OSError as error:
                # As of a lock that was released before it could be seen that there was one.
                if error.errno != errno.EIO or time.monotonic() > until_s:
                    raise
            was = await self._content(path)
            age_s = await self._age_s(_LOCK_NAME)
            if age_s is None:
                await asyncio.sleep(INDEX_LOCK_POLL_S)
                continue
            if age_s >= LOCK_STALE_S:
                if await self._content(path) == was:
                    with suppress(FileNotFoundError):
                        await self._files.remove(path, _LOCK_NAME)
            elif time.monotonic() > until_s:
                owner = _words(await self._pid(path))
                raise TimeoutError(errno.ETIMEDOUT, f"the session index is locked by {owner}")
            else:
                await asyncio.sleep(INDEX_LOCK_POLL_S)

    async def _age_s(self, name: str) -> float | None:
        """How long ago a lock file was written; ``None`` if there is none."""
        try:
            changed_at_s = (await self._files.lstat(posixpath.join(self._folder, name), name)).mtime or 0
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENAMETOOLONG}:
                return None
            raise
        return await self._now_s() - changed_at_s

    async def _content(self, path: str) -> bytes | None:
        """What a lock file holds; ``None`` if it can't be read."""
        try:
            async with self._files.opened(path) as file:
                return await file.read_all(min(file.size_bytes, MAX_LOCK_BYTES))
        except (OSError, SourceUnreadable):
            return None

    async def _pid(self, path: str) -> int | None:
        content = await self._content(path)
        try:
            return _decode_owner(content or b"").pid
        except REJECTED:
            return None

    async def _now_s(self) -> float:
        """The host's clock: the time of a file that is made for it. By ours, a lock there may seem older than it is."""
        if self._ahead_s is None:
            name = temporary_name()
            path = posixpath.join(self._folder, name)
            file = await self._files.create(path, 0o600, name)
            try:
                await file.look()
            finally:
                await file.close()
                await self._files.remove(path, name)
            self._ahead_s = (file.attrs.mtime or 0) - time.time()
        return time.time() + self._ahead_s


def _words(pid: int | None) -> str:
    return f"process {pid}" if pid else "an unknown process"
