"""Deleting files of an agent that has a database: what is in it, or may be, stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import zstandard

from sidecar.cancel import CancelToken
from sidecar.errors import SessionsRefused
from sidecar.stores.deletion import delete_sessions
from sidecar.stores.home import LocalHome
from tests.sqlite_trees import Archive, Session, SqliteAgent

HEADER = b'{"type":"session","version":3,"id":"abc","timestamp":"2026-11-22T20:00:00.000Z"}\n'
ARCHIVE = "abc.jsonl.deleted.2026-11-22T20-19-10.375Z.bfa8201e84bb45fe985078b57cdd216c.zst"


def delete(home: Path, *ids: str) -> int:
    return delete_sessions(LocalHome(str(home)), "main", ids, CancelToken())


def refusal(home: Path, session_id: str) -> str:
    with pytest.raises(SessionsRefused) as refused:
        delete(home, session_id)
    assert refused.value.details["deleted"] == 0
    return str(refused.value.details["refused"][0]["reason"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of an agent with the session ``abc`` in a file."""
    folder = tmp_path / "agents" / "main"
    (folder / "sessions").mkdir(parents=True)
    (folder / "sessions" / "abc.jsonl").write_bytes(HEADER)
    return folder


def test_beside_a_database_that_cannot_be_read_nothing_is_deleted(folder: Path, tmp_path: Path) -> None:
    (folder / "agent").mkdir()
    (folder / "agent" / "openclaw-agent.sqlite").write_bytes(b"no database at all" * 1_000)
    assert "openclaw-agent.sqlite" in refusal(tmp_path, "abc")
    assert (folder / "sessions" / "abc.jsonl").exists()


def test_a_session_that_is_not_in_the_database_is_deleted(folder: Path, tmp_path: Path) -> None:
    SqliteAgent(folder, 23, [Session("other", HEADER)]).close()
    assert delete(tmp_path, "abc") == 1
    assert not (folder / "sessions" / "abc.jsonl").exists()


def test_a_session_of_the_database_is_refused(folder: Path, tmp_path: Path) -> None:
    SqliteAgent(folder, 23, [Session("other", HEADER)]).close()
    assert "only OpenClaw itself" in refusal(tmp_path, "other")


def test_an_archive_that_is_a_row_as_well_as_a_file_is_refused(folder: Path, tmp_path: Path) -> None:
    SqliteAgent(folder, 23, [], [Archive(ARCHIVE, HEADER)]).close()
    (folder / "sessions" / ARCHIVE).write_bytes(zstandard.compress(HEADER))
    assert "only OpenClaw itself" in refusal(tmp_path, ARCHIVE)
    assert (folder / "sessions" / ARCHIVE).exists()
