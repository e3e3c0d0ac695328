"""Bring a tree back to what a snapshot holds: check it, keep what is there, stage what comes, swap.

Until the journal is in place nothing in the tree has changed, and whatever goes wrong leaves it so. From then on the
restore is finished or undone, if not by this process, then by ``recovery``.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Iterator, NamedTuple

from sidecar.backup import journal, manifest
from sidecar.backup.disk import check_space, is_full, sync_tree
from sidecar.backup.failures import Failures
from sidecar.backup.folder import BackupFolder, Snapshot
from sidecar.backup.in_use import databases_below, users_of
from sidecar.backup.journal import Operation, TreeLock, Workspace
from sidecar.backup.manifest import Entry
from sidecar.backup.obstacles import check_unused
from sidecar.backup.plan import Planner, folded
from sidecar.backup.progress import Progress
from sidecar.backup.recovery import SwapFailed, carry_out, finish
from sidecar.backup.rules import RESTORE_FOLDER, Selection
from sidecar.backup.snapshot import Options, create
from sidecar.backup.staging import stage, wish_for
from sidecar.backup.verify import verify
from sidecar.cancel import CancelToken
from sidecar.errors import Cancelled, NoSpace, SidecarError, TargetInUse, TargetNotWritable, describe_os_error
from sidecar.limits import MAX_REPORTED_FAILURES, REMOVAL_S
from sidecar.text import wire_name


class Restored(NamedTuple):
    """What was restored, and the snapshot of what was there before; ``None`` if nothing was."""

    snapshot: Snapshot
    previous: Snapshot | None


def restore(
    root: bytes, folder: BackupFolder, name: bytes, progress: Progress, *, force: bool = False, share: bool = True
) -> Restored:
    """Restore the tree at ``root``, which may be a link to a folder or not be there yet, from the snapshot ``name``.

    With ``force`` even if the tree is in use or what is there can't be kept whole. ``BackupNotFound``,
    ``BackupDamaged``, ``NoSpace``, ``TargetInUse``, ``TargetNotWritable``, ``Cancelled``: then the tree is as it was.
    ``SourceUnreadable`` with the words of what failed, if it could neither be finished nor undone for now.
    """
    progress.phase = "snapshot"
    snapshot = folder.find(name)
    if os.path.lexists(folder.manifest_of(name)):
        snapshot = verify(folder, name, _Within(progress))
    real = os.path.realpath(root)
    made: list[bytes] = []
    try:
        _make_folders(real, made)
        workspace = Workspace(real)
        lock = journal.take(workspace)
        if lock is None:
            raise TargetInUse("in use: another restore of it is running", users=["another restore of it is running"])
        with _given_up(workspace, lock):
            return _Restore(root, workspace, folder, snapshot, progress, force, share).run()
    except BaseException as error:
        for path in reversed(made):
            with suppress(OSError):
                os.rmdir(path)
        if isinstance(error, SwapFailed) and error.is_undone:
            raise _as_sidecar_error(error.error, error.message) from error
        if isinstance(error, OSError):
            raise _as_sidecar_error(error, describe_os_error(error) + "; nothing was changed") from error
        raise


class _Restore:
    """The restore of one snapshot, while the lock of the tree is held."""

    def __init__(
        self,
        root: bytes,
        workspace: Workspace,
        folder: BackupFolder,
        snapshot: Snapshot,
        progress: Progress,
        force: bool,
        share: bool,
    ) -> None:
        self.workspace = workspace
        self._root = root
        self._folder = folder
        self._snapshot = snapshot
        self._progress = progress
        self._force = force
        self._share = share

    def run(self) -> Restored:
        finish(self.workspace)
        if not self._force:
            selection = Selection(clawpal_dir=self._folder.clawpal_dir)
            databases = databases_below(self.workspace.root, selection, self._progress)
            check_unused(users_of(self.workspace.root, databases))
        previous = self._keep_state()
        try:
            self._swap(previous)
        except BaseException as error:
            if previous is not None and not (isinstance(error, SwapFailed) and not error.is_undone):
                self._forget(previous, error)
            raise
        return Restored(self._snapshot, previous)

    def _keep_state(self) -> Snapshot | None:
        with os.scandir(self.workspace.root) as entries:
            if all(entry.name == RESTORE_FOLDER for entry in entries):
                return None
        return create(self._root, self._folder, Options(share=self._share), _Within(self._progress))

    def _forget(self, previous: Snapshot, error: BaseException) -> None:
        """Delete the snapshot of a state that is still there."""
        # A cancel doesn't wait for it.
        thread = threading.Thread(target=self._folder.delete, args=(previous.name,), name="removal")
        thread.start()
        thread.join(REMOVAL_S if isinstance(error, Cancelled) else None)

    def _swap(self, previous: Snapshot | None) -> None:
        workspace, progress = self.workspace, self._progress
        if previous is not None and previous.failed_items and not self._force:
            _check_kept(self._folder, previous)
        planner = self._plan(previous)
        planner.obstacles.check_writable()
        if not self._force:
            check_unused(planner.obstacles.changes)
        check_space(workspace.root, planner.totals.disk_bytes)
        workspace.prepare()
        progress.expect(planner.totals.files, planner.totals.size_bytes)
        stage(workspace, self._snapshot.path, progress)
        sync_tree(workspace.path, progress)
        if not self._force:
            check_unused([*islice(_changes(workspace, progress), MAX_REPORTED_FAILURES)])
            check_unused(users_of(workspace.root, planner.databases))
        progress.step()
        progress.current_path = None
        progress.may_be_cancelled = False
        workspace.begin()
        carry_out(workspace)
        workspace.clear()
        progress.phase = "done"

    def _plan(self, previous: Snapshot | None) -> Planner:
        snapshot, folder = self._snapshot, self._folder
        with open(self.workspace.plan, "xb") as file:
            os.chmod(self.workspace.plan, 0o600)

            def add(operation: Operation) -> None:
                journal.write(file, operation)

            with wish_for(folder, snapshot) as wish, _entries_of(folder, previous) as before:
                planner = Planner(self.workspace.root, wish, add, self._progress)
                planner.run(before)
        return planner


@contextmanager
def _given_up(workspace: Workspace, lock: TreeLock) -> Iterator[None]:
    """Give the lock up at the end, and the folder, unless there is something in it that is to be ended first."""
    try:
        yield
    except Cancelled:
        # To remove what was staged may take long, be it many files or one that is large, for which no cancel waits.
        thread = threading.Thread(target=_give_up, args=(workspace, lock), name="removal")
        thread.start()
        thread.join(REMOVAL_S)
        raise
    except BaseException:
        _give_up(workspace, lock)
        raise
    _give_up(workspace, lock)


def _give_up(workspace: Workspace, lock: TreeLock) -> None:
    if not (os.path.lexists(workspace.journal) or os.path.lexists(workspace.undo)):
        workspace.clear()
    journal.give_up(workspace, lock)


class _Within(Progress):
    """The progress of work that is part of the first phase of another."""

    def __init__(self, whole: Progress) -> None:
        super().__init__(CancelToken())
        self._whole = whole

    def step(self, size_bytes: int = 0) -> None:
        super().step(size_bytes)
        whole = self._whole
        whole.phase, whole.current_path = "snapshot", self.current_path
        whole.files_copied, whole.files_total = self.files_copied, self.files_total
        whole.bytes_copied, whole.bytes_total = self.bytes_copied, self.bytes_total
        whole.step()


@contextmanager
def _entries_of(folder: BackupFolder, snapshot: Snapshot | None) -> Iterator[Iterator[Entry]]:
    """What the manifest of a snapshot lists; nothing if there is no snapshot."""
    if snapshot is None:
        yield iter(())
        return
    with manifest.opened(folder.manifest_of(snapshot.name)) as reader:
        yield reader.entries()


def _check_kept(folder: BackupFolder, snapshot: Snapshot) -> None:
    """``TargetNotWritable`` if something that is there isn't in the snapshot of it. A damaged database is, as it is."""
    failures = Failures()
    with _entries_of(folder, snapshot) as entries:
        for entry in folded(entries):
            if entry.kind == "failed":
                failures.add(entry.path, entry.text)
    if failures.count:
        what = f"what is there now can't be kept: {failures.sentence}; nothing was changed"
        raise TargetNotWritable(what, **failures.details)


def _changes(workspace: Workspace, progress: Progress) -> Iterator[str]:
    """What changed since the restore was planned, each a sentence."""
    for operation in journal.read(workspace.plan):
        progress.step()
        if operation.was is not None and journal.state_of(workspace.full(operation.path)) != operation.was:
            yield f"{wire_name(operation.path)} changed meanwhile"


def _make_folders(path: bytes, made: list[bytes]) -> None:
    """Make the folder at ``path`` and those on the way to it, as far as they aren't there, and tell which."""
    if os.path.isdir(path):
        return
    if os.path.lexists(path):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    _make_folders(os.path.dirname(path), made)
    os.mkdir(path, 0o700)
    made.append(path)


def _as_sidecar_error(error: OSError, message: str) -> SidecarError:
    if is_full(error):
        return NoSpace(f"no space left on device: {message}")
    failures = Failures()
    failures.add(os.fsencode(error.filename2 or error.filename or b""), (error.strerror or "").lower())
    return TargetNotWritable(message, **failures.details)
