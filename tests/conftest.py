"""Settings that all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import settings

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

_measured = pytest.StashKey[list[str]]()


@pytest.fixture
def record_measured(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Takes a line that is shown when all tests are done."""
    return pytestconfig.stash.setdefault(_measured, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash.get(_measured, []):
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)
