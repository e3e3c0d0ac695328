"""What a start loads before it answers, and that a command finds what it needs when nothing was asked for before it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar.server.command import Command
from sidecar.server.commands import COMMANDS
from tests.client import SidecarProcess, eventually

# The server's own command line, which tells what is loaded when the models of parameters are about to be, and when it
# ends. Nothing asks for the models before the first reply, and without one they are not loaded while a test lasts.
TELLING = """
import atexit, sys
from sidecar import limits

class Telling:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "sidecar.server.schema":
            tell()

def tell():
    print(*sys.modules, file=sys.stderr, flush=True)

sys.meta_path.insert(0, Telling)
atexit.register(tell)
limits.FIRST_REPLY_S = 600.0
from sidecar.__main__ import main
main()
"""
FOR_A_PING = {
    "sidecar",
    "sidecar.__main__",
    "sidecar.cancel",
    "sidecar.errors",
    "sidecar.limits",
    "sidecar.server",
    "sidecar.server.backup_commands",
    "sidecar.server.command",
    "sidecar.server.commands",
    "sidecar.server.connection",
    "sidecar.server.dispatch",
    "sidecar.server.handles",
    "sidecar.server.host_commands",
    "sidecar.server.jobs",
    "sidecar.server.jsonrpc",
    "sidecar.server.outbox",
    "sidecar.server.process",
    "sidecar.server.remote",
    "sidecar.server.session_commands",
    "sidecar.server.stdio",
    "sidecar.stores",
    "sidecar.stores.locations",
    "sidecar.streams",
    "sidecar.streams.base",
    "sidecar.text",
    "sidecar.wire",
    "sidecar.wire.framing",
    "sidecar.wire.messages",
}
NOT_AT_REST = {"asyncssh", "cryptography", "email", "http", "importlib.metadata", "jsonschema"}
NOT_FOR_A_PING = NOT_AT_REST | {"hashlib", "pathlib", "pydantic", "pydantic_core", "sqlite3", "tempfile"}

NO_HOST = "ssh:none"
HOST = {"label": "Lab", "host": "lab.example.org", "port": 22, "username": "me", "authMethod": "key"}
PARAMS: dict[str, Any] = {
    "agentId": "main",
    "sessionId": "s",
    "sessionIds": ["s"],
    "backupName": "none",
    "hostId": NO_HOST,
    "host": HOST,
    "passphrase": "secret",
    "fingerprint": "SHA256:none",
    "handleId": "none",
    "path": "/nowhere",
}
"""All that any command needs; each leaves aside what it doesn't know."""
REFUSED = {
    "restore_from_backup": "backup_not_found",
    "restore_from_backup_stream": "backup_not_found",
    "verify_backup_stream": "backup_not_found",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with one session of one message."""
    folder = tmp_path / ".openclaw" / "agents" / "main" / "sessions"
    folder.mkdir(parents=True)
    (folder / "s.jsonl").write_text('{"type":"message","message":{"role":"user","content":"hello"}}\n')
    return tmp_path


async def test_what_a_reply_doesnt_need_is_not_loaded_before_it(home: Path) -> None:
    async with SidecarProcess(home, command=(sys.executable, "-c", TELLING)) as process:
        await process.at_rest()
        assert process.stderr() == ""
        assert await process.call("ping") == "pong"
        await eventually(lambda: process.stderr().endswith("\n"), "it tells what is loaded")
        at_ping = set(process.stderr().split())
        notifications = await process.collect(await process.start_stream())
        assert notifications[-1]["params"]["totalSessions"] == 1
        process.close_stdin()
        assert await process.exit_code() == 0
        at_rest = set(process.stderr().splitlines()[-1].split())

    assert {name for name in at_ping if name.split(".")[0] == "sidecar"} == FOR_A_PING
    assert not at_ping & NOT_FOR_A_PING
    assert {"sidecar.server.schema", "sidecar.streams.analyze"} <= at_rest
    assert not at_rest & NOT_AT_REST


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
async def test_a_command_works_as_the_first_request(command: Command, home: Path) -> None:
    async with SidecarProcess(home) as process:
        reply = await process.reply(await process.request(command.name, PARAMS))
        told = [reply["error"]["data"]] if "error" in reply else []
        if command.kind == "stream":
            told += [notification["params"] for notification in await process.collect(reply["result"])]
        kinds = [params["kind"] for params in told if "kind" in params]
        refused = "host_not_found" if command.at_host else REFUSED.get(command.name)
        assert kinds == ([refused] if refused else [])
        assert process.stderr() == ""
