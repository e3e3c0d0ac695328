"""Run a call through jsonrpcserver and turn what comes back into a reply.

jsonrpcserver finds the method and binds the parameters. Parsing and validation happen before it and errors are mapped
inside: it would put the text of any exception on the wire, and check each request against a JSON Schema. Its
synchronous form is used: a command returns at once, and nothing may run between a cancel and the queueing of its reply.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sidecar.errors import InternalError, MethodNotFound, ReplyTooLarge, SidecarError, as_sidecar_error
from sidecar.limits import MAX_REPLY_BYTES, MIB
from sidecar.server.command import Command, Context, Job
from sidecar.server.handles import Handle
from sidecar.server.jsonrpc import Error, Left, Result, Success, dispatch_to_response_pure
from sidecar.wire.messages import Call, error_line, result_line


@dataclass(slots=True)
class Answer:
    """What a call led to: a value, an error, a job whose result is still to come, or a started stream."""

    command: Command | None = None
    value: Any = None
    error: SidecarError | None = None
    job: Job | None = None
    handle: Handle | None = None

    def line(self, id_json: bytes) -> bytes:
        """The reply; an error in place of a result that is too large to send, or can't be."""
        if self.error is not None:
            return error_line(id_json, self.error)
        try:
            line = result_line(id_json, self.value)
        except Exception as error:
            return error_line(id_json, as_sidecar_error(error))
        return line if len(line) <= MAX_REPLY_BYTES else error_line(id_json, self._too_large())

    def _too_large(self) -> ReplyTooLarge:
        instead = self.command.stream_instead if self.command else None
        advice = f"; use {instead}" if instead else ""
        return ReplyTooLarge(f"the answer is over {MAX_REPLY_BYTES // MIB} MiB{advice}", streamInstead=instead)


Method = Callable[..., Result]


class Dispatcher:
    """The commands as jsonrpcserver's methods."""

    def __init__(
        self, commands: tuple[Command, ...], context: Context, open_stream: Callable[[Any, bool], Handle]
    ) -> None:
        self._context = context
        self._open_stream = open_stream
        self._methods = {command.name: self._method(command) for command in commands}

    def dispatch(self, call: Call) -> Answer:
        """Run ``call``. A stream is registered but not started; a job is not begun. Never raises."""
        answer = Answer()
        request: Any = {"jsonrpc": "2.0", "method": call.method, "params": call.params, "id": 0}
        response = dispatch_to_response_pure(
            request=request,
            methods=self._methods,
            context=(call, answer),
            deserializer=_as_it_is,
            validator=_as_it_is,
            post_process=_as_it_is,
        )
        if isinstance(response, Left) and answer.error is None:
            unknown = call.method not in self._methods
            answer.error = MethodNotFound(f"no such method: {call.method[:80]}") if unknown else InternalError()
        return answer

    def _method(self, command: Command) -> Method:
        def method(call_and_answer: tuple[Call, Answer], /, *args: Any, **kwargs: Any) -> Result:
            call, answer = call_and_answer
            answer.command = command
            try:
                self._run(command, _params(command, args or kwargs), call, answer)
            except Exception as error:
                answer.error = as_sidecar_error(error)
                return Error(answer.error.code, answer.error.message)
            return Success(answer.value)

        # jsonrpcserver asks for the signature at each call; to find it anew costs more than all the rest.
        method.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
        return method

    def _run(self, command: Command, params: Any, call: Call, answer: Answer) -> None:
        if command.kind == "value":
            answer.value = command.run(self._context, params)
        elif command.kind == "job":
            answer.job = command.run(self._context, params)
        elif call.id_json is not None:
            # A notification that asks for a stream is passed over: nobody would ever know the handle.
            answer.handle = self._open_stream(command.run(self._context, params), command.at_host)
            answer.value = answer.handle.id


def _params(command: Command, given: tuple[Any, ...] | dict[str, Any]) -> Any:
    if command.params is None:
        return None
    # Not with the other imports: pydantic takes as long as all of them (``stdio`` loads it after the start).
    from sidecar.server import schema

    return schema.parse(command.params, given)


def _as_it_is(value: Any) -> Any:
    return value
