"""Hosts for the tests of this folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.remote.slow_link import DistantSshd
from tests.remote.sshd import Sshd


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    """One host for all tests of a file."""
    with Sshd() as host:
        yield host


@pytest.fixture(scope="module")
def sshd_two_sessions() -> Iterator[Sshd]:
    """A host that allows two sessions on a connection."""
    with Sshd(max_sessions=2) as host:
        yield host


@pytest.fixture
def make_sshd() -> Iterator[Callable[..., Sshd]]:
    """Starts hosts of a test's own, with the options of ``Sshd``; they end with the test."""
    with contextlib.ExitStack() as hosts:

        def make(**options: Any) -> Sshd:
            return hosts.enter_context(Sshd(**options))

        yield make


@pytest.fixture
def slow_link() -> Iterator[Callable[..., DistantSshd]]:
    """Starts hosts of a test's own behind a link that can be slow or dead, with the options of ``DistantSshd``."""
    with contextlib.ExitStack() as hosts:

        def make(**options: Any) -> DistantSshd:
            return hosts.enter_context(DistantSshd(**options))

        yield make
