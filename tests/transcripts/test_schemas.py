"""Every line of every transcript is what the published schemas say it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jsonschema import Draft7Validator

from sidecar.server.describe import notification_schema
from sidecar.server.openrpc import SCHEMAS
from sidecar.transcripts.lines import ANY_CHUNKS, Line, read_transcript
from sidecar.transcripts.peer import NUMBERS
from tests.transcripts.replay import CHUNKS, FOLDER

TRANSCRIPTS = sorted(FOLDER.glob("*.jsonl"))
DOCUMENT = json.loads((FOLDER.parent / "openrpc.json").read_text(encoding="utf-8"))
METHODS = {method["name"]: method for method in DOCUMENT["methods"]}
WIRE_KINDS = {"parse_error", "invalid_request", "method_not_found"}


class Conversation(NamedTuple):
    """What a transcript has, told apart: the requests by their ids, replies and notifications in their order."""

    requests: dict[str, dict[str, Any]]
    replies: list[dict[str, Any]]
    notifications: list[dict[str, Any]]

    @classmethod
    def of(cls, lines: Sequence[Line]) -> Conversation:
        sent = [message for line in lines if line.kind == ">" for message in messages(line)]
        came = [message for line in lines if line.kind == "<" for message in messages(line)]
        requests = {json.dumps(message["id"]): message for message in sent if "method" in message and "id" in message}
        return cls(
            requests,
            [message for message in came if "id" in message],
            [message for message in came if "id" not in message],
        )


def messages(line: Line) -> Iterator[dict[str, Any]]:
    """The objects on a line, alone or in a batch; none where it isn't JSON."""
    if line.text == ANY_CHUNKS:
        return
    try:
        value = with_numbers(json.loads(line.text))
    except ValueError:
        assert line.kind == ">"
        return
    yield from (message for message in (value if isinstance(value, list) else [value]) if isinstance(message, dict))


def with_numbers(value: Any) -> Any:
    """``value`` with numbers where names stand for them."""
    if isinstance(value, dict):
        return {key: with_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_numbers(inner) for inner in value]
    return NUMBERS.get(value, value)


def validator(schema: dict[str, Any]) -> Draft7Validator:
    """For a schema of the document, whose references lead into it."""
    return Draft7Validator({"allOf": [schema], "components": DOCUMENT["components"]})


@cache
def validator_of_event(event: str) -> Draft7Validator:
    return Draft7Validator(notification_schema(event))


@cache
def validator_of_errors() -> Draft7Validator:
    return validator({"$ref": f"{SCHEMAS}ErrorObject"})


def check_params(method: dict[str, Any], given: Any) -> None:
    """Raises for parameters, by name or by position, that are none of the method's, as the document has it."""
    parameters = method["params"]
    if isinstance(given, list):
        given = dict(zip((parameter["name"] for parameter in parameters), given, strict=False))
    schema = {
        "properties": {parameter["name"]: parameter["schema"] for parameter in parameters},
        "required": [parameter["name"] for parameter in parameters if parameter["required"]],
    }
    validator(schema).validate({} if given is None else given)


def declared_kinds(method: dict[str, Any]) -> set[str]:
    return {error["$ref"].rpartition("/")[2] for error in method["errors"]}


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_each_line_of_a_transcript_is_as_the_schemas_say(path: Path) -> None:
    conversation = Conversation.of(read_transcript(path))
    streaming: dict[str, dict[str, Any]] = {}
    for reply in conversation.replies:
        assert reply.keys() == {"jsonrpc", "id", "error" if "error" in reply else "result"}
        request = conversation.requests.get(json.dumps(reply["id"]), {})
        method = METHODS.get(request.get("method", ""))
        if "error" in reply:
            validator_of_errors().validate(reply["error"])
            kind = reply["error"]["data"]["kind"]
            assert reply["error"]["code"] == DOCUMENT["components"]["errors"][kind]["code"]
            assert kind in (declared_kinds(method) | {"invalid_request"} if method else WIRE_KINDS)
        else:
            assert method is not None
            kind = None
            validator(method["result"]["schema"]).validate(reply["result"])
            if "x-notifications" in method:
                streaming[reply["result"]] = method
        if method and kind not in {"invalid_params", "invalid_request"}:
            check_params(method, request.get("params"))
    for notification in conversation.notifications:
        params = notification["params"]
        assert notification["method"] in streaming[params["handleId"]]["x-notifications"]
        validator_of_event(notification["method"]).validate(params)
        # The schemas leave room for kinds to come.
        assert params.get("kind", "internal") in DOCUMENT["components"]["errors"]


def test_each_notification_and_each_reply_is_seen_in_a_transcript() -> None:
    conversations = [Conversation.of(read_transcript(path)) for path in TRANSCRIPTS]
    seen = {notification["method"] for told in conversations for notification in told.notifications}
    assert seen >= DOCUMENT["x-notifications"].keys() - CHUNKS
    answered = {
        told.requests[json.dumps(reply["id"])]["method"]
        for told in conversations
        for reply in told.replies
        if "result" in reply
    }
    assert answered == METHODS.keys()


def test_a_line_that_is_not_as_the_schemas_say_is_found() -> None:
    with pytest.raises(Exception, match="is a required property"):
        check_params(METHODS["preview_session"], {"agentId": "main"})
    with pytest.raises(Exception, match="is not of type 'string'"):
        check_params(METHODS["preview_session"], ["main", 7])
    assert not validator(METHODS["list_backups"]["result"]["schema"]).is_valid([{"name": "one"}])
    assert not validator_of_errors().is_valid({"code": 1, "message": "", "data": {"kind": None, "retryable": False}})
