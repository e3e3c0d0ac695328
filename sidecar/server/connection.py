"""One conversation: lines in, replies and notifications out, from the first byte to the last terminal."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

from sidecar.errors import Cancelled, ParseError, ReplyTooLarge
from sidecar.limits import CALLS_PER_TURN, DRAIN_S, MAX_LINE_BYTES, MAX_REPLY_BYTES, MIB
from sidecar.server.command import DEFAULT_OPTIONS, Command, Context, Options
from sidecar.server.commands import COMMANDS
from sidecar.server.dispatch import Answer, Dispatcher
from sidecar.server.handles import Handles
from sidecar.server.jobs import Jobs
from sidecar.server.outbox import Outbox
from sidecar.server.process import FreedMemory
from sidecar.wire.framing import LineFramer, LineTooLong
from sidecar.wire.messages import Item, Rejected, batch_line, error_line, parse_line

log = logging.getLogger(__name__)


class Connection:
    """Serves one client. ``run`` returns when the input has ended and all is answered, or when it was told to stop."""

    def __init__(
        self,
        write: Callable[[bytes], Awaitable[None]],
        commands: tuple[Command, ...] = COMMANDS,
        *,
        options: Options = DEFAULT_OPTIONS,
    ) -> None:
        self._commands = commands
        self._options = options
        self._outbox = Outbox(write)
        self._stopped = asyncio.Event()
        self._freed = FreedMemory()
        self.output_lost = False

    def stop(self) -> None:
        """Take no more requests, cancel what runs, let the terminals out."""
        self._stopped.set()

    def lose_output(self) -> None:
        """The reader is gone: cancel what runs, write nothing more."""
        self.output_lost = True
        self._outbox.close()
        self._stopped.set()

    async def run(self, chunks: AsyncIterator[bytes]) -> None:
        """Serve the requests in ``chunks`` of bytes, cut anywhere."""
        async with asyncio.TaskGroup() as tasks:
            self._jobs = Jobs(tasks, self._work_ended)
            self._handles = Handles(self._outbox, tasks, self._work_ended)
            context = Context(self._handles, self.stop, self._options)
            self._dispatcher = Dispatcher(self._commands, context, self._handles.open)
            writer = tasks.create_task(self._write())
            reading = tasks.create_task(self._read(chunks))
            stopped = tasks.create_task(self._stopped.wait())
            await asyncio.wait((reading, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not self._stopped.is_set():
                draining = tasks.create_task(self._drain())
                await asyncio.wait((draining, stopped), return_when=asyncio.FIRST_COMPLETED)
                draining.cancel()
            if self._stopped.is_set():
                reading.cancel()
                self._handles.cancel_all()
                self._jobs.cancel_all()
                await self._drain_bounded()
            self._outbox.close()
            await context.remote.close()
            stopped.cancel()
            writer.cancel()
        self._jobs.close()
        self._handles.close()

    async def _write(self) -> None:
        try:
            await self._outbox.run()
        except OSError as error:
            log.info("output closed: %s", error)
            self.lose_output()

    async def _read(self, chunks: AsyncIterator[bytes]) -> None:
        framer = LineFramer()
        async for chunk in chunks:
            await self._handle_lines(framer.feed(chunk))
        await self._handle_lines(framer.finish())

    async def _handle_lines(self, lines: Sequence[bytes | LineTooLong]) -> None:
        for number, line in enumerate(lines, 1):
            if self._stopped.is_set():
                return
            await self._outbox.reply_room()
            self._handle_line(line)
            if number % CALLS_PER_TURN == 0:
                # Dispatching a plain command never suspends: let the writer and the streams have their turn.
                await asyncio.sleep(0)

    def _handle_line(self, line: bytes | LineTooLong) -> None:
        if isinstance(line, LineTooLong):
            error = ParseError(f"the line is over {MAX_LINE_BYTES // MIB} MiB")
            self._outbox.reply(error_line(b"null", error))
            return
        items = parse_line(line)
        if isinstance(items, list):
            self._answer(items, batch_line)
        else:
            self._answer([items], lambda replies: replies[0])

    def _answer(self, items: list[Item], join: Callable[[Sequence[bytes]], bytes]) -> None:
        """Run calls in their order and reply to those that want it; what takes longer than that is left to a task."""
        # Without the calls: their parameters are not to be held until the last job is done.
        answers = [(item.id_json, self._run(item)) for item in items]
        if self._stopped.is_set():
            # A shutdown among them cancels the others: here, before they begin, it never depends on what a thread has
            # done by the time that `run` wakes up.
            self._handles.cancel_all()
            for _, answer in answers:
                if answer.job:
                    answer.job, answer.error = None, Cancelled()
        if any(answer.job for _, answer in answers):
            self._jobs.begin([answer for _, answer in answers], partial(self._reply, answers, join))
        else:
            self._reply(answers, join)

    def _run(self, item: Item) -> Answer:
        if isinstance(item, Rejected):
            return Answer(error=item.error)
        return self._dispatcher.dispatch(item)

    def _reply(self, answers: Sequence[tuple[bytes | None, Answer]], join: Callable[[Sequence[bytes]], bytes]) -> None:
        """Queue the reply, then start the streams it names: no event can come before it."""
        replies: list[bytes] = []
        size = 0
        for id_json, answer in answers:
            if id_json is None:
                continue
            line = answer.line(id_json)
            if size + len(line) > MAX_REPLY_BYTES:
                line = error_line(id_json, ReplyTooLarge("the answers of this batch are too large for one line"))
            size += len(line)
            replies.append(line)
        if replies:
            self._outbox.reply(join(replies))
        self._handles.start(answer.handle for _, answer in answers if answer.handle)

    def _work_ended(self) -> None:
        if not (self._handles.at_work or self._jobs.at_work or self._stopped.is_set()):
            self._freed.give_back()

    async def _drain(self) -> None:
        """Wait until everything has ended and is written."""
        await self._jobs.idle()  # first: the answer of a batch with a job in it may start streams
        await self._handles.idle()
        await self._outbox.empty()

    async def _drain_bounded(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._drain()
        except TimeoutError:
            log.warning("gave up waiting for the output, or for work to end")
            self._jobs.abandon()
            self._handles.abandon()
