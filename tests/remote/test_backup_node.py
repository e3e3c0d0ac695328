"""Backups on a host that has Node alone: its engine against ``sidecar/backup`` on the same trees and folders."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from sidecar.backup import rules
from sidecar.backup.folder import BackupFolder
from sidecar.backup.home import LocalBackups
from sidecar.backup.progress import Progress
from sidecar.backup.rules import PHASES
from sidecar.cancel import CancelToken
from sidecar.errors import BackupDamaged, TargetInUse, TargetNotWritable
from sidecar.remote import engines
from sidecar.text import wire_name
from tests.remote.engine import SCRIPTS, Engine, Record, Run, bare_node, node, request_for, told
from tests.remote.test_node_engine import FORM, MAX_LINES
from tests.unit.restore_trees import LONG_AGO_NS, Contents, Home, contents, rows

MODULES = {path.name: path for path in sorted((SCRIPTS / "node_backup").glob("*.mjs"))}
DEADLINE_S = 60
NOBODY = 65534


def engine() -> Engine:
    return replace(node(), script=engines.node_backup_script())


class Host(Home):
    """A tree and its backups, which are made here or by the Node engine."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.here = LocalBackups(os.fsencode(self.root), self.folder.clawpal_dir)

    @property
    def backups(self) -> Path:
        return Path(os.fsdecode(self.folder.path))

    def request(self, op: str, **fields: Any) -> dict[str, Any]:
        clawpal = wire_name(os.fsdecode(self.folder.clawpal_dir))
        root = {"env": {"CLAWPAL_OPENCLAW_DIR": wire_name(str(self.root))}}
        return {**request_for(op, clawpalDir=clawpal), "share": True, **root, **fields}

    def ask(self, op: str, *, by: Engine | None = None, **fields: Any) -> list[Record]:
        return told(by or engine(), self.request(op, **fields))

    def ask_for_one(self, op: str, *, by: Engine | None = None, **fields: Any) -> list[Any]:
        """The one record of the answer beside progress; it must end well."""
        records = [one.items for one in self.ask(op, by=by, **fields)]
        assert records[-1] == ["end"], records[-1]
        (one,) = [items for items in records[1:-1] if items[0] != "progress"]
        return one

    def backup_there(self, *, include_sessions: bool = True, **fields: Any) -> str:
        """Make a snapshot with the engine; its name."""
        name: str = self.ask_for_one("backup", includeSessions=include_sessions, **fields)[1]
        return name

    def backup_here(self, *, include_sessions: bool = True) -> str:
        return wire_name(os.fsdecode(self.here.backup(include_sessions, progress()).name))

    def fail(self, op: str, **fields: Any) -> list[Any]:
        """How it fails."""
        *_, last = self.ask(op, **fields)
        assert last.name == "fail", last
        return last.items[1:]

    def manifest(self, name: str) -> list[dict[str, Any]]:
        lines = (self.backups / f"{name}.manifest.jsonl").read_bytes().splitlines()
        return [json.loads(line) for line in lines]


def progress() -> Progress:
    return Progress(CancelToken())


def comparable(manifest: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What two manifests of one tree have in common: all but the time and what depends on SQLite's version."""
    for line in manifest:
        line.pop("createdAt", None)
        if "status" in line or "database" in line:
            del line["sha256"]
    return manifest


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.root.mkdir()
    return host


def test_a_snapshot_is_the_one_that_would_be_made_here(host: Host) -> None:
    host.fill()
    for rule in (*rules.LEFT_OUT, *rules.TRANSCRIPTS):
        path = rule.path.replace("*", "x y")
        host.write(path if "/" in path else f"{path}/deep", path)
    host.write("workspace/cache/mine", "kept")
    host.write("workspace/logs/mine", "kept")
    host.write("agents.d/x", "sorts before agents")
    host.write("a", "sorts before a/b")
    host.write('workspace/quoted "\\\n\t\x01\x7f \u2028 é 🦞', "names")
    host.write(os.fsdecode(b"odd/\xf0\x9f\xff"), "bytes")
    host.write("odd/\ufffd80", "what a wire name looks like")
    host.write("empty-file", "")
    host.write("database without a name", "")
    shutil.copy(host.root / "memory/main.sqlite", host.root / "database without a name")
    shutil.copy(host.root / "memory/main.sqlite", host.root / os.fsdecode(b"odd/\xff.sqlite"))
    host.write("no.sqlite", "no database")
    host.write("no.sqlite-wal", "nor its WAL")
    host.write("empty.db", "")
    host.write("folder.db/x", "")
    host.write("folder.db-wal", "beside no database")
    host.write("gone.db-journal", "beside no database")
    (host.root / "loop").symlink_to("loop")
    (host.root / "to nothing").symlink_to(os.fsdecode(b"\xff"))
    os.mkfifo(host.root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(host.root / "socket"))
    (host.root / "set-id").mkdir()
    (host.root / "set-id").chmod(0o2751)
    host.age_folders()
    for include_sessions in (True, False):
        there = host.backup_there(include_sessions=include_sessions, share=False)
        here = host.backup_here(include_sessions=include_sessions)
        assert comparable(host.manifest(there)) == comparable(host.manifest(here))
        assert host.ask_for_one("verify", backupName=here)[1] == here
        host.here.verify(there, progress())
        assert bool(list((host.backups / there).rglob("*.jsonl"))) == include_sessions


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_cannot_be_read_is_told_in_the_same_words() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        host = Host(Path(folder))
        host.fill()
        theirs = [host.write("workspace/secret", "secret", 0o600), host.root / "workspace/locked"]
        theirs[1].mkdir(0o700)
        (host.root / "workspace/listed").mkdir(0o755)
        theirs.append(host.write("workspace/listed/secret.sqlite", "secret", 0o600))
        for path in (Path(folder), host.root, *host.root.rglob("*")):
            if path not in theirs:
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        drop = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
        by = replace(engine(), command=(*drop, *engine().command))
        there = host.ask_for_one("backup", by=by, includeSessions=True)
        assert there[5:7] == ["incomplete", 3]
        code = (
            "import os,sys;from sidecar.backup.home import LocalBackups;from sidecar.backup.progress import Progress;"
            f"from sidecar.cancel import CancelToken;os.setgroups([]);os.setgid({NOBODY});os.setuid({NOBODY});"
            "print(LocalBackups(*sys.argv[1:]).backup(True,Progress(CancelToken())).name.decode())"
        )
        clawpal = os.fsdecode(host.folder.clawpal_dir)
        command = [sys.executable, "-c", code, str(host.root), clawpal]
        here = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE_S).stdout.strip()
        assert comparable(host.manifest(there[1])) == comparable(host.manifest(here))


def test_a_module_has_the_form_that_the_script_is_made_of() -> None:
    for name, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        # No other declaration, import or export, and nothing that runs but what makes a constant.
        assert not re.findall(r"^[a-z].*|^ *(?:import|export)\b.*", FORM.sub("", text), re.MULTILINE), name
        assert text.startswith("// "), name
        assert text.count("\n") <= MAX_LINES, name


def test_the_script_for_backups_has_what_it_needs_and_no_more() -> None:
    script = engines.node_backup_script().decode()
    assert len(re.findall("^const OPERATIONS = ", script, re.MULTILINE)) == 1
    assert "class SqliteStore" not in script
    for path in MODULES.values():
        first_line = path.read_text(encoding="utf-8").partition("\n")[0]
        assert first_line in script, path


def shared_files(one: Path, other: Path) -> set[str]:
    """The files that two snapshots share."""
    return {
        str(path.relative_to(one))
        for path in one.rglob("*")
        if path.is_file() and not path.is_symlink() and path.samefile(other / path.relative_to(one))
    }


def test_snapshots_share_what_did_not_change_whoever_made_them(host: Host) -> None:
    host.fill()
    names = [make() for make in (host.backup_there, host.backup_here, host.backup_there, host.backup_there)]
    files = {line["file"] for line in host.manifest(names[0]) if "file" in line}
    databases = {line["file"] for line in host.manifest(names[0]) if "database" in line}
    for one, other in pairwise(names):
        shared = {wire_name(name) for name in shared_files(host.backups / one, host.backups / other)}
        # A young database is copied again, and is another file where another version of SQLite does it.
        assert shared >= files - databases, (one, other)
    assert {wire_name(name) for name in shared_files(host.backups / names[2], host.backups / names[3])} == files
    alone = host.backup_there(share=False)
    assert not shared_files(host.backups / alone, host.backups / names[-1])


def test_what_is_damaged_is_found_by_either_in_the_same_words(host: Host) -> None:
    host.fill()
    name = host.backup_there()
    tree = host.backups / name
    (tree / "workspace/script.sh").write_text("#!/bin/xx")
    (tree / "workspace/more").write_text("")
    (tree / "dangling").unlink()
    (tree / "dangling").symlink_to("elsewhere")
    (tree / "agents/main/sessions/s1.jsonl").unlink()
    (tree / "empty").rmdir()
    (tree / "empty").write_text("")
    with pytest.raises(BackupDamaged) as caught:
        host.here.verify(name, progress())
    told_there = host.fail("verify", backupName=name)
    assert told_there == [None, None, caught.value.message, "backup_damaged", caught.value.details]


@pytest.mark.parametrize("line", ["", "{", "[]", '{"manifest":2}', '{"manifest":1}', '{"manifest":1,"createdAt":"x"}'])
def test_a_manifest_that_is_none_is_damage(host: Host, line: str) -> None:
    host.fill()
    name = host.backup_there()
    (host.backups / f"{name}.manifest.jsonl").write_text(line and f"{line}\n")
    assert host.fail("verify", backupName=name)[3:] == ["backup_damaged", {"failedItems": 1, "failures": ANY}]
    assert host.ask_for_one("backups")[5] == "unverified"


def test_what_a_manifest_says_is_not_followed_out_of_the_tree(host: Host) -> None:
    host.fill()
    name = host.backup_there()
    manifest = host.backups / f"{name}.manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"file":"openclaw.json"', '"file":"../openclaw.json"'))
    assert "leads out of the tree" in str(host.fail("verify", backupName=name)[4])


def test_snapshots_are_listed_and_deleted_whoever_made_them(host: Host) -> None:
    host.fill()
    names = [host.backup_here(), host.backup_there()]
    by_hand = host.backups / os.fsdecode(b"by hand \xff")
    by_hand.mkdir()
    (by_hand / "openclaw.json").write_text("{}")
    os.utime(by_hand, ns=(LONG_AGO_NS, LONG_AGO_NS))
    (host.backups / "a file").write_text("")
    listed = [one.items[1:] for one in host.ask("backups") if one.name == "snapshot"]
    here = [
        [wire_name(os.fsdecode(one.name)), wire_name(os.fsdecode(one.path)), *one[2:]]
        for one in host.here.list(CancelToken())
    ]
    assert listed == here
    assert [one[0] for one in listed] == [wire_name(by_hand.name), *sorted(names, reverse=True)]
    assert host.fail("verify", backupName=wire_name(by_hand.name))[3] == "backup_unverified"
    for name in (wire_name(by_hand.name), *names):
        assert host.ask_for_one("delete-backup", backupName=name) == ["deleted", True]
        assert host.ask_for_one("delete-backup", backupName=name) == ["deleted", False]
    assert sorted(os.listdir(host.backups)) == [".lock", "a file"]
    assert host.fail("verify", backupName=names[0])[2:4] == [
        f'no such file: there is no backup "{names[0]}"',
        "backup_not_found",
    ]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/x", "a/b", "a\\b", "a\0b", ".lock", "x" * 250])
def test_what_is_no_name_is_refused(host: Host, name: str) -> None:
    for op in ("verify", "delete-backup"):
        assert host.fail(op, backupName=name)[3] == "invalid_params"
    assert not host.backups.exists()


def staged(host: Host) -> list[str]:
    return [name for name in os.listdir(host.backups) if name.startswith((".partial", ".deleted"))]


@contextlib.contextmanager
def stopped_at_work(host: Host) -> Iterator[tuple[Run, Iterator[Record]]]:
    """The engine, stopped while it makes a snapshot of a large file, and what it has still to say."""
    with (host.root / "large").open("wb") as file:
        file.truncate(2 << 30)
    with Run(engine(), host.request("backup", includeSessions=True)) as run:
        records = run.records()
        next(one for one in records if one.name == "progress" and one.items[3] > 0)
        os.killpg(run.process.pid, signal.SIGSTOP)
        assert len(staged(host)) == 1
        yield run, records


def test_what_is_staged_is_left_alone_while_who_stages_it_lives(host: Host) -> None:
    host.fill()
    with stopped_at_work(host) as (run, _):
        (name,) = staged(host)
        (host.root / "large").unlink()
        host.backup_here()
        host.backup_there()
        assert staged(host) == [name]
        run.kill()
        run.wait()
    assert staged(host) == [name]
    host.here.recover()
    assert staged(host) == []


def test_the_engine_clears_what_a_killed_one_left(host: Host) -> None:
    host.fill()
    with stopped_at_work(host) as (run, _):
        run.kill()
        run.wait()
    (host.root / "large").unlink()
    (host.backups / "2020-01-01_000000.manifest.jsonl").write_text("")
    assert len(staged(host)) == 1
    name = host.backup_there()
    assert sorted(os.listdir(host.backups)) == [".lock", name, f"{name}.manifest.jsonl"]


def test_the_engine_leaves_alone_what_is_staged_here(host: Host) -> None:
    host.fill()
    with host.folder.staging() as staging:
        host.backup_there()
        assert os.path.isdir(staging.path)


def test_the_end_of_the_input_takes_a_backup_back_and_is_told(host: Host) -> None:
    host.fill()
    with stopped_at_work(host) as (run, records):
        run.close_input()
        os.killpg(run.process.pid, signal.SIGCONT)
        *_, last = records
        assert last.items == ["fail", None, None, "cancelled", "cancelled"]
        assert run.wait() == 0, run.errors()
    assert sorted(os.listdir(host.backups)) == [".lock"]


def test_a_backup_whose_reader_has_gone_is_taken_back(host: Host) -> None:
    host.fill()
    with stopped_at_work(host) as (run, _):
        run.close_output()
        os.killpg(run.process.pid, signal.SIGCONT)
        run.wait()
    assert sorted(os.listdir(host.backups)) == [".lock"]


WRITER = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA busy_timeout = 5000")
number = 0
while True:
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO t VALUES (?)", (f"a {number}",))
    database.execute("INSERT INTO t VALUES (?)", (f"b {number}",))
    database.execute("COMMIT")
    number += 1
    if number == 10:
        print(flush=True)
    time.sleep(1 / 300)
"""


def test_a_database_that_is_written_all_the_time_is_copied_whole_and_once(host: Host) -> None:
    path = host.database("agents/main/agent/openclaw-agent.sqlite", *("x" * 2000 for _ in range(20_000)))
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            writer.stdout.readline()
            records = [one.items for one in host.ask("backup", includeSessions=True)]
        finally:
            writer.kill()
    assert records[-1] == ["end"]
    (snapshot,) = [items for items in records if items[0] == "snapshot"]
    assert snapshot[5] == "complete"
    copy = host.backups / snapshot[1] / "agents/main/agent/openclaw-agent.sqlite"
    with closing(sqlite3.connect(f"file:{copy}?immutable=1", uri=True)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        written = [text for (text,) in database.execute("SELECT text FROM t WHERE text LIKE '_ %' ORDER BY rowid")]
    assert len(written) >= 20
    assert written == [f"{letter} {number}" for number in range(len(written) // 2) for letter in "ab"]
    assert sorted(os.listdir(copy.parent)) == ["openclaw-agent.sqlite"]
    # The database is looked at once, and no more is counted than it has.
    assert max(items[3] for items in records if items[0] == "progress") <= copy.stat().st_size


def test_a_database_that_crashed_is_recovered_in_the_copy(host: Host) -> None:
    path = host.root / "crashed.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute("CREATE TABLE t (text)")
        database.execute("INSERT INTO t VALUES ('in the WAL')")
        for ending in ("", "-wal"):
            shutil.copy(f"{path}{ending}", host.root / f"other.sqlite{ending}")
    path.unlink()
    name = host.backup_there()
    assert rows(host.backups / name / "other.sqlite") == ["in the WAL"]
    assert sorted(os.listdir(host.backups / name)) == ["other.sqlite"]
    assert sorted(os.listdir(host.root)) == ["other.sqlite", "other.sqlite-wal"]


def test_a_damaged_database_is_copied_as_it_is_and_named(host: Host) -> None:
    path = host.database("memory/main.sqlite", *("x" * 5000 for _ in range(20)))
    data = bytearray(path.read_bytes())
    data[5000:40_000] = b"\xff" * 35_000
    path.write_bytes(data)
    host.write("half.sqlite", bytes(data[:4000]))
    (there, here) = (host.backup_there(share=False), host.backup_here())
    problems = [
        [(line["file"], line["problem"]) for line in host.manifest(name) if "problem" in line] for name in (there, here)
    ]
    # What is wrong with its pages, each version of SQLite says in words of its own.
    named = [[(path, words.partition(" page ")[0][:40]) for path, words in each] for each in problems]
    assert named[0] == named[1]
    assert [path for path, _ in named[0]] == ["half.sqlite", "memory/main.sqlite"]


@pytest.mark.skipif(bare_node() is None, reason="no Node here is without node:sqlite")
def test_without_sqlite_a_database_is_a_failed_item(host: Host) -> None:
    host.fill()
    made = host.ask_for_one("backup", by=replace(node(bare_node()), script=engine().script), includeSessions=True)
    assert made[5:7] == ["incomplete", 2]
    assert "Node 22.16 or newer" in made[7][0]["error"]
    assert host.ask_for_one("verify", backupName=made[1])[1] == made[1]


def test_a_full_disk_is_told_and_leaves_nothing(host: Host) -> None:
    host.fill()
    for number in range(8):
        with (host.root / f"sparse {number}").open("wb") as file:
            file.truncate(1 << 43)
    code, _, message, kind = host.fail("backup", includeSessions=True)
    assert (code, kind) == (None, "no_space")
    assert message.startswith("no space left on device: 67,108,864.0 MiB are needed, ")
    assert sorted(os.listdir(host.backups)) == [".lock"]


def test_what_is_left_of_others_is_cleared_as_it_is_here(host: Host) -> None:
    host.fill()
    name = host.backup_there()
    outside = host.root.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    for made in (".deleted-1", ".partial-1", "gone.manifest.jsonl"):
        (host.backups / made).symlink_to(outside)
    (host.backups / ".deleted-2").write_text("")
    (host.backups / ".partial-2").write_text("")
    (host.backups / "a folder.manifest.jsonl").mkdir()
    (host.backups / ".deleted-3/inner").mkdir(parents=True)
    (host.backups / ".deleted-3/inner").chmod(0)
    expected = [".lock", name, f"{name}.manifest.jsonl", "a folder.manifest.jsonl"]
    other = host.backup_there()
    left = set(os.listdir(host.backups)) - {other, f"{other}.manifest.jsonl"}
    host.here.recover()
    assert set(os.listdir(host.backups)) - {other, f"{other}.manifest.jsonl"} == left
    assert left - {"gone.manifest.jsonl"} == set(expected)
    assert (outside / "file").read_text() == "stays"


def test_clawpals_own_directory_stays_out_of_a_tree_that_it_lies_in(host: Host) -> None:
    host.fill()
    host.folder = BackupFolder(os.fsencode(host.root / "nested/clawpal"))
    host.here = LocalBackups(os.fsencode(host.root), host.folder.clawpal_dir)
    (host.root / "nested").mkdir()
    name = host.backup_there()
    assert {"leftOut": "nested/clawpal", "reason": rules.CLAWPAL} in host.manifest(name)
    assert not any("clawpal/" in str(line) for line in host.manifest(name)[1:])


def test_a_folder_of_many_names_is_walked_in_order(host: Host) -> None:
    (host.root / "many").mkdir()
    for number in range(250):
        host.write(f"many/{number:03}", "")
    few = engine().patched("const NAMES_AT_ONCE = 10_000;", "const NAMES_AT_ONCE = 7;")
    name = host.backup_there(by=few)
    assert [line["file"] for line in host.manifest(name) if "file" in line] == [f"many/{n:03}" for n in range(250)]


def test_progress_tells_of_everything_there_is(host: Host) -> None:
    host.fill()
    records = [one.items for one in host.ask("backup", includeSessions=True)]
    told = [items[1:] for items in records if items[0] == "progress"]
    files = sum("file" in line for line in host.manifest(records[-2][1]))
    assert told[0][0] == "snapshot"
    assert told[-1] == ["done", files, records[-2][4], files, records[-2][4], None]
    assert [phase for phase in PHASES if phase in {one[0] for one in told}] == [
        one[0] for one in dict.fromkeys((one[0],) for one in told) if one[0] in PHASES
    ]


def with_times_as_node_sets_them(tree: Contents) -> Contents:
    """The same with times to 10 ms: Node's numbers are off by up to a quarter of a microsecond."""
    return {
        path: tuple(round(one / 1e7) if isinstance(one, int) and one > 1e18 else one for one in told)
        for path, told in tree.items()
    }


def state(host: Host, *, exactly: bool = False) -> Contents:
    return with_times_as_node_sets_them(contents(host.root, exactly=exactly))


def restore_there(host: Host, name: str, *, by: Engine | None = None, force: bool = False) -> str | None:
    """Restore a snapshot with the engine; the name of that of the state before."""
    records = [one.items for one in host.ask("restore", by=by, backupName=name, force=force)]
    assert records[-1] == ["end"], records[-1]
    (snapshot,) = [items for items in records if items[0] == "snapshot"]
    assert snapshot[1] == name
    (previous,) = [items for items in records if items[0] == "previous"]
    assert [items for items in records if items[0] == "progress"][-1][1] == "done"
    return None if previous[1] is None else str(previous[1])


@pytest.mark.parametrize("made_by", ["here", "there"])
def test_a_restore_gives_back_what_a_snapshot_holds_and_is_undone_by_another(host: Host, made_by: str) -> None:
    host.fill()
    before = state(host)
    name = host.backup_here() if made_by == "here" else host.backup_there()
    host.change()
    changed = state(host)
    previous = restore_there(host, name)
    assert state(host) == before
    assert not (host.root / rules.RESTORE_FOLDER.decode()).exists()
    assert previous is not None
    host.here.verify(previous, progress())
    assert restore_there(host, previous) is not None
    assert state(host) == changed
    assert len(host.here.list(CancelToken())) == 3
    host.here.restore(name, False, progress())
    assert state(host) == before


def test_the_plan_is_the_one_that_would_be_made_here(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.fill()
    name = host.backup_here()
    host.change()
    plans: list[list[dict[str, Any]]] = []

    def plan() -> list[dict[str, Any]]:
        (path,) = host.root.glob(".clawpal-restore/plan.jsonl")
        operations = [json.loads(line) for line in path.read_bytes().splitlines()]
        for operation in operations:
            # To make the workspace in it changed the time of the top, which Node then set again.
            if not operation["path"]:
                operation["mtime_ns"] = operation["mtime_ns"] // 1000
        return operations

    class Stopped(Exception):
        pass

    def stop(*_: object) -> None:
        plans.append(plan())
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr("sidecar.backup.restore.stage", stop)
        with pytest.raises(Stopped):
            host.here.restore(name, False, progress())
    killed = engine().patched("        stageAll(workspace, snapshot.path, progress);\n", "        endNow();\n")
    with Run(killed, host.request("restore", backupName=name, force=False)) as run:
        list(run.records())
        run.wait()
    plans.append(plan())
    assert plans[0] == plans[1]
    kinds = {operation["kind"] for operation in plans[0]}
    assert kinds == {"enter", "leave", "put", "aside", "mkdir", "rmdir", "look"}


def test_a_tree_that_is_not_there_is_restored(host: Host) -> None:
    host.fill()
    before = state(host)
    name = host.backup_there()
    shutil.rmtree(host.root)
    assert restore_there(host, name) is None
    restored = state(host)
    assert restored == {path: told for path, told in before.items() if path not in left_out(before)}


def test_a_file_where_the_tree_should_be_is_left_and_said_to_be_no_directory(host: Host) -> None:
    host.write("openclaw.json", "{}")
    name = host.backup_there()
    shutil.rmtree(host.root)
    host.root.write_text("a file")
    *_, last = host.ask("restore", backupName=name, force=False)
    assert last.items[3:5] == [f"not a directory: {host.root}; nothing was changed", "target_not_writable"]
    with pytest.raises(TargetNotWritable) as raised:
        host.here.restore(name, False, progress())
    assert [raised.value.message, raised.value.kind, raised.value.details] == last.items[3:]
    assert host.root.read_text() == "a file"


def left_out(tree: Contents) -> set[str]:
    """Of what ``fill`` makes, what no snapshot has."""
    return {path for path in tree if path.startswith("logs") or path.endswith(".lock")}


def test_a_restore_of_which_a_step_fails_is_undone_and_says_so(host: Host) -> None:
    host.fill()
    name = host.backup_there()
    host.change()
    changed = state(host, exactly=True)
    # The steps before are of what is staged; those after, of what undoes this one.
    for number in (10, 20, 40):
        failing = engine().patched(
            "function takeStep() {}\n",
            "let stepsTaken = 0;\nfunction takeStep() {\n    stepsTaken += 1;\n"
            f'    if (stepsTaken === {number}) {{\n        throw new SystemError("EIO", "here");\n    }}\n}}\n',
        )
        *_, last = host.ask("restore", by=failing, backupName=name, force=False)
        assert last.items == [
            "fail",
            None,
            None,
            "the restore failed: input/output error: here; the tree is as it was",
            "target_not_writable",
            {"failedItems": 1, "failures": [{"path": "here", "error": "input/output error"}]},
        ]
        assert state(host, exactly=True) == changed
        assert [one.name.decode() for one in host.here.list(CancelToken())] == [name]
        assert not (host.root / rules.RESTORE_FOLDER.decode()).exists()


def test_what_could_not_be_undone_is_undone_by_the_next_command(host: Host) -> None:
    host.fill()
    name = host.backup_there()
    host.change()
    changed = state(host, exactly=True)
    for end_it in (host.here.recover, host.backup_there):
        failing = engine().patched(
            "function takeStep() {}\n",
            "let stepsTaken = 0;\nfunction takeStep() {\n    stepsTaken += 1;\n"
            "    if (stepsTaken === 30 || stepsTaken > 40) {\n"
            '        throw new SystemError("EIO", "here");\n    }\n}\n',
        )
        *_, last = host.ask("restore", by=failing, backupName=name, force=False)
        assert last.items[4] == "source_unreadable"
        assert "undone at the next start" in last.items[3]
        assert (host.root / ".clawpal-restore/undo.jsonl").exists()
        assert state(host, exactly=True) != changed
        end_it()
        assert state(host, exactly=True) == changed


def test_a_restore_that_was_interrupted_here_is_ended_by_the_engine(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.fill()
    before = state(host)
    name = host.backup_here()
    host.change()
    changed = state(host)

    class Interrupted(BaseException):
        pass

    for number, expected in ((3, changed), (25, before)):
        steps = iter(range(1000))

        def step(_: str, steps: Iterator[int] = steps, number: int = number) -> None:
            if next(steps) == number:
                raise Interrupted

        with monkeypatch.context() as patched:
            patched.setattr("sidecar.backup.journal.step", step)
            # As if it were killed: nothing is tidied up.
            patched.setattr("sidecar.backup.journal.Workspace.clear", lambda *_: True)
            patched.setattr("sidecar.backup.journal.give_up", lambda _, lock: lock.release())
            with pytest.raises(Interrupted):
                host.here.restore(name, False, progress())
        host.backup_there()
        assert state(host) == expected, number
        assert not (host.root / rules.RESTORE_FOLDER.decode()).exists()


def test_who_uses_the_tree_is_told_in_the_same_words(host: Host) -> None:
    host.fill()
    name = host.backup_there()
    host.change()
    with closing(sqlite3.connect(host.root / "agents/main/agent/openclaw-agent.sqlite")) as database:
        database.execute("SELECT count(*) FROM t").fetchone()
        # The lock of a process that lives, one of a process that doesn't, and one that names none.
        host.write("gateway.abc.lock", json.dumps({"pid": os.getpid()}))
        host.write("agents/main/sessions/s1.jsonl.lock", json.dumps({"pid": 1 << 30}))
        host.write("agents/main/sessions/sessions.json.lock", "")
        os.utime(host.root / "agents/main/sessions/sessions.json.lock")
        changed = state(host, exactly=True)
        with pytest.raises(TargetInUse) as caught:
            host.here.restore(name, False, progress())
        *place, message, kind, details = host.fail("restore", backupName=name, force=False)
        assert (place, kind) == ([None, None], "target_in_use")
        # Here this process doesn't count itself, so what it has open is told there alone.
        users = details["users"]
        own = [one for one in users if one.endswith(" open")]
        assert [one for one in users if one not in own] == caught.value.details["users"]
        assert any("openclaw-agent.sqlite open" in one for one in own)
        assert message.startswith("in use: ")
        assert message.endswith("; nothing was changed")
        assert len(caught.value.details["users"]) == 2
        assert state(host, exactly=True) == changed


def test_a_restore_that_is_running_keeps_others_off(host: Host) -> None:
    host.fill()
    name = host.backup_there()
    host.change()
    changed = state(host, exactly=True)
    waiting = engine().patched(
        "        stageAll(workspace, snapshot.path, progress);\n",
        '        progress.phase = "waiting";\n'
        "        for (;;) {\n            progress.step();\n            sleep(5);\n        }\n",
    )
    with Run(waiting, host.request("restore", backupName=name, force=False)) as run:
        records = run.records()
        next(one for one in records if one.name == "progress" and one.items[1] == "waiting")
        with pytest.raises(TargetInUse, match="another restore of it is running"):
            host.here.restore(name, False, progress())
        assert host.fail("restore", backupName=name, force=False)[2:] == [
            "in use: another restore of it is running",
            "target_in_use",
            {"users": ["another restore of it is running"]},
        ]
        host.here.recover()
        assert (host.root / ".clawpal-restore/plan.jsonl").exists()
        run.close_input()
        *_, last = records
        assert last.items == ["fail", None, None, "cancelled", "cancelled"]
        assert run.wait() == 0
    assert state(host, exactly=True) == changed
    assert [one.name.decode() for one in host.here.list(CancelToken())] == [name]


def test_a_snapshot_that_is_damaged_is_not_restored(host: Host) -> None:
    host.fill()
    name = host.backup_there()
    host.change()
    changed = state(host, exactly=True)
    (host.backups / name / "workspace/script.sh").write_text("#!/bin/xx")
    assert host.fail("restore", backupName=name, force=False)[3] == "backup_damaged"
    assert state(host, exactly=True) == changed


def test_a_snapshot_without_a_manifest_is_restored_over_what_is_there(host: Host) -> None:
    host.fill()
    before = state(host)
    name = host.backup_there()
    (host.backups / f"{name}.manifest.jsonl").unlink()
    host.write("openclaw.json", "other")
    host.write("more", "stays")
    previous = restore_there(host, name)
    assert previous is not None
    host.write("openclaw.json", '{"a": 1}')
    (host.root / "more").unlink()
    host.age_folders()
    assert state(host) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_cannot_be_replaced_is_found_before_the_first_change() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        host = Host(Path(folder))
        host.fill()
        for path in (Path(folder), *Path(folder).rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        drop = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
        by = replace(engine(), command=(*drop, *engine().command))
        name = host.ask_for_one("backup", by=by, includeSessions=True)[1]
        host.write("workspace/script.sh", "root's", 0o644, age=1)
        host.write("openclaw.json", "changed", age=1)
        os.chown(host.root / "openclaw.json", NOBODY, NOBODY)
        changed = state(host, exactly=True)
        *_, last = host.ask("restore", by=by, backupName=name, force=False)
        assert last.items[3:] == [
            "workspace/script.sh: permission denied: it belongs to another user (0); nothing was changed",
            "target_not_writable",
            {
                "failedItems": 1,
                "failures": [
                    {"path": "workspace/script.sh", "error": "permission denied: it belongs to another user (0)"}
                ],
            },
        ]
        assert state(host, exactly=True) == changed


STEPS = 400


def test_a_restore_that_is_killed_at_any_step_is_ended_by_the_next_command_of_either(host: Host) -> None:
    host.fill()
    before = state(host)
    name = host.backup_there()
    host.change()
    changed = state(host)
    outcomes = []
    for number in range(1, STEPS):
        killed = engine().patched(
            "function takeStep() {}\n",
            "let stepsTaken = 0;\nfunction takeStep() {\n    stepsTaken += 1;\n"
            f"    if (stepsTaken === {number}) {{\n        endNow();\n    }}\n}}\n",
        )
        with Run(killed, host.request("restore", backupName=name, force=False)) as run:
            records = list(run.records())
            run.close_input()
            run.wait()
        is_done = bool(records) and records[-1].name == "end"
        if not is_done and number % 2:
            host.here.recover()
        elif not is_done:
            *_, last = host.ask("restore", backupName="2000-01-01_000000", force=False)
            assert last.items[4] == "backup_not_found"
        now = state(host)
        assert now in (before, changed), number
        assert not (host.root / rules.RESTORE_FOLDER.decode()).exists()
        outcomes.append(now == before)
        if is_done:
            break
        if now == before:
            # Back to the state that was changed, for the next step.
            (previous,) = [one for one in host.here.list(CancelToken()) if one.name != os.fsencode(name)][:1]
            host.here.restore(previous.name.decode(), False, progress())
            assert state(host) == changed
        for one in host.here.list(CancelToken()):
            if one.name != os.fsencode(name):
                host.here.delete(one.name.decode(), CancelToken())
    assert is_done
    # Until the journal is in place nothing has changed, and from then on everything does.
    assert outcomes == sorted(outcomes)
    assert outcomes.count(True) > 10


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_disk_that_fills_while_a_database_is_copied_is_no_damage(host: Host) -> None:
    host.fill()
    with closing(sqlite3.connect(host.root / "large.sqlite")) as database, database:
        database.execute("CREATE TABLE t(x)")
        database.executemany("INSERT INTO t VALUES (?)", [(os.urandom(1000),) for _ in range(3_000)])
    host.backups.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(host.backups)], check=True)
    try:
        # As if others had filled it since there was room.
        roomy = engine().patched("checkSpace(folder.path", "(() => null)(folder.path")
        _, _, message, kind, *_ = host.fail("backup", by=roomy, includeSessions=True, share=True)
        assert kind == "no_space"
        assert message.startswith("no space left on device")
        assert [path.name for path in host.backups.iterdir()] == [".lock"]
    finally:
        subprocess.run(["umount", str(host.backups)], check=True)
