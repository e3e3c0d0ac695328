"""A client of the sidecar for tests: a real process behind real pipes, and the wire's promises checked on every line.

Nothing is read from the process unless a test asks for it, so that a reader that stalls is one that doesn't ask.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time
import uuid
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

Message = Any
"""One line: a reply or a notification as a ``dict``, or the ``list`` of replies that answers a batch."""

# One that was built for an app is put to the same tests ("make test-app").
_BUILT = os.environ.get("CLAWPAL_TESTED_SIDECAR")
COMMAND = (_BUILT,) if _BUILT else (sys.executable, "-m", "sidecar")
TERMINALS = frozenset(
    {"sessions:done", "session-preview:done", "session-files:done"}
    | {f"{family}:{end}" for family in ("backup", "restore", "verify") for end in ("done", "error")}
)
WITHIN_S = 20.0
"""How long anything may take that should happen soon, on a machine that is busy with other things."""

_READ_BYTES = 64 * 1024
_POLL_S = 0.005
_POLLS_AT_REST = 10


class WireRules:
    """What must hold of all lines of one process, in their order, whatever was asked of it."""

    def __init__(self) -> None:
        self._next_seq: dict[str, int] = {}
        self._ended: set[str] = set()

    def check(self, line: bytes) -> Message:
        """The message on ``line``; ``AssertionError`` if the line, or its place among the others, breaks a rule."""
        assert line.endswith(b"\n"), f"torn line: {line[-200:]!r}"
        text = line[:-1].decode("utf-8")
        assert not any(character in text for character in "\r\u2028\u2029"), f"a line break within a line: {text[:200]}"
        message = json.loads(text, parse_constant=_refuse_constant)
        for part in message if isinstance(message, list) else [message]:
            assert part["jsonrpc"] == "2.0", f"not JSON-RPC: {text[:200]}"
            if "method" in part:
                self._check_notification(part)
            else:
                assert ("result" in part) != ("error" in part), f"neither reply nor notification: {text[:200]}"
                if _is_handle(part.get("result")):
                    self._next_seq[part["result"]] = 0
        return message

    def check_all_ended(self) -> None:
        running = self._next_seq.keys() - self._ended
        assert not running, f"no terminal for {running}"

    def _check_notification(self, message: Message) -> None:
        method, params = message["method"], message["params"]
        handle, seq = params["handleId"], params["seq"]
        assert "id" not in message, f"a notification has no id: {method}"
        assert handle in self._next_seq, f"{method} before the reply that names its handle"
        assert handle not in self._ended, f"{method} after the terminal"
        assert seq == self._next_seq[handle], f"{method} has seq {seq}, expected {self._next_seq[handle]}"
        self._next_seq[handle] += 1
        if method in TERMINALS:
            self._ended.add(handle)


def check_output(output: bytes) -> list[Message]:
    """The messages of a process that has ended by itself: every line by the rules, every stream with its terminal."""
    rules = WireRules()
    messages = [rules.check(line) for line in output.splitlines(keepends=True)]
    rules.check_all_ended()
    return messages


def request_line(method: str, params: object = None, request_id: object = 1) -> bytes:
    request = {"jsonrpc": "2.0", "id": request_id, "method": method}
    if params is not None:
        request["params"] = params
    return json.dumps(request).encode() + b"\n"


def environment(home: Path | None, **more: str) -> dict[str, str]:
    """What a sidecar is started with: this process's variables, but for those that name directories of OpenClaw."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "HOME" and not name.startswith(("OPENCLAW", "CLAWPAL"))
    }
    return {**kept, **({} if home is None else {"HOME": str(home)}), **more}


class SidecarProcess:
    """A running sidecar, its three streams and its end. To be used with ``async with``, or with ``end`` at the end.

    ``stdin`` and ``stdout`` are pipes unless descriptors are given; those may be what a test writes to and reads from
    (``write_fd``, ``read_fd``), if it keeps the other end.
    """

    def __init__(
        self,
        home: Path | None,
        *,
        command: Sequence[str] = COMMAND,
        stdin: int = subprocess.PIPE,
        stdout: int = subprocess.PIPE,
        write_fd: int | None = None,
        read_fd: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as this)
        self._process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=self._stderr,
            env=environment(home) if env is None else env,
            bufsize=0,
        )
        self.pid = self._process.pid
        self._stdin = _own(self._process.stdin, write_fd)
        self._stdout = _own(self._process.stdout, read_fd)
        self._partial = bytearray()
        self._unread: deque[Message] = deque()
        self._rules = WireRules()
        self._last_id = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is not None:
            exc.add_note(f"stderr of the sidecar:\n{self.stderr()}")
        self.end()

    def end(self) -> None:
        """Leave nothing behind, whatever state the process is in."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self.close_stdin()
        self.close_stdout()
        self._stderr.close()

    # Writing

    async def send(self, data: bytes) -> None:
        """Write ``data`` as it is, however long the sidecar takes to read it."""
        assert self._stdin is not None
        view = memoryview(data)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(WITHIN_S):
            while view:
                try:
                    view = view[os.write(self._stdin, view) :]
                except BlockingIOError:
                    await _ready(self._stdin, loop.add_writer, loop.remove_writer)

    async def input_is_read(self) -> None:
        """Wait until the sidecar has read all that was sent, and has done all it can do then."""
        unread = array("i", [0])

        def is_read() -> bool:
            assert self._stdin is not None
            fcntl.ioctl(self._stdin, termios.FIONREAD, unread)
            return unread[0] == 0

        await eventually(is_read, "the sidecar has read its input")
        await self.at_rest()

    async def request(self, method: str, params: object = None) -> int:
        """Send a request and give its id, by which ``reply`` finds the answer."""
        self._last_id += 1
        await self.send(request_line(method, params, self._last_id))
        return self._last_id

    def close_stdin(self) -> None:
        if self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None

    # Reading

    async def read(self) -> Message:
        """The next message in the order of the wire that nobody has taken yet; ``None`` at the end of the output."""
        return await self._next(lambda message: True)

    async def reply(self, request_id: object) -> Message:
        """The reply to ``request_id``; what comes before it stays for others to read."""
        found = await self._next(lambda message: isinstance(message, dict) and message.get("id", ...) == request_id)
        assert found is not None, f"the output ended before the reply to {request_id}"
        return found

    async def call(self, method: str, params: object = None) -> Any:
        """The result of a request that must succeed."""
        reply = await self.reply(await self.request(method, params))
        assert "result" in reply, f"{method} was rejected: {reply}"
        return reply["result"]

    async def rejected(self, method: str, params: object = None) -> Any:
        """The error of a request that must fail."""
        reply = await self.reply(await self.request(method, params))
        assert "error" in reply, f"{method} was not rejected: {reply}"
        return reply["error"]

    async def answers_to(self, data: bytes) -> list[Message]:
        """What the sidecar writes for ``data``, once it has shown that it still answers; its log is empty."""
        after = f"after {uuid.uuid4()}"
        await self.send(data + request_line("ping", request_id=after))
        answers = []
        while (answer := await self.read()) != {"jsonrpc": "2.0", "id": after, "result": "pong"}:
            assert answer is not None, "the output ended"
            answers.append(answer)
        assert self.stderr() == ""
        return answers

    async def start_stream(self, params: object = None, method: str = "analyze_sessions_stream") -> str:
        """The handle of a new stream."""
        handle = await self.call(method, params)
        assert _is_handle(handle)
        return str(handle)

    async def notification(self, handle: str) -> Message:
        """The next notification of ``handle``."""
        found = await self._next(lambda message: "method" in message and message["params"]["handleId"] == handle)
        assert found is not None, f"the output ended before the terminal of {handle}"
        return found

    async def collect(self, handle: str) -> list[Message]:
        """The notifications of ``handle`` that are still to come, the terminal last."""
        found = [await self.notification(handle)]
        while found[-1]["method"] not in TERMINALS:
            found.append(await self.notification(handle))
        return found

    async def read_to_end(self) -> list[Message]:
        """All that is left until the output ends; every stream must have had its terminal then."""
        messages = []
        while (message := await self.read()) is not None:
            messages.append(message)
        self._rules.check_all_ended()
        return messages

    def close_stdout(self) -> None:
        """Go away as a reader."""
        if self._stdout is not None:
            os.close(self._stdout)
            self._stdout = None

    async def output_is_blocked(self) -> None:
        """Wait until the pipe can take no more, since nobody reads it, and the sidecar has done all it can do then."""
        # Opening our end of a pipe anew gives an end to write to, which says whether there is room.
        fd = os.open(f"/proc/self/fd/{self._stdout}", os.O_WRONLY | os.O_NONBLOCK)
        try:
            await eventually(lambda: not select.select([], [fd], [], 0)[1], "the pipe is full")
        finally:
            os.close(fd)
        await self.at_rest()

    # The process

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def exit_code(self, within_s: float = WITHIN_S) -> int:
        """Wait until the process has ended."""
        await eventually(lambda: self._process.poll() is not None, "the sidecar has ended", within_s)
        return int(self._process.returncode)

    def stderr(self) -> str:
        """What the process has written there so far."""
        # Not by this descriptor: the process writes where its position is.
        return os.pread(self._stderr.fileno(), 10_000_000, 0).decode("utf-8", "replace")

    def resident_bytes(self) -> int:
        return self._status_bytes("VmRSS")

    def peak_bytes(self) -> int:
        """The most that was resident since ``begin_peak``, or since the start."""
        return self._status_bytes("VmHWM")

    def begin_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def descriptors(self) -> list[str]:
        """What the process has open, as the system names it."""
        return sorted(map(_link_target, Path(f"/proc/{self.pid}/fd").iterdir()))

    def children(self) -> list[int]:
        """The processes that it has started and that have not been waited for."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return [int(pid) for task in tasks for pid in (task / "children").read_text(encoding="ascii").split()]

    def bytes_read(self) -> int:
        """How much the process has read from files and pipes since it started."""
        return int(Path(f"/proc/{self.pid}/io").read_text(encoding="ascii").split()[1])

    def has_open(self, path: Path) -> bool:
        return str(path) in map(_link_target, Path(f"/proc/{self.pid}/fd").iterdir())

    async def suspend(self) -> None:
        """Hold the process where it is, until it gets a SIGCONT."""
        self.send_signal(signal.SIGSTOP)
        await eventually(lambda: self._thread_states() == {"T"}, "the sidecar is suspended")

    def _status_bytes(self, field: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(status.partition(f"{field}:")[2].split()[0]) * 1024

    def _thread_states(self) -> set[str]:
        return {_state(task) for task in Path(f"/proc/{self.pid}/task").iterdir()}

    async def at_rest(self) -> None:
        """Wait until all threads have been asleep for a while."""
        asleep = 0

        def long_asleep() -> bool:
            nonlocal asleep
            asleep = asleep + 1 if self._thread_states() == {"S"} else 0
            return asleep == _POLLS_AT_REST

        await eventually(long_asleep, "the sidecar is at rest")

    async def _next(self, wanted: Callable[[Message], bool]) -> Message:
        for place, message in enumerate(self._unread):
            if wanted(message):
                del self._unread[place]
                return message
        async with asyncio.timeout(WITHIN_S):
            while (line := await self._read_line()) is not None:
                message = self._rules.check(line)
                if wanted(message):
                    return message
                self._unread.append(message)
        return None

    async def _read_line(self) -> bytes | None:
        assert self._stdout is not None
        loop = asyncio.get_running_loop()
        searched = 0
        while (end := self._partial.find(b"\n", searched) + 1) == 0:
            searched = len(self._partial)
            try:
                data = os.read(self._stdout, _READ_BYTES)
            except BlockingIOError:
                await _ready(self._stdout, loop.add_reader, loop.remove_reader)
                continue
            except ConnectionResetError:  # a socket whose other end was closed with something unread in it
                data = b""
            if not data:
                assert not self._partial, f"torn line: {self._partial[:200]!r}"
                return None
            self._partial += data
        line = bytes(self._partial[:end])
        del self._partial[:end]
        return line


async def eventually(happened: Callable[[], bool], what: str, within_s: float = WITHIN_S) -> None:
    """Wait for something that only looking can tell."""
    deadline_s = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < deadline_s, f"not within {within_s} s: {what}"
        await asyncio.sleep(_POLL_S)


def is_running(pid: int) -> bool:
    """Whether a process is at work; one that has ended, but that its parent has not yet asked about, is not."""
    return _state(Path(f"/proc/{pid}")) not in {"", "Z", "X"}


def methods(messages: Iterable[Message]) -> list[str]:
    return [message["method"] for message in messages]


def error_codes(replies: Iterable[Message]) -> list[tuple[int, str, object]]:
    """The code, kind and id of each, which must be errors."""
    return [(reply["error"]["code"], reply["error"]["data"]["kind"], reply["id"]) for reply in replies]


def sessions_of(notifications: Iterable[Message]) -> list[Any]:
    """The sessions in the chunks of one stream, in their order."""
    return [
        session
        for message in notifications
        if message["method"] == "sessions:chunk"
        for session in message["params"]["sessions"]
    ]


def _own(pipe: Any, fd: int | None) -> int | None:
    """A descriptor that is ours to close, and that never blocks."""
    if pipe is not None:
        fd = os.dup(pipe.fileno())
        pipe.close()
    if fd is not None:
        os.set_blocking(fd, False)
    return fd


async def _ready(fd: int, add: Callable[..., None], remove: Callable[[int], bool]) -> None:
    event = asyncio.Event()
    add(fd, event.set)
    try:
        await event.wait()
    finally:
        remove(fd)


def _state(task: Path) -> str:
    """The letter by which the system names the state of a thread or process; empty if it is gone."""
    try:
        stat = (task / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]


def _link_target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:  # closed meanwhile
        return ""


def _is_handle(value: object) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


def _refuse_constant(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not JSON")
