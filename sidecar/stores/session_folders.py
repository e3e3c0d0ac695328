"""The session folders of one agent of this machine, as a deletion gets at them: to list them, to remove files.

Of each session the transcript goes last, so that what is interrupted can be asked for again; the index follows when all
are gone. So a crash leaves at worst an entry without a transcript, which OpenClaw tolerates, and never a transcript
that OpenClaw has no entry of; and on a full disk the new index finds room.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import ExitStack

from sidecar.cancel import CancelToken
from sidecar.errors import SidecarError, describe_os_error
from sidecar.stores.deletion import Removed, SessionFiles
from sidecar.stores.files import open_folder
from sidecar.stores.index_rewrite import Folder, forget_transcripts, live_lock
from sidecar.stores.locations import AgentFolder
from sidecar.stores.session_names import FOLDERS, classify
from sidecar.text import wire_name

log = logging.getLogger(__name__)

DatabaseIds = Callable[[AgentFolder], Container[str]]
"""Gives the ids, as on the wire, of what an agent's database holds: its sessions, and its archives by their names."""


class LocalFolders:
    """``deletion.SessionFolders`` of an agent here. The folders are held open from ``names`` to the end of ``with``.

    So no path is made of a name: what was found is removed relative to the folder in which it was found.
    """

    def __init__(self, agent: AgentFolder, token: CancelToken, database_ids: DatabaseIds) -> None:
        self.agent = wire_name(agent.name)
        self.unread: dict[str, OSError] = {}
        self._agent = agent
        self._token = token
        self._ids = database_ids
        self._open = ExitStack()
        self._folders: dict[str, Folder] = {}

    def __enter__(self) -> LocalFolders:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def database_ids(self) -> Container[str]:
        return self._ids(self._agent)

    def names(self) -> Iterator[tuple[str, str]]:
        """As ``SessionFolders.names``."""
        for name, _ in FOLDERS:
            try:
                path = os.path.join(self._agent.path, name)
                folder = self._folders[name] = Folder(*self._open.enter_context(open_folder(path)))
                with os.scandir(folder.before_name if folder.fd is None else folder.fd) as entries:
                    for entry in entries:
                        self._token.check()
                        known = classify(entry.name)
                        if known is None or known.role in {"import", "cold"}:
                            continue
                        if entry.is_file(follow_symlinks=False) or entry.is_symlink():
                            yield name, entry.name
            except FileNotFoundError:
                continue
            except OSError as error:
                self.unread[name] = error

    def remove(self, sessions: Iterable[SessionFiles]) -> Iterator[Removed]:
        """As ``SessionFolders.remove``."""
        gone: set[str] = set()
        try:
            for session in sessions:
                self._token.check()
                removed = self._remove_one(session)
                if removed.is_gone and session.kind == "sessions":
                    gone.add(session.transcript)
                yield removed
        finally:
            if gone:
                self._forget(self._folders["sessions"], gone)

    def _forget(self, folder: Folder, transcripts: set[str]) -> None:
        # So that a loss of power can't undo the one and keep the other.
        folder.sync()
        try:
            forget_transcripts(folder, transcripts)
        except (OSError, SidecarError) as error:
            text = describe_os_error(error) if isinstance(error, OSError) else error.message
            log.warning("the index in %s keeps entries of deleted sessions: %s", wire_name(self._agent.path), text)

    def _remove_one(self, session: SessionFiles) -> Removed:
        folder = self._folders[session.folder]
        files = 0
        try:
            if owner := live_lock(folder, f"{session.transcript}.lock"):
                return Removed(session, refusal=f"it is in use: its lock is held by {owner}")
            for name in session.others:
                files += _unlink(folder, name)
            is_gone = session.is_there and _unlink(folder, session.transcript)
        except OSError as error:
            return Removed(session, files, refusal=error)
        return Removed(session, files + is_gone, is_gone)


def _unlink(folder: Folder, name: str) -> bool:
    """Remove a file, or a link and not what it leads to; False if it has gone already."""
    try:
        folder.remove(name)
    except FileNotFoundError:
        return False
    return True
