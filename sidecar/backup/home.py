"""The backups of this machine, or, where this package was sent to one, of a host: what commands call."""

from __future__ import annotations

import os

from sidecar.backup.folder import BackupFolder, Snapshot
from sidecar.backup.names import checked_name
from sidecar.backup.progress import Progress
from sidecar.backup.recovery import recover
from sidecar.backup.restore import Restored, restore
from sidecar.backup.snapshot import Options, create
from sidecar.backup.verify import verify
from sidecar.cancel import CancelToken


class LocalBackups:
    """Snapshots of one OpenClaw directory in one ClawPal directory. Names are wire names.

    Each raises ``InvalidParams`` for what is no name of a snapshot before any file is looked at.
    """

    def __init__(self, openclaw_dir: str | bytes, clawpal_dir: str | bytes, share: bool = True) -> None:
        self._root = os.fsencode(openclaw_dir)
        self._folder = BackupFolder(os.fsencode(clawpal_dir))
        self._share = share

    def recover(self) -> None:
        """End what crashed: finish an interrupted restore or take it back, and remove what was staged."""
        recover(self._root)
        self._folder.clear_leftovers()

    def backup(self, include_sessions: bool, progress: Progress) -> Snapshot:
        """As ``snapshot.create``."""
        self.recover()
        made = create(self._root, self._folder, Options(include_sessions, self._share), progress)
        progress.phase = "done"
        return made

    def restore(self, name: str, force: bool, progress: Progress) -> Restored:
        """As ``restore.restore``."""
        plain = checked_name(name)
        self.recover()
        return restore(self._root, self._folder, plain, progress, force=force, share=self._share)

    def verify(self, name: str, progress: Progress) -> Snapshot:
        """As ``verify.verify``."""
        verified = verify(self._folder, checked_name(name), progress)
        progress.phase = "done"
        return verified

    def list(self, token: CancelToken) -> list[Snapshot]:
        """Every snapshot, by name, descending."""
        token.check()
        return self._folder.snapshots()

    def delete(self, name: str, token: CancelToken) -> bool:
        """Delete a snapshot; False if there is none of that name."""
        plain = checked_name(name)
        token.check()
        return self._folder.delete(plain)
