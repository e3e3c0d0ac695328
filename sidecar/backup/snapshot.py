"""Make a snapshot: stage a copy of the tree with its manifest, have it on the disk, give it its name."""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import nullcontext, suppress
from typing import NamedTuple

from sidecar.backup.databases import copy_database
from sidecar.backup.disk import blocks_of, check_space, has_space, is_full, sync_tree
from sidecar.backup.files import Copied, StoppedAt, copy_file, owner_of
from sidecar.backup.folder import BackupFolder, Snapshot, Staging
from sidecar.backup.manifest import Entry, Foot, Head, ManifestWriter
from sidecar.backup.names import rfc3339
from sidecar.backup.progress import Progress
from sidecar.backup.rules import DATABASE_MAGIC, Selection, is_database_name, phase_of
from sidecar.backup.sharing import PreviousSnapshot, is_unchanged, previous_snapshot, source_of
from sidecar.backup.tree import Found, walk
from sidecar.errors import NoSpace, SourceUnreadable, describe_os_error
from sidecar.text import wire_name


class Options(NamedTuple):
    """What a snapshot is made of, and whether it shares files with the one before."""

    include_sessions: bool = True
    share: bool = True


def create(root: bytes, folder: BackupFolder, options: Options, progress: Progress) -> Snapshot:
    """Make a snapshot of the tree at ``root``. What couldn't be read is named in it, and makes it ``incomplete``.

    ``OSError`` if the top can't be read, or something can't be written; ``NoSpace`` if the disk is full; ``Cancelled``:
    then nothing is left of it.
    """
    created_at_s = time.time()
    progress.phase = "snapshot"
    try:
        with folder.staging() as staging:
            # Not before: ClawPal's directory, which staging makes, can't be told by its identity while it isn't there.
            selection = Selection(options.include_sessions, folder.clawpal_dir)
            needed_bytes = _expect(root, selection, progress)
            if options.share and not has_space(folder.path, needed_bytes):
                needed_bytes -= _shareable_bytes(root, folder, selection, progress)
            check_space(folder.path, needed_bytes)
            head = Head(rfc3339(created_at_s), wire_name(root), options.include_sessions)
            sharing = previous_snapshot(folder, progress) if options.share else nullcontext()
            with sharing as previous, open(staging.manifest, "xb") as file:
                os.chmod(staging.manifest, 0o600)
                writer = ManifestWriter(file, head)
                copy = _TreeCopy(root, staging, writer, progress, previous)
                copy.run(selection)
                progress.all_done()
                foot = writer.close()
            progress.current_path = None
            sync_tree(staging.path, progress)
            name = folder.publish(staging, created_at_s)
    except OSError as error:
        if is_full(error):
            raise NoSpace(f"no space left on device: {describe_os_error(error)}") from None
        raise
    return _snapshot(name, folder, head, foot)


def _snapshot(name: bytes, folder: BackupFolder, head: Head, foot: Foot) -> Snapshot:
    path = os.path.join(folder.path, name)
    return Snapshot(name, path, head.created_at, foot.size_bytes, foot.status, foot.failed_items, foot.failures)


def _expect(root: bytes, selection: Selection, progress: Progress) -> int:
    """Tell ``progress`` what is to come; how much of a disk that takes."""
    files = size_bytes = needed_bytes = 0
    for found in walk(root, selection):
        progress.step()
        if found.kind == "file":
            expected_bytes = _expected_bytes(root, found)
            files += 1
            size_bytes += expected_bytes
            needed_bytes += blocks_of(expected_bytes)
    progress.expect(files, size_bytes)
    return needed_bytes


def _shareable_bytes(root: bytes, folder: BackupFolder, selection: Selection, progress: Progress) -> int:
    """How much of that need not be taken, since the snapshot before has it."""
    shareable_bytes = 0
    with previous_snapshot(folder, progress) as previous:
        for found in walk(root, selection):
            progress.step()
            if found.kind == "file":
                before = previous.file_at(found.path)
                if before and is_unchanged(before, _full(root, found.path), found.status):
                    shareable_bytes += blocks_of(_expected_bytes(root, found))
    return shareable_bytes


def _expected_bytes(root: bytes, found: Found) -> int:
    assert found.status is not None
    size_bytes = found.status.st_size
    if is_database_name(found.path):
        # A young database lies almost wholly in its WAL.
        with suppress(OSError):
            size_bytes += os.stat(_full(root, found.path) + b"-wal").st_size
    return size_bytes


def _full(root: bytes, path: bytes) -> bytes:
    return root + b"/" + path if path else root


class _TreeCopy:
    """Copies what a walk finds into a staged tree, and says so in its manifest."""

    def __init__(
        self,
        root: bytes,
        staging: Staging,
        writer: ManifestWriter,
        progress: Progress,
        previous: PreviousSnapshot | None,
    ) -> None:
        self._root = root
        self._tree = staging.tree
        self._workplace = staging.path
        self._writer = writer
        self._progress = progress
        self._previous = previous
        self._open_folders: list[tuple[bytes, int]] = []

    def run(self, selection: Selection) -> None:
        progress = self._progress
        for found in walk(self._root, selection):
            progress.step()
            progress.phase = phase_of(found.path)
            progress.current_path = found.path
            self._leave_folders(found.path)
            done_before = progress.bytes_copied
            try:
                self._add(found)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                # A snapshot lies deeper than its tree, or on a file system with shorter names.
                progress.bytes_copied = done_before
                self._writer.add(Entry("failed", found.path, text="its path is too long in a snapshot"))
        self._leave_folders(None)

    def _add(self, found: Found) -> None:
        if found.kind == "file":
            self._add_file(found)
        elif found.kind == "dir":
            self._add_folder(found)
        elif found.kind == "link":
            self._add_link(found)
        else:
            self._writer.add(Entry(found.kind, found.path, text=found.text))

    def _add_folder(self, found: Found) -> None:
        status = found.status
        assert status is not None
        # Whatever its mode, it must be possible to fill it now and to empty it one day; the manifest has its mode.
        os.mkdir(_full(self._tree, found.path), stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
        self._open_folders.append((found.path, status.st_mtime_ns))
        mode = stat.S_IMODE(status.st_mode)
        self._writer.add(Entry("dir", found.path, mode, status.st_mtime_ns, owner=owner_of(status)))

    def _leave_folders(self, path: bytes | None) -> None:
        """Give the folders that ``path`` isn't in their times, now that nothing comes into them any more."""
        while self._open_folders:
            folder, mtime_ns = self._open_folders[-1]
            if path is not None and (not folder or path.startswith(folder + b"/")):
                return
            os.utime(_full(self._tree, folder), ns=(mtime_ns, mtime_ns))
            self._open_folders.pop()

    def _add_link(self, found: Found) -> None:
        try:
            target = os.readlink(_full(self._root, found.path))
        except FileNotFoundError:
            return
        except OSError as error:
            self._writer.add(Entry("failed", found.path, text=describe_os_error(error)))
            return
        os.symlink(target, _full(self._tree, found.path))
        assert found.status is not None
        text = wire_name(target)
        self._writer.add(Entry("link", found.path, text=text, owner=owner_of(found.status)))

    def _add_file(self, found: Found) -> None:
        progress = self._progress
        source, target = _full(self._root, found.path), _full(self._tree, found.path)
        expected_bytes = _expected_bytes(self._root, found)
        done_before = progress.bytes_copied
        before = self._previous.file_at(found.path) if self._previous else None
        try:
            entry = self._shared(found, before, target) or self._copied(found, source, target, before)
        except FileNotFoundError as error:
            if error.filename is not None and os.fsencode(error.filename) != source:
                raise
            entry = None
        except SourceUnreadable as error:
            self._writer.add(Entry("failed", found.path, text=error.message))
            entry = None
        if entry is None:
            with suppress(FileNotFoundError):
                os.unlink(target)
            progress.bytes_copied = done_before
            progress.files_total -= 1
            progress.bytes_total -= expected_bytes
            return
        self._writer.add(entry)
        progress.bytes_copied = done_before + entry.size_bytes
        progress.done_with(expected_bytes, entry.size_bytes)

    def _shared(self, found: Found, before: Entry | None, target: bytes) -> Entry | None:
        """The entry of a file that is as it was in the snapshot before, and is shared with it."""
        if self._previous is None or before is None:
            return None
        if not is_unchanged(before, _full(self._root, found.path), found.status):
            return None
        return before if self._previous.share(before, target, self._progress) else None

    def _copied(self, found: Found, source: bytes, target: bytes, before: Entry | None) -> Entry:
        assert found.status is not None
        # Of before it was copied: if it changes meanwhile, the next backup copies it again.
        came_from = source_of(source, found.status)
        database = None
        if is_database_name(found.path):
            database = copy_database(source, target, self._workplace, self._progress)
        try:
            copied = database.copied if database else copy_file(source, target, self._progress, stop_at=DATABASE_MAGIC)
        except StoppedAt:
            database = copy_database(source, target, self._workplace, self._progress)
            copied = database.copied if database else copy_file(source, target, self._progress)
        problem = database.problem if database else None
        entry = _entry(found.path, copied, database is not None, problem, None if problem else came_from)
        if before is not None and before._replace(source=None) == entry._replace(source=None):
            self._share_after_all(before, target)
        return entry

    def _share_after_all(self, before: Entry, target: bytes) -> None:
        """Share a file that was copied, and turned out to be what the snapshot before has."""
        assert self._previous is not None
        other = os.path.join(self._workplace, b"shared")
        done = self._progress.bytes_copied
        if self._previous.share(before, other, self._progress):
            os.replace(other, target)
        self._progress.bytes_copied = done


def _entry(path: bytes, copied: Copied, is_database: bool, problem: str | None, source: list[int] | None) -> Entry:
    status = copied.status
    return Entry(
        "file",
        path,
        stat.S_IMODE(status.st_mode),
        status.st_mtime_ns,
        copied.size_bytes,
        copied.sha256,
        problem or "",
        owner=owner_of(status),
        is_database=is_database,
        source=source,
    )
