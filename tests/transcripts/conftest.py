"""The option that records, and the host that transcripts share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.transcripts.sample_host import SampleHost


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-transcripts",
        action="store_true",
        help="rewrite the lines of protocol/transcripts that come from the sidecar; name this folder as an argument",
    )


@pytest.fixture(scope="session")
def sample_host() -> Iterator[SampleHost]:
    """Made as new by each transcript that has a host."""
    with SampleHost() as host:
        yield host
