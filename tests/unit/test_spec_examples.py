"""Every example of section 7 of the JSON-RPC 2.0 specification, through a connection with the methods it names."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sidecar.server import schema
from sidecar.server.command import Command, Context
from sidecar.server.connection import Connection


class Subtract(schema.Params):
    minuend: int
    subtrahend: int


class Numbers(schema.Params):
    a: int
    b: int
    c: int


def subtract(context: Context, params: Subtract) -> int:
    return params.minuend - params.subtrahend


def add_up(context: Context, params: Numbers) -> int:
    return params.a + params.b + params.c


def get_data(context: Context, params: None) -> list[str | int]:
    return ["hello", 5]


def nothing(context: Context, params: None) -> None:
    return None


COMMANDS = (
    Command("subtract", "Subtract", "value", subtract, ""),
    Command("sum", "Numbers", "value", add_up, ""),
    Command("get_data", None, "value", get_data, ""),
    Command("update", None, "value", nothing, ""),
    Command("notify_hello", None, "value", nothing, ""),
    Command("notify_sum", None, "value", nothing, ""),
)

EXAMPLES = {
    "positional parameters": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
        '{"jsonrpc": "2.0", "result": 19, "id": 1}',
    ),
    "positional parameters the other way round": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
        '{"jsonrpc": "2.0", "result": -19, "id": 2}',
    ),
    "named parameters": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
        '{"jsonrpc": "2.0", "result": 19, "id": 3}',
    ),
    "named parameters in another order": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
        '{"jsonrpc": "2.0", "result": 19, "id": 4}',
    ),
    "a notification": ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
    "a notification of an unknown method": ('{"jsonrpc": "2.0", "method": "foobar"}', None),
    "an unknown method": (
        '{"jsonrpc": "2.0", "method": "foobar", "id": "1"}',
        '{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "1"}',
    ),
    "invalid JSON": (
        '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
        '{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}',
    ),
    "an invalid request": (
        '{"jsonrpc": "2.0", "method": 1, "params": "bar"}',
        '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}',
    ),
    "a batch of invalid JSON": (
        '[ {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}, {"jsonrpc": "2.0", "method" ]',
        '{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}',
    ),
    "an empty array": (
        "[]",
        '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}',
    ),
    "an invalid batch that is not empty": (
        "[1]",
        '[{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}]',
    ),
    "an invalid batch": (
        "[1,2,3]",
        '[{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},'
        '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},'
        '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}]',
    ),
    "a batch": (
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},'
        '{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},'
        '{"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},'
        '{"foo": "boo"},'
        '{"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},'
        '{"jsonrpc": "2.0", "method": "get_data", "id": "9"}]',
        '[{"jsonrpc": "2.0", "result": 7, "id": "1"},'
        '{"jsonrpc": "2.0", "result": 19, "id": "2"},'
        '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},'
        '{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "5"},'
        '{"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}]',
    ),
    "a batch of notifications": (
        '[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},'
        '{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]',
        None,
    ),
}


@pytest.fixture(autouse=True)
def spec_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(schema.MODELS, "Subtract", Subtract)
    monkeypatch.setitem(schema.MODELS, "Numbers", Numbers)


async def answers(*lines: str) -> list[Any]:
    """What a connection writes in answer to ``lines``."""
    written = b""

    async def write(data: bytes) -> None:
        nonlocal written
        written += data

    async def chunks() -> AsyncIterator[bytes]:
        for line in lines:
            yield line.encode() + b"\n"

    await Connection(write, COMMANDS).run(chunks())
    return [json.loads(line) for line in written.splitlines()]


def without_wording(answer: Any) -> Any:
    """Of an error the code counts, not its words nor what is said beside them."""
    if isinstance(answer, list):
        return [without_wording(reply) for reply in answer]
    return answer | {"error": answer["error"]["code"]} if "error" in answer else answer


@pytest.mark.parametrize(("request_line", "reply_line"), EXAMPLES.values(), ids=EXAMPLES)
async def test_an_example_of_the_specification_is_answered_as_specified(
    request_line: str, reply_line: str | None
) -> None:
    wanted = [] if reply_line is None else [without_wording(json.loads(reply_line))]
    assert [without_wording(answer) for answer in await answers(request_line)] == wanted


async def test_all_examples_on_one_connection_are_answered_in_their_order() -> None:
    found = await answers(*(request for request, _ in EXAMPLES.values()))
    wanted = [json.loads(reply) for _, reply in EXAMPLES.values() if reply is not None]
    assert list(map(without_wording, found)) == list(map(without_wording, wanted))


@pytest.mark.parametrize("params", ["[42]", '{"minuend": 42}', '["a", "b"]', '{"minuend": "42", "subtrahend": 1}'])
async def test_wrong_parameters_are_answered_with_invalid_params(params: str) -> None:
    (answer,) = await answers(f'{{"jsonrpc": "2.0", "method": "subtract", "params": {params}, "id": 1}}')
    assert answer["error"]["code"] == -32602
    assert answer["id"] == 1


async def test_wrong_parameters_of_a_notification_are_answered_with_nothing() -> None:
    assert await answers('{"jsonrpc": "2.0", "method": "subtract", "params": ["a"]}') == []
