"""Who uses a tree that is to be restored: a gateway that runs, a process that has a database or a session open.

A process that has a file open goes on writing into it after it was replaced, without an error (FIELD-NOTES). What can't
be seen isn't told: processes of other users where the system keeps them private, those of other machines or containers.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import Any, Iterable, Iterator

from sidecar.backup.progress import Progress
from sidecar.backup.rules import Selection, is_database_name, side_files
from sidecar.backup.tree import READING, walk
from sidecar.limits import LOCK_STALE_S, LSOF_FILES, LSOF_S, MAX_LOCK_BYTES
from sidecar.text import wire_name

_UNKNOWN = "a process that the system doesn't name"


def databases_below(root: bytes, selection: Selection, progress: Progress) -> Iterator[bytes]:
    """The databases in the tree, as far as their names tell, relative to the top."""
    for found in walk(root, selection):
        progress.step()
        if found.kind == "file" and is_database_name(found.path):
            yield found.path


def users_of(root: bytes, databases: Iterable[bytes]) -> list[str]:
    """Who uses the tree at ``root``, or one of these databases in it, each a sentence; empty if nobody is seen to.

    ``root`` is a real folder; paths are relative to it.
    """
    return [*dict.fromkeys([*_lock_holders(root), *_openers(root, _watched(root, databases))])]


def _watched(root: bytes, databases: Iterable[bytes]) -> dict[tuple[int, int], bytes]:
    """What nobody may have open, by device and inode, with its path: from the top, if it is in the tree."""
    watched: dict[tuple[int, int], bytes] = {}
    for database in databases:
        for path in (database, *side_files(database)):
            _watch(watched, os.path.join(root, path), path)
    for path in _coordinators(root):
        _watch(watched, path, path)
    return watched


def _watch(watched: dict[tuple[int, int], bytes], full_path: bytes, path: bytes) -> None:
    with suppress(OSError):
        status = os.stat(full_path)
        watched[status.st_dev, status.st_ino] = path


def _coordinators(root: bytes) -> Iterator[bytes]:
    """The databases that a gateway of this tree keeps locked for as long as it runs (2026.8.1 and later)."""
    yield from glob.iglob(os.path.join(glob.escape(root), b"tmp", b"openclaw*", b"*.lock.sqlite"))
    state = hashlib.sha256(os.path.join(root, b"state", b"openclaw.sqlite")).hexdigest()[:8].encode()
    for folder in _temporary_folders():
        yield from glob.iglob(os.path.join(folder, b"openclaw-state-locks*", b"*." + state + b".lock.sqlite"))


def _temporary_folders() -> list[bytes]:
    folders = [os.fsencode(tempfile.gettempdir()), b"/tmp"]  # OpenClaw falls back on it
    return [*dict.fromkeys(os.path.realpath(folder) for folder in folders)]


def _openers(root: bytes, watched: dict[tuple[int, int], bytes]) -> Iterator[str]:
    if not watched:
        return
    if sys.platform == "linux":
        yield from _open_in_proc(watched)
        yield from _locked_in_proc(watched)
    elif os.name != "nt":  # where no file that is open can be replaced
        yield from _open_by_lsof(root, watched)


def _open_in_proc(watched: dict[tuple[int, int], bytes]) -> Iterator[str]:
    own = str(os.getpid())
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or pid == own:
            continue
        with suppress(OSError):  # it has ended, or is another user's
            folder = f"/proc/{pid}/fd"
            for name in os.listdir(folder):
                with suppress(OSError):
                    status = os.stat(f"{folder}/{name}")
                    path = watched.get((status.st_dev, status.st_ino))
                    if path is not None:
                        yield _has_open(_process(int(pid)), path)


def _locked_in_proc(watched: dict[tuple[int, int], bytes]) -> Iterator[str]:
    """Of every user: SQLite holds a lock on a database in WAL mode for as long as it is connected to it."""
    try:
        with open("/proc/locks", encoding="ascii", errors="replace") as locks:
            lines = locks.readlines()
    except OSError:
        return
    for line in lines:
        fields = line.replace("-> ", "").split()
        try:
            pid = int(fields[4])
            major, minor, inode = fields[5].split(":")
            path = watched.get((os.makedev(int(major, 16), int(minor, 16)), int(inode)))
        except (IndexError, ValueError):
            continue
        if path is not None and pid != os.getpid():
            yield _has_open(_process(pid), path)


def _open_by_lsof(root: bytes, watched: dict[tuple[int, int], bytes]) -> Iterator[str]:
    lsof = shutil.which("lsof") or "/usr/sbin/lsof"
    paths = [*watched.values()]
    until_s = time.monotonic() + LSOF_S
    for start in range(0, len(paths), LSOF_FILES):
        try:
            told = subprocess.run(
                [lsof, "-w", "-F", "pcn", "--", *paths[start : start + LSOF_FILES]],
                cwd=root,  # which paths in the tree are relative to
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=max(0.0, until_s - time.monotonic()),
                check=False,
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            return
        process = _UNKNOWN
        pid = b""
        for line in told.splitlines():
            kind, text = line[:1], line[1:]
            if kind == b"p":
                pid, process = text, f"process {text.decode('ascii', 'replace')}"
            elif kind == b"c":
                process += f" ({wire_name(text)})"
            elif kind == b"n" and pid != str(os.getpid()).encode():
                yield _has_open(process, text)


def _lock_holders(root: bytes) -> Iterator[str]:
    below = glob.escape(root)
    for pattern in ((b"gateway.*.lock",), (b"tmp", b"openclaw*", b"*.lock")):
        for path in glob.iglob(os.path.join(below, *pattern)):
            if holder := _holder(path, _read_lock(path)):
                yield f"{holder} holds the gateway's lock {wire_name(os.path.relpath(path, root))}"
    for folder in _temporary_folders():
        for path in glob.iglob(os.path.join(folder, b"openclaw*", b"gateway.*.lock")):
            lock = _read_lock(path)
            if _is_about(lock, root) and (holder := _holder(path, lock)):
                yield f"{holder} holds the gateway's lock {wire_name(path)}"
    for name in (b"*.jsonl.lock", b"sessions.json.lock"):
        for path in glob.iglob(os.path.join(below, b"agents", b"*", b"sessions", name)):
            if holder := _holder(path, _read_lock(path)):
                yield f"{holder} holds the lock {wire_name(os.path.relpath(path, root))}"


def _read_lock(path: bytes) -> dict[str, Any]:
    """What a lock says; nothing if it can't be read, or is just being written."""
    with suppress(OSError, ValueError, RecursionError):
        fd = os.open(path, READING)
        try:
            lock = json.loads(os.read(fd, MAX_LOCK_BYTES))
        finally:
            os.close(fd)
        if isinstance(lock, dict):
            return lock
    return {}


def _is_about(lock: dict[str, Any], root: bytes) -> bool:
    """Whether a lock that lies elsewhere is of a gateway whose state is in the tree at ``root``."""
    for key in ("stateDir", "configPath"):
        path = lock.get(key)
        if isinstance(path, str) and path:
            with suppress(OSError, ValueError):
                real = os.path.realpath(os.fsencode(path))
                if real == root or real.startswith(os.path.join(root, b"")):
                    return True
    return False


def _holder(path: bytes, lock: dict[str, Any]) -> str | None:
    """Who holds the lock file at ``path``, which says ``lock``; ``None`` if it is gone or stale."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    pid = lock.get("pid")
    if not stat.S_ISREG(status.st_mode):
        return None
    # os.kill would end the process on Windows: there each lock counts for as long as it does for OpenClaw.
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0 or os.name == "nt":
        holder = f"process {pid}" if pid else "an unknown process"
        return holder if time.time() - status.st_mtime < LOCK_STALE_S else None
    started = lock.get("startTime", lock.get("starttime"))
    return _process(pid) if _runs(pid, started) else None


def _runs(pid: int, started: object) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it runs, for another user
        pass
    now = _started(pid) if sys.platform == "linux" and isinstance(started, int) else None
    return now is None or now == started


def _started(pid: int) -> int | None:
    """When a process started, in the system's ticks; another one may have its number by now."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def _process(pid: int) -> str:
    if pid <= 0:  # an open file's own lock, or a process in another container
        return _UNKNOWN
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return f"process {pid} ({wire_name(file.read().strip())})"
    except OSError:
        return f"process {pid}"


def _has_open(process: str, path: bytes) -> str:
    return f"{process} has {wire_name(path)} open"
