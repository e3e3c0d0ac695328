"""Delete sessions that lie in files of their own: exactly their files, and their entries in ``sessions.json``.

No path is ever made of what a client sent: it is compared with the names in the agent's folders, here or on a host, and
what is found is removed. Which files that are is decided here, for every place.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from sidecar.cancel import CancelToken
from sidecar.core.analysis import Kind
from sidecar.errors import InvalidParams, SessionsRefused, SidecarError, SourceUnreadable, describe_os_error
from sidecar.limits import MAX_NAMED_REFUSALS
from sidecar.stores.locations import objection_to_name
from sidecar.stores.session_names import FOLDERS, classify
from sidecar.text import file_name, wire_name

_NO_SUCH_FILE = os.strerror(errno.ENOENT).lower()
_DATABASE = "it is in OpenClaw's database, which is never changed here: only OpenClaw itself can delete it"
_NOT_OURS = {
    "cold": "it is cold storage of OpenClaw's database, never changed here: only OpenClaw itself can delete it",
    "import": "OpenClaw moved it here when it imported sessions into its database, and it may be the only copy: only"
    ' OpenClaw itself can delete it ("openclaw update cleanup")',
}


@dataclass(slots=True)
class SessionFiles:
    """What a folder holds of one session: its transcript's name, whether that is there, and what else is of it."""

    session_id: str
    kind: Kind
    folder: str
    transcript: str
    is_there: bool = False
    others: list[str] = field(default_factory=list)


class Removed(NamedTuple):
    """What came of removing a session: how many files went, whether its transcript did, and why not."""

    session: SessionFiles
    files: int = 0
    is_gone: bool = False
    refusal: str | OSError | SidecarError | None = None


class SessionFolders(Protocol):
    """The session folders of one agent. Names are as the file system spells them."""

    @property
    def agent(self) -> str:
        """The agent's name as on the wire."""

    @property
    def unread(self) -> dict[str, OSError]:
        """Why a folder could not be listed, by its name; known when ``names`` has ended."""

    def database_ids(self) -> Container[str]:
        """The ids, as on the wire, of what the agent's database holds: sessions, and archives by their names.

        ``SourceUnreadable`` if it can't be read: nothing is known then not to be in it, so nothing may be deleted.
        """

    def names(self) -> Iterator[tuple[str, str]]:
        """Each file, or link, that is of a session and can be deleted: the name of its folder, and its own."""

    def remove(self, sessions: Iterable[SessionFiles]) -> Iterator[Removed]:
        """Remove the files of each, unless its lock is live, and then their entries in the index.

        A cancel stops before the next session; the entries of those that are gone leave the index all the same.
        """


class Deletable(Protocol):
    """An OpenClaw directory, here or on a host, to delete from. Errors as of ``base.Home``."""

    def folders_of(self, agent_id: str, token: CancelToken) -> AbstractContextManager[SessionFolders]:
        """Those of one agent. ``InvalidParams`` if ``agent_id`` is no name, ``FileNotFoundError`` without one of it."""

    def folders_of_all(self, token: CancelToken) -> Iterable[AbstractContextManager[SessionFolders]]:
        """Those of each agent."""


def delete_sessions(home: Deletable, agent_id: str, session_ids: Iterable[str], token: CancelToken) -> int:
    """Delete the sessions of one agent that have these ids, as on the wire; how many that were.

    ``SessionsRefused`` if some were not, after the others were. A cancel stops before the next session; the entries of
    those that are gone leave the index all the same.
    """
    ids = list(dict.fromkeys(session_ids))
    with ExitStack() as opened:
        try:
            folders = opened.enter_context(home.folders_of(agent_id, token))
            in_database = folders.database_ids()
        except (OSError, InvalidParams, SourceUnreadable) as error:
            if not ids:
                raise
            refused = [_refusal(agent_id, session_id, _describe(error)) for session_id in ids]
            raise _refused(0, "sessions", refused) from error
        deletion = _Deletion(folders)
        deletion.some(ids, in_database)
    if deletion.refused:
        raise _refused(deletion.sessions, "sessions", deletion.refused)
    return deletion.sessions


def clear_all(home: Deletable, token: CancelToken) -> int:
    """Delete the transcripts, archives, traces, checkpoints and stale locks of all agents; how many files that were.

    ``SessionsRefused`` if some were not, for a live lock or an error, after the others were. A cancel as above.
    """
    files = 0
    refused: list[dict[str, str]] = []
    for opened in home.folders_of_all(token):
        with opened as folders:
            deletion = _Deletion(folders)
            deletion.everything()
        files += deletion.files
        refused += deletion.refused
    if refused:
        raise _refused(files, "files", refused)
    return files


class _Deletion:
    """The deletion of sessions of one agent."""

    def __init__(self, folders: SessionFolders) -> None:
        self._folders = folders
        self.sessions = 0
        self.files = 0
        self.refused: list[dict[str, str]] = []

    def _refuse(self, session_id: str, reason: str) -> None:
        self.refused.append(_refusal(self._folders.agent, session_id, reason))

    def some(self, session_ids: list[str], in_database: Container[str]) -> None:
        """Delete the sessions that have these ids, each of which must be that of one file."""
        reasons = {
            session_id: objection_to_name(session_id) or _elsewhere(session_id, in_database)
            for session_id in session_ids
        }
        for session_id, reason in reasons.items():
            if reason is not None:
                self._refuse(session_id, reason)
        found: dict[str, list[SessionFiles]] = {
            session_id: [] for session_id in session_ids if reasons[session_id] is None
        }
        wanted = {place: session_id for session_id in found for place in _places(session_id, in_database)}
        for session in self._find(lambda kind, transcript: wanted.get((kind, transcript))):
            if session.is_there:
                found[session.session_id].append(session)
        for session_id, sessions in found.items():
            if not sessions:
                unread = next(map(_describe, self._folders.unread.values()), _NO_SUCH_FILE)
                self._refuse(session_id, unread)
            elif len(sessions) > 1:
                self._refuse(session_id, "more than one file has this id")
        self._remove([sessions[0] for sessions in found.values() if len(sessions) == 1])

    def everything(self) -> None:
        """Delete every file that is of a session, as its name says."""
        found = self._find(_own_id)
        for folder, error in self._folders.unread.items():
            self._refuse(folder, _describe(error))
        self._remove(found)

    def _find(self, id_of: Callable[[Kind, str], str | None]) -> list[SessionFiles]:
        """What is there of the sessions to whose kind and transcript ``id_of`` gives an id, by folder and name."""
        kinds = dict(FOLDERS)
        found: dict[tuple[str, str], SessionFiles] = {}
        for folder, name in self._folders.names():
            if (transcript := _transcript_of(name)) is None:
                continue
            if (session_id := id_of(kinds[folder], transcript)) is None:
                continue
            new = SessionFiles(session_id, kinds[folder], folder, transcript)
            session = found.setdefault((folder, transcript), new)
            if name == transcript:
                session.is_there = True
            else:
                session.others.append(name)
        order = [folder for folder, _ in FOLDERS]
        return [found[place] for place in sorted(found, key=lambda place: (order.index(place[0]), place[1]))]

    def _remove(self, sessions: list[SessionFiles]) -> None:
        for session, files, is_gone, refusal in self._folders.remove(sessions):
            self.files += files
            self.sessions += is_gone
            if refusal is not None:
                self._refuse(session.session_id, refusal if isinstance(refusal, str) else _describe(refusal))
            elif session.is_there and not is_gone:
                self._refuse(session.session_id, _NO_SUCH_FILE)


def _transcript_of(name: str) -> str | None:
    """The name of the transcript that a file belongs to, perhaps its own; ``None`` if it can't be deleted."""
    known = classify(name)
    if known is None or known.role in {"import", "cold"}:
        return None
    return name if known.role in {"transcript", "archive"} else f"{known.stem}.jsonl"


def _elsewhere(session_id: str, in_database: Container[str]) -> str | None:
    """Why a session is not to be deleted here: for where OpenClaw keeps it."""
    if session_id in in_database:
        return _DATABASE
    known = classify(file_name(session_id))
    return _NOT_OURS.get(known.role) if known else None


def _places(session_id: str, in_database: Container[str]) -> Iterator[tuple[Kind, str]]:
    """The kinds and names of transcripts that can have this id (CONTRACT section 2)."""
    name = file_name(session_id)
    yield "sessions", f"{name}.jsonl"
    known = classify(name)
    if known and known.role in {"transcript", "archive"}:
        yield "archive", name
        # A transcript that lies beside the database which has its session is an archive, named by its file.
        if known.role == "archive" or wire_name(known.stem) in in_database:
            yield "sessions", name


def _own_id(kind: Kind, transcript: str) -> str:
    """The id of the session that has this transcript."""
    return wire_name(transcript.removesuffix(".jsonl") if kind == "sessions" else transcript)


def _refusal(agent_id: str, session_id: str, reason: str) -> dict[str, str]:
    return {"sessionId": session_id, "agent": agent_id, "reason": reason}


def _describe(error: OSError | SidecarError) -> str:
    return wire_name(describe_os_error(error) if isinstance(error, OSError) else error.message)


def _refused(deleted: int, what: str, refused: list[dict[str, str]]) -> SessionsRefused:
    named = [f'"{each["sessionId"]}": {each["reason"]}' for each in refused[:MAX_NAMED_REFUSALS]]
    if len(refused) > len(named):
        named.append(f"and {len(refused) - len(named)} more")
    text = f"{deleted} {what} deleted, {len(refused)} refused: {'; '.join(named)}"
    return SessionsRefused(text, deleted=deleted, refused=refused)
