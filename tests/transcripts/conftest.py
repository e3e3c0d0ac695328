"""The option that records."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-transcripts",
        action="store_true",
        help="rewrite the lines of protocol/transcripts that come from the sidecar; name this folder as an argument",
    )
