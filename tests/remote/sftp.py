"""Runs the SFTP engine against a host of the tests, as it is or with something happening there between two requests."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from sidecar.remote.home import RemoteHome
from sidecar.remote.records import Record, RecordReader
from sidecar.remote.sftp.engine import OpenSftp, SftpRun
from tests.remote.sshd import Sshd
from tests.remote.test_sshd import connected

T = TypeVar("T")
NONCE = "c0ffee5eed"
DEADLINE_S = 60


def request_for(op: str, home: Path | None = None, **fields: Any) -> dict[str, Any]:
    """A request about the OpenClaw directory ``home``, given by way of the environment."""
    env = {} if home is None else {"CLAWPAL_OPENCLAW_DIR": str(home)}
    return {"nonce": NONCE, "op": op, "openclawHome": None, **fields, "env": env}


async def records_of(run: SftpRun) -> AsyncIterator[Record]:
    """What a run says, but beats, up to its end."""
    reader = RecordReader(NONCE)
    last = ""
    while chunk := await asyncio.wait_for(run.read(), DEADLINE_S):
        for record in reader.feed(chunk):
            if record.name != "beat":
                last = record.name
                yield record
    assert last in {"end", "fail"}


async def told(open_sftp: OpenSftp, request: dict[str, Any]) -> list[Record]:
    """All that the engine says, but beats."""
    return [record async for record in records_of(SftpRun(open_sftp, request))]


def named(records: list[Record], *names: str) -> list[list[Any]]:
    """The items of the records of these names."""
    return [record.items for record in records if record.name in names]


class Link:
    """A connection to a host in a loop of its own, for tests that wait for nothing."""

    def __init__(self, host: Sshd) -> None:
        self.host = host
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="link")
        self._thread.start()
        self._connected = connected(host)
        self.connection = self.wait(self._connected.__aenter__())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(DEADLINE_S)

    def told(self, request: dict[str, Any], open_sftp: OpenSftp | None = None) -> list[Record]:
        return self.wait(told(open_sftp or self.connection.start_sftp_client, request))

    def home(self, home: Path, open_sftp: OpenSftp | None = None) -> RemoteHome:
        """The OpenClaw directory ``home`` as this engine tells of it."""

        async def start(request: Mapping[str, Any]) -> SftpRun:
            env = {"CLAWPAL_OPENCLAW_DIR": str(home)}
            return SftpRun(
                open_sftp or self.connection.start_sftp_client, {"openclawHome": None, **request, "env": env}
            )

        return RemoteHome(self.loop, start)

    def close(self) -> None:
        self.wait(self._connected.__aexit__(None, None, None))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@contextmanager
def link_to(host: Sshd) -> Iterator[Link]:
    link = Link(host)
    try:
        yield link
    finally:
        link.close()


class Meddler:
    """An SFTP client on whose way something happens: ``before`` is told of each request, by its method and name."""

    def __init__(self, client: asyncssh.SFTPClient, before: Callable[[str, bytes], None]) -> None:
        self._client = client
        self._before = before

    def __getattr__(self, method: str) -> Any:
        real = getattr(self._client, method)
        if method not in {"stat", "lstat", "open", "remove", "posix_rename", "scandir", "readlink"}:
            return real

        def meddled(path: bytes, *rest: Any, **options: Any) -> Any:
            self._before(method, os.path.basename(path))
            answer = real(path, *rest, **options)
            return self._meddled_file(path, answer) if method == "open" else answer

        return meddled

    async def _meddled_file(self, path: bytes, opening: Any) -> MeddledFile:
        return MeddledFile(await opening, partial(self._before, "read", os.path.basename(path)))


class MeddledFile:
    """A file of such a client."""

    def __init__(self, file: asyncssh.SFTPClientFile, before_read: Callable[[], None]) -> None:
        self._file = file
        self._before_read = before_read

    def __getattr__(self, method: str) -> Any:
        return getattr(self._file, method)

    async def read(self, size: int, offset: int) -> Any:
        self._before_read()
        return await self._file.read(size, offset)


def meddling(
    connection: asyncssh.SSHClientConnection, before: Callable[[str, bytes], None]
) -> Callable[[], AbstractAsyncContextManager[Any]]:
    """Opens sessions on the way of which ``before`` is called."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        async with connection.start_sftp_client() as client:
            yield Meddler(client, before)

    return opened


def once(method: str, name: bytes | None, happen: Callable[[], None]) -> Callable[[str, bytes], None]:
    """Lets something happen before the first request of this method for a file of this name, or of any."""
    left = [happen]

    def before(its_method: str, its_name: bytes) -> None:
        if its_method == method and name in {its_name, None} and left:
            left.pop()()

    return before


def in_whole_seconds(home: Path) -> None:
    """Give files times that SFTP tells exactly."""
    for folder, folders, files in os.walk(os.fsencode(home)):
        for name in folders + files:
            path = os.path.join(folder, name)
            times = os.lstat(path)
            os.utime(path, (int(times.st_atime), int(times.st_mtime)), follow_symlinks=False)
