"""The same data on a host, read by each engine, and here: the same answers, whatever reads it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from sidecar.cancel import CancelToken
from sidecar.core.failures import FailedItems
from sidecar.errors import InvalidParams, SessionNotFound, SessionsRefused, SidecarError
from sidecar.stores.base import Home
from sidecar.stores.deletion import clear_all, delete_sessions
from sidecar.stores.home import LocalHome
from sidecar.streams.preview import preview_session
from sidecar.wire.messages import encode
from tests.integration.test_store_contract import DELETED, RESET, STORES, Build, in_files, transcripts
from tests.remote.client import Client, client_in
from tests.remote.node import node_executable
from tests.remote.sshd import Sshd, tools_folder
from tests.sqlite_trees import Archive, Session, SqliteAgent
from tests.transcripts.sample_home import write_sample_home

Wire = dict[str, Any]

TOOLS = ("sh", "cat", "uname", "env")
ENGINES = ("node", "python", "sftp")
REAL = Path(__file__).resolve().parents[3] / "shared/real-openclaw"
HEX = "bfa8201e84bb45fe985078b57cdd216c"


class Place:
    """A host on which one engine alone can run, and a way to it."""

    def __init__(self, engine: str, host: Sshd, client: Client) -> None:
        self.engine = engine
        self.host = host
        self.client = client
        self.openclaw_dir = host.home / ".openclaw"

    def remote(self) -> Home:
        return self.client.home()

    def local(self) -> LocalHome:
        return LocalHome(str(self.openclaw_dir))

    def share(self) -> None:
        self.host.account.own(self.openclaw_dir)


@pytest.fixture(scope="module", params=ENGINES)
def engine_host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    engine: str = request.param
    with Sshd() as setting_up:
        programs = {"node": {"node": node_executable()}, "python": {"python3": Path("/usr/bin/python3")}, "sftp": {}}
        path = tools_folder(setting_up.folder / "bin", TOOLS, **programs[engine])
        with Sshd(path=str(path)) as host, client_in(tmp_path_factory.mktemp("client")) as client:
            client.add(host)
            yield Place(engine, host, client)


@pytest.fixture
def place(engine_host: Place) -> Iterator[Place]:
    yield engine_host
    shutil.rmtree(engine_host.openclaw_dir, ignore_errors=True)


def analysed(home: Home, now_ms: float | None = None) -> tuple[dict[str, list[Wire]], list[Wire]]:
    """Sessions by agent, in their order, with failures; ages counted from ``now_ms``."""
    failed = FailedItems()
    found: dict[str, list[Wire]] = {}
    for agent in home.agents(CancelToken(), failed):
        if agent is None:
            continue
        sessions = [
            msgspec.to_builtins(session)
            for session in agent.sessions(home.now_ms if now_ms is None else now_ms)
            if session is not None
        ]
        assert agent.sessions_total == len(sessions) or failed.count
        if sessions:
            found[agent.agent] = sessions
    return found, [msgspec.to_builtins(failure) for failure in failed.first]


def listed(home: Home) -> tuple[list[Wire], list[Wire]]:
    failed = FailedItems()
    files = [msgspec.to_builtins(file) for file in home.files(CancelToken(), failed) if file is not None]
    return files, [msgspec.to_builtins(failure) for failure in failed.first]


def previewed(home: Home, agent_id: str, session_id: str) -> bytes:
    def transcript(token: CancelToken) -> Any:
        return home.transcript(agent_id, session_id, token)

    return encode(preview_session(transcript, agent_id, session_id, CancelToken()))


def outcome(home: Home, agent_id: str, session_id: str) -> bytes | str:
    """What a preview gives, or why it gives nothing: a backslash is in no name that a client may send."""
    try:
        return previewed(home, agent_id, session_id)
    except (SidecarError, OSError) as error:
        return f"{type(error).__name__}: {error}"


def assert_same(place: Place) -> dict[str, list[Wire]]:
    """Everything that can be read of the home there is what it is here; gives the analysis."""
    place.share()
    remote = place.remote()
    found = analysed(remote)
    here = analysed(place.local(), remote.now_ms)
    if place.engine == "sftp":
        forget_fractions(found[0], here[0])
    assert found == here
    assert listed(place.remote()) == listed(place.local())
    for agent, sessions in found[0].items():
        for session in sessions:
            names = agent, session["sessionId"]
            assert outcome(place.remote(), *names) == outcome(place.local(), *names)
    return found[0]


def forget_fractions(there: dict[str, list[Wire]], here: dict[str, list[Wire]]) -> None:
    """Take ages that differ by less than a second for the same: SFTP tells times of files in whole seconds."""
    for agent, sessions in there.items():
        for session, other in zip(sessions, here.get(agent, []), strict=True):
            if abs(session["ageDays"] - other["ageDays"]) * 86_400 <= 1.001:
                session["ageDays"] = other["ageDays"]


def needs_database(place: Place) -> None:
    if place.engine == "sftp":
        pytest.skip("SFTP alone reads no databases")


@pytest.mark.parametrize("build", STORES.values(), ids=STORES)
def test_every_store_gives_the_same_answers_as_here(build: Build, place: Place) -> None:
    if build is not in_files:
        needs_database(place)
    sessions = transcripts()
    if build is not in_files:
        sessions["odd"] = sessions["odd"].replace(b"\xff", b"?")
    build(place.openclaw_dir / "agents" / "main", sessions)
    found = assert_same(place)
    assert {session["sessionId"] for session in found["main"]} == sessions.keys()


def test_archives_of_every_form_give_the_same_answers_as_here(place: Place) -> None:
    needs_database(place)
    folder, text = place.openclaw_dir / "agents" / "main", transcripts()["s1"]
    rows = [Archive(f"r1.{DELETED}.{HEX}.zst", text), Archive(f"r2.{RESET}.zst", text, "reset", "identity")]
    SqliteAgent(folder, 23, [], rows).close()
    write_archives(folder, text)
    assert len(assert_same(place)["main"]) == 7


def test_archives_in_rows_that_are_cut_off_or_empty_fail_alone(place: Place) -> None:
    needs_database(place)
    folder, text = place.openclaw_dir / "agents" / "main", transcripts()["s1"]
    rows = [Archive(f"r{number}.{RESET}.zst", text) for number in range(3)]
    agent = SqliteAgent(folder, 23, [Session("s1", text, {})], rows)
    agent.close()
    stream = zstandard.ZstdCompressor(write_content_size=False).compress(text)
    connection = sqlite3.connect(agent.path)
    for number, blob in enumerate((b"", stream[:-9])):
        query = "UPDATE session_transcript_archives SET archive_blob = ? WHERE archive_name = ?"
        connection.execute(query, (blob, f"r{number}.{RESET}.zst"))
    connection.commit()
    connection.close()
    place.share()
    there, here = place.remote(), place.local()
    for read in (listed, lambda home: analysed(home, 0)):
        (found, failed), (found_here, failed_here) = read(there), read(here)
        assert found == found_here
        # What zstd says of an empty frame is each library's own.
        assert [one["path"] for one in failed] == [one["path"] for one in failed_here]
        assert len(failed) == 2


def test_archives_in_files_alone_give_the_same_answers_as_here(place: Place) -> None:
    folder, text = place.openclaw_dir / "agents" / "main", transcripts()["s1"]
    (folder / "sessions").mkdir(parents=True)
    write_archives(folder, text)
    assert len(assert_same(place)["main"]) == 5


def write_archives(folder: Path, text: bytes) -> None:
    files = {f"f1.{RESET}": text, f"f2.{DELETED}": text, f"f3.{RESET}.zst": zstandard.compress(text)}
    files |= {f"f4.{DELETED}.{HEX}.zst": zstandard.compress(text)}
    for name, data in files.items():
        (folder / "sessions" / name).write_bytes(data)
    (folder / "sessions_archive").mkdir()
    (folder / "sessions_archive" / "f5.jsonl").write_bytes(text)
    (folder / "sessions" / f"broken.{RESET}.zst").write_bytes(zstandard.compress(text)[:-20])


def test_what_a_migration_left_is_shown_once_and_what_it_forgot_is_shown(place: Place) -> None:
    needs_database(place)
    folder, sessions = place.openclaw_dir / "agents" / "main", transcripts()
    SqliteAgent(folder, 23, [Session(name, sessions[name], {}) for name in ("s1", "s2")]).close()
    imports = folder / "session-sqlite-import-archive"
    imports.mkdir()
    (imports / "agent_main_main.s1.jsonl.imported-1795378501364").write_bytes(sessions["s1"])
    (imports / "agent_main_lost.s0.jsonl.imported-1795378501364").write_bytes(sessions["s0"])
    (folder / "sessions" / "s1.jsonl").write_bytes(sessions["s1"])
    own = b'{"type":"message","id":"own","timestamp":"t","message":{"role":"user","content":"only here"}}\n'
    (folder / "sessions" / "s2.jsonl").write_bytes(sessions["s2"] + own)
    found = assert_same(place)
    assert [session["sessionId"] for session in found["main"]] == [
        "s2.jsonl",
        "agent_main_lost.s0.jsonl.imported-1795378501364",
        "s1",
        "s2",
    ]


def test_the_sample_home_with_its_broken_parts_gives_the_same_answers_as_here(place: Place, tmp_path: Path) -> None:
    write_sample_home(tmp_path)
    shutil.copytree(tmp_path / ".openclaw", place.openclaw_dir, symlinks=True)
    assert len(assert_same(place)) == 2


def test_names_and_things_of_every_kind_give_the_same_answers_as_here(place: Place) -> None:
    text = transcripts()["s1"]
    agents = place.openclaw_dir / "agents"
    for number, name in enumerate(HOSTILE):
        folder = os.path.join(os.fsencode(agents), b"agent" if number % 2 else name, b"sessions")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, name + b".jsonl"), "wb") as file:
            file.write(text)
    odd = agents / "odd" / "sessions"
    (odd / "folder.jsonl").mkdir(parents=True)
    os.mkfifo(odd / "fifo.jsonl")
    (odd / "dangling.jsonl").symlink_to("nowhere")
    (odd / "loop.jsonl").symlink_to("loop.jsonl")
    (odd / "to-a-file.jsonl").symlink_to("good.jsonl")
    (odd / "good.jsonl").write_bytes(text)
    (odd / "sessions.json").write_text("[]")
    (odd / "below" / "deep").mkdir(parents=True)
    (odd / "below" / "deep" / "x.txt").write_text("x")
    (agents / "a-file").write_text("no agent")
    (agents / "link").symlink_to("odd")
    found = assert_same(place)
    assert len(found["odd"]) == len(found["link"]) == 2
    assert sum(map(len, found.values())) == len(HOSTILE) + 4


HOSTILE = (
    b"plain",
    b"with 'single' and \"double\" quotes",
    b"$(touch run-by-a-shell)",
    b"`touch run-by-a-shell`",
    b"a;b&c|d>e<f",
    b"line\nfeed",
    b"-rf",
    b"--",
    b"~",
    b"*",
    b"back\\slash\\n",
    b"\xff\xfe not UTF-8",
    "snow ☃ and 😀 and �ff".encode(),
    b"new\rline \x1b[31m \x01",
)


@pytest.mark.skipif(not REAL.is_dir(), reason="no real OpenClaw data here")
@pytest.mark.parametrize("era", ["2026.7.1-jsonl", "2026.9.6-sqlite"])
def test_the_real_trees_give_the_same_answers_as_here(place: Place, era: str) -> None:
    if era.endswith("sqlite"):
        needs_database(place)
    shutil.copytree(REAL / era, place.openclaw_dir, symlinks=True)
    for path in (place.openclaw_dir, *place.openclaw_dir.rglob("*")):
        path.chmod(path.stat().st_mode | 0o600)
    assert sum(map(len, assert_same(place).values())) >= 6


@pytest.mark.parametrize("name", ["abc", "", ".", "..", "a/b", "x" * 300, "nul\0"])
def test_sessions_and_agents_that_are_not_there_end_as_here(place: Place, name: str) -> None:
    in_files(place.openclaw_dir / "agents" / "main", {"s1": transcripts()["s1"]})
    place.share()
    for agent_id, session_id in (("main", name), (name, "s1")):
        errors = []
        for home in (place.remote(), place.local()):
            with pytest.raises((SessionNotFound, InvalidParams)) as raised:
                previewed(home, agent_id, session_id)
            errors.append((type(raised.value), raised.value.message))
        assert errors[0] == errors[1]


def test_a_home_without_agents_is_empty_there_too(place: Place) -> None:
    assert analysed(place.remote()) == ({}, [])
    assert listed(place.remote()) == ([], [])


def test_agents_that_are_a_file_fail_as_here(place: Place) -> None:
    place.openclaw_dir.mkdir()
    (place.openclaw_dir / "agents").write_text("")
    place.share()
    texts = []
    for home in (place.remote(), place.local()):
        with pytest.raises(OSError, match=r"(?i)not a directory") as raised:
            analysed(home)
        texts.append(str(raised.value))
    if place.engine != "sftp":
        assert texts[0] == texts[1]


def deleting(home: Any, tree: Path, act: Callable[[Any], int]) -> tuple[Any, dict[str, bytes]]:
    """The answer, or the refusals, and what is left of the tree."""
    try:
        answer: Any = act(home)
    except SessionsRefused as error:
        answer = error.details
    left = {
        os.fsencode(path.relative_to(tree)).decode("utf-8", "replace"): path.read_bytes()
        for path in sorted(tree.rglob("*"))
        if path.is_file()
    }
    return answer, left


def write_deletable(tree: Path) -> None:
    sessions = {name: transcripts()["s1"] for name in ("abc", "abcdef", "abc-topic-1", "$(x)", "other", "locked")}
    in_files(tree / "agents" / "main", sessions)
    folder = tree / "agents" / "main" / "sessions"
    for name in (f"abc.{RESET}", "abc.trajectory.jsonl", "abc.trajectory-path.json", "notes.txt", f"abc.{DELETED}.zst"):
        (folder / name).write_text(name)
    (folder / "locked.jsonl.lock").write_text(f'{{"pid":{os.getpid()},"createdAt":"now"}}')
    in_files(tree / "agents" / "second", {"x": transcripts()["s1"]})


REQUESTS: tuple[tuple[str, list[str]], ...] = (
    ("main", ["abc"]),
    ("main", ["abc", "nobody", "", "..", "a/b", f"abc.{RESET}", "abcdef"]),
    ("main", ["$(x)", "$(x)"]),
    ("nobody", ["abc"]),
    ("..", ["abc"]),
    ("main", []),
)


@pytest.mark.parametrize(("agent_id", "ids"), REQUESTS, ids=[",".join(ids) or "none" for _, ids in REQUESTS])
def test_a_deletion_takes_what_it_takes_here_and_refuses_the_same(
    place: Place, tmp_path: Path, agent_id: str, ids: list[str]
) -> None:
    for tree in (place.openclaw_dir, tmp_path / "local"):
        write_deletable(tree)
    place.share()

    def act(home: Any) -> int:
        return delete_sessions(home, agent_id, ids, CancelToken())

    there = deleting(place.remote(), place.openclaw_dir, act)
    here = deleting(LocalHome(str(tmp_path / "local")), tmp_path / "local", act)
    assert there[0] == here[0]
    assert there[1].keys() == here[1].keys()
    index = "agents/main/sessions/sessions.json"
    assert msgspec.json.decode(there[1].pop(index)) == msgspec.json.decode(here[1].pop(index))
    assert there[1] == here[1]


def test_clearing_takes_what_it_takes_here(place: Place, tmp_path: Path) -> None:
    for tree in (place.openclaw_dir, tmp_path / "local"):
        write_deletable(tree)
        (tree / "agents" / "main" / "sessions" / "locked.jsonl.lock").unlink()
    place.share()
    there = deleting(place.remote(), place.openclaw_dir, lambda home: clear_all(home, CancelToken()))
    here = deleting(LocalHome(str(tmp_path / "local")), tmp_path / "local", lambda home: clear_all(home, CancelToken()))
    assert there == here
    assert there[0] == 11


def test_a_database_that_the_engine_cannot_read_is_a_failed_item_that_says_what_is_missing(place: Place) -> None:
    if place.engine != "sftp":
        pytest.skip("this engine reads databases")
    folder, sessions = place.openclaw_dir / "agents" / "main", transcripts()
    SqliteAgent(folder, 23, [Session("s1", sessions["s1"], {})]).close()
    (folder / "sessions" / "s0.jsonl").write_bytes(sessions["s0"])
    in_files(place.openclaw_dir / "agents" / "second", {"s2": sessions["s2"]})
    place.share()
    found, failures = analysed(place.remote())
    assert {agent: [one["sessionId"] for one in ones] for agent, ones in found.items()} == {
        "main": ["s0"],
        "second": ["s2"],
    }
    assert len(failures) == 1
    assert failures[0]["path"].endswith("openclaw-agent.sqlite")
    assert "Node" in failures[0]["error"]
