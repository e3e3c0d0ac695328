"""A backup of what real OpenClaw releases wrote, damaged and restored: every database sound, every digest the same."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from sidecar.backup import manifest
from tests.client import SidecarProcess

REAL_DATA = Path(__file__).parents[3] / "shared" / "real-openclaw"
TREES = sorted(path.name for path in REAL_DATA.iterdir() if path.is_dir()) if REAL_DATA.is_dir() else []

pytestmark = pytest.mark.skipif(not TREES, reason="../shared/real-openclaw, with the real data, isn't here")


@pytest.fixture(params=TREES)
def openclaw(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a real tree, which may be written."""
    openclaw = tmp_path / ".openclaw"
    shutil.copytree(REAL_DATA / request.param, openclaw, symlinks=True)
    for path in [openclaw, *openclaw.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)
    return openclaw


def rows_of(path: Path) -> list[Any]:
    """Every row of every table of a database, read from a copy so that the original stays as it is."""
    copy = path.parent / "copy-to-read.sqlite"
    for suffix in ("", "-wal"):
        if (original := Path(f"{path}{suffix}")).exists():
            shutil.copy(original, f"{copy}{suffix}")
    # SQLite before 3.43 reads the newest schema only where it may not write.
    database = sqlite3.connect(f"file:{copy}?mode=ro", uri=True)
    try:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tables = database.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
        ).fetchall()
        assert tables
        return [(name, sorted(map(repr, database.execute(f'SELECT * FROM "{name}"')))) for (name,) in tables]
    finally:
        database.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{copy}{suffix}").unlink(missing_ok=True)


def databases_in(openclaw: Path) -> list[Path]:
    """Those that a backup takes: locks and what is left of indexing have a name behind that of their database."""
    return [path for path in openclaw.rglob("*.sqlite") if ".sqlite." not in path.name]


def damage(openclaw: Path, entries: list[manifest.Entry]) -> None:
    """Spoil each file that was backed up, in one of three ways."""
    chance = random.Random(5)
    for entry in entries:
        path = openclaw / os.fsdecode(entry.path)
        how = chance.choice(("gone", "cut off", "other bytes"))
        if how == "gone":
            path.unlink()
        elif how == "cut off":
            os.truncate(path, entry.size_bytes // 2)
        else:
            path.write_bytes(chance.randbytes(entry.size_bytes))


async def test_after_a_backup_damage_and_a_restore_all_is_as_it_was(openclaw: Path) -> None:
    databases = databases_in(openclaw)
    rows = {path: rows_of(path) for path in databases}
    async with SidecarProcess(openclaw.parent) as process:
        made = await process.call("backup_before_upgrade")
        assert made["status"] == "complete"
        with manifest.opened(Path(f"{made['path']}.manifest.jsonl").as_posix().encode()) as reader:
            entries = list(reader.entries())
        files = [entry for entry in entries if entry.kind == "file"]
        assert {openclaw / os.fsdecode(entry.path) for entry in files} >= set(databases)
        plain = [entry for entry in files if not entry.is_database]
        assert all(sha256(openclaw, entry) == entry.sha256 for entry in plain)

        damage(openclaw, files)
        assert not [entry for entry in plain if sha256(openclaw, entry) == entry.sha256 and entry.size_bytes > 1]
        assert await process.call("restore_from_backup", {"backupName": made["name"]})

    assert all(sha256(openclaw, entry) == entry.sha256 for entry in files)
    for entry in files:
        status = (openclaw / os.fsdecode(entry.path)).stat()
        assert (status.st_mode & 0o7777, status.st_mtime_ns) == (entry.mode, entry.mtime_ns)
    assert {path: rows_of(path) for path in databases} == rows


def sha256(openclaw: Path, entry: manifest.Entry) -> str | None:
    path = openclaw / os.fsdecode(entry.path)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
