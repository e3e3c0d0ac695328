"""End a restore that was interrupted: forward, or back where that can't be done; afterwards the tree is never a mix."""

from __future__ import annotations

import os

from sidecar.backup import journal, swap
from sidecar.backup.disk import sync_tree
from sidecar.backup.journal import Workspace
from sidecar.backup.progress import Progress
from sidecar.cancel import CancelToken
from sidecar.errors import SourceUnreadable, describe_os_error


def recover(root: bytes) -> None:
    """Finish what an interrupted restore of the tree at ``root`` began, or undo it, and remove what it left.

    Does nothing while a restore runs, and nothing but one look where there is nothing. ``OSError`` if it can't be done,
    ``SourceUnreadable`` if the journal can't be read: then it stays for the next try.
    """
    workspace = Workspace(os.path.realpath(root))
    if not journal.is_folder(workspace.path):
        return
    lock = journal.take(workspace)
    if lock is None:
        return
    try:
        finish(workspace)
    finally:
        journal.give_up(workspace, lock)


def finish(workspace: Workspace) -> None:
    """The same while the lock is held."""
    try:
        if os.path.lexists(workspace.journal):
            carry_out(workspace)
        elif os.path.lexists(workspace.undo):
            _undo(workspace)
    except SwapFailed as error:
        if not error.is_undone:
            raise
    workspace.clear()


class SwapFailed(SourceUnreadable):
    """A step of a restore failed. ``is_undone`` tells whether the tree is as it was before."""

    def __init__(self, error: OSError, is_undone: bool) -> None:
        self.error = error
        self.is_undone = is_undone
        ending = "the tree is as it was" if is_undone else "it is undone at the next start or backup command"
        super().__init__(f"the restore failed: {describe_os_error(error)}; {ending}")


def carry_out(workspace: Workspace) -> None:
    """Do what the journal says, and have it on the disk. ``SwapFailed`` after what was done is undone, if it can be."""
    try:
        for operation in journal.read(workspace.journal):
            swap.forward(workspace, operation)
        _settle(workspace)
    except OSError as error:
        try:
            workspace.turn_back()
            _undo(workspace)
        except OSError:
            raise SwapFailed(error, is_undone=False) from error
        raise SwapFailed(error, is_undone=True) from error


def _undo(workspace: Workspace) -> None:
    for operation in journal.read_backwards(workspace.undo):
        swap.back(workspace, operation)
    _settle(workspace)


def _settle(workspace: Workspace) -> None:
    journal.step("sync")
    sync_tree(workspace.root, Progress(CancelToken()))
    workspace.end()
