"""Delete sessions that lie in files of their own: exactly their files, and their entries in ``sessions.json``.

No path is ever made of what a client sent: it is compared with the names in the agent's folders, and what is found is
removed relative to the folder, held open. Of each session the transcript goes last, so that what is interrupted can be
asked for again; the index follows when all are gone. So a crash leaves at worst an entry without a transcript, which
OpenClaw tolerates, and never a transcript that OpenClaw has no entry of; and on a full disk the new index finds room.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from sidecar.cancel import CancelToken
from sidecar.core.analysis import Kind
from sidecar.errors import Cancelled, SessionsRefused, SidecarError, describe_os_error
from sidecar.limits import MAX_NAMED_REFUSALS
from sidecar.stores.files import open_folder
from sidecar.stores.index_rewrite import Folder, forget_transcripts, live_lock
from sidecar.stores.locations import AgentFolder, find_agent, list_agents, objection_to_name
from sidecar.stores.session_names import FOLDERS, classify
from sidecar.text import file_name, wire_name

log = logging.getLogger(__name__)

_NO_SUCH_FILE = os.strerror(errno.ENOENT).lower()
_DATABASE = "it is in OpenClaw's database, which is never changed here: only OpenClaw itself can delete it"
_NOT_OURS = {
    "cold": "it is cold storage of OpenClaw's database, never changed here: only OpenClaw itself can delete it",
    "import": "OpenClaw moved it here when it imported sessions into its database, and it may be the only copy: only"
    ' OpenClaw itself can delete it ("openclaw update cleanup")',
}

DatabaseSessions = Callable[[AgentFolder], Container[str]]
"""Gives the ids, as on the wire, of what an agent's database holds: its sessions, and its archives by their names."""


def delete_sessions(
    openclaw_dir: str,
    agent_id: str,
    session_ids: Iterable[str],
    token: CancelToken,
    database_sessions: DatabaseSessions = lambda _: (),
) -> int:
    """Delete the sessions of one agent that have these ids, as on the wire; how many that were.

    ``SessionsRefused`` if some were not, after the others were. A cancel stops before the next session; the entries of
    those that are gone leave the index all the same.
    """
    ids = list(dict.fromkeys(session_ids))
    try:
        agent = find_agent(openclaw_dir, agent_id)
        in_database = database_sessions(agent)
    except Cancelled:
        raise
    except (OSError, SidecarError) as error:
        if not ids:
            raise
        refused = [_refusal(agent_id, session_id, _describe(error)) for session_id in ids]
        raise _refused(0, "sessions", refused) from error
    deletion = _Deletion(agent, token)
    reasons = {session_id: objection_to_name(session_id) or _elsewhere(session_id, in_database) for session_id in ids}
    for session_id, reason in reasons.items():
        if reason is not None:
            deletion.refuse(session_id, reason)
    deletion.some([session_id for session_id in ids if reasons[session_id] is None], in_database)
    if deletion.refused:
        raise _refused(deletion.sessions, "sessions", deletion.refused)
    return deletion.sessions


def clear_all(openclaw_dir: str, token: CancelToken) -> int:
    """Delete the transcripts, archives, traces, checkpoints and stale locks of all agents; how many files that were.

    ``SessionsRefused`` if some were not, for a live lock or an error, after the others were. A cancel as above.
    """
    files = 0
    refused: list[dict[str, str]] = []
    for agent in list_agents(openclaw_dir):
        deletion = _Deletion(agent, token)
        deletion.everything()
        files += deletion.files
        refused += deletion.refused
    if refused:
        raise _refused(files, "files", refused)
    return files


@dataclass(slots=True)
class _Session:
    """What a folder holds of one session: its transcript's name, whether that is there, and what else is of it."""

    session_id: str
    kind: Kind
    folder: Folder
    transcript: str
    is_there: bool = False
    others: list[str] = field(default_factory=list)


class _Deletion:
    """The deletion of sessions of one agent."""

    def __init__(self, agent: AgentFolder, token: CancelToken) -> None:
        self._agent = agent
        self._token = token
        self._unread: dict[str, str] = {}
        """Why a folder could not be listed, by its name."""
        self.sessions = 0
        self.files = 0
        self.refused: list[dict[str, str]] = []

    def refuse(self, session_id: str, reason: str) -> None:
        self.refused.append(_refusal(wire_name(self._agent.name), session_id, reason))

    def some(self, session_ids: list[str], in_database: Container[str]) -> None:
        """Delete the sessions that have these ids, each of which must be that of one file."""
        wanted = {place: session_id for session_id in session_ids for place in _places(session_id, in_database)}
        found: dict[str, list[_Session]] = {session_id: [] for session_id in session_ids}
        with ExitStack() as folders:
            for session in self._find(folders, lambda kind, transcript: wanted.get((kind, transcript))):
                if session.is_there:
                    found[session.session_id].append(session)
            for session_id, sessions in found.items():
                if not sessions:
                    self.refuse(session_id, next(iter(self._unread.values()), _NO_SUCH_FILE))
                elif len(sessions) > 1:
                    self.refuse(session_id, "more than one file has this id")
            self._remove(sessions[0] for sessions in found.values() if len(sessions) == 1)

    def everything(self) -> None:
        """Delete every file that is of a session, as its name says."""
        with ExitStack() as folders:
            found = self._find(folders, _own_id)
            for folder, reason in self._unread.items():
                self.refuse(folder, reason)
            self._remove(found)

    def _find(self, folders: ExitStack, id_of: Callable[[Kind, str], str | None]) -> list[_Session]:
        """What is there of the sessions to whose kind and transcript's name ``id_of`` gives an id, by folder and name.

        The folders are open until ``folders`` is closed.
        """
        found: list[_Session] = []
        for name, kind in FOLDERS:
            sessions: dict[str, _Session] = {}
            try:
                folder = Folder(*folders.enter_context(open_folder(os.path.join(self._agent.path, name))))
                for file, transcript in self._files_in(folder):
                    if (session_id := id_of(kind, transcript)) is None:
                        continue
                    session = sessions.setdefault(transcript, _Session(session_id, kind, folder, transcript))
                    if file == transcript:
                        session.is_there = True
                    else:
                        session.others.append(file)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._unread[name] = _describe(error)
            found += [sessions[transcript] for transcript in sorted(sessions)]
        return found

    def _files_in(self, folder: Folder) -> Iterator[tuple[str, str]]:
        """The files, and links, that are of a session, each with the name of the transcript that it belongs to."""
        with os.scandir(folder.before_name if folder.fd is None else folder.fd) as entries:
            for entry in entries:
                self._token.check()
                known = classify(entry.name)
                if known is None or known.role in {"import", "cold"}:
                    continue
                if entry.is_file(follow_symlinks=False) or entry.is_symlink():
                    is_transcript = known.role in {"transcript", "archive"}
                    yield entry.name, entry.name if is_transcript else f"{known.stem}.jsonl"

    def _remove(self, sessions: Iterable[_Session]) -> None:
        """Remove the files of ``sessions`` and then their entries in the index."""
        gone: set[str] = set()
        index_folder = None
        try:
            for session in sessions:
                self._token.check()
                if self._remove_one(session) and session.kind == "sessions":
                    gone.add(session.transcript)
                    index_folder = session.folder
        finally:
            if index_folder is not None:
                # So that a loss of power can't undo the one and keep the other.
                index_folder.sync()
                try:
                    forget_transcripts(index_folder, gone)
                except (OSError, SidecarError) as error:
                    path = wire_name(self._agent.path)
                    log.warning("the index in %s keeps entries of deleted sessions: %s", path, _describe(error))

    def _remove_one(self, session: _Session) -> bool:
        """Remove a session's files, unless its lock is live; True if its transcript went."""
        try:
            if owner := live_lock(session.folder, f"{session.transcript}.lock"):
                self.refuse(session.session_id, f"it is in use: its lock is held by {owner}")
                return False
            for name in session.others:
                self._unlink(session.folder, name)
            is_gone = session.is_there and self._unlink(session.folder, session.transcript)
            self.sessions += is_gone
            if session.is_there and not is_gone:
                self.refuse(session.session_id, _NO_SUCH_FILE)
        except OSError as error:
            self.refuse(session.session_id, _describe(error))
            return False
        return is_gone

    def _unlink(self, folder: Folder, name: str) -> bool:
        """Remove a file, or a link and not what it leads to; False if it has gone already."""
        try:
            folder.remove(name)
        except FileNotFoundError:
            return False
        self.files += 1
        return True


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
