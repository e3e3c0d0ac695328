"""Writes what describes the protocol for machines into ``protocol/``: ``python -m sidecar.server.describe FOLDER``."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from sidecar.server.openrpc import SCHEMAS, Schema, document
from sidecar.server.typescript import declarations

DRAFT = "http://json-schema.org/draft-07/schema#"
_DEFINITIONS = "#/definitions/"


def files() -> dict[str, str]:
    """The text of each file, by its path below the folder."""
    described = document()
    schemas = {schema_path(event): _text(notification_schema(event)) for event in described["x-notifications"]}
    return {"openrpc.json": _text(described), "types.d.ts": declarations(described), **schemas}


def schema_path(event: str) -> str:
    """Where the schema of a notification lies; not every system has names with a colon in them."""
    return f"schema/{event.replace(':', '.')}.json"


def notification_schema(event: str) -> Schema:
    """A schema of the params of a notification that needs no other file."""
    described = document()
    notification = described["x-notifications"][event]
    schemas = described["components"]["schemas"]
    own = schemas[_name(notification["params"]["$ref"])]
    needed: set[str] = set()
    waiting = _referred(own)
    while waiting:
        needed |= waiting
        waiting = {name for known in waiting for name in _referred(schemas[known])} - needed
    schema: Schema = {"$schema": DRAFT, **own, "title": event, "description": notification["summary"]}
    if needed:
        schema["definitions"] = {name: schemas[name] for name in sorted(needed)}
    moved: Schema = json.loads(json.dumps(schema).replace(SCHEMAS, _DEFINITIONS))
    return moved


def write(folder: Path) -> None:
    """Write all files, and take away the schemas of notifications that there are no more."""
    described = files()
    for path in (folder / "schema").glob("*.json"):
        if path.relative_to(folder).as_posix() not in described:
            path.unlink()
    for name, text in described.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


def _referred(schema: Schema) -> set[str]:
    """The names of the schemas that one refers to."""
    return {_name(found) for found in re.findall(rf'"({SCHEMAS}\w+)"', json.dumps(schema))}


def _name(reference: str) -> str:
    return reference.removeprefix(SCHEMAS)


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write openrpc.json, types.d.ts and schema/ into a folder.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("protocol"))
    write(parser.parse_args().folder)
