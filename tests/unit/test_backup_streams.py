"""Streams of long work: what they tell of it meanwhile, and that their end is what the work came to."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from sidecar.backup.folder import Snapshot
from sidecar.backup.progress import Progress
from sidecar.cancel import CancelToken
from sidecar.errors import BackupDamaged, BackupNotFound, Cancelled, SidecarError, TargetInUse
from sidecar.limits import MAX_REPORTED_FAILURES, OUTBOX_BATCHES_PER_HANDLE, PROGRESS_S, STREAM_THREADS
from sidecar.server import connection as connection_module
from sidecar.server.backup_commands import BACKUP_COMMANDS
from sidecar.server.command import Command, Context
from sidecar.server.commands import COMMANDS
from sidecar.server.connection import Connection
from sidecar.server.schema import MODELS
from sidecar.streams import backup
from sidecar.streams.backup import RestoreDone, Work, WorkStream
from tests.client import WITHIN_S, Message, WireRules, eventually, methods, request_line


class Payload(msgspec.Struct):
    """What the work of a test gives."""

    info: str = "made"


class Gate:
    """Where a work of a test waits for the test, which knows when it has come there."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self._opened.wait(WITHIN_S), "nobody opened the gate"

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no time had to pass between two events."""
    monkeypatch.setattr(backup, "PROGRESS_S", 0.001)


class Client:
    """A client in the process of the connection that serves it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.running: asyncio.Task[None] | None = None
        self._rules = WireRules()
        self._input: asyncio.Queue[bytes] = asyncio.Queue()

    async def write(self, data: bytes) -> None:
        await self.reading.wait()
        self.messages += map(self._rules.check, data.splitlines(keepends=True))

    async def chunks(self) -> AsyncIterator[bytes]:
        while data := await self._input.get():
            yield data

    def send(self, *lines: bytes) -> None:
        self._input.put_nowait(b"".join(lines))

    def end_input(self) -> None:
        self._input.put_nowait(b"")

    async def call(self, method: str, params: object = None) -> Any:
        number = len(self.messages) + 1000
        self.send(request_line(method, params, number))
        await eventually(lambda: self._reply(number) is not None, f"{method} is answered")
        return self._reply(number)["result"]

    async def told(self, method: str) -> Any:
        """The parameters of the first notification of this name."""
        await eventually(lambda: method in methods(self.notifications()), f"{method} is told")
        return next(message["params"] for message in self.notifications() if message["method"] == method)

    def notifications(self) -> list[Message]:
        return [message for message in self.messages if "method" in message]

    def ends(self) -> list[str]:
        """The names of all notifications but those of progress."""
        return [name for name in methods(self.notifications()) if not name.endswith(":progress")]

    async def ended(self) -> None:
        """Wait until the connection is through."""
        assert self.running is not None
        async with asyncio.timeout(WITHIN_S):
            await self.running

    def _reply(self, number: int) -> Any:
        return next((message for message in self.messages if message.get("id") == number), None)


@asynccontextmanager
async def serving(work: Work, family: str = "backup") -> AsyncIterator[tuple[Client, Connection]]:
    """A client whose command ``work`` starts a stream of that work."""
    command = Command("work", None, "stream", lambda _context, _params: WorkStream(family, work), "")
    client = Client()
    connection = Connection(client.write, (*COMMANDS, command))
    client.running = asyncio.create_task(connection.run(client.chunks()))
    try:
        yield client, connection
    finally:
        client.reading.set()
        connection.stop()
        await client.ended()


async def through(work: Work, family: str = "backup") -> list[Message]:
    """All that is told of a work which ends by itself."""
    async with serving(work, family) as (client, _):
        client.send(request_line("work"))
        client.end_input()
        await client.ended()
        return client.notifications()


def until_cancelled(progress: Progress) -> None:
    """Work, and look at the token."""
    deadline_s = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline_s:
        progress.step(1)
        time.sleep(0.001)
    raise AssertionError("nobody cancelled it")


def raising(error: Exception) -> Work:
    def work(progress: Progress) -> msgspec.Struct:
        raise error

    return work


async def test_what_changed_is_told_once_and_the_last_state_always(gate: Gate, quick: None) -> None:
    def work(progress: Progress) -> Payload:
        progress.expect(3, 300)
        progress.phase, progress.current_path = "agents", b"agents/m\xff"
        progress.step(100)
        progress.done_with(100, 100)
        gate.wait()
        progress.files_copied, progress.bytes_copied = 3, 300
        return Payload()

    looks = 0
    state = backup._state

    def counting(progress: Progress) -> Any:
        nonlocal looks
        looks += gate.reached.is_set()
        return state(progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backup, "_state", counting)
        async with serving(work) as (client, _):
            handle = await client.call("work")
            await eventually(lambda: looks > 10, "it was looked at again and again")
            gate.open()
            done = await client.told("backup:done")
            told = [message["params"] for message in client.notifications()][-3:]

    assert done == {"handleId": handle, "seq": len(client.notifications()) - 1, "info": "made"}
    assert [message["method"] for message in client.notifications()][-3:-1] == ["backup:progress"] * 2
    for params in told:
        del params["handleId"], params["seq"]
    assert told == [
        {
            "phase": "agents",
            "filesCopied": 1,
            "bytesCopied": 100,
            "filesTotal": 3,
            "bytesTotal": 300,
            "currentPath": "agents/m\ufffdff",
        },
        {
            "phase": "done",
            "filesCopied": 3,
            "bytesCopied": 300,
            "filesTotal": 3,
            "bytesTotal": 300,
            "currentPath": None,
        },
        {"info": "made"},
    ]


async def test_of_work_that_always_changes_ten_events_a_second_are_told() -> None:
    def work(progress: Progress) -> Payload:
        until_s = time.monotonic() + 5 * PROGRESS_S
        while time.monotonic() < until_s:
            progress.step(1)
        return Payload()

    begun_s = time.monotonic()
    told = methods(await through(work))
    took_s = time.monotonic() - begun_s

    assert told[-2:] == ["backup:progress", "backup:done"]
    assert 1 < told.count("backup:progress") <= took_s / PROGRESS_S + 1


async def test_a_cancel_is_answered_at_once_and_its_terminal_waits_for_the_work(gate: Gate) -> None:
    def work(progress: Progress) -> Payload:
        try:
            until_cancelled(progress)
        finally:
            gate.wait()
        return Payload()

    async with serving(work) as (client, _):
        handle = await client.call("work")
        await client.told("backup:progress")
        assert await client.call("cancel_stream", {"handleId": handle}) is True
        await eventually(gate.reached.is_set, "the work is ending")
        assert await client.call("cancel_stream", {"handleId": handle}) is False
        assert await client.call("ping") == "pong"
        assert client.ends() == []
        gate.open()

        error = await client.told("backup:error")
        assert (error["error"], error["kind"]) == ("cancelled", "cancelled")
        assert client.ends() == ["backup:cancelled", "backup:error"]
        assert await client.call("cancel_stream", {"handleId": handle}) is False


async def test_a_cancelled_work_ends_soon(record_measured: Callable[[str], None]) -> None:
    def work(progress: Progress) -> Payload:
        until_cancelled(progress)
        return Payload()

    async with serving(work) as (client, _):
        handle = await client.call("work")
        await client.told("backup:progress")
        cancelled_s = time.monotonic()
        await client.call("cancel_stream", {"handleId": handle})
        await client.told("backup:error")
        took_s = time.monotonic() - cancelled_s

    record_measured(f"cancel of a backup's work that looks at its token: terminal after {took_s * 1000:.1f} ms")
    assert took_s < 1.0


async def test_work_that_was_done_in_spite_of_a_cancel_says_so(gate: Gate) -> None:
    def work(progress: Progress) -> Payload:
        progress.may_be_cancelled = False
        gate.wait()
        progress.step()
        return Payload()

    async with serving(work, "restore") as (client, _):
        handle = await client.call("work")
        await eventually(gate.reached.is_set, "the work is at the point of no return")
        assert await client.call("cancel_stream", {"handleId": handle}) is True
        gate.open()

        assert (await client.told("restore:done"))["info"] == "made"
        assert client.ends() == ["restore:done"]
        assert methods(client.notifications())[-2] == "restore:progress"


async def test_work_that_failed_when_it_was_cancelled_says_how(gate: Gate) -> None:
    def work(progress: Progress) -> Payload:
        gate.wait()
        raise PermissionError(13, "Permission denied", "x")

    async with serving(work) as (client, _):
        handle = await client.call("work")
        await eventually(gate.reached.is_set, "the work has begun")
        assert await client.call("cancel_stream", {"handleId": handle}) is True
        gate.open()

        assert (await client.told("backup:error"))["kind"] == "source_unreadable"
        assert client.ends() == ["backup:error"]


async def test_a_cancel_in_the_same_write_leaves_nothing_but_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Progress] = []
    known = "11111111-2222-4333-8444-555555555555"
    monkeypatch.setattr("uuid.uuid4", lambda: known)

    def work(progress: Progress) -> Payload:
        begun.append(progress)
        return Payload()

    async with serving(work) as (client, _):
        client.send(request_line("work"), request_line("cancel_stream", {"handleId": known}, 2))
        await client.told("backup:error")

    assert methods(client.notifications()) == ["backup:cancelled", "backup:error"]
    assert begun == []


FAILURES = [{"path": f"agents/{number}", "error": "it is missing"} for number in range(MAX_REPORTED_FAILURES)]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (BackupNotFound("no such file: x"), {"error": "no such file: x", "kind": "backup_not_found"}),
        (
            BackupDamaged("it is damaged", failedItems=30, failures=FAILURES),
            {"error": "it is damaged", "kind": "backup_damaged", "failedItems": 30, "failures": FAILURES},
        ),
        (
            TargetInUse("it is in use", users=["a gateway runs"]),
            {"error": "it is in use", "kind": "target_in_use", "users": ["a gateway runs"]},
        ),
        (
            PermissionError(13, "Permission denied", "x"),
            {"error": "permission denied: x", "kind": "source_unreadable"},
        ),
        (ValueError("a secret"), {"error": "internal error; see the sidecar's log", "kind": "internal"}),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_went_wrong_is_told_with_what_is_known_of_it(error: Exception, told: dict[str, Any]) -> None:
    (message,) = await through(raising(error), "verify")

    assert message["method"] == "verify:error"
    assert {name: value for name, value in message["params"].items() if name not in {"handleId", "seq"}} == told


async def test_a_restore_tells_what_was_there_before() -> None:
    info = backup.info_of(Snapshot(b"old", b"/b/old", "2026-11-24T00:00:00Z", 7, "complete", 0, []))
    done = (await through(lambda _: RestoreDone(info, None, backup.restored_message("old")), "restore"))[-1]["params"]

    assert done["message"] == "Restored from backup 'old'"
    assert done["previous"] is None
    assert done["info"] == {
        "name": "old",
        "path": "/b/old",
        "createdAt": "2026-11-24T00:00:00Z",
        "sizeBytes": 7,
        "status": "complete",
        "failedItems": 0,
        "failures": [],
    }


async def test_over_the_limit_one_ends_with_too_busy_until_another_has_ended(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(progress: Progress) -> Payload:
        gate.wait()
        return Payload()

    monkeypatch.setattr(backup, "_places", threading.BoundedSemaphore(1))
    async with serving(work) as (client, _):
        await client.call("work")
        await eventually(gate.reached.is_set, "the first is at work")
        await client.call("work")
        assert (await client.told("backup:error"))["kind"] == "too_busy"
        gate.open()
        await client.told("backup:done")
        await client.call("work")
        await eventually(lambda: client.ends().count("backup:done") == 2, "the third is done")


async def test_work_takes_no_thread_from_other_streams(gate: Gate) -> None:
    def work(progress: Progress) -> Payload:
        gate.wait()
        return Payload()

    async with serving(work) as (client, _):
        client.send(*[request_line("work")] * (STREAM_THREADS + 1))
        await client.call("set_active_openclaw_home", {"path": "/nowhere"})
        await client.call("analyze_sessions_stream")
        await client.told("sessions:done")
        assert client.ends() == ["sessions:done"]
        gate.open()
        await eventually(lambda: client.ends().count("backup:done") == STREAM_THREADS + 1, "all are done")


async def test_with_a_reader_that_has_stalled_a_cancel_ends_the_work(quick: None) -> None:
    ended = threading.Event()

    def work(progress: Progress) -> Payload:
        try:
            until_cancelled(progress)
        finally:
            ended.set()
        return Payload()

    async with serving(work) as (client, connection):
        handle = await client.call("work")
        client.reading.clear()
        (opened,) = connection._handles._open.values()
        await eventually(lambda: len(opened.lane._lines) == OUTBOX_BATCHES_PER_HANDLE, "no more events have room")
        client.send(request_line("cancel_stream", {"handleId": handle}, 2))
        await eventually(ended.is_set, "the work has ended")
        client.reading.set()

        await client.told("backup:error")
        assert client.ends() == ["backup:cancelled", "backup:error"]


async def test_the_end_of_input_lets_the_work_finish(gate: Gate) -> None:
    def work(progress: Progress) -> Payload:
        gate.wait()
        progress.step()
        return Payload()

    async with serving(work) as (client, _):
        await client.call("work")
        client.end_input()
        await eventually(gate.reached.is_set, "the work has begun")
        gate.open()
        await client.ended()

    assert client.ends() == ["backup:done"]


async def test_a_shutdown_cancels_the_work_and_waits_for_its_end() -> None:
    left = threading.Event()

    def work(progress: Progress) -> Payload:
        try:
            until_cancelled(progress)
        finally:
            left.set()
        return Payload()

    async with serving(work) as (client, _):
        await client.call("work")
        await client.told("backup:progress")
        assert await client.call("shutdown") is True
        await client.ended()

        assert left.is_set()
        assert client.ends() == ["backup:cancelled", "backup:error"]


async def test_a_shutdown_waits_only_so_long_for_work_that_does_not_end(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(progress: Progress) -> Payload:
        gate.wait()
        return Payload()

    monkeypatch.setattr(connection_module, "DRAIN_S", 0.05)
    async with serving(work) as (client, _):
        await client.call("work")
        await eventually(gate.reached.is_set, "the work has begun")
        await client.call("shutdown")
        await client.ended()

        assert client.ends() == []


async def test_who_loses_the_reader_cancels_the_work() -> None:
    left = threading.Event()

    def work(progress: Progress) -> Payload:
        try:
            until_cancelled(progress)
        finally:
            left.set()
        return Payload()

    async with serving(work) as (client, connection):
        await client.call("work")
        await client.told("backup:progress")
        connection.lose_output()
        await client.ended()

        assert left.is_set()
        assert client.ends() == []


class KnownBackups:
    """Backups that note what they are asked for."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.error: SidecarError | None = None

    def backup(self, include_sessions: bool, progress: Progress) -> Snapshot:
        return self._made("backup", include_sessions)

    def restore(self, name: str, force: bool, progress: Progress) -> tuple[Snapshot, Snapshot]:
        return self._made("restore", name, force), self._made("previous")

    def verify(self, name: str, progress: Progress) -> Snapshot:
        return self._made("verify", name)

    def list(self, token: CancelToken) -> list[Snapshot]:
        return [self._made("list")]

    def delete(self, name: str, token: CancelToken) -> bool:
        self._made("delete", name)
        return name == "there"

    def _made(self, *asked: Any) -> Snapshot:
        if self.error:
            raise self.error
        self.asked.append(asked)
        failures = [{"path": "x", "error": "permission denied"}]
        return Snapshot(asked[0].encode(), b"/b/" + asked[0].encode(), "", 1, "incomplete", 1, failures)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> KnownBackups:
    """The backups of every home, here or on a host."""
    known = KnownBackups()

    def backups(context: Context, params: Any) -> KnownBackups:
        known.asked.append((getattr(params, "host_id", None), getattr(params, "share", None)))
        return known

    monkeypatch.setattr(Context, "backups", backups)
    return known


@asynccontextmanager
async def asking(host_id: str | None) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Calls a command, or its twin for a host; a stream gives the parameters of its terminal."""
    async with serving(lambda _: Payload()) as (client, _):

        async def ask(name: str, **params: Any) -> Any:
            if host_id is not None:
                name, params = f"remote_{name}", {"hostId": host_id, **params}
            result = await client.call(name, params)
            if not name.endswith("_stream"):
                return result
            family = name.removeprefix("remote_").partition("_")[0]
            await eventually(lambda: f"{family}:done" in client.ends(), "its stream has ended")
            return client.notifications()[-1]["params"]

        yield ask


@pytest.mark.parametrize("host_id", [None, "ssh:one"])
async def test_the_commands_ask_for_what_their_parameters_say(known: KnownBackups, host_id: str | None) -> None:
    async with asking(host_id) as ask:
        made = await ask("backup_before_upgrade")
        streamed = await ask("backup_before_upgrade_stream", includeSessions=False, share=False)
        listed = await ask("list_backups")
        restored = await ask("restore_from_backup", backupName="one")
        done = await ask("restore_from_backup_stream", backupName="two", force=True)
        verified = await ask("verify_backup_stream", backupName="three")
        deleted = [await ask("delete_backup", backupName=name) for name in ("there", "gone")]

    assert known.asked == [
        (host_id, None),
        ("backup", True),
        (host_id, False),
        ("backup", False),
        (host_id, None),
        ("list",),
        (host_id, None),
        ("restore", "one", False),
        ("previous",),
        (host_id, None),
        ("restore", "two", True),
        ("previous",),
        (host_id, None),
        ("verify", "three"),
        (host_id, None),
        ("delete", "there"),
        (host_id, None),
        ("delete", "gone"),
    ]
    whole = {
        "name": "backup",
        "path": "/b/backup",
        "createdAt": "",
        "sizeBytes": 1,
        "status": "incomplete",
        "failedItems": 1,
        "failures": [{"path": "x", "error": "permission denied"}],
    }
    assert made == (whole if host_id is None else {**whole, "path": ""})
    assert streamed["info"] == whole
    assert listed == [{**whole, "name": "list", "path": "/b/list"}]
    assert restored == "Restored from backup 'one'"
    assert done["message"] == "Restored from backup 'two'"
    assert (done["info"]["name"], done["previous"]["name"]) == ("restore", "previous")
    assert verified["info"]["name"] == "verify"
    assert deleted == [True, False]


async def test_null_is_as_good_as_no_parameter(known: KnownBackups) -> None:
    async with asking(None) as ask:
        await ask("backup_before_upgrade", includeSessions=None, share=None)
        await ask("restore_from_backup", backupName="one", force=None)

    assert known.asked == [(None, None), ("backup", True), (None, None), ("restore", "one", False), ("previous",)]


async def test_an_eager_command_is_cancelled_by_a_shutdown(
    known: KnownBackups, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def long(include_sessions: bool, progress: Progress) -> Snapshot:
        begun.set()
        until_cancelled(progress)
        raise Cancelled

    monkeypatch.setattr(known, "backup", long)
    async with serving(lambda _: Payload()) as (client, _):
        client.send(request_line("backup_before_upgrade", None, 7))
        await eventually(begun.is_set, "the work has begun")
        await client.call("shutdown")
        await client.ended()

        assert client._reply(7)["error"]["data"]["kind"] == "cancelled"


def test_each_command_has_a_twin_whose_parameters_begin_with_the_host() -> None:
    names = {command.name for command in BACKUP_COMMANDS}
    here = {name for name in names if not name.startswith("remote_")}
    assert len(here) == 7
    assert names - here == {f"remote_{name}" for name in here}
    for command in BACKUP_COMMANDS:
        first = next(iter(MODELS[command.params].model_fields), None) if command.params else None
        assert (first == "host_id") == command.at_host
