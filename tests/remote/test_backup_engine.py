"""What makes backups on hosts, run by every Python that is here; over SSH it is in ``test_backups_on_hosts.py``."""

from __future__ import annotations

import sqlite3
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.remote.engines import python_backup_script
from tests.remote import engine as engines
from tests.remote.engine import Record, request_for, told
from tests.remote.test_python_engine import PYTHONS


def has_sqlite(python: str) -> bool:
    return subprocess.run([python, "-c", "import sqlite3"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A home with a database whose rows are in its WAL, files by names of any kind, and links."""
    tree = tmp_path / "openclaw"
    (tree / "agents" / "main" / "sessions").mkdir(parents=True)
    (tree / "agents" / "main" / "sessions" / "é.jsonl").write_text('{"type":"session"}\n')
    (tree / "agents" / "main" / "sessions" / "empty.jsonl").touch()
    (tree / "memory").mkdir()
    (tree / "memory" / "link").symlink_to("../nowhere")
    (tree / "openclaw.json").write_text("{}")
    (tree / "openclaw.json").chmod(0o600)
    with sqlite3.connect(tree / "state.sqlite") as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE numbers(value)")
        database.executemany("INSERT INTO numbers VALUES (?)", [(number,) for number in range(1000)])
    database.close()
    return tree


def ask(python: str, op: str, tree: Path, **fields: Any) -> list[Record]:
    engine = replace(engines.python(python, "-X", "utf8"), script=python_backup_script())
    request = request_for(op, tree, clawpalDir=str(tree.parent / "clawpal"), share=True, **fields)
    # A locale in which no file name can have an é.
    records = told(engine, request, environ={"LC_ALL": "POSIX", "PATH": "/usr/bin:/bin"})
    assert records[0].name == "hello"
    return [record for record in records[1:] if record.name != "progress"]


@pytest.mark.parametrize("python", PYTHONS.values(), ids=PYTHONS)
def test_every_python_that_is_here_makes_checks_and_restores_a_backup(python: str, tree: Path) -> None:
    if not has_sqlite(python):
        pytest.skip("it has no sqlite3")
    made, end = ask(python, "backup", tree, includeSessions=True)
    assert (made.name, made.items[5], end.name) == ("snapshot", "complete", "end"), made.items
    name = made.items[1]
    assert [record.items for record in ask(python, "verify", tree, backupName=name)] == [made.items, ["end"]]

    session = tree / "agents" / "main" / "sessions" / "é.jsonl"
    session.unlink()
    (tree / "state.sqlite").write_bytes(b"damaged")
    restored, previous, end = ask(python, "restore", tree, backupName=name, force=False)
    assert (restored.items, previous.name, end.name) == (made.items, "previous", "end")
    assert session.read_text() == '{"type":"session"}\n'
    with sqlite3.connect(tree / "state.sqlite") as database:
        assert database.execute("SELECT count(*) FROM numbers").fetchall() == [(1000,)]
    database.close()

    listed = ask(python, "backups", tree)
    assert [record.items[1] for record in listed[:-1]] == sorted([name, previous.items[1]], reverse=True)
    assert ask(python, "delete-backup", tree, backupName=name)[0].items == ["deleted", True]
    assert ask(python, "restore", tree, backupName=name, force=False)[0].items[4] == "backup_not_found"


def test_what_reads_sessions_is_not_sent_along() -> None:
    assert b"sidecar.remote.python.sqlite_store" not in python_backup_script()
