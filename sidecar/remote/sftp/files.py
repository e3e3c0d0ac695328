"""The files of a host over SFTP, with the errors that the system's own calls would have given there.

SFTP tells few errors apart, as README.md says. Paths and names are as ``os`` functions of a POSIX system spell them.
Requests may be cancelled at any time: what was opened on the host goes with the channel.
"""

from __future__ import annotations

import asyncio
import errno
import posixpath
import stat
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import TypeVar, cast

import asyncssh
from asyncssh.sftp import SFTPAttrs, SFTPClient, SFTPClientFile, SFTPName

from sidecar.errors import SourceUnreadable
from sidecar.limits import MAX_LINKS, SFTP_READ_BYTES, SFTP_READS_AHEAD
from sidecar.remote.sftp.errors import as_os_error, os_error
from sidecar.remote.sftp.flow import in_order

T = TypeVar("T")


def is_file(attrs: SFTPAttrs) -> bool:
    """Whether this is a regular file."""
    return stat.S_ISREG(attrs.permissions or 0)


def is_folder(attrs: SFTPAttrs) -> bool:
    """Whether this is a folder."""
    return stat.S_ISDIR(attrs.permissions or 0)


def is_link(attrs: SFTPAttrs) -> bool:
    """Whether this is a link, whatever it leads to."""
    return stat.S_ISLNK(attrs.permissions or 0)


class HostFiles:
    """The files of a host. ``OSError`` for what fails there, ``LinkLost`` when the host has gone."""

    def __init__(self, client: SFTPClient) -> None:
        self._client = client
        self._waiting = 0
        self._answered_at_s = time.monotonic()

    @property
    def silent_s(self) -> float:
        """How long there was no answer while one was waited for."""
        return time.monotonic() - self._answered_at_s if self._waiting else 0.0

    async def ask(self, request: Awaitable[T], file_name: str | None = None) -> T:
        """The answer to a request of asyncssh; its errors are of ``file_name``."""
        if not self._waiting:
            self._answered_at_s = time.monotonic()
        self._waiting += 1
        try:
            return await request
        except (asyncssh.Error, OSError) as error:
            raise as_os_error(error, file_name) from None
        finally:
            self._waiting -= 1
            self._answered_at_s = time.monotonic()

    async def home(self) -> str:
        """The folder in which a login begins: the home directory."""
        return _spelled(await self.ask(self._client.realpath(b".")))

    async def stat(self, path: str, file_name: str | None = None) -> SFTPAttrs:
        """What a path leads to. Errors are of ``file_name``, or of the path if none is given."""
        file_name = path if file_name is None else file_name
        try:
            return await self.ask(self._client.stat(_raw(path)), file_name)
        except FileNotFoundError:
            raise os_error(await self._why_missing(path), file_name) from None

    async def lstat(self, path: str, file_name: str | None = None) -> SFTPAttrs:
        """What a path is, a link perhaps."""
        return await self.ask(self._client.lstat(_raw(path)), path if file_name is None else file_name)

    async def exists(self, path: str) -> bool:
        """Whether a path leads to anything, as far as that can be told."""
        try:
            await self.ask(self._client.stat(_raw(path)))
        except OSError:
            return False
        return True

    async def lexists(self, path: str) -> bool:
        try:
            await self.lstat(path)
        except OSError:
            return False
        return True

    async def entries(self, path: str) -> AsyncGenerator[tuple[str, SFTPAttrs], None]:
        """The names in a folder, in any order, each with what it is itself. Errors are of ``path``."""
        anything = False
        # A generator, whatever its annotation says: closed, it lets go of the folder.
        scanned = cast("AsyncGenerator[SFTPName, None]", self._client.scandir(_raw(path)))
        async with aclosing(scanned) as names:
            while True:
                try:
                    entry = await self.ask(anext(names), path)
                except StopAsyncIteration:
                    break
                except FileNotFoundError:
                    raise os_error(await self._why_missing(path), path) from None
                anything = True
                name = _spelled(entry.filename)
                if name in {".", ".."}:
                    continue
                attrs = entry.attrs
                if attrs.permissions is None:
                    with suppress(FileNotFoundError):
                        yield name, await self.lstat(posixpath.join(path, name))
                    continue
                yield name, attrs
        if not anything:
            # OpenSSH leaves out what it may not look at: of a folder that may only be listed, all.
            await self.stat(posixpath.join(path, "."), path)

    async def open_regular(self, path: str, file_name: str | None = None) -> HostFile:
        """Open the regular file at ``path``; the caller closes it. ``SourceUnreadable`` if something else is there."""
        # Looked at before, for the host would wait for the other end of a FIFO.
        if not is_file(await self.stat(path, file_name)):
            raise SourceUnreadable("not a regular file")
        # A block size of 0: each read is one request, with no task of asyncssh's own that a cancel would leave behind.
        opening = self._client.open(_raw(path), "rb", block_size=0)
        return HostFile(self, await self.ask(opening, path if file_name is None else file_name))

    @asynccontextmanager
    async def opened(self, path: str, file_name: str | None = None) -> AsyncGenerator[HostFile, None]:
        """As ``open_regular``, looked at, and closed at the end."""
        file = await self.open_regular(path, file_name)
        try:
            await file.look()
            yield file
        except asyncio.CancelledError:
            raise  # no answer is waited for any more
        except BaseException:
            await file.close()
            raise
        else:
            await file.close()

    async def create(self, path: str, mode: int, file_name: str) -> HostFile:
        """Open a new file for writing; ``FileExistsError`` if there is one, or a link."""
        opening = self._client.open(_raw(path), "xb", SFTPAttrs(permissions=mode), block_size=0)
        try:
            return HostFile(self, await self.ask(opening, file_name))
        except OSError as error:
            # There is no code for it.
            if error.errno == errno.EIO and await self.lexists(path):
                raise os_error(errno.EEXIST, file_name) from None
            raise

    async def remove(self, path: str, file_name: str) -> None:
        """Remove a file, or a link and not what it leads to."""
        await self.ask(self._client.remove(_raw(path)), file_name)

    async def replace(self, path: str, by: str, file_name: str) -> None:
        """Rename ``by`` to ``path``, over what is there, at once; ``OSError`` (ENOSYS) if the server can't."""
        await self.ask(self._client.posix_rename(_raw(by), _raw(path)), file_name)

    async def _why_missing(self, path: str, links: int = 0) -> int:
        """The number of the error that an answer "no such file" stands for, of a path of which that was the answer."""
        path = path.rstrip("/") or "/"
        try:
            attrs = await self.lstat(path)
            if is_link(attrs):
                if links >= MAX_LINKS:
                    return errno.ELOOP
                target = _spelled(await self.ask(self._client.readlink(_raw(path))))
                return await self._why_missing(posixpath.join(posixpath.dirname(path), target), links + 1)
            return errno.ENOENT if is_folder(attrs) else errno.ENOTDIR
        except FileNotFoundError:
            pass
        except OSError:
            return errno.ENOENT
        above = posixpath.dirname(path)
        if above in {"", path}:
            return errno.ENOENT
        try:
            return errno.ENOENT if is_folder(await self.ask(self._client.stat(_raw(above)))) else errno.ENOTDIR
        except FileNotFoundError:
            return await self._why_missing(above, links)
        except OSError:
            return errno.ENOENT


class HostFile:
    """An open file. Its size and time are known after ``look``; SFTP has whole seconds."""

    def __init__(self, files: HostFiles, file: SFTPClientFile) -> None:
        self._files = files
        self._file = file
        self.attrs = SFTPAttrs()

    @property
    def size_bytes(self) -> int:
        return self.attrs.size or 0

    @property
    def modified_at_ms(self) -> float:
        return (self.attrs.mtime or 0) * 1000.0

    async def look(self) -> None:
        self.attrs = await self._files.ask(self._file.stat())

    async def pieces(self, size_bytes: int) -> AsyncGenerator[bytes, None]:
        """The first ``size_bytes`` in pieces, or fewer if the file is shorter."""
        read = partial(self._piece, size_bytes)
        async with aclosing(in_order(read, range(0, size_bytes, SFTP_READ_BYTES), SFTP_READS_AHEAD)) as pieces:
            left = size_bytes
            async for piece in pieces:
                if piece:
                    yield piece
                left -= len(piece)
                if len(piece) < min(SFTP_READ_BYTES, left + len(piece)):
                    return

    async def read_all(self, size_bytes: int) -> bytes:
        """The first ``size_bytes``, or fewer if the file is shorter."""
        if size_bytes <= SFTP_READ_BYTES:
            return await self._piece(size_bytes, 0)
        async with aclosing(self.pieces(size_bytes)) as pieces:
            return b"".join([piece async for piece in pieces])

    async def write_all(self, pieces: list[memoryview]) -> None:
        """Write ``pieces``, one behind the other."""
        places: list[tuple[int, memoryview]] = []
        offset = 0
        for piece in pieces:
            starts = range(0, len(piece), SFTP_READ_BYTES)
            places += [(offset + start, piece[start : start + SFTP_READ_BYTES]) for start in starts]
            offset += len(piece)

        async def write(place: tuple[int, memoryview]) -> None:
            await self._files.ask(self._file.write(bytes(place[1]), place[0]))

        async with aclosing(in_order(write, places, SFTP_READS_AHEAD)) as written:
            async for _ in written:
                pass

    async def give_mode(self, mode: int) -> None:
        await self._files.ask(self._file.setstat(SFTPAttrs(permissions=mode)))

    async def give_owner(self, uid: int, gid: int) -> None:
        await self._files.ask(self._file.setstat(SFTPAttrs(uid=uid, gid=gid)))

    async def sync(self) -> None:
        """Make what was written outlast a loss of power; ``OSError`` (ENOSYS) if the server can't."""
        await self._files.ask(self._file.fsync())

    async def close(self) -> None:
        with suppress(OSError):
            await self._files.ask(self._file.close())

    async def _piece(self, size_bytes: int, offset: int) -> bytes:
        """What is between ``offset`` and the next piece, whatever the parts in which the server gives it."""
        wanted = min(SFTP_READ_BYTES, size_bytes - offset)
        data = b""
        while len(data) < wanted:
            more = await self._files.ask(self._file.read(wanted - len(data), offset + len(data)))
            if not more:
                break
            data += cast("bytes", more)
        return data


def _raw(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _spelled(path: str | bytes) -> str:
    return path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
