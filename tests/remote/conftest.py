"""Hosts for the tests of this folder."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.remote.pool import SshConnectionPool
from tests.client import eventually
from tests.remote.pools import Here
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


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    """A user's home with nothing in it, which is that of this process too."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return Here(home)


@pytest.fixture
async def pool() -> AsyncIterator[SshConnectionPool]:
    """Connections that are closed with the test, which fails if anything of them is left in the loop."""
    pool = SshConnectionPool()
    yield pool
    await pool.close()
    own = asyncio.current_task()
    # What ends a task here may need another turn of the loop.
    await eventually(lambda: asyncio.all_tasks() == {own}, "no task is left")
