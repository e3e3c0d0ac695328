"""The session folders of an agent on a host, as ``stores.deletion`` gets at them: through engines there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping
from typing import Any

from sidecar.errors import Cancelled, SidecarError, SourceUnreadable
from sidecar.remote.records import Record, described
from sidecar.stores.deletion import Removed, SessionFiles
from sidecar.text import file_name, wire_name

log = logging.getLogger(__name__)

RunEngine = Callable[[Mapping[str, Any]], Generator[Record | None, None, None]]
"""Gives the records of one run for a request, as ``RemoteHome.run`` does."""


class RemoteFolders:
    """``deletion.SessionFolders`` of an agent there: what was found when it was made, and removals from that."""

    def __init__(self, agent: str, run: RunEngine) -> None:
        self.agent = agent
        self.unread: dict[str, OSError] = {}
        self._run = run
        self._names: list[tuple[str, str]] = []
        self._ids: set[str] = set()
        self._ids_failure: SourceUnreadable | None = None
        self._folder = ""

    def __enter__(self) -> RemoteFolders:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add(self, record: Record) -> None:
        """Take in a record of the op ``names``."""
        match record.name, record.items:
            case "folder", [name]:
                self._folder = name
            case "name", [name]:
                self._names.append((self._folder, file_name(name)))
            case "unread", [folder, code, name, message]:
                failure = described(code, name, message)
                self.unread[folder] = failure if isinstance(failure, OSError) else OSError(str(failure))
            case "id", [session_id]:
                self._ids.add(session_id)
            case "ids-failed", [path, code, name, message]:
                failure = described(code, name, message)
                self._ids_failure = SourceUnreadable(f"{path}: {failure}")

    def database_ids(self) -> Container[str]:
        """As ``SessionFolders.database_ids``."""
        if self._ids_failure is not None:
            raise self._ids_failure
        return self._ids

    def names(self) -> Iterator[tuple[str, str]]:
        """As ``SessionFolders.names``."""
        return iter(self._names)

    def remove(self, sessions: Iterable[SessionFiles]) -> Iterator[Removed]:
        """As ``SessionFolders.remove``. Where the connection breaks, it is not known whether a session was removed."""
        asked = list(sessions)
        if not asked:
            return
        unanswered = dict(enumerate(asked))
        try:
            for record in self._run(self._request(asked)):
                if record is None:
                    continue
                if record.name == "index-failed":
                    log.warning("the index of %s keeps entries of deleted sessions: %s", self.agent, record.items)
                elif (session := unanswered.pop(record.items[0], None)) is not None:
                    yield _removed(session, record)
        except Cancelled:
            raise
        except (OSError, SidecarError) as error:
            for session in unanswered.values():
                yield Removed(session, refusal=error)

    def _request(self, sessions: list[SessionFiles]) -> dict[str, Any]:
        listed = [
            [
                session.folder,
                wire_name(session.transcript),
                session.is_there,
                [wire_name(name) for name in session.others],
            ]
            for session in sessions
        ]
        return {"op": "remove", "agentId": self.agent, "sessions": listed}


def _removed(session: SessionFiles, record: Record) -> Removed:
    match record.name, record.items:
        case "removed", [_, files, is_gone]:
            return Removed(session, files, is_gone)
        case "locked", [_, owner]:
            return Removed(session, refusal=f"it is in use: its lock is held by {owner}")
        case "refused", [_, files, code, name, message]:
            return Removed(session, files, refusal=described(code, name, message))
    return Removed(session, refusal=f"the host's answer can't be understood: {record.name}")


def folders_in(records: Iterable[Record | None], run: RunEngine) -> Iterator[RemoteFolders]:
    """The folders of each agent that ``records`` of the op ``names`` tell of."""
    folders: RemoteFolders | None = None
    for record in records:
        if record is None:
            continue
        if record.name == "agent":
            if folders is not None:
                yield folders
            folders = RemoteFolders(record.items[0], run)
        elif folders is not None:
            folders.add(record)
    if folders is not None:
        yield folders
