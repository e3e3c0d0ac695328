"""Sessions of a host are deleted over SFTP with nothing lost beside them, whoever else writes there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from sidecar.limits import LOCK_STALE_S
from sidecar.remote.records import Record
from sidecar.remote.sftp import locks
from sidecar.remote.sftp.engine import SftpRun
from tests.client import eventually
from tests.integration.test_store_contract import entry_of
from tests.remote.sftp import Link, link_to, meddling, named, once, records_of, request_for
from tests.remote.sshd import Sshd
from tests.remote.test_sshd import connected

OTHERS = "kept"


@pytest.fixture(scope="module")
def link(sshd: Sshd) -> Iterator[Link]:
    with link_to(sshd) as link:
        yield link


@pytest.fixture
def home(sshd: Sshd) -> Iterator[Path]:
    yield sshd.home / ".openclaw"
    shutil.rmtree(sshd.home / ".openclaw", ignore_errors=True)


def sessions_in(home: Path, *names: str) -> Path:
    """Make these sessions and one more, with an index of all; gives their folder."""
    folder = home / "agents" / "main" / "sessions"
    folder.mkdir(parents=True)
    for name in (*names, OTHERS):
        (folder / f"{name}.jsonl").write_text(name)
    index = {f"agent:main:{name}": entry_of(name) for name in (*names, OTHERS)}
    (folder / "sessions.json").write_text(json.dumps(index, indent=2))
    return folder


def indexed(folder: Path) -> set[str]:
    return {entry["sessionId"] for entry in json.loads((folder / "sessions.json").read_text()).values()}


def asked(home: Path, *sessions: list[Any], agent_id: str = "main") -> dict[str, Any]:
    return request_for("remove", home, agentId=agent_id, sessions=sessions)


def whole(name: str, *others: str) -> list[Any]:
    """A session as it is asked for whose transcript is there."""
    return ["sessions", f"{name}.jsonl", True, list(others)]


def removed(link: Link, home: Path, *sessions: list[Any]) -> list[Record]:
    link.host.account.own(home)
    return link.told(asked(home, *sessions))[1:]


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def write_lock(path: Path, age_s: float, text: str = '{"pid":1,"createdAt":"x"}') -> None:
    path.write_text(text)
    os.utime(path, (time.time() - age_s, time.time() - age_s))


class TestFiles:
    def test_a_session_goes_with_its_files_and_its_entry(self, link: Link, home: Path) -> None:
        folder = sessions_in(home, "a", "b")
        (folder / "a.trajectory.jsonl").write_text("")
        records = removed(link, home, whole("a", "a.trajectory.jsonl", "gone-already.jsonl"), whole("never"))
        assert [record.items for record in records] == [[0, 2, True], [1, 0, False], []]
        assert left(folder) == {"b.jsonl", "kept.jsonl", "sessions.json"}
        assert indexed(folder) == {"b", "kept"}

    def test_without_a_transcript_there_only_what_is_beside_it_goes(self, link: Link, home: Path) -> None:
        folder = sessions_in(home)
        (folder / "a.trajectory.jsonl").write_text("")
        link.host.account.own(home)
        before = (folder / "sessions.json").stat()
        records = link.told(asked(home, ["sessions", "a.jsonl", False, ["a.trajectory.jsonl"]]))[1:]
        assert records[0].items == [0, 1, False]
        assert (folder / "sessions.json").stat() == before

    def test_a_link_goes_and_not_what_it_leads_to(self, link: Link, home: Path) -> None:
        folder = sessions_in(home)
        (home / "far.jsonl").write_text("")
        (folder / "a.jsonl").symlink_to(home / "far.jsonl")
        assert removed(link, home, whole("a"))[0].items == [0, 1, True]
        assert (home / "far.jsonl").exists()
        assert not (folder / "a.jsonl").is_symlink()

    def test_names_of_any_bytes_go(self, link: Link, home: Path) -> None:
        folder = sessions_in(home)
        names = [b"\xff.jsonl", b"$(touch x).jsonl", b"line\nfeed.jsonl", b"-rf.jsonl", b"'.jsonl"]
        for name in names:
            Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_text("")
        link.host.account.own(home)
        listed = [name for (name,) in named(link.told(request_for("names", home, agentId="main")), "name")]
        assert len(listed) == len(names) + 1
        records = removed(link, home, *(["sessions", name, True, []] for name in listed if name != "kept.jsonl"))
        assert [record.items[1:] for record in records[:-1]] == [[1, True]] * len(names)
        assert left(folder) == {"kept.jsonl", "sessions.json"}

    @pytest.mark.parametrize(
        "session",
        [
            ["sessions", "../b.jsonl", True, []],
            ["sessions", "a.jsonl", True, ["../../other"]],
            ["sessions", "..", True, []],
            ["sessions", "a\0.jsonl", True, []],
            ["agent", "openclaw-agent.sqlite", True, []],
            ["sessions/..", "a.jsonl", True, []],
        ],
    )
    def test_what_is_no_name_in_a_session_folder_ends_it_before_anything_is_done(
        self, link: Link, home: Path, session: list[Any]
    ) -> None:
        folder = sessions_in(home, "a")
        records = removed(link, home, whole("a"), session)
        assert [(record.name, record.items[-1]) for record in records] == [("fail", "invalid_params")]
        assert "a.jsonl" in left(folder)

    def test_an_agent_that_is_not_there_is_an_error(self, link: Link, home: Path) -> None:
        sessions_in(home)
        _, fail = link.told(asked(home, whole("a"), agent_id="nobody"))
        assert fail.items == ["ENOENT", "agents/nobody", None, None]

    def test_what_the_host_refuses_to_remove_is_refused_and_its_entry_stays(self, link: Link, home: Path) -> None:
        folder = sessions_in(home, "a")
        link.host.account.own(home)
        folder.chmod(0o555)
        try:
            records = link.told(asked(home, whole("a")))[1:]
        finally:
            folder.chmod(0o755)
        assert [record.items for record in records] == [[0, 0, "EACCES", "a.jsonl", None], []]
        assert indexed(folder) == {"a", "kept"}


class TestLocks:
    def test_a_session_whose_lock_is_young_is_in_use(self, link: Link, home: Path) -> None:
        folder = sessions_in(home, "a", "b")
        write_lock(folder / "a.jsonl.lock", 60, '{"pid":4242,"createdAt":"x"}')
        write_lock(folder / "b.jsonl.lock", 60, "just being writ")
        records = removed(link, home, whole("a"), whole("b"), whole("kept"))
        assert [record.name for record in records] == ["locked", "locked", "removed", "end"]
        assert [record.items for record in records[:2]] == [[0, "process 4242"], [1, "an unknown process"]]
        assert left(folder) == {"a.jsonl", "a.jsonl.lock", "b.jsonl", "b.jsonl.lock", "sessions.json"}

    def test_a_lock_that_is_as_old_as_openclaw_lets_any_become_is_stale(self, link: Link, home: Path) -> None:
        folder = sessions_in(home, "a")
        write_lock(folder / "a.jsonl.lock", LOCK_STALE_S + 5)
        assert removed(link, home, whole("a", "a.jsonl.lock"))[0].items == [0, 2, True]
        assert left(folder) == {"kept.jsonl", "sessions.json"}

    def test_the_age_of_a_lock_is_told_by_the_hosts_clock(
        self, link: Link, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = sessions_in(home, "a")
        write_lock(folder / "a.jsonl.lock", 60)
        ahead_s = time.time() + 10 * LOCK_STALE_S

        monkeypatch.setattr(locks, "time", SimpleNamespace(time=lambda: ahead_s, monotonic=time.monotonic))
        assert removed(link, home, whole("a"))[0].name == "locked"

    def test_the_index_waits_for_openclaws_lock(self, link: Link, home: Path) -> None:
        folder = sessions_in(home, "a")
        lock = folder / "sessions.json.lock"
        write_lock(lock, 1)
        tries: list[bytes] = []

        def before(method: str, name: bytes) -> None:
            if (method, name) == ("open", b"sessions.json.lock"):
                tries.append(name)
                if len(tries) == 10:
                    lock.unlink()

        link.host.account.own(home)
        records = link.told(asked(home, whole("a")), meddling(link.connection, before))
        assert [record.name for record in records] == ["hello", "removed", "end"]
        assert indexed(folder) == {"kept"}
        assert left(folder) == {"kept.jsonl", "sessions.json"}

    def test_an_index_whose_lock_is_held_for_long_keeps_its_entries(
        self, link: Link, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(locks, "INDEX_LOCK_WAIT_S", 0.1)
        folder = sessions_in(home, "a")
        write_lock(folder / "sessions.json.lock", 1, '{"pid":7}')
        records = removed(link, home, whole("a"))
        assert [record.name for record in records] == ["removed", "index-failed", "end"]
        assert records[1].items == ["ETIMEDOUT", None, None]
        assert indexed(folder) == {"a", "kept"}
        assert left(folder) == {"kept.jsonl", "sessions.json", "sessions.json.lock"}

    def test_a_lock_that_is_released_as_it_is_looked_at_is_waited_for_too(self, link: Link, home: Path) -> None:
        folder = sessions_in(home, "a")
        lock = folder / "sessions.json.lock"
        write_lock(lock, 1)
        link.host.account.own(home)
        before = once("lstat", b"sessions.json.lock", lock.unlink)
        records = link.told(asked(home, whole("a")), meddling(link.connection, before))
        assert [record.name for record in records] == ["hello", "removed", "end"]
        assert indexed(folder) == {"kept"}

    def test_a_stale_lock_of_the_index_is_taken_over(self, link: Link, home: Path) -> None:
        folder = sessions_in(home, "a")
        write_lock(folder / "sessions.json.lock", LOCK_STALE_S + 5)
        removed(link, home, whole("a"))
        assert indexed(folder) == {"kept"}
        assert left(folder) == {"kept.jsonl", "sessions.json"}

    def test_our_lock_names_no_process_for_none_of_ours_runs_there(self, link: Link, home: Path) -> None:
        folder = sessions_in(home, "a")
        seen: list[dict[str, Any]] = []

        def look() -> None:
            seen.append(json.loads((folder / "sessions.json.lock").read_text()))

        link.host.account.own(home)
        link.told(asked(home, whole("a")), meddling(link.connection, once("posix_rename", None, look)))
        [lock] = seen
        assert lock.keys() == {"createdAt", "token"}

    def test_a_lock_that_was_taken_over_is_not_released(self, link: Link, home: Path) -> None:
        folder = sessions_in(home, "a")
        lock = folder / "sessions.json.lock"

        def take_over() -> None:
            lock.unlink()
            lock.write_text('{"pid":1}')

        link.host.account.own(home)
        before = once("posix_rename", None, take_over)
        link.told(asked(home, whole("a")), meddling(link.connection, before))
        assert lock.read_text() == '{"pid":1}'


class TestIndex:
    def test_not_a_byte_of_another_entry_changes_nor_the_files_mode(self, link: Link, home: Path) -> None:
        folder = sessions_in(home, "a")
        text = '{ "1":{"sessionId":"a"} ,\n "2" : {"sessionId":"b","x":"cut \\ud83d","y":1.50e3} }\n'
        (folder / "sessions.json").write_text(text)
        (folder / "sessions.json").chmod(0o640)
        removed(link, home, whole("a"))
        assert (folder / "sessions.json").read_text() == text.replace('"1":{"sessionId":"a"} ,\n ', "")
        assert (folder / "sessions.json").stat().st_mode & 0o777 == 0o640

    def test_a_large_index_is_rewritten_whole(self, link: Link, home: Path) -> None:
        folder = sessions_in(home, "a")
        entries = {f"k{number}": entry_of(f"s{number}") | {"report": os.urandom(500).hex()} for number in range(3_000)}
        (folder / "sessions.json").write_text(json.dumps(entries | {"a": entry_of("a")}, indent=2))
        removed(link, home, whole("a"))
        assert msgspec.json.decode((folder / "sessions.json").read_bytes()) == entries

    @pytest.mark.parametrize("text", ["", "[]", '{"a":{"sessionId":"a"},"a":{}}', '{"a":{"sessionId":"a"}'])
    def test_an_index_that_is_broken_stays_as_it_is(self, link: Link, home: Path, text: str) -> None:
        folder = sessions_in(home, "a")
        (folder / "sessions.json").write_text(text)
        records = removed(link, home, whole("a"))
        assert [record.name for record in records] == ["removed", "index-failed", "end"]
        assert (folder / "sessions.json").read_text() == text
        assert left(folder) == {"kept.jsonl", "sessions.json"}

    def test_without_an_index_there_is_nothing_to_do(self, link: Link, home: Path) -> None:
        folder = sessions_in(home, "a")
        (folder / "sessions.json").unlink()
        assert [record.name for record in removed(link, home, whole("a"))] == ["removed", "end"]
        assert left(folder) == {"kept.jsonl"}

    def test_what_is_written_meanwhile_without_the_lock_is_kept(self, link: Link, home: Path) -> None:
        folder = sessions_in(home, "a")
        looks: list[bytes] = []

        def before(method: str, name: bytes) -> None:
            if (method, name) == ("open", b"sessions.json"):
                looks.append(name)
                if len(looks) == 2:  # what was read is about to be compared
                    rewrite(folder, "new")

        link.host.account.own(home)
        records = link.told(asked(home, whole("a")), meddling(link.connection, before))
        assert [record.name for record in records] == ["hello", "removed", "end"]
        assert indexed(folder) == {"new", "kept"}
        assert left(folder) == {"kept.jsonl", "sessions.json"}

    def test_an_index_that_never_rests_keeps_its_entries(self, link: Link, home: Path) -> None:
        folder = sessions_in(home, "a")
        looks: list[bytes] = []

        def before(method: str, name: bytes) -> None:
            if (method, name) == ("open", b"sessions.json"):
                looks.append(name)
                rewrite(folder, f"new-{len(looks)}")

        link.host.account.own(home)
        records = link.told(asked(home, whole("a")), meddling(link.connection, before))
        assert named(records, "index-failed") == [["ETIMEDOUT", None, None]]
        assert indexed(folder) == {"a", "kept", *(f"new-{number + 1}" for number in range(len(looks)))}
        assert left(folder) == {"kept.jsonl", "sessions.json"}

    def test_beside_a_writer_that_takes_the_lock_nothing_is_lost(self, link: Link, home: Path) -> None:
        names = [f"s{number}" for number in range(25)]
        folder = sessions_in(home, *names)
        link.host.account.own(home)
        over = threading.Event()
        written: list[str] = []

        def write() -> None:
            # Who takes a lock again at once lets nobody have it.
            while not over.wait(0.01):
                with holding(folder / "sessions.json.lock"):
                    rewrite(folder, f"new-{len(written)}")
                    written.append(f"new-{len(written)}")

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for name in names:
                records = link.told(asked(home, whole(name)))
                assert [record.name for record in records] == ["hello", "removed", "end"]
        finally:
            over.set()
            writer.join()
        assert written
        assert indexed(folder) == {"kept", *written}
        assert left(folder) == {"kept.jsonl", "sessions.json"}


def rewrite(folder: Path, name: str) -> None:
    """Add an entry to the index as OpenClaw does: all of it anew, by a rename."""
    index = json.loads((folder / "sessions.json").read_text())
    new = folder / "sessions.json.9.tmp"
    new.write_text(json.dumps(index | {name: entry_of(name)}, indent=2))
    new.rename(folder / "sessions.json")


@contextlib.contextmanager
def holding(lock: Path) -> Iterator[None]:
    while True:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
    try:
        yield
    finally:
        lock.unlink()


class TestServersThatCanLess:
    @pytest.mark.parametrize(
        ("options", "answers", "left_in_index"),
        [
            ("-P posix-rename", ["removed", "index-failed", "end"], {"a", "kept"}),
            ("-P fsync", ["removed", "end"], {"kept"}),
            ("-P fsetstat", ["removed", "index-failed", "end"], {"a", "kept"}),
            ("-R", ["refused", "end"], {"a", "kept"}),
        ],
    )
    def test_what_can_not_be_done_safely_is_not_done(
        self, make_sshd: Callable[..., Sshd], options: str, answers: list[str], left_in_index: set[str]
    ) -> None:
        host = make_sshd(extra=[f"ForceCommand internal-sftp {options}"])
        folder = sessions_in(host.home / ".openclaw", "a")
        with link_to(host) as link:
            records = removed(link, host.home / ".openclaw", whole("a"))
        assert [record.name for record in records] == answers
        assert indexed(folder) == left_in_index
        assert {name for name in left(folder) if not name.endswith(".jsonl")} == {"sessions.json"}


class TestItsEnd:
    async def test_closed_it_finishes_the_session_that_it_is_at_and_the_index(self, sshd: Sshd, home: Path) -> None:
        folder = sessions_in(home, "a", "b", "c")
        (folder / "b.trajectory.jsonl").write_text("")
        sshd.account.own(home)
        async with connected(sshd) as connection:
            run: SftpRun

            before = once("remove", b"b.trajectory.jsonl", lambda: run.close())
            run = SftpRun(
                meddling(connection, before), asked(home, whole("a"), whole("b", "b.trajectory.jsonl"), whole("c"))
            )
            await eventually(lambda: indexed(folder) == {"c", "kept"}, "the entries of what went are gone")
            await eventually(
                lambda: left(folder) == {"c.jsonl", "kept.jsonl", "sessions.json"}, "nothing of ours is left"
            )

    async def test_closed_while_the_host_stands_still_it_ends_in_bounded_time(
        self, make_sshd: Callable[..., Sshd], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sidecar.remote.sftp.engine.REMOVAL_ENDS_WITHIN_S", 0.2)
        host = make_sshd()
        home = host.home / ".openclaw"
        sessions_in(home, "a")
        host.account.own(home)
        async with connected(host) as connection:
            tasks = asyncio.all_tasks()
            before = once("remove", b"a.jsonl", host.stop_all)
            run = SftpRun(meddling(connection, before), asked(home, whole("a")))
            assert [record.name async for record in first_of(run)] == ["hello"]
            run.close()
            await eventually(lambda: run._task.done(), "it has given up", within_s=5)
            host.continue_all()
            await eventually(lambda: asyncio.all_tasks() <= tasks, "the channel is closed")


async def first_of(run: SftpRun) -> Any:
    async for record in records_of(run):
        yield record
        return
