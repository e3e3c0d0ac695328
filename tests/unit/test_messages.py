"""A line becomes calls or the error that answers it, never an exception; values become one line of JSON each."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.errors import InvalidParams, InvalidRequest, ParseError, ReplyTooLarge
from sidecar.limits import MAX_BATCH_CALLS, MAX_ID_BYTES, MAX_LINE_VALUES
from sidecar.wire.messages import (
    Call,
    Rejected,
    batch_line,
    encode,
    error_line,
    event_line,
    parse_line,
    result_line,
)
from tests.unit.strategies import (
    CONTAINERS,
    PIECES,
    SCALARS,
    WRONG_PIECES,
    mutations,
    objects,
    spelled,
    values,
)

REQUEST = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":[1,2.5,null]}}'
# Lone surrogates too.
ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=20)


def call(line: bytes) -> Call:
    parsed = parse_line(line)
    assert isinstance(parsed, Call)
    return parsed


def error_code(line: bytes) -> int:
    parsed = parse_line(line)
    assert isinstance(parsed, Rejected)
    return parsed.error.code


def with_id(id_json: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":' + id_json + b',"method":"ping"}'


def check_any_line(line: bytes) -> None:
    """Whatever is on a line, each item of it can be answered."""
    parsed = parse_line(line)
    for item in parsed if isinstance(parsed, list) else [parsed]:
        if isinstance(item, Rejected):
            json.loads(error_line(item.id_json, item.error))
        else:
            assert isinstance(item.params, (dict, list))
            assert item.id_json is None or json.loads(result_line(item.id_json, None))


@settings(max_examples=300)
@given(line=st.one_of(st.binary(max_size=60), mutations(st.just(REQUEST), [*PIECES, *WRONG_PIECES, b"[", b"]"])))
@example(line=b"")
@example(line=b"\x00")
@example(line=b"[" * 2_000)
@example(line=b"[[]]")
def test_any_bytes_give_calls_or_errors_never_an_exception(line: bytes) -> None:
    check_any_line(line)


def requests() -> st.SearchStrategy[bytes]:
    usual = {
        b"jsonrpc": spelled(b"2.0", b"2.0", b"1.0"),
        b"id": values(wrong=False),
        b"method": spelled(b"ping", b"shutdown"),
        b"params": st.sampled_from(SCALARS + CONTAINERS),
    }
    return objects(usual, wrong=False)


@settings(max_examples=120)
@given(items=st.lists(requests(), min_size=1, max_size=4), batch=st.booleans())
def test_any_json_gives_calls_or_errors_never_an_exception(items: list[bytes], batch: bool) -> None:
    check_any_line(b"[" + b",".join(items) + b"]" if batch else items[0])


@pytest.mark.parametrize("depth", [500, 1_000, 1_024, 100_000])
@pytest.mark.parametrize(
    ("before", "behind"),
    [
        (b"", b""),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":', b"}"),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping","params":', b"}]"),
        (b'{"jsonrpc":"2.0","id":' + b"9" * 30 + b',"method":"ping","params":', b"}"),
    ],
    ids=["bare", "params", "params in a batch", "params beside a long id"],
)
def test_json_nested_to_any_depth_gives_calls_or_errors_never_an_exception(
    depth: int, before: bytes, behind: bytes
) -> None:
    check_any_line(before + b"[" * depth + b"]" * depth + behind)


@pytest.mark.parametrize(
    "id_json",
    [
        b"0",
        b"-1",
        b"1.5",
        b"18446744073709551615",
        b"123456789012345678901234567890",
        b"-123456789012345678901234567890",
        b'""',
        b'"a"',
        b'"\xc3\xa9"',
        b'"\\" \\\\ \\u0000"',
        b'"1"',
        b"null",
    ],
)
def test_an_id_is_echoed_as_the_same_value(id_json: bytes) -> None:
    for line in (with_id(id_json), b"[" + with_id(id_json) + b", " + with_id(b"7") + b"]"):
        parsed = parse_line(line)
        item = parsed[0] if isinstance(parsed, list) else parsed
        assert isinstance(item, Call)
        assert item.id_json is not None
        assert json.loads(item.id_json) == json.loads(id_json)
        assert json.loads(result_line(item.id_json, 0))["id"] == json.loads(id_json)


@given(number=st.integers())
def test_an_integer_id_of_any_length_loses_no_digit(number: int) -> None:
    assert call(with_id(b"%d" % number)).id_json == b"%d" % number


@pytest.mark.parametrize("id_json", [b"1.50", b"1e2", b"1E+2", b"-0", b"-0.0", b"0.12345678901234567890123", b"1e-400"])
def test_a_number_is_echoed_as_it_was_spelled(id_json: bytes) -> None:
    assert call(with_id(id_json)).id_json == id_json
    batch = parse_line(b"[7, " + with_id(b" " + id_json + b" ") + b"]")
    assert isinstance(batch, list)
    assert batch[1].id_json == id_json


def test_a_number_beyond_every_float_is_a_parse_error_as_id_and_in_parameters() -> None:
    assert error_code(with_id(b"1e400")) == ParseError.code
    assert error_code(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[-1e400]}') == ParseError.code


def test_a_long_integer_id_is_echoed_exactly_in_an_error_and_behind_other_numbers_of_a_batch() -> None:
    id_json = b"123456789012345678901234567890"
    rejected = parse_line(b'{"jsonrpc":"1.0","method":"ping","id" : ' + id_json + b" }")
    assert isinstance(rejected, Rejected)
    assert rejected.id_json == id_json
    batch = parse_line(b"[1, " + with_id(b"99999999999999999999") + b' , {"id":5}, ' + with_id(id_json) + b" ]")
    assert isinstance(batch, list)
    assert [item.id_json for item in batch] == [b"null", b"99999999999999999999", b"5", id_json]


@pytest.mark.parametrize("id_json", [b"true", b"false", b"{}", b"[]", b"[1]", b'{"a":1}'])
def test_an_id_of_another_type_is_an_invalid_request_answered_with_null(id_json: bytes) -> None:
    rejected = parse_line(with_id(id_json))
    assert isinstance(rejected, Rejected)
    assert isinstance(rejected.error, InvalidRequest)
    assert rejected.id_json == b"null"


def test_an_id_over_the_limit_is_refused_and_one_at_the_limit_is_echoed() -> None:
    longest = b'"' + b"x" * (MAX_ID_BYTES - 2) + b'"'
    assert call(with_id(longest)).id_json == longest
    assert error_code(with_id(longest[:-1] + b'x"')) == InvalidRequest.code


def test_a_null_id_is_a_call_to_answer_and_no_id_is_a_notification() -> None:
    assert call(with_id(b"null")).id_json == b"null"
    assert call(b'{"jsonrpc":"2.0","method":"ping"}').id_json is None


def test_params_that_are_null_or_missing_are_an_empty_object() -> None:
    assert call(b'{"jsonrpc":"2.0","method":"ping","id":1}').params == {}
    assert call(b'{"jsonrpc":"2.0","method":"ping","id":1,"params":null}').params == {}
    assert call(b'{"jsonrpc":"2.0","method":"ping","id":1,"params":[]}').params == []


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"nul",
        b"NaN",
        b'{"jsonrpc":"2.0","id":1,"method":"ping"} {"jsonrpc":"2.0","id":2,"method":"ping"}',
        b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1,"method":"p\xffing"}',
        b"{'id':1}",
    ],
)
def test_what_is_not_json_is_a_parse_error(line: bytes) -> None:
    assert error_code(line) == ParseError.code


@pytest.mark.parametrize(
    "line",
    [
        b"1",
        b'"ping"',
        b"null",
        b"[]",
        b"{}",
        b'{"id":1,"method":"ping"}',
        b'{"jsonrpc":2.0,"id":1,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","id":1,"method":7}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":"text"}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":0}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":false}',
    ],
)
def test_json_that_is_no_request_is_an_invalid_request(line: bytes) -> None:
    assert error_code(line) == InvalidRequest.code


def test_a_batch_over_the_limit_is_refused_as_a_whole() -> None:
    calls = [with_id(b"1")] * MAX_BATCH_CALLS
    assert len(parse_line(b"[" + b",".join(calls) + b"]")) == MAX_BATCH_CALLS  # type: ignore[arg-type]
    assert error_code(b"[" + b",".join([*calls, with_id(b"1")]) + b"]") == InvalidRequest.code


@pytest.mark.parametrize("value", [b"0", b"[]", b"{}", b'""', b'{"":[]}'])
def test_a_line_of_more_values_than_the_limit_is_a_parse_error_before_any_is_made(value: bytes) -> None:
    most = MAX_LINE_VALUES // (1 + value.count(b"[") + value.count(b"{")) - 4
    before, behind = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[', b"]}"
    assert len(call(before + b",".join([value] * most) + behind).params) == most
    many = before + b",".join([value] * (MAX_LINE_VALUES + 2)) + behind
    tracemalloc.start()
    try:
        assert error_code(many) == ParseError.code
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b'"\\ud83d"', "\ufffd"),
        (b'"a\\ude00b"', "a\ufffdb"),
        (b'"\\ud83d\\ude00"', "😀"),
        (b'"\\ud83d\\ud83d\\ude00"', "\ufffd😀"),
        (b'"\\\\ud83d"', "\\ud83d"),
        (b'"\\\\\\ud83d"', "\\\ufffd"),
        (b'"\\\\ud83d\\ud83d"', "\\ud83d\ufffd"),
    ],
)
def test_a_lone_surrogate_in_a_request_is_read_as_a_replacement_character(text: bytes, shown: str) -> None:
    line = b'{"jsonrpc":"2.0","id":' + text + b',"method":"ping","params":[' + text + b"]}"
    assert call(line).params == [shown]
    assert json.loads(call(line).id_json or b"") == shown


@given(value=st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), ANY_TEXT), st.lists, max_leaves=6))
def test_any_value_leaves_as_one_line_that_every_parser_takes(value: Any) -> None:
    line = encode(value)
    text = line.decode("utf-8")
    assert not set(text) & {"\n", "\r", "\u2028", "\u2029"}
    orjson.loads(line)
    assert msgspec.json.decode(line) == mended(value)


def mended(value: Any) -> Any:
    """Surrogates that make a pair are one character on the wire; others are U+FFFD."""
    if isinstance(value, list):
        return [mended(item) for item in value]
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value


def test_line_separators_leave_escaped() -> None:
    assert encode("a\u2028b\u2029c") == b'"a\\u2028b\\u2029c"'
    assert json.loads(encode("a\u2028b\u2029c")) == "a\u2028b\u2029c"
    assert (encode("a\u2028"), encode("a\u2029")) == (b'"a\\u2028"', b'"a\\u2029"')


def test_characters_beside_the_line_separators_leave_as_they_are() -> None:
    assert json.loads(encode("\u2027\u202a\u2010é🙂")) == "\u2027\u202a\u2010é🙂"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("\ud83d", "\ufffd"),
        ("cut \ud83d\u2028", "cut \ufffd\u2028"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\\ud83d \ud83d", "\\ud83d \ufffd"),
        ({"\ud800": ["\udfff"]}, {"\ufffd": ["\ufffd"]}),
        (["\udcff", 2**70, 1.5, True, None], ["\ufffd", 2**70, 1.5, True, None]),
        (["\ud83d", float("nan"), float("inf")], ["\ufffd", None, None]),
    ],
)
def test_a_lone_surrogate_leaves_as_a_replacement_character_and_changes_nothing_else(value: Any, shown: Any) -> None:
    line = encode(value)
    assert json.loads(line) == shown
    assert b"NaN" not in line
    assert b"\n" not in line


class Payload(msgspec.Struct, rename="camel"):
    total_files: int
    file_path: str


class Empty(msgspec.Struct):
    pass


def test_a_result_line_has_the_shape_of_a_reply() -> None:
    line = result_line(b"7", {"a": "\u2028"})
    assert json.loads(line) == {"jsonrpc": "2.0", "id": 7, "result": {"a": "\u2028"}}
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1


def test_a_result_of_nothing_is_null() -> None:
    assert json.loads(result_line(b"7", None)) == {"jsonrpc": "2.0", "id": 7, "result": None}


def test_a_result_without_a_json_form_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        result_line(b"7", object())


def test_an_error_line_carries_code_message_kind_retryable_and_details() -> None:
    assert json.loads(error_line(b'"x"', InvalidParams("path: no\ud83d", field="path"))) == {
        "jsonrpc": "2.0",
        "id": "x",
        "error": {
            "code": -32602,
            "message": "path: no\ufffd",
            "data": {"kind": "invalid_params", "retryable": False, "field": "path"},
        },
    }
    assert json.loads(error_line(b"null", ReplyTooLarge("large")))["id"] is None


def test_a_batch_line_is_an_array_of_its_replies_on_one_line() -> None:
    replies = [result_line(b"1", "a"), error_line(b"null", ParseError("bad"))]
    line = batch_line(replies)
    assert json.loads(line) == [json.loads(reply) for reply in replies]
    assert line.endswith(b"]\n")
    assert line.count(b"\n") == 1


@given(path=ANY_TEXT, seq=st.integers(0, 2**40))
def test_an_event_line_is_a_notification_with_handle_and_seq_before_the_payload(path: str, seq: int) -> None:
    line = event_line("sessions:chunk", "some-handle", seq, Payload(3, path))
    assert json.loads(line) == {
        "jsonrpc": "2.0",
        "method": "sessions:chunk",
        "params": {"handleId": "some-handle", "seq": seq, "totalFiles": 3, "filePath": mended(path)},
    }
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1


def test_an_event_with_an_empty_payload_has_handle_and_seq_alone() -> None:
    assert json.loads(event_line("sessions:cancelled", "some-handle", 0, Empty()))["params"] == {
        "handleId": "some-handle",
        "seq": 0,
    }
