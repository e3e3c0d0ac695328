"""The folder that holds the snapshots: what is in it, what is staged in it, what crashed work left in it."""

from __future__ import annotations

import os
import secrets
import stat
import threading
from contextlib import contextmanager, suppress
from typing import ContextManager, Iterator, NamedTuple

from sidecar.backup import manifest
from sidecar.backup.disk import fsync_folder, remove_tree
from sidecar.backup.names import DELETED, FOLDER, MANIFEST_SUFFIX, STAGED, created_at, names_for, rfc3339
from sidecar.errors import BackupDamaged, BackupNotFound
from sidecar.limits import BACKUP_LOCK_WAIT_S, REMOVAL_S
from sidecar.stores.file_lock import FileLock, held
from sidecar.text import wire_name

_LOCK = b".lock"


class Snapshot(NamedTuple):
    """A finished backup. ``size_bytes`` are of what its files hold; ``failures`` the first of ``failed_items``."""

    name: bytes
    path: bytes
    created_at: str
    size_bytes: int
    status: str
    """``complete``; ``incomplete`` where something couldn't be read; ``unverified`` without a manifest."""
    failed_items: int
    failures: list[dict[str, str]]


class Staging(NamedTuple):
    """A snapshot that is being made: its tree, and its manifest, neither of which is there yet."""

    path: bytes
    tree: bytes
    manifest: bytes


class BackupFolder:
    """``backups`` in the ClawPal directory, made when it is first written to, for its owner only: it holds secrets."""

    def __init__(self, clawpal_dir: bytes) -> None:
        self.clawpal_dir = clawpal_dir
        self.path = os.path.join(clawpal_dir, FOLDER)

    def snapshots(self) -> list[Snapshot]:
        """Those that there are, by name, descending. ``OSError`` if the folder is there and can't be read."""
        found = []
        for name in self.names():
            with suppress(BackupNotFound):  # deleted a moment ago
                found.append(self.find(name))
        return found

    def names(self) -> list[bytes]:
        """Their names, descending. ``OSError`` as above."""
        names = [name for name in self._names() if not name.startswith(b".")]
        return sorted((name for name in names if self._status_of_folder(name)), reverse=True)

    def find(self, name: bytes) -> Snapshot:
        """The snapshot of this name. ``BackupNotFound``; ``OSError`` if it can't be looked at."""
        status = self._status_of_folder(name)
        if status is None:
            raise _not_found(name)
        path = os.path.join(self.path, name)
        try:
            head, foot = manifest.ends(self.manifest_of(name))
        except (OSError, BackupDamaged):
            # One that can't be read keeps the others from nothing; whoever checks or restores it is told.
            made = created_at(name) or rfc3339(status.st_mtime)
            return Snapshot(name, path, made, _size_bytes(path), "unverified", 0, [])
        return Snapshot(name, path, head.created_at, foot.size_bytes, foot.status, foot.failed_items, foot.failures)

    def manifest_of(self, name: bytes) -> bytes:
        """Where the manifest of a snapshot is, if it has one."""
        return os.path.join(self.path, name + MANIFEST_SUFFIX)

    def delete(self, name: bytes) -> bool:
        """Delete a snapshot; False if there is none. It is gone from the list at once, and from the disk soon."""
        if self._status_of_folder(name) is None:
            return False
        aside = self._new(DELETED)
        with self._held():
            try:
                os.rename(os.path.join(self.path, name), aside)
            except FileNotFoundError:
                return False
            with suppress(FileNotFoundError):
                os.unlink(self.manifest_of(name))
            fsync_folder(self.path)
        remove_tree(aside)
        return True

    @contextmanager
    def staging(self) -> Iterator[Staging]:
        """A place to stage a snapshot in, which no other process clears away, and which is gone afterwards."""
        os.makedirs(self.path, 0o700, exist_ok=True)
        if os.name != "nt" and os.stat(self.path).st_mode & 0o077:
            os.chmod(self.path, 0o700)
        path = self._new(STAGED)
        lock = FileLock(os.path.join(path, b"lock"))
        try:
            with self._held():
                os.mkdir(path, 0o700)
                lock.acquire()
            yield Staging(path, os.path.join(path, b"tree"), os.path.join(path, b"manifest"))
        finally:
            lock.release()
            self._remove(path)

    def publish(self, staging: Staging, created_at_s: float) -> bytes:
        """Give what is staged, and is on the disk, a name that none has had; it is a snapshot from then on."""
        with self._held():
            name = next(name for name in names_for(created_at_s) if not self._has(name))
            # The manifest of a folder that never comes is cleared away; a folder without one would be taken for whole.
            os.rename(staging.manifest, self.manifest_of(name))
            try:
                os.rename(staging.tree, os.path.join(self.path, name))
            except OSError:
                # Unless it came after all, which a network file system may take for an error.
                if self._is_orphan(name + MANIFEST_SUFFIX):
                    with suppress(OSError):
                        os.unlink(self.manifest_of(name))
                raise
            fsync_folder(self.path)
        return name

    def clear_leftovers(self) -> None:
        """Remove what crashed backups and deletions left. Makes no folder; what another process uses stays."""
        leftovers = [name for name in self._names() if name.startswith((STAGED, DELETED)) or self._is_orphan(name)]
        if not leftovers:
            return
        aside = []
        with self._held():
            for name in leftovers:
                path = os.path.join(self.path, name)
                if name.startswith(DELETED):
                    aside.append(path)
                elif name.startswith(STAGED):
                    if self._is_abandoned(path):
                        aside.append(self._new(DELETED))
                        with suppress(FileNotFoundError):
                            os.rename(path, aside[-1])
                elif self._is_orphan(name):
                    with suppress(FileNotFoundError):
                        os.unlink(path)
        for path in aside:
            remove_tree(path)

    def _names(self) -> list[bytes]:
        try:
            return os.listdir(self.path)
        except FileNotFoundError:
            return []

    def _status_of_folder(self, name: bytes) -> os.stat_result | None:
        """How the folder of this name stands; ``None`` if there is none."""
        try:
            status = os.lstat(os.path.join(self.path, name))
        except FileNotFoundError:
            return None
        return status if stat.S_ISDIR(status.st_mode) else None

    def _has(self, name: bytes) -> bool:
        return os.path.lexists(os.path.join(self.path, name)) or os.path.lexists(self.manifest_of(name))

    def _is_orphan(self, name: bytes) -> bool:
        """Whether it is a manifest without a folder."""
        path = os.path.join(self.path, name)
        if not name.endswith(MANIFEST_SUFFIX) or os.path.isdir(path):
            return False
        return not os.path.lexists(path[: -len(MANIFEST_SUFFIX)])

    @staticmethod
    def _is_abandoned(path: bytes) -> bool:
        if os.path.islink(path):
            return True
        lock = FileLock(os.path.join(path, b"lock"))
        try:
            return lock.acquire()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False  # who knows; a later start finds out
        finally:
            lock.release()

    def _held(self) -> ContextManager[None]:
        """The lock under which names come and go."""
        return held(os.path.join(self.path, _LOCK), BACKUP_LOCK_WAIT_S)

    def _new(self, prefix: bytes) -> bytes:
        return os.path.join(self.path, prefix + secrets.token_hex(8).encode())

    def _remove(self, path: bytes) -> None:
        """Remove what was staged, in a thread: no cancel waits long, be it for many files or for one that is large."""
        aside = self._new(DELETED)
        try:
            os.rename(path, aside)
        except OSError:
            aside = path
        thread = threading.Thread(target=remove_tree, args=(aside,), name="removal")
        thread.start()
        thread.join(REMOVAL_S)


def _not_found(name: bytes) -> BackupNotFound:
    # The frontend looks for "no such file".
    return BackupNotFound(f'no such file: there is no backup "{wire_name(name)}"')


def _size_bytes(folder: bytes) -> int:
    size_bytes = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size_bytes += os.lstat(os.path.join(path, name)).st_size
    return size_bytes
