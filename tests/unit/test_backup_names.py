"""What is no name of a snapshot is refused; those that are given tell their time and never run into each other."""

from __future__ import annotations

import ntpath
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.backup.names import MANIFEST_SUFFIX, checked_name, created_at, names_for, rfc3339
from sidecar.errors import InvalidParams, SourceUnreadable
from sidecar.limits import MAX_NAME_BYTES, MAX_SNAPSHOTS_A_SECOND
from sidecar.text import wire_name

REFUSED = [
    "",
    ".",
    "..",
    "/",
    "/etc",
    "a/b",
    "../a",
    "a\\b",
    "\\\\server\\share",
    "a\0",
    ".partial-0",
    ".lock",
    "\ud800",
]


@pytest.mark.parametrize("name", REFUSED)
def test_what_leads_elsewhere_or_names_what_is_staged_is_refused(name: str) -> None:
    with pytest.raises(InvalidParams):
        checked_name(name)


@pytest.mark.parametrize("name", ["D:", "D:backup", "c:2026-11-24_180000"])
def test_a_drive_of_windows_is_refused_where_there_are_drives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked_name(name) == name.encode()
    monkeypatch.setattr(os.path, "splitdrive", ntpath.splitdrive)
    with pytest.raises(InvalidParams):
        checked_name(name)


@given(st.binary(min_size=1, max_size=60))
def test_every_other_name_of_a_folder_is_taken_back_to_its_bytes(name: bytes) -> None:
    wire = wire_name(os.fsdecode(name))
    if name.startswith(b".") or re.search(rb"[/\\\0]", name):
        with pytest.raises(InvalidParams):
            checked_name(wire)
    else:
        assert checked_name(wire) == name


def test_a_name_is_refused_from_the_length_on_at_which_its_manifest_has_no_name() -> None:
    longest = "x" * (MAX_NAME_BYTES - len(MANIFEST_SUFFIX))
    assert checked_name(longest) == longest.encode()
    with pytest.raises(InvalidParams):
        checked_name(longest + "x")


@given(st.floats(0, 4e9))
def test_each_name_of_a_second_tells_that_second_and_is_like_no_other(made_at_s: float) -> None:
    given_names = names_for(made_at_s)
    names = [next(given_names) for _ in range(MAX_SNAPSHOTS_A_SECOND)]
    assert len(set(names)) == len(names)
    assert {created_at(name) for name in names} == {rfc3339(made_at_s)}
    assert all(checked_name(name.decode()) == name for name in names)


def test_more_than_a_second_may_have_is_an_error_that_says_so() -> None:
    given_names = names_for(0.0)
    for _ in range(MAX_SNAPSHOTS_A_SECOND):
        next(given_names)
    with pytest.raises(SourceUnreadable, match="this second has 100 snapshots"):
        next(name for name in given_names)


@pytest.mark.parametrize(
    "name", [b"", b"by hand", b"2026-11-24", b"2026-11-24_180000.manifest.jsonl", b"2026-11-24_180000-"]
)
def test_a_name_that_tells_no_time_tells_none(name: bytes) -> None:
    assert created_at(name) is None
