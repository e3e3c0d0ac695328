"""Streams of all kinds at once on one process, cancelled at random, and what is seen of it all."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.limits import BACKUP_JOB_THREADS, JOB_THREADS, STREAM_THREADS
from tests.client import TERMINALS, Message, SidecarProcess, methods, request_line
from tests.soak.homes import DAMAGED_AGENT, SESSIONS, write_home

MIB = 1024 * 1024
STREAMS = 64
BACKUP_STREAMS = 4
"""Of those: each copies or reads a whole tree, and the disk is not what this is about."""
KEPT_SNAPSHOTS = 2
GROWTH_BYTES = 8 * MIB
LATE_S = 10.0
"""From a cancel to the terminal; tens of milliseconds are usual, but 64 streams share two threads of a busy machine."""
_GONE = {"backup_not_found", "backup_unverified", "backup_damaged", "source_unreadable"}
# The loop's, the two of stdin and stdout's watch, stdout's writer; pools fill as they are needed.
MOST_THREADS = 4 + STREAM_THREADS + JOB_THREADS + BACKUP_JOB_THREADS


class Breach(Exception):
    """Something that must not happen has happened."""


@dataclass(frozen=True)
class AtRest:
    """A process that has nothing to do."""

    resident_bytes: int
    threads: int
    descriptors: list[str]
    children: list[int]
    open_handles: int


@dataclass
class Seen:
    """What a run showed."""

    wall_s: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)
    notifications: int = 0
    replies: int = 0
    terminal_after_ms: list[float] = field(default_factory=list)
    rests: list[AtRest] = field(default_factory=list)
    peak_bytes: int = 0
    breaches: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        after_ms = sorted(self.terminal_after_ms) or [0.0]
        lines = [
            f"{self.wall_s:.0f} s, {STREAMS} streams at a time: {self.notifications:,} notifications, "
            f"{self.replies:,} replies",
            *(f"  {name}: {count:,}" for name, count in sorted(self.ends.items())),
            f"from the reply of a cancel to the terminal, {len(self.terminal_after_ms):,} times: median "
            f"{statistics.median(after_ms):.0f} ms, of 99 % within {after_ms[int(len(after_ms) * 0.99)]:.0f} ms, "
            f"longest {after_ms[-1]:.0f} ms",
            f"most resident: {self.peak_bytes / MIB:.1f} MiB",
            *(
                f"at rest {when}: {rest.resident_bytes / MIB:.1f} MiB, {rest.threads} threads, "
                f"{len(rest.descriptors)} descriptors, {len(rest.children)} children, {rest.open_handles} open handles"
                for when, rest in zip(("after the warm-up", "at the end"), self.rests, strict=False)
            ),
        ]
        return "\n".join(lines)


async def soak(folder: Path, seconds: float, warm_up_s: float, seed: int = 1) -> Seen:
    """Run for ``seconds`` over a home that is made in ``folder``, the first ``warm_up_s`` of them to get warm."""
    home = folder / "home"
    write_home(home)
    seen = Seen()
    async with SidecarProcess(home) as process:
        conversation = _Conversation(process, seen)
        reading = asyncio.create_task(conversation.read())
        begun_s = time.monotonic()
        try:
            work = _Work(conversation, seen, random.Random(seed))
            await work.learn()
            await work.run(begun_s + warm_up_s)
            await conversation.rest(seen)
            await work.run(begun_s + seconds)
            await conversation.rest(seen)
            seen.peak_bytes = process.peak_bytes()
        except (Breach, ExceptionGroup, AssertionError) as error:
            seen.breaches += [str(breach) for breach in _leaves(error)]
        seen.wall_s = time.monotonic() - begun_s
        process.close_stdin()
        try:
            await reading
            if (code := await process.exit_code()) != 0:
                seen.breaches.append(f"it ended with {code}")
        except AssertionError as error:
            seen.breaches.append(str(error))
        if "Traceback" in process.stderr():
            seen.breaches.append(process.stderr()[-2_000:])
    _look_at_the_end(seen, home)
    return seen


def _look_at_the_end(seen: Seen, home: Path) -> None:
    for rest in seen.rests:
        if rest.open_handles or rest.children:
            seen.breaches.append(f"open at rest: {rest.open_handles} streams, children {rest.children}")
        if rest.threads > MOST_THREADS:
            seen.breaches.append(f"{rest.threads} threads at rest, of at most {MOST_THREADS}")
        seen.breaches += [f"open at rest: {name}" for name in rest.descriptors if name.startswith(str(home))]
    if len(seen.rests) == 2:
        warm, last = seen.rests
        if len(last.descriptors) > len(warm.descriptors):
            seen.breaches.append(f"descriptors: {warm.descriptors}, then {last.descriptors}")
        if last.resident_bytes > warm.resident_bytes + GROWTH_BYTES:
            seen.breaches.append(f"memory grew by {(last.resident_bytes - warm.resident_bytes) / MIB:.1f} MiB")
    for left in (home / ".clawpal" / "backups").glob(".*-*"):
        seen.breaches.append(f"left behind: {left.name}")


class _Conversation:
    """Reads all that the process writes, and gives each message to whoever waits for it.

    ``SidecarProcess`` checks the rules of the wire on each line: numbers without a gap, nothing behind a terminal.
    """

    def __init__(self, process: SidecarProcess, seen: Seen) -> None:
        self.process = process
        self._seen = seen
        self._replies: dict[int, asyncio.Future[Message]] = {}
        self._streams: dict[str, asyncio.Queue[Message]] = {}
        self._last_id = 0

    async def read(self) -> None:
        """Until the output ends. ``AssertionError`` if a rule is broken, or a stream has no terminal then."""
        try:
            while (message := await self.process.read()) is not None:
                if "method" in message:
                    self._seen.notifications += 1
                    self._streams[message["params"]["handleId"]].put_nowait(message)
                else:
                    self._seen.replies += 1
                    # Here, since the first notification may be in the same read.
                    if isinstance(message.get("result"), str):
                        self._streams[message["result"]] = asyncio.Queue()
                    waiting = self._replies.pop(message["id"])
                    if not waiting.cancelled():  # after a breach
                        waiting.set_result(message)
            await self.process.read_to_end()
        except BaseException as error:
            for waiting in self._replies.values():
                if not waiting.done():
                    waiting.set_exception(Breach(f"the conversation broke: {error!r}"))
            raise

    async def ask(self, method: str, params: object = None) -> Message:
        """The reply, which may be an error."""
        self._last_id += 1
        reply = self._replies[self._last_id] = asyncio.get_running_loop().create_future()
        await self.process.send(request_line(method, params, self._last_id))
        return await reply

    async def result(self, method: str, params: object = None) -> Any:
        reply = await self.ask(method, params)
        if "result" not in reply:
            raise Breach(f"{method} was rejected: {reply}")
        return reply["result"]

    async def notification(self, handle: str) -> Message:
        message = await self._streams[handle].get()
        if message["method"] in TERMINALS:
            del self._streams[handle]
        return message

    async def rest(self, seen: Seen) -> None:
        """Look at the process when all it was asked for is done."""
        info = await self.result("get_sidecar_info")
        await self.process.at_rest()
        process = self.process
        seen.rests.append(
            AtRest(
                process.resident_bytes(),
                process.threads(),
                process.descriptors(),
                process.children(),
                info["openHandles"],
            )
        )


Check = Callable[[list[Message]], bool]
"""Whether all notifications of a stream that was not cancelled are those that it must have."""


class _Work:
    """Asks for streams, one after the other in each of ``STREAMS`` places, and looks at what comes."""

    def __init__(self, conversation: _Conversation, seen: Seen, rng: random.Random) -> None:
        self._conversation = conversation
        self._seen = seen
        self._rng = rng
        self._sessions: list[tuple[str, str]] = []
        self._messages: dict[tuple[str, str], int] = {}
        self._files = 0
        self._failed_items = 0

    async def learn(self) -> None:
        """Find out what the home holds, by the answers of eager commands: streams must come to the same."""
        agents = await self._conversation.result("analyze_sessions")
        self._sessions = [(agent["agent"], one["sessionId"]) for agent in agents for one in _sessions_of(agent)]
        self._files = len(await self._conversation.result("list_session_files"))
        if len(self._sessions) != SESSIONS:
            raise Breach(f"{len(self._sessions)} sessions are found, not {SESSIONS}")

    async def run(self, until_s: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            for place in range(STREAMS):
                one = self._back_up if place < BACKUP_STREAMS else self._read
                tasks.create_task(self._repeat(one, until_s))

    async def _repeat(self, one: Callable[[], Any], until_s: float) -> None:
        while time.monotonic() < until_s:
            await one()

    async def _read(self) -> None:
        rng = self._rng
        agent, session = key = rng.choice(self._sessions)
        match rng.choices(("analysis", "files", "preview", "eager"), (2, 3, 12, 1))[0]:
            case "analysis":
                size = rng.choice((1, 10, 50, 250))
                await self._stream("analyze_sessions_stream", {"batchSize": size}, self._is_whole_analysis)
            case "files":
                size = rng.choice((1, 20, 500))
                await self._stream("list_session_files_stream", {"batchSize": size}, self._is_whole_list)
            case "preview":
                params = {"agentId": agent, "sessionId": session, "pageSize": rng.choice((1, 20, 100))}
                await self._stream(
                    "preview_session_stream", params, lambda messages: self._is_whole_preview(key, messages)
                )
            case _:
                await self._eager(agent, session)

    async def _eager(self, agent: str, session: str) -> None:
        """Jobs too, so that their threads have work beside the streams'."""
        method, params = self._rng.choice(
            (
                ("analyze_sessions", None),
                ("list_session_files", None),
                ("list_backups", None),
                ("preview_session", {"agentId": agent, "sessionId": session}),
                ("cancel_stream", {"handleId": session}),
            )
        )
        reply = await self._conversation.ask(method, params)
        kind = reply["error"]["data"]["kind"] if "error" in reply else "answered"
        if kind not in {"answered", "too_busy"} and not (agent == DAMAGED_AGENT and kind == "broken_database"):
            raise Breach(f"{method} was answered with {reply}")
        self._seen.ends[f"{method} {kind}"] += 1

    async def _back_up(self) -> None:
        """Make a snapshot, check one, or remove one, whichever there may be."""
        conversation = self._conversation
        names = [info["name"] for info in await conversation.result("list_backups")]
        if len(names) > KEPT_SNAPSHOTS:
            await conversation.result("delete_backup", {"backupName": self._rng.choice(names)})
        elif names and self._rng.random() < 0.5:
            await self._stream("verify_backup_stream", {"backupName": self._rng.choice(names)}, _is_done_or_gone)
        else:
            await self._stream("backup_before_upgrade_stream", {"share": self._rng.random() < 0.5}, _is_backed_up)

    async def _stream(self, method: str, params: object, check: Check) -> None:
        """Start a stream, read it to its end or cancel it at some moment, and look at how it ended."""
        conversation, rng = self._conversation, self._rng
        handle = await conversation.result(method, params)
        messages: list[Message] = []
        cancel_after = rng.choice((None, None, 0, 1, 5))
        cancelled_at_s = 0.0
        was_running = False
        while not messages or messages[-1]["method"] not in TERMINALS:
            if cancel_after is not None and len(messages) >= cancel_after and not cancelled_at_s:
                # At a moment that has nothing to do with when something arrives.
                await asyncio.sleep(rng.expovariate(1 / 0.02))
                was_running = await conversation.result("cancel_stream", {"handleId": handle})
                cancelled_at_s = time.monotonic()
            try:
                async with asyncio.timeout(LATE_S if was_running else None):
                    messages.append(await conversation.notification(handle))
            except TimeoutError:
                raise Breach(f"{method}: {LATE_S} s after its cancel there is no terminal") from None
        if was_running:
            self._seen.terminal_after_ms.append(max(0.0, (time.monotonic() - cancelled_at_s) * 1000))
        self._seen.ends[f"{method} {self._end(method, messages, was_running, check)}"] += 1

    def _end(self, method: str, messages: list[Message], was_cancelled: bool, check: Check) -> str:
        names = methods(messages)
        cancelled = sum(name.endswith(":cancelled") for name in names)
        if cancelled > 1 or (cancelled and not was_cancelled):
            raise Breach(f"{method}: {cancelled} times cancelled, asked {was_cancelled}")
        if cancelled:
            return "cancelled"
        # A cancel of a backup or check may come when it is done.
        if was_cancelled and "backup" not in method:
            raise Breach(f"{method} was cancelled, and ended as {names[-2:]}")
        if not check(messages):
            raise Breach(f"{method} ended with {messages[-1]}")
        return "done"

    def _is_whole_analysis(self, messages: list[Message]) -> bool:
        done = messages[-1]["params"]
        sessions = [one for message in messages[:-1] for one in message["params"].get("sessions", [])]
        self._failed_items = self._failed_items or done["failedItems"]
        whole = done["totalSessions"] == len(sessions) == len(self._sessions)
        return whole and bool(done["failedItems"] == self._failed_items)

    def _is_whole_list(self, messages: list[Message]) -> bool:
        files = sum(len(message["params"].get("files", [])) for message in messages[:-1])
        return files == self._files

    def _is_whole_preview(self, key: tuple[str, str], messages: list[Message]) -> bool:
        shown = sum(len(message["params"].get("messages", [])) for message in messages)
        done = messages[-1]["params"]
        expected = self._messages.setdefault(key, done["totalMessages"])
        # A file is not shown while the database can't be read, of which it may be an old copy.
        failed = "sessions:error" in methods(messages)
        return bool(shown == done["totalMessages"] == expected and failed == (key[0] == DAMAGED_AGENT))


def _sessions_of(agent: Any) -> list[Any]:
    return [one for group in agent.values() if isinstance(group, list) for one in group]


def _is_backed_up(messages: list[Message]) -> bool:
    """The damaged database makes each snapshot incomplete; nothing else is to fail."""
    done = messages[-1]
    return bool(done["method"] == "backup:done" and done["params"]["info"]["failedItems"] == 1)


def _is_done_or_gone(messages: list[Message]) -> bool:
    """Another place may remove what is checked, which then lacks its folder, its manifest, or files."""
    last = messages[-1]
    return bool(last["method"] == "verify:done" or last["params"]["kind"] in _GONE)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
