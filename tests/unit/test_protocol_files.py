"""What describes the protocol for machines: as the code is, valid by OpenRPC's own rules, and of use to a compiler."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from referencing import Registry
from referencing.jsonschema import DRAFT7

from sidecar import PROTOCOL_VERSION
from sidecar.server import describe
from sidecar.server.answers import ANSWERS, NOTIFICATIONS, answer_of
from sidecar.server.command import Command
from sidecar.server.commands import COMMANDS
from sidecar.server.openrpc import document
from tests.remote.node import node_executable
from tests.remote.sshd import cannot

ROOT = Path(__file__).parents[2]
PROTOCOL = ROOT / "protocol"
TYPESCRIPT = "typescript@6.0.3"
NPM_S = 120
CLIENT = """
import type { ErrorKind, Methods, Notifications, SessionAnalysis } from "./types";

declare function call<M extends keyof Methods>(method: M, params: Methods[M]["params"]): Promise<Methods[M]["result"]>;
declare function on<N extends keyof Notifications>(event: N, listener: (params: Notifications[N]) => void): void;

export async function use(...what: string[]): Promise<void> {
  const handle: string = await call("remote_analyze_sessions_stream", { hostId: "ssh:one", batchSize: 10 });
  const model: string | null | undefined = (await call("analyze_sessions", {}))[0]?.sessions[0]?.model;
  await call("upsert_ssh_host", {
    host: { label: "", host: "attic", port: 22, username: "me", authMethod: "key", colour: "#fff" },
  });
  on("sessions:chunk", (chunk) => chunk.sessions.map((session: SessionAnalysis) => session.ageDays.toFixed()));
  on("backup:error", (error) => { const kind: ErrorKind = error.kind; error.users?.join(kind + handle + model); });
  on("verify:error", (error) => { const kind: ErrorKind = error.users ? "of_tomorrow" : error.kind; use(kind); });
  // @ts-expect-error a category is one of three
  on("sessions:chunk", (chunk) => chunk.sessions.filter((session) => session.category === "of_tomorrow"));
  // @ts-expect-error a host must be named
  await call("remote_list_backups", {});
  // @ts-expect-error no such method
  await call("remote_ping", {});
  // @ts-expect-error no such field
  on("sessions:done", (done) => done.total);
  // @ts-expect-error it may be null
  on("restore:done", (done) => done.previous.name);
}
"""


def test_the_files_are_as_they_are_generated() -> None:
    there = {
        path.relative_to(PROTOCOL).as_posix(): path.read_text(encoding="utf-8")
        for path in (PROTOCOL / "openrpc.json", PROTOCOL / "types.d.ts", *(PROTOCOL / "schema").iterdir())
    }
    assert there == describe.files(), "make protocol writes them anew"


def test_writing_them_takes_away_what_is_not_sent_any_more(tmp_path: Path) -> None:
    (tmp_path / "schema").mkdir()
    (tmp_path / "schema" / "sessions.gone.json").write_text("{}")
    describe.write(tmp_path)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == set(describe.files())


def test_the_document_is_one_of_openrpc() -> None:
    meta_schema = json.loads((ROOT / "tests" / "openrpc" / "meta-schema.json").read_text(encoding="utf-8"))
    # What the meta-schema says of schemas is kept elsewhere; it is the draft's own, with a name for "$ref".
    of_schemas = DRAFT7.create_resource(
        {
            "allOf": [Draft7Validator.META_SCHEMA],
            "definitions": {"JSONSchemaObject": {"properties": {"$ref": {"type": "string"}}}},
        }
    )
    elsewhere = meta_schema["definitions"]["JSONSchema"]["$ref"]
    registry: Registry[Any] = Registry().with_resources([(elsewhere, of_schemas), (f"{elsewhere}/", of_schemas)])
    validator = Draft7Validator(meta_schema | {"$schema": describe.DRAFT}, registry=registry)
    assert list(validator.iter_errors(document())) == []
    assert list(validator.iter_errors(document() | {"methods": [{"name": "no params"}]})) != []


def test_each_schema_is_one_and_what_it_refers_to_is_there() -> None:
    described = document()
    registry: Registry[Any] = Registry().with_resource("", DRAFT7.create_resource(described))
    resolver = registry.resolver()
    for reference in set(re.findall(r'"\$ref": "(.*?)"', json.dumps(described))):
        assert resolver.lookup(reference).contents
    schemas = [*described["components"]["schemas"].values(), *map(describe.notification_schema, NOTIFICATIONS)]
    for method in described["methods"]:
        schemas += [method["result"]["schema"], *(parameter["schema"] for parameter in method["params"])]
    for schema in schemas:
        Draft7Validator.check_schema(schema)
        # Beside "$ref" draft 7 looks at nothing.
        assert not re.search(r'[^{], "\$ref"|"\$ref": "[^"]*", ', json.dumps(schema))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_each_command_has_an_answer_and_a_stream_its_notifications(command: Command) -> None:
    answer = answer_of(command)
    assert bool(answer.notifications) == (command.kind == "stream")
    assert not answer.notifications or NOTIFICATIONS[answer.notifications[-1]].terminal
    (method,) = (method for method in document()["methods"] if method["name"] == command.name)
    assert method.get("x-notifications", []) == list(answer.notifications)
    assert not {"additionalProperties", "unevaluatedProperties"} & set(method["result"]["schema"])


def test_nothing_is_described_that_is_not_there() -> None:
    assert set(ANSWERS) <= {command.name for command in COMMANDS}
    assert set(NOTIFICATIONS) == {event for answer in ANSWERS.values() for event in answer.notifications}


def test_enumerations_that_may_grow_admit_texts_that_are_not_known_and_the_others_do_not() -> None:
    schemas = document()["components"]["schemas"]

    def admits_another(schema: dict[str, Any]) -> bool:
        return bool(Draft7Validator(schema).is_valid("of_tomorrow"))

    assert admits_another(schemas["ErrorKind"])
    growing = [
        (name, field)
        for name, schema in schemas.items()
        for field, value in schema.get("properties", {}).items()
        if '"enum"' in json.dumps(value) and admits_another(value)
    ]
    assert growing == [
        ("SessionAnalysis", "store"),
        ("SessionAnalysis", "archivedAs"),
        ("WorkProgress", "phase"),
    ]


def test_objects_may_have_fields_that_are_not_described() -> None:
    for name, schema in document()["components"]["schemas"].items():
        assert schema.get("additionalProperties", True) is True, name
    Draft7Validator(describe.notification_schema("sessions:cancelled")).validate(
        {"handleId": "5f0c6a52-7d0e-4d3b-9d57-0a4a3c1f7e11", "seq": 0, "new": True}
    )


@pytest.mark.parametrize(
    ("event", "params"),
    [
        ("sessions:cancelled", {"handleId": "5f0c6a52-7d0e-4d3b-9d57-0a4a3c1f7e11"}),
        (
            "session-preview:done",
            {"handleId": "", "seq": 0, "totalMessages": 1.5, "cancelled": True, "skippedLines": 0},
        ),
        ("sessions:error", {"handleId": "", "seq": 0, "error": "", "kind": None}),
        ("sessions:done", {"handleId": "", "seq": 0, "totalAgents": 0, "cancelled": False}),
    ],
)
def test_what_is_not_sent_is_not_valid(event: str, params: dict[str, Any]) -> None:
    assert not Draft7Validator(describe.notification_schema(event)).is_valid(params)


def test_the_start_and_the_first_command_need_none_of_it() -> None:
    code = "import sidecar.server.stdio, sidecar.server.schema, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {f"sidecar.server.{name}" for name in ("answers", "openrpc", "describe")} & set(done.stdout.split())


def test_the_changes_begin_with_this_version() -> None:
    changes = (PROTOCOL / "CHANGES.md").read_text(encoding="utf-8")
    assert re.findall(r"^## ([\d.]+)", changes, re.MULTILINE)[0] == PROTOCOL_VERSION == document()["info"]["version"]


def test_a_client_in_typescript_compiles_with_the_types(tmp_path: Path) -> None:
    compiler = installed_typescript(tmp_path)
    shutil.copy(PROTOCOL / "types.d.ts", tmp_path)
    (tmp_path / "client.ts").write_text(CLIENT, encoding="utf-8")
    options = ("--noEmit", "--strict", "--target", "es2022", "--module", "es2022", "--moduleResolution", "bundler")
    done = subprocess.run(
        [node_executable(), compiler, *options, "client.ts"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=NPM_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def installed_typescript(folder: Path) -> str:
    """The program of the compiler, installed into ``folder``; the test is skipped where npm is missing or fails."""
    npm = shutil.which("npm") or cannot("tests of the types need npm")
    command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", TYPESCRIPT]
    try:
        subprocess.run(command, cwd=folder, capture_output=True, timeout=NPM_S, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        cannot(f"npm can't install {TYPESCRIPT}: {(error.stderr or b'').decode(errors='replace')[-500:]}")
    return str(folder / "node_modules" / "typescript" / "bin" / "tsc")
