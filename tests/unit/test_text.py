"""Names of any bytes go over the wire and come back as they were; half a surrogate pair is mended, nothing else."""

from __future__ import annotations

import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.text import file_name, mend_surrogates, wire_name
from tests import oracle
from tests.unit.strategies import PIECES, strings

REPLACEMENT = "\ufffd".encode()
CONFUSING = [REPLACEMENT, b"\xff", b"\x80", b"ff", b"80", b"8", b"e", b"\xef", b"\xbf\xbd", b"7f", b"x"]
NAMES = st.one_of(st.binary(max_size=12), st.lists(st.sampled_from(CONFUSING)).map(b"".join))


@given(name=NAMES)
def test_a_name_of_any_bytes_comes_back_as_it_was(name: bytes) -> None:
    assert os.fsencode(file_name(wire_name(os.fsdecode(name)))) == name


@given(names=st.lists(NAMES, min_size=2, max_size=20, unique=True))
def test_no_two_names_look_alike_on_the_wire(names: list[bytes]) -> None:
    assert len({wire_name(os.fsdecode(name)) for name in names}) == len(names)


@given(name=NAMES)
def test_a_wire_name_is_text_of_the_documented_form(name: bytes) -> None:
    shown = wire_name(os.fsdecode(name))
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert shown == oracle.wire_name(name)


@given(name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")))
def test_a_name_in_utf_8_is_itself(name: str) -> None:
    assert wire_name(os.fsdecode(name.encode())) == name
    assert file_name(name) == os.fsdecode(name.encode())


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"\xff", "\ufffdff"),
        (b"caf\xe9.jsonl", "caf\ufffde9.jsonl"),
        (b"\xed\xa0\xbd", "\ufffded\ufffda0\ufffdbd"),
        (REPLACEMENT, "\ufffd"),
        (REPLACEMENT + b"x", "\ufffdx"),
        (REPLACEMENT + b"7f", "\ufffd7f"),
        (REPLACEMENT + b"ff", "\ufffdef\ufffdbf\ufffdbdff"),
        (REPLACEMENT + b"80", "\ufffdef\ufffdbf\ufffdbd80"),
        (REPLACEMENT + b"\xff", "\ufffd\ufffdff"),
        (b"\xffff", "\ufffdffff"),
    ],
)
def test_each_byte_that_is_no_utf_8_is_shown_in_hex(name: bytes, shown: str) -> None:
    assert wire_name(os.fsdecode(name)) == shown
    assert os.fsencode(file_name(shown)) == name


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        (b'"\\ud83d"', b'"\\ufffd"'),
        (b'"\\uDEAD"', b'"\\ufffd"'),
        (b'"\\ud83d\\ude00"', None),
        (b'"\\ud83d\\ud83d\\ude00"', b'"\\ufffd\\ud83d\\ude00"'),
        (b'"\\ude00\\ud83d"', b'"\\ufffd\\ufffd"'),
        (b'"\\ud83d\\u0041"', b'"\\ufffd\\u0041"'),
        (b'"\\\\ud83d"', None),
        (b'"\\\\\\ud83d"', b'"\\\\\\ufffd"'),
        (b'"\\\\\\\\ud83d"', None),
        (b'"\\ud83d\\\\ude00"', b'"\\ufffd\\\\ude00"'),
        (b'"\\ud7ff\\ue000"', None),
        (b'"plain"', None),
    ],
)
def test_only_an_escape_of_half_a_pair_is_mended(text: bytes, mended: bytes | None) -> None:
    buffer = bytearray(text)
    assert mend_surrogates(buffer, 0, len(buffer)) == (mended is not None)
    assert buffer == (mended or text)


@given(
    text=strings(PIECES), before=st.sampled_from([b"", b"\\", b"\\ud83d"]), behind=st.sampled_from([b"", b"\\ude00"])
)
def test_mended_json_has_a_replacement_character_for_each_lone_surrogate(
    text: bytes, before: bytes, behind: bytes
) -> None:
    buffer = bytearray(before + text + behind)
    start, end = len(before), len(before) + len(text)
    mended = mend_surrogates(buffer, start, end)
    wanted = re.sub("[\ud800-\udfff]", "\ufffd", json.loads(text.decode("utf-8", "replace")))
    assert json.loads(buffer[start:end].decode("utf-8", "replace")) == wanted
    assert mended == (bytes(buffer[start:end]) != text)
    assert buffer[:start] + buffer[end:] == before + behind
