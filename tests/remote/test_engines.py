"""The engines for hosts against the stores that they are ports of: the same home, the same answers, failures too."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import random
import shutil
import socket
import stat
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.cancel import CancelToken
from sidecar.core.failures import FailedItems
from sidecar.core.preview import MessageReader
from sidecar.demo.sample import AgentPlan, write_tree
from sidecar.errors import SessionsRefused, SidecarError, as_sidecar_error
from sidecar.remote import records
from sidecar.remote.engines import NODE_BOOTSTRAP, PYTHON_BOOTSTRAP
from sidecar.remote.home import RemoteHome
from sidecar.stores.base import Home
from sidecar.stores.deletion import Deletable, delete_sessions
from sidecar.stores.home import LocalHome
from tests.integration.test_live_sqlite import ROW_BYTES, closed_agent, writer
from tests.integration.test_store_contract import DELETED, RESET, STORES, entry_of, in_files, transcripts
from tests.remote import engine as engines
from tests.remote.engine import DEADLINE_S, Engine, Run, request_for, told
from tests.sqlite_trees import Archive, Session, SqliteAgent, cold_archive, open_database, stream_compressed
from tests.transcripts.sample_home import write_sample_home
from tests.unit.strategies import BLANKS, GARBAGE, entries, mutations, values

NOW_MS = 1_795_392_000_000.0
SOON_S = 1.0
MESSAGE = b'{"type":"message","id":"%d","timestamp":"%s","message":{"role":"user","content":"%s"}}\n'

_HIDE = "data:text/javascript,import process from 'node:process';import zlib from 'node:zlib';"
_NO_URIS = (
    "const s=process.getBuiltinModule('node:sqlite'),D=s.DatabaseSync;"
    "s.DatabaseSync=class extends D{constructor(n,o){if(n.startsWith('file:'))throw new Error('no');super(n,o)}};"
)
ENGINES: dict[str, Callable[[], Engine]] = {
    "node": engines.node,
    "node-of-modules": engines.node_of_modules,
    "node without zstd": lambda: engines.node(None, "--import", _HIDE + "delete zlib.zstdDecompressSync"),
    "node whose sqlite takes no URIs": lambda: engines.node(None, "--import", _HIDE + _NO_URIS),
    "python": engines.python,
    # Isolated, so without zstandard.
    "python without zstd": lambda: engines.python(sys.executable, "-I", "-S"),
}


def node_of_the_system() -> Engine:
    found = engines.bare_node()
    if found is None:
        pytest.skip("the system has no Node without node:sqlite")
    return engines.node(found)


WITHOUT_SQLITE: dict[str, Callable[[], Engine]] = {
    "node of the system": node_of_the_system,
    "node without sqlite": lambda: engines.node(None, "--import", _HIDE + "process.getBuiltinModule=()=>{}"),
}
LOCK_WAITS = {
    "node": ("const INDEX_LOCK_WAIT_MS = 5_000;", "const INDEX_LOCK_WAIT_MS = 200;"),
    "python": ("INDEX_LOCK_WAIT_S = 5.0", "INDEX_LOCK_WAIT_S = 0.2"),
}
LEASES = {"node": ("const LEASE_MS = 20_000;", "const LEASE_MS = 1_000;"), "python": ("LEASE_S = 20", "LEASE_S = 1")}


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    return ENGINES[request.param]()


@pytest.fixture(params=[name for name in ENGINES if " " in name])
def lacking_engine(request: pytest.FixtureRequest) -> Engine:
    return ENGINES[request.param]()


@pytest.fixture(params=["node", "python"])
def plain_engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine once, for what doesn't hang on its abilities."""
    return ENGINES[request.param]()


@pytest.fixture(params=list(WITHOUT_SQLITE))
def engine_without_sqlite(request: pytest.FixtureRequest) -> Engine:
    return WITHOUT_SQLITE[request.param]()


_NO_LOOP = asyncio.new_event_loop()
_NO_LOOP.close()


class EngineHome(RemoteHome):
    """A home as an engine here tells of it."""

    def __init__(self, engine: Engine, home: Path, **options: Any) -> None:
        super().__init__(_NO_LOOP, _never)
        self._engine = engine
        self._home = home
        self._options = options

    def run(self, request: Mapping[str, Any], token: CancelToken) -> Generator[records.Record | None, None, None]:
        for record in told(self._engine, request_for(home=self._home, **request), **self._options):
            name, *items = record.items
            if name == "fail":
                raise records.failure(*items)
            if name != "end":
                yield records.Record(name, items, record.data or b"")


async def _never(request: Mapping[str, Any]) -> records.EngineRun:
    raise AssertionError(request)


def analysed(home: Home) -> tuple[list[Any], list[Any]]:
    """Each agent with all its sessions, and what failed."""
    failed = FailedItems()
    agents: list[Any] = []
    try:
        for agent in home.agents(CancelToken(), failed):
            if agent is not None:
                sessions = [msgspec.to_builtins(each) for each in agent.sessions(NOW_MS) if each is not None]
                agents.append((agent.agent, agent.sessions_total, sessions))
    except (OSError, SidecarError) as error:
        agents.append(_outcome(error))
    return agents, _failures(failed)


def listed(home: Home) -> tuple[list[Any], list[Any]]:
    failed = FailedItems()
    try:
        files: list[Any] = [file for file in home.files(CancelToken(), failed) if file is not None]
    except (OSError, SidecarError) as error:
        files = [_outcome(error)]
    return files, _failures(failed)


def shown(home: Home, agent_id: str, session_id: str) -> Any:
    """The messages of a session, and how many lines were none; or why there are none."""
    reader = MessageReader()
    try:
        blocks = home.transcript(agent_id, session_id, CancelToken())
        if blocks is None:
            return "session_not_found"
        messages = [
            (message.role, json.loads(bytes(message.content)))
            for block in blocks
            if block is not None
            for some in reader.read(block)
            for message in some
        ]
    except (OSError, SidecarError) as error:
        kind, message = _outcome(error)
        return kind if kind == "session_not_found" else (kind, message)
    return messages, reader.skipped_lines


def _outcome(error: OSError | SidecarError) -> tuple[str, str]:
    told = as_sidecar_error(error)
    return told.kind, told.message


def _failures(failed: FailedItems) -> list[tuple[str, str]]:
    return sorted((failure.path, failure.error) for failure in failed.first)


def assert_same(engine: Engine, home: Path, *, previews: bool = True) -> None:
    there, here = EngineHome(engine, home), LocalHome(str(home))
    agents, failures = analysed(here)
    assert analysed(there) == (agents, failures)
    assert listed(there) == listed(here)
    if previews:
        for agent, _, sessions in agents:
            for session_id in [session["sessionId"] for session in sessions]:
                assert shown(there, agent, session_id) == shown(here, agent, session_id), session_id


def sample_home(home: Path) -> None:
    write_sample_home(home)
    shutil.copytree(home / ".openclaw" / "agents", home / "agents", symlinks=True)


def sample_tree(home: Path) -> None:
    write_tree(home, (AgentPlan("main", 4, 900_000), AgentPlan("many", 9, 3_000)), now_ms=int(NOW_MS))


def every_store(home: Path) -> None:
    sessions = transcripts()
    in_files(home / "agents" / "files", sessions)
    # A database holds text: what is no UTF-8 can't be in one.
    sessions["odd"] = sessions["odd"].replace(b"\xff", b"?")
    for name, build in STORES.items():
        if name != "files":
            build(home / "agents" / name, sessions)


def archives(home: Path) -> None:
    folder, text = home / "agents" / "main", transcripts()["s1"]
    hexes = "bfa8201e84bb45fe985078b57cdd216c"
    rows = [
        Archive(f"r1.{DELETED}.{hexes}.zst", text),
        Archive(f"r2.{RESET}.zst", text, "reset", "identity"),
        Archive(f"both.{RESET}.zst", text, "reset"),
    ]
    SqliteAgent(folder, 23, [], rows).close()
    files = {
        f"f1.{RESET}": text,
        f"f2.{RESET}.zst": zstandard.compress(text),
        f"f3.{RESET}.zst": stream_compressed(text),
        f"f4.{RESET}.zst": zstandard.compress(text) + stream_compressed(text),
        f"cut.{RESET}.zst": zstandard.compress(text)[:-9],
        f"cut-within.{RESET}.zst": stream_compressed(text * 20)[:3_000],
        f"damaged.{RESET}.zst": b"\0" + zstandard.compress(text),
        f"empty.{RESET}.zst": b"",
        f"none.{RESET}.zst": zstandard.compress(b""),
        f"skippable.{RESET}.zst": b"\x50\x2a\x4d\x18\x04\0\0\0four" + zstandard.compress(text),
        f"both.{RESET}.zst": zstandard.compress(text),
        f"dense.{RESET}.zst": zstandard.compress(MESSAGE % (1, b"t", b"x" * 5_000_000) * 2),
    }
    for name, data in files.items():
        (folder / "sessions" / name).write_bytes(data)


def migrated(home: Path) -> None:
    folder, sessions = home / "agents" / "main", transcripts()
    SqliteAgent(
        folder, 23, [Session(name, sessions[name], entry_of(name)) for name in ("s1", "s2", "a-topic-7")]
    ).close()
    imports = folder / "session-sqlite-import-archive"
    imports.mkdir()
    (imports / "agent_main_main.s1.jsonl.imported-1795378501364").write_bytes(sessions["s1"])
    (imports / "agent_main_lost.s0.jsonl.imported-1795378501364").write_bytes(sessions["s0"])
    (imports / "archive-tier.s1.trajectory.jsonl.imported-1795378501364").write_bytes(b"{}\n")
    own = MESSAGE % (9, b"t", b"only here")
    leftovers = {"s1": sessions["s1"], "s2": sessions["s2"] + own, "a-topic-7": b"torn", "alone": sessions["s0"]}
    for name, text in leftovers.items():
        (folder / "sessions" / f"{name}.jsonl").write_bytes(text)


def hostile_names(home: Path) -> None:
    sessions = home / "agents" / "main" / "sessions"
    sessions.mkdir(parents=True)
    text = transcripts()["s1"]
    names = [
        b"-rf",
        b"$(touch x)",
        b"a'b\"c",
        b"new\nline",
        b"\xff\xfe",
        b"a\xc3",
        "\ufffdff".encode(),
        "\ufffd".encode(),
    ]
    names += [
        b"a",
        b"a-b",
        "é".encode(),
        "\U0001f642".encode(),
        b"\xed\xa0\xbd",
        b"x\x80.y",
        b" ",
        b"..jsonl",
        b"%41",
        b"a\\b",
    ]
    for name in names:
        for path in (name + b".jsonl", name + b".jsonl.lock", name + b".jsonl." + RESET[6:].encode()):
            _write(sessions, path, text)
        other = os.fsencode(home) + b"/agents/" + name
        os.makedirs(other + b"/sessions/" + name)
        _write(Path(os.fsdecode(other)) / "sessions", name + b".jsonl", text)
        _write(Path(os.fsdecode(other)) / "sessions" / os.fsdecode(name), name, text)


def _write(folder: Path, name: bytes, data: bytes) -> None:
    with open(os.fsencode(folder) + b"/" + name, "wb") as file:
        file.write(data)


def hostile_files(home: Path) -> None:
    agents = home / "agents"
    sessions = agents / "main" / "sessions"
    sessions.mkdir(parents=True)
    (sessions / "folder.jsonl").mkdir()
    os.mkfifo(sessions / "fifo.jsonl")
    with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(sessions):
        bound.bind("socket.jsonl")
    (sessions / "dangling.jsonl").symlink_to("nowhere")
    (sessions / "loop.jsonl").symlink_to("loop.jsonl")
    (sessions / "to-fifo.jsonl").symlink_to("fifo.jsonl")
    (sessions / "to-folder.jsonl").symlink_to(".")
    (sessions / "good.jsonl").write_bytes(transcripts()["s0"])
    (sessions / "linked.jsonl").symlink_to("good.jsonl")
    (sessions / "sub").mkdir()
    (sessions / "sub" / "up").symlink_to("..")
    (sessions / "sub.jsonl").write_bytes(b"")
    (sessions / "sessions.json").mkdir()
    (agents / "loop").symlink_to("loop")
    (agents / "dangling").symlink_to("nowhere")
    (agents / "moved").symlink_to(agents / "main")
    (agents / "file").write_bytes(b"")
    (agents / "odd").mkdir()
    (agents / "odd" / "sessions").write_bytes(b"a file where a folder should be")
    (agents / "odd" / "sessions_archive").symlink_to("sessions_archive")


def odd_databases(home: Path) -> None:
    for name, data in {"empty": b"", "text": b"no database " * 999, "header": b"SQLite format 3\0"}.items():
        (home / "agents" / name / "agent").mkdir(parents=True)
        (home / "agents" / name / "agent" / "openclaw-agent.sqlite").write_bytes(data)
    (home / "agents" / "folder" / "agent" / "openclaw-agent.sqlite").mkdir(parents=True)
    SqliteAgent(home / "agents" / "first", 1).close()
    SqliteAgent(home / "agents" / "nothing", 23).close()
    for name, statements in ODD_TABLES.items():
        agent = SqliteAgent(home / "agents" / name, 23, [Session("s1", transcripts()["s1"], {"updatedAt": 5})])
        agent.connection.execute("PRAGMA ignore_check_constraints = ON")
        agent.connection.execute("PRAGMA foreign_keys = OFF")
        for statement in statements:
            agent.connection.execute(statement)
        agent.close()
    for name, (old, new) in ODD_RECORDS.items():
        with_odd_record(home / "agents" / name, old, new)


def with_odd_record(folder: Path, old: bytes, new: bytes) -> None:
    """An agent with a session in cold storage, in whose records something was replaced."""
    session = Session("c", transcripts()["s1"], {"updatedAt": 5}, "sqlite")
    agent = SqliteAgent(folder, 23, [session])
    text = zstandard.ZstdDecompressor().stream_reader(cold_archive(session)).read()
    assert text != text.replace(old, new)
    blob = stream_compressed(text.replace(old, new))
    agent.connection.execute("UPDATE session_transcript_cold_archives SET archive_blob = ?", [blob])
    agent.close()


_LOOSE = """
CREATE TABLE transcript_events (session_id, seq, event_json, created_at, event_zstd, PRIMARY KEY (session_id, seq))
"""
ODD_TABLES = {
    "no columns": ["ALTER TABLE transcript_events DROP COLUMN created_at"],
    "neither": ["UPDATE transcript_events SET event_json = NULL, event_zstd = NULL WHERE seq = 3"],
    "line feeds": [
        "UPDATE transcript_events SET event_json = replace(event_json, ',', ',' || char(10)) || char(10)"
        " WHERE event_json IS NOT NULL"
    ],
    "numbers": [
        "ALTER TABLE transcript_events RENAME TO old",
        _LOOSE,
        "INSERT INTO transcript_events VALUES (1, 0, '{}', 0, NULL)",
    ],
    "a number for text": [
        "ALTER TABLE transcript_events RENAME TO old",
        _LOOSE,
        "INSERT INTO transcript_events VALUES ('n', 0, 5, 0, NULL), ('t', 'x', '{}', 0, NULL), ('u', 0, '{}', 'x', 7)",
    ],
    "an index that is none": ["UPDATE session_nodes SET entry_json = '{torn'"],
    "an entry that is none": ["UPDATE session_nodes SET entry_json = '5'"],
    "bytes for ids": ["UPDATE transcript_events SET session_id = CAST(x'ff41' AS TEXT)"],
    "an unknown encoding": [
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_schema SET sql = replace(sql, '''zstd''))', '''lz4''))') WHERE name LIKE '%archives'",
    ],
}

ODD_RECORDS = {
    "cold and invalid": (b'"event_json":"{', b'"event_json":"\xff{'),
    "cold without a header": (b'{"kind":"header"', b'{"kind":"footer"'),
    "cold without kinds": (b'{"kind":"index"', b'{"sort":"index"'),
    "cold and torn": (b'{"kind":"active"', b'{"kind":"active'),
    "cold and blank": (b'{"kind":"active"', b'\n{"kind":"active"'),
}

TREES: dict[str, Callable[[Path], None]] = {
    tree.__name__.replace("_", " "): tree
    for tree in (sample_home, sample_tree, every_store, archives, migrated, hostile_names, hostile_files, odd_databases)
}


@pytest.mark.parametrize("build", TREES.values(), ids=TREES)
def test_an_engine_says_what_the_stores_say(
    plain_engine: Engine, build: Callable[[Path], None], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    build(home)
    assert_same(plain_engine, home)


@pytest.mark.parametrize("build", [every_store, archives, odd_databases])
def test_an_engine_that_lacks_something_says_the_same(
    lacking_engine: Engine, build: Callable[[Path], None], tmp_path: Path
) -> None:
    build(tmp_path)
    assert_same(lacking_engine, tmp_path)


@pytest.mark.parametrize("frame", ["x'0102030405060708'", "substr(event_zstd, 1, 40)"])
def test_a_session_with_a_damaged_frame_is_a_failed_item_and_the_others_are_whole(
    engine: Engine, frame: str, tmp_path: Path
) -> None:
    sessions = {name: transcripts()[name] for name in ("s0", "s1", "s2")}
    agent = SqliteAgent(tmp_path / "agents" / "main", 23, [Session(name, text) for name, text in sessions.items()])
    agent.connection.execute(
        f"UPDATE transcript_events SET event_zstd = {frame} WHERE event_zstd IS NOT NULL AND session_id = 's1'"
    )
    agent.close()
    agents, failures = analysed(EngineHome(engine, tmp_path))
    agents_here, failures_here = analysed(LocalHome(str(tmp_path)))
    assert agents == agents_here
    ((path, told_), (path_here, told_here)) = failures[0], failures_here[0]
    assert path == path_here == f"{agent.path}#s1"
    # A frame that came by itself is read as a stream, which has other words for what is wrong with it.
    row, what, _ = told_.partition(" of the session can't be decoded: the compressed data ")
    assert (row, what) == told_here.partition(what)[:2]
    assert what
    assert len(failures) == len(failures_here) == 1


@pytest.mark.parametrize(("old", "new"), [(b'"hello"', b'"\\ud83d"'), (b'{"text":"hello"', b'{"seq":"hello"')])
def test_node_leaves_cold_storage_that_is_refused_here_to_be_refused_here(
    old: bytes, new: bytes, tmp_path: Path
) -> None:
    with_odd_record(tmp_path / "agents" / "main", old, new)
    assert_same(engines.node(), tmp_path)
    assert analysed(LocalHome(str(tmp_path)))[1]


def test_a_home_that_is_not_there_has_no_agents_and_one_that_is_no_folder_is_an_error(
    plain_engine: Engine, tmp_path: Path
) -> None:
    assert_same(plain_engine, tmp_path / "nowhere")
    (tmp_path / "agents").write_bytes(b"")
    assert_same(plain_engine, tmp_path, previews=False)


INDEXES = {
    "compact": b'{"a":{"sessionId":"s","updatedAt":5,"totalTokens":6,"model":"m"}}',
    "newest wins": b'{"a":{"sessionId":"s","updatedAt":9,"model":"x"},"b":{"sessionId":"s","updatedAt":8,"model":"y"}}',
    "later wins": b'{"a":{"sessionId":"s","updatedAt":9,"model":"x"},"b":{"sessionId":"s","updatedAt":9,"model":"y"}}',
    "fractions": b'{"a":{"sessionId":"s","updatedAt":9.75,"totalTokens":9.0}}',
    "exponents": b'{"a":{"sessionId":"s","updatedAt":1e3,"totalTokens":1e3}}',
    "large": b'{"a":{"sessionId":"s","updatedAt":5,"totalTokens":4611686018427387903}}',
    "odd": b'{"a":{"sessionId":"s","totalTokens":9007199254740993}}',
    "too large": b'{"a":{"sessionId":"s","updatedAt":5,"totalTokens":4611686018427387904}}',
    "below nothing": b'{"a":{"sessionId":"s","updatedAt":-5,"totalTokens":-1,"model":"m"}}',
    "other types": b'{"a":{"sessionId":"s","updatedAt":"5","totalTokens":true,"model":["m"]},"b":7,"c":null,"d":[]}',
    "an id that is none": b'{"a":{"sessionId":5,"model":"m"}}',
    "half a pair": b'{"a":{"sessionId":"s","model":"\\ud83d"}}',
    "invalid": b'{"a":{"sessionId":"s","model":"\xff"}}',
    "a comma": b'{\n  "a": {\n    "sessionId": "s"\n  },\n}',
    "torn": b'{\n  "a": {\n    "sessionId": "s",\n    "model": "m"\n  },\n  "b": {\n',
    "two": b"{}{}",
    "list": b"[]",
    "empty": b"",
    "none": b"{\n}\n",
    "mark": b"\xef\xbb\xbf{}",
    "not a number": b'{"a":{"sessionId":"s","updatedAt":NaN}}',
}


def test_an_index_of_any_form_is_read_as_the_store_reads_it(plain_engine: Engine, tmp_path: Path) -> None:
    for name, index in INDEXES.items():
        sessions = tmp_path / "agents" / name / "sessions"
        sessions.mkdir(parents=True)
        (sessions / "s.jsonl").write_bytes(MESSAGE % (1, b"t", b"hi"))
        (sessions / "sessions.json").write_bytes(index)
    entries_ = {f"k{number}": {"sessionId": "s", "updatedAt": number, "x": "y" * 3_000} for number in range(400)}
    sessions = tmp_path / "agents" / "many pieces" / "sessions"
    sessions.mkdir(parents=True)
    (sessions / "s.jsonl").write_bytes(b"")
    (sessions / "sessions.json").write_text(json.dumps(entries_, indent=2))
    assert_same(plain_engine, tmp_path, previews=False)


LINES = {
    "longer than a block": MESSAGE % (1, b"t", b"x" * 700_000) + MESSAGE % (2, b"u", b"y"),
    "exactly a block": (MESSAGE % (1, b"t", b"x")) * (262_144 // len(MESSAGE % (1, b"t", b"x"))),
    "no line feed at the end": MESSAGE[:-1] % (1, b"t", b"x"),
    "carriage returns": (MESSAGE % (1, b"t", b"x")).replace(b"\n", b"\r\n"),
    "separators": MESSAGE % (1, b"t", "\u2028\u2029\x85".encode()),
    "NUL": b"\0" + MESSAGE % (1, b"t", b"x"),
    "blank": b"\n \n\t\r\n" + MESSAGE % (1, b"t", b"x"),
    "long times": MESSAGE % (1, "é".encode() * 64, b"x") + MESSAGE % (2, "🙂".encode() * 65, b"x"),
    "half pairs": MESSAGE % (1, b"\\ud83d" * 64, b"\\ude00"),
    "long id": b'{"type":"session","id":"%b"}\n' % ("🙂".encode() * 600),
    "second header": MESSAGE % (1, b"t", b"x") + b'{"type":"session","id":"late"}\n',
    "list first": b'[]\n{"type":"session","id":"s"}\n',
    "deep": b'{"type":"message","message":{"role":"user","content":' + b"[" * 100_000 + b"]" * 100_000 + b"}}\n",
    "wide": b'{"type":"message","message":{"role":"user","content":[' + b"[]," * 5_000 + b"[]]}}\n",
    "two of one key": b'{"type":"session","type":"message","message":{"role":"user","role":"assistant"}}\n',
    "no message": b'{"type":"message"}\n{"type":"message","message":null}\n{"type":"message","message":[]}\n',
    "prototypes": b'{"__proto__":{"type":"message"},"constructor":1}\n{"type":"message","message":"x","timestamp":7}\n',
    "images": MESSAGE.replace(b'"%s"}}', b'[{"type":"image","data":"%s"},{"type":"text","text":"a"},7,{"text":5}]}}')
    % (1, b"t", b"A" * 100_000),
    "long and odd": MESSAGE.replace(b'"user"', b'{"a":1}') % (1, b"t", b"\\ud83d" + b"A" * 20_000),
    "long and invalid": MESSAGE % (1, b"t", b"\xff" + b"A" * 20_000),
    "long and no message": b'{"type":"custom","data":"%b"}\n{"type":7,"data":"%b"}\n' % (b"A" * 50_000, b"A" * 50_000),
    "long and torn": (MESSAGE % (1, b"t", b"A" * 50_000))[:-9] + b"\n" + MESSAGE % (2, b"t", b"x"),
    "long strings": MESSAGE.replace(b'"content"', b'"x":"%b","content"' % (b"B" * 60_000)) % (1, b"t", b"kept"),
}


def test_lines_of_every_kind_are_counted_and_shown_as_here(plain_engine: Engine, tmp_path: Path) -> None:
    in_files(tmp_path / "agents" / "main", LINES)
    assert_same(plain_engine, tmp_path)


@given(st.data())
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_transcripts_and_indexes_are_read_as_here(
    plain_engine: Engine, tmp_path: Path, data: st.DataObject
) -> None:
    lines = st.one_of(
        entries(wrong=False), mutations(entries(wrong=True), [b"\n", b"\xff", b'"']), st.sampled_from(GARBAGE + BLANKS)
    )
    texts = data.draw(st.lists(st.lists(lines, max_size=6).map(b"\n".join), min_size=1, max_size=8))
    members = st.tuples(st.sampled_from([b'"s0"', b'"s1"', b'"s2"', b"5"]), values(wrong=False), values(wrong=False))
    index = b",".join(
        b'"k%d":{"sessionId":%b,"updatedAt":%b,"totalTokens":%b,"model":%b}' % (number, *member, member[1])
        for number, member in enumerate(data.draw(st.lists(members, max_size=6)))
    )
    home = tmp_path / f"home{random.getrandbits(64)}"
    in_files(home / "agents" / "main", {f"s{number}": text for number, text in enumerate(texts)})
    (home / "agents" / "main" / "sessions" / "sessions.json").write_bytes(b"{" + index + b"}")
    assert_same(plain_engine, home, previews=False)
    assert shown(EngineHome(plain_engine, home), "main", "s0") == shown(LocalHome(str(home)), "main", "s0")
    shutil.rmtree(home)


def test_damaged_databases_fail_as_they_do_here(plain_engine: Engine, tmp_path: Path) -> None:
    source = tmp_path / "source"
    rows = [
        Session(name, text, entry_of(name)) for name, text in transcripts().items() if name in ("s0", "s1", "large")
    ]
    whole = SqliteAgent(source, 23, rows).close().path.read_bytes()
    chance = random.Random(5)
    for number in range(24):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 20, 400))):
            damaged[chance.randrange(100, len(damaged))] = chance.randrange(256)
        folder = tmp_path / "home" / "agents" / f"{number:02}" / "agent"
        folder.mkdir(parents=True)
        (folder / "openclaw-agent.sqlite").write_bytes(damaged[: chance.choice((len(damaged), 40_960, 200_000))])
    there, here = analysed(EngineHome(plain_engine, tmp_path / "home")), analysed(LocalHome(str(tmp_path / "home")))
    # Which of several damages is met first, and what SQLite says of it, hangs on its version.
    assert [agent[0] for agent in there[0]] == [agent[0] for agent in here[0]]
    assert {path.partition("#")[0] for path, _ in there[1]} == {path.partition("#")[0] for path, _ in here[1]}
    assert there[1]


def test_a_database_that_cannot_be_read_for_want_of_sqlite_is_one_failed_item_and_the_files_are_analysed(
    engine_without_sqlite: Engine, tmp_path: Path
) -> None:
    every_store(tmp_path)
    migrated(tmp_path)
    agents, failures = analysed(EngineHome(engine_without_sqlite, tmp_path))
    databases = sorted(tmp_path.rglob("openclaw-agent.sqlite"))
    assert [path for path, _ in failures] == [str(path) for path in databases]
    assert {message for _, message in failures} == {
        "the database needs Node 22.13 or newer, or Python 3 with sqlite3, on the host"
    }
    found = {agent: [session["sessionId"] for session in sessions] for agent, _, sessions in agents}
    assert found["files"] == sorted(transcripts())
    assert "s1" in found["main"]  # not proved to be a copy
    assert "agent_main_main.s1.jsonl.imported-1795378501364" in found["main"]
    there = EngineHome(engine_without_sqlite, tmp_path)
    assert shown(there, "main", "s1")[0]
    assert shown(there, "main", "nothing") == ("source_unreadable", failures[0][1])


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may read everything")
def test_what_may_not_be_read_fails_as_it_does_here(plain_engine: Engine, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in ("main", "closed", "hidden"):
        in_files(home / "agents" / name, {"s1": transcripts()["s1"], "s2": b""})
    (home / "agents" / "main" / "sessions" / "s1.jsonl").chmod(0)
    (home / "agents" / "main" / "sessions" / "sessions.json").chmod(0)
    (home / "agents" / "closed" / "sessions").chmod(0)
    (home / "agents" / "hidden").chmod(0)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    records_ = told(_as_nobody(plain_engine, tmp_path), request_for("analyze", home))
    failed = sorted(tuple(record.items[1:]) for record in records_ if record.name == "failed")
    agents = home / "agents"
    assert failed == [
        (f"{agents}/closed/sessions", "EACCES", f"{agents}/closed/sessions", None),
        *((f"{agents}/hidden/{name}", "EACCES", f"{agents}/hidden/{name}", None) for name in HIDDEN_FOLDERS),
        (f"{agents}/main/sessions/s1.jsonl", "EACCES", "s1.jsonl", None),
        (f"{agents}/main/sessions/sessions.json", "EACCES", f"{agents}/main/sessions/sessions.json", None),
    ]
    assert [record.items[1] for record in records_ if record.name == "session"] == ["s2"]
    for name in ("closed/sessions", "hidden"):
        (agents / name).chmod(0o700)


HIDDEN_FOLDERS = ("session-sqlite-import-archive", "sessions", "sessions_archive")


def _as_nobody(engine: Engine, folder: Path) -> Engine:
    """The same as a user who may not read everything, with a program that this user can reach."""
    if os.geteuid() != 0:
        return engine
    program = folder / "program"
    if engine.name == "node":
        shutil.copy(engine.command[0], program)
        program.chmod(0o755)
    else:
        program = Path(sys.base_prefix) / "bin" / "python3"
    command = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(program), *engine.command[1:])
    return Engine(engine.name, command, engine.script)


def test_a_live_database_is_read_in_states_that_it_was_in(engine: Engine, tmp_path: Path) -> None:
    agent = closed_agent(tmp_path / "agents" / "main")
    counts = [0]
    with writer(agent) as running:
        for _ in range(5):
            agents, failures = analysed(EngineHome(engine, tmp_path))
            assert failures == []
            session = next(each for each in agents[0][2] if each["sessionId"] == "live")
            count = session["messageCount"]
            assert session["sizeBytes"] == count * ROW_BYTES
            assert session["lastActivity"] == f"2026-{count - 1:07d}"
            counts.append(count)
        ended = running.end()
    assert counts == sorted(counts)
    assert ended["busy"] == 0


def test_a_session_that_is_rewritten_all_the_time_is_of_one_state(plain_engine: Engine, tmp_path: Path) -> None:
    agent = closed_agent(tmp_path / "agents" / "main")
    with writer(agent, what="rewrite", rest_every=1) as running:
        for _ in range(5):
            agents, failures = analysed(EngineHome(plain_engine, tmp_path))
            assert failures == []
            session = next(each for each in agents[0][2] if each["sessionId"] == "live")
            number = int(session["lastActivity"].removeprefix("2026-"))
            assert session["messageCount"] == 300 + number % 7 * 100
        assert running.end()["busy"] == 0


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """All that lies below a folder, with its size and time."""
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {str(path): (status.st_size, status.st_mtime_ns) for path, status in found.items()}


def test_a_crashed_database_is_read_from_a_private_copy_that_is_gone_afterwards(engine: Engine, tmp_path: Path) -> None:
    home, private = tmp_path / "home", tmp_path / "private"
    private.mkdir()
    agent = closed_agent(home / "agents" / "main")
    with writer(agent, checkpoint_every=1_000_000) as running:
        running.kill()
    Path(f"{agent.path}-shm").unlink()
    before = state_of(home)
    there = EngineHome(engine, home, environ={**os.environ, "TMPDIR": str(private)})
    assert analysed(there) == analysed(LocalHome(str(home)))
    assert state_of(home) == before
    assert list(private.iterdir()) == []


def test_reading_leaves_no_trace(engine: Engine, tmp_path: Path) -> None:
    every_store(tmp_path)
    migrated(tmp_path)
    before = state_of(tmp_path)
    assert_same(engine, tmp_path, previews=False)
    shown(EngineHome(engine, tmp_path), "main", "s1")
    told(engine, request_for("names", tmp_path, agentId=None))
    told(engine, request_for("names", tmp_path, agentId="main"))
    assert state_of(tmp_path) == before


@contextlib.contextmanager
def endless(engine: Engine, home: Path, build: Callable[[Path], None], **options: Any) -> Iterator[Run]:
    """A run that would go on for minutes, up to where its work has begun."""
    build(home)
    with Run(engine, request_for("analyze", home), **options) as run:
        told_ = run.records()
        assert next(told_).name == "hello"
        yield run


def endless_file(home: Path) -> None:
    """Sparse, so that nothing is on the disk; a second for each few GB."""
    sessions = home / "agents" / "main" / "sessions"
    sessions.mkdir(parents=True)
    with open(sessions / "s.jsonl", "wb") as file:
        file.truncate(1 << 40)


def endless_query(home: Path) -> None:
    agent = SqliteAgent(home / "agents" / "main", 19)
    agent.connection.executescript("""
        DROP TABLE transcript_events;
        CREATE VIEW transcript_events AS
        WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers)
        SELECT 's' AS session_id, n AS seq, '{}' AS event_json, 0 AS created_at FROM numbers;
    """)
    agent.close()


ENDLESS = {"file": endless_file, "query": endless_query}


@pytest.mark.parametrize("build", ENDLESS.values(), ids=ENDLESS)
def test_an_engine_ends_within_a_second_when_its_input_does(
    plain_engine: Engine, build: Callable[[Path], None], tmp_path: Path
) -> None:
    with endless(plain_engine, tmp_path / "home", build) as run:
        closed_at_s = time.monotonic()
        run.close_input()
        run.wait()
        assert time.monotonic() - closed_at_s < SOON_S


@pytest.mark.parametrize("build", ENDLESS.values(), ids=ENDLESS)
def test_an_engine_says_that_it_lives_once_a_second_whatever_it_is_at(
    plain_engine: Engine, build: Callable[[Path], None], tmp_path: Path
) -> None:
    build(tmp_path / "home")
    with Run(plain_engine, request_for("analyze", tmp_path / "home")) as run:
        heard_at_s = [time.monotonic()]
        names = []
        for record in run.records():
            heard_at_s.append(time.monotonic())
            names.append(record.name)
            if len(names) == 6:
                break
        assert names[-1] == "beat"
        assert max(after - before for before, after in pairwise(heard_at_s)) < SOON_S + 0.5


def test_an_engine_ends_by_itself_when_its_lease_is_over(plain_engine: Engine, tmp_path: Path) -> None:
    engine = plain_engine.patched(*LEASES[plain_engine.name])
    started_at_s = time.monotonic()
    with endless(engine, tmp_path / "home", endless_file, lease=False) as run:
        run.wait()
        assert 0.9 < time.monotonic() - started_at_s < 5


def long_session(home: Path) -> dict[str, Any]:
    """A session that is more than a pipe holds, and the request for it."""
    in_files(home / "agents" / "main", {"s": MESSAGE % (1, b"t", b"x" * 900) * 2_000})
    return request_for("preview", home, agentId="main", sessionId="s")


def test_an_engine_whose_reader_has_stopped_ends_with_its_input_all_the_same(
    plain_engine: Engine, tmp_path: Path
) -> None:
    with Run(plain_engine, long_session(tmp_path)) as run:
        assert next(run.records()).name == "hello"
        closed_at_s = time.monotonic()
        run.close_input()
        run.wait()
        assert time.monotonic() - closed_at_s < SOON_S


def test_an_engine_whose_reader_has_gone_ends(plain_engine: Engine, tmp_path: Path) -> None:
    with Run(plain_engine, long_session(tmp_path)) as run:
        assert next(run.records()).name == "hello"
        closed_at_s = time.monotonic()
        run.close_output()
        run.wait()
        assert time.monotonic() - closed_at_s < SOON_S


def test_node_waits_where_its_output_would_block(tmp_path: Path) -> None:
    request = long_session(tmp_path)
    wanted = [record.data for record in told(engines.node(), request)]
    assert [record.data for record in told(engines.node(), request, in_a_socket=True)] == wanted


def test_a_private_copy_goes_with_an_engine_that_is_ended_while_it_makes_one(
    plain_engine: Engine, tmp_path: Path
) -> None:
    home, private = tmp_path / "home", tmp_path / "private"
    private.mkdir()
    agent = closed_agent(home / "agents" / "main")
    with open(f"{agent.path}-wal", "wb") as file:
        file.truncate(1 << 30)
    environ = {**os.environ, "TMPDIR": str(private)}
    with Run(plain_engine, request_for("analyze", home), environ=environ) as run:
        until_s = time.monotonic() + DEADLINE_S
        folders: list[Path] = []
        while not folders and time.monotonic() < until_s:
            folders = [path for path in private.iterdir() if path.is_dir()]
        (folder,) = folders
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        run.close_input()
        assert run.wait() != 0
        # The Python engine is survived, for a moment, by what cleans up after it.
        until_s = time.monotonic() + SOON_S
        while any(private.iterdir()) and time.monotonic() < until_s:
            pass
        assert list(private.iterdir()) == []


def deletable(home: Path) -> None:
    folder = home / "agents" / "main"
    in_files(folder, {name: transcripts()["s1"] for name in ("s1", "s2", "s3", "locked", "stale", "dot.dot")})
    sessions = folder / "sessions"
    for name in ("s1.trajectory.jsonl", "s1.trajectory-path.json", f"s3.{RESET}", f"alone.{DELETED}.zst"):
        (sessions / name).write_bytes(b"{}\n")
    (sessions / "s2.jsonl.lock").write_text("torn")
    os.utime(sessions / "s2.jsonl.lock", (0, 0))
    (sessions / "locked.jsonl.lock").write_text(json.dumps({"pid": os.getpid()}))
    (sessions / "stale.jsonl.lock").write_text(json.dumps({"pid": 2**22 + 1}))
    (folder / "sessions_archive").mkdir()
    (folder / "sessions_archive" / "old.jsonl").write_bytes(b"{}\n")
    _write(sessions, b"odd\xff.jsonl", b"{}\n")


WANTED = [
    ["s1"],
    ["s1", "s2", "s3", "dot.dot", "odd\ufffdff"],
    ["locked", "stale", "nothing", "s1.trajectory"],
    ["old.jsonl", f"alone.{DELETED}.zst", f"s3.{RESET}"],
]


def deleted(home: Deletable, session_ids: Iterable[str]) -> Any:
    try:
        return delete_sessions(home, "main", session_ids, CancelToken())
    except SessionsRefused as error:
        return error.message, error.details
    except OSError as error:
        return _outcome(error)


def contents(folder: Path) -> dict[str, bytes]:
    return {os.path.relpath(path, folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("session_ids", WANTED, ids=[wanted[0] for wanted in WANTED])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_deletion_takes_the_same_files_and_entries_as_here(
    plain_engine: Engine, session_ids: list[str], indent: int | None, tmp_path: Path
) -> None:
    for side in ("here", "there"):
        deletable(tmp_path / side)
        index = tmp_path / side / "agents" / "main" / "sessions" / "sessions.json"
        known = json.loads(index.read_text())
        known["by file"] = {"sessionFile": "/elsewhere/s3.jsonl", "text": 'a "quoted, {word}" \\'}
        index.write_text(json.dumps(known, indent=indent))
        index.chmod(0o640)
    outcome = deleted(LocalHome(str(tmp_path / "here")), session_ids)
    assert deleted(EngineHome(plain_engine, tmp_path / "there"), session_ids) == outcome
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    index = tmp_path / "there" / "agents" / "main" / "sessions" / "sessions.json"
    assert stat.S_IMODE(index.stat().st_mode) == 0o640


BROKEN = {
    "two of one key": b'{"a":{"sessionId":"s1"},"a":{"sessionId":"s1"}}',
    "torn": b'{"a":{"sessionId":"s1"}',
    "list": b"[]",
}


@pytest.mark.parametrize("index", BROKEN.values(), ids=BROKEN)
def test_an_index_that_cannot_be_rewritten_stays_as_it_is_and_that_is_said(
    plain_engine: Engine, index: bytes, tmp_path: Path
) -> None:
    deletable(tmp_path)
    sessions = tmp_path / "agents" / "main" / "sessions"
    (sessions / "sessions.json").write_bytes(index)
    request = request_for("remove", tmp_path, agentId="main", sessions=[["sessions", "s1.jsonl", True, []]])
    records_ = [record.items for record in told(plain_engine, request)]
    assert records_[1] == ["removed", 0, 1, True]
    assert records_[2][:3] == ["index-failed", None, None]
    assert records_[2][3].startswith("the session index")
    assert (sessions / "sessions.json").read_bytes() == index
    assert not list(sessions.glob("sessions.json.*"))


def test_an_index_whose_lock_is_held_is_left_alone(plain_engine: Engine, tmp_path: Path) -> None:
    engine = plain_engine.patched(*LOCK_WAITS[plain_engine.name])
    deletable(tmp_path)
    sessions = tmp_path / "agents" / "main" / "sessions"
    before = (sessions / "sessions.json").read_bytes()
    (sessions / "sessions.json.lock").write_text(json.dumps({"pid": os.getpid()}))
    request = request_for("remove", tmp_path, agentId="main", sessions=[["sessions", "s1.jsonl", True, []]])
    (failed,) = [record.items for record in told(engine, request) if record.name == "index-failed"]
    assert failed[1:] == [None, None, f"the session index is locked by process {os.getpid()}"]
    assert (sessions / "sessions.json").read_bytes() == before
    assert (sessions / "sessions.json.lock").exists()


def test_a_removal_finishes_the_index_when_its_input_ends(plain_engine: Engine, tmp_path: Path) -> None:
    sessions = {f"s{number:04}": b"{}\n" for number in range(3_000)}
    in_files(tmp_path / "agents" / "main", sessions)
    folder = tmp_path / "agents" / "main" / "sessions"
    asked = [["sessions", f"{name}.jsonl", True, []] for name in sessions]
    with Run(plain_engine, request_for("remove", tmp_path, agentId="main", sessions=asked)) as run:
        for record in run.records():
            if record.name == "removed":
                break
        run.close_input()
        run.wait()
    left = {path.stem for path in folder.glob("s*.jsonl")}
    index = json.loads((folder / "sessions.json").read_text())
    assert {entry["sessionId"] for entry in index.values()} == left
    assert not list(folder.glob("sessions.json.*"))


PATHS = {
    "chosen here": ({"CLAWPAL_OPENCLAW_DIR": "/elsewhere", "HOME": "/h"}, "/chosen", "/chosen/.openclaw"),
    "of ClawPal": ({"CLAWPAL_OPENCLAW_DIR": "~/x/../y//z/.", "HOME": "/h"}, None, "/h/y/z"),
    "a home that is none": ({"OPENCLAW_HOME": "/nowhere"}, None, "/nowhere"),
    "of OpenClaw": ({"OPENCLAW_STATE_DIR": "~", "HOME": "/h/ome"}, None, "/h/ome"),
    "usual": ({"HOME": "/h"}, None, "/h/.openclaw"),
    "two slashes": ({"CLAWPAL_OPENCLAW_DIR": "//x/../..//y"}, None, "//y"),
    "three slashes": ({"CLAWPAL_OPENCLAW_DIR": "///x"}, None, "/x"),
    "odd": ({"CLAWPAL_OPENCLAW_DIR": "/\ufffdff/$(x)'"}, None, "/\ufffdff/$(x)'"),
}


@pytest.mark.parametrize(("env", "chosen", "found"), PATHS.values(), ids=PATHS)
def test_the_directory_is_found_as_it_is_here(
    plain_engine: Engine, env: dict[str, str], chosen: str | None, found: str
) -> None:
    request = {"op": "analyze", "env": env, "openclawHome": chosen}
    assert told(plain_engine, request)[0].items[4] == found


def test_a_home_with_an_openclaw_directory_in_it_is_that(plain_engine: Engine, tmp_path: Path) -> None:
    (tmp_path / ".openclaw" / "agents").mkdir(parents=True)
    request = {"op": "analyze", "env": {"OPENCLAW_HOME": str(tmp_path)}, "openclawHome": None}
    assert told(plain_engine, request)[0].items[4] == f"{tmp_path}/.openclaw"


def test_without_a_home_directory_the_command_fails(plain_engine: Engine) -> None:
    hello, failed = told(plain_engine, {"op": "analyze", "env": {}, "openclawHome": None})
    assert hello.items[4] is None
    assert failed.items[:3] == ["fail", None, None]
    assert failed.items[3].startswith("no home directory")
    assert failed.items[4] == "home_unknown"


def test_an_agent_that_is_not_there_is_an_error_to_name_and_has_no_session_to_preview(
    plain_engine: Engine, tmp_path: Path
) -> None:
    missing = ["fail", errno.errorcode[errno.ENOENT], "agents/nobody", None, None]
    assert told(plain_engine, request_for("names", tmp_path, agentId="nobody"))[-1].items == missing
    request = request_for("preview", tmp_path, agentId="nobody", sessionId="s")
    assert [record.name for record in told(plain_engine, request)] == ["hello", "none", "end"]


def test_hello_says_what_an_engine_can_open(engine: Engine, tmp_path: Path) -> None:
    hello = told(engine, request_for("analyze", tmp_path))[0].items
    assert hello[:2] == ["hello", engine.name]
    assert abs(hello[3] / 1000 - time.time()) < DEADLINE_S
    assert hello[5] is True


def test_noise_before_the_sentinel_and_a_second_line_of_input_do_no_harm(plain_engine: Engine, tmp_path: Path) -> None:
    with Run(plain_engine, request_for("analyze", tmp_path)) as run:
        run.send(b"\n" * 1_000)
        assert [record.name for record in run.records() if record.name != "beat"] == ["hello", "end"]


def test_bootstraps_stand_in_single_quotes_for_any_shell() -> None:
    for bootstrap in (NODE_BOOTSTRAP, PYTHON_BOOTSTRAP):
        assert not set(bootstrap) & set("'\\!\n")


def test_a_database_under_a_lock_is_busy_and_nothing_else(plain_engine: Engine, tmp_path: Path) -> None:
    agent = closed_agent(tmp_path / "agents" / "main")
    connection = open_database(agent.path)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("BEGIN EXCLUSIVE")
    connection.execute("DELETE FROM transcript_events")
    try:
        agents, failures = analysed(EngineHome(plain_engine, tmp_path))
    finally:
        connection.close()
    # With a journal there is a copy to be had of the state before.
    assert [agent[0] for agent in agents] == ["main"]
    assert failures == []
