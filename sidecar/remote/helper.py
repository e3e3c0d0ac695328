"""The engine for Python: reads OpenClaw's stores on a host and says what it found, as README.md beside this specifies.

It is sent over stdin and runs under Python 3.8 or newer with nothing but the standard library, so it imports nothing of
the project. What it says again of transcripts, indexes, databases and deletion are the rules of ``sidecar/core`` and
``sidecar/stores``, where they are explained; tests hold the two together.

Names and paths are ``str`` of UTF-8 with ``surrogateescape``, whatever the locale, and ``bytes`` where the system gets
them. ``tick`` is what long work calls every few milliseconds: it keeps the output alive.
"""

# ruff: noqa: S608 (what is put into a query is the name of a table or column, from a constant; values are bound)

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import re
import select
import shutil
import signal
import stat
import sys
import tempfile
import time
import traceback
import uuid
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timezone
from functools import partial
from heapq import merge
from itertools import chain, islice
from typing import (
    Any,
    Callable,
    Container,
    Generator,
    Iterable,
    Iterator,
    NamedTuple,
    NoReturn,
    Tuple,
    Union,
)

try:
    import sqlite3
except ImportError:  # some systems split Python into packages
    sqlite3 = None  # type: ignore[assignment]

KIB = 1024
MIB = 1024 * KIB

LEASE_S = 20
FINISH_S = 5.0
END_S = 1.0
BEAT_S = 0.5
OUTPUT_BYTES = 32 * KIB
OUTPUT_AGE_S = 0.02
SAFE_WRITE_BYTES = 512
"""What a pipe that is said to be writable takes without blocking, on every system."""
INPUT_BYTES = 64 * KIB

BLOCK_BYTES = 256 * KIB
BLOCK_GROWTH_BYTES = MIB
LONG_LINE_BYTES = MIB
STRING_BYTES = 4 * MIB
MAX_ENTRY_BYTES = 256 * MIB
MAX_INDEX_PIECE_BYTES = 256 * MIB
MAX_DEPTH = 1000
MAX_TIMESTAMP_CHARS = 64
MAX_TEXT_CHARS = 512
MAX_TEXT_BYTES = 64 * KIB
MAX_NAME_BYTES = 255
MAX_REREADS = 3
UNCUT_LINE_BYTES = 16 * KIB
LISTED_FILES_A_STEP = 1_000

ZSTD_FEED_BYTES = 256
ZSTD_HEADER_BYTES = 18
ZSTD_WINDOW_LOG = 23

SQLITE_CACHE_KIB = 256
SQLITE_BUSY_TIMEOUT_S = 0.05
SQLITE_RETRY_S = 0.005
SQLITE_LOOK_S = 0.02
SQLITE_STEPS = 50_000
MAX_SQLITE_BUSY_S = 5.0
SETTLED_NS = 20_000_000
COPY_BYTES = MIB
MAX_PAGE_IDS = 250
MAX_PAGE_ROWS = 4_096
MAX_PAGE_SIZES = 512
MAX_BOUND_IDS = 500
MAX_SOUGHT_IDS = 10_000
MAX_MARK_BYTES = 64 * KIB
MAX_INDEX_ENTRY_BYTES = 16 * MIB
BLOB_PIECE_BYTES = MIB
MAX_BLOB_PIECES = 16

LOCK_STALE_S = 30 * 60
MAX_LOCK_BYTES = 4 * KIB
INDEX_LOCK_WAIT_S = 5.0
INDEX_LOCK_POLL_S = 0.025
MAX_INDEX_TRIES = 10

Tick = Callable[[], None]
ReadInto = Callable[[memoryview], int]
"""Fills the start of a buffer and returns how many bytes it wrote; 0 at the end."""


class Fault(Exception):
    """What can't be read or done, other than by the system's word; the message is for people."""

    kind = "source_unreadable"


class HomeUnknown(Fault):
    """There is no home directory, and what is asked for hangs on it."""

    kind = "home_unknown"


class InvalidParams(Fault):
    """The request asks for what can't be."""

    kind = "invalid_params"


class BrokenDatabase(Fault):
    """A database is damaged, or of a form that is not known."""

    kind = "broken_database"


class BrokenCompression(Fault):
    """Compressed data is damaged or cut off."""

    kind = "broken_compression"


class BrokenIndex(Fault):
    """A session index is not a JSON object of entries."""

    kind = "broken_index"


class Rewritten(Exception):
    """What was read of a transcript and what is left of it are not of one state: begin again."""


class Vanished(Exception):
    """There is no such session any more."""


FAULTS = (OSError, Fault)


def told(error: BaseException) -> list[str | None]:
    """What records say of an ``OSError`` or ``Fault``: the name of its code, the file name, the message."""
    code = errno.errorcode.get(error.errno or 0) if isinstance(error, OSError) else None
    if isinstance(error, OSError) and code:
        name = error.filename
        return [
            code,
            None if name is None else wire_name(spelled(name) if isinstance(name, bytes) else str(name)),
            None,
        ]
    return [None, None, wire_name(str(error))]


# Names and text

_INVALID = "\ufffd"
_ESCAPED_BYTE = re.compile(f"{_INVALID}([89a-f][0-9a-f])")
_TO_ESCAPE = re.compile(f"[\udc80-\udcff]|{_INVALID}(?=[89a-f][0-9a-f])")
_INVALID_BYTE = re.compile("[\udc80-\udcff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def raw(name: str) -> bytes:
    """A name or path as the system has it."""
    return name.encode("utf-8", "surrogateescape")


def spelled(name: bytes) -> str:
    """A name or path as it is held here."""
    return name.decode("utf-8", "surrogateescape")


def wire_name(name: str) -> str:
    """A name as it appears on the wire, as ``sidecar/text.py`` says."""
    return name if name.isascii() else _TO_ESCAPE.sub(_escape, name)


def file_name(name: str) -> str:
    """The name of a wire name; ``UnicodeError`` if it is none."""
    pieces = enumerate(_ESCAPED_BYTE.split(name))
    return spelled(b"".join(bytes.fromhex(piece) if number % 2 else piece.encode() for number, piece in pieces))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    escaped = bytes([code - 0xDC00]) if match[0] != _INVALID else match[0].encode()
    return "".join(f"{_INVALID}{byte:02x}" for byte in escaped)


def mended(text: str) -> str:
    """``text`` with U+FFFD for each half of a surrogate pair."""
    return text if text.isascii() else _SURROGATE.sub(_INVALID, text)


def objection_to_name(name: str) -> str | None:
    """Why a wire name can't be that of a file."""
    if name in {"", ".", ".."} or any(character in name for character in "/\\\0"):
        return "not a valid name"
    try:
        return "the name is too long" if len(raw(file_name(name))) > MAX_NAME_BYTES else None
    except UnicodeError:
        return "not a valid name"


def without_ending(name: str, ending: str) -> str:
    """``name`` without ``ending``, if it ends so."""
    return name[: -len(ending)] if ending and name.endswith(ending) else name


# Output, and the end of the process


class Output:
    """Records on stdout: gathered for some milliseconds, one at least every second, blocking when the reader is slow.

    When nobody reads any more the process ends; while it ``finishes`` something, that goes on in silence.
    """

    def __init__(self, descriptor: int) -> None:
        self.finishes = False
        self.is_over = False
        """Whether the input has ended; set only while the process ``finishes``."""
        self.watchdog: Watchdog | None = None
        self._descriptor = descriptor
        self._waiting = bytearray()
        self._waiting_since_s = 0.0
        self._written_at_s = time.monotonic()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def say(self, *items: Any) -> None:
        """Add a record."""
        self.add(json.dumps(items, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n")
        self.tick()

    def send(self, items: list[Any], *pieces: bytes | memoryview) -> None:
        """Add a record with the bytes that follow it."""
        self.add(json.dumps([*items, sum(map(len, pieces))], separators=(",", ":")).encode() + b"\n")
        for piece in pieces:
            self.add(piece)
        self.add(b"\n")
        self.tick()

    def add(self, data: bytes | memoryview) -> None:
        """Add bytes as they are."""
        if not self._waiting:
            self._waiting_since_s = time.monotonic()
        if len(data) >= OUTPUT_BYTES:
            self.flush()
            self._write(data)
            return
        self._waiting += data
        if len(self._waiting) >= OUTPUT_BYTES:
            self.flush()

    def tick(self) -> None:
        """Write what has waited long enough, or that there is nothing new."""
        now_s = time.monotonic()
        if self._waiting:
            if now_s - self._waiting_since_s > OUTPUT_AGE_S:
                self.flush()
        elif now_s - self._written_at_s > BEAT_S:
            self._write(b'["beat"]\n')

    def tick_without_waiting(self) -> None:
        """The same as far as it can be done without waiting for the reader: for when something is held meanwhile."""
        now_s = time.monotonic()
        if not self._waiting:
            if now_s - self._written_at_s > BEAT_S and self._poll.poll(0):
                self._write(b'["beat"]\n')
        elif now_s - self._waiting_since_s > OUTPUT_AGE_S:
            while self._waiting and self._poll.poll(0):
                self._write(self._waiting[:SAFE_WRITE_BYTES])
                del self._waiting[:SAFE_WRITE_BYTES]

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, bytearray()
        if waiting:
            self._write(waiting)

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        with memoryview(data) as view:
            left = view
            while left and self._may_write():
                try:
                    left = left[os.write(self._descriptor, left[:SAFE_WRITE_BYTES] if self.finishes else left) :]
                except BlockingIOError:
                    self._poll.poll(BEAT_S * 1000)
                except OSError:  # nobody reads any more
                    if not self.finishes:
                        os._exit(0)
                    self.is_over = True
                    return
        self._written_at_s = time.monotonic()
        # Here, since this is done at least once a second.
        if self.watchdog is not None and not self.watchdog.is_there:
            self._go_unwatched(self.watchdog)

    def _go_unwatched(self, watchdog: Watchdog) -> None:
        """Nobody would end this process any more."""
        self.is_over = True
        if not self.finishes:
            watchdog.remove()
            os._exit(1)

    def _may_write(self) -> bool:
        """Wait for the reader, but not for one who has gone while we finish."""
        while self.finishes and not self._poll.poll(BEAT_S * 1000):
            if self.is_over:
                return False
        return True


class Watchdog:
    """What a worker knows of the process that watches over it: its parent, which ends it and removes what it leaves."""

    def __init__(self, pid: int, pipe: int) -> None:
        self._pid = pid
        self._pipe = pipe
        self._folders: list[bytes] = []

    @property
    def is_there(self) -> bool:
        """Whether there is still somebody who would end this process."""
        return os.getppid() == self._pid

    def remove_at_end(self, folder: bytes) -> None:
        """Have a folder, which is yet to be made, removed at the end."""
        self._folders.append(folder)
        os.write(self._pipe, folder + b"\0")

    def remove(self) -> None:
        """Do that, for one who has gone."""
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def let_end(self) -> None:
        """Call before the last output: who has it may end the input, and this process is not to be killed for that."""
        os.write(self._pipe, b"\0\0")


def watched(output: Output, work: Callable[[Watchdog], None]) -> int:
    """Do ``work`` in a process that is killed when the input ends, or brings nothing for ``LEASE_S``; its exit status.

    A process and not a thread watches, since what parses a line or steps a query may let no thread of Python's run for
    seconds; and it removes what the other leaves, however that ends. It is the one that was started from outside, so
    that it reaps the other: where nobody takes in orphans, in many a container, each would stay for ever.
    """
    ours, theirs = os.pipe()
    signal.signal(signal.SIGUSR1, partial(_input_ended, output))
    watchdog = Watchdog(os.getpid(), theirs)
    worker = os.fork()
    if worker == 0:
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.close(ours)
            output.watchdog = watchdog
            work(watchdog)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(theirs)
    signal.alarm(0)
    return _watch(worker, ours, output.finishes)


def _input_ended(output: Output, *_: Any) -> None:
    output.is_over = True


def _told_to_end(*_: Any) -> NoReturn:
    raise SystemExit


def _watch(worker: int, pipe: int, finishes: bool) -> int:
    """Wait for the end of the worker, or end it; how it ended."""
    messages = bytearray()
    try:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _told_to_end)
        for descriptor in (1, 2):
            os.close(descriptor)
        if not _worker_outlives_input(pipe, messages):
            pass
        elif messages.endswith(b"\0\0"):
            _ends_within(END_S, pipe, messages)
        elif finishes:
            os.kill(worker, signal.SIGUSR1)
            _ends_within(FINISH_S, pipe, messages)
    except SystemExit:
        pass
    finally:
        # It may have ended, but its number is its own until it is reaped.
        os.kill(worker, signal.SIGKILL)
        _, status = os.waitpid(worker, 0)
        for folder in messages.split(b"\0"):
            if folder:
                shutil.rmtree(bytes(folder), ignore_errors=True)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1


def _worker_outlives_input(pipe: int, messages: bytearray) -> bool:
    """Wait for the end of the input, or of the lease; False when the worker has ended sooner."""
    until_s = time.monotonic() + LEASE_S
    while True:
        ready, _, _ = select.select([pipe, 0], [], [], max(0.0, until_s - time.monotonic()))
        if pipe in ready:
            message = os.read(pipe, INPUT_BYTES)
            if not message:
                return False
            messages += message
        elif not ready or not _has_input():
            return True
        else:
            until_s = time.monotonic() + LEASE_S


def _has_input() -> bool:
    try:
        return bool(os.read(0, INPUT_BYTES))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _ends_within(seconds: float, pipe: int, messages: bytearray) -> None:
    until_s = time.monotonic() + seconds
    while select.select([pipe], [], [], max(0.0, until_s - time.monotonic()))[0]:
        message = os.read(pipe, INPUT_BYTES)
        if not message:
            return
        messages += message


# Where things are


class Agent(NamedTuple):
    """An agent's name and its folder."""

    name: str
    path: str


class Host:
    """What every op is given: where OpenClaw lies, where to say what was found, how to name private files."""

    def __init__(self, openclaw_dir: str, output: Output, watchdog: Watchdog, nonce: str) -> None:
        self.openclaw_dir = openclaw_dir
        self.output = output
        self.tick = output.tick
        self.reports_failures = True
        self._watchdog = watchdog
        self._nonce = nonce

    def failed(self, path: str, error: BaseException) -> None:
        """Say that the item at ``path`` failed, unless what is asked for is one item."""
        if self.reports_failures:
            self.output.say("failed", wire_name(path), *told(error))

    def private_folder(self) -> str:
        """Make a folder that nobody else may look into, and that is gone when this process is."""
        temp = os.path.abspath(os.fsencode(tempfile.gettempdir()))
        folder = os.path.join(temp, b"clawpal-sidecar-" + self._nonce.encode())
        self._watchdog.remove_at_end(folder)
        os.mkdir(folder, 0o700)
        return spelled(folder)


def find_openclaw_dir(request: dict[str, Any]) -> str:
    """The OpenClaw directory, absolute. ``HomeUnknown`` if it hangs on a home directory and there is none."""
    environ = {str(name): file_name(str(value)) for name, value in request.get("env", {}).items()}
    home = request.get("openclawHome")
    if home is not None:
        return os.path.join(file_name(str(home)), ".openclaw")
    if environ.get("CLAWPAL_OPENCLAW_DIR"):
        return expand(environ["CLAWPAL_OPENCLAW_DIR"], environ)
    if environ.get("OPENCLAW_HOME"):
        home = expand(environ["OPENCLAW_HOME"], environ)
        inner = os.path.join(home, ".openclaw")
        return inner if _is_state_dir(inner) else home
    return expand(environ.get("OPENCLAW_STATE_DIR") or "~/.openclaw", environ)


def expand(path: str, environ: dict[str, str]) -> str:
    """``path`` made absolute, ``~`` and ``~/`` at its start replaced by the home directory."""
    if path == "~" or path.startswith("~/"):
        home = environ.get("HOME")
        if not home:
            raise HomeUnknown("no home directory: HOME is not set, and neither is a directory to use instead of it")
        path = home + path[1:]
    return spelled(os.path.abspath(raw(path)))


def _is_state_dir(path: str) -> bool:
    return any(os.path.exists(raw(os.path.join(path, name))) for name in ("openclaw.json", "agents"))


def list_agents(openclaw_dir: str) -> list[Agent]:
    """The agents, by name; none without an ``agents`` folder. ``OSError`` if it can't be read."""
    folder = os.path.join(openclaw_dir, "agents")
    try:
        entries = os.scandir(raw(folder))
    except FileNotFoundError:
        return []
    with entries:
        names = [spelled(entry.name) for entry in entries if _may_be_folder(entry)]
    return [Agent(name, os.path.join(folder, name)) for name in sorted(names)]


def find_agent(openclaw_dir: str, agent_id: str) -> Agent:
    """The agent of this wire name. ``InvalidParams`` if it is no name; ``FileNotFoundError`` without one."""
    objection = objection_to_name(agent_id)
    if objection:
        raise InvalidParams(f"agentId: {objection}")
    for agent in list_agents(openclaw_dir):
        if wire_name(agent.name) == agent_id:
            return agent
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"agents/{agent_id}")


def _may_be_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links, say: listing its sessions will report it
        return True


# What a file is, by its name

FOLDERS = (("sessions", "sessions"), ("sessions_archive", "archive"))
"""Where an agent's live transcripts and archives lie, and the kind of what lies there."""
LIVE_FOLDER = "sessions"
IMPORT_FOLDER = "session-sqlite-import-archive"
ALL_FOLDERS = (*(folder for folder, _ in FOLDERS), IMPORT_FOLDER)

_SUFFIX = ".jsonl"
_TRACE = ".trajectory"
_UUID = "-".join(f"[0-9a-f]{{{digits}}}" for digits in (8, 4, 4, 4, 12))
_TIMESTAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}-[0-9]{2}-[0-9]{2}(?:\.[0-9]{3})?Z"
_CHECKPOINT = re.compile(rf"(.+)\.checkpoint\.{_UUID}", re.DOTALL)
_ARCHIVE = re.compile(rf"(.+)\.jsonl\.(reset|deleted)\.{_TIMESTAMP}(?:(?:\.[0-9a-f]{{32}})?\.zst)?", re.DOTALL)
_IMPORT = re.compile(r"(.+)\.jsonl\.imported-[0-9]+(?:\.[0-9]+)?", re.DOTALL)


class SessionFileName(NamedTuple):
    """What a name says: ``role`` and ``stem`` as in ``sidecar/stores/session_names.py``."""

    role: str
    stem: str
    archived_as: str | None = None


def classify(name: str) -> SessionFileName | None:
    """What a file of this name is; ``None`` if it is neither a session nor anything that belongs to one."""
    if name.endswith(_SUFFIX):
        return _of_jsonl(without_ending(name, _SUFFIX))
    if ".jsonl." not in name:
        stem = without_ending(name, ".trajectory-path.json")
        return SessionFileName("trajectory", stem) if stem and stem != name else None
    if name.endswith(".jsonl.lock"):
        stem = without_ending(name, ".jsonl.lock")
        return SessionFileName("lock", stem) if stem else None
    found = _of_moved(name)
    return found if found and _is_session(found.stem) else None


def is_transcript(name: str) -> bool:
    """Whether a file of this name is a live transcript."""
    return name.endswith(_SUFFIX) and _is_session(without_ending(name, _SUFFIX))


def _of_jsonl(stem: str) -> SessionFileName | None:
    if _is_session(stem):
        return SessionFileName("transcript", stem)
    match = _CHECKPOINT.fullmatch(stem)
    if match:
        return SessionFileName("checkpoint", match[1])
    traced = without_ending(stem, _TRACE)
    return SessionFileName("trajectory", traced) if traced else None


def _of_moved(name: str) -> SessionFileName | None:
    match = _ARCHIVE.fullmatch(name)
    if match:
        return SessionFileName("archive", match[1], match[2])
    match = _IMPORT.fullmatch(name)
    if match:
        return SessionFileName("import", match[1], "imported")
    return SessionFileName("cold", without_ending(name, ".jsonl.zst")) if name.endswith(".jsonl.zst") else None


def _is_session(stem: str) -> bool:
    return stem != "" and not stem.endswith(_TRACE) and not (".checkpoint." in stem and _CHECKPOINT.fullmatch(stem))


def indexed_id(stem: str) -> str:
    """The id under which the index knows a transcript: topics share the one of the session they belong to."""
    return wire_name(stem.partition("-topic-")[0] if "-topic-" in stem else stem)


# Files

# A FIFO that took a file's place must not hold up the open.
_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


class OpenFile(NamedTuple):
    """A regular file, open for reading, and how it stood when it was opened."""

    fd: int
    size_bytes: int
    modified_at_ms: float


def open_regular(path: str, folder_fd: int | None = None) -> OpenFile:
    """Open the regular file at ``path``; the caller closes it. ``Fault`` if something else is there."""
    fd = os.open(raw(path), _OPEN_FLAGS, dir_fd=folder_fd)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise Fault("not a regular file")
    return OpenFile(fd, found.st_size, found.st_mtime_ns / 1_000_000)


@contextmanager
def open_folder(path: str) -> Iterator[int]:
    """Hold a folder open."""
    fd = os.open(raw(path), _OPEN_FLAGS | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


class FileReader:
    """A ``ReadInto`` of ``left`` bytes at most; ``left`` is above 0 at the end if the file turned out shorter."""

    def __init__(self, file: OpenFile, tick: Tick) -> None:
        self.left = file.size_bytes
        self._fd = file.fd
        self._tick = tick

    def __call__(self, space: memoryview) -> int:
        self._tick()
        count = os.readv(self._fd, [space[: self.left]]) if self.left else 0
        self.left -= count
        return count

    def chunks(self) -> Iterator[bytes]:
        """The same as chunks."""
        space = memoryview(bytearray(BLOCK_BYTES))
        while True:
            count = self(space)
            if not count:
                return
            yield bytes(space[:count])


class Lines(NamedTuple):
    """Whole lines, ``buffer[start:end]``, valid until more is asked for; only the last one may lack its line feed."""

    buffer: bytes | bytearray
    start: int
    end: int


class Skipped(NamedTuple):
    """Lines that were passed over as too long, and their size."""

    lines: int
    size_bytes: int


class Compressed(NamedTuple):
    """What is sent on as it is: the items of its record but the last, and its bytes."""

    record: list[Any]
    data: bytes

    @property
    def is_row(self) -> bool:
        """Whether it is one row, and not part of a stream."""
        return bool(self.record[0] == "frame")


Item = Union[Lines, Skipped, Compressed]
"""A part of a transcript, as it comes."""


class RecordBlocks:
    """Reads blocks of whole records in one reused buffer, as ``sidecar/core/blocks.py``."""

    def __init__(self, separator: bytes = b"\n", max_record_bytes: int = MAX_ENTRY_BYTES) -> None:
        self.overlong = 0
        self._separator = separator
        self._max_record_bytes = max_record_bytes
        self._buffer = bytearray(BLOCK_BYTES)
        self._start = self._end = 0
        self._skipping = False

    def read(self, read_into: ReadInto) -> Lines | None:
        """The next block, or ``None`` at the end of the data."""
        self._make_room()
        while True:
            searched = max(0, self._end - len(self._separator) + 1)
            with memoryview(self._buffer) as view, view[self._end : self._end + BLOCK_BYTES] as space:
                count = read_into(space)
            if count == 0:
                return self._last_block()
            self._end += count
            if self._skipping and not self._skip(searched):
                continue
            cut = self._buffer.rfind(self._separator, searched, self._end) + len(self._separator)
            if cut >= len(self._separator):
                block = Lines(self._buffer, self._start, cut)
                self._start = cut
                if block.start < block.end:
                    return block
            if self._end - self._start > self._max_record_bytes:
                self.overlong += 1
                self._skipping = True
                self._drop()
            self._make_room()

    def _make_room(self) -> None:
        left = self._end - self._start
        if self._start:
            self._buffer[:left] = self._buffer[self._start : self._end]
            self._start, self._end = 0, left
        if left == len(self._buffer):
            self._buffer.extend(bytes(max(BLOCK_GROWTH_BYTES, left // 8)))
        elif len(self._buffer) > BLOCK_BYTES and left < BLOCK_BYTES // 2:
            del self._buffer[BLOCK_BYTES:]

    def _skip(self, searched: int) -> bool:
        end = self._buffer.find(self._separator, searched, self._end)
        if end < 0:
            self._drop()
            self._make_room()
            return False
        self._start = end + len(self._separator)
        self._skipping = False
        return True

    def _drop(self) -> None:
        self._start = max(self._start, self._end - len(self._separator) + 1)

    def _last_block(self) -> Lines | None:
        block = Lines(self._buffer, self._start, self._end)
        self._start = self._end
        return None if self._skipping or block.start == block.end else block


def lines_of(source: ReadInto) -> Iterator[Lines | Skipped]:
    """What ``source`` delivers as lines; those over ``MAX_ENTRY_BYTES`` are skipped, and told at the end."""
    read_bytes = given_bytes = 0

    def counted(space: memoryview) -> int:
        nonlocal read_bytes
        count = source(space)
        read_bytes += count
        return count

    blocks = RecordBlocks()
    while True:
        block = blocks.read(counted)
        if block is None:
            break
        given_bytes += block.end - block.start
        yield block
    if blocks.overlong:
        yield Skipped(blocks.overlong, read_bytes - given_bytes)


# Compressed data


class Zstd:
    """Opens zstd with what Python brings since 3.14, or with the package ``zstandard`` if it happens to be there."""

    def __init__(self) -> None:
        self._new: Callable[[], Any] | None = _new_decompressor()

    @property
    def is_there(self) -> bool:
        return self._new is not None

    def expanded(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """What the frames hold, in pieces of some MiB at most; ``BrokenCompression`` if they are damaged or cut off."""
        assert self._new is not None
        frame = None
        for chunk in chunks:
            left = chunk
            while left:
                frame = self._new() if frame is None or frame.eof else frame
                fed = left[:ZSTD_FEED_BYTES]
                try:
                    piece = frame.decompress(fed)
                except Exception as error:  # each library has its own
                    raise BrokenCompression(f"the compressed data can't be read: {error}") from None
                left = left[len(fed) - len(frame.unused_data) :]
                if piece:
                    yield piece
        if frame is None or not frame.eof:
            raise BrokenCompression("the compressed data ends in the middle")

    def opened(self, frame: bytes, tick: Tick) -> bytes | None:
        """What is in one frame; ``None`` if it is damaged or too large, which is for others to say."""
        text = bytearray()
        try:
            for piece in self.expanded([frame]):
                tick()
                text += piece
                if len(text) > MAX_ENTRY_BYTES:
                    return None
        except BrokenCompression:
            return None
        return bytes(text)


def _new_decompressor() -> Callable[[], Any] | None:
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        pass
    else:
        bound = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
        return lambda: zstd.ZstdDecompressor(options=bound)
    try:
        import zstandard
    except ImportError:
        return None
    return lambda: zstandard.ZstdDecompressor(max_window_size=1 << ZSTD_WINDOW_LOG).decompressobj()


def content_bytes(frame: bytes) -> int | None:
    """The size of its content as a frame's first ``ZSTD_HEADER_BYTES`` tell it; ``None`` if they don't."""
    broken = BrokenCompression("the compressed data can't be read: error when determining content size")
    if frame[1:4] == b"\x2a\x4d\x18" and 0x50 <= frame[0] <= 0x5F:
        return 0  # a frame to be passed over
    if frame[:4] != b"\x28\xb5\x2f\xfd" or len(frame) < 5 or frame[4] & 0x08:
        raise broken
    descriptor = frame[4]
    is_single = descriptor >> 5 & 1
    place = 6 - is_single + (0, 1, 2, 4)[descriptor & 3]
    size = (is_single, 2, 4, 8)[descriptor >> 6]
    field = frame[place : place + size]
    if len(field) < size:
        raise broken
    told_bytes = int.from_bytes(field, "little")
    return (told_bytes + 256 if size == 2 else told_bytes) if size else None


def chunk_reader(chunks: Iterator[bytes]) -> ReadInto:
    """A ``ReadInto`` of what ``chunks`` gives."""
    waiting = memoryview(b"")

    def read_into(space: memoryview) -> int:
        nonlocal waiting
        while not waiting:
            chunk = next(chunks, None)
            if chunk is None:
                return 0
            waiting = memoryview(chunk)
        count = min(len(space), len(waiting))
        space[:count] = waiting[:count]
        waiting = waiting[count:]
        return count

    return read_into


# Transcripts

_BLANKS = " \t\r\n"
_SPACE = re.compile(rb"[ \t\r\n]*")
_SCALAR = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")
# Bounded, since each repetition of a group takes memory until the end of the match.
_IN_STRING = re.compile(rb'(?:[^"\\\x00-\x1f]+|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})){0,1000}')
_QUOTE, _BACKSLASH, _COMMA, _COLON, _BRACE, _END_BRACE, _BRACKET, _END_BRACKET = b'"\\,:{}[]'
_LONGEST_ESCAPE = 6


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


# What numbers say doesn't matter, and Python refuses to convert long ones.
_scan = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=_refuse).scan_once  # type: ignore[attr-defined]
_UNREADABLE = (ValueError, StopIteration, RecursionError)


def parse_entry(line: str) -> dict[str, Any] | None:
    """The object that is all of ``line``, with its numbers replaced by others; ``None`` if there is none."""
    try:
        entry, end = _scan(line, 0)
    except _UNREADABLE:
        return None
    return entry if end == len(line) and type(entry) is dict else None


Span = Tuple[int, int]


# What LongLine calls the objects and arrays that matter, and the fields in them whose places it keeps.
_INNER = {
    ("", "", _BRACE): "entry",
    ("entry", "message", _BRACE): "message",
    ("message", "content", _BRACKET): "content",
    ("content", "", _BRACE): "block",
}
_WANTED: dict[str, Container[str]] = {"entry": {"type", "id", "timestamp"}, "message": {"role", "content"}}


class _Open(NamedTuple):
    """An array or object that is being read, and which value it is in the one around it."""

    start: int
    closing: int
    where: str
    name: str


class _NotJson(Exception):
    pass


class LongLine:
    """Finds the fields that matter in one line of any length without building the others, or copying any.

    ``fields`` are the places of the values of an entry's ``type``, ``id`` and ``timestamp`` and its message's ``role``
    and ``content``; ``texts`` those of the texts of a content's objects, ``None`` where that is no string. Of two
    fields of one name the last one counts.
    """

    def __init__(self, buffer: bytes | bytearray, start: int, end: int, tick: Tick) -> None:
        self.fields: dict[str, Span] = {}
        self.texts: list[Span | None] = []
        self._buffer = buffer
        self._start = start
        self._end = end
        self._tick = tick
        self._open: list[_Open] = []

    def is_entry(self) -> bool:
        """Read the line; False if it is not a JSON object."""
        try:
            self._read()
        except _NotJson:
            return False
        return True

    def is_blank(self) -> bool:
        """Whether there is nothing but white space."""
        return self._after_space(self._start) == self._end

    def entry(self) -> dict[str, Any]:
        """What ``parse_entry`` gives, as far as it matters."""
        entry: dict[str, Any] = {name: self.text(name) for name in ("type", "id", "timestamp")}
        entry["message"] = {"role": self.text("role")}
        return entry

    def text(self, name: str) -> str | None:
        """What a field says, if it is a string of some length."""
        start, end = self.fields.get(name, (0, 0))
        return self._decoded(start, end) if 0 < end - start <= MAX_TEXT_BYTES else None

    def shown_bytes(self) -> int:
        """About how long ``shown`` is."""
        spans = [*self.fields.values(), *filter(None, self.texts)]
        return sum(end - start for start, end in spans if self._buffer[start] == _QUOTE)

    def shown(self) -> bytes:
        """The line with only what a preview shows of it."""
        fields = b",".join(self._string(b"role", self.fields.get("role")) + self._content())
        line = b",".join([*self._string(b"type", self.fields.get("type")), b'"message":{%b}' % fields])
        return b"{%b}" % line

    def _content(self) -> list[bytes]:
        span = self.fields.get("content")
        if span is None or self._buffer[span[0]] != _BRACKET:
            return self._string(b"content", span)
        return [b'"content":[%b]' % b",".join([b"{%b}" % b"".join(self._string(b"text", text)) for text in self.texts])]

    def _string(self, name: bytes, span: Span | None) -> list[bytes]:
        if span is None or self._buffer[span[0]] != _QUOTE:
            return []
        return [b'"%b":%b' % (name, bytes(self._buffer[span[0] : span[1]]))]

    def _decoded(self, start: int, end: int) -> str | None:
        if self._buffer[start] != _QUOTE:
            return None
        return str(json.loads(self._buffer[start:end].decode("utf-8", "replace")))

    def _read(self) -> None:
        """Go from one value to the next, in and out of arrays and objects."""
        place, where, name = self._after_space(self._start), "", ""
        if self._byte(place) != _BRACE:
            raise _NotJson
        while True:
            start = self._after_space(place)
            first = self._byte(start)
            self._forget(where, name, first)
            if first in (_BRACE, _BRACKET):
                closing = self._go_in(start, where, name)
                where = _INNER.get((where, name, first), "")
                place = self._after_space(start + 1)
                if self._byte(place) != closing:
                    place, name = self._to_value(place, where)
                    continue
            else:
                place = self._after_string(start + 1) if first == _QUOTE else self._after_scalar(start)
                self._note(where, name, start, place)
            place, where = self._go_out(place, where)
            if not self._open:
                break
            if self._byte(place) != _COMMA:
                raise _NotJson
            place, name = self._to_value(self._after_space(place + 1), where)
        if place != self._end:
            raise _NotJson

    def _go_in(self, start: int, where: str, name: str) -> int:
        if len(self._open) == MAX_DEPTH:
            raise _NotJson
        closing = _END_BRACE if self._buffer[start] == _BRACE else _END_BRACKET
        self._open.append(_Open(start, closing, where, name))
        return closing

    def _go_out(self, place: int, where: str) -> tuple[int, str]:
        """Leave the arrays and objects that end at ``place``."""
        self._tick()
        place = self._after_space(place)
        while self._open and self._byte(place) == self._open[-1].closing:
            start, _, where, name = self._open.pop()
            self._note(where, name, start, place + 1)
            place = self._after_space(place + 1)
        return place, where

    def _to_value(self, place: int, where: str) -> tuple[int, str]:
        """Pass over the key, if this is an object; gives what it says, if that may matter."""
        if self._open[-1].closing == _END_BRACKET:
            return place, ""
        if self._byte(place) != _QUOTE:
            raise _NotJson
        end = self._after_string(place + 1)
        name = ""
        if where and end - place <= _LONGEST_ESCAPE * len('"timestamp"'):
            name = self._decoded(place, end) or ""
        end = self._after_space(end)
        if self._byte(end) != _COLON:
            raise _NotJson
        return end + 1, name

    def _forget(self, where: str, name: str, first: int) -> None:
        """Drop what is known of a value that the one which begins replaces."""
        if where == "entry" and name == "message":
            self.fields.pop("role", None)
            self.fields.pop("content", None)
            self.texts.clear()
        elif where == "message" and name == "content":
            self.texts.clear()
        elif where == "content" and first == _BRACE:
            self.texts.append(None)

    def _note(self, where: str, name: str, start: int, end: int) -> None:
        if name in _WANTED.get(where, ()):
            self.fields[name] = start, end
        elif where == "block" and name == "text":
            self.texts[-1] = (start, end) if self._buffer[start] == _QUOTE else None

    def _byte(self, place: int) -> int:
        return self._buffer[place] if place < self._end else -1

    def _after_space(self, place: int) -> int:
        match = _SPACE.match(self._buffer, place, self._end)
        assert match
        return match.end()

    def _after_scalar(self, place: int) -> int:
        match = _SCALAR.match(self._buffer, place, self._end)
        if not match:
            raise _NotJson
        return match.end()

    def _after_string(self, place: int) -> int:
        while True:
            match = _IN_STRING.match(self._buffer, place, min(self._end, place + STRING_BYTES))
            assert match
            if self._byte(match.end()) == _QUOTE:
                return match.end() + 1
            if match.end() == place:
                raise _NotJson
            place = match.end()
            self._tick()


def entries(lines: Lines, tick: Tick) -> Iterator[dict[str, Any] | None]:
    """The entry on each line that is not blank, as far as it matters; ``None`` for a line that holds none."""
    buffer, start, end = lines
    if end - start <= BLOCK_BYTES:
        yield from _entries_of_text(buffer, start, end)
        return
    while start < end:
        tick()
        line_end = buffer.find(b"\n", start, end) + 1 or end
        if line_end - start <= LONG_LINE_BYTES:
            yield from _entries_of_text(buffer, start, line_end)
        else:
            line = LongLine(buffer, start, line_end, tick)
            if not line.is_blank():
                yield line.entry() if line.is_entry() else None
        start = line_end


def _entries_of_text(buffer: bytes | bytearray, start: int, end: int) -> Iterator[dict[str, Any] | None]:
    with memoryview(buffer) as view, view[start:end] as part:
        text = str(part, "utf-8", "replace")
    for line in text.split("\n"):
        stripped = line.strip(_BLANKS)
        if stripped:
            yield parse_entry(stripped)


def text_in(fields: dict[str, Any], name: str) -> str | None:
    """A field that is a string, with U+FFFD for each half of a surrogate pair."""
    value = fields.get(name)
    return mended(value) if type(value) is str else None


class Tally:
    """The counts of one transcript, or of a part of it, fed with its lines; the fields are those of records."""

    def __init__(self) -> None:
        self.messages = 0
        self.users = 0
        self.assistants = 0
        self.last_activity: str | None = None
        self.header_id: str | None = None
        self.begun = False
        self.skipped_lines = 0
        self.size_bytes = 0

    def counts(self) -> list[Any]:
        """What records say of the lines, in their order."""
        roles = [self.messages, self.users, self.assistants]
        return [*roles, self.last_activity, self.header_id, self.begun, self.skipped_lines]

    def add(self, lines: Lines, tick: Tick) -> None:
        """Count whole lines."""
        self.size_bytes += lines.end - lines.start
        for entry in entries(lines, tick):
            self.count(entry)

    def skip(self, skipped: Skipped) -> None:
        """Count lines that nobody has read."""
        self.skipped_lines += skipped.lines
        self.size_bytes += skipped.size_bytes

    def count(self, entry: dict[str, Any] | None) -> None:
        """Count one entry, or a line that is none."""
        if entry is None:
            self.skipped_lines += 1
            return
        if not self.begun:
            self.begun = True
            if entry.get("type") == "session":
                header_id = text_in(entry, "id")
                self.header_id = header_id and header_id[:MAX_TEXT_CHARS]
        if entry.get("type") != "message":
            return
        self.messages += 1
        message = entry.get("message")
        role = message.get("role") if type(message) is dict else None
        if role == "user":
            self.users += 1
        elif role == "assistant":
            self.assistants += 1
        timestamp = text_in(entry, "timestamp")
        if timestamp is not None and len(timestamp) <= MAX_TIMESTAMP_CHARS:
            self.last_activity = timestamp


# The session index

_MEMBER_END = b"\n  },\n"
_NO_MEMBER = re.compile(rb"\{\s*\}\s*")
_END_OF_WHOLE_NUMBERS = 2**62
_LONGEST_NUMBER = 1_000


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) < _LONGEST_NUMBER else float(digits)


_decode_index = json.JSONDecoder(parse_int=_whole_number, parse_constant=_refuse).decode


class IndexEntry(NamedTuple):
    """What an index says of a session; ``updated_at_ms`` is 0 where it says nothing."""

    updated_at_ms: int = 0
    total_tokens: int = 0
    model: str | None = None


class SessionIndex:
    """What an index says of the sessions that it was asked to remember."""

    def __init__(self, session_ids: Iterable[str]) -> None:
        self._entries: dict[str, IndexEntry] = dict.fromkeys(session_ids, IndexEntry())
        self._models: dict[str | None, str | None] = {}

    def __getitem__(self, session_id: str) -> IndexEntry:
        return self._entries.get(session_id) or IndexEntry()

    def clear(self) -> None:
        """Forget what was remembered."""
        self._entries = dict.fromkeys(self._entries, IndexEntry())

    def remember(self, members: Iterable[Any]) -> None:
        """Keep what entries say; of two for one session, what the one updated later says."""
        for member in members:
            session_id = text_in(member, "sessionId") if type(member) is dict else None
            known = None if session_id is None else self._entries.get(session_id)
            if session_id is None or known is None:
                continue
            updated_at_ms = _count_in(member, "updatedAt")
            if updated_at_ms >= known.updated_at_ms:
                model = text_in(member, "model")
                tokens = _count_in(member, "totalTokens") if type(member.get("totalTokens")) is int else 0
                self._entries[session_id] = IndexEntry(updated_at_ms, tokens, self._models.setdefault(model, model))


def _count_in(member: dict[str, Any], name: str) -> int:
    value: Any = member.get(name)
    is_number = type(value) in {int, float}
    return int(value) if is_number and 0 <= value < _END_OF_WHOLE_NUMBERS else 0


def read_index(path: str, index: SessionIndex, tick: Tick) -> None:
    """Fill ``index`` from the ``sessions.json`` at ``path``; a missing file leaves it empty.

    ``BrokenIndex`` if it is not a JSON object (nothing is kept of it then), ``OSError`` if it can't be read.
    """
    try:
        file = open_regular(path)
    except FileNotFoundError:
        return
    try:
        for members in _pieces(FileReader(file, tick)):
            index.remember(members)
    except BaseException:
        index.clear()
        raise
    finally:
        os.close(file.fd)


def _pieces(read_into: ReadInto) -> Iterator[Iterable[Any]]:
    blocks = RecordBlocks(_MEMBER_END, MAX_INDEX_PIECE_BYTES)
    piece = bytearray()
    retry_at_bytes = 0
    last_was_whole = False
    while True:
        block = blocks.read(read_into)
        if block is None:
            break
        piece += memoryview(block.buffer)[block.start : block.end]
        if len(piece) > MAX_INDEX_PIECE_BYTES:
            raise BrokenIndex("the session index has a piece that can't be read, or an entry over the limit")
        if not piece.endswith(_MEMBER_END) or len(piece) < retry_at_bytes:
            continue
        piece[-2:] = b"}"
        members = decode_members(piece)
        if members is None:
            piece[-1:] = b",\n"
            retry_at_bytes = 2 * len(piece)
            continue
        yield members
        piece[:] = b"{"
        last_was_whole = True
    if last_was_whole and _NO_MEMBER.fullmatch(piece):
        raise BrokenIndex("the session index ends in a comma")
    members = None if blocks.overlong else decode_members(piece)
    if members is None:
        raise BrokenIndex("the session index is not a JSON object")
    yield members


def decode_members(text: bytes | bytearray) -> Iterable[Any] | None:
    """The values of a JSON object, ``None`` if ``text`` is not one."""
    try:
        members = _decode_index(text.decode("utf-8", "replace"))
    except _UNREADABLE:
        return None
    return members.values() if type(members) is dict else None


# A database's files, looked at without opening them

_MOUNTS = "/proc/self/mountinfo"
_SHARED_FILE_SYSTEMS = frozenset(
    ("9p", "afs", "ceph", "cifs", "drvfs", "lustre", "nfs", "nfs4", "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs")
)


class Stamp(NamedTuple):
    """What tells one state of a file from another."""

    inode: int
    size_bytes: int
    modified_at_ns: int


class Look(NamedTuple):
    """How a database and the files beside it stand; ``None`` for one that isn't there."""

    database: Stamp | None = None
    wal: Stamp | None = None
    shm: Stamp | None = None
    journal: Stamp | None = None

    @property
    def way_in(self) -> str:
        """How the database may be read, where no other kernel has it: ``shared``, ``alone`` or as a ``copy``."""
        if holds(self.journal) or (holds(self.wal) and not self.shm):
            return "copy"
        return "shared" if self.wal and self.shm else "alone"

    def is_settled(self) -> bool:
        """Whether a change from now on would show."""
        now_ns = time.time_ns()
        stamps = (self.database, self.journal)
        return all(stamp is None or abs(now_ns - stamp.modified_at_ns) > SETTLED_NS for stamp in stamps)


def look_at(path: str) -> Look:
    """``Fault`` if there is something else than a file, ``OSError`` if that can't be found out."""
    return Look(*(stamp_of(path + suffix) for suffix in ("", "-wal", "-shm", "-journal")))


def stamp_of(path: str) -> Stamp | None:
    """How the file at ``path`` stands; raises as ``look_at`` does."""
    try:
        found = os.stat(raw(path))
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise Fault("not a regular file")
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def holds(stamp: Stamp | None) -> bool:
    """Whether there is a file, and something in it."""
    return stamp is not None and stamp.size_bytes > 0


def is_on_shared_file_system(path: str) -> bool:
    """Whether another kernel than ours may write to what lies there, as far as the system tells."""
    if not os.path.exists(_MOUNTS):
        return False
    device = os.stat(raw(path)).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as mounts:
        for mount in mounts:
            if mount.split(" ", 3)[2] == wanted:
                kind = mount.partition(" - ")[2].split(" ", 1)[0]
                return kind in _SHARED_FILE_SYSTEMS or kind.startswith("fuse.")
    return False


def copy_database(path: str, look: Look, copy: str, tick: Tick) -> bool:
    """Copy what ``look`` found to ``copy``; False if it changed meanwhile, so that the copy is of no one state.

    To be called only while this process has no connection to it, whose locks it would drop.
    """
    sizes = {"": look.database, "-wal": look.wal, "-journal": look.journal}
    free_bytes = shutil.disk_usage(raw(os.path.dirname(copy))).free
    if free_bytes < sum(stamp.size_bytes for stamp in sizes.values() if stamp):
        raise Fault(f"no space for a private copy of the database in {tempfile.gettempdir()}")
    for suffix, stamp in sizes.items():
        if holds(stamp):
            try:
                _copy_file(path + suffix, copy + suffix, tick)
            except OSError as error:
                raise Fault(f"no private copy of the database could be made: {error}") from None
    now = look_at(path)
    # A WAL that has grown is a later state; every commit in it has its checksum.
    return (now.database, now.journal) == (look.database, look.journal)


def _copy_file(source: str, target: str, tick: Tick) -> None:
    with open(raw(source), "rb", buffering=0) as original, open(raw(target), "xb", buffering=0) as copy:
        while True:
            data = original.read(COPY_BYTES)
            if not data:
                return
            while data:
                tick()
                data = data[copy.write(data) :]


# A database

# SQLite's result codes; the module has names for them since Python 3.11.
_PERM, _BUSY, _LOCKED, _NOMEM, _READONLY, _IOERR, _CORRUPT, _CANTOPEN, _PROTOCOL, _NOTADB = (
    3,
    5,
    6,
    7,
    8,
    10,
    11,
    14,
    15,
    26,
)
_PASSING = {_BUSY, _LOCKED, _PROTOCOL, _READONLY}
_CODE_OF_MESSAGE = {
    "access permission denied": _PERM,
    "database is locked": _BUSY,
    "database table is locked": _LOCKED,
    "out of memory": _NOMEM,
    "attempt to write a readonly database": _READONLY,
    "disk I/O error": _IOERR,
    "database disk image is malformed": _CORRUPT,
    "malformed database schema": _CORRUPT,
    "unable to open database file": _CANTOPEN,
    "locking protocol": _PROTOCOL,
    "file is not a database": _NOTADB,
    "file is encrypted or is not a database": _NOTADB,
}
_STRICT_TABLES_SINCE = (3, 37)


class _Unsettled(Exception):
    """The database changes as we look; try again."""


class Database:
    """The database at ``path``, read in short transactions; opened when it is first read, as of ``sqlite_open.py``."""

    def __init__(self, path: str, host: Host) -> None:
        # SQLite follows links too, and has its -wal beside what they lead to.
        self._path = spelled(os.path.realpath(raw(path)))
        self._host = host
        self._connection: sqlite3.Connection | None = None
        self._copied_into: str | None = None
        self._look = Look()
        self._looked_at_s = 0.0
        self._way_in = "alone"

    def read(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """What ``work`` gets out of one state of the database; it may be called again, and TEXT comes as ``bytes``.

        It says nothing: no output is waited for in a transaction. ``FAULTS`` where the database can't be read.
        """
        give_up_at_s = time.monotonic() + MAX_SQLITE_BUSY_S
        while True:
            self._host.tick()
            try:
                return self._read_once(work)
            except (sqlite3.Error, UnicodeDecodeError) as error:
                if self._has_moved():
                    self.close()
                elif _code(error) not in _PASSING:
                    raise _described(error) from None
            except Fault:
                # What it complains of may be half of one state and half of another.
                if not self._has_moved():
                    raise
                self.close()
            except _Unsettled:
                self.close()
            if time.monotonic() >= give_up_at_s:
                raise Fault("the database is busy: it changes, or is locked, all the time; try again")
            time.sleep(SQLITE_RETRY_S)

    def close(self) -> None:
        """Let go of it; the next ``read`` opens anew."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._remove_copy()

    def _remove_copy(self) -> None:
        if self._copied_into is not None:
            shutil.rmtree(raw(self._copied_into), ignore_errors=True)
            self._copied_into = None

    def _read_once(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        connection = self._connection or self._open()
        connection.execute("BEGIN")
        try:
            result = work(connection)
        finally:
            connection.rollback()
        if self._way_in == "alone" and not self._was_alone():
            raise _Unsettled
        return result

    def _open(self) -> sqlite3.Connection:
        self._look = look_at(self._path)
        self._looked_at_s = time.monotonic()
        if self._look.database is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._path)
        if not self._look.database.size_bytes and not holds(self._look.wal):
            raise BrokenDatabase("the database is an empty file")
        self._way_in = "copy" if is_on_shared_file_system(self._path) else self._look.way_in
        if self._way_in == "shared":
            self._connection = self._connect(self._path, "mode=ro&readonly_shm=1")
            return self._connection
        if not self._look.is_settled():
            raise _Unsettled
        if self._way_in == "alone":
            self._connection = self._connect(self._path, "mode=ro&immutable=1")
        else:
            self._connection = self._open_copy()
        return self._connection

    def _open_copy(self) -> sqlite3.Connection:
        """A connection to a private copy, which is recovered there as the original would be here."""
        self._copied_into = self._host.private_folder()
        copy = os.path.join(self._copied_into, "copy.sqlite")
        try:
            if not copy_database(self._path, self._look, copy, self._host.tick):
                raise _Unsettled
            # Read-only, so that closing it doesn't write the WAL into it; only a journal has to be rolled back.
            self._connection = self._connect(copy, "mode=rw" if holds(self._look.journal) else "mode=ro")
            self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            self.close()
            raise
        # It holds secrets: now that its files are open, nothing leaves it behind.
        self._remove_copy()
        return self._connection

    def _connect(self, path: str, how: str) -> sqlite3.Connection:
        # In autocommit, so that a transaction is where we say.
        connection = sqlite3.connect(
            f"file://{_percent_encoded(path)}?{how}", uri=True, timeout=SQLITE_BUSY_TIMEOUT_S, isolation_level=None
        )
        connection.text_factory = bytes
        connection.set_progress_handler(self._host.output.tick_without_waiting, SQLITE_STEPS)
        try:
            if sqlite3.sqlite_version_info < _STRICT_TABLES_SINCE:
                # A quirk of its parser by which an older SQLite reads STRICT tables (sqlite.org/stricttables.html).
                connection.execute("PRAGMA writable_schema = ON")
            connection.execute(f"PRAGMA cache_size = -{SQLITE_CACHE_KIB}")
            # Against a file that was made to harm: no functions in its schema, no cells beyond their page.
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _has_moved(self) -> bool:
        """Whether what was read may be no state of the database, since it isn't as it was when it was opened."""
        if self._way_in == "copy":
            return False
        look = look_at(self._path)
        self._looked_at_s = time.monotonic()
        return look != self._look if self._way_in == "alone" else look.way_in != "shared"

    def _was_alone(self) -> bool:
        """Whether nobody has written to the file since it was opened: what was read may be torn then."""
        if time.monotonic() - self._looked_at_s > SQLITE_LOOK_S:
            return not self._has_moved()
        return stamp_of(self._path) == self._look.database


def _percent_encoded(path: str) -> str:
    plain = b"/-._~"
    return "".join(
        chr(byte) if (chr(byte).isalnum() and byte < 0x80) or byte in plain else f"%{byte:02X}" for byte in raw(path)
    )


def _code(error: Exception) -> int:
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return int(code) & 0xFF
    return next((code for start, code in _CODE_OF_MESSAGE.items() if str(error).startswith(start)), 0)


def _described(error: Exception) -> Fault:
    if isinstance(error, UnicodeDecodeError):  # what sqlite3 raises where SQLite's own message is no UTF-8
        return BrokenDatabase("the database is damaged: what should be text in it is none")
    code = _code(error)
    if code == _NOTADB:
        return BrokenDatabase("the file is not an SQLite database, or is encrypted")
    if code == _CORRUPT:
        return BrokenDatabase(f"the database is damaged: {error}")
    if code in {_CANTOPEN, _IOERR, _PERM, _NOMEM}:
        return Fault(f"the database can't be read: {error}")
    return BrokenDatabase(f"SQLite {sqlite3.sqlite_version} can't read the database: {error}")


# What a database holds

EVENTS = "transcript_events"
IDENTITIES = "transcript_event_identities"
GENERATIONS = "transcript_rewrite_watermarks"
ARCHIVES = "session_transcript_archives"
COLD = "session_transcript_cold_archives"
_INDEXES = ("session_nodes", "session_entries")
_NEEDED = {
    EVENTS: {"session_id", "seq", "event_json", "created_at"},
    ARCHIVES: {"session_id", "reason", "encoding", "archive_blob", "archive_name", "created_at"},
    COLD: {"session_id", "archive_name", "storage", "archive_blob", "raw_bytes", "archived_at"},
}
_NEXT_LIVE = """
WITH RECURSIVE ids(id) AS (
  SELECT min(session_id) FROM transcript_events WHERE session_id > CAST(:after AS TEXT)
  UNION ALL
  SELECT (SELECT min(session_id) FROM transcript_events WHERE session_id > ids.id) FROM ids WHERE ids.id IS NOT NULL
)
SELECT id, '' FROM ids WHERE id IS NOT NULL LIMIT :count
"""
_NEXT_COLD = """
SELECT session_id, '' FROM session_transcript_cold_archives
WHERE session_id > CAST(:after AS TEXT) ORDER BY session_id LIMIT :count
"""
_NEXT_ARCHIVED = """
SELECT archive_name, session_id FROM session_transcript_archives
WHERE archive_name > CAST(:after AS TEXT) ORDER BY archive_name LIMIT :count
"""


class Tables(NamedTuple):
    """The columns of the tables that matter; none for a table that isn't there."""

    columns: dict[str, Container[str]]
    indexed_in: str | None
    """The table that took the place of ``sessions.json``."""

    def has(self, table: str, column: str = "session_id") -> bool:
        """Whether there is such a column."""
        return column in self.columns[table]


class ArchiveRow(NamedTuple):
    """The name of a row of ``session_transcript_archives``, and the id of the session that it was."""

    name: str
    session_id: str


def look_up_tables(database: Database) -> Tables:
    """``BrokenDatabase`` if a table that holds transcripts is of a form that is not known."""

    def read(connection: sqlite3.Connection) -> dict[str, set[str]]:
        if connection.execute("PRAGMA encoding").fetchone() != (b"UTF-8",):
            raise BrokenDatabase("the database is in UTF-16, which OpenClaw doesn't write")
        found = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        columns = {table: _columns(connection, table) for table in (*_NEEDED, *_INDEXES, IDENTITIES, GENERATIONS)}
        for table in columns:
            # What lets an older SQLite read STRICT tables lets it pass over a schema that is damaged as well.
            if table.encode() in found and not columns[table]:
                raise BrokenDatabase(f"the database is damaged: its table {table} can't be read")
        return columns

    columns = database.read(read)
    for table, needed in _NEEDED.items():
        missing = needed - columns[table]
        if columns[table] and missing:
            named = ", ".join(sorted(missing))
            raise BrokenDatabase(f"the database is of a form that is not known: its table {table} has no {named}")
    indexed_in = next((table for table in _INDEXES if columns[table] >= {"session_key", "entry_json"}), None)
    return Tables(columns, indexed_in)


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {name.decode("utf-8", "replace") for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")}


def session_ids(database: Database, tables: Tables) -> Iterator[str]:
    """The ids of the sessions that have rows, or had before they were put into cold storage, in order."""
    queries = [query for table, query in ((EVENTS, _NEXT_LIVE), (COLD, _NEXT_COLD)) if tables.has(table)]
    before = None
    for session_id, _ in merge(*(_ids(database, query) for query in queries), key=lambda row: row[0]):
        if session_id != before:
            yield spelled(session_id)
        before = session_id


def archive_rows(database: Database, tables: Tables) -> Iterator[ArchiveRow]:
    """The archives that are rows, in order of their names."""
    if tables.has(ARCHIVES):
        for name, session_id in _ids(database, _NEXT_ARCHIVED):
            yield ArchiveRow(spelled(name), spelled(session_id))


def _ids(database: Database, query: str) -> Iterator[tuple[bytes, bytes]]:
    after = b""

    def read_page(connection: sqlite3.Connection) -> Any:
        return connection.execute(query, {"after": after, "count": MAX_PAGE_IDS}).fetchall()

    while True:
        page = database.read(read_page)
        if not page:
            return
        if not all(isinstance(value, bytes) for row in page for value in row):
            raise BrokenDatabase("the database is of a form that is not known: a session's id is not text")
        yield from page
        after = page[-1][0]


def read_index_table(database: Database, table: str, remember: Callable[[Any], None]) -> None:
    """Hand every entry of the index to ``remember``, perhaps twice; for one that is too large, ``None``."""
    query = (
        f"SELECT session_key, CASE WHEN length(CAST(entry_json AS BLOB)) <= {MAX_INDEX_ENTRY_BYTES} THEN entry_json END"
        f" FROM {table} WHERE session_key > CAST(:after AS TEXT) ORDER BY session_key LIMIT {MAX_PAGE_IDS}"
    )
    after = b""

    def read_page(connection: sqlite3.Connection) -> Any:
        last = None
        with closing(connection.execute(query, {"after": after})) as rows:
            for key, entry in rows:
                remember(entry)
                last = key
        return last

    while True:
        last = database.read(read_page)
        if last is None:
            return
        after = last


# A transcript in a database

_BEFORE_ALL = -(2**63)
_AFTER_ALL = 2**63 - 1
_NEITHER = "it is neither text nor zstd"
_THIS = "WHERE session_id = CAST(:id AS TEXT)"
_REASONS = {"reset", "deleted"}
_COLD_NAME = re.compile(r"[0-9a-f]{64}\.jsonl\.zst")


class Reading:
    """What is known of a transcript that is being read, all of it once it was."""

    def __init__(self) -> None:
        self.written_at_ms = 0.0
        self.archived_as: str | None = None


class Position(NamedTuple):
    """How far the rows of a session were read; all of them, once ``after`` is ``last``.

    ``mark`` is a row that was read, and its text, by which to know whether they were rewritten where there is no
    generation.
    """

    after: int = _BEFORE_ALL
    last: int = _AFTER_ALL
    row_count: int = 0
    row_numbers: int = 0
    size_bytes: int = 0
    created_at: Any = None
    generation: Any = None
    mark: tuple[int, bytes] | None = None


class _Page:
    """The rows that a transaction adds to what was read before it."""

    def __init__(self, before: Position) -> None:
        self._before = before
        self._after = before.after
        self._created_at = before.created_at
        self._row_numbers = 0
        self.rows = 0
        self.size_bytes = 0
        self.mark = before.mark

    def add(self, seq: int, created_at: Any, row_number: int, size_bytes: int) -> None:
        self._after = seq
        self._created_at = created_at
        self._row_numbers += row_number
        self.rows += 1
        self.size_bytes += size_bytes + 1

    def end(self, is_whole: bool) -> Position:
        """Where the page has led; ``is_whole`` says that it has all the rows that there are."""
        before = self._before
        last = before.last
        if is_whole and self._after != last:
            if last != _AFTER_ALL:
                raise Rewritten  # The last row has gone, and others have come after it.
            last = self._after
        return before._replace(
            after=self._after,
            last=last,
            row_count=before.row_count + self.rows,
            row_numbers=before.row_numbers + self._row_numbers,
            size_bytes=before.size_bytes + self.size_bytes,
            created_at=self._created_at,
            mark=self.mark,
        )


class Row(NamedTuple):
    """A row: its text or its frame, neither if that is too large, and the size of what there is."""

    seq: int
    size_bytes: int
    text: bytes | None
    frame: bytes | None


class LiveReader:
    """Reads the rows of one session after another, as of ``sqlite_rows.py``: each page of them in one transaction."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._database = database
        frame = "event_zstd" if tables.has(EVENTS, "event_zstd") else "NULL"
        text_size = "length(CAST(event_json AS BLOB))"
        size = f"coalesce(event_utf8_bytes, {text_size})" if tables.has(EVENTS, "event_utf8_bytes") else text_size
        generation = "NULL"
        if tables.has(GENERATIONS, "generation"):
            generation = f"(SELECT generation FROM {GENERATIONS} {_THIS})"
        unread = f"FROM {EVENTS} {_THIS} AND seq > :after AND seq <= :last ORDER BY seq"
        self._state = f"SELECT max(seq), {generation} FROM {EVENTS} {_THIS}"
        self._numbers = f"SELECT count(*), sum(rowid) FROM {EVENTS} {_THIS} AND seq <= :after"
        self._marked = f"SELECT event_json FROM {EVENTS} {_THIS} AND seq = :after"
        self._rows = (
            f"SELECT seq, created_at, rowid, {text_size}, {_bounded('event_json', text_size)},"
            f" length({frame}), {_bounded(frame, f'length({frame})')} {unread} LIMIT {MAX_PAGE_ROWS}"
        )
        self._sizes = f"SELECT seq, created_at, rowid, {size} {unread} LIMIT {MAX_PAGE_SIZES}"

    def pages(self, session_id: str, reading: Reading) -> Iterator[list[Row]]:
        """The rows; ``Vanished`` if there are none, ``Rewritten``, ``Fault`` if they can't be read."""
        for position, rows in self._pages(session_id, self._read_rows):
            reading.written_at_ms = time_ms(position.created_at)
            yield rows

    def size_bytes(self, session_id: str) -> int:
        """What the lines would measure; raises as ``pages`` does."""
        size_bytes = 0
        for position, _ in self._pages(session_id, self._read_sizes):
            size_bytes = position.size_bytes
        return size_bytes

    def _pages(
        self,
        session_id: str,
        read: Callable[[sqlite3.Connection, dict[str, Any], Position], tuple[Position, list[Row]]],
    ) -> Iterator[tuple[Position, list[Row]]]:
        bound = {"id": raw(session_id)}
        position = Position()

        def read_page(connection: sqlite3.Connection) -> tuple[Position, list[Row]]:
            if position.row_count:
                self._check(connection, bound, position)
            page, rows = read(connection, bound, position)
            if not page.row_count:
                raise Vanished
            if page.after != page.last and page.last == _AFTER_ALL:
                last, generation = connection.execute(self._state, bound).fetchone()
                page = page._replace(last=last, generation=generation)
            return page, rows

        while position.after != position.last:
            position, rows = self._database.read(read_page)
            yield position, rows

    def _check(self, connection: sqlite3.Connection, bound: dict[str, Any], position: Position) -> None:
        """See that the rows which were read are still those that there are."""
        last, generation = connection.execute(self._state, bound).fetchone()
        if last is None or last < position.last or generation != position.generation:
            raise Rewritten
        if generation is None:
            numbers = connection.execute(self._numbers, {**bound, "after": position.after}).fetchone()
            if numbers != (position.row_count, position.row_numbers):
                raise Rewritten
            if position.mark is not None:
                seq, text = position.mark
                if connection.execute(self._marked, {**bound, "after": seq}).fetchone() != (text,):
                    raise Rewritten

    def _read_rows(
        self, connection: sqlite3.Connection, bound: dict[str, Any], position: Position
    ) -> tuple[Position, list[Row]]:
        """As many rows as make about a block, but one at least."""
        found: list[Row] = []
        page = _Page(position)
        bound = {**bound, "after": position.after, "last": position.last}
        with closing(connection.execute(self._rows, bound)) as rows:
            for seq, created_at, row_number, text_size, text, frame_size, frame in rows:
                row = _row(seq, text_size, text, frame_size, frame)
                found.append(row)
                page.add(seq, created_at, row_number, row.size_bytes)
                if row.text is not None and len(row.text) <= MAX_MARK_BYTES:
                    page.mark = seq, row.text
                if page.size_bytes >= BLOCK_BYTES:
                    return page.end(is_whole=False), found
        return page.end(is_whole=len(found) < MAX_PAGE_ROWS), found

    def _read_sizes(
        self, connection: sqlite3.Connection, bound: dict[str, Any], position: Position
    ) -> tuple[Position, list[Row]]:
        page = _Page(position)
        bound = {**bound, "after": position.after, "last": position.last}
        with closing(connection.execute(self._sizes, bound)) as rows:
            for seq, created_at, row_number, size_bytes in rows:
                if type(seq) is not int or type(size_bytes) is not int:
                    raise _undecodable(seq, _NEITHER)
                page.add(seq, created_at, row_number, size_bytes)
        return page.end(is_whole=page.rows < MAX_PAGE_SIZES), []


def _bounded(column: str, size: str) -> str:
    return f"CASE WHEN {size} <= {MAX_ENTRY_BYTES} THEN {column} END"


def _row(seq: Any, text_size: Any, text: Any, frame_size: Any, frame: Any) -> Row:
    if type(seq) is not int:  # though the table is strict: its pages may be damaged
        raise BrokenDatabase("the database is damaged: a row has no number")
    value, size = (frame, frame_size) if text_size is None else (text, text_size)
    if size is None or (value is not None and type(value) is not bytes):
        raise _undecodable(seq, _NEITHER)
    return Row(seq, size, text, frame if text_size is None else None)


def time_ms(value: Any) -> float:
    """A time of a column, which only a strict table can't hold something else in."""
    return float(value) if isinstance(value, (int, float)) else 0.0


def _undecodable(seq: Any, why: str) -> BrokenDatabase:
    return BrokenDatabase(f"row {seq} of the session can't be decoded: {why}")


class Blob:
    """The blob of the archive of this name, read in pieces, each in a transaction."""

    def __init__(self, database: Database, table: str, archive_name: str) -> None:
        self._database = database
        self._from = f"FROM {table} WHERE archive_name = CAST(? AS TEXT)"
        self._name = raw(archive_name)

    def size_bytes(self) -> int:
        """Its size; ``Vanished`` if it has gone."""
        size_bytes = self._look(f"SELECT length(CAST(archive_blob AS BLOB)) {self._from}")
        if type(size_bytes) is not int:
            raise BrokenDatabase(f"SQLite {sqlite3.sqlite_version} can't read the database: an archive holds nothing")
        return size_bytes

    def head(self, count: int) -> bytes:
        """Its first bytes."""
        return bytes(self._look(f"SELECT substr(CAST(archive_blob AS BLOB), 1, {count}) {self._from}") or b"")

    def chunks(self) -> Iterator[bytes]:
        """All of it. Of each SQLite has to read the whole, so there are few."""
        count = max(BLOB_PIECE_BYTES, self.size_bytes() // MAX_BLOB_PIECES)
        place = 1
        while True:
            piece = self._look(f"SELECT substr(CAST(archive_blob AS BLOB), {place}, {count}) {self._from}")
            if not piece:
                return
            yield piece
            place += count

    def _look(self, query: str) -> Any:
        row = self._database.read(lambda connection: connection.execute(query, (self._name,)).fetchone())
        if row is None:
            raise Vanished
        return row[0]


class Transcripts:
    """Any transcript of a database, as it comes: rows, cold storage or archive. Says what it knows in a ``Reading``.

    What is compressed is opened if ``opens`` and there is something to open it with, else given as it is.
    """

    def __init__(self, database: Database, tables: Tables, sessions_folder: str, host: Host, zstd: Zstd) -> None:
        self.tables = tables
        self._database = database
        self._live = LiveReader(database, tables)
        self._cold_folder = os.path.join(sessions_folder, "cold")
        self._host = host
        self._zstd = zstd

    def of_session(self, session_id: str, reading: Reading, opens: bool = True) -> Iterator[Item]:
        """Raises ``Vanished`` before anything, ``Rewritten`` or what tells of a failure at any time."""
        opens = opens and self._zstd.is_there
        if self.tables.has(EVENTS):
            try:
                for rows in self._live.pages(session_id, reading):
                    yield from self._items(rows, opens)
            except Vanished:
                pass
            else:
                return
        if not self.tables.has(COLD):
            raise Vanished
        yield from self._of_cold(session_id, reading, opens)

    def of_archive(self, name: str, reading: Reading, opens: bool = True) -> Iterator[Item]:
        """Raises as ``of_session`` does."""
        reason, reading_time, encoding = self._archive(name)
        reading.archived_as = reason if reason in _REASONS else None
        reading.written_at_ms = time_ms(reading_time)
        chunks = Blob(self._database, ARCHIVES, name).chunks()
        if encoding == "identity":
            yield from lines_of(chunk_reader(chunks))
        else:
            yield from compressed_lines(chunks, self._zstd if opens else None)

    def session_size_bytes(self, session_id: str) -> int:
        """The size of the transcript as JSONL; raises as ``of_session`` does."""
        if self.tables.has(EVENTS):
            try:
                return self._live.size_bytes(session_id)
            except Vanished:
                pass
        if not self.tables.has(COLD):
            raise Vanished
        raw_bytes = self._cold(session_id)[3]
        if not isinstance(raw_bytes, int):
            raise BrokenDatabase("the session is in cold storage, and its size is not known")
        return raw_bytes + 1  # OpenClaw counts no line feed after the last row.

    def archive_size_bytes(self, name: str) -> int | None:
        """The size of its transcript; ``None`` if only reading it would tell."""
        blob = Blob(self._database, ARCHIVES, name)
        if self._archive(name)[2] == "identity":
            return blob.size_bytes()
        head = blob.head(ZSTD_HEADER_BYTES)
        return content_bytes(head)

    def archive_chunks(self, name: str) -> Iterator[bytes]:
        """The archive as it lies there."""
        return Blob(self._database, ARCHIVES, name).chunks()

    def has_session(self, session_id: str) -> bool:
        """Whether it is there, live or cold."""
        return self._has(EVENTS, "session_id", session_id) or self._has(COLD, "session_id", session_id)

    def has_archive(self, name: str) -> bool:
        """Whether an archive of this name is a row."""
        return self._has(ARCHIVES, "archive_name", name)

    def has_entries(self, session_id: str, entry_ids: Iterable[str]) -> bool:
        """Whether the session is there and each of ``entry_ids`` is the id of an entry of it; raises ``Rewritten``."""
        if not self.has_session(session_id):
            return False
        left = iter(entry_ids)
        while True:
            sought = {entry_id.encode("utf-8", "replace") for entry_id in islice(left, MAX_SOUGHT_IDS)}
            if not sought:
                return True
            if self.tables.has(IDENTITIES):
                sought -= self._identified(session_id, list(sought))
            # Cold storage takes the identities with it.
            if sought and (self._has(COLD, "session_id", session_id) or not self.tables.has(IDENTITIES)):
                sought.difference_update(self._read_ids(session_id))
            if sought:
                return False

    def _read_ids(self, session_id: str) -> Iterator[bytes]:
        for item in self.of_session(session_id, Reading()):
            if isinstance(item, Lines):
                for entry in entries(item, self._host.tick):
                    entry_id = text_in(entry or {}, "id")
                    if entry_id is not None:
                        yield entry_id.encode("utf-8", "replace")

    def _identified(self, session_id: str, entry_ids: list[bytes]) -> set[bytes]:
        known: set[bytes] = set()
        for place in range(0, len(entry_ids), MAX_BOUND_IDS):
            some = entry_ids[place : place + MAX_BOUND_IDS]
            marks = ", ".join(["CAST(? AS TEXT)"] * len(some))
            query = f"SELECT event_id FROM {IDENTITIES} WHERE session_id = CAST(? AS TEXT) AND event_id IN ({marks})"
            known.update(row[0] for row in self._query(query, [raw(session_id), *some]))
        return known

    def _has(self, table: str, column: str, key: str) -> bool:
        if not self.tables.has(table, column):
            return False
        return bool(self._query(f"SELECT 1 FROM {table} WHERE {column} = CAST(? AS TEXT) LIMIT 1", [raw(key)]))

    def _query(self, query: str, bound: list[bytes]) -> list[Any]:
        rows: list[Any] = self._database.read(lambda connection: connection.execute(query, bound).fetchall())
        return rows

    def _row(self, query: str, key: str) -> list[Any]:
        rows = self._query(f"{query} = CAST(? AS TEXT)", [raw(key)])
        if not rows:
            raise Vanished
        return [spelled(value) if isinstance(value, bytes) else value for value in rows[0]]

    def _archive(self, name: str) -> list[Any]:
        row = self._row(f"SELECT reason, created_at, encoding FROM {ARCHIVES} WHERE archive_name", name)
        if row[2] not in {"identity", "zstd"}:
            raise BrokenDatabase(f"the archive is of an encoding that is not known: {row[2]}")
        return row

    def _cold(self, session_id: str) -> list[Any]:
        query = f"SELECT archive_name, storage, archived_at, raw_bytes FROM {COLD} WHERE session_id"
        return self._row(query, session_id)

    def _items(self, rows: list[Row], opens: bool) -> Iterator[Item]:
        """Rows as lines: those that come one after another, up to one that is too long or goes on as it is."""
        lines = _Joined()
        for row in rows:
            line = self._zstd.opened(row.frame, self._host.tick) if opens and row.frame is not None else row.text
            if line is not None:
                yield from lines.add(line)
                continue
            yield from lines.take()
            yield Skipped(1, row.size_bytes + 1) if row.frame is None else Compressed(["frame", row.seq], row.frame)
        yield from lines.take()

    def _of_cold(self, session_id: str, reading: Reading, opens: bool) -> Iterator[Item]:
        name, storage, archived_at, _ = self._cold(session_id)
        reading.written_at_ms = time_ms(archived_at)
        if not _COLD_NAME.fullmatch(str(name)):
            raise BrokenDatabase(f"the session is in cold storage, under a name that OpenClaw doesn't give: {name}")
        if storage == "sqlite":
            yield from self._cold_items(Blob(self._database, COLD, name).chunks(), reading, opens)
            return
        try:
            file = open_regular(os.path.join(self._cold_folder, name))
        except FileNotFoundError:
            # OpenClaw removes the file when it has put the rows back; while the database names it, it is lost.
            if self._cold(session_id)[0] != name:
                raise Rewritten from None
            raise
        try:
            yield from self._cold_items(FileReader(file, self._host.tick).chunks(), reading, opens)
        finally:
            os.close(file.fd)

    def _cold_items(self, chunks: Iterator[bytes], reading: Reading, opens: bool) -> Iterator[Item]:
        if not opens:
            yield from sent_on(chunks, "cold")
            return
        lines = _Joined()
        for text, created_at in _events(lines_of(chunk_reader(self._zstd.expanded(chunks)))):
            reading.written_at_ms = time_ms(created_at)
            yield from lines.add(text)
        yield from lines.take()


class _Joined:
    """Gathers lines into blocks."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._size_bytes = 0

    def add(self, line: bytes) -> Iterator[Lines]:
        """Add a line without its end; gives a block once it is large."""
        # A line feed is white space there, if it is JSON at all.
        self._lines.append(line.replace(b"\n", b"\r") + b"\n")
        self._size_bytes += len(line)
        return self.take() if self._size_bytes >= BLOCK_BYTES else iter(())

    def take(self) -> Iterator[Lines]:
        """What has been gathered, if anything."""
        text = b"".join(self._lines)
        self._lines, self._size_bytes = [], 0
        return iter([Lines(text, 0, len(text))] if text else [])


def compressed_lines(chunks: Iterator[bytes], zstd: Zstd | None) -> Iterator[Item]:
    """The lines in a zstd stream, or the stream as it is."""
    if zstd is not None and zstd.is_there:
        yield from lines_of(chunk_reader(zstd.expanded(chunks)))
    else:
        yield from sent_on(chunks, "piece")


def sent_on(chunks: Iterator[bytes], record: str) -> Iterator[Compressed]:
    """A zstd stream as it is; ``BrokenCompression`` if there is nothing of it."""
    chunk = b""
    for chunk in chunks:
        yield Compressed([record], chunk)
    if not chunk:
        raise BrokenCompression("the compressed data ends in the middle")


def _events(blocks: Iterable[Lines | Skipped]) -> Iterator[tuple[bytes, Any]]:
    """The texts and times of the rows in cold storage's records; ``BrokenCompression`` if they are none, to send on."""
    begun = False
    for block in blocks:
        if isinstance(block, Skipped):
            continue
        buffer, start, end = block
        while start < end:
            line_end = buffer.find(b"\n", start, end) + 1 or end
            try:
                record = json.loads(buffer[start:line_end], parse_constant=_refuse)
                row = record.get("row") or {}
                text: Any = row.get("event_json")
                is_event = record["kind"] == "event" and text is not None
                event = (text.encode(), row.get("created_at", 0.0)) if is_event else None
            except (*_UNREADABLE, AttributeError, KeyError, TypeError) as error:
                raise BrokenCompression(f"its cold archive can't be decoded: {error}") from None
            if event is not None:
                yield event
            elif not begun and record["kind"] != "header":
                raise BrokenCompression("its cold archive is of a form that is not known")
            begun = True
            start = line_end


# All sessions of an agent

DATABASE = os.path.join("agent", "openclaw-agent.sqlite")
_DATABASE_FILE = os.path.basename(DATABASE)


class Session(NamedTuple):
    """What is known of a session without reading it: the first items of its record, and the id that the index has."""

    session_id: str
    file_path: str
    kind: str
    store: str
    indexed_id: str


class Count:
    """Counts one transcript as it comes, and sends on what it can't count. One that was rewritten is begun anew."""

    def __init__(self, output: Output) -> None:
        self.tally = Tally()
        self._output = output
        self._has_sent = False

    def restart(self) -> None:
        """Forget what was counted, and have it forgotten."""
        self.tally = Tally()
        if self._has_sent:
            self._output.say("again")
            self._has_sent = False

    def take(self, items: Iterable[Item]) -> None:
        """Count what comes."""
        for item in items:
            if isinstance(item, Lines):
                self.tally.add(item, self._output.tick)
            elif isinstance(item, Skipped):
                self.tally.skip(item)
            else:
                self._send_on(item)
            self._output.tick()

    def _send_on(self, item: Compressed) -> None:
        if self.tally.size_bytes:
            self._output.say("part", *self.tally.counts(), self.tally.size_bytes)
            self.tally = Tally()
        self._output.send(item.record, item.data)
        self._has_sent = True

    def say(self, session: Session, written_at_ms: float, archived_as: str | None, entry: IndexEntry) -> None:
        """Say what came of the session."""
        session_id, file_path, kind, store, _ = session
        size_bytes = self.tally.size_bytes
        where = [session_id, file_path, kind, size_bytes, written_at_ms, store, archived_as]
        self._output.say("session", *where, *self.tally.counts(), *entry)


class Archive(NamedTuple):
    """A file whose name is its id: where it lies, how it is called, whose transcript it is, what became of that."""

    folder: str
    name: str
    stem: str
    archived_as: str | None


class _OwnEntry(Exception):
    """A line that no database can be shown to hold."""


class JsonlStore:
    """The transcripts of one agent that are files, as ``sidecar/stores/jsonl.py``; listed when it is made."""

    def __init__(self, agent: Agent, host: Host, zstd: Zstd, database: SqliteStore | None) -> None:
        self._host = host
        self._zstd = zstd
        self._folder = agent.path
        self._stems: list[str] = []
        self._archives: list[Archive] = []
        self._vanished = 0
        for folder in ALL_FOLDERS:
            self._list(folder)
        self._stems.sort()
        self._archives.sort()
        self._unchecked_against = database

    @property
    def sessions_total(self) -> int:
        """How many sessions are known here; goes down when one vanishes before it is read."""
        self._leave_out_copies()
        return len(self._stems) + len(self._archives) - self._vanished

    def analyse(self) -> Iterator[None]:
        """Say what each session holds, by id, then archives by folder and name; gives after each."""
        self._leave_out_copies()
        index = self._read_index()
        with_archives = {archive.folder for archive in self._archives}
        for folder in ALL_FOLDERS:
            path = os.path.join(self._folder, folder)
            if folder not in with_archives and not (folder == LIVE_FOLDER and self._stems):
                continue
            try:
                with open_folder(path) as folder_fd:
                    for session, name, archived_as in self._named_in(folder):
                        self._analyse_file(folder_fd, name, session, archived_as, index)
                        yield
            except OSError as error:  # of the folder: it has gone since, say
                self._host.failed(path, error)

    def transcript(self, session_id: str) -> Iterator[Item] | None:
        """The transcript of a session as it lies there; ``None`` if no file here is of that id."""
        sought = file_name(session_id)
        if self._has_stem(sought):
            return self._read(LIVE_FOLDER, sought + _SUFFIX)
        for archive in self._archives:
            if archive.name == sought:
                return self._read(archive.folder, sought)
        if sought.endswith(_SUFFIX) and self._has_stem(without_ending(sought, _SUFFIX)):
            return self._read(LIVE_FOLDER, sought)  # left over from a migration, with entries of its own
        return None

    def _has_stem(self, stem: str) -> bool:
        return stem in self._stems

    def _named_in(self, folder: str) -> Iterator[tuple[Session, str, str | None]]:
        """Of each transcript in a folder what is known of it, its file's name, what became of it."""
        before_name = wire_name(os.path.join(self._folder, folder, ""))
        if folder == LIVE_FOLDER:
            for stem in self._stems:
                shown = wire_name(stem)
                yield (
                    Session(shown, f"{before_name}{shown}.jsonl", "sessions", "jsonl", indexed_id(stem)),
                    stem + _SUFFIX,
                    None,
                )
        for archive in self._archives:
            if archive.folder == folder:
                shown = wire_name(archive.name)
                session = Session(shown, before_name + shown, "archive", "jsonl", indexed_id(archive.stem))
                yield session, archive.name, archive.archived_as

    def _analyse_file(
        self, folder_fd: int, name: str, session: Session, archived_as: str | None, index: SessionIndex
    ) -> None:
        try:
            file = open_regular(name, folder_fd)
            try:
                count = self._counted(file, name)
            finally:
                os.close(file.fd)
        except FileNotFoundError as error:
            if os.path.lexists(raw(file_name(session.file_path))):
                self._failed(session, error)
            else:
                self._vanished += 1
        except FAULTS as error:
            self._failed(session, error)
        else:
            count.say(session, file.modified_at_ms, archived_as, index[session.indexed_id])

    def _failed(self, session: Session, error: BaseException) -> None:
        self._host.failed(file_name(session.file_path), error)

    def _counted(self, file: OpenFile, name: str) -> Count:
        """What a file holds; one that shrinks under us was written anew in place, and is read anew."""
        count = Count(self._host.output)
        zstd: Zstd | None = self._zstd
        rereads = 0
        while True:
            count.restart()
            os.lseek(file.fd, 0, os.SEEK_SET)
            reader = FileReader(file, self._host.tick)
            try:
                count.take(_file_items(reader, name, zstd))
            except BrokenCompression:
                if zstd is None or not zstd.is_there:
                    raise
                zstd = None  # It goes on as it is, and what is wrong with it is said elsewhere.
                continue
            rereads += 1
            if not reader.left or rereads == MAX_REREADS:
                return count
            file = file._replace(size_bytes=os.fstat(file.fd).st_size)

    def _read(self, folder: str, name: str) -> Iterator[Item]:
        file = open_regular(os.path.join(self._folder, folder, name))
        try:
            yield from _file_items(FileReader(file, self._host.tick), name, None)
        finally:
            os.close(file.fd)

    def _list(self, folder: str) -> None:
        """Note the transcripts in a folder: regular files, or links to such, of a name that says so."""
        path = os.path.join(self._folder, folder)
        live = folder == LIVE_FOLDER
        try:
            with os.scandir(raw(path)) as found:
                for entry in found:
                    self._host.tick()
                    name = spelled(entry.name)
                    if live and is_transcript(name):
                        if _may_be_file(entry):
                            self._stems.append(without_ending(name, _SUFFIX))
                        continue
                    known = classify(name)
                    if known and _is_archive(known, folder) and _may_be_file(entry):
                        self._archives.append(Archive(folder, name, known.stem, known.archived_as))
        except FileNotFoundError:
            pass
        except OSError as error:
            self._host.failed(path, error)

    def _leave_out_copies(self) -> None:
        """Keep of a database's sessions only the files that hold entries which it hasn't, as archives. Done once."""
        database, self._unchecked_against = self._unchecked_against, None
        if database is None:
            return
        leftovers = [stem for stem in self._stems if wire_name(stem) in database]
        if leftovers:
            self._stems = [stem for stem in self._stems if wire_name(stem) not in database]
        self._archives = [archive for archive in self._archives if not _is_import_of(archive, database)]
        for stem in leftovers:
            self._host.tick()
            if not self._is_copy(stem, database):
                self._archives.append(Archive(LIVE_FOLDER, stem + _SUFFIX, stem, None))
        self._archives.sort()

    def _is_copy(self, stem: str, database: SqliteStore) -> bool:
        try:
            with closing(self._entry_ids(stem)) as ids:
                return database.holds_entries(wire_name(stem), ids)
        except (*FAULTS, _OwnEntry):  # what can't be read is not proved to be a copy
            return False

    def _entry_ids(self, stem: str) -> Generator[str, None, None]:
        for item in self._read(LIVE_FOLDER, stem + _SUFFIX):
            for entry in entries(item, self._host.tick) if isinstance(item, Lines) else ():
                if entry is not None and entry.get("type") == "session":
                    continue
                entry_id = text_in(entry or {}, "id")
                if entry_id is None:
                    raise _OwnEntry
                yield entry_id

    def _read_index(self) -> SessionIndex:
        path = os.path.join(self._folder, LIVE_FOLDER, INDEX_NAME)
        stems = [*self._stems, *(archive.stem for archive in self._archives)]
        index = SessionIndex(map(indexed_id, stems))
        try:
            if stems:
                read_index(path, index, self._host.tick)
        except FAULTS as error:
            self._host.failed(path, error)
        return index


def _file_items(reader: FileReader, name: str, zstd: Zstd | None) -> Iterator[Item]:
    return compressed_lines(reader.chunks(), zstd) if name.endswith(".zst") else lines_of(reader)


def _is_archive(name: SessionFileName, folder: str) -> bool:
    """Whether a file that is no live transcript is a session nevertheless, where it lies."""
    if folder == IMPORT_FOLDER:
        return name.role == "import"
    return name.role == "archive" or (name.role == "transcript" and folder != LIVE_FOLDER)


def _is_import_of(archive: Archive, database: SqliteStore) -> bool:
    """Whether an imported file's session is in the database. The name has a key before the id, which may have dots."""
    if archive.folder != IMPORT_FOLDER:
        return False
    stem = archive.stem
    return any(wire_name(stem[at + 1 :]) in database for at, letter in enumerate(stem) if letter == ".")


def _may_be_file(entry: os.DirEntry[bytes]) -> bool:
    """A regular file or a link to one; also a broken link, since opening it will say what is wrong."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:
        return True


class Place(NamedTuple):
    """Where in the database a transcript is: the session of this id, or the archive of this name."""

    name: str
    kind: str
    indexed_id: str


class SqliteStore:
    """The sessions in one agent's database, as ``sidecar/stores/sqlite.py``: by id, then archives by name."""

    def __init__(self, agent: Agent, host: Host, zstd: Zstd) -> None:
        self._agent = wire_name(agent.name)
        self._path = os.path.join(agent.path, DATABASE)
        self._sessions_folder = os.path.join(agent.path, LIVE_FOLDER)
        self._host = host
        self._zstd = zstd
        self._database = Database(self._path, host)
        self._transcripts: Transcripts | None = None
        self._ids: list[str] = []
        self._archives: list[ArchiveRow] = []
        self._beside: list[ArchiveRow] = []
        self._known: set[str] = set()
        self._listed = False
        self._vanished = 0

    @property
    def sessions_total(self) -> int:
        """How many sessions are known here; goes down when one vanishes before it is read."""
        self._list()
        return len(self._ids) + len(self._archives) - self._vanished

    def __contains__(self, session_id: str) -> bool:
        """Whether the session of this wire name is in the database; being archived there doesn't count."""
        self._list()
        return file_name(session_id) in self._known

    def ids(self) -> list[str]:
        """The wire names of all sessions and archives here, also of archives that are files; ``FAULTS``."""
        try:
            self._find()
            return [wire_name(name) for name in chain(self._ids, (row.name for row in self._archives + self._beside))]
        finally:
            self.close()

    def holds_entries(self, session_id: str, entry_ids: Iterable[str]) -> bool:
        """Whether the session is in the database with all entries of these ids; False if that can't be read."""
        try:
            transcripts = self._open()
            return transcripts is not None and transcripts.has_entries(file_name(session_id), entry_ids)
        except (*FAULTS, Rewritten, Vanished):
            return False  # Not proved; and why it can't be read, its analysis tells.

    def close(self) -> None:
        """Let go of the database; what is asked next opens it again."""
        self._database.close()

    def analyse(self) -> Iterator[None]:
        """Say what each session holds; gives after each."""
        try:
            self._list()
            index = self._read_index()
            for place in chain(self._live_places(), self._archive_places()):
                self._analyse_place(place, index)
                yield
        finally:
            self.close()

    def transcript(self, session_id: str) -> Iterator[Item] | None:
        """The transcript of a session or archive as it lies there; ``None`` if it isn't here. ``FAULTS``, here too."""
        name = file_name(session_id)
        transcripts = self._open()
        if transcripts is not None and transcripts.has_session(name):
            return _in_one_go(transcripts.of_session(name, Reading(), opens=False))
        if transcripts is not None and transcripts.has_archive(name) and not self._lies_beside(name):
            return _in_one_go(transcripts.of_archive(name, Reading(), opens=False))
        self.close()
        return None

    def files(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Of each session and archive its relative path, and what says its record."""
        self._list()
        for place in merge(self._live_places(), self._archive_places(), key=lambda place: place.name):
            relative_path = f"agents/{self._agent}/agent/{_DATABASE_FILE}#{wire_name(place.name)}"
            yield relative_path, partial(self._say_file, place, relative_path)

    def _say_file(self, place: Place, relative_path: str) -> None:
        try:
            size_bytes = _in_one_state(partial(self._size_bytes, place))
        except Vanished:
            return
        except FAULTS as error:
            self._host.failed(self._shown(place), error)
        else:
            self._host.output.say("file", wire_name(self._path), relative_path, self._agent, place.kind, size_bytes)

    def _open(self) -> Transcripts | None:
        """What reads the transcripts; ``None`` if there is no database."""
        if sqlite3 is None:
            raise Fault("the database needs Node 22.13 or newer, or Python 3 with sqlite3, on the host")
        if self._transcripts is None and os.path.lexists(raw(self._path)):
            tables = look_up_tables(self._database)
            self._transcripts = Transcripts(self._database, tables, self._sessions_folder, self._host, self._zstd)
        return self._transcripts

    def _list(self) -> None:
        """Find out, once, which sessions and archives there are; those that were found before a failure stay."""
        if self._listed:
            return
        self._listed = True
        try:
            self._find()
        except FAULTS as error:
            self._host.failed(self._path, error)
        self._known = set(self._ids)

    def _find(self) -> None:
        transcripts = self._open()
        if transcripts is not None:
            self._ids.extend(session_ids(self._database, transcripts.tables))
            for row in archive_rows(self._database, transcripts.tables):
                (self._beside if self._lies_beside(row.name) else self._archives).append(row)

    def _lies_beside(self, archive_name: str) -> bool:
        """Whether the archive is also a file, which is listed where files are."""
        if os.path.basename(archive_name) != archive_name or "\0" in archive_name:
            return False
        return os.path.isfile(raw(os.path.join(self._sessions_folder, archive_name)))

    def _live_places(self) -> Iterator[Place]:
        return (Place(session_id, "sessions", indexed_id(session_id)) for session_id in self._ids)

    def _archive_places(self) -> Iterator[Place]:
        return (Place(name, "archive", indexed_id(session_id)) for name, session_id in self._archives)

    def _shown(self, place: Place) -> str:
        return f"{self._path}#{place.name}"

    def _read_index(self) -> SessionIndex:
        index = SessionIndex(place.indexed_id for place in chain(self._live_places(), self._archive_places()))
        table = self._transcripts and self._transcripts.tables.indexed_in
        if not table or not (self._ids or self._archives):
            return index
        unreadable = False

        def remember(entry: Any) -> None:
            nonlocal unreadable
            members = decode_members(b'{"":%b}' % entry) if isinstance(entry, bytes) else None
            unreadable = unreadable or members is None
            index.remember(members or ())

        try:
            read_index_table(self._database, table, remember)
            if unreadable:
                raise BrokenIndex(f"an entry of the session index, table {table}, can't be read")
        except FAULTS as error:
            self._host.failed(self._path, error)
        return index

    def _analyse_place(self, place: Place, index: SessionIndex) -> None:
        count = Count(self._host.output)
        reading = Reading()
        try:
            self._count(place, count, reading)
        except Vanished:
            count.restart()
            self._vanished += 1
        except FAULTS as error:
            self._host.failed(self._shown(place), error)
        else:
            session = Session(wire_name(place.name), wire_name(self._path), place.kind, "sqlite", place.indexed_id)
            count.say(session, reading.written_at_ms, reading.archived_as, index[place.indexed_id])

    def _count(self, place: Place, count: Count, reading: Reading) -> None:
        """Count a transcript in one state: it is read anew if it was rewritten, or moved, meanwhile."""
        opens = True

        def count_all() -> None:
            nonlocal opens
            count.restart()
            try:
                count.take(self._items(place, reading, opens))
            except BrokenCompression:
                if not opens or not self._zstd.is_there:
                    raise
                opens = False  # It goes on as it is, and what is wrong with it is said elsewhere.
                raise Rewritten from None

        _in_one_state(count_all)

    def _items(self, place: Place, reading: Reading, opens: bool) -> Iterator[Item]:
        transcripts = self._opened()
        read = transcripts.of_session if place.kind == "sessions" else transcripts.of_archive
        return read(place.name, reading, opens)

    def _size_bytes(self, place: Place) -> int | None:
        """The size of a transcript; ``None`` if it is for others to tell, of what was sent on then."""
        transcripts = self._opened()
        if place.kind == "sessions":
            return transcripts.session_size_bytes(place.name)
        size_bytes = transcripts.archive_size_bytes(place.name)
        if size_bytes is None:
            for item in sent_on(transcripts.archive_chunks(place.name), "piece"):
                self._host.output.send(item.record, item.data)
        return size_bytes

    def _opened(self) -> Transcripts:
        transcripts = self._open()
        if transcripts is None:
            raise Vanished
        return transcripts


def _in_one_state(read: Callable[[], Any]) -> Any:
    """What ``read`` gives; it is called again when the session turned out to be rewritten, or moved, meanwhile.

    ``Vanished`` if it has gone, ``Fault`` if it is rewritten all the time.
    """
    for attempt in range(1, MAX_REREADS + 1):
        try:
            return read()
        except Rewritten:
            continue
        except Vanished:
            if attempt == MAX_REREADS:
                raise
    raise _rewritten_meanwhile()


def _rewritten_meanwhile() -> Fault:
    return Fault("the session was rewritten while it was read; try again")


def _in_one_go(items: Iterator[Item]) -> Iterator[Item]:
    """The same, for one who can't begin again."""
    try:
        yield from items
    except (Rewritten, Vanished):
        raise _rewritten_meanwhile() from None


class AgentSessions:
    """All sessions of one agent: files come first, then what is in the database alone."""

    def __init__(self, agent: Agent, host: Host, zstd: Zstd) -> None:
        self._stores: list[JsonlStore | SqliteStore] = []
        try:
            os.stat(raw(agent.path))
        except OSError as error:  # a loop of links, say: one failed item, not one for each folder that should be in it
            host.failed(agent.path, error)
            return
        database = database_of(agent, host, zstd)
        self._stores.append(JsonlStore(agent, host, zstd, database))
        if database is not None:
            self._stores.append(database)

    @property
    def sessions_total(self) -> int:
        """How many sessions are known; goes down when one vanishes before it is read."""
        return sum(store.sessions_total for store in self._stores)

    def analyse(self) -> Iterator[None]:
        """Say what each session holds; gives after each."""
        for store in self._stores:
            yield from store.analyse()

    def transcript(self, session_id: str) -> Iterator[Item] | None:
        """The transcript of a session as it lies there; ``None`` if the agent has none of that id. ``FAULTS``."""
        # The database first: a file of the same id is a copy of what was in it once. What can't be read comes last.
        for store in self._stores if sqlite3 is None else reversed(self._stores):
            items = store.transcript(session_id)
            if items is not None:
                return items
        return None


def database_of(agent: Agent, host: Host, zstd: Zstd) -> SqliteStore | None:
    """The database of an agent, if it has one."""
    return SqliteStore(agent, host, zstd) if os.path.exists(raw(os.path.join(agent.path, DATABASE))) else None


# Deleting

INDEX_NAME = "sessions.json"
_KEPT_FROM = ("import", "cold")
_SPACES = re.compile(r"[ \t\r\n]*")
_scan_string = json.decoder.scanstring  # type: ignore[attr-defined]


class Folder:
    """A folder held open, and what is done to the files in it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def remove(self, name: str) -> None:
        """Remove a file, or a link and not what it leads to."""
        os.unlink(raw(name), dir_fd=self.fd)

    def stat(self, name: str, *, follow_symlinks: bool = True) -> os.stat_result:
        """How a file stands."""
        return os.stat(raw(name), dir_fd=self.fd, follow_symlinks=follow_symlinks)

    def create(self, name: str) -> int:
        """Open a new file for writing; ``FileExistsError`` if there is one, or a link."""
        return os.open(raw(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self.fd)

    def replace(self, name: str, by: str) -> None:
        """Put a file in the place of another."""
        os.replace(raw(by), raw(name), src_dir_fd=self.fd, dst_dir_fd=self.fd)
        self.sync()

    def sync(self) -> None:
        """Make what was done outlast a loss of power, where the file system can."""
        with suppress(OSError):
            os.fsync(self.fd)


def live_lock(folder: Folder, name: str) -> str | None:
    """Who holds the lock file ``name``, in words; ``None`` if there is none, or a stale one."""
    try:
        age_s = time.time() - folder.stat(name, follow_symlinks=False).st_mtime
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENAMETOOLONG}:
            return None
        raise
    pid = _lock_owner(folder, name)
    if pid is None:
        return "process unknown" if age_s < LOCK_STALE_S else None
    return f"process {pid}" if _runs(pid) else None


def _lock_owner(folder: Folder, name: str) -> int | None:
    try:
        file = open_regular(name, folder.fd)
        try:
            owner = json.loads(os.read(file.fd, min(file.size_bytes, MAX_LOCK_BYTES)).decode("utf-8", "replace"))
        finally:
            os.close(file.fd)
    except (*_UNREADABLE, *FAULTS):
        return None
    pid = owner.get("pid") if type(owner) is dict else None
    return pid if type(pid) is int and 1 <= pid < 2**64 else None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it runs, for another user
        return True
    return True


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
    except _UNREADABLE:
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
    """The entries of an index; one of ``_UNREADABLE`` if it is no JSON object."""
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
        if _INVALID_BYTE.search(text, start, place):  # in the text; an escape that says the same is none there
            raise ValueError
        if key in keys:
            raise BrokenIndex("the session index has two entries of one key")
        keys.add(key)
        place = _after_spaces(text, place)
        if text[place : place + 1] != ":":
            raise ValueError
        value_start = _after_spaces(text, place + 1)
        value, end = _scan(text, value_start)
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
    return None if _INVALID_BYTE.search(value) and _INVALID_BYTE.search(text) else mended(value)


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


class Removal:
    """The deletion of the files of some sessions of one agent, and of their entries in the index."""

    def __init__(self, agent: Agent, host: Host) -> None:
        self._agent = agent
        self._output = host.output
        self._folders: dict[str, Folder] = {}
        self._gone: set[str] = set()

    def run(self, sessions: list[Any]) -> None:
        """Delete one after another, up to the end of the input; then their entries."""
        try:
            for place, (folder, transcript, is_there, others) in enumerate(sessions):
                if self._output.is_over:
                    break
                self._remove(place, folder, transcript, is_there, others)
                self._output.tick()
        finally:
            try:
                self._forget()
            finally:
                for opened in self._folders.values():
                    os.close(opened.fd)

    def _remove(self, place: int, folder: str, transcript: str, is_there: bool, others: list[str]) -> None:
        files = 0
        try:
            transcript, *others = map(_checked_name, (transcript, *others))
            opened = self._opened(folder)
            owner = live_lock(opened, f"{transcript}.lock")
            if owner:
                self._output.say("locked", place, owner)
                return
            for name in others:
                files += _unlink(opened, name)
            is_gone = bool(is_there) and _unlink(opened, transcript)
        except FAULTS as error:
            self._output.say("refused", place, files, *told(error))
        else:
            if is_gone and folder == LIVE_FOLDER:
                self._gone.add(transcript)
            self._output.say("removed", place, files + is_gone, is_gone)

    def _opened(self, name: str) -> Folder:
        if name not in dict(FOLDERS):
            raise Fault("not a valid name")
        if name not in self._folders:
            path = raw(os.path.join(self._agent.path, name))
            self._folders[name] = Folder(os.open(path, _OPEN_FLAGS | os.O_DIRECTORY))
        return self._folders[name]

    def _forget(self) -> None:
        if not self._gone:
            return
        folder = self._folders[LIVE_FOLDER]
        # So that a loss of power can't undo the one and keep the other.
        folder.sync()
        try:
            forget_transcripts(folder, self._gone, self._output.tick)
        except FAULTS as error:
            self._output.say("index-failed", *told(error))


def _unlink(folder: Folder, name: str) -> bool:
    try:
        folder.remove(name)
    except FileNotFoundError:
        return False
    return True


def _checked_name(name: str) -> str:
    objection = objection_to_name(name)
    if objection:
        raise Fault(objection)
    return file_name(name)


# What can be asked for


def analyze(host: Host, _request: dict[str, Any]) -> None:
    """Say what every session of every agent holds."""
    zstd = Zstd()
    for agent in list_agents(host.openclaw_dir):
        sessions = AgentSessions(agent, host, zstd)
        total = sessions.sessions_total
        host.output.say("agent", wire_name(agent.name), total)
        for _ in sessions.analyse():
            if sessions.sessions_total != total:
                total = sessions.sessions_total
                host.output.say("total", total)
            host.tick()


def files(host: Host, _request: dict[str, Any]) -> None:
    """Say which files and rows there are, sorted by their relative paths."""
    zstd = Zstd()
    for agent in sorted(list_agents(host.openclaw_dir), key=lambda agent: wire_name(agent.name) + "/"):
        database = database_of(agent, host, zstd)
        rows = database.files() if database else iter(())
        found = chain.from_iterable(_files_below(agent, folder, kind, host) for folder, kind in FOLDERS)
        for _, say in merge(rows, found, key=lambda row: row[0]):
            say()
        if database:
            database.close()


class _Walk(NamedTuple):
    """A folder that is being walked: its path, how that begins in records and rows, and the names that are to come."""

    path: str
    shown_path: str
    relative_path: str
    names: list[str]


def _files_below(agent: Agent, folder: str, kind: str, host: Host) -> Iterator[tuple[str, Callable[[], None]]]:
    """The regular files below a folder of an agent, and links to such, as ``SqliteStore.files``, by their whole paths.

    In each folder the names are sorted with a slash behind those of folders, as it is in the paths of what lies there.
    """
    shown_agent = wire_name(agent.name)
    path = os.path.join(agent.path, folder, "")
    walks = [_Walk(path, wire_name(path), f"agents/{shown_agent}/{folder}/", _sorted_names(path, host))]
    while walks:
        path, shown_path, relative_path, names = walks[-1]
        if not names:
            walks.pop()
            continue
        host.tick()
        name = names.pop()
        shown_name = wire_name(name)
        if name.endswith("/"):
            path = os.path.join(path, name)
            walks.append(_Walk(path, wire_name(path), relative_path + shown_name, _sorted_names(path, host)))
            continue
        try:
            found = os.stat(raw(path + name))
        except FileNotFoundError:  # it has gone, or is a link to what has
            continue
        except OSError as error:
            host.failed(path + name, error)
            continue
        if stat.S_ISREG(found.st_mode):
            relative_name = relative_path + shown_name
            row = ["file", shown_path + shown_name, relative_name, shown_agent, kind, found.st_size]
            yield relative_name, partial(host.output.say, *row)


def _sorted_names(path: str, host: Host) -> list[str]:
    """What is in a folder, by name, the last one first; the names of folders have a slash behind them."""
    names: list[str] = []
    try:
        with os.scandir(raw(path)) as found:
            for number, entry in enumerate(found):
                names.append(spelled(entry.name) + ("/" if entry.is_dir(follow_symlinks=False) else ""))
                if number % LISTED_FILES_A_STEP == 0:
                    host.tick()
    except FileNotFoundError:
        pass
    except OSError as error:
        host.failed(path, error)
    names.sort(key=None if all(map(str.isascii, names)) else wire_name, reverse=True)
    return names


def preview(host: Host, request: dict[str, Any]) -> None:
    """Send the transcript of one session."""
    session_id = str(request["sessionId"])
    objection = objection_to_name(session_id)
    if objection:
        raise InvalidParams(f"sessionId: {objection}")
    try:
        agent = find_agent(host.openclaw_dir, str(request["agentId"]))
    except FileNotFoundError:
        host.output.say("none")
        return
    host.reports_failures = False
    zstd = Zstd()
    items = AgentSessions(agent, host, zstd).transcript(session_id)
    if items is None:
        host.output.say("none")
        return
    host.output.say("found")
    for item in items:
        if isinstance(item, Lines):
            _send_lines(host, item)
        elif isinstance(item, Skipped):
            host.output.say("skipped", item.lines)
        else:
            _send_compressed(host, item, zstd)


def _send_compressed(host: Host, item: Compressed, zstd: Zstd) -> None:
    """Send what is compressed as it is, which mostly is shorter; but not a row with an image in it."""
    text = zstd.opened(item.data, host.tick) if item.is_row and zstd.is_there else None
    if text is not None:
        # A line feed is white space there, if it is JSON at all.
        line = text.replace(b"\n", b"\r") + b"\n"
        line = _cut(line, 0, len(line), host.tick) or line
        if len(line) < len(item.data):
            host.output.send(["lines"], line)
            return
    host.output.send(item.record, item.data)


def _send_lines(host: Host, lines: Lines) -> None:
    """Send lines, the long ones without what a preview doesn't show."""
    buffer, start, end = lines
    pieces: list[bytes | memoryview] = []
    unsent = start
    with memoryview(buffer) as view:
        while end - start > UNCUT_LINE_BYTES:
            line_end = buffer.find(b"\n", start, end) + 1 or end
            if line_end - start > UNCUT_LINE_BYTES:
                cut = _cut(buffer, start, line_end, host.tick)
                if cut is not None:
                    pieces += [view[unsent:start], cut]
                    unsent = line_end
            start = line_end
        pieces.append(view[unsent:end])
        host.output.send(["lines"], *pieces)
        for piece in pieces:
            if isinstance(piece, memoryview):
                piece.release()


def _cut(buffer: bytes | bytearray, start: int, end: int, tick: Tick) -> bytes | None:
    """A line with only what a preview shows of it; ``None`` if that is most of it, or it is better judged elsewhere."""
    line = LongLine(buffer, start, end, tick)
    if not line.is_entry():
        return None
    with memoryview(buffer) as view, view[start:end] as whole:
        if line.shown_bytes() * 2 >= end - start or not _is_utf8(whole):
            return None
    return line.shown() + b"\n"


def _is_utf8(text: memoryview) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for place in range(0, len(text), MIB):
            decoder.decode(text[place : place + MIB])
        decoder.decode(b"", True)
    except UnicodeDecodeError:
        return False
    return True


def names(host: Host, request: dict[str, Any]) -> None:
    """Say which files of one agent, or all, are of sessions, and of one agent what its database holds."""
    agent_id = request["agentId"]
    if agent_id is None:
        for agent in list_agents(host.openclaw_dir):
            _say_names(agent, host)
        return
    agent = find_agent(host.openclaw_dir, str(agent_id))
    _say_names(agent, host)
    database = database_of(agent, host, Zstd())
    try:
        ids = database.ids() if database else []
    except FAULTS as error:
        host.output.say("ids-failed", wire_name(os.path.join(agent.path, DATABASE)), *told(error))
        return
    for session_id in ids:
        host.output.say("id", session_id)


def _say_names(agent: Agent, host: Host) -> None:
    host.output.say("agent", wire_name(agent.name))
    for folder, _ in FOLDERS:
        try:
            with open_folder(os.path.join(agent.path, folder)) as fd, os.scandir(fd) as found:
                host.output.say("folder", folder)
                for entry in found:
                    # Through a descriptor names come as the locale has them.
                    name = spelled(os.fsencode(entry.name))
                    known = classify(name)
                    if known is None or known.role in _KEPT_FROM:
                        continue
                    if entry.is_file(follow_symlinks=False) or entry.is_symlink():
                        host.output.say("name", wire_name(name))
        except FileNotFoundError:
            continue
        except OSError as error:
            host.output.say("unread", folder, *told(error))


def remove(host: Host, request: dict[str, Any]) -> None:
    """Delete files of sessions of one agent, and their entries in its index."""
    Removal(find_agent(host.openclaw_dir, str(request["agentId"])), host).run(request["sessions"])


OPS: dict[str, Callable[[Host, dict[str, Any]], None]] = {
    "analyze": analyze,
    "files": files,
    "preview": preview,
    "names": names,
    "remove": remove,
}


def read_request() -> dict[str, Any] | None:
    """The request; ``None`` if the input ends before it does. The process ends if it is too long in coming."""
    line = b""
    while not line.endswith(b"\n"):
        signal.alarm(LEASE_S)
        piece = sys.stdin.buffer.readline(INPUT_BYTES)
        if not piece:
            return None
        line += piece
    request: dict[str, Any] = json.loads(line)
    return request


def answer(request: dict[str, Any], output: Output, watchdog: Watchdog) -> None:
    """Do what is asked for, and say how it ended."""
    try:
        _do(request, output, watchdog)
        end: list[Any] = ["end"]
    except FAULTS as error:
        end = ["fail", *told(error), error.kind if isinstance(error, Fault) else None]
    except Exception as error:  # a fault of ours: the traceback is for the log
        traceback.print_exc()
        end = ["fail", None, None, f"the helper failed: {type(error).__name__}", "remote_failed"]
    watchdog.let_end()
    if not output.is_over:
        output.say(*end)
    output.flush()


def _do(request: dict[str, Any], output: Output, watchdog: Watchdog) -> None:
    try:
        openclaw_dir: str | None = find_openclaw_dir(request)
        unknown = None
    except HomeUnknown as error:
        openclaw_dir, unknown = None, error
    version = ".".join(map(str, sys.version_info[:3]))
    shown = None if openclaw_dir is None else wire_name(openclaw_dir)
    output.say("hello", "python", version, time.time() * 1000, shown, sqlite3 is not None, Zstd().is_there)
    output.flush()
    if openclaw_dir is None:
        raise unknown or HomeUnknown
    OPS[request["op"]](Host(openclaw_dir, output, watchdog, request["nonce"]), request)


def main() -> None:
    """Read the request from stdin, and answer it on stdout."""
    request = read_request()
    if request is None or not re.fullmatch("[0-9a-f]+", request["nonce"]) or request["op"] not in OPS:
        os._exit(1)
    output = Output(1)
    output.finishes = request["op"] == "remove"
    output.add(f"\nclawpal-helper {request['nonce']}\n".encode())
    try:
        status = watched(output, partial(answer, request, output))
    except OSError as error:  # no process could be made
        output.say("fail", *told(error), None)
        output.flush()
        status = 0
    os._exit(status)


if __name__ == "__main__":
    main()
