"""Check that a snapshot holds what its manifest says: every byte, every link, nothing missing and nothing more."""

from __future__ import annotations

import os
from typing import Iterator

from sidecar.backup import manifest
from sidecar.backup.failures import Failures
from sidecar.backup.files import digest_of
from sidecar.backup.folder import BackupFolder, Snapshot
from sidecar.backup.manifest import Entry
from sidecar.backup.progress import Progress
from sidecar.backup.rules import order_of, phase_of
from sidecar.backup.tree import Found, walk_all
from sidecar.errors import BackupDamaged, BackupUnverified, SourceUnreadable
from sidecar.text import wire_name


def verify(folder: BackupFolder, name: bytes, progress: Progress) -> Snapshot:
    """The snapshot of this name, if it is as it was made. ``BackupDamaged`` names what isn't.

    ``BackupNotFound``; ``BackupUnverified`` if it has no manifest; ``OSError`` if its folder can't be listed.
    """
    snapshot = folder.find(name)
    shown = wire_name(name)
    path = folder.manifest_of(name)
    if not os.path.lexists(path):
        raise BackupUnverified(f'the backup "{shown}" has no manifest to be checked against')
    differences = Failures()
    try:
        _, foot = manifest.ends(path)
        progress.expect(foot.files, foot.size_bytes)
        with manifest.opened(path) as reader:
            _compare(snapshot.path, reader.entries(), progress, differences)
    except BackupDamaged as error:
        differences.add(path[len(folder.path) + 1 :], error.message)
    if differences.count:
        raise BackupDamaged(f'the backup "{shown}" is damaged: {differences.sentence}', **differences.details)
    return snapshot


def _compare(tree: bytes, entries: Iterator[Entry], progress: Progress, differences: Failures) -> None:
    """Go through the manifest and the tree side by side; both are in the same order."""
    there = walk_all(tree)
    found = next(there, None)
    for entry in entries:
        progress.step()
        if entry.kind not in ("file", "dir", "link"):
            continue
        progress.phase, progress.current_path = phase_of(entry.path), entry.path
        while found is not None and order_of(found.path) < order_of(entry.path):
            differences.add(found.path, "it is not in the manifest")
            found = next(there, None)
        if found is None or found.path != entry.path:
            differences.add(entry.path, "it is missing")
            continue
        if difference := _difference(tree, entry, found, progress):
            differences.add(entry.path, difference)
        found = next(there, None)
    while found is not None:
        differences.add(found.path, "it is not in the manifest")
        found = next(there, None)


def _difference(tree: bytes, entry: Entry, found: Found, progress: Progress) -> str | None:
    path = os.path.join(tree, entry.path)
    if found.kind == "failed":
        return found.text
    if found.kind != entry.kind:
        return f"it is no {entry.kind}"
    try:
        if entry.kind == "link":
            target = wire_name(os.readlink(path))
            return None if target == entry.text else "the link leads elsewhere"
        if entry.kind == "file":
            assert found.status is not None
            if found.status.st_size != entry.size_bytes:
                return f"it has {found.status.st_size} bytes, not {entry.size_bytes}"
            if digest_of(path, progress) != entry.sha256:
                return "its content is not what was backed up"
            progress.files_copied += 1
    except (OSError, SourceUnreadable) as error:
        return str(error)
    return None
