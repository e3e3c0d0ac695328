"""What a worker knows of the process that watches over it; ``worker.py`` is the other side."""

from __future__ import annotations

import os
import shutil


class Watchdog:
    """What a worker knows of the process that watches over it: its parent, which ends it and removes what it leaves."""

    def __init__(self, pid: int, pipe: int) -> None:
        self._pid = pid
        self._pipe = pipe
        self._folders: list[bytes] = []

    @property
    def is_there(self) -> bool:
        """Whether there is still somebody who would end this process."""
        return os.getppid() == self._pid

    def remove_at_end(self, folder: bytes) -> None:
        """Have a folder, which is yet to be made, removed at the end."""
        self._folders.append(folder)
        os.write(self._pipe, folder + b"\0")

    def remove(self) -> None:
        """Do that, for one who has gone."""
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def let_end(self) -> None:
        """Call before the last output: who has it may end the input, and this process is not to be killed for that."""
        os.write(self._pipe, b"\0\0")
