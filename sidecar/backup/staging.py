"""What a snapshot holds, with a manifest or without, and copies of it in the place from where they are renamed."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import Iterator

from sidecar.backup import journal, manifest
from sidecar.backup.failures import Failures
from sidecar.backup.files import clone, copy_file, digest_of, owner_of
from sidecar.backup.folder import BackupFolder, Snapshot
from sidecar.backup.journal import Operation, Workspace
from sidecar.backup.manifest import Entry
from sidecar.backup.plan import Wish
from sidecar.backup.progress import Progress
from sidecar.backup.rules import Selection, database_beside, phase_of
from sidecar.backup.tree import is_database, walk_all
from sidecar.errors import BackupDamaged, SourceUnreadable
from sidecar.text import file_name, wire_name


@contextmanager
def wish_for(folder: BackupFolder, snapshot: Snapshot) -> Iterator[Wish]:
    """What the snapshot wants a tree to be. Without a manifest: to have what lies in its folder."""
    path = folder.manifest_of(snapshot.name)
    if os.path.lexists(path):
        with manifest.opened(path) as reader:
            selection = Selection(reader.head.include_sessions, folder.clawpal_dir)
            yield Wish(reader.entries(), selection, removes=True)
    else:
        selection = Selection(clawpal_dir=folder.clawpal_dir)
        yield Wish(_entries_in(snapshot.path, selection), selection, removes=False)


def _entries_in(tree: bytes, selection: Selection) -> Iterator[Entry]:
    """What lies in the folder of a snapshot that has no manifest; its files weren't copied through SQLite."""
    for found in walk_all(tree):
        path, status = found.path, found.status
        full_path = os.path.join(tree, path) if path else tree
        if status is None:
            raise BackupDamaged(f"{wire_name(path)} can't be restored: {found.text}")
        if found.kind == "leftOut" or (path and selection.reason_to_leave_out(path, status) is not None):
            yield Entry("leftOut", path)
        elif found.kind == "dir":
            yield Entry("dir", path, stat.S_IMODE(status.st_mode), status.st_mtime_ns, owner=owner_of(status))
        elif found.kind == "link":
            yield Entry("link", path, text=wire_name(os.readlink(full_path)), owner=owner_of(status))
        # A -shm is made anew of the -wal, and only what was written together may lie together.
        elif not (path.endswith(b"-shm") and _is_of_database(tree, path)):
            yield Entry(
                "file",
                path,
                stat.S_IMODE(status.st_mode),
                status.st_mtime_ns,
                status.st_size,
                owner=owner_of(status),
                is_database=is_database(full_path),
            )


def _is_of_database(tree: bytes, path: bytes) -> bool:
    database = database_beside(path)
    full_path = os.path.join(tree, database) if database else b""
    return os.path.isfile(full_path) and is_database(full_path)


def stage(workspace: Workspace, tree: bytes, progress: Progress) -> None:
    """Copy what the plan puts into the tree from that of the snapshot. Nothing is shared with it.

    ``BackupDamaged`` if a file isn't what its manifest says, or can't be read; ``OSError`` if it can't be written.
    """
    can_clone = True
    for operation in journal.read(workspace.plan):
        progress.step()
        if operation.kind != "put":
            continue
        progress.phase, progress.current_path = phase_of(operation.path), operation.path
        target = workspace.new(operation.number)
        if operation.text is not None:
            os.symlink(os.fsencode(file_name(operation.text)), target)
            if operation.owner is not None:
                os.lchown(target, *operation.owner)
            continue
        source = os.path.join(tree, operation.path)
        try:
            can_clone = can_clone and clone(source, target)
            digest = digest_of(target, progress) if can_clone else copy_file(source, target, progress).sha256
        except SourceUnreadable as error:
            raise _damaged(operation, error.message) from None
        except FileNotFoundError as error:
            if error.filename == source:
                raise _damaged(operation, "it is missing") from None
            raise
        if operation.sha256 and digest != operation.sha256:
            raise _damaged(operation, "its content is not what was backed up")
        _set_status(target, operation)
        progress.done_with(operation.size_bytes, os.lstat(target).st_size)


def _set_status(path: bytes, operation: Operation) -> None:
    if operation.owner is not None:
        os.chown(path, *operation.owner)
    os.chmod(path, operation.mode)
    os.utime(path, ns=(operation.mtime_ns, operation.mtime_ns))


def _damaged(operation: Operation, error: str) -> BackupDamaged:
    failures = Failures()
    failures.add(operation.path, error)
    return BackupDamaged(f"the backup is damaged: {failures.sentence}", **failures.details)
