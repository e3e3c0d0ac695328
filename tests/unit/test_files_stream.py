"""Every file below the session folders is listed once, in the order of the whole paths, however many there are."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.cancel import CancelToken
from sidecar.errors import Cancelled, SourceUnreadable
from sidecar.limits import CHUNK_AGE_MS, DEFAULT_BATCH_FILES, FIRST_CHUNK_AGE_MS, MAX_BATCH_FILES
from sidecar.stores import listing
from sidecar.stores.base import SessionFile
from sidecar.stores.home import LocalHome
from sidecar.stores.locations import AgentFolder
from sidecar.streams import files
from sidecar.streams.base import Event, Outcome
from sidecar.streams.files import FileChunkBuilder, SessionFilesDone, SessionFilesStream, list_session_files
from sidecar.text import file_name
from tests.unit.test_jsonl_store import ordinary_rights

Wire = dict[str, Any]


def write(root: Path, *paths: str) -> None:
    """Files at these paths below ``agents``, each as long as its path."""
    for path in paths:
        (root / "agents" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "agents" / path).write_text(path)


def listed(root: Path, **options: Any) -> list[Wire]:
    return [msgspec.to_builtins(file) for file in list_session_files(LocalHome(str(root), **options), CancelToken())]


def paths(found: list[Wire]) -> list[str]:
    return [file["relativePath"] for file in found]


def by_the_book(root: str) -> list[str]:
    """The relative paths of all files below the session folders, in the plainest way."""
    found = []
    for folder, _, names in os.walk(os.path.join(root, "agents")):
        parts = os.path.relpath(folder, root).split(os.sep)
        if len(parts) > 2 and parts[2] in {"sessions", "sessions_archive"}:
            found += ["/".join([*parts, name]) for name in names if os.path.isfile(os.path.join(folder, name))]
    return sorted(found)


def made(stream: SessionFilesStream, token: CancelToken | None = None) -> Iterator[Event]:
    """The events, without the steps between them."""
    return (event for event in stream.events(token or CancelToken()) if event is not None)


def streamed(root: Path, batch_size: int | None = None, **options: Any) -> tuple[list[Wire], SessionFilesDone]:
    """The files of a stream, and its terminal; the totals of each chunk are checked."""
    stream = SessionFilesStream(LocalHome(str(root), **options), batch_size)
    found: list[Wire] = []
    for event in made(stream):
        stream.sent(event)
        assert event.method == "session-files:chunk"
        chunk: Wire = msgspec.to_builtins(event.payload)
        assert set(chunk) == {"files", "totalFiles", "totalSizeBytes"}
        assert 0 < len(chunk["files"]) <= (batch_size or DEFAULT_BATCH_FILES)
        found += chunk["files"]
        assert chunk["totalFiles"] == len(found)
        assert chunk["totalSizeBytes"] == sum(file["sizeBytes"] for file in found)
    (terminal,) = stream.closing(Outcome())
    assert terminal.method == "session-files:done"
    assert isinstance(terminal.payload, SessionFilesDone)
    return found, terminal.payload


# What is listed


def test_every_file_below_the_session_folders_is_listed_sidecars_too_and_no_other(tmp_path: Path) -> None:
    wanted = [
        "main/sessions/a.jsonl",
        "main/sessions/a.jsonl.lock",
        "main/sessions/a.jsonl.reset.2026-11-22T20-15-53.605Z",
        "main/sessions/a.trajectory.jsonl",
        "main/sessions/cold/0123.jsonl.zst",
        "main/sessions/sessions.json",
        "main/sessions/skills-prompts/sha256/ab/abcd.txt",
        "main/sessions_archive/a.jsonl",
        "research/sessions/.hidden",
    ]
    write(tmp_path, *wanted, "main/agent/models.json", "main/x.jsonl", "main/session-sqlite-import-archive/a", "x")
    assert listed(tmp_path) == [
        {
            "path": f"{tmp_path}/agents/{path}",
            "relativePath": f"agents/{path}",
            "agent": path.split("/", maxsplit=1)[0],
            "kind": "archive" if "sessions_archive" in path else "sessions",
            "sizeBytes": len(path),
        }
        for path in wanted
    ]


def test_links_to_files_count_with_the_size_of_the_file_and_links_to_folders_are_not_entered(tmp_path: Path) -> None:
    write(tmp_path, "main/sessions/a", "main/sessions/below/b")
    sessions = tmp_path / "agents/main/sessions"
    (sessions / "to-file").symlink_to("below/b")
    (sessions / "to-folder").symlink_to("below")
    (sessions / "below" / "up").symlink_to(sessions)
    (sessions / "below" / "itself").symlink_to("itself")
    (sessions / "dangling").symlink_to("nowhere")
    (sessions / "device").symlink_to("/dev/null")
    os.mkfifo(sessions / "fifo")
    found = listed(tmp_path)
    assert paths(found) == [f"agents/main/sessions/{name}" for name in ("a", "below/b", "to-file")]
    assert found[2]["sizeBytes"] == found[1]["sizeBytes"]


def test_an_agent_folder_and_a_session_folder_that_are_links_are_entered(tmp_path: Path) -> None:
    write(tmp_path / "large disk", "moved/sessions/a", "elsewhere/b")
    agents = tmp_path / "agents"
    agents.mkdir()
    (agents / "main").symlink_to(tmp_path / "large disk/agents/moved")
    (agents / "main" / "sessions_archive").symlink_to(tmp_path / "large disk/agents/elsewhere")
    found = listed(tmp_path)
    assert paths(found) == ["agents/main/sessions/a", "agents/main/sessions_archive/b"]
    assert [file["path"] for file in found] == [f"{agents}/main/sessions/a", f"{agents}/main/sessions_archive/b"]


def test_a_name_of_any_bytes_is_shown_so_that_it_leads_back_to_the_file(tmp_path: Path) -> None:
    names = [b"\xff", b"\xfe.jsonl", "größe".encode(), "\ufffd".encode(), "\ufffdff".encode(), b"a\nb", "🙂".encode()]
    for folder in (b"agents/ag\xffent/sessions/", b"agents/ag\xffent/sessions/\xfe/"):
        os.makedirs(os.fsencode(tmp_path) + b"/" + folder)
        for name in names:
            with open(os.fsencode(tmp_path) + b"/" + folder + name, "wb"):
                pass
    found = listed(tmp_path)
    assert len(found) == 2 * len(names)
    assert paths(found) == sorted(paths(found))
    assert all(os.path.isfile(file_name(file["path"])) for file in found)
    assert all(os.path.isfile(tmp_path / file_name(file["relativePath"])) for file in found)
    assert {file["agent"] for file in found} == {"ag\ufffdffent"}


def test_a_directory_without_agents_or_files_gives_nothing_but_the_terminal(tmp_path: Path) -> None:
    assert listed(tmp_path) == []
    (tmp_path / "agents" / "main" / "sessions").mkdir(parents=True)
    found, done = streamed(tmp_path)
    assert found == []
    assert msgspec.to_builtins(done) == {
        "totalFiles": 0,
        "totalSizeBytes": 0,
        "cancelled": False,
        "failedItems": 0,
        "failures": [],
    }


# In which order


def test_a_folder_comes_where_a_slash_behind_its_name_puts_it(tmp_path: Path) -> None:
    order = ["a", "a b", "a-b/x", "a-b.c", "a.b", "a/.", "a/z", "a0", "a_/x", "aa"]
    names = [name if name != "a" and name != "a/." else name + "!" for name in order]
    write(tmp_path, *(f"main/sessions/{name}" for name in names))
    assert paths(listed(tmp_path)) == sorted(f"agents/main/sessions/{name}" for name in names)


def test_agents_come_where_a_slash_behind_their_names_puts_them(tmp_path: Path) -> None:
    write(tmp_path, *(f"{agent}/sessions/x" for agent in ("a", "a-b", "a.b", "a b", "a0", "ab", "A")))
    found = paths(listed(tmp_path))
    assert found == sorted(found)
    assert found.index("agents/a.b/sessions/x") < found.index("agents/a/sessions/x")


NAMES = st.text("a0.-/_ é\uffff", min_size=1, max_size=4) | st.sampled_from(["a", "a.b", "a-", "a b", "sessions"])
FOLDERS = st.sampled_from(["sessions", "sessions_archive", "sessions", "agent"])


@settings(max_examples=60)
@given(st.sets(st.tuples(NAMES, FOLDERS, NAMES, NAMES | st.just("")), max_size=25), st.sampled_from([None, 1, 3]))
def test_the_order_is_that_of_all_paths_sorted_whatever_the_tree(
    tree: set[tuple[str, str, str, str]], batch_size: int | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for parts in tree:
            path = os.path.join(folder, "agents", *(part.strip("/").strip(".") or "x" for part in parts if part))
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "x") as file:
                    file.write("x" * (len(path) % 7))
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                pass
        found = listed(Path(folder))
        assert paths(found) == by_the_book(folder)
        assert all(file["sizeBytes"] == os.path.getsize(file["path"]) for file in found)
        assert streamed(Path(folder), batch_size)[0] == found


def test_a_folder_of_more_names_than_are_listed_in_a_step_is_sorted_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LISTED_FILES_A_STEP", 10)
    write(tmp_path, *(f"main/sessions/{number * 7919 % 95:04}" for number in range(95)))
    found, done = streamed(tmp_path)
    assert paths(found) == by_the_book(str(tmp_path))
    assert done.total_files == 95


def test_a_chain_of_more_folders_than_python_can_recurse_into_is_walked(tmp_path: Path) -> None:
    depth = sys.getrecursionlimit() + 100
    sessions = tmp_path / "agents/main/sessions"
    sessions.mkdir(parents=True)
    folders = [os.open(sessions, os.O_RDONLY)]
    try:
        for _ in range(depth):
            os.mkdir("d", dir_fd=folders[-1])
            folders.append(os.open("d", os.O_RDONLY, dir_fd=folders[-1]))
            os.close(folders.pop(0))
        os.close(os.open("file", os.O_CREAT, dir_fd=folders[-1]))
        found = paths(listed(tmp_path))
    finally:
        os.close(folders[-1])
        subprocess.run(["rm", "-rf", sessions], check=True)  # pytest would recurse
    assert found == ["agents/main/sessions/" + "d/" * depth + "file"]


# Databases


def row(agent: str, session_id: str, size_bytes: int = 7) -> SessionFile:
    database = f"agents/{agent}/agent/openclaw-agent.sqlite"
    return SessionFile(f"/claw/{database}", f"{database}#{session_id}", agent, "sessions", size_bytes)


def test_the_rows_of_a_database_come_where_their_paths_put_them(tmp_path: Path) -> None:
    def rows(agent: AgentFolder, *_: object) -> Iterator[SessionFile]:
        asked.append(agent.name)
        yield from (row(agent.name, session_id) for session_id in ("s1", "s2"))
        yield SessionFile("/x", f"agents/{agent.name}/sessions/b", agent.name, "archive", 3)

    asked: list[str] = []
    write(tmp_path, "a/sessions/a", "a/sessions/c", "b/agent/x", "a.b/sessions/x")
    found = listed(tmp_path, database_files=rows)
    assert asked == ["a.b", "a", "b"]
    assert paths(found) == sorted(paths(found))
    assert len(found) == 3 + 3 * 3
    assert streamed(tmp_path, 2, database_files=rows)[0] == found


def test_a_database_that_fails_is_one_failed_item_after_the_rows_that_it_gave(tmp_path: Path) -> None:
    def rows(agent: AgentFolder, *_: object) -> Iterator[SessionFile]:
        yield row(agent.name, "s1")
        if agent.name == "a":
            raise SourceUnreadable("the database is corrupt")

    write(tmp_path, "a/sessions/x", "b/sessions/x")
    found, done = streamed(tmp_path, database_files=rows)
    assert [(file["agent"], file["kind"], "#" in file["path"] or "#" in file["relativePath"]) for file in found] == [
        ("a", "sessions", True),
        ("a", "sessions", False),
        ("b", "sessions", True),
        ("b", "sessions", False),
    ]
    assert [failure.error for failure in done.failures] == ["the database is corrupt"]


# Chunks


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, ms: float) -> None:
        self.now_s += ms / 1000


def is_due(chunks: FileChunkBuilder) -> bool:
    return chunks.due


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(files, "FileChunkBuilder", partial(FileChunkBuilder, clock=clock))
    return clock


def test_the_first_chunk_closes_early_since_someone_waits_for_it_and_later_ones_at_their_age(clock: Clock) -> None:
    chunks = FileChunkBuilder(500, clock)
    for age_ms in (FIRST_CHUNK_AGE_MS, CHUNK_AGE_MS, CHUNK_AGE_MS):
        clock.advance(100_000)
        assert not is_due(chunks)
        chunks.add(row("main", "s1"))
        clock.advance(age_ms - 1)
        chunks.add(row("main", "s2"))
        assert not is_due(chunks)
        clock.advance(2)
        assert is_due(chunks)
        assert len(chunks.take().files) == 2


def test_a_chunk_that_was_taken_does_not_change_any_more_and_the_totals_go_on() -> None:
    chunks = FileChunkBuilder(2)
    chunks.add(row("main", "s1", 5))
    first = chunks.take()
    chunks.add(row("main", "s2", 6))
    assert not is_due(chunks)
    chunks.add(row("main", "s3", 7))
    assert is_due(chunks)
    second = chunks.take()
    assert (len(first.files), first.total_files, first.total_size_bytes) == (1, 1, 5)
    assert (len(second.files), second.total_files, second.total_size_bytes) == (2, 3, 18)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("asked", "given"), [(None, 500), (0, 1), (-5, 1), (1, 1), (2_000, 2_000), (2_001, 2_000), (10**9, 2_000)]
)
def test_the_batch_size_is_500_unless_told_and_clamped_to_1_and_2000(
    tmp_path: Path, asked: int | None, given: int
) -> None:
    assert (DEFAULT_BATCH_FILES, MAX_BATCH_FILES) == (500, 2_000)
    (tmp_path / "agents" / "main").mkdir(parents=True)
    rows = [row("main", f"{number:04}") for number in range(2_100)]
    events = made(SessionFilesStream(LocalHome(str(tmp_path), lambda *_: rows), asked))
    sizes = [len(msgspec.to_builtins(event.payload)["files"]) for event in events]
    assert sizes == [given] * (2_100 // given) + [2_100 % given] * (2_100 % given > 0)


def test_a_chunk_goes_out_while_the_next_folder_is_still_being_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    def scandir(path: str) -> Any:
        clock.advance(CHUNK_AGE_MS + 1 if "/b/" in path else 0)
        return os.scandir(path)

    write(tmp_path, "a/sessions/x", "b/sessions/x", "b/sessions/y")
    monkeypatch.setattr(listing, "LISTED_FILES_A_STEP", 1)
    monkeypatch.setattr(listing, "os", SimpleNamespace(path=os.path, stat=os.stat, scandir=scandir))
    first = next(made(SessionFilesStream(LocalHome(str(tmp_path)))))
    assert [file["agent"] for file in msgspec.to_builtins(first.payload)["files"]] == ["a"]


# Cancel and failures


def test_a_cancelled_token_stops_between_two_files_and_the_terminal_counts_what_was_sent(tmp_path: Path) -> None:
    write(tmp_path, "main/sessions/a", "main/sessions/b", "main/sessions/c")
    stream = SessionFilesStream(LocalHome(str(tmp_path)), 1)
    token = CancelToken()
    events = made(stream, token)
    stream.sent(next(events))
    token.cancel()
    with pytest.raises(Cancelled):
        next(events)
    cancelled, done = stream.closing(Outcome(cancelled=True))
    assert cancelled.method == "sessions:cancelled"
    assert isinstance(done.payload, SessionFilesDone)
    assert (done.payload.total_files, done.payload.cancelled) == (1, True)
    assert done.payload.total_size_bytes == len("main/sessions/a")


def test_a_cancelled_token_stops_while_a_folder_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def scandir(path: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        with os.scandir(path) as entries:
            yield (entry for entry in entries if next(seen) >= 0)

    seen = itertools.count()
    write(tmp_path, *(f"main/sessions/{number}" for number in range(30)))
    monkeypatch.setattr(listing, "LISTED_FILES_A_STEP", 10)
    monkeypatch.setattr(listing, "os", SimpleNamespace(path=os.path, stat=os.stat, scandir=scandir))
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        list_session_files(LocalHome(str(tmp_path)), token)
    assert next(seen) == 10


def test_a_cancel_within_a_database_is_a_cancel_and_no_failed_item(tmp_path: Path) -> None:
    def rows(*_: object) -> Iterator[SessionFile]:
        raise Cancelled

    write(tmp_path, "main/sessions/a")
    with pytest.raises(Cancelled):
        listed(tmp_path, database_files=rows)


def test_another_stream_may_have_the_thread_after_each_folder_is_listed(tmp_path: Path) -> None:
    write(tmp_path, "main/sessions/a/x", "main/sessions/b/x")
    steps = list(SessionFilesStream(LocalHome(str(tmp_path))).events(CancelToken()))
    assert [step is None for step in steps] == [True, True, True, False]


def test_a_failed_stream_tells_why_before_its_terminal(tmp_path: Path) -> None:
    (tmp_path / "agents").write_text("")
    stream = SessionFilesStream(LocalHome(str(tmp_path)))
    with pytest.raises(NotADirectoryError):
        next(made(stream))
    methods = [event.method for event in stream.closing(Outcome(error=SourceUnreadable("x")))]
    assert methods == ["sessions:error", "session-files:done"]


def test_what_can_not_be_read_is_a_failed_item_each_and_the_rest_is_listed() -> None:
    # Not pytest's folder, which is its user's alone.
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        write(root, "a/sessions/shut/x", "a/sessions/x", "b/sessions/x/y", "c/sessions/z")
        (root / "agents/a/sessions_archive").write_text("")
        (root / "agents/a/sessions/shut").chmod(0)
        (root / "agents/b/sessions/x").chmod(0o444)
        (root / "agents/c/sessions/loop").symlink_to("loop")
        with ordinary_rights():
            found, done = streamed(root)
        for path in ("a/sessions/shut", "b/sessions/x"):
            (root / "agents" / path).chmod(0o700)
    assert paths(found) == ["agents/a/sessions/x", "agents/c/sessions/z"]
    assert {os.path.relpath(failure.path, folder): failure.error.split(":")[0] for failure in done.failures} == {
        "agents/a/sessions/shut": "permission denied",
        "agents/a/sessions_archive": "not a directory",
        "agents/b/sessions/x/y": "permission denied",
        "agents/c/sessions/loop": "too many levels of symbolic links",
    }
    assert done.failed_items == 4


def test_files_that_vanish_while_they_are_listed_are_no_failures(tmp_path: Path) -> None:
    write(tmp_path, "main/sessions/a", "main/sessions/b", "main/sessions/below/c", "main/sessions/d")
    stream = SessionFilesStream(LocalHome(str(tmp_path)), 1)
    events = made(stream)
    next(events)
    (tmp_path / "agents/main/sessions/b").unlink()
    (tmp_path / "agents/main/sessions/below/c").unlink()
    (tmp_path / "agents/main/sessions/below").rmdir()
    (last,) = events
    assert [file["path"][-1] for file in msgspec.to_builtins(last.payload)["files"]] == ["d"]
    (terminal,) = stream.closing(Outcome())
    assert msgspec.to_builtins(terminal.payload)["failedItems"] == 0


def test_the_real_trees_are_listed_as_by_the_book() -> None:
    real = Path(__file__).resolve().parents[3] / "shared/real-openclaw"
    if not real.is_dir():
        pytest.skip(f"no real OpenClaw data at {real}")
    for era, count in (("2026.7.1-jsonl", 14), ("2026.9.6-sqlite", 1)):
        # Not the database: it may be read in a copy only.
        found, done = streamed(real / era, 3, database_files=lambda *_: ())
        assert paths(found) == by_the_book(str(real / era))
        assert len(found) == done.total_files == count
        assert done.total_size_bytes == sum(os.path.getsize(file["path"]) for file in found)
        assert listed(real / era, database_files=lambda *_: ()) == found
