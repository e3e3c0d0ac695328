"""The SFTP engine against a real sshd: what the stores here say of the same files, and a quiet end at any time."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import asyncssh

from sidecar.remote.records import Record, RecordReader
from sidecar.remote.sftp_engine import SftpRun
from tests.remote.sshd import Sshd
from tests.remote.test_sshd import connected

NONCE = "c0ffee"


def request_for(op: str, home: Path | None = None, **fields: Any) -> dict[str, Any]:
    env = {} if home is None else {"CLAWPAL_OPENCLAW_DIR": str(home)}
    return {"nonce": NONCE, "op": op, "env": env, "openclawHome": None, **fields}


async def told(connection: asyncssh.SSHClientConnection, request: dict[str, Any]) -> list[Record]:
    """All that the engine says, but beats."""
    run = SftpRun(partial(connection.start_sftp_client), request)
    reader = RecordReader(NONCE)
    records: list[Record] = []
    while chunk := await run.read():
        records += [record for record in reader.feed(chunk) if record.name != "beat"]
    assert records[-1].name in {"end", "fail"}
    return records


async def test_first_comes_who_speaks_and_of_which_folder(sshd: Sshd) -> None:
    async with connected(sshd) as connection:
        hello, end = await told(connection, request_for("analyze"))
    assert hello.name == "hello"
    assert hello.items[0] == "sftp"
    assert hello.items[3:] == [str(sshd.home / ".openclaw"), False, True]
    assert end.name == "end"
