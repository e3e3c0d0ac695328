"""The protocol as an OpenRPC document, made of the types that the code has: what ``rpc.discover`` answers.

Its schemas are of JSON Schema's draft 7, as OpenRPC has them. Objects may have more fields than they name, for a client
ignores what it doesn't know; a field that may be absent isn't ``required``, one that may be null says so. An
enumeration that may grow admits any text beside the values that it has today.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec
from pydantic.alias_generators import to_camel

from sidecar import PROTOCOL_VERSION
from sidecar.errors import COMMAND_ERRORS, WIRE_ERRORS
from sidecar.server.answers import NOTIFICATIONS, ErrorObject, answer_of
from sidecar.server.command import Command
from sidecar.server.commands import COMMANDS
from sidecar.server.schema import MODELS

Schema = dict[str, Any]

SCHEMAS = "#/components/schemas/"
OPENRPC_VERSION = "1.3.2"
_KIND = {"$ref": f"{SCHEMAS}ErrorKind"}
_FAILURES = {"type": "array", "items": {"$ref": f"{SCHEMAS}Failure"}}
_BETTER: dict[str, dict[str, Schema]] = {
    "ErrorData": {"kind": _KIND},
    "ErrorNotice": {"kind": _KIND},
    "WorkError": {"kind": _KIND, "failures": _FAILURES},
    "BackupInfo": {"failures": _FAILURES},
    "PreviewMessage": {"content": {"type": "string"}},
}
"""What is known of a field and its type doesn't say, since other layers, or speed, want it so."""
_GROWING = {
    ("SessionAnalysis", "store"),
    ("SessionAnalysis", "archivedAs"),
    ("WorkProgress", "phase"),
}
"""Fields whose values may become more within this version of the protocol, as the kinds of errors may; any text is
valid there. All other enumerations are closed."""
_DESCRIPTIONS = {"PreviewMessage": "A message of a session; `content` is its text, without images and tool calls."}
"""Where the docstring is about the code."""


@cache
def document() -> Schema:
    """The document. It is made once and shared: don't change it."""
    errors = (*WIRE_ERRORS, *COMMAND_ERRORS)
    answers = {command.name: answer_of(command) for command in COMMANDS}
    types = [answer.result for answer in answers.values()]
    payloads = [notification.payload for notification in NOTIFICATIONS.values()]
    described, components = msgspec.json.schema_components(
        [*types, *payloads, ErrorObject], ref_template=SCHEMAS + "{name}"
    )
    results = dict(zip(answers, described, strict=False))
    for name, schema in components.items():
        _as_sent(name, schema)
    for payload in set(payloads):
        _of_a_stream(components[payload.__name__])
    components["ErrorKind"] = {"title": "ErrorKind", **_growing({"enum": [error.kind for error in errors]})}
    methods = [_method(command, results[command.name], components) for command in COMMANDS]
    return {
        "openrpc": OPENRPC_VERSION,
        "info": {
            "title": "clawpal-sidecar",
            "description": "JSON-RPC 2.0 over stdin and stdout, one message a line. What a client may rely on is in "
            "protocol.md. Any method may also end in the error `internal`.",
            "version": PROTOCOL_VERSION,
        },
        "methods": methods,
        "components": {
            "schemas": dict(sorted(components.items())),
            "errors": {
                error.kind: {
                    "code": error.code,
                    "message": error.meaning,
                    "data": {"kind": error.kind, "retryable": error.retryable},
                }
                for error in errors
            },
        },
        "x-notifications": {
            event: {
                "summary": notification.summary,
                "terminal": notification.terminal,
                "params": {"$ref": SCHEMAS + notification.payload.__name__},
            }
            for event, notification in NOTIFICATIONS.items()
        },
    }


def _method(command: Command, result: Schema, components: dict[str, Schema]) -> Schema:
    answer = answer_of(command)
    method: Schema = {
        "name": command.name,
        "summary": command.summary,
        "paramStructure": "either",
        "params": _params(command, components),
        "result": {"name": "handleId" if answer.notifications else "result", "schema": result},
        "errors": [{"$ref": f"#/components/errors/{error.kind}"} for error in answer.errors],
    }
    if answer.notifications:
        method["x-notifications"] = list(answer.notifications)
    return method


def _params(command: Command, components: dict[str, Schema]) -> list[Schema]:
    """The parameters in the order of their positions; what they refer to goes into ``components``."""
    if command.params is None:
        return []
    schema = MODELS[command.params].model_json_schema(ref_template=SCHEMAS + "{model}")
    for name, referred in schema.get("$defs", {}).items():
        components[name] = _plain(referred, title=name)
    required = schema.get("required", [])
    return [
        {"name": name, "required": name in required, "schema": _plain(value)}
        for name, value in schema["properties"].items()
    ]


def _plain(schema: Schema, **more: Any) -> Schema:
    """A schema of pydantic's without the titles and defaults that only repeat what is there."""
    plain = {key: value for key, value in schema.items() if key not in {"title", "default"}}
    if "properties" in plain:
        plain["properties"] = {name: _plain(value) for name, value in plain["properties"].items()}
    if "description" in plain:
        plain["description"] = _for_clients(plain["description"])
    return more | plain


def _as_sent(name: str, schema: Schema) -> None:
    """Make a struct's schema say what is sent of it, not what would be read.

    A default is only a convenience of the code, and its field always there; where it is null, null isn't sent.
    """
    properties: dict[str, Schema] = schema["properties"]
    if name == "SshHost":
        del properties["others"]  # they are fields of the object itself
    for field, value in properties.items():
        value.update(_BETTER.get(name, {}).get(field, {}))
        if "$ref" in value:
            properties[field] = {"$ref": value["$ref"]}
        elif "default" in value:
            if value.pop("default") is None:
                (properties[field],) = (choice for choice in value["anyOf"] if choice != {"type": "null"})
            else:
                schema["required"].append(field)
        if (name, field) in _GROWING:
            properties[field] = _growing(value)
    schema["required"] = [field for field in properties if field in schema["required"]]
    if "description" in schema:
        schema["description"] = _DESCRIPTIONS.get(name) or _for_clients(schema["description"], properties)


def _growing(schema: Schema) -> Schema:
    """A schema for the values of an enumeration, or null, and for texts that are not among them yet."""
    choices: list[Schema] = schema.get("anyOf") or [{"enum": schema["enum"]}]
    return {"anyOf": [choices[0], {"type": "string"}, *choices[1:]]}


def _of_a_stream(payload: Schema) -> None:
    """Put in front of a payload what all notifications have."""
    numbered = {
        "handleId": {"type": "string", "format": "uuid"},
        "seq": {"type": "integer", "minimum": 0},
    }
    payload["properties"] = numbered | payload["properties"]
    payload["required"] = [*numbered, *payload["required"]]


def _for_clients(docstring: str, fields: Iterable[str] = ()) -> str:
    """The first paragraph, with names of fields as the wire has them."""
    text = " ".join(docstring.split("\n\n")[0].split())

    def quoted(code: re.Match[str]) -> str:
        name = to_camel(code[1])
        return f"`{name if name in fields else code[1]}`"

    return re.sub(r"``(.*?)``", quoted, text)
