"""A session index is read as plain ``json`` reads it, in any form that JSON allows, and not at all if it is broken."""

from __future__ import annotations

import json
import os
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.cancel import CancelToken
from sidecar.core.analysis import IndexEntry
from sidecar.errors import Cancelled, SourceUnreadable
from sidecar.limits import BLOCK_BYTES, MIB
from sidecar.stores.session_index import BrokenIndex, SessionIndex, read_index
from tests import oracle
from tests.unit.strategies import mutations

IDS = sorted(["s1", "s2", "s3", "größe", "cut\ufffd", "never in an index"])
Index = dict[str, IndexEntry]


def known(path: str | Path, ids: list[str] = IDS) -> Index:
    index = SessionIndex(ids)
    read_index(os.fspath(path), index, CancelToken())
    return {session_id: index[session_id] for session_id in ids}


def known_of(text: bytes, ids: list[str] = IDS) -> Index:
    """What is known from an index of this text."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(text)
        file.flush()
        return known(file.name, ids)


def wanted_of(text: bytes, ids: list[str] = IDS) -> Index:
    """What plain ``json`` finds; ``ValueError`` if it finds no object."""
    found = oracle.read_index(text)
    nothing = {"updatedAt": 0, "totalTokens": 0, "model": None}
    entries = {session_id: found.get(session_id, nothing) for session_id in ids}
    return {
        session_id: IndexEntry(entry["updatedAt"], entry["totalTokens"], entry["model"])
        for session_id, entry in entries.items()
    }


def member(session_id: str, updated_at: int, tokens: int = 1, model: str = "m") -> dict[str, Any]:
    return {"sessionId": session_id, "updatedAt": updated_at, "totalTokens": tokens, "model": model}


# Two sessions as OpenClaw 2026.7 writes them: two spaces of indent, objects and arrays within an entry.
REAL = json.dumps(
    {
        "agent:main:main": member("s1", 1_795_378_501_364, 41_000, "claude-sonnet-4-5")
        | {"skillsSnapshot": {"skills": [{"name": "canvas"}, {"name": "tmux", "requiredEnv": []}], "version": 1}},
        "agent:main:explicit:other": member("s2", 1_795_378_501_999, 12, "gpt-5.2") | {"origin": {"a": {}}},
        "agent:main:cron:nightly": member("größe", 1_795_378_502_000),
    },
    indent=2,
    ensure_ascii=False,
).encode()

TEXTS = st.sampled_from([*IDS, "s4", "cut\ud83d", "", "\ud83d\ude00", 'quote " brace }, {', "line\n  },\nline"])
# Integers that JavaScript can write, and some that nothing can hold.
INTEGERS = st.one_of(st.sampled_from([0, 1, 5, 7, 1_795_378_501_364]), st.integers(-(2**53), 2**53), st.integers(2**63))
NUMBERS = st.one_of(INTEGERS, st.floats(allow_nan=False))
CONTAINERS = st.sampled_from([[{"sessionId": "s1"}], {"a": {"b": {}}}])
ANYTHING = st.one_of(st.none(), st.booleans(), TEXTS, NUMBERS, CONTAINERS)


def mostly(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(usual, usual, usual, ANYTHING)


ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "sessionId": mostly(TEXTS),
        "updatedAt": mostly(NUMBERS),
        "totalTokens": mostly(NUMBERS),
        "model": mostly(TEXTS),
        "skillsSnapshot": st.one_of(ANYTHING, st.dictionaries(TEXTS, ANYTHING, max_size=2)),
    },
)
INDEXES = st.dictionaries(TEXTS.map(lambda text: f"agent:main:{text}"), mostly(ENTRIES), max_size=8)
FORMS = st.sampled_from([{"indent": 2}, {"indent": 2}, {"indent": 1}, {"indent": 4}, {"indent": "\t"}, {}])


@settings(max_examples=300)
@given(index=INDEXES, form=FORMS, ascii_only=st.booleans(), behind=st.sampled_from(["", "\n", " \r\n\t"]))
def test_any_object_in_any_form_is_read_as_json_reads_it(
    index: dict[str, Any], form: dict[str, Any], ascii_only: bool, behind: str
) -> None:
    text = json.dumps(index, ensure_ascii=ascii_only, **form) + behind
    # A surrogate that is not escaped becomes invalid UTF-8.
    data = text.replace("Infinity", "1e999").encode("utf-8", "surrogatepass")
    assert known_of(data) == wanted_of(data)


@pytest.mark.parametrize("indent", [2, 1, 4, "\t", None])
def test_a_large_index_of_any_indent_is_read(indent: int | str | None) -> None:
    report = {"systemPromptReport": {"tools": [{"name": "x" * 200, "of": {"a": {}}}] * 20}}
    ids = [f"id-{number:03}" for number in range(300)]
    entries = {f"k{number}": report | member(session_id, number + 1) for number, session_id in enumerate(ids)}
    data = json.dumps(entries, indent=indent).encode()
    assert len(data) > 4 * BLOCK_BYTES
    assert known_of(data, ids) == {session_id: IndexEntry(n + 1, 1, "m") for n, session_id in enumerate(ids)}


@settings(max_examples=30)
@given(
    index=st.dictionaries(st.integers().map(str), ENTRIES, min_size=1, max_size=8), form=FORMS, filler=st.integers(0, 4)
)
def test_an_index_of_many_blocks_is_read_as_json_reads_it(
    index: dict[str, Any], form: dict[str, Any], filler: int
) -> None:
    padding = {"systemPromptReport": {"tools": [{"name": "x" * 500, "of": {}}] * 150}}
    padded = dict(index)
    for key in list(index)[filler::5]:
        padded[key] = padding | index[key]
    padded |= {f"filler {number}": padding | member("s3", number) for number in range(5)}
    data = json.dumps(padded, **form).replace("Infinity", "1e999").encode()
    assert len(data) > BLOCK_BYTES
    assert known_of(data) == wanted_of(data)


@settings(max_examples=400)
@given(data=mutations(st.just(REAL), [b"\xff", b"\\ud83d", b",", b"}", b"{", b'"', b"\n  },\n", b"NaN", b"5", b"\x00"]))
@example(data=REAL.replace(b"\n}", b",\n}"))
@example(data=REAL.replace(b"}\n}", b"},\n}"))
@example(data=REAL + REAL)
def test_a_damaged_index_is_broken_exactly_where_json_finds_no_object(data: bytes) -> None:
    try:
        wanted = wanted_of(data)
    except ValueError:
        with pytest.raises(BrokenIndex):
            known_of(data)
    else:
        assert known_of(data) == wanted


BROKEN = {
    "an empty file": b"",
    "nothing but spaces": b" \n ",
    "an array": b"[]",
    "null": b"null",
    "a string": b'"sessions"',
    "a number": b"1",
    "a torn file": REAL[:-40],
    "a file torn between two entries": REAL[: REAL.index(b"\n  },\n") + 6],
    "a file torn before its last brace": REAL[:-1],
    "a trailing comma": b'{"a": {},}',
    "a trailing comma in OpenClaw's form": b'{\n  "a": {\n  },\n}',
    "two objects": REAL + b"\n" + REAL,
    "garbage behind the object": REAL + b"x",
    "NaN": b'{"a": {"sessionId": "s1", "updatedAt": NaN}}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "a raw line feed in a string": b'{"a": {"sessionId": "s\n1"}}',
    "NUL bytes": b"\x00" * 100,
    "a key that is no string": b'{1: {"sessionId": "s1"}}',
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_is_no_json_object_is_broken_and_nothing_is_kept_of_it(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        oracle.read_index(data)
    path = tmp_path / "sessions.json"
    path.write_bytes(data)
    index = SessionIndex(IDS)
    with pytest.raises(BrokenIndex):
        read_index(str(path), index, CancelToken())
    assert all(index[session_id] == IndexEntry() for session_id in IDS)


def test_of_a_large_index_that_breaks_off_nothing_is_kept(tmp_path: Path) -> None:
    entries = {f"k{number}": member("s1", number) | {"pad": "x" * 1_000} for number in range(1_000)}
    path = tmp_path / "sessions.json"
    path.write_text(json.dumps(entries, indent=2)[:-1_500])
    assert path.stat().st_size > 3 * BLOCK_BYTES
    index = SessionIndex(IDS)
    with pytest.raises(BrokenIndex):
        read_index(str(path), index, CancelToken())
    assert index["s1"] == IndexEntry()


ODD_BUT_VALID = {
    "an object without entries": b"{}",
    "an object without entries, spread out": b" {\n\n } \n",
    "entries that are no objects": b'{"a": 1, "b": null, "c": [], "d": "s1", "e": {"sessionId": "s1", "updatedAt": 5}}',
    "a lone surrogate in a skipped field": b'{"a": {"x": "\\ud83d", "sessionId": "s1", "updatedAt": 5}}',
    "a lone surrogate in the id": b'{"a": {"sessionId": "cut\\ud83d", "updatedAt": 5}}',
    "invalid UTF-8 in a skipped field": b'{"a": {"x": "\xff", "sessionId": "s1", "updatedAt": 5}}',
    "invalid UTF-8 in a key": b'{"a\xff": {"sessionId": "s1", "updatedAt": 5}}',
    "invalid UTF-8 in the model": b'{"a": {"model": "\xff", "sessionId": "s1", "updatedAt": 5}}',
    "invalid UTF-8 and a lone surrogate": b'{"a\xff": {"x": "\\ud83d", "sessionId": "s1", "updatedAt": 5}}',
    "a lone surrogate and invalid UTF-8": b'{"\\ud83d": {"sessionId": "s1", "model": "\xff", "updatedAt": 5}}',
    "a wrong type and a lone surrogate": b'{"a": {"model": 5}, "b": {"x": "\\ud83d", "sessionId": "s1"}, '
    b'"c": {"sessionId": "s2", "updatedAt": 5}}',
    "a wrong type and invalid UTF-8": b'{"a": {"model": 5}, "b\xff": {"sessionId": "s1", "updatedAt": 5}}',
    "a wrong type and invalid UTF-8 in the model": b'{"a": {"model": 5, "sessionId": "s1"}, '
    b'"b": {"model": "\xff", "sessionId": "s1", "updatedAt": 5}}',
    "a number beyond every float": b'{"a": {"x": 1e999, "sessionId": "s1", "updatedAt": 5}}',
    "a time beyond every float": b'{"a": {"sessionId": "s1", "updatedAt": 1e999, "model": "m"}}',
    "a time of 5,000 digits": b'{"a": {"sessionId": "s1", "updatedAt": ' + b"9" * 5_000 + b', "model": "m"}}',
    "the latest time, beside a wrong type": b'{"a": {"sessionId": "s1", "updatedAt": 4611686018427387903, "model": 5}}',
    "a time with a fraction": b'{"a": {"sessionId": "s1", "updatedAt": 1795378501364.75}}',
    "a time in exponential form": b'{"a": {"sessionId": "s1", "updatedAt": 1.795378501364e12}}',
    "a negative time": b'{"a": {"sessionId": "s1", "updatedAt": -5, "totalTokens": 7}}',
    "tokens with a fraction": b'{"a": {"sessionId": "s1", "totalTokens": 1.5}}',
    "a field given twice": b'{"a": {"sessionId": "s2", "sessionId": "s1", "updatedAt": 1, "updatedAt": 5}}',
    "keys written as escapes": b'{"a": {"\\u0073essionId": "\\u00731", "updatedAt": 5}}',
    "300 levels of nesting": b'{"a": {"sessionId": "s1", "x": ' + b"[" * 300 + b"]" * 300 + b', "updatedAt": 5}}',
    "CRLF line ends": REAL.replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("data", ODD_BUT_VALID.values(), ids=ODD_BUT_VALID)
def test_an_odd_but_valid_index_is_read_as_json_reads_it(data: bytes) -> None:
    assert known_of(data) == wanted_of(data)


@pytest.mark.parametrize("form", [{"indent": 2}, {}])
def test_of_two_entries_for_one_session_the_newer_one_counts(form: dict[str, Any]) -> None:
    newer, older = member("s1", 9, 90, "new"), member("s1", 8, 80, "old")
    for entries in ([newer, older], [older, newer], [newer, older, older], [older, newer, older]):
        data = json.dumps({f"k{number}": entry for number, entry in enumerate(entries)}, **form).encode()
        assert known_of(data)["s1"] == IndexEntry(9, 90, "new")


def test_a_missing_file_is_an_empty_index(tmp_path: Path) -> None:
    assert set(known(tmp_path / "sessions.json").values()) == {IndexEntry()}


def test_a_session_that_is_in_no_entry_has_nothing_known() -> None:
    assert known_of(REAL, ["s1", "unknown"])["unknown"] == IndexEntry()


def test_an_index_can_be_asked_for_no_session_at_all() -> None:
    assert known_of(REAL, []) == {}


def test_something_else_under_the_name_of_an_index_is_an_error_and_holds_nothing_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "folder"):
        with pytest.raises((OSError, SourceUnreadable)):
            known(tmp_path / name)


def test_a_cancelled_token_stops_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "sessions.json"
    path.write_bytes(REAL)
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        read_index(str(path), SessionIndex(IDS), token)


def test_an_index_of_40_megabytes_is_read_in_a_few(tmp_path: Path) -> None:
    report = {"systemPromptReport": {"tools": [{"name": f"tool{n}", "schema": "x" * 180} for n in range(200)]}}
    ids = sorted(f"id-{number:03}" for number in range(831))
    entries = {f"agent:main:{n}": member(session_id, n + 1, n, f"m{n % 3}") for n, session_id in enumerate(ids)}
    path = tmp_path / "sessions.json"
    path.write_text(json.dumps({key: entry | report for key, entry in entries.items()}, indent=2))
    assert path.stat().st_size > 40 * MIB
    index = SessionIndex(ids)
    tracemalloc.start()
    try:
        read_index(str(path), index, CancelToken())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [index[session_id] for session_id in ids] == [IndexEntry(n + 1, n, f"m{n % 3}") for n in range(831)]
    assert peak_bytes < 4 * MIB
