"""What answers a request holds nothing of it: a request may be 16 MiB long, and its answer may wait for long."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from sidecar.errors import InvalidParams, as_sidecar_error
from sidecar.limits import MAX_PARAM_CHARS
from sidecar.server import schema

LONG = "x" * (MAX_PARAM_CHARS + 1)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """It must not be the garbage collector that frees what a test looks at: it may come late."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Request:
    """Stands for what a request holds; unlike a ``str``, it can be watched."""


class Answer:
    error: Exception | None = None


def test_an_error_that_was_raised_keeps_nothing_alive_of_where_it_was_raised(no_collector: None) -> None:
    def parse(request: Request) -> None:
        try:
            raise ValueError("a cause")
        except ValueError as error:
            raise InvalidParams("bad") from error

    def run(request: Request, answer: Answer) -> None:
        try:
            parse(request)
        except Exception as error:
            answer.error = as_sidecar_error(error)

    request, answer = Request(), Answer()
    watched, watched_answer = weakref.ref(request), weakref.ref(answer)
    run(request, answer)
    del request
    assert watched() is None, "the error holds the request"
    del answer
    assert watched_answer() is None, "the error holds the answer that holds it"


@pytest.mark.parametrize(
    ("model", "given", "field"),
    [
        ("PreviewParams", {"agentId": LONG, "sessionId": "s"}, "agentId"),
        ("PreviewStreamParams", {"agentId": "a", "sessionId": LONG}, "sessionId"),
        ("DeleteParams", {"agentId": "a", "sessionIds": ["s", LONG]}, "sessionIds.1"),
        ("BackupNameParams", {"backupName": LONG}, "backupName"),
        ("HostIdParams", {"hostId": LONG}, "hostId"),
        ("PathParams", {"path": LONG}, "path"),
    ],
)
def test_a_name_or_path_longer_than_any_can_be_is_refused_by_a_short_answer(
    model: str, given: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidParams, match=f"^{field}: .* over {MAX_PARAM_CHARS} characters") as caught:
        schema.parse(model, given)
    assert len(caught.value.message) < 200


def test_of_a_long_list_of_wrong_values_the_first_is_named() -> None:
    with pytest.raises(InvalidParams) as caught:
        schema.parse("DeleteParams", {"agentId": "a", "sessionIds": ["s", *[5] * 100_000]})
    assert caught.value.message == "sessionIds.1: Input should be a valid string"
