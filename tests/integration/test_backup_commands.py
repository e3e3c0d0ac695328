"""The commands about backups as a client sees them: a real process, real files, every line of the wire checked."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sidecar.limits import MIB, PROGRESS_S
from tests.client import (
    COMMAND,
    Message,
    SidecarProcess,
    eventually,
    methods,
)

BIG_BYTES = 200 * MIB
# What takes long enough that something can be asked for meanwhile, on a busy machine too.
HUGE_BYTES = 512 * MIB
# A hundred milliseconds are aimed at; a test on a busy machine can only tell "soon" from "when the file is through".
TERMINAL_WITHIN_S = 1.0
TREE = {
    "openclaw.json": b'{"a": 1}',
    "credentials/token": b"secret",
    "agents/main/sessions/sessions.json": b"{}",
    "agents/main/sessions/s.jsonl": b'{"type":"session"}\n' * 1_000,
    "agents/main/sessions_archive/old.jsonl": b'{"type":"session"}\n',
    "memory/notes.md": b"# Notes\n",
}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home with a small OpenClaw directory in it."""
    for name, content in TREE.items():
        path = tmp_path / ".openclaw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    yield tmp_path
    # pytest keeps folders for a while, and these are large.
    shutil.rmtree(tmp_path)


@pytest.fixture
def big_home(home: Path) -> Path:
    """A home with a file as its last that takes a while to be copied, and no place on the disk."""
    return _with_file(home, BIG_BYTES)


@pytest.fixture
def huge_home(home: Path) -> Path:
    """A home with one that takes longer."""
    return _with_file(home, HUGE_BYTES)


def backups(home: Path) -> list[str]:
    """The names of all that is in the backups' folder, but for its lock."""
    folder = home / ".clawpal" / "backups"
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock") if folder.exists() else []


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


async def ended(process: SidecarProcess, method: str, params: object = None) -> list[Message]:
    """All notifications of a stream."""
    return await process.collect(await process.start_stream(params, method))


async def done(process: SidecarProcess, method: str, params: object = None) -> Any:
    """What the terminal of a stream that must succeed says, beside its handle and number."""
    last = (await ended(process, method, params))[-1]
    assert last["method"].endswith(":done"), last
    return {name: value for name, value in last["params"].items() if name not in {"handleId", "seq"}}


async def test_a_backup_is_made_listed_checked_restored_and_deleted(home: Path) -> None:
    async with SidecarProcess(home) as process:
        assert await process.call("list_backups") == []
        one = await process.call("backup_before_upgrade")
        (home / ".openclaw" / "openclaw.json").write_bytes(b'{"a": 2}')
        two = (await done(process, "backup_before_upgrade_stream"))["info"]

        for info in (one, two):
            assert datetime.fromisoformat(info["createdAt"]).utcoffset() is not None
            assert info["path"] == str(home / ".clawpal" / "backups" / info["name"])
            assert info["sizeBytes"] == sum(map(len, TREE.values()))
            assert (info["status"], info["failedItems"], info["failures"]) == ("complete", 0, [])
        assert content(Path(one["path"])) == TREE
        assert content(Path(two["path"])) == {**TREE, "openclaw.json": b'{"a": 2}'}
        assert await process.call("list_backups") == [two, one]
        assert await done(process, "verify_backup_stream", {"backupName": one["name"]}) == {"info": one}

        restored = await process.call("restore_from_backup", {"backupName": one["name"]})
        assert restored == f"Restored from backup '{one['name']}'"
        assert content(home / ".openclaw") == TREE
        undone = await done(process, "restore_from_backup_stream", {"backupName": two["name"]})
        assert content(home / ".openclaw") == {**TREE, "openclaw.json": b'{"a": 2}'}
        assert undone["info"] == two
        assert undone["message"] == f"Restored from backup '{two['name']}'"
        assert content(Path(undone["previous"]["path"])) == TREE
        assert undone["previous"] in await process.call("list_backups")

        assert await process.call("delete_backup", {"backupName": one["name"]}) is True
        assert await process.call("delete_backup", {"backupName": one["name"]}) is False
        assert one not in await process.call("list_backups")
        assert one["name"] not in backups(home)
        assert content(Path(two["path"])) == {**TREE, "openclaw.json": b'{"a": 2}'}
        assert process.stderr() == ""


async def test_without_sessions_the_transcripts_stay_out_in_both_forms(home: Path) -> None:
    params = {"includeSessions": False}
    async with SidecarProcess(home) as process:
        eager = await process.call("backup_before_upgrade", params)
        streamed = (await done(process, "backup_before_upgrade_stream", params))["info"]

        for info in (eager, streamed):
            assert content(Path(info["path"])) == {
                name: text for name, text in TREE.items() if not name.endswith(".jsonl")
            }
            assert info["status"] == "complete"


@pytest.mark.parametrize(
    ("option", "params", "is_shared"),
    [
        ((), {}, True),
        (("--no-share",), {}, False),
        (("--no-share",), {"share": True}, True),
        ((), {"share": False}, False),
    ],
    ids=["as it is", "not in this process", "in spite of the process", "not this one"],
)
async def test_what_did_not_change_is_shared_unless_that_is_not_wanted(
    home: Path, option: tuple[str, ...], params: dict[str, bool], is_shared: bool
) -> None:
    name = "memory/notes.md"
    # Long enough ago that nothing could have changed it since without a trace.
    os.utime(home / ".openclaw" / name, (1_000_000_000, 1_000_000_000))
    async with SidecarProcess(home, command=(*COMMAND, *option)) as process:
        made = [await process.call("backup_before_upgrade", params) for _ in range(2)]

    one, two = ((Path(info["path"]) / name).stat() for info in made)
    if is_shared and one.st_ino != two.st_ino:
        pytest.skip("this file system shares what files hold, and not files")
    assert (one.st_ino == two.st_ino) == is_shared


class TestProgress:
    async def test_it_has_totals_from_the_first_file_on_and_ends_with_the_last_state(self, big_home: Path) -> None:
        async with SidecarProcess(big_home) as process:
            begun_s = time.monotonic()
            told = await ended(process, "backup_before_upgrade_stream")
            took_s = time.monotonic() - begun_s

        assert methods(told)[-2:] == ["backup:progress", "backup:done"]
        states = [message["params"] for message in told[:-1]]
        assert set(methods(told)[:-1]) == {"backup:progress"}
        assert len(states) <= took_s / PROGRESS_S + 2
        total = BIG_BYTES + sum(map(len, TREE.values()))
        for state in states:
            if state["filesCopied"] or state["bytesCopied"]:
                assert (state["filesTotal"], state["bytesTotal"]) == (len(TREE) + 1, total)
            assert state["phase"] in {"snapshot", "config", "agents", "memory", "done"}
            assert state["filesCopied"] <= len(TREE) + 1
        assert any(0 < state["bytesCopied"] < total for state in states), "it is told of inside one file too"
        assert [state["bytesCopied"] for state in states] == sorted(state["bytesCopied"] for state in states)
        last = {name: value for name, value in states[-1].items() if name not in {"handleId", "seq"}}
        assert last == {
            "phase": "done",
            "filesCopied": len(TREE) + 1,
            "bytesCopied": total,
            "filesTotal": len(TREE) + 1,
            "bytesTotal": total,
            "currentPath": None,
        }

    @pytest.mark.parametrize("method", ["verify_backup_stream", "restore_from_backup_stream"])
    async def test_checks_and_restores_have_the_same(self, home: Path, method: str) -> None:
        async with SidecarProcess(home) as process:
            info = await process.call("backup_before_upgrade")
            for name in TREE:
                (home / ".openclaw" / name).write_bytes(b"other")
            told = await ended(process, method, {"backupName": info["name"]})

        family = method.partition("_")[0]
        assert methods(told)[-2:] == [f"{family}:progress", f"{family}:done"]
        last = told[-2]["params"]
        assert (last["phase"], last["currentPath"]) == ("done", None)
        assert (last["filesCopied"], last["bytesCopied"]) == (last["filesTotal"], last["bytesTotal"])
        assert last["filesTotal"] == len(TREE)


class TestCancel:
    async def test_in_the_middle_of_a_big_file_leaves_nothing_when_the_terminal_comes(
        self, huge_home: Path, record_measured: Callable[[str], None]
    ) -> None:
        async with SidecarProcess(huge_home) as process:
            before = await process.call("backup_before_upgrade", {"includeSessions": False, "share": False})
            handle = await process.start_stream({"share": False}, "backup_before_upgrade_stream")
            while (await process.notification(handle))["params"]["currentPath"] != "memory/zz-big.jsonl":
                pass
            cancelled_s = time.monotonic()
            assert await process.call("cancel_stream", {"handleId": handle}) is True
            answered_s = time.monotonic()
            told = await process.collect(handle)
            took_s = time.monotonic() - cancelled_s

            left = backups(huge_home)
            assert methods(told)[-2:] == ["backup:cancelled", "backup:error"]
            assert set(methods(told)[:-2]) <= {"backup:progress"}
            assert {name: told[-1]["params"][name] for name in ("error", "kind")} == {
                "error": "cancelled",
                "kind": "cancelled",
            }
            assert left == [before["name"], f"{before['name']}.manifest.jsonl"]
            assert await process.call("cancel_stream", {"handleId": handle}) is False
            assert await process.call("list_backups") == [before]
            record_measured(
                f"cancel in the middle of {HUGE_BYTES // MIB} MiB: reply after {(answered_s - cancelled_s) * 1000:.1f} "
                f"ms, terminal after {took_s * 1000:.1f} ms"
            )
            assert took_s < TERMINAL_WITHIN_S

    @pytest.mark.parametrize("method", ["verify_backup_stream", "restore_from_backup_stream"])
    async def test_of_a_check_and_of_a_restore_that_has_changed_nothing_yet(self, huge_home: Path, method: str) -> None:
        async with SidecarProcess(huge_home) as process:
            info = await process.call("backup_before_upgrade")
            (huge_home / ".openclaw" / "openclaw.json").write_bytes(b"other")
            before = content(huge_home / ".openclaw").keys(), backups(huge_home)
            handle = await process.start_stream({"backupName": info["name"]}, method)
            # Both look at every byte of the snapshot first.
            assert (await process.notification(handle))["method"].endswith(":progress")
            assert await process.call("cancel_stream", {"handleId": handle}) is True
            told = await process.collect(handle)

            family = method.partition("_")[0]
            assert methods(told)[-2:] == [f"{family}:cancelled", f"{family}:error"]
            assert (content(huge_home / ".openclaw").keys(), backups(huge_home)) == before
            assert (huge_home / ".openclaw" / "openclaw.json").read_bytes() == b"other"

    async def test_a_shutdown_ends_a_backup_and_leaves_nothing(self, huge_home: Path) -> None:
        async with SidecarProcess(huge_home) as process:
            handle = await process.start_stream(None, "backup_before_upgrade_stream")
            await process.notification(handle)
            assert await process.call("shutdown") is True
            told = await process.collect(handle)

            assert methods(told)[-2:] == ["backup:cancelled", "backup:error"]
            assert await process.exit_code() == 0
            assert backups(huge_home) == []

    async def test_a_shutdown_ends_an_eager_one_as_well(self, huge_home: Path) -> None:
        async with SidecarProcess(huge_home) as process:
            asked = await process.request("backup_before_upgrade")
            await eventually(lambda: bool(backups(huge_home)), "it has begun")
            assert await process.call("shutdown") is True

            assert (await process.reply(asked))["error"]["data"]["kind"] == "cancelled"
            assert await process.exit_code() == 0
            assert backups(huge_home) == []

    async def test_the_end_of_input_lets_it_finish(self, big_home: Path) -> None:
        async with SidecarProcess(big_home) as process:
            handle = await process.start_stream(None, "backup_before_upgrade_stream")
            process.close_stdin()
            told = await process.collect(handle)

            assert told[-1]["method"] == "backup:done"
            assert await process.exit_code() == 0
            assert len(backups(big_home)) == 2


def write_leftovers(home: Path) -> dict[str, Path]:
    """What a crash may leave, of each kind, by what it is."""
    backups = home / ".clawpal" / "backups"
    left = {
        "staged": backups / ".partial-1",
        "being removed": backups / ".deleted-1",
        "a manifest": backups / "2026-01-01_000000.manifest.jsonl",
        "a restore": home / ".openclaw" / ".clawpal-restore",
    }
    for name, path in left.items():
        if name == "a manifest":
            path.write_text("{}\n")
        else:
            (path / "new").mkdir(parents=True)
            (path / "new" / "1").write_text("secret")
    return left


@pytest.mark.parametrize("what", ["staged", "being removed", "a manifest", "a restore"])
async def test_what_a_crash_left_is_removed_at_the_next_start_without_a_command(home: Path, what: str) -> None:
    left = write_leftovers(home)
    for name, path in left.items():
        if name != what:
            path.unlink() if path.is_file() else shutil.rmtree(path)
    async with SidecarProcess(home) as process:
        await eventually(lambda: not left[what].exists(), "it is gone")
        assert await process.call("list_backups") == []
    assert content(home / ".openclaw") == TREE


def test_a_start_loads_what_ends_a_crash_only_after_one(home: Path) -> None:
    code = """
import os, sys, threading
os.environ["HOME"] = sys.argv[1]
from sidecar.server import stdio
stdio._after_start(threading.Event())
print("sidecar.backup.restore" in sys.modules)
"""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OPENCLAW", "CLAWPAL"))}
    command = [sys.executable, "-c", code, str(home)]

    def start() -> str:
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout.strip()

    assert start() == "False"
    assert not (home / ".clawpal").exists()
    write_leftovers(home)
    assert start() == "True"
    assert start() == "False"


async def test_other_commands_are_answered_while_eager_backups_are_made(huge_home: Path) -> None:
    async with SidecarProcess(huge_home) as process:
        made = [await process.request("backup_before_upgrade", {"share": False}) for _ in range(3)]
        assert len(await process.call("list_session_files")) == 3
        await process.call("shutdown")
        for request_id in made:
            # None was through before: else this would have proved nothing.
            assert (await process.reply(request_id))["error"]["data"]["kind"] == "cancelled"


async def test_two_at_once_are_two_backups(big_home: Path) -> None:
    async with SidecarProcess(big_home) as process:
        handles = [await process.start_stream(None, "backup_before_upgrade_stream") for _ in range(2)]
        told = [(await process.collect(handle))[-1] for handle in handles]

        assert methods(told) == ["backup:done"] * 2
        one, two = (message["params"]["info"] for message in told)
        assert one["name"] != two["name"]
        assert one["status"] == two["status"] == "complete"
        assert sorted(map(_name, await process.call("list_backups"))) == sorted(map(_name, (one, two)))
        for info in (one, two):
            await done(process, "verify_backup_stream", {"backupName": info["name"]})


class TestRefusals:
    NAMES = ("", ".", "..", "a/b", "/abs", "a\\b", "a\0b", ".partial-1", "x" * 300)

    @pytest.mark.parametrize("name", NAMES, ids=[*map(repr, NAMES[:-1]), "too long"])
    async def test_what_is_no_name_is_refused_and_nothing_is_touched(self, home: Path, name: str) -> None:
        async with SidecarProcess(home) as process:
            info = await process.call("backup_before_upgrade")
            before = content(home)
            for method in ("delete_backup", "restore_from_backup"):
                error = await process.rejected(method, {"backupName": name})
                assert (error["code"], error["data"]["kind"]) == (-32602, "invalid_params")
                assert error["message"].startswith("backupName: ")
            for method in ("verify_backup_stream", "restore_from_backup_stream"):
                (error,) = await ended(process, method, {"backupName": name})
                assert error["params"]["kind"] == "invalid_params"

            assert content(home) == before
            assert await process.call("list_backups") == [info]

    async def test_what_there_is_none_of_is_not_found(self, home: Path) -> None:
        async with SidecarProcess(home) as process:
            await process.call("backup_before_upgrade")
            before = content(home)
            error = await process.rejected("restore_from_backup", {"backupName": "gone"})
            told = [
                (await ended(process, method, {"backupName": "gone"}))[-1]["params"]
                for method in ("verify_backup_stream", "restore_from_backup_stream")
            ]

            assert error["data"]["kind"] == "backup_not_found"
            assert [params["kind"] for params in told] == ["backup_not_found"] * 2
            assert await process.call("delete_backup", {"backupName": "gone"}) is False
            assert content(home) == before

    async def test_a_damaged_one_is_named_by_what_is_damaged_and_not_restored(self, home: Path) -> None:
        async with SidecarProcess(home) as process:
            info = await process.call("backup_before_upgrade")
            damaged = Path(info["path"]) / "memory" / "notes.md"
            damaged.write_bytes(damaged.read_bytes().replace(b"N", b"M"))
            before = content(home / ".openclaw")

            for method in ("verify_backup_stream", "restore_from_backup_stream"):
                params = (await ended(process, method, {"backupName": info["name"]}))[-1]["params"]
                assert params["kind"] == "backup_damaged"
                assert params["failedItems"] == 1
                assert [failure["path"] for failure in params["failures"]] == ["memory/notes.md"]
            error = await process.rejected("restore_from_backup", {"backupName": info["name"]})
            assert error["data"]["kind"] == "backup_damaged"
            assert error["data"]["failures"] == params["failures"]
            assert content(home / ".openclaw") == before
            assert len(await process.call("list_backups")) == 1

    async def test_parameters_of_the_wrong_type_are_refused(self, home: Path) -> None:
        async with SidecarProcess(home) as process:
            for method, params in (
                ("backup_before_upgrade", {"includeSessions": "no"}),
                ("backup_before_upgrade_stream", {"share": 1}),
                ("restore_from_backup", {"backupName": "x", "force": "yes"}),
                ("restore_from_backup_stream", {}),
                ("verify_backup_stream", {"backupName": 7}),
                ("delete_backup", None),
            ):
                error = await process.rejected(method, params)
                assert error["data"]["kind"] == "invalid_params", method
            assert backups(home) == []

    async def test_a_restore_beside_an_open_database_is_refused_unless_it_is_forced(self, home: Path) -> None:
        path = home / ".openclaw" / "memory" / "main.sqlite"
        _make_database(path)
        async with SidecarProcess(home) as process:
            name = {"backupName": (await process.call("backup_before_upgrade"))["name"]}
            with path.open("rb"):
                params = (await ended(process, "restore_from_backup_stream", name))[-1]["params"]
                assert params["kind"] == "target_in_use"
                assert any("main.sqlite" in user for user in params["users"])
                assert len(await process.call("list_backups")) == 1
                forced = await done(process, "restore_from_backup_stream", {**name, "force": True})

        assert forced["info"]["name"] == name["backupName"]


class TestAtTheStart:
    async def test_what_a_killed_process_left_is_cleared_away_without_a_command(self, huge_home: Path) -> None:
        async with SidecarProcess(huge_home) as process:
            await process.request("backup_before_upgrade")
            await eventually(lambda: bool(backups(huge_home)), "something is staged")
            process.send_signal(9)
            await process.exit_code()
        assert backups(huge_home)

        async with SidecarProcess(huge_home) as process:
            assert await process.call("ping") == "pong"
            await eventually(lambda: backups(huge_home) == [], "what was left is gone")
            assert process.stderr() == ""

    async def test_what_another_process_is_making_is_left_alone(self, huge_home: Path) -> None:
        async with SidecarProcess(huge_home) as one:
            handle = await one.start_stream(None, "backup_before_upgrade_stream")
            await one.notification(handle)
            async with SidecarProcess(huge_home) as other:
                await other.call("analyze_sessions")
                await other.at_rest()
            assert (await one.collect(handle))[-1]["method"] == "backup:done"

    @pytest.mark.parametrize("has_home", [True, False])
    async def test_nothing_is_made_and_nothing_is_said(self, tmp_path: Path, has_home: bool) -> None:
        async with SidecarProcess(tmp_path if has_home else None) as process:
            await process.call("list_ssh_hosts") if has_home else await process.rejected("list_ssh_hosts")
            await process.at_rest()

            assert os.listdir(tmp_path) == []
            assert process.stderr() == ""


def _with_file(home: Path, size_bytes: int) -> Path:
    with open(home / ".openclaw" / "memory" / "zz-big.jsonl", "wb") as file:
        file.truncate(size_bytes)
    return home


def _name(info: Any) -> str:
    return str(info["name"])


def _make_database(path: Path) -> None:

    connection = sqlite3.connect(path)
    connection.execute("create table t (x)")
    connection.commit()
    connection.close()
