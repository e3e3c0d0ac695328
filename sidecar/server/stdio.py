"""The process's standard streams: the only file that touches descriptors 0 and 1."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

from sidecar.errors import HomeUnknown
from sidecar.limits import FIRST_REPLY_S, READ_AHEAD_CHUNKS, READ_BYTES
from sidecar.server.command import Options
from sidecar.server.connection import Connection
from sidecar.server.process import share_one_heap
from sidecar.stores.locations import ActivePaths

log = logging.getLogger(__name__)

_SOON_NEEDED = ("sidecar.server.schema", "sidecar.stores.home", "sidecar.streams.analyze")
"""What the second request of most clients needs; it is loaded before that comes."""


def serve_stdio(options: Options) -> int:
    """Serve the client behind stdin and stdout until it is done, and return the exit code: 1 if the output broke."""
    input_fd, output_fd = _claim()
    share_one_heap()
    return asyncio.run(_serve(input_fd, output_fd, options))


async def _serve(input_fd: int, output_fd: int, options: Options) -> int:
    loop = asyncio.get_running_loop()
    writer = OutputWriter(output_fd)
    replied = threading.Event()

    async def write(data: bytes) -> None:
        await writer.write(data)
        replied.set()

    connection = Connection(write, options=options)
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, connection.stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(connection.stop))
    writer.watch(loop, connection.lose_output)
    threading.Thread(target=_after_start, args=(replied,), name="after-start", daemon=True).start()
    await connection.run(read_chunks(input_fd))
    writer.close()
    return 1 if connection.output_lost else 0


def _after_start(replied: threading.Event) -> None:
    """Do what the first reply doesn't need: import pydantic, and end what crashed where backups lie by default.

    It begins after that reply, which would otherwise have half of the interpreter at most, or after ``FIRST_REPLY_S``
    if nobody has asked for one. Leaving in the midst of it is another crash, and left to the next start.
    """
    replied.wait(FIRST_REPLY_S)
    for module in _SOON_NEEDED:
        import_module(module)
    from sidecar.backup.leftovers import has_leftovers
    from sidecar.backup.names import FOLDER

    paths = ActivePaths()
    try:
        openclaw_dir, clawpal_dir = paths.openclaw_dir(os.environ), paths.clawpal_dir(os.environ)
        if has_leftovers(os.fsencode(openclaw_dir), os.path.join(os.fsencode(clawpal_dir), FOLDER)):
            from sidecar.backup.home import LocalBackups

            LocalBackups(openclaw_dir, clawpal_dir).recover()
    except HomeUnknown:
        return
    except Exception as error:
        log.warning("could not end what a crash has left of a backup or a restore: %s", error)


def _claim() -> tuple[int, int]:
    """Take the standard streams away from everybody else: a stray ``print`` goes to stderr, a child reads nothing."""
    for fd in (0, 1, 2):
        # One that was closed when the process started would otherwise be the next file that is opened.
        try:
            os.fstat(fd)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), fd)
    input_fd, output_fd = os.dup(0), os.dup(1)
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(input_fd, os.O_BINARY)
        msvcrt.setmode(output_fd, os.O_BINARY)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return input_fd, output_fd


async def read_chunks(fd: int) -> AsyncIterator[bytes]:
    """What comes from ``fd``, read in a thread: pipes, files, sockets and ``/dev/null`` alike, on every system."""
    loop = asyncio.get_running_loop()
    room = threading.Semaphore(READ_AHEAD_CHUNKS)
    chunks: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
        data = None
        # What is empty is the end. If the loop is closed, nobody listens any more.
        with contextlib.suppress(RuntimeError):
            while data != b"":
                room.acquire()
                data = _read_some(fd)
                loop.call_soon_threadsafe(chunks.put_nowait, data)

    # A daemon: nothing can wake it from a read of an input that stays open.
    threading.Thread(target=read, name="stdin", daemon=True).start()
    while data := await chunks.get():
        room.release()
        yield data


def _read_some(fd: int) -> bytes:
    """The next bytes; empty at the end, which a broken input is too."""
    while True:
        try:
            return os.read(fd, READ_BYTES)
        except BlockingIOError:
            select.select([fd], [], [])
        except OSError:
            return b""


class OutputWriter:
    """Writes to ``fd``, which stays as it is: setting it non-blocking would change it for whoever else holds it.

    Where the system takes a single write as non-blocking (Linux, for pipes and sockets), what there is room for is
    written at once; waking a thread for it costs several times as much. A thread writes the rest, and elsewhere all.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._thread = ThreadPoolExecutor(1, "stdout")
        self._writes_at_once = hasattr(os, "RWF_NOWAIT")

    async def write(self, data: bytes) -> None:
        """Write all of ``data``, however long the reader takes. ``OSError`` if it is gone."""
        rest = memoryview(data)[self._write_at_once(data) :]
        if rest:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write_all, rest)

    def close(self) -> None:
        """Let go of the thread, which ends with its write."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def watch(self, loop: asyncio.AbstractEventLoop, lost: Callable[[], None]) -> None:
        """Call ``lost`` in the loop as soon as the other end is closed, whether or not something is being written.

        Windows has no such news of a pipe: there the app's job object ends the process.
        """
        if not hasattr(select, "poll"):
            return
        poll = select.poll()
        # No event is asked for: POLLERR and POLLHUP come unasked. A regular file or /dev/null never reports them.
        poll.register(self._fd, 0)

        def wait() -> None:
            poll.poll()
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(lost)

        threading.Thread(target=wait, name="stdout-watch", daemon=True).start()

    def _write_at_once(self, data: bytes) -> int:
        """Write what there is room for; how many bytes that was."""
        if sys.platform == "linux" and self._writes_at_once:
            try:
                # -1: where the descriptor stands, as write() does.
                return os.pwritev(self._fd, [data], -1, os.RWF_NOWAIT)
            except BlockingIOError:
                pass
            except OSError:  # not for this kind of file, or broken, as the thread's write will say
                self._writes_at_once = False
        return 0

    def _write_all(self, view: memoryview) -> None:
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                select.select([], [self._fd], [])
