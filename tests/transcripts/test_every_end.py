"""Each command is shown in each way it can end, by a transcript of its name; each kind of error by some transcript.

What there is to be shown follows from the table of commands and from what is published of their answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from sidecar.errors import COMMAND_ERRORS, WIRE_ERRORS, Cancelled, InternalError, InvalidParams, TooBusy
from sidecar.server.answers import answer_of
from sidecar.server.command import Command
from sidecar.server.commands import COMMANDS
from sidecar.transcripts.lines import read_transcript
from tests.transcripts.replay import FOLDER
from tests.transcripts.test_schemas import METHODS, TRANSCRIPTS, Conversation, validator

End = Literal["done", "cancelled", "failed", "refused", "invalid_params"]
"""How a command can end: a stream that is refused has no handle, one that failed has; an eager command just fails."""
NOT_SHOWN = {InternalError.kind: "it is a fault of the sidecar: what is known to lead to one is mended"}
"""Kinds of errors that no real part can bring about, and why."""

_OF_NO_COMMAND = {InvalidParams, TooBusy, Cancelled}
"""What a command says of the request or of the sidecar, not of its work."""


def ends_of(command: Command) -> Iterator[End]:
    """The ways in which a command can end."""
    answer = answer_of(command)
    yield "done"
    if answer.notifications or Cancelled in answer.errors:
        yield "cancelled"
    if answer.notifications or own_kinds(command):
        yield "failed"
    if answer.notifications and own_kinds(command):
        yield "refused"
    if command.params:
        yield "invalid_params"


def own_kinds(command: Command) -> set[str]:
    """The kinds of errors that a reply can have about the work of a command."""
    return {error.kind for error in set(answer_of(command).errors) - _OF_NO_COMMAND}


def transcripts_of(command: Command) -> list[Path]:
    """A command's own: the one of its name, and its variants."""
    return [path for path in TRANSCRIPTS if path.name.startswith(f"{command.name}.")]


@cache
def conversation(path: Path) -> Conversation:
    return Conversation.of(read_transcript(path))


def ends_in(path: Path, command: Command) -> Iterator[End]:
    """The ways in which the calls of a command end in a transcript."""
    told = conversation(path)
    for reply in told.replies:
        if told.requests.get(json.dumps(reply["id"]), {}).get("method") != command.name:
            continue
        if "error" in reply:
            yield from _end_by_error(command, reply["error"]["data"]["kind"])
        elif not answer_of(command).notifications:
            yield "done"
        else:
            yield _end_of_stream(told, reply["result"])


def _end_by_error(command: Command, kind: str) -> Iterator[End]:
    if kind == InvalidParams.kind:
        yield "invalid_params"
    elif kind == Cancelled.kind:
        yield "cancelled"
    elif kind in own_kinds(command):
        yield "refused" if answer_of(command).notifications else "failed"


def _end_of_stream(told: Conversation, handle: str) -> End:
    events = [one["method"] for one in told.notifications if one["params"]["handleId"] == handle]
    if any(event.endswith(":cancelled") for event in events):
        return "cancelled"
    return "failed" if any(event.endswith(":error") for event in events) else "done"


def kinds_in(told: Conversation) -> set[str]:
    """The kinds of all errors that are told, by replies and by notifications."""
    replied = {reply["error"]["data"]["kind"] for reply in told.replies if "error" in reply}
    return replied | {one["params"]["kind"] for one in told.notifications if "kind" in one["params"]}


def given(call: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a call by their names, however they were given."""
    params = call.get("params") or {}
    names = [parameter["name"] for parameter in METHODS[call["method"]]["params"]]
    return dict(zip(names, params, strict=False)) if isinstance(params, list) else params


def rejected_calls(command: Command) -> list[tuple[dict[str, Any], str]]:
    """The calls that a command's transcript of that name has rejected for their parameters, and the messages."""
    told = conversation(FOLDER / f"{command.name}.invalid_params.jsonl")
    return [
        (told.requests[json.dumps(reply["id"])], reply["error"]["message"])
        for reply in told.replies
        if "error" in reply and reply["error"]["data"]["kind"] == InvalidParams.kind
    ]


WITH_PARAMS = [command for command in COMMANDS if command.params]


@pytest.mark.parametrize(
    ("command", "end"),
    [
        pytest.param(command, end, id=f"{command.name}-{end}")
        for command in COMMANDS
        for end in get_args(End)
        if end in ends_of(command)
    ],
)
def test_each_command_is_shown_in_each_way_it_can_end(command: Command, end: End) -> None:
    shown = {path.stem: set(ends_in(path, command)) for path in transcripts_of(command)}
    assert any(end in ends for ends in shown.values()), f"no transcript {command.name}.* shows it {end}: {shown}"


@pytest.mark.parametrize("kind", [error.kind for error in (*WIRE_ERRORS, *COMMAND_ERRORS)])
def test_each_kind_of_error_is_shown_or_it_is_said_why_not(kind: str) -> None:
    shown_in = [path.stem for path in TRANSCRIPTS if kind in kinds_in(conversation(path))]
    assert bool(shown_in) != (kind in NOT_SHOWN), f"{kind}: {shown_in}"


@pytest.mark.parametrize("command", WITH_PARAMS, ids=lambda command: command.name)
def test_each_parameter_is_shown_to_be_missing_and_of_another_type(command: Command) -> None:
    rejected = rejected_calls(command)
    for parameter in METHODS[command.name]["params"]:
        name = parameter["name"]
        # A host has fields, of which one may be at fault.
        about = [given(call) for call, message in rejected if f"{name}:" in message or f"{name}." in message]
        assert not parameter["required"] or any(name not in params for params in about), f"{name} is never missing"
        is_right = validator(parameter["schema"]).is_valid
        assert any(name in params and not is_right(params[name]) for params in about), (
            f"{name} is never of another type"
        )


@pytest.mark.parametrize("command", WITH_PARAMS, ids=lambda command: command.name)
def test_a_parameter_is_rejected_by_position_as_well(command: Command) -> None:
    assert any(isinstance(call.get("params"), list) for call, _ in rejected_calls(command))
