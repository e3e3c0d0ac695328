"""The SFTP engine against a real sshd: what the stores here say of the same files, and a quiet end at any time."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.core.blocks import RecordBlocks
from sidecar.errors import ConnectionBroken, HomeUnknown, HostKeyUnknown, HostTimedOut
from sidecar.limits import BLOCK_BYTES, MIB
from sidecar.remote.connect import Surroundings
from sidecar.remote.hosts import SshHost
from sidecar.remote.pool import Host, SshConnectionPool
from sidecar.remote.sftp import engine
from sidecar.remote.sftp.engine import SftpRun
from sidecar.remote.sftp.flow import Room, in_order
from sidecar.remote.sftp.home import DATABASE_UNREAD
from sidecar.remote.sftp.text import ArrivingText
from sidecar.stores.home import LocalHome
from sidecar.stores.locations import ActivePaths
from tests.client import WITHIN_S, eventually
from tests.integration.test_store_contract import RESET, entry_of, in_files, transcripts
from tests.remote.sftp import (
    NONCE,
    Link,
    in_whole_seconds,
    link_to,
    meddling,
    named,
    once,
    records_of,
    request_for,
    told,
)
from tests.remote.slow_link import DistantSshd
from tests.remote.sshd import Sshd
from tests.remote.test_contract import analysed, listed, outcome
from tests.remote.test_sshd import connected
from tests.sqlite_trees import Session, SqliteAgent
from tests.unit.strategies import BLANKS, GARBAGE, cuts, entries, mutations

MESSAGE = (
    b'{"type":"message","id":"1","timestamp":"2026-11-22T20:00:00.000Z","message":{"role":"user","content":"hi"}}\n'
)
PEAK_BYTES = 4 * MIB


@pytest.fixture(scope="module")
def link(sshd: Sshd) -> Iterator[Link]:
    with link_to(sshd) as link:
        yield link


@pytest.fixture
def home(sshd: Sshd) -> Iterator[Path]:
    """An OpenClaw directory on the host."""
    yield sshd.home / ".openclaw"
    shutil.rmtree(sshd.home / ".openclaw", ignore_errors=True)


@pytest.fixture
def main(home: Path) -> Path:
    """The folder of the sessions of an agent there."""
    folder = home / "agents" / "main" / "sessions"
    folder.mkdir(parents=True)
    return folder


def assert_same(link: Link, home: Path) -> list[str]:
    """Whatever can be read there is what it is here; gives the ids of all sessions."""
    in_whole_seconds(home)
    link.host.account.own(home)
    there, here = link.home(home), LocalHome(str(home))
    found = analysed(there)
    assert found == analysed(here, there.now_ms)
    assert listed(link.home(home)) == listed(here)
    names = [(agent, session["sessionId"]) for agent, sessions in found[0].items() for session in sessions]
    for place in names:
        assert outcome(link.home(home), *place) == outcome(here, *place)
    return [session_id for _, session_id in names]


async def read_to_its_end(run: SftpRun) -> None:
    async with asyncio.timeout(WITHIN_S):
        while await run.read():
            pass


class TestWhatItSays:
    async def test_first_comes_who_speaks_and_of_which_folder(self, sshd: Sshd) -> None:
        async with connected(sshd) as connection:
            hello, end = await told(connection.start_sftp_client, request_for("analyze"))
        assert hello.name == "hello"
        assert hello.items[0] == "sftp"
        assert hello.items[3:] == [str(sshd.home / ".openclaw"), False, True]
        assert end.name == "end"

    @pytest.mark.parametrize(
        ("environ", "made"),
        [
            ({"CLAWPAL_OPENCLAW_DIR": "~/a//b/../c"}, ()),
            ({"CLAWPAL_OPENCLAW_DIR": "/x/./y/"}, ()),
            ({"CLAWPAL_OPENCLAW_DIR": "", "OPENCLAW_HOME": "~/inner"}, ("inner/.openclaw/agents",)),
            ({"OPENCLAW_HOME": "~/outer", "OPENCLAW_STATE_DIR": "/never"}, ("outer/.openclaw/other",)),
            ({"OPENCLAW_STATE_DIR": "~"}, ()),
            ({}, ()),
        ],
    )
    def test_the_folder_is_found_by_the_rules_for_here(
        self, link: Link, environ: dict[str, str], made: tuple[str, ...]
    ) -> None:
        for folder in made:
            (link.host.home / folder).mkdir(parents=True, exist_ok=True)
        here = ActivePaths().openclaw_dir({"HOME": str(link.host.home), **environ})
        hello, *_ = link.told(request_for("files") | {"env": environ})
        assert hello.items[3] == here
        hello, *_ = link.told(request_for("files") | {"env": environ, "openclawHome": "/chosen"})
        assert hello.items[3] == "/chosen/.openclaw"

    def test_the_home_that_a_shell_tells_of_wins_over_the_one_that_sftp_begins_in(self, link: Link) -> None:
        hello, *_ = link.told(request_for("files") | {"env": {"HOME": "/elsewhere"}})
        assert hello.items[3] == "/elsewhere/.openclaw"

    def test_a_host_that_does_not_tell_its_home_is_an_error_of_its_own(self, link: Link) -> None:
        class Homeless:
            async def realpath(self, path: bytes) -> bytes:
                raise asyncssh.SFTPPermissionDenied("no")

        @asynccontextmanager
        async def opened() -> AsyncIterator[Any]:
            yield Homeless()

        hello, fail = link.told(request_for("files"), opened)
        assert hello.items[3] is None
        assert fail.items[3] == HomeUnknown.kind

    async def test_while_nothing_comes_there_are_beats(self, make_sshd: Callable[..., Sshd]) -> None:
        host = make_sshd()
        async with connected(host) as connection:
            run = SftpRun(connection.start_sftp_client, request_for("analyze"))
            host.stop_all()
            assert await run.read() == b'["beat"]\n'
            host.continue_all()
            assert [record.name async for record in records_of(run)] == ["hello", "end"]


class TestReading:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_transcripts_of_any_content_give_the_same_answers_as_here(
        self, link: Link, home: Path, data: st.DataObject
    ) -> None:
        shutil.rmtree(home, ignore_errors=True)
        folder = home / "agents" / "main" / "sessions"
        folder.mkdir(parents=True)
        line = st.one_of(
            entries(wrong=True), st.sampled_from(GARBAGE + BLANKS), mutations(entries(wrong=False), [b"\n", b"\0"])
        )
        for number in range(data.draw(st.integers(1, 6))):
            text = b"\n".join(data.draw(st.lists(line, max_size=8)))
            if data.draw(st.booleans()):
                (folder / f"s{number}.jsonl").write_bytes(text)
            else:
                (folder / f"s{number}.{data.draw(st.sampled_from(['jsonl.', '']))}{RESET}.zst").write_bytes(
                    zstandard.compress(text)
                )
        assert_same(link, home)

    def test_transcripts_of_many_blocks_give_the_same_answers_as_here(self, link: Link, home: Path, main: Path) -> None:
        long_line = MESSAGE.replace(b"hi", b"x" * (3 * BLOCK_BYTES))
        (main / "long-lines.jsonl").write_bytes((MESSAGE + long_line) * 3 + MESSAGE[:-1])
        for size in (BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 32 * 1024, 32 * 1024 + 1):
            (main / f"of-{size}.jsonl").write_bytes((MESSAGE * (size // len(MESSAGE) + 1))[:size])
        (main / f"a.{RESET}.zst").write_bytes(zstandard.compress(MESSAGE * 20_000) + zstandard.compress(long_line))
        (main / f"cut.{RESET}.zst").write_bytes(zstandard.compress(os.urandom(400_000))[:-5])
        (main / f"nothing.{RESET}.zst").write_bytes(b"")
        (main / "nothing.jsonl").write_bytes(b"")
        assert len(assert_same(link, home)) == 8

    @pytest.mark.parametrize(
        "index",
        [
            json.dumps({f"k{n}": entry_of(f"s{n}") | {"report": "x" * 400_000} for n in range(3)}, indent=2),
            json.dumps({f"k{n}": entry_of(f"s{n}") | {"report": "x" * 400_000} for n in range(3)}, indent=4),
            json.dumps({"k": entry_of("s1")}),
            "{}",
            "{",
            "[]",
            '{"k": {"sessionId": "s1"},\n}',
            "",
        ],
        ids=["as OpenClaw writes it", "of another indent", "on one line", "empty", "cut", "list", "comma", "nothing"],
    )
    def test_an_index_in_any_form_gives_the_same_answers_as_here(
        self, link: Link, home: Path, main: Path, index: str
    ) -> None:
        for number in range(3):
            (main / f"s{number}.jsonl").write_bytes(MESSAGE)
        (main / "sessions.json").write_text(index)
        assert len(assert_same(link, home)) == 3

    def test_things_that_are_no_files_or_folders_fail_as_here(self, link: Link, home: Path, main: Path) -> None:
        agents = home / "agents"
        (main / "good.jsonl").write_bytes(MESSAGE)
        (main / "folder.jsonl").mkdir()
        os.mkfifo(main / "fifo.jsonl")
        (main / "broken.jsonl").symlink_to("nowhere")
        (main / "through-a-file.jsonl").symlink_to("good.jsonl/x")
        (main / "round.jsonl").symlink_to("and-round.jsonl")
        (main / "and-round.jsonl").symlink_to("round.jsonl")
        (main / "to-a-fifo.jsonl").symlink_to("fifo.jsonl")
        (main / "to-good.jsonl").symlink_to("good.jsonl")
        (agents / "loop").symlink_to("loop")
        (agents / "no-agent").write_text("")
        (agents / "broken").symlink_to("nowhere")
        (agents / "its-sessions-are-a-file").mkdir()
        (agents / "its-sessions-are-a-file" / "sessions").write_text("")
        (agents / "its-sessions-go-round").mkdir()
        (agents / "its-sessions-go-round" / "sessions").symlink_to("sessions")
        (agents / "moved").symlink_to("main")
        assert assert_same(link, home) == ["good", "to-good"] * 2

    def test_an_agents_database_is_one_failed_item_and_its_files_are_read(self, link: Link, home: Path) -> None:
        agent = home / "agents" / "main"
        SqliteAgent(agent, 23, [Session("s1", transcripts()["s1"], {})]).close()
        (agent / "sessions" / "s2.jsonl").write_bytes(MESSAGE)
        link.host.account.own(home)
        failure = [str(agent / "agent" / "openclaw-agent.sqlite"), None, None, DATABASE_UNREAD]
        records = link.told(request_for("analyze", home))
        assert named(records, "failed") == [failure]
        assert [session[0] for session in named(records, "session")] == ["s2"]
        records = link.told(request_for("files", home))
        assert named(records, "failed") == [failure]
        assert [file[1] for file in named(records, "file")] == ["agents/main/sessions/s2.jsonl"]
        records = link.told(request_for("names", home, agentId="main"))
        assert named(records, "ids-failed") == [failure]
        assert named(records, "name") == [["s2.jsonl"]]
        *_, fail = link.told(request_for("preview", home, agentId="main", sessionId="s2"))
        assert fail.items == [None, None, DATABASE_UNREAD, "source_unreadable"]

    def test_what_may_not_be_read_is_a_failed_item_each(self, link: Link, home: Path, main: Path) -> None:
        (main / "closed.jsonl").write_bytes(MESSAGE)
        (main / "open.jsonl").write_bytes(MESSAGE)
        modes = {"listed-only": 0o444, "closed": 0}
        for name in modes:
            (home / "agents" / name / "sessions").mkdir(parents=True)
            (home / "agents" / name / "sessions" / "s.jsonl").write_bytes(MESSAGE)
        link.host.account.own(home)
        (main / "closed.jsonl").chmod(0)
        for name, mode in modes.items():
            (home / "agents" / name / "sessions").chmod(mode)
        records = link.told(request_for("analyze", home))
        assert [session[0] for session in named(records, "session")] == ["open"]
        closed = {name: str(home / "agents" / name / "sessions") for name in modes}
        assert named(records, "failed") == [
            [closed["closed"], "EACCES", closed["closed"], None],
            [closed["listed-only"], "EACCES", closed["listed-only"], None],
            [f"{main}/closed.jsonl", "EACCES", "closed.jsonl", None],
        ]


async def test_files_are_not_read_one_after_another(slow_link: Callable[..., DistantSshd]) -> None:
    host = slow_link()
    sessions = {f"s{number}": MESSAGE for number in range(200)}
    in_files(host.home / ".openclaw" / "agents" / "main", sessions)
    async with connected(host) as connection:
        host.shape(delay_ms=25)
        began_at_s = time.monotonic()
        records = await told(connection.start_sftp_client, request_for("analyze", host.home / ".openclaw"))
    assert [session[0] for session in named(records, "session")] == sorted(sessions)
    # Each needs four round trips of 50 ms: to look at it, open it, read it and close it.
    assert time.monotonic() - began_at_s < 200 * 4 * 0.050 / 4


class TestWhatChangesMeanwhile:
    @pytest.mark.parametrize("method", ["stat", "open"])
    def test_a_session_that_vanishes_is_one_fewer_and_no_failure(
        self, link: Link, home: Path, main: Path, method: str
    ) -> None:
        for name in ("a", "gone", "z"):
            (main / f"{name}.jsonl").write_bytes(MESSAGE)
        link.host.account.own(home)
        before = once(method, b"gone.jsonl", (main / "gone.jsonl").unlink)
        records = link.told(request_for("analyze", home), meddling(link.connection, before))
        assert [record.name for record in records] == ["hello", "agent", "session", "total", "session", "end"]
        assert named(records, "agent", "total") == [["main", 3], [2]]

    def test_a_folder_that_vanishes_is_one_failure(self, link: Link, home: Path, main: Path) -> None:
        archives = main.with_name("sessions_archive")
        archives.mkdir()
        for folder in (main, archives):
            (folder / "a.jsonl").write_bytes(MESSAGE)
            (folder / "b.jsonl").write_bytes(MESSAGE)
        link.host.account.own(home)
        before = once("stat", b"sessions_archive", lambda: shutil.rmtree(archives))
        records = link.told(request_for("analyze", home), meddling(link.connection, before))
        assert [record.name for record in records] == ["hello", "agent", "session", "session", "failed", "end"]
        assert named(records, "failed") == [[str(archives), "ENOENT", str(archives), None]]

    @pytest.mark.parametrize(
        ("name", "messages", "read"),
        [("small.jsonl", 900, 1), (f"small.{RESET}", 900, 2), ("large.jsonl", 8_000, 1), ("large.jsonl", 8_000, 20)],
    )
    def test_a_session_that_is_written_anew_and_shorter_is_counted_anew(
        self, link: Link, home: Path, main: Path, name: str, messages: int, read: int
    ) -> None:
        (main / name).write_bytes(MESSAGE * messages)
        shorter = MESSAGE.replace(b"user", b"assistant") * 600
        reads: list[bytes] = []

        def before(method: str, its_name: bytes) -> None:
            if method == "read":
                reads.append(its_name)
                if len(reads) == read:
                    (main / name).write_bytes(shorter)

        link.host.account.own(home)
        records = link.told(request_for("analyze", home), meddling(link.connection, before))
        [session] = named(records, "session")
        assert session[3] == len(shorter)
        assert session[7:10] == [600, 0, 600]

    def test_what_is_appended_meanwhile_is_a_later_state(self, link: Link, home: Path, main: Path) -> None:
        (main / "s.jsonl").write_bytes(MESSAGE * 10)

        def append() -> None:
            with (main / "s.jsonl").open("ab") as file:
                file.write(MESSAGE * 10_000)

        link.host.account.own(home)
        before = once("read", b"s.jsonl", append)
        records = link.told(request_for("analyze", home), meddling(link.connection, before))
        assert [session[3] for session in named(records, "session")] == [10 * len(MESSAGE)]

    def test_a_fifo_in_the_place_of_a_session_holds_nothing_up(self, link: Link, home: Path, main: Path) -> None:
        (main / "s.jsonl").write_bytes(MESSAGE)

        def replace() -> None:
            (main / "s.jsonl").unlink()
            os.mkfifo(main / "s.jsonl")

        link.host.account.own(home)
        before = once("stat", b"s.jsonl", replace)
        records = link.told(request_for("analyze", home), meddling(link.connection, before))
        assert named(records, "failed") == [[f"{main}/s.jsonl", None, None, "not a regular file"]]


class TestHowMuchItHolds:
    def peak_bytes(self, link: Link, request: dict[str, Any]) -> int:
        """The most that was held while a request was answered whose answer is thrown away."""

        async def thrown_away() -> int:
            run = SftpRun(link.connection.start_sftp_client, request)
            tracemalloc.start()
            try:
                while await run.read():
                    pass
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

        link.told(request)
        return link.wait(thrown_away())

    @pytest.mark.parametrize("op", ["analyze", "preview"])
    def test_a_large_transcript_costs_little(self, link: Link, home: Path, main: Path, op: str) -> None:
        (main / "s.jsonl").write_bytes(MESSAGE * (60 * MIB // len(MESSAGE)))
        link.host.account.own(home)
        assert self.peak_bytes(link, request_for(op, home, agentId="main", sessionId="s")) < PEAK_BYTES

    @pytest.mark.parametrize("op", ["analyze", "files", "names"])
    def test_many_sessions_cost_little(self, link: Link, home: Path, main: Path, op: str) -> None:
        for number in range(2_000):
            (main / f"session-{number:04}.jsonl").write_bytes(MESSAGE * 10)
        link.host.account.own(home)
        assert self.peak_bytes(link, request_for(op, home, agentId=None)) < PEAK_BYTES // 2

    def test_middling_transcripts_are_not_all_held_at_once(self, link: Link, home: Path, main: Path) -> None:
        for number in range(64):
            (main / f"session-{number:04}.jsonl").write_bytes(MESSAGE * (250_000 // len(MESSAGE)))
        link.host.account.own(home)
        assert self.peak_bytes(link, request_for("analyze", home)) < PEAK_BYTES

    async def test_a_slow_reader_holds_it_back(self, sshd: Sshd, home: Path, main: Path) -> None:
        text = MESSAGE * (60 * MIB // len(MESSAGE))
        (main / "s.jsonl").write_bytes(text)
        sshd.account.own(home)
        reads: list[bytes] = []

        def before(method: str, name: bytes) -> None:
            if method == "read":
                reads.append(name)

        async with connected(sshd) as connection:
            request = request_for("preview", home, agentId="main", sessionId="s")
            run = SftpRun(meddling(connection, before), request)
            files = None

            def is_held_back() -> bool:
                nonlocal files
                files = run._files
                return bool(reads) and files is not None and files.silent_s == 0

            await eventually(is_held_back, "nothing more is asked of the host")
            asked = len(reads)
            assert asked < 60
            records = [record async for record in records_of(run)]
            assert len(reads) > 20 * asked
        assert b"".join(record.data for record in records) == text


class TestItsEnd:
    def own_tasks(self) -> list[asyncio.Task[Any]]:
        code = (getattr(task.get_coro(), "cr_code", None) for task in asyncio.all_tasks())
        own = zip(asyncio.all_tasks(), code, strict=True)
        return [task for task, code in own if code is not None and "/sidecar/" in code.co_filename]

    @pytest.mark.parametrize("op", ["analyze", "files", "preview", "names"])
    @pytest.mark.parametrize("chunks", [0, 1, 3])
    async def test_closed_at_any_time_it_leaves_no_task_and_no_channel(
        self, sshd: Sshd, home: Path, main: Path, op: str, chunks: int
    ) -> None:
        for number in range(1_500):
            (main / f"session-{number:04}.jsonl").write_bytes(MESSAGE * 3)
        (main / "session-0000.jsonl").write_bytes(MESSAGE * 40_000)
        sshd.account.own(home)
        async with connected(sshd) as connection:
            tasks = asyncio.all_tasks()
            run = SftpRun(connection.start_sftp_client, request_for(op, home, agentId="main", sessionId="session-0000"))
            if chunks == 0:
                await asyncio.sleep(0)  # it begins to open a channel
            for _ in range(chunks):
                await run.read()
            run.close()
            run.close()
            with pytest.raises(ConnectionBroken, match="given up"):
                await run.read()
            await eventually(lambda: not self.own_tasks(), "the engine has ended", within_s=5)
            await eventually(lambda: asyncio.all_tasks() <= tasks, "the channel is closed", within_s=5)

    async def test_closed_at_any_time_it_gives_its_channel_back(self, sshd_two_sessions: Sshd, tmp_path: Path) -> None:
        sshd = sshd_two_sessions
        in_files(sshd.home / ".openclaw" / "agents" / "main", transcripts())
        settings = SshHost(
            id="h",
            label="h",
            host=sshd.host,
            port=sshd.port,
            username=sshd.user,
            auth_method="key",
            key_path=str(sshd.client_key),
        )
        host = Host(settings, Surroundings(str(tmp_path / "known_hosts"), {"HOME": str(tmp_path)}))
        pool = SshConnectionPool()
        with pytest.raises(HostKeyUnknown) as unknown:
            await pool.connect(host)
        await pool.trust(host, str(unknown.value.details["fingerprint"]))
        request = request_for("analyze", sshd.home / ".openclaw")
        for turns in range(0, 60, 3):
            run = SftpRun(partial(pool.sftp, host), request)
            for _ in range(turns):
                await asyncio.sleep(0)
            run.close()
        # Two at once are all that the host takes, so that none of those before can be left.
        await eventually(lambda: not self.own_tasks(), "the engine has ended", within_s=5)
        both = await asyncio.gather(*(told(partial(pool.sftp, host), request) for _ in range(2)))
        assert [records[-1].name for records in both] == ["end", "end"]
        await pool.close()

    async def test_closed_after_its_end_it_stays_as_it_is(self, sshd: Sshd, home: Path) -> None:
        async with connected(sshd) as connection:
            run = SftpRun(connection.start_sftp_client, request_for("analyze", home))
            assert [record.name async for record in records_of(run)] == ["hello", "end"]
            run.close()
        assert self.own_tasks() == []

    @pytest.mark.parametrize("op", ["analyze", "files", "preview"])
    async def test_closed_while_the_host_stands_still_it_waits_for_nothing(
        self, make_sshd: Callable[..., Sshd], op: str
    ) -> None:
        host = make_sshd()
        main = host.home / ".openclaw" / "agents" / "main" / "sessions"
        in_files(main.parent, {f"s{number}": MESSAGE * 40_000 for number in range(10)})
        for number in range(300):
            (main / f"{number}-{'x' * 200}").touch()
        async with connected(host) as connection:
            request = request_for(op, host.home / ".openclaw", agentId="main", sessionId="s0")
            stopped = asyncio.Event()

            def before(method: str, name: bytes) -> None:
                if name.startswith(b"s") and not stopped.is_set():
                    host.stop_all()
                    stopped.set()

            run = SftpRun(meddling(connection, before), request)
            await stopped.wait()
            run.close()
            await eventually(lambda: not self.own_tasks(), "the engine has ended", within_s=5)
            host.continue_all()

    async def test_a_host_that_stands_still_for_long_has_timed_out(
        self, make_sshd: Callable[..., Sshd], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(engine, "CHANNEL_IDLE_S", 1.0)
        host = make_sshd()
        in_files(host.home / ".openclaw" / "agents" / "main", {"s": MESSAGE})
        async with connected(host) as connection:
            before = once("stat", b"s.jsonl", host.stop_all)
            run = SftpRun(meddling(connection, before), request_for("analyze", host.home / ".openclaw"))
            with pytest.raises(HostTimedOut, match="timed out: the host sent nothing for 1 s"):
                await read_to_its_end(run)
            await eventually(lambda: not self.own_tasks(), "the engine has ended", within_s=5)
            host.continue_all()

    async def test_a_connection_that_breaks_is_an_error_and_never_an_end(self, make_sshd: Callable[..., Sshd]) -> None:
        host = make_sshd()
        in_files(host.home / ".openclaw" / "agents" / "main", {"a": MESSAGE, "b": MESSAGE})
        async with connected(host) as connection:
            before = once("read", b"b.jsonl", host.kill)
            run = SftpRun(meddling(connection, before), request_for("analyze", host.home / ".openclaw"))
            with pytest.raises(ConnectionBroken, match="connection closed: the host has gone"):
                await read_to_its_end(run)

    async def test_what_opening_a_session_raises_comes_from_read(self) -> None:
        class Refusing:
            async def __aenter__(self) -> Any:
                raise HostTimedOut("timed out: never there")

            async def __aexit__(self, *_: object) -> None:
                raise AssertionError

        run = SftpRun(Refusing, request_for("analyze"))
        with pytest.raises(HostTimedOut, match="never there"):
            await run.read()


class TestParts:
    @given(data=st.data(), compressed=st.booleans())
    def test_text_in_any_pieces_gives_the_blocks_that_it_has_whole(self, data: st.DataObject, compressed: bool) -> None:
        records = data.draw(st.lists(st.sampled_from([b"a\n", b"\n", b"x" * 300 + b"\n", b"torn"]), max_size=30))
        text = b"".join(records)
        half = len(text) // 2
        sent = zstandard.compress(text[:half]) + zstandard.compress(text[half:]) if compressed else text
        pieces = data.draw(cuts(sent))

        async def arriving() -> Any:
            for piece in pieces:
                yield piece

        async def joined() -> tuple[bytes, int, int]:
            arrived = ArrivingText(arriving(), RecordBlocks(max_record_bytes=400), is_compressed=compressed)
            blocks = [bytes(block.buffer[block.start : block.end]) async for block in arrived.blocks()]
            assert all(block.endswith(b"\n") for block in blocks[:-1])
            return b"".join(blocks), arrived.arrived_bytes, arrived.size_bytes

        assert asyncio.run(joined()) == (text, len(sent), len(text))

    async def test_work_is_done_in_order_and_only_so_much_ahead(self) -> None:
        running: set[int] = set()
        most = 0

        async def work(number: int) -> int:
            nonlocal most
            running.add(number)
            most = max(most, len(running))
            for _ in range((number * 7) % 5):
                await asyncio.sleep(0)
            running.discard(number)
            return number

        assert [number async for number in in_order(work, range(50), 4)] == list(range(50))
        assert most == 4

    async def test_work_that_fails_ends_the_rest_of_it(self) -> None:
        running: set[int] = set()

        async def work(number: int) -> int:
            if number == 2:
                raise OSError("no")
            running.add(number)
            try:
                if number > 2:
                    await asyncio.Event().wait()
            finally:
                running.discard(number)
            return number

        done = []

        async def take_all() -> None:
            async for number in in_order(work, range(50), 8):
                done.append(number)  # noqa: PERF401 (what came before the error is of interest)

        with pytest.raises(OSError, match="no"):
            await take_all()
        assert done == [0, 1]
        assert running == set()

    async def test_room_is_given_in_the_order_in_which_it_is_asked_for(self) -> None:
        room = Room(10)
        given: list[str] = []
        leave = {name: asyncio.Event() for name in "abcd"}

        async def hold(name: str, size_bytes: int) -> None:
            async with room.taken(size_bytes):
                given.append(name)
                await leave[name].wait()

        sizes = {"a": 8, "b": 100, "c": 1, "d": 1}
        tasks = [asyncio.create_task(hold(name, size)) for name, size in sizes.items()]
        await eventually(lambda: given == ["a"], "the first has room")
        leave["a"].set()
        await eventually(lambda: given == ["a", "b"], "one that wants more than there is has all")
        tasks[2].cancel()
        leave["b"].set()
        await eventually(lambda: given == ["a", "b", "d"], "who gave up is passed over")
        leave["d"].set()
        await asyncio.wait(tasks)
        async with room.taken(10):
            pass


def test_the_nonce_is_the_one_that_was_asked_with(link: Link) -> None:
    async def first() -> bytes:
        run = SftpRun(link.connection.start_sftp_client, request_for("files"))
        while (chunk := await run.read()) == b'["beat"]\n':
            pass
        run.close()
        return chunk

    assert link.wait(first()).startswith(f'\nclawpal-helper {NONCE}\n["hello"'.encode())
