"""Delete the files of sessions of a host over SFTP, and their entries in its index: as ``stores/session_folders.py``.

SFTP has no descriptors of folders, so that files are removed by their paths: of the agent's folder, found by its name,
one of two folders in it, and a name without a slash.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Any

from sidecar.errors import InvalidParams, SidecarError
from sidecar.remote.sftp.files import HostFiles
from sidecar.remote.sftp.index import forget_transcripts
from sidecar.remote.sftp.locks import Locks
from sidecar.remote.sftp.output import Output, told
from sidecar.stores.locations import AgentFolder, objection_to_name
from sidecar.stores.session_names import FOLDERS, LIVE_FOLDER
from sidecar.text import file_name


class Removal:
    """The deletion of sessions of one agent. ``is_over`` is asked before each: then only their entries still go."""

    def __init__(self, files: HostFiles, output: Output, agent: AgentFolder, is_over: Callable[[], bool]) -> None:
        self._files = files
        self._output = output
        self._agent = agent
        self._is_over = is_over
        self._locks = {folder: Locks(files, posixpath.join(agent.path, folder)) for folder, _ in FOLDERS}
        self._gone: set[str] = set()

    async def run(self, sessions: list[list[Any]]) -> None:
        """Remove one after another, each as ``[folder, transcript, isThere, [other, …]]``; then their entries."""
        # Each is looked at before anything is done.
        checked = [_checked(session) for session in sessions]
        try:
            for place, session in enumerate(checked):
                if self._is_over():
                    break
                await self._remove(place, *session)
        finally:
            if self._gone:
                await self._forget()

    async def _remove(self, place: int, folder: str, transcript: str, is_there: bool, others: list[str]) -> None:
        files = 0
        path = posixpath.join(self._agent.path, folder)
        try:
            if owner := await self._locks[folder].owner(f"{transcript}.lock"):
                await self._output.tell("locked", place, owner)
                return
            for name in others:
                files += await self._unlink(path, name)
            is_gone = is_there and await self._unlink(path, transcript)
        except (OSError, SidecarError) as error:
            await self._output.tell("refused", place, files, *told(error))
            return
        if is_gone and folder == LIVE_FOLDER:
            self._gone.add(transcript)
        await self._output.tell("removed", place, files + is_gone, is_gone)

    async def _unlink(self, folder: str, name: str) -> bool:
        """Remove a file, or a link and not what it leads to; False if it has gone already."""
        try:
            await self._files.remove(posixpath.join(folder, name), name)
        except FileNotFoundError:
            return False
        return True

    async def _forget(self) -> None:
        folder = posixpath.join(self._agent.path, LIVE_FOLDER)
        try:
            await forget_transcripts(self._files, self._locks[LIVE_FOLDER], folder, self._gone)
        except (OSError, SidecarError) as error:
            await self._output.tell("index-failed", *told(error))


def _checked(session: list[Any]) -> tuple[str, str, bool, list[str]]:
    folder, transcript, is_there, others = session
    if folder not in dict(FOLDERS):
        raise InvalidParams("sessions: no session folder has this name")
    for name in (transcript, *others):
        if objection := objection_to_name(name):
            raise InvalidParams(f"sessions: {objection}")
    return folder, file_name(transcript), bool(is_there), list(map(file_name, others))
