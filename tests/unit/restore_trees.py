"""Trees to back up and to restore, what is in one, exactly, and in a snapshot of it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from sidecar.backup.folder import BackupFolder, Snapshot
from sidecar.backup.manifest import Entry, opened
from sidecar.backup.progress import Progress
from sidecar.backup.restore import Restored, restore
from sidecar.backup.snapshot import Options, create
from sidecar.backup.verify import verify
from sidecar.cancel import CancelToken

LONG_AGO_NS = 1_700_000_000_123_456_789


class Home:
    """An OpenClaw directory and the backups of it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "openclaw"
        self.folder = BackupFolder(os.fsencode(folder / "clawpal"))

    def write(self, path: str, content: bytes | str = b"", mode: int = 0o600, age: int = 0) -> Path:
        """Write a file; ``age`` counts up, so that no two writes have the same time."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(mode)
        os.utime(file, ns=(LONG_AGO_NS + age, LONG_AGO_NS + age))
        return file

    def database(self, path: str, *rows: str) -> Path:
        """Write a database in WAL mode that holds these rows."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE IF NOT EXISTS t (text)")
            database.executemany("INSERT INTO t VALUES (?)", [(row,) for row in rows])
        os.utime(file, ns=(LONG_AGO_NS, LONG_AGO_NS))
        return file

    def backup(self, **options: bool) -> Snapshot:
        return create(os.fsencode(self.root), self.folder, Options(**options), Progress(CancelToken()))

    def restore(self, snapshot: Snapshot, progress: Progress | None = None, force: bool = False) -> Restored:
        progress = progress or Progress(CancelToken())
        return restore(os.fsencode(self.root), self.folder, snapshot.name, progress, force=force)

    def fill(self) -> None:
        """A little of everything."""
        self.write("openclaw.json", '{"a": 1}', 0o600)
        self.write("workspace/deep/er/note.md", "note", 0o644)
        self.write("workspace/script.sh", "#!/bin/sh", 0o755)
        self.write("agents/main/sessions/s1.jsonl", "{}\n" * 100)
        self.write("agents/main/sessions/sessions.json", "{}")
        self.write("agents/main/sessions/s1.jsonl.lock", "{}")
        self.write("logs/gateway.log", "log")
        self.write(os.fsdecode(b"odd/na\xffme"), "odd")
        self.database("agents/main/agent/openclaw-agent.sqlite", "one", "two")
        self.database("memory/main.sqlite", "remembered")
        (self.root / "empty").mkdir()
        (self.root / "empty").chmod(0o711)
        (self.root / "link").symlink_to("workspace/deep")
        (self.root / "dangling").symlink_to("/nowhere/at/all")
        self.age_folders()

    def change(self) -> None:
        """Change a little of everything: more, less, other contents, other kinds."""
        self.write("openclaw.json", '{"a": 2}', 0o644, age=1)
        self.write("workspace/new/folder/file", "new")
        (self.root / "workspace/script.sh").chmod(0o700)
        (self.root / "agents/main/sessions/s1.jsonl").unlink()
        self.write("agents/other/sessions/s2.jsonl", "{}\n")
        self.database("agents/main/agent/openclaw-agent.sqlite", "three")
        self.database("agents/other/agent/openclaw-agent.sqlite", "four")
        (self.root / "memory/main.sqlite").unlink()
        (self.root / "empty").rmdir()
        self.write("empty", "a file where a folder was")
        (self.root / "link").unlink()
        (self.root / "link").mkdir()
        self.write("link/inside", "a folder where a link was")
        (self.root / "dangling").unlink()
        for file in (self.root / "workspace/deep/er/note.md", self.root / "workspace/deep/er"):
            file.unlink() if file.is_file() else file.rmdir()
        (self.root / "workspace/deep").rmdir()
        (self.root / "workspace/deep").symlink_to("new")
        self.age_folders(age=5)

    def age_folders(self, age: int = 0) -> None:
        """Give each folder but the one that is left out of snapshots the same time."""
        for folder, _, _ in os.walk(self.root, topdown=False):
            if not folder.endswith("logs") or age == 0:
                os.utime(folder, ns=(LONG_AGO_NS + age, LONG_AGO_NS + age))


Contents = dict[str, tuple[object, ...]]


def contents(root: Path, *, exactly: bool = False) -> Contents:
    """All that is in a tree: kinds, modes, times, owners, contents; and of a database, unless ``exactly``, its rows."""
    found: Contents = {}
    for folder, folders, files in os.walk(root):
        for path in [Path(folder), *(Path(folder, name) for name in [*folders, *files])]:
            name = str(path.relative_to(root))
            status = path.lstat()
            owner = (status.st_uid, status.st_gid)
            if path.is_symlink():
                found[name] = ("link", str(path.readlink()), *owner)
            elif path.is_dir():
                found[name] = ("dir", oct(status.st_mode), status.st_mtime_ns, *owner)
            else:
                content = rows(path) if name.endswith(".sqlite") and not exactly else path.read_bytes()
                found[name] = ("file", oct(status.st_mode), status.st_mtime_ns, *owner, content)
    return found


def entries(home: Home, snapshot: Snapshot) -> dict[str, Entry]:
    """The lines of a snapshot's manifest, by their paths; each path has one."""
    with opened(home.folder.manifest_of(snapshot.name)) as reader:
        return {os.fsdecode(entry.path): entry for entry in reader.entries()}


def copy_of(snapshot: Snapshot, path: str = "") -> Path:
    """Where a snapshot has what lies at ``path`` in its tree."""
    return Path(os.fsdecode(snapshot.path), path)


def check(home: Home, *snapshots: Snapshot) -> None:
    """Each is as it was made, and so it is told."""
    for snapshot in snapshots:
        assert verify(home.folder, snapshot.name, Progress(CancelToken())) == snapshot


def rows(path: Path) -> list[str]:
    """What a database holds, which must be sound."""
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [row for (row,) in database.execute("SELECT text FROM t ORDER BY rowid")]
