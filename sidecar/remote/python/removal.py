"""Delete files of sessions: the twin of ``_Deletion`` in ``sidecar/stores/deletion.py``."""

from __future__ import annotations

import os
from typing import Any

from sidecar.remote.python.errors import FAULTS, Fault, told
from sidecar.remote.python.files import OPEN_FLAGS
from sidecar.remote.python.host import Host
from sidecar.remote.python.index_rewrite import forget_transcripts
from sidecar.remote.python.locations import Agent
from sidecar.remote.python.session_folders import Folder, live_lock
from sidecar.remote.python.session_names import FOLDERS, LIVE_FOLDER
from sidecar.remote.python.text import file_name, objection_to_name, raw


class Removal:
    """The deletion of the files of some sessions of one agent, and of their entries in the index."""

    def __init__(self, agent: Agent, host: Host) -> None:
        self._agent = agent
        self._output = host.output
        self._folders: dict[str, Folder] = {}
        self._gone: set[str] = set()

    def run(self, sessions: list[Any]) -> None:
        """Delete one after another, up to the end of the input; then their entries."""
        try:
            for place, (folder, transcript, is_there, others) in enumerate(sessions):
                if self._output.is_over:
                    break
                self._remove(place, folder, transcript, is_there, others)
                self._output.tick()
        finally:
            try:
                self._forget()
            finally:
                for opened in self._folders.values():
                    os.close(opened.fd)

    def _remove(self, place: int, folder: str, transcript: str, is_there: bool, others: list[str]) -> None:
        files = 0
        try:
            transcript, *others = map(_checked_name, (transcript, *others))
            opened = self._opened(folder)
            owner = live_lock(opened, f"{transcript}.lock")
            if owner:
                self._output.say("locked", place, owner)
                return
            for name in others:
                files += _unlink(opened, name)
            is_gone = bool(is_there) and _unlink(opened, transcript)
        except FAULTS as error:
            self._output.say("refused", place, files, *told(error))
        else:
            if is_gone and folder == LIVE_FOLDER:
                self._gone.add(transcript)
            self._output.say("removed", place, files + is_gone, is_gone)

    def _opened(self, name: str) -> Folder:
        if name not in dict(FOLDERS):
            raise Fault("not a valid name")
        if name not in self._folders:
            path = raw(os.path.join(self._agent.path, name))
            self._folders[name] = Folder(os.open(path, OPEN_FLAGS | os.O_DIRECTORY))
        return self._folders[name]

    def _forget(self) -> None:
        if not self._gone:
            return
        folder = self._folders[LIVE_FOLDER]
        # So that a loss of power can't undo the one and keep the other.
        folder.sync()
        try:
            forget_transcripts(folder, self._gone, self._output.tick)
        except FAULTS as error:
            self._output.say("index-failed", *told(error))


def _unlink(folder: Folder, name: str) -> bool:
    try:
        folder.remove(name)
    except FileNotFoundError:
        return False
    return True


def _checked_name(name: str) -> str:
    objection = objection_to_name(name)
    if objection:
        raise Fault(objection)
    return file_name(name)
