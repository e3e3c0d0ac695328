"""Exactly what was asked is deleted, whatever a client sends, and the index loses exactly the entries of it."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.cancel import CancelToken
from sidecar.errors import Cancelled, SessionsRefused, SourceUnreadable
from sidecar.limits import INDEX_LOCK_WAIT_S, LOCK_STALE_S, MAX_INDEX_TRIES, MAX_NAMED_REFUSALS
from sidecar.stores import index_rewrite, session_folders
from sidecar.stores.deletion import clear_all, delete_sessions
from sidecar.stores.files import open_folder
from sidecar.stores.home import LocalHome
from sidecar.stores.index_rewrite import Folder, forget_transcripts, live_lock, without_entries
from sidecar.stores.session_index import BrokenIndex
from sidecar.text import wire_name

REAL = Path(__file__).resolve().parents[3] / "shared/real-openclaw"
UUID = "7f3c9a1e-0b52-4c8e-9d3a-111111111111"
TIME = "2026-11-22T20-15-53.605Z"
OWN = (
    "abc.jsonl",
    "abc.trajectory.jsonl",
    "abc.trajectory-path.json",
    f"abc.checkpoint.{UUID}.jsonl",
    "abc.jsonl.lock",
)
OTHERS = (
    "abcdef.jsonl",
    "abc-topic-1.jsonl",
    "xabc.jsonl",
    "abc.def.jsonl",
    "abc.jsonl.jsonl",
    "ABC.jsonl",
    "abcdef.trajectory.jsonl",
    f"abc-topic-1.checkpoint.{UUID}.jsonl",
    f"abc.jsonl.reset.{TIME}",
    f"abc.jsonl.deleted.{TIME}.zst",
    f"abc.jsonl.bak.{TIME}",
    "abc.json",
    "abc",
    "abc.jsonl.tmp",
    "abc.trajectory.jsonl.bak",
    "sessions.json.lock.old",
)


def old(path: Path, age_s: float) -> None:
    os.utime(path, (time.time() - age_s,) * 2)


class Patched:
    """A module with some of its names replaced, for one module that uses it."""

    def __init__(self, module: ModuleType, **replaced: Any) -> None:
        self._module = module
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class Home:
    """An OpenClaw directory with one agent."""

    def __init__(self, root: Path, agent: str = "main") -> None:
        self.root = root
        self.agent = agent
        self.folder = root / "agents" / agent
        self.sessions = self.folder / "sessions"
        self.index = self.sessions / "sessions.json"
        self.sessions.mkdir(parents=True)

    def write(self, *names: str, folder: str = "sessions") -> None:
        for name in names:
            path = self.folder / folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(name)
            if name.endswith(".lock"):  # which makes it a stale one
                old(path, 2 * LOCK_STALE_S)

    def write_index(self, *entries: dict[str, Any]) -> None:
        """As OpenClaw does: ``JSON.stringify(index, null, 2)``."""
        index = {f"agent:main:{number}": entry for number, entry in enumerate(entries)}
        self.index.write_text(json.dumps(index, indent=2, ensure_ascii=False))

    def indexed(self) -> list[str]:
        return [entry["sessionId"] for entry in json.loads(self.index.read_text()).values()]

    def names(self, folder: str = "sessions") -> set[str]:
        return set(os.listdir(self.folder / folder))

    def delete(self, *session_ids: str, **options: Any) -> int:
        return delete_sessions(LocalHome(str(self.root), **options), self.agent, session_ids, CancelToken())

    def refusals(self, *session_ids: str, **options: Any) -> tuple[int, dict[str, str]]:
        """How many were deleted, and the reasons why others weren't."""
        with pytest.raises(SessionsRefused) as refused:
            self.delete(*session_ids, **options)
        details = refused.value.details
        assert all(each["agent"] == self.agent for each in details["refused"])
        return details["deleted"], {each["sessionId"]: each["reason"] for each in details["refused"]}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def every_file(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


# What goes


def test_a_session_goes_with_its_traces_checkpoints_and_stale_lock_and_nothing_else(home: Home) -> None:
    home.write(*OWN, *OTHERS)
    assert home.delete("abc") == 1
    assert home.names() == set(OTHERS)


def test_a_session_goes_from_its_own_agent_and_folder_only(home: Home) -> None:
    other = Home(home.root, "other")
    for each in (home, other):
        each.write("abc.jsonl", "abc.trajectory.jsonl")
        each.write("abc.jsonl", "abc.trajectory.jsonl", folder="sessions_archive")
    before = every_file(home.root)
    assert home.delete("abc") == 1
    gone = {"agents/main/sessions/abc.jsonl", "agents/main/sessions/abc.trajectory.jsonl"}
    assert set(before) - set(every_file(home.root)) == gone


def test_a_transcript_in_the_archive_folder_goes_by_its_file_name_with_its_own_traces(home: Home) -> None:
    home.write("abc.jsonl", "abc.trajectory.jsonl")
    home.write("abc.jsonl", "abc.trajectory.jsonl", "abc-topic-1.jsonl", folder="sessions_archive")
    assert home.delete("abc.jsonl") == 1
    assert home.names("sessions_archive") == {"abc-topic-1.jsonl"}
    assert home.names() == {"abc.jsonl", "abc.trajectory.jsonl"}


@pytest.mark.parametrize("folder", ["sessions", "sessions_archive"])
@pytest.mark.parametrize(
    "archive",
    [
        f"abc.jsonl.reset.{TIME}",
        f"abc.jsonl.deleted.{TIME}.zst",
        f"abc.jsonl.deleted.{TIME}.{UUID.replace('-', '')}.zst",
    ],
)
def test_an_archive_goes_when_it_is_named_by_its_own_id_and_leaves_the_session_and_its_traces(
    home: Home, folder: str, archive: str
) -> None:
    home.write(*OWN)
    home.write(archive, f"abd{archive}", folder=folder)
    before = every_file(home.root)
    assert home.delete(archive) == 1
    assert set(before) - set(every_file(home.root)) == {f"agents/main/{folder}/{archive}"}


def test_several_sessions_go_at_once_and_one_named_twice_counts_once(home: Home) -> None:
    home.write("a.jsonl", "b.jsonl", "c.jsonl", f"a.jsonl.reset.{TIME}")
    assert home.delete("a", "b", "a", f"a.jsonl.reset.{TIME}") == 3
    assert home.names() == {"c.jsonl"}


def test_no_session_at_all_is_none_deleted(home: Home) -> None:
    home.write(*OWN)
    assert home.delete() == 0
    assert home.names() == set(OWN)


def test_a_transcript_that_is_a_link_loses_the_link_and_never_its_target(home: Home) -> None:
    target = home.root / "elsewhere.jsonl"
    target.write_text("kept")
    (home.sessions / "abc.jsonl").symlink_to(target)
    (home.sessions / "dangling.jsonl").symlink_to("nowhere")
    (home.sessions / "loop.jsonl").symlink_to("loop.jsonl")
    assert home.delete("abc", "dangling", "loop") == 3
    assert home.names() == set()
    assert target.read_text() == "kept"


def test_an_agent_folder_and_a_sessions_folder_may_be_links(tmp_path: Path) -> None:
    elsewhere = Home(tmp_path / "large disk", "moved")
    elsewhere.write(*OWN, *OTHERS)
    moved = Home(tmp_path / "home")
    moved.sessions.rmdir()
    moved.sessions.symlink_to(elsewhere.sessions)
    moved.write("old.jsonl", folder="sessions_archive")
    (moved.root / "agents" / "linked").symlink_to(moved.folder)
    assert delete_sessions(LocalHome(str(moved.root)), "linked", ["abc", "old.jsonl"], CancelToken()) == 2
    assert elsewhere.names() == set(OTHERS)
    assert moved.names("sessions_archive") == set()


def test_a_folder_or_a_fifo_named_like_a_session_is_none_and_stays(home: Home) -> None:
    (home.sessions / "folder.jsonl").mkdir()
    (home.sessions / "abc.trajectory.jsonl").mkdir()
    os.mkfifo(home.sessions / "fifo.jsonl")
    home.write("abc.jsonl")
    assert home.refusals("folder", "abc", "fifo") == (1, dict.fromkeys(("folder", "fifo"), "no such file or directory"))
    assert home.names() == {"folder.jsonl", "abc.trajectory.jsonl", "fifo.jsonl"}


@pytest.mark.parametrize(
    "name",
    [b"\xff", b"caf\xe9", "größe".encode(), "\ufffdff".encode(), b"a\nb", b'quote"', b"x" * 249, b" ", b".hidden"],
)
def test_a_name_of_any_bytes_is_deleted_by_the_id_that_the_wire_shows(tmp_path: Path, name: bytes) -> None:
    home = Home(tmp_path)
    others = (b"\xfe.jsonl", b"caf\xe8.jsonl", b"\xef\xbf\xbd.jsonl", b"x" * 248 + b".jsonl")
    for each in (name + b".jsonl", *others):
        with open(os.fsencode(home.sessions) + b"/" + each, "wb"):
            pass
    assert home.delete(wire_name(os.fsdecode(name))) == 1
    assert {os.fsencode(each) for each in home.names()} == set(others)


def test_an_agent_with_a_name_of_any_bytes_is_found_by_its_wire_name(tmp_path: Path) -> None:
    home = Home(tmp_path, os.fsdecode(b"ag\xffent"))
    home.write("abc.jsonl")
    assert delete_sessions(LocalHome(str(tmp_path)), "ag\ufffdffent", ["abc"], CancelToken()) == 1
    assert home.names() == set()


# What is refused


BAD_NAMES = [
    "",
    ".",
    "..",
    "/",
    "a/b",
    "../main/abc",
    "/etc/passwd",
    "a\\b",
    "..\\main",
    "a\0",
    "\0",
    "x" * 256,
    "ä" * 128,
]
BAD_NAMES += ["\ud800", "\ufffd\ud800", "�ff" * 256]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_an_id_that_can_not_be_a_name_is_refused_and_what_else_was_asked_still_happens(home: Home, name: str) -> None:
    home.write(*OWN, "x.jsonl")
    home.write("abc.jsonl", folder="sessions_archive")
    deleted, reasons = home.refusals(name, "x")
    assert deleted == 1
    assert set(reasons) == {name}
    assert "name" in reasons[name]
    assert home.names() == set(OWN)
    assert home.names("sessions_archive") == {"abc.jsonl"}


@pytest.mark.parametrize("name", [*BAD_NAMES, "nobody", "main ", "MAIN", "link"])
def test_an_agent_of_a_bad_or_an_unknown_name_is_refused_before_any_file_is_touched(home: Home, name: str) -> None:
    home.write(*OWN)
    (home.root / "agents" / "link").symlink_to("nowhere")
    before = every_file(home.root)
    with pytest.raises(SessionsRefused) as refused:
        delete_sessions(LocalHome(str(home.root)), name, ["abc", "", "abc"], CancelToken())
    assert refused.value.details["deleted"] == 0
    assert [each["sessionId"] for each in refused.value.details["refused"]] == ["abc", ""]
    assert ("name" if name in BAD_NAMES else "no such file") in refused.value.message
    assert every_file(home.root) == before


@pytest.mark.parametrize(
    "name", ["abcd", "ab", "sessions.json", "sessions", "abc.trajectory", "abc.jsonl.lock", "ABC", "abc*"]
)
def test_an_unknown_id_is_refused_with_no_such_file(home: Home, name: str) -> None:
    home.write(*OWN, "sessions.json")
    assert home.refusals(name) == (0, {name: "no such file or directory"})
    assert home.names() == {*OWN, "sessions.json"}


@settings(max_examples=60)
@given(st.text(max_size=12) | st.sampled_from([*OWN, *OTHERS]) | st.text("abc./\\\0-", max_size=8))
def test_whatever_the_id_nothing_but_that_session_is_deleted(session_id: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        home.write(*OWN, *OTHERS)
        home.write("abc.jsonl", f"abc.jsonl.reset.{TIME}", "abcdef.jsonl", folder="sessions_archive")
        before = set(every_file(home.root))
        try:
            deleted = home.delete(session_id)
        except SessionsRefused as refused:
            deleted = refused.details["deleted"]
        gone = {os.path.basename(path) for path in before - set(every_file(home.root))}
        assert bool(gone) == bool(deleted)
        assert all(name.startswith(session_id) for name in gone)
        assert len([name for name in gone if name in {session_id, f"{session_id}.jsonl"}]) == deleted


def test_an_id_that_more_than_one_file_has_is_refused(home: Home) -> None:
    archive = f"abc.jsonl.reset.{TIME}"
    home.write(archive, "x.jsonl.jsonl")
    home.write(archive, "x.jsonl", folder="sessions_archive")
    before = every_file(home.root)
    _, reasons = home.refusals(archive, "x.jsonl")
    assert reasons == dict.fromkeys((archive, "x.jsonl"), "more than one file has this id")
    assert every_file(home.root) == before


def test_a_session_of_the_database_is_refused_and_what_is_left_of_it_as_files_goes_by_its_file_name(home: Home) -> None:
    home.write(*OWN, "x.jsonl")
    deleted, reasons = home.refusals("abc", "x", database_ids=lambda agent: {"abc", agent.name})
    assert deleted == 1
    assert "only OpenClaw itself can delete it" in reasons["abc"]
    assert home.names() == set(OWN)
    assert home.delete("abc.jsonl", database_ids=lambda _: {"abc"}) == 1
    assert home.names() == set()


def test_without_a_database_that_has_it_a_live_transcript_does_not_go_by_its_file_name(home: Home) -> None:
    home.write("abc.jsonl")
    assert home.refusals("abc.jsonl") == (0, {"abc.jsonl": "no such file or directory"})


def test_a_database_that_can_not_be_read_refuses_all_since_any_session_may_be_in_it(home: Home) -> None:
    def unreadable(_: object) -> set[str]:
        raise SourceUnreadable("the database is corrupt")

    home.write("abc.jsonl")
    assert home.refusals("abc", "x", database_ids=unreadable) == (
        0,
        dict.fromkeys(("abc", "x"), "the database is corrupt"),
    )
    assert home.names() == {"abc.jsonl"}


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("sessions/cold", f"{UUID.replace('-', '') * 2}.jsonl.zst"),
        ("session-sqlite-import-archive", "agent_main_main.abc.jsonl.imported-1795378579852"),
        ("session-sqlite-import-archive", "archive-tier.abc.jsonl.imported-1795378579852"),
        ("sessions", "agent_main_main.abc.jsonl.imported-1795378579852"),
    ],
)
def test_cold_storage_and_import_archives_are_refused_with_who_can_delete_them(
    home: Home, folder: str, name: str
) -> None:
    home.write(name, folder=folder)
    deleted, reasons = home.refusals(name)
    assert deleted == 0
    assert "OpenClaw itself can delete it" in reasons[name]
    assert home.names(folder) == {name}


def test_what_is_refused_is_told_in_one_text_that_names_the_first_ones(home: Home) -> None:
    home.write("abc.jsonl")
    unknown = [f"u{number}" for number in range(MAX_NAMED_REFUSALS + 2)]
    with pytest.raises(SessionsRefused) as refused:
        home.delete("abc", *unknown)
    message = refused.value.message
    assert message.startswith('1 sessions deleted, 5 refused: "u0": no such file or directory; "u1": ')
    assert message.endswith("; and 2 more")
    assert len(refused.value.details["refused"]) == 5


# Locks


@pytest.fixture(scope="module")
def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_a_session_whose_lock_is_held_by_a_running_process_is_refused_and_the_others_go(home: Home) -> None:
    home.write(*OWN, "x.jsonl")
    lock = home.sessions / "abc.jsonl.lock"
    lock.write_text(json.dumps({"pid": os.getpid(), "createdAt": "2026-11-22T20:15:53.605Z"}, indent=2))
    old(lock, 10 * LOCK_STALE_S)
    deleted, reasons = home.refusals("abc", "x")
    assert deleted == 1
    assert f"process {os.getpid()}" in reasons["abc"]
    assert home.names() == set(OWN)


def test_a_process_of_another_user_holds_its_lock(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, signal: int) -> None:
        assert (pid, signal) == (4711, 0)
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    home.write("abc.jsonl")
    (home.sessions / "abc.jsonl.lock").write_text('{"pid": 4711}')
    assert home.refusals("abc")[0] == 0


@pytest.mark.parametrize("pid", [None, 2**31 - 1, 2**63, 10**30])
def test_a_lock_of_a_process_that_has_ended_is_stale_and_goes_with_the_session(
    home: Home, dead_pid: int, pid: int | None
) -> None:
    home.write("abc.jsonl")
    lock = home.sessions / "abc.jsonl.lock"
    lock.write_text(json.dumps({"pid": dead_pid if pid is None else pid}))
    if pid and pid > 2**63:  # no number that a process can have: as good as none
        old(lock, LOCK_STALE_S + 1)
    assert home.delete("abc") == 1
    assert home.names() == set()


UNREADABLE_LOCKS = [
    "",
    "{",
    "[]",
    "4711",
    '{"pid": null}',
    '{"pid": "4711"}',
    '{"pid": 0}',
    '{"pid": -1}',
    '{"pid": 1.5}',
]


@pytest.mark.parametrize("text", UNREADABLE_LOCKS)
def test_a_lock_that_tells_no_process_counts_for_half_an_hour(home: Home, text: str) -> None:
    home.write("abc.jsonl")
    lock = home.sessions / "abc.jsonl.lock"
    lock.write_text(text)
    old(lock, LOCK_STALE_S - 10)
    assert home.refusals("abc")[0] == 0
    old(lock, LOCK_STALE_S + 10)
    assert home.delete("abc") == 1
    assert home.names() == set()


def test_a_fifo_or_a_folder_in_place_of_a_lock_counts_for_half_an_hour_and_stops_nothing(home: Home) -> None:
    home.write("a.jsonl", "b.jsonl")
    os.mkfifo(home.sessions / "a.jsonl.lock")
    (home.sessions / "b.jsonl.lock").mkdir()
    assert set(home.refusals("a", "b")[1]) == {"a", "b"}
    for name in "ab":
        old(home.sessions / f"{name}.jsonl.lock", LOCK_STALE_S + 10)
    assert home.delete("a", "b") == 2
    assert home.names() == {"a.jsonl.lock", "b.jsonl.lock"}


def test_where_processes_can_not_be_asked_for_a_lock_counts_for_half_an_hour(
    home: Home, monkeypatch: pytest.MonkeyPatch, dead_pid: int
) -> None:
    monkeypatch.setattr(index_rewrite, "os", Patched(os, name="nt", kill=None))
    home.write("abc.jsonl")
    lock = home.sessions / "abc.jsonl.lock"
    lock.write_text(json.dumps({"pid": dead_pid}))
    assert home.refusals("abc")[0] == 0
    old(lock, LOCK_STALE_S + 10)
    assert home.delete("abc") == 1


# The index


def entry(session_id: str, session_file: str | None = None, **fields: Any) -> dict[str, Any]:
    named = {} if session_file is None else {"sessionFile": f"/home/user/agents/main/sessions/{session_file}"}
    return {"sessionId": session_id, **named, "updatedAt": 1795378501364, **fields}


def test_the_entries_of_a_deleted_transcript_leave_the_index_and_the_rest_is_as_openclaw_would_write_it(
    home: Home,
) -> None:
    kept = [
        entry("abcdef"),
        entry("abc", "abc-topic-1.jsonl"),
        entry(
            "abd",
            "abd.jsonl",
            label="größe 🙂 \u2028",
            report={"a": [1, {"b": "}\n  },\n"}], "0.052148400000000004": 1e-7},
        ),
        {"updatedAt": 1},
        entry("x", f"abc.jsonl.reset.{TIME}"),
    ]
    home.write("abc.jsonl")
    home.write_index(
        kept[0], entry("abc"), *kept[1:3], entry("other", "abc.jsonl"), *kept[3:], entry("abc", sessionFile="")
    )
    index = json.loads(home.index.read_text())
    home.index.chmod(0o640)
    assert home.delete("abc") == 1
    wanted = {key: value for key, value in index.items() if value in kept}
    assert home.index.read_text() == json.dumps(wanted, indent=2, ensure_ascii=False)
    assert home.index.stat().st_mode & 0o777 == 0o640
    assert home.names() == {"sessions.json"}


def test_an_archive_of_a_session_and_one_in_the_archive_folder_leave_its_entry_in_the_index(home: Home) -> None:
    archive = f"abc.jsonl.reset.{TIME}"
    home.write("abc.jsonl", archive)
    home.write("abc.jsonl", folder="sessions_archive")
    home.write_index(entry("abc"), entry("abd"))
    before = home.index.read_bytes()
    assert home.delete("abc.jsonl", archive) == 2
    assert home.index.read_bytes() == before


def test_an_index_in_which_nothing_changes_is_not_written(home: Home) -> None:
    home.write("abc.jsonl")
    home.write_index(entry("abd"))
    was = home.index.stat()
    assert home.delete("abc") == 1
    now = home.index.stat()
    assert (was.st_ino, was.st_mtime_ns) == (now.st_ino, now.st_mtime_ns)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_index_keeps_its_owner_when_another_user_deletes(home: Home) -> None:
    home.write("abc.jsonl")
    home.write_index(entry("abc"), entry("abd"))
    os.chown(home.index, 1_234, 5_678)
    home.index.chmod(0o640)
    assert home.delete("abc") == 1
    found = home.index.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (1_234, 5_678, 0o640)
    assert home.indexed() == ["abd"]


def test_the_transcripts_are_gone_for_good_before_the_index_is_changed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Faulty(1_000, crash)
    monkeypatch.setattr(index_rewrite, "os", seen)
    home.write(*OWN, "abd.jsonl")
    home.write_index(entry("abc"), entry("abd"))
    assert home.delete("abc", "abd") == 2
    calls = "".join(f"{name} " for name in seen.called if name in {"unlink", "fsync", "replace"})
    assert calls.startswith("unlink " * (len(OWN) + 1) + "fsync fsync replace fsync ")


def test_an_index_that_is_a_link_becomes_a_file_as_when_openclaw_writes_it_and_its_target_is_left(home: Home) -> None:
    target = home.root / "index.json"
    home.write("abc.jsonl")
    home.write_index(entry("abc"), entry("abd"))
    home.index.rename(target)
    home.index.symlink_to(target)
    before = target.read_bytes()
    assert home.delete("abc") == 1
    assert home.indexed() == ["abd"]
    assert target.read_bytes() == before


BROKEN = [
    "",
    "{",
    "[]",
    "null",
    '{"a": {"sessionId": "abc"},}',
    '{"a": {"sessionId": "abc"}} x',
    "{'a': 1}",
    "\ufeff{}",
]
BROKEN += ['{"a": {"sessionId": "abc"}, "a": {"sessionId": "abd"}}', '{"a": ' * 100_000]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_index_is_left_alone_and_does_not_stop_the_deletion(
    home: Home, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    home.write("abc.jsonl")
    home.index.write_text(text)
    assert home.delete("abc") == 1
    assert home.index.read_text() == text
    assert home.names() == {"sessions.json"}
    assert "keeps entries of deleted sessions" in caplog.text


def test_a_folder_or_a_fifo_in_place_of_the_index_does_not_stop_the_deletion(home: Home) -> None:
    home.write("abc.jsonl", "abd.jsonl")
    home.index.mkdir()
    assert home.delete("abc") == 1
    home.index.rmdir()
    os.mkfifo(home.index)
    assert home.delete("abd") == 1
    assert home.names() == {"sessions.json"}


INDEX_ENTRIES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(["a", "b", "c"]).map(lambda each: {"sessionId": each}),
    st.tuples(st.sampled_from("abc"), st.sampled_from(["/x/a.jsonl", "b.jsonl", "", "/y/c.jsonl/", "a"])).map(
        lambda each: {"sessionId": each[0], "sessionFile": each[1]}
    ),
    st.sampled_from(
        [{}, None, 1, "a", [], {"sessionId": 5}, {"sessionFile": None, "sessionId": "a"}, {"x": {"sessionId": "a"}}]
    ),
    st.fixed_dictionaries({"sessionId": st.just("b"), "text": st.text(max_size=8)}),
)


def transcript_of(index_entry: Any) -> str | None:
    if not isinstance(index_entry, dict):
        return None
    if isinstance(path := index_entry.get("sessionFile"), str) and path:
        return os.path.basename(path)
    return f"{index_entry['sessionId']}.jsonl" if isinstance(index_entry.get("sessionId"), str) else None


@given(
    st.dictionaries(st.text(max_size=5) | st.sampled_from(['"', "\\", "{}", ',"a":']), INDEX_ENTRIES, max_size=8),
    st.sampled_from([{}, {"indent": 2}, {"indent": "\t"}, {"separators": (" ,\r\n", " :\t")}]),
    st.booleans(),
    st.sets(st.sampled_from(["a.jsonl", "b.jsonl", "c.jsonl", "a", ""])),
)
def test_what_remains_of_an_index_is_that_index_without_the_entries(
    index: dict[str, Any], layout: dict[str, Any], ascii_only: bool, names: set[str]
) -> None:
    text = json.dumps(index, ensure_ascii=ascii_only, **layout).encode("utf-8", "surrogatepass")
    pieces = without_entries(text, names)
    wanted = {key: value for key, value in index.items() if transcript_of(value) not in names}
    remains = text if pieces is None else b"".join(pieces)
    assert remains == (json.dumps(wanted, ensure_ascii=ascii_only, **layout).encode() if wanted != index else text)


def test_an_index_with_half_a_surrogate_pair_or_invalid_utf_8_in_an_entry_keeps_every_byte_of_it() -> None:
    odd = b'"k":{"label":"\\ud83d","raw":"\xff\xed\xa0\xbd","text":"\xe2\x80\xa8"}'
    text = b'{"a":{"sessionId":"a"},' + odd + b',"\\udc00":{"sessionId":"a","label":"\\ud83d"}}\n'
    pieces = without_entries(text, {"a.jsonl"})
    assert pieces is not None
    assert b"".join(pieces) == b"{" + odd + b"}\n"


@pytest.mark.parametrize(
    "text",
    [
        # The second value of "a" is as long as the first and a part of what follows it.
        b'{"a":1,"b":{"x":1,"fakefak":0},"a":123456789012}',
        b'{"a":{"x":1},"b":22,"a":{"x":1}}',
        b'{"a":1,"b":{"sessionId":"a"},"a":22}',
        b'{"a":1,"\\u0061":1}',
        b"\xff{}",
    ],
)
def test_an_index_that_says_a_key_twice_or_is_no_json_is_broken(text: bytes) -> None:
    with pytest.raises(BrokenIndex):
        without_entries(text, {"a.jsonl"})


# Others write the index too


def written(entries: list[dict[str, Any]]) -> bytes:
    return json.dumps({f"agent:main:{n}": each for n, each in enumerate(entries)}, indent=2).encode()


def between_reading_and_renaming(home: Home, monkeypatch: pytest.MonkeyPatch, change: Callable[[int], None]) -> None:
    """Call ``change`` with 0, 1, 2 … each time the new index is written but not yet in its place."""
    times = iter(range(1_000))

    def fsync(fd: int) -> None:
        if home.index.exists() and os.path.basename(os.readlink(f"/proc/self/fd/{fd}")).startswith("sessions.json."):
            change(next(times))

    monkeypatch.setattr(index_rewrite, "os", Patched(os, fsync=fsync))


@pytest.mark.parametrize("in_place", [False, True])
def test_what_openclaw_writes_while_the_index_is_rewritten_is_not_lost(
    home: Home, monkeypatch: pytest.MonkeyPatch, in_place: bool
) -> None:
    def change(times: int) -> None:
        if times < 3:
            entries.append(entry(f"new{times}"))
            home.index.with_suffix(".new").write_bytes(written(entries))
            if in_place:
                home.index.write_bytes(written(entries))
            else:
                os.replace(home.index.with_suffix(".new"), home.index)

    entries = [entry("abc"), entry("abd")]
    home.write("abc.jsonl")
    home.index.write_bytes(written(entries))
    between_reading_and_renaming(home, monkeypatch, change)
    assert home.delete("abc") == 1
    assert home.indexed() == ["abd", "new0", "new1", "new2"]


def test_an_index_half_written_in_place_is_read_again_when_it_is_whole(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = written([entry("abc"), entry("abd")])

    class Half(io.FileIO):
        def readall(self) -> bytes:
            text = super().readall()
            if text != whole:
                home.index.write_bytes(whole)
            return text

    home.write("abc.jsonl")
    home.index.write_bytes(whole[:100])
    monkeypatch.setattr(index_rewrite, "io", Patched(io, FileIO=Half))
    assert home.delete("abc") == 1
    assert home.indexed() == ["abd"]


def test_an_index_that_never_stands_still_is_left_as_openclaw_wrote_it(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def change(times: int) -> None:
        home.index.write_bytes(written([entry("abc"), entry(f"new{times}")]))

    home.write("abc.jsonl")
    home.write_index(entry("abc"))
    between_reading_and_renaming(home, monkeypatch, change)
    assert home.delete("abc") == 1
    assert home.indexed() == ["abc", f"new{MAX_INDEX_TRIES - 1}"]
    assert home.names() == {"sessions.json"}
    assert "the session index changed" in caplog.text


def test_an_index_that_is_deleted_meanwhile_stays_away(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write("abc.jsonl")
    home.write_index(entry("abc"), entry("abd"))
    between_reading_and_renaming(home, monkeypatch, lambda _: home.index.unlink())
    assert home.delete("abc") == 1
    assert home.names() == set()


def test_a_live_lock_of_the_index_is_waited_for_and_it_is_held_while_we_write(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(_: float) -> None:
        polls.append(home.indexed())
        if len(polls) == 3:
            home.write_index(entry("abc"), entry("written under the lock"))
            lock.unlink()

    def change(_: int) -> None:
        held.update(json.loads(lock.read_text()))

    polls: list[list[str]] = []
    held: dict[str, Any] = {}
    lock = home.sessions / "sessions.json.lock"
    lock.write_text(json.dumps({"pid": os.getpid(), "startedAt": 1}))
    home.write("abc.jsonl")
    home.write_index(entry("abc"))
    monkeypatch.setattr(index_rewrite, "time", Patched(time, sleep=sleep))
    between_reading_and_renaming(home, monkeypatch, change)
    assert home.delete("abc") == 1
    assert polls == [["abc"]] * 3
    assert held["pid"] == os.getpid()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", held["createdAt"])
    assert home.indexed() == ["written under the lock"]
    assert home.names() == {"sessions.json"}


def test_an_index_that_stays_locked_is_left_alone_after_a_while_with_the_lock(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    monkeypatch.setattr(index_rewrite, "time", Patched(time, monotonic=clock, sleep=clock.sleep))
    home.write("abc.jsonl")
    home.write_index(entry("abc"))
    (home.sessions / "sessions.json.lock").write_text(json.dumps({"pid": os.getpid()}))
    assert home.delete("abc") == 1
    assert INDEX_LOCK_WAIT_S <= clock.now_s <= INDEX_LOCK_WAIT_S + 1
    assert home.indexed() == ["abc"]
    assert home.names() == {"sessions.json", "sessions.json.lock"}
    assert f"locked by process {os.getpid()}" in caplog.text


def test_a_stale_lock_of_the_index_is_taken_over(home: Home, dead_pid: int) -> None:
    home.write("abc.jsonl")
    home.write_index(entry("abc"))
    (home.sessions / "sessions.json.lock").write_text(json.dumps({"pid": dead_pid}))
    assert home.delete("abc") == 1
    assert home.indexed() == []
    assert home.names() == {"sessions.json"}


def test_a_lock_of_the_index_that_is_taken_while_it_is_looked_at_is_left_to_its_owner(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken_over_meanwhile(_: Folder, __: str) -> None:
        lock.unlink()
        lock.write_text(json.dumps({"pid": os.getpid()}))
        monkeypatch.setattr(index_rewrite, "live_lock", live_lock)

    clock = Clock()
    monkeypatch.setattr(index_rewrite, "time", Patched(time, monotonic=clock, sleep=clock.sleep))
    monkeypatch.setattr(index_rewrite, "live_lock", taken_over_meanwhile)
    lock = home.sessions / "sessions.json.lock"
    home.write("abc.jsonl", "sessions.json.lock")
    home.write_index(entry("abc"))
    assert home.delete("abc") == 1
    assert home.indexed() == ["abc"]
    assert json.loads(lock.read_text()) == {"pid": os.getpid()}


def test_a_lock_that_another_has_taken_from_us_is_not_released(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(_: int) -> None:
        lock.unlink()
        lock.write_text("another's")

    lock = home.sessions / "sessions.json.lock"
    home.write("abc.jsonl")
    home.write_index(entry("abc"))
    between_reading_and_renaming(home, monkeypatch, change)
    assert home.delete("abc") == 1
    assert lock.read_text() == "another's"


def test_two_deletions_at_once_both_get_their_entries_out(home: Home) -> None:
    ids = [f"s{number}" for number in range(40)]
    home.write(*(f"{session_id}.jsonl" for session_id in ids))
    home.write_index(*map(entry, ids), entry("kept"))
    threads = [threading.Thread(target=home.delete, args=ids[number::4]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert home.indexed() == ["kept"]
    assert home.names() == {"sessions.json"}


def test_entries_that_another_process_writes_under_the_lock_are_all_there_in_the_end(home: Home) -> None:
    """The other side does as OpenClaw: take the lock or wait, read, write a temporary file, rename, release."""

    def add_all() -> None:
        for number in range(100):
            add(number)

    def add(number: int) -> None:
        while True:
            try:
                os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
                break
            except FileExistsError:
                time.sleep(0.0005)
        index = json.loads(home.index.read_text()) | {f"new:{number}": entry(f"new{number}")}
        new = home.sessions / f"sessions.json.{number}.tmp"
        new.write_text(json.dumps(index, indent=2))
        new.replace(home.index)
        lock.unlink()

    lock = home.sessions / "sessions.json.lock"
    ids = [f"s{number}" for number in range(25)]
    home.write(*(f"{session_id}.jsonl" for session_id in ids))
    home.write_index(*map(entry, ids))
    writer = threading.Thread(target=add_all)
    writer.start()
    for session_id in ids:
        assert home.delete(session_id) == 1
    writer.join()
    assert home.indexed() == [f"new{number}" for number in range(100)]
    assert home.names() == {"sessions.json"}


class Clock:
    """Goes on only by sleeping."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


# Faults and crashes


class Faulty:
    """The ``os`` of a module, whose call number ``fails_at`` does nothing, or writes but half, and fails."""

    def __init__(self, fails_at: int, fail: Callable[[], None]) -> None:
        self.called: list[str] = []
        self._fails_at = fails_at
        self._fail = fail

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if not callable(found) or isinstance(found, type):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self.called.append(name)
            if len(self.called) - 1 == self._fails_at:
                if name == "write":
                    os.write(args[0], args[1][: len(args[1]) // 2])
                self._fail()
            return found(*args, **kwargs)

        return call


def disk_full() -> None:
    raise OSError(errno.ENOSPC, "no space left on device")


ENTRIES = [entry("abc"), entry("abd"), entry("abc", "abc.jsonl"), entry("x")]
OLD = written(ENTRIES)
NEW = OLD.replace(OLD[OLD.index(b'"agent:main:0"') : OLD.index(b'"agent:main:1"')], b"").replace(
    OLD[OLD.index(b'"agent:main:2"') : OLD.index(b'"agent:main:3"')], b""
)


def test_whatever_fails_while_the_index_is_rewritten_leaves_the_old_one_or_the_new_one_whole(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    while True:
        home.index.write_bytes(OLD)
        faulty = Faulty(len(calls), disk_full)
        monkeypatch.setattr(index_rewrite, "os", faulty)
        with open_folder(str(home.sessions)) as folder, suppress(OSError):
            forget_transcripts(Folder(*folder), {"abc.jsonl"})
        if len(calls) == len(faulty.called):
            break
        calls.append(faulty.called[len(calls)])
        assert home.index.read_bytes() in {OLD, NEW}, calls
        left = home.names() - {"sessions.json"}
        assert not left or calls[-1] in {"unlink", "stat", "fstat", "close"}, (calls, left)
        for name in left:
            (home.sessions / name).unlink()
    assert home.index.read_bytes() == NEW
    assert set(calls) >= {"open", "write", "fsync", "fchmod", "close", "replace", "unlink", "stat"}


def crash() -> None:
    os._exit(9)


def in_a_child(work: Callable[[], object]) -> int:
    """Do ``work`` in a process of its own; its exit code."""
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_wherever_a_deletion_crashes_no_transcript_has_lost_its_entry_and_the_index_is_whole(tmp_path: Path) -> None:
    """At each call of the system in turn; afterwards, deleting what is left succeeds, over the locks of the dead."""
    for number in itertools.count():
        home = Home(tmp_path / str(number))
        home.write(*OWN, "abd.jsonl", "kept.jsonl")
        home.write_index(entry("abc"), entry("kept"), entry("abd"))

        def crashing(home: Home = home, number: int = number) -> None:
            faulty = Faulty(number, crash)
            vars(index_rewrite)["os"] = vars(session_folders)["os"] = faulty
            home.delete("abc", "abd")

        code = in_a_child(crashing)
        names, indexed = home.names(), home.indexed()
        assert indexed in (["abc", "kept", "abd"], ["kept"])
        assert {f"{name}.jsonl" for name in ("abc", "abd", "kept")} & names <= {f"{name}.jsonl" for name in indexed}
        assert "abc.jsonl" in names or not names & set(OWN) - {"abc.jsonl.lock"}
        if not code:
            break
        assert code == 9
        left = [name for name in ("abc", "abd") if f"{name}.jsonl" in names]
        assert home.delete(*left) == len(left)
    assert names == {"kept.jsonl", "sessions.json"}
    assert number > 30


# Cancel, errors, all at once


def test_a_cancel_stops_between_two_sessions_and_the_index_loses_the_entries_of_those_that_are_gone(home: Home) -> None:
    class Token(CancelToken):
        """Cancelled once a transcript is gone."""

        def check(self) -> None:
            if len(home.names() & {"a.jsonl", "b.jsonl", "c.jsonl"}) < 3:
                self.cancel()
            super().check()

    home.write("a.jsonl", "b.jsonl", "c.jsonl")
    home.write_index(entry("a"), entry("b"), entry("c"))
    with pytest.raises(Cancelled):
        delete_sessions(LocalHome(str(home.root)), "main", ["a", "b", "c"], Token())
    assert home.names() == {"b.jsonl", "c.jsonl", "sessions.json"}
    assert home.indexed() == ["b", "c"]


def test_a_cancelled_token_deletes_nothing(home: Home) -> None:
    home.write(*OWN)
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        delete_sessions(LocalHome(str(home.root)), "main", ["abc"], token)
    with pytest.raises(Cancelled):
        clear_all(LocalHome(str(home.root)), token)
    assert home.names() == set(OWN)


def test_a_file_that_can_not_be_removed_refuses_its_session_and_the_others_go(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlink(path: str, **options: Any) -> None:
        if path == "abc.jsonl":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        os.unlink(path, **options)

    monkeypatch.setattr(index_rewrite, "os", Patched(os, unlink=unlink))
    home.write("abc.jsonl", "x.jsonl")
    home.write_index(entry("abc"), entry("x"))
    assert home.refusals("abc", "x") == (1, {"abc": "permission denied: abc.jsonl"})
    assert home.indexed() == ["abc"]


def test_a_session_that_vanishes_meanwhile_is_refused_with_no_such_file(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlink(path: str, **options: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)

    monkeypatch.setattr(index_rewrite, "os", Patched(os, unlink=unlink))
    home.write("abc.jsonl")
    assert home.refusals("abc") == (0, {"abc": "no such file or directory"})


def test_a_folder_that_can_not_be_listed_is_the_reason_why_an_id_is_not_found(home: Home) -> None:
    home.write("abc.jsonl")
    os.mkfifo(home.folder / "sessions_archive")
    deleted, reasons = home.refusals("abc", "old.jsonl")
    assert deleted == 1
    assert reasons["old.jsonl"].startswith("not a directory")


def test_an_agent_without_folders_has_no_sessions(tmp_path: Path) -> None:
    (tmp_path / "agents" / "main").mkdir(parents=True)
    with pytest.raises(SessionsRefused, match="no such file"):
        delete_sessions(LocalHome(str(tmp_path)), "main", ["abc"], CancelToken())
    assert clear_all(LocalHome(str(tmp_path)), CancelToken()) == 0
    assert clear_all(LocalHome(str(tmp_path / "nowhere")), CancelToken()) == 0


KEPT = (
    "sessions/sessions.json",
    "sessions/sessions.json.bak.1",
    f"sessions/abc.jsonl.bak.{TIME}",
    "sessions/notes.txt",
    "sessions/cold/0123.jsonl.zst",
    "sessions/skills-prompts/sha256/ab/abcd.txt",
    "sessions/below/abc.jsonl",
    "sessions/agent_main_main.abc.jsonl.imported-1",
    "sessions/abc.jsonl.zst",
    "sessions_archive/sessions.json",
    "session-sqlite-import-archive/agent_main_main.abc.jsonl.imported-1",
    "agent/openclaw-agent.sqlite",
    "agent/models.json",
    "abc.jsonl",
)
CLEARED = (
    *(
        f"sessions/{name}"
        for name in (*OWN, "abc-topic-1.jsonl", f"abc.jsonl.reset.{TIME}", f"x.jsonl.deleted.{TIME}.zst")
    ),
    "sessions/gone.trajectory-path.json",
    f"sessions/gone.checkpoint.{UUID}.jsonl",
    "sessions/gone.jsonl.lock",
    "sessions_archive/abc.jsonl",
    "sessions_archive/abc.trajectory.jsonl",
    f"sessions_archive/abc.jsonl.reset.{TIME}",
)


def fill(home: Home) -> None:
    for path in (*KEPT, *CLEARED):
        (home.folder / path).parent.mkdir(parents=True, exist_ok=True)
        home.write(os.path.basename(path), folder=os.path.dirname(path))
    home.write_index(entry("abc"), entry("elsewhere"), entry("abc", "abc-topic-1.jsonl"))


def test_clearing_all_removes_each_file_of_a_session_of_every_agent_and_nothing_else(tmp_path: Path) -> None:
    homes = [Home(tmp_path, agent) for agent in ("main", "other", "b")]
    for home in homes:
        fill(home)
    assert clear_all(LocalHome(str(tmp_path)), CancelToken()) == 3 * len(CLEARED)
    assert {path.split("/", 2)[2] for path in every_file(tmp_path)} == set(KEPT)
    assert [home.indexed() for home in homes] == [["elsewhere"]] * 3
    assert clear_all(LocalHome(str(tmp_path)), CancelToken()) == 0


def test_clearing_all_leaves_sessions_with_a_live_lock_and_names_them(tmp_path: Path) -> None:
    homes = [Home(tmp_path, agent) for agent in ("main", "other")]
    for home in homes:
        fill(home)
    live = ("sessions/abc.jsonl.lock", "sessions/gone.jsonl.lock", "sessions_archive/abc.jsonl.lock")
    for path in live:
        (homes[1].folder / path).write_text(json.dumps({"pid": os.getpid()}))
    stay = {path for path in CLEARED if path.split("/")[1].split(".")[0] in {"abc", "gone"}} - {
        f"{folder}/abc.jsonl.reset.{TIME}" for folder in ("sessions", "sessions_archive")
    }
    with pytest.raises(SessionsRefused) as refused:
        clear_all(LocalHome(str(tmp_path)), CancelToken())
    details = refused.value.details
    assert [(each["agent"], each["sessionId"]) for each in details["refused"]] == [
        ("other", "abc"),
        ("other", "gone"),
        ("other", "abc.jsonl"),
    ]
    assert details["deleted"] == 2 * len(CLEARED) - len(stay)
    left = {path for path in every_file(tmp_path) if path.startswith("agents/other")}
    assert {path.split("/", 2)[2] for path in left} == {*KEPT, *stay, *live}
    assert homes[1].indexed() == ["abc", "elsewhere"]


def test_clearing_all_goes_on_after_a_folder_that_can_not_be_listed_and_names_it(tmp_path: Path) -> None:
    broken, home = Home(tmp_path, "broken"), Home(tmp_path, "main")
    for each in (broken, home):
        each.write("abc.jsonl")
    (broken.folder / "sessions_archive").write_text("")
    with pytest.raises(SessionsRefused) as refused:
        clear_all(LocalHome(str(tmp_path)), CancelToken())
    assert refused.value.details["deleted"] == 2
    assert [(each["agent"], each["sessionId"]) for each in refused.value.details["refused"]] == [
        ("broken", "sessions_archive")
    ]


# Real data


@pytest.fixture
def real(tmp_path: Path) -> Path:
    if not REAL.is_dir():
        pytest.skip(f"no real OpenClaw data at {REAL}")
    shutil.copytree(REAL, tmp_path / "real")
    for path in (tmp_path / "real").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tmp_path / "real"


def test_a_session_of_a_real_installation_goes_with_its_traces_and_its_entry_and_leaves_every_other_byte(
    real: Path,
) -> None:
    root = real / "2026.7.1-jsonl"
    session_id = "c1abf420-9987-4849-93d1-dcab9f1412c6"
    before = every_file(root)
    assert delete_sessions(LocalHome(str(root)), "main", [session_id], CancelToken()) == 1
    after = every_file(root)
    assert {path.split(session_id)[1] for path in before.keys() - after.keys()} == {
        ".jsonl",
        ".trajectory.jsonl",
        ".trajectory-path.json",
    }
    index_path = "agents/main/sessions/sessions.json"
    assert {path for path in after if after[path] != before[path]} == {index_path}
    index = json.loads(before[index_path])
    wanted = {key: value for key, value in index.items() if value["sessionId"] != session_id}
    assert len(wanted) == len(index) - 1 == 3
    assert json.loads(after[index_path]) == wanted
    assert after[index_path] == re.sub(rb'  "agent:main:explicit:.*?\n  },\n', b"", before[index_path], flags=re.DOTALL)


def test_clearing_real_installations_leaves_databases_and_indexes(real: Path) -> None:
    for era in ("2026.7.1-jsonl", "2026.9.6-sqlite"):
        root = real / era
        before = every_file(root)
        files = clear_all(LocalHome(str(root)), CancelToken())
        after = every_file(root)
        assert len(before) - len(after) == files > 0
        assert all("/sessions/" in path for path in before.keys() - after.keys())
        assert {path for path in after if "/sessions/" in path} == (
            {"agents/main/sessions/sessions.json"} if era == "2026.7.1-jsonl" else set()
        )
        assert all(after[path] == before[path] for path in after if not path.endswith("sessions.json"))
    assert json.loads((real / "2026.7.1-jsonl/agents/main/sessions/sessions.json").read_text()) == {}
