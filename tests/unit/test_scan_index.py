"""The index of what was counted: whatever happens to transcripts, or to the index, the answer is that without one."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.cancel import CancelToken
from sidecar.core.failures import FailedItems
from sidecar.errors import Cancelled
from sidecar.limits import BLOCK_BYTES, DIGESTED_BYTES, MIB, REMEMBERED_A_PAGE, REMEMBERED_A_WRITE, UNREMEMBERED_BYTES
from sidecar.stores import file_systems, jsonl, scan_entry, scan_rows
from sidecar.stores.home import LocalHome
from sidecar.stores.jsonl import JsonlStore
from sidecar.stores.scan_entry import Entry, Stamp, decode, encode
from tests.unit.strategies import BLANKS, GARBAGE, entries
from tests.unit.test_transcript import HEADER, USER

NOW_MS = 1_795_378_579_852
LINE = USER + b"\n"
TALK = HEADER + b"\n" + LINE * (UNREMEMBERED_BYTES // len(LINE) + 1)

Outcome = tuple[list[Any], list[Any]]


class Home:
    """A home, its index, and a clock by which nothing in it is young."""

    def __init__(self, root: Path) -> None:
        self.openclaw_dir = root / "openclaw"
        self.sessions = self.openclaw_dir / "agents" / "main" / "sessions"
        self.sessions.mkdir(parents=True)
        self.cache = root / "clawpal" / "cache"
        self.file = self.cache / scan_rows.FILE

    def write(self, name: str, data: bytes = TALK, folder: str = "sessions") -> Path:
        path = self.sessions.parent / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return path

    def analysed(self, *, index: bool = True, token: CancelToken | None = None) -> Outcome:
        """The sessions and failures of one analysis, in order."""
        home = LocalHome(str(self.openclaw_dir), index_folder=str(self.cache) if index else None)
        failed = FailedItems()
        sessions = [
            msgspec.to_builtins(session)
            for agent in home.agents(token or CancelToken(), failed)
            for session in agent.sessions(NOW_MS)
            if session is not None
        ]
        return sessions, msgspec.to_builtins(failed.first)

    def entries(self) -> dict[str, bytes]:
        """What the index holds, by the names of sessions."""
        with sqlite3.connect(self.file) as connection:
            rows = connection.execute("SELECT session_id, entry FROM entries").fetchall()
        connection.close()
        return {os.fsdecode(session_id): data for session_id, data in rows}


@pytest.fixture
def home(tmp_path: Path, later: None) -> Home:
    return Home(tmp_path)


class LaterClock:
    """By which everything was left alone for an hour."""

    @staticmethod
    def time_ns() -> int:
        return time.time_ns() + 3_600 * 10**9


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_entry, "time", LaterClock)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Of each transcript that is counted, and not only looked up: its size, and from where it is counted."""
    seen: list[tuple[str, int]] = []
    small, large = JsonlStore._tally_small, JsonlStore._tally_large

    def noted_small(store: JsonlStore, file: Any) -> Any:
        tally = small(store, file)
        if tally is not None:
            seen.append((file.size_bytes, 0))
        return tally

    def noted_large(store: JsonlStore, file: Any, name: str, grown_from: Entry | None = None) -> Any:
        seen.append((file.size_bytes, grown_from.stamp.size_bytes if grown_from else 0))
        return large(store, file, name, grown_from)

    monkeypatch.setattr(JsonlStore, "_tally_small", noted_small)
    monkeypatch.setattr(JsonlStore, "_tally_large", noted_large)
    return seen


def tick(folder: Path) -> None:
    """Wait until the clock of the file system has gone on: what is written now has a time of its own."""
    probe = folder / "probe"
    probe.touch()
    before = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == before:
        os.utime(probe)
    probe.unlink()


# What may happen to a transcript. Each is done when the file system's clock has gone on; what follows at once is tested
# by itself, since this process's clock is not to be believed here.

Change = Callable[[Path], None]

LINES = st.one_of(entries(wrong=False), entries(wrong=True), st.sampled_from([*GARBAGE, *BLANKS]))
TEXTS = st.lists(LINES, max_size=6).flatmap(
    lambda lines: st.sampled_from([b"\n".join([*lines, b""]), b"\n".join(lines)])
)


def append(text: bytes) -> Change:
    def change(path: Path) -> None:
        with path.open("ab") as file:
            file.write(text)

    return change


def truncate(share: float) -> Change:
    return lambda path: os.truncate(path, int(path.stat().st_size * share)) if path.exists() else None


def rewrite(text: bytes) -> Change:
    return lambda path: void(path.write_bytes(text))


def rewrite_with_old_time(seed: int) -> Change:
    """As many other bytes in place, and the time of modification set back."""

    def change(path: Path) -> None:
        if not path.exists():
            return
        was = path.stat()
        lines = path.read_bytes().split(b"\n")
        random.Random(seed).shuffle(lines)
        path.write_bytes(b"\n".join(lines))
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))

    return change


def overwrite_and_append(place: float, text: bytes) -> Change:
    def change(path: Path) -> None:
        if not path.exists():
            return
        with path.open("r+b") as file:
            file.seek(int(path.stat().st_size * place))
            file.write(b"\n")
            file.seek(0, os.SEEK_END)
            file.write(text)

    return change


def replace(text: bytes, *, keep: bool) -> Change:
    """Another file in the place of the first, perhaps with its text before its own; with the time of modification."""

    def change(path: Path) -> None:
        was = path.stat() if path.exists() else None
        new = path.with_name("new")
        new.write_bytes((path.read_bytes() if was and keep else b"") + text)
        if was:
            os.utime(new, ns=(was.st_atime_ns, was.st_mtime_ns))
        new.rename(path)

    return change


def touch(path: Path) -> None:
    path.touch()


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def swap(path: Path) -> None:
    """Let two transcripts have each other's names."""
    other = path.with_name("b.jsonl" if path.name == "a.jsonl" else "a.jsonl")
    if path.exists() and other.exists():
        between = path.with_name("between")
        path.rename(between)
        other.rename(path)
        between.rename(other)


def void(_: object) -> None:
    """Nothing, whatever is given."""


SHARES = st.floats(0, 1)
CHANGES = st.one_of(
    st.builds(append, TEXTS),
    st.builds(append, TEXTS),
    st.builds(truncate, SHARES),
    st.builds(rewrite, TEXTS),
    st.builds(rewrite_with_old_time, st.integers(0, 99)),
    st.builds(overwrite_and_append, SHARES, TEXTS),
    st.builds(replace, TEXTS, keep=st.booleans()),
    st.sampled_from([touch, remove, swap]),
)
NAMES = st.sampled_from(["a.jsonl", "a-topic-1.jsonl", "b.jsonl", "b.jsonl.reset.2026-11-22T20-16-19.852Z"])


@settings(max_examples=150)
@given(st.lists(st.lists(st.tuples(NAMES, CHANGES), max_size=3), max_size=6))
def test_whatever_happens_to_transcripts_the_answer_is_that_without_an_index(
    rounds: list[list[tuple[str, Change]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_entry, "time", LaterClock)
        patch.setattr(jsonl, "UNREMEMBERED_BYTES", 0)
        patch.setattr(scan_entry, "DIGESTED_BYTES", MIB)  # what differs in the midst of what has grown isn't noticed
        home = Home(Path(folder))
        for changes in rounds:
            for name, change in changes:
                tick(home.cache.parent if home.cache.parent.exists() else home.openclaw_dir)
                change(home.sessions / name)
            expected = home.analysed(index=False)
            assert home.analysed() == expected
            assert home.analysed() == expected


def test_what_is_unchanged_is_not_counted_again(home: Home, counted: list[tuple[str, int]]) -> None:
    home.write("small.jsonl")
    home.write("large.jsonl", TALK + LINE * (3 * BLOCK_BYTES // len(LINE)))
    home.write("torn.jsonl", TALK + LINE[:-20])
    home.write("old.jsonl.reset.2026-11-22T20-16-19.852Z")
    packed = zstandard.compress(os.urandom(UNREMEMBERED_BYTES) + b"\n" + TALK)
    home.write("old.jsonl.deleted.2026-11-22T20-16-19.852Z.zst", packed)
    home.write("imported.jsonl", folder="sessions_archive")
    first = home.analysed()
    assert len(first[0]) == 6
    assert len(counted) == 6
    assert home.analysed() == first == home.analysed(index=False)
    assert len(counted) == 12  # the last without the index


def test_what_has_grown_is_counted_from_where_it_ended(home: Home, counted: list[tuple[int, int]]) -> None:
    small = home.write("small.jsonl")
    large = home.write("large.jsonl", TALK + LINE * (3 * BLOCK_BYTES // len(LINE)))
    home.analysed()
    sizes = {path: path.stat().st_size for path in (small, large)}
    tick(home.sessions)
    for path in sizes:
        append(LINE[:30])(path)  # half a line
    counted.clear()
    torn = home.analysed()
    assert sorted(counted) == sorted((size + 30, size) for size in sizes.values())
    assert torn == home.analysed(index=False)
    tick(home.sessions)
    for path in sizes:
        append(LINE[30:])(path)
    assert home.analysed() == home.analysed(index=False)
    assert home.analysed()[0][0]["skippedLines"] == 0


def test_what_differs_and_is_as_long_as_before_is_counted_anew(home: Home) -> None:
    path = home.write("a.jsonl", TALK + LINE * 200)
    home.analysed()
    tick(home.sessions)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\n")
    assert home.analysed() == home.analysed(index=False)


def test_what_is_compressed_is_counted_as_a_whole_when_it_has_grown(home: Home) -> None:
    frames = (zstandard.compress(os.urandom(UNREMEMBERED_BYTES) + b"\n" + LINE) for _ in range(10_000))
    path = home.write("a.jsonl.deleted.2026-11-22T20-16-19.852Z.zst", next(f for f in frames if f.endswith(b"\n")))
    home.analysed()
    tick(home.sessions)
    append(zstandard.compress(LINE))(path)
    assert home.analysed() == home.analysed(index=False)


@pytest.mark.parametrize("place", [0, DIGESTED_BYTES - 2, -DIGESTED_BYTES, -2])
def test_what_has_grown_and_differs_near_its_start_or_end_is_counted_anew(home: Home, place: int) -> None:
    path = home.write("a.jsonl", TALK + LINE * 200)
    home.analysed()
    tick(home.sessions)
    with path.open("r+b") as file:
        file.seek(place, os.SEEK_SET if place >= 0 else os.SEEK_END)
        file.write(b"\n")
    append(LINE)(path)
    assert home.analysed() == home.analysed(index=False)


def test_another_file_that_begins_as_the_first_is_counted_as_a_whole(
    home: Home, counted: list[tuple[int, int]]
) -> None:
    path = home.write("a.jsonl")
    home.analysed()
    replace(LINE, keep=True)(path)
    counted.clear()
    home.analysed()
    assert counted == [(len(TALK) + len(LINE), 0)]


def test_a_file_is_remembered_only_once_it_was_left_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    path = home.write("a.jsonl")
    for number in range(20):
        # As many bytes as before, within one tick of the clock or a few.
        path.write_bytes(TALK.replace(b"user", b"uses" if number % 2 else b"user"))
        was = path.stat()
        assert home.analysed() == home.analysed(index=False)
        assert path.stat().st_mtime_ns == was.st_mtime_ns
    assert home.entries() == {}
    os.utime(path, (1, 1))
    home.analysed()
    assert home.entries() == {}  # the time of modification is not what counts


def test_a_file_of_the_future_is_not_remembered(home: Home) -> None:
    path = home.write("a.jsonl")
    os.utime(path, (2**33, 2**33))
    home.analysed()
    assert not home.file.exists() or home.entries() == {}


def test_what_changes_while_it_is_read_is_not_remembered(home: Home) -> None:
    path = home.write("a.jsonl", TALK + LINE * (3 * BLOCK_BYTES // len(LINE)))
    sessions = LocalHome(str(home.openclaw_dir), index_folder=str(home.cache))
    (agent,) = sessions.agents(CancelToken(), FailedItems())
    steps = agent.sessions(NOW_MS)
    assert next(steps) is None
    tick(home.sessions)
    append(LINE)(path)
    assert [step for step in steps if step is not None]
    assert home.entries() == {}
    assert home.analysed() == home.analysed(index=False)


def test_what_shrinks_while_its_new_end_is_read_is_counted_anew(home: Home) -> None:
    path = home.write("a.jsonl", TALK)
    home.analysed()
    tick(home.sessions)
    append(LINE * (3 * BLOCK_BYTES // len(LINE)))(path)
    sessions = LocalHome(str(home.openclaw_dir), index_folder=str(home.cache))
    (agent,) = sessions.agents(CancelToken(), FailedItems())
    steps = agent.sessions(NOW_MS)
    assert next(steps) is None
    path.write_bytes(HEADER + b"\n" + LINE * 2)
    (session,) = (step for step in steps if step is not None)
    assert (session.message_count, session.size_bytes) == (2, path.stat().st_size)


def test_small_transcripts_are_not_remembered(home: Home) -> None:
    home.write("a.jsonl", TALK[:UNREMEMBERED_BYTES])
    home.analysed()
    assert not home.cache.exists()


def test_a_file_that_cannot_be_read_now_fails_though_it_is_remembered(home: Home) -> None:
    path = home.write("a.jsonl")
    home.write("b.jsonl")
    home.analysed()
    path.unlink()
    path.symlink_to(path)
    sessions, failures = home.analysed()
    assert [session["sessionId"] for session in sessions] == ["b"]
    assert [failure["path"] for failure in failures] == [str(path)]


def test_a_stream_that_is_cancelled_keeps_what_was_counted(home: Home, counted: list[tuple[int, int]]) -> None:
    for number in range(10):
        home.write(f"{number}.jsonl")
    token = CancelToken()
    sessions = LocalHome(str(home.openclaw_dir), index_folder=str(home.cache))
    (agent,) = sessions.agents(token, FailedItems())
    steps = agent.sessions(NOW_MS)
    for _ in range(4):
        next(steps)
    token.cancel()
    with pytest.raises(Cancelled):
        next(steps)
    assert sorted(home.entries()) == ["0", "1", "2", "3"]
    counted.clear()
    home.analysed()
    assert len(counted) == 6


def test_a_cancel_forgets_nothing_that_was_not_reached(home: Home) -> None:
    for number in range(10):
        home.write(f"{number}.jsonl")
    home.analysed()
    token = CancelToken()
    (agent,) = LocalHome(str(home.openclaw_dir), index_folder=str(home.cache)).agents(token, FailedItems())
    steps = agent.sessions(NOW_MS)
    next(steps)
    token.cancel()
    with pytest.raises(Cancelled):
        next(steps)
    assert len(home.entries()) == 10


def test_a_stream_that_is_closed_writes_nothing_any_more(home: Home) -> None:
    # That may be in the loop's thread, which must not wait for a lock.
    for number in range(3):
        home.write(f"{number}.jsonl")
    (agent,) = LocalHome(str(home.openclaw_dir), index_folder=str(home.cache)).agents(CancelToken(), FailedItems())
    steps = agent.sessions(NOW_MS)
    assert isinstance(steps, Generator)
    next(steps)
    next(steps)
    steps.close()
    assert home.entries() == {}


def test_what_has_gone_is_forgotten(home: Home) -> None:
    names = [f"{number:04}" for number in range(REMEMBERED_A_PAGE + REMEMBERED_A_WRITE + 10)]
    for name in names:
        home.write(f"{name}.jsonl")
    home.analysed()
    assert sorted(home.entries()) == names
    for name in names[2:]:
        (home.sessions / f"{name}.jsonl").unlink()
    home.write("0000.jsonl", b"")
    home.analysed()
    assert sorted(home.entries()) == ["0001"]


def test_a_folder_that_has_gone_is_forgotten(home: Home) -> None:
    home.write("a.jsonl")
    other = home.openclaw_dir / "agents" / "other" / "sessions"
    shutil.copytree(home.sessions, other)
    home.analysed()
    with sqlite3.connect(home.file) as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (2,)
    shutil.rmtree(other.parent)
    home.write("b.jsonl")
    home.analysed()
    with sqlite3.connect(home.file) as connection:
        assert connection.execute("SELECT path FROM folders").fetchall() == [(os.fsencode(home.sessions),)]
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (2,)
    connection.close()


def test_many_transcripts_are_found_again_in_their_order(home: Home, counted: list[tuple[int, int]]) -> None:
    # Where a dot and a dash sort: as ids, not as file names.
    for number in range(REMEMBERED_A_PAGE):
        home.write(f"{number:04}.jsonl")
        home.write(f"{number:04}-topic-1.jsonl")
        home.write(f"{number:04}.jsonl.reset.2026-11-22T20-16-19.852Z")
    first = home.analysed()
    counted.clear()
    assert home.analysed() == first
    assert counted == []


def test_names_that_are_no_utf_8_cost_time_at_worst(home: Home) -> None:
    for name in (b"\xff", b"\xc3\xa9", b"\xf0\x9f\x99\x82", b"\x80", b"z", b"\xef\xbf\xbd"):
        home.write(os.fsdecode(name) + ".jsonl")
    first = home.analysed(index=False)
    assert [home.analysed() for _ in range(3)] == [first] * 3


def test_the_index_is_for_the_eyes_of_its_owner(home: Home) -> None:
    home.write("a.jsonl")
    was = os.umask(0)
    try:
        home.analysed()
    finally:
        os.umask(was)
    assert stat.S_IMODE(home.cache.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.file.stat().st_mode) == 0o600
    assert os.listdir(home.cache) == [scan_rows.FILE]


# What may happen to the index.


def damage_anywhere(file: Path) -> None:
    data = bytearray(file.read_bytes())
    for place in range(0, len(data), 97):
        data[place] ^= 0x55
    file.write_bytes(data)


def other_tables(file: Path) -> None:
    file.unlink()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE folders (folder, path)")
        connection.execute("CREATE TABLE entries (folder, is_archive, session_id, entry)")
        connection.execute(
            "INSERT INTO folders SELECT 1, ?", (os.fsencode(file.parents[2] / "openclaw/agents/main/sessions"),)
        )
        connection.executemany("INSERT INTO entries VALUES (1, ?, ?, ?)", [("x", "a", 5)] * REMEMBERED_A_PAGE)
        connection.execute(f"PRAGMA user_version = {scan_entry.VERSION}")
    connection.close()


def other_version(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TABLE folders")
        connection.execute("PRAGMA user_version = 1")
    connection.close()


def other_paths(file: Path) -> None:
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("DROP TABLE folders")
    connection.execute("CREATE TABLE folders (folder INTEGER PRIMARY KEY, path UNIQUE)")
    connection.executemany("INSERT INTO folders (path) VALUES (?)", [(None,), (7,), ("text",), (b"\0",)])
    connection.close()


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "no database": lambda file: file.write_bytes(b"this is no database" * 1_000),
    "a schema that is no UTF-8": lambda file: file.write_bytes(
        file.read_bytes().replace(b"CREATE TABLE", b"CREATE TABL\xff")
    ),
    "cut": lambda file: os.truncate(file, file.stat().st_size // 2),
    "damaged": damage_anywhere,
    "other tables": other_tables,
    "other paths": other_paths,
    "other version": other_version,
    "its folder has gone": lambda file: shutil.rmtree(file.parent),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_an_index_that_cannot_be_read_is_begun_anew(
    home: Home, damage: Callable[[Path], Any], counted: list[tuple[int, int]]
) -> None:
    for number in range(REMEMBERED_A_PAGE):
        home.write(f"{number}.jsonl")
    first = home.analysed()
    damage(home.file)
    # The first finds it broken, perhaps only half-way; the next begins it anew.
    assert [home.analysed() for _ in range(3)] == [first] * 3
    counted.clear()
    assert home.analysed() == first
    assert counted == []


@given(st.data())
@settings(max_examples=60)
def test_bytes_changed_in_the_index_change_no_answer(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_entry, "time", LaterClock)
        home = Home(Path(folder))
        for number in range(8):
            home.write(f"{number}.jsonl", TALK + LINE * number)
        first = home.analysed()
        text = bytearray(home.file.read_bytes())
        for place, value in data.draw(
            st.lists(st.tuples(st.integers(0, len(text) - 1), st.integers(0, 255)), min_size=1, max_size=20)
        ):
            text[place] = value
        home.file.write_bytes(text)
        assert [home.analysed() for _ in range(2)] == [first] * 2


def test_in_the_place_of_the_index_may_be_anything(home: Home) -> None:
    home.write("a.jsonl")
    first = home.analysed(index=False)
    home.file.mkdir(parents=True)
    assert home.analysed() == first
    shutil.rmtree(home.cache)
    home.cache.write_bytes(b"")
    assert home.analysed() == first
    home.cache.unlink()
    home.cache.symlink_to(home.cache)
    assert home.analysed() == first


def test_a_locked_index_is_done_without(home: Home) -> None:
    home.write("a.jsonl")
    first = home.analysed()
    connection = sqlite3.connect(home.file, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    begun_s = time.monotonic()
    home.write("b.jsonl")
    assert home.analysed() == home.analysed(index=False)
    assert time.monotonic() - begun_s < 5
    connection.rollback()
    connection.execute("BEGIN")
    connection.execute("SELECT * FROM entries").fetchone()
    # It can be read, but not written.
    assert len(home.analysed()[0]) == 2
    connection.close()
    assert list(home.entries()) == ["a"]
    (home.sessions / "b.jsonl").unlink()
    assert home.analysed() == first


def test_a_fault_is_met_once_an_analysis(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write("a.jsonl")
    home.analysed()
    for name in ("b", "c", "d"):
        shutil.copytree(home.sessions, home.openclaw_dir / "agents" / name / "sessions")
    asked: list[str] = []

    def noted(name: str) -> Callable[..., Any]:
        method = getattr(scan_rows.Rows, name)

        def note(*arguments: Any) -> Any:
            asked.append(name)
            return method(*arguments)

        return note

    for name in ("page", "write"):
        monkeypatch.setattr(scan_rows.Rows, name, noted(name))
    connection = sqlite3.connect(home.file, isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("SELECT * FROM entries").fetchone()
    assert len(home.analysed()[0]) == 4
    assert asked.count("write") == 1
    assert asked.count("page") == 4
    connection.rollback()
    connection.execute("BEGIN")
    connection.execute("DROP TABLE entries")
    connection.execute("COMMIT")
    asked.clear()
    assert len(home.analysed()[0]) == 4
    assert asked == ["page"]
    connection.close()
    home.analysed()
    assert list(home.entries()) == ["a"]


def test_a_full_index_is_emptied(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_rows, "MAX_SCAN_INDEX_PAGES", 8)
    for number in range(2 * REMEMBERED_A_WRITE):
        home.write(f"{number:04}.jsonl")
    first = home.analysed()
    for _ in range(5):
        assert home.analysed() == first
        assert home.file.stat().st_size <= 8 * 4_096
    # Nor is it in the way of another home.
    other = Home(tmp_path / "other")
    other.cache, other.file = home.cache, home.file
    other.write("a.jsonl")
    for _ in range(2):
        other.analysed()
    assert "a" in home.entries()


def test_where_there_is_no_room_for_an_index_there_is_none(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_rows, "MAX_SCAN_INDEX_PAGES", 1)
    home.write("a.jsonl")
    assert home.analysed() == home.analysed(index=False)


def test_nothing_is_remembered_of_what_lies_on_a_network_file_system(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = home.sessions.stat().st_dev
    mounts = tmp_path / "mounts"
    mounts.write_text(f"36 35 {os.major(device)}:{os.minor(device)} / /mnt rw shared:1 - nfs4 server:/home rw\n")
    monkeypatch.setattr(file_systems, "_MOUNTS", str(mounts))
    home.write("a.jsonl")
    home.analysed()
    assert not home.cache.exists()


def test_homes_without_a_transcript_to_remember_need_no_sqlite(home: Home) -> None:
    # A megabyte of memory, which the analysis of 20,000 small transcripts has not to spare.
    home.write("a.jsonl", TALK[:UNREMEMBERED_BYTES])
    program = (
        "import sys\n"
        "from sidecar.cancel import CancelToken\n"
        "from sidecar.stores.home import LocalHome\n"
        "from sidecar.streams.analyze import analyze_sessions\n"
        "(agent,) = analyze_sessions(LocalHome(sys.argv[1], index_folder=sys.argv[2]), CancelToken())\n"
        "print(len(agent.sessions), 'sqlite3' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program, str(home.openclaw_dir), str(home.cache)]
    assert subprocess.check_output(command, text=True) == "1 False\n"
    home.write("b.jsonl")
    assert subprocess.check_output(command, text=True) == "2 True\n"


# Entries


@given(
    st.builds(
        Entry,
        st.builds(Stamp, *[st.integers(-(2**63), 2**64 - 1)] * 5),
        st.integers(0, 2**63),
        st.binary(max_size=16),
        st.tuples(
            *[st.integers(0, 2**63)] * 3,
            st.none() | st.text(max_size=64),
            st.none() | st.text(max_size=512),
            st.booleans(),
            st.integers(0, 2**63),
        ),
    )
)
def test_an_entry_is_read_as_it_was_written(entry: Entry) -> None:
    data = encode(entry)
    assert data is not None
    assert decode(data) == entry
    assert decode(data[:-1]) is None
    assert decode(b"") is None


@pytest.mark.parametrize(
    "entry",
    [
        Entry(Stamp(2**70, 0, 0, 0, 0), 0, b"", (0, 0, 0, None, None, False, 0)),
        Entry(Stamp(0, 0, 0, 0, 0), 0, b"", (0, 0, 0, "\ud83d", None, False, 0)),
    ],
)
def test_an_entry_that_cannot_be_written_down_is_not(entry: Entry) -> None:
    assert encode(entry) is None


def test_an_entry_of_another_release_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Entry(Stamp(0, 0, 0, 0, 0), 0, b"", (0, 0, 0, None, None, False, 0)))
    assert data is not None
    monkeypatch.setattr(scan_entry, "VERSION", scan_entry.VERSION + 1)
    assert decode(data) is None
