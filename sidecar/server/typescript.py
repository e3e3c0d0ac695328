"""The types of the protocol for TypeScript, made of the OpenRPC document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_HEAD = """\
// The types of the protocol of clawpal-sidecar, version {version}: made by `make protocol`, so don't change them here.
// An object may have more fields than stand here, and a text more values where "string & {{}}" stands beside them.
"""


def declarations(document: Schema) -> str:
    """The text of a ``.d.ts`` file: all payloads and results, ``Methods`` and ``Notifications``."""
    parts = [_HEAD.format(version=document["info"]["version"])]
    parts += [_declaration(name, schema) for name, schema in document["components"]["schemas"].items()]
    parts.append(_map("Methods", "What each method takes, by name, and answers.", _methods(document)))
    parts.append(_map("Notifications", "The params of each notification, by its method.", _notifications(document)))
    return "\n".join(parts)


def _methods(document: Schema) -> Iterator[str]:
    for method in document["methods"]:
        params = "; ".join(
            f"{parameter['name']}{'' if parameter['required'] else '?'}: {_type(parameter['schema'])}"
            for parameter in method["params"]
        )
        taken = f"{{ {params} }}" if params else "Record<string, never>"
        yield f"/** {method['summary']} */"
        yield f"{json.dumps(method['name'])}: {{ params: {taken}; result: {_type(method['result']['schema'])} }};"


def _notifications(document: Schema) -> Iterator[str]:
    for event, notification in document["x-notifications"].items():
        yield f"/** {notification['summary']} */"
        yield f"{json.dumps(event)}: {_type(notification['params'])};"


def _map(name: str, what: str, lines: Iterator[str]) -> str:
    return f"/** {what} */\nexport interface {name} {{\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


def _declaration(name: str, schema: Schema) -> str:
    comment = f"/** {schema['description']} */\n" if "description" in schema else ""
    if "properties" not in schema:
        choices = "".join(f"\n  | {choice}" for choice in _choices(schema))
        return f"{comment}export type {name} ={choices};\n"
    lines = [f"  {field};\n" for field in _fields(schema)]
    return f"{comment}export interface {name} {{\n{''.join(lines)}}}\n"


def _fields(schema: Schema) -> Iterator[str]:
    for field, value in schema["properties"].items():
        yield f"{field}{'' if field in schema.get('required', ()) else '?'}: {_type(value)}"
    if schema.get("additionalProperties") is True:
        yield "[others: string]: unknown"


def _type(schema: Schema) -> str:
    """The type of what a schema admits; ``unknown`` for what has none."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema or "anyOf" in schema:
        return " | ".join(_choices(schema))
    match schema.get("type"):
        case "array":
            item = _type(schema["items"])
            return f"({item})[]" if " " in item else f"{item}[]"
        case "object":
            return "Record<string, unknown>"
        case "integer" | "number":
            return "number"
        case "string" | "boolean" | "null":
            return str(schema["type"])
    return "unknown"


def _choices(schema: Schema) -> Iterator[str]:
    """The types of an enumeration, or of what admits several; any other text beside known ones leaves those known."""
    if "enum" in schema:
        yield from (json.dumps(value) for value in schema["enum"])
        return
    is_growing = any("enum" in choice for choice in schema["anyOf"])
    for choice in schema["anyOf"]:
        if is_growing and choice == {"type": "string"}:
            yield "(string & {})"
        elif "enum" in choice:
            yield from _choices(choice)
        else:
            yield _type(choice)
