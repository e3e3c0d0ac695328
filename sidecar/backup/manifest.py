"""The manifest of a snapshot: what it holds, line by line, with digests; written and read without being held.

JSON Lines beside the snapshot's folder: a head; one line for each folder, file, link, and for what was left out or
failed, in the order of ``rules.order_of``; and a foot with the totals and the SHA-256 of all lines before it.
``protocol.md`` describes each field. Paths are wire names (``sidecar/text.py``), relative, with ``/``.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from typing import Any, BinaryIO, Iterator, NamedTuple

from sidecar.backup.failures import Failures
from sidecar.backup.progress import Progress
from sidecar.errors import BackupDamaged
from sidecar.limits import (
    COPY_BYTES,
    MANIFEST_TAIL_BYTES,
    MAX_MANIFEST_LINE_BYTES,
    MAX_TEXT_CHARS,
)
from sidecar.text import file_name, wire_name

FORMAT = 1
_decode = json.JSONDecoder().decode
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Entry(NamedTuple):
    """A line of a manifest. Which fields count depends on ``kind``, which is the key of the path in the line."""

    kind: str
    """``dir``, ``file``, ``link``, ``leftOut`` or ``failed``."""
    path: bytes
    mode: int = 0
    """Permission bits."""
    mtime_ns: int = 0
    size_bytes: int = 0
    sha256: str = ""
    text: str = ""
    """Of a link its target, as a wire name; why it was left out; how it failed; of a file what is wrong with it."""
    owner: tuple[int, int] | None = None
    """User and group, where they aren't those of the process that made the snapshot."""
    is_database: bool = False
    source: list[int] | None = None
    """What tells whether the source is still the same; ``None`` where it was too young to tell."""


class Foot(NamedTuple):
    """The last line: ``failures`` are the first of ``failed_items``, each a wire path and an error."""

    files: int
    size_bytes: int
    failed_items: int
    failures: list[dict[str, str]]

    @property
    def status(self) -> str:
        return "incomplete" if self.failed_items else "complete"


class Head(NamedTuple):
    """The first line. ``source`` is the tree's wire path."""

    created_at: str
    source: str
    include_sessions: bool


class ManifestWriter:
    """Writes a manifest to ``file`` and counts what goes in."""

    def __init__(self, file: BinaryIO, head: Head) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._files = 0
        self._size_bytes = 0
        self._failures = Failures()
        self._failures_bytes = 0
        self._write(
            {
                "manifest": FORMAT,
                "createdAt": head.created_at,
                "source": head.source,
                "includeSessions": head.include_sessions,
            }
        )

    def add(self, entry: Entry) -> None:
        """Add the next line."""
        fields: dict[str, Any] = {entry.kind: wire_name(entry.path)}
        if entry.kind == "failed":
            fields["error"] = self._note_failure(entry.path, entry.text)
        elif entry.kind == "leftOut":
            fields["reason"] = entry.text
        elif entry.kind == "link":
            fields["target"] = entry.text
        else:
            fields["mode"] = f"{entry.mode:04o}"
            fields["mtimeNs"] = entry.mtime_ns
        if entry.kind == "file":
            self._files += 1
            self._size_bytes += entry.size_bytes
            fields["sizeBytes"] = entry.size_bytes
            fields["sha256"] = entry.sha256
            if entry.text:
                fields["problem"] = self._note_failure(entry.path, entry.text)
        if entry.is_database:
            fields["database"] = True
        if entry.owner is not None:
            fields["owner"] = list(entry.owner)
        if entry.source is not None:
            fields["from"] = entry.source
        self._write(fields)

    def close(self) -> Foot:
        """Add the foot. Closing the file is the caller's."""
        foot = Foot(self._files, self._size_bytes, self._failures.count, self._failures.first)
        self._write(
            {
                "status": foot.status,
                "files": foot.files,
                "sizeBytes": foot.size_bytes,
                "failedItems": foot.failed_items,
                "failures": foot.failures,
                "sha256": self._digest.hexdigest(),
            }
        )
        self._file.flush()
        return foot

    def _note_failure(self, path: bytes, text: str) -> str:
        error = wire_name(text)[:MAX_TEXT_CHARS]
        size_bytes = len(_line_of({"path": wire_name(path), "error": error}))
        # Of the longest paths there are, twenty take more than a foot may.
        if self._failures_bytes + size_bytes <= MANIFEST_TAIL_BYTES // 2:
            self._failures_bytes += size_bytes
            self._failures.add(path, error)
        else:
            self._failures.count += 1
        return error

    def _write(self, fields: dict[str, Any]) -> None:
        line = _line_of(fields)
        self._digest.update(line)
        self._file.write(line)


class ManifestReader:
    """The manifest at ``path``: its ``head``, its entries one after another.

    ``OSError`` if it can't be read, ``BackupDamaged`` where it is no manifest.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        with _strangeness_as_damage():
            line = self._file.readline(MAX_MANIFEST_LINE_BYTES)
            self._digest.update(line)
            head = _fields(line)
            if head.get("manifest") != FORMAT:
                raise BackupDamaged("the manifest is of a form that is not known")
            self.head = Head(str(head["createdAt"]), str(head["source"]), bool(head["includeSessions"]))

    def entries(self) -> Iterator[Entry]:
        """Each entry in order. ``BackupDamaged`` at the end, if not all that was written was read."""
        files = size_bytes = failed_items = 0
        with _strangeness_as_damage():
            while True:
                line = self._file.readline(MAX_MANIFEST_LINE_BYTES)
                fields = _fields(line)
                if "status" in fields:
                    foot = _foot(fields)
                    counted = foot._replace(files=files, size_bytes=size_bytes, failed_items=failed_items)
                    # The foot's own digest is of what comes before it.
                    is_sound = foot == counted and fields["status"] == foot.status
                    if not is_sound or fields.get("sha256") != self._digest.hexdigest() or self._file.read(1):
                        raise BackupDamaged("the manifest isn't as it was written")
                    return
                self._digest.update(line)
                entry = _entry(fields)
                files += entry.kind == "file"
                size_bytes += entry.size_bytes
                failed_items += entry.kind == "failed" or (entry.kind == "file" and entry.text != "")
                yield entry


@contextmanager
def opened(path: bytes) -> Iterator[ManifestReader]:
    """The manifest at ``path``, open while it is read."""
    with open(path, "rb") as file:
        yield ManifestReader(file)


def ends(path: bytes) -> tuple[Head, Foot]:
    """The first and the last line of the manifest at ``path``; raises as ``opened`` and reading do."""
    with open(path, "rb") as file, _strangeness_as_damage():
        return ManifestReader(file).head, _foot(_fields(_last_line(file)))


def is_as_written(path: bytes, progress: Progress) -> bool:
    """Whether the manifest at ``path`` is what its own digest is of. ``OSError``, ``BackupDamaged`` as in ``ends``."""
    digest = hashlib.sha256()
    with open(path, "rb") as file, _strangeness_as_damage():
        last_line = _last_line(file)
        left = file.tell() - len(last_line)
        file.seek(0)
        while left > 0:
            data = file.read(min(left, COPY_BYTES))
            if not data:
                return False
            digest.update(data)
            left -= len(data)
            progress.step()
        return bool(_fields(last_line)["sha256"] == digest.hexdigest())


@contextmanager
def _strangeness_as_damage() -> Iterator[None]:
    """What reading a line stumbles over that no writer writes, as ``BackupDamaged``."""
    try:
        yield
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise BackupDamaged(f"the manifest can't be read: {type(error).__name__}: {error}") from None


def _last_line(file: BinaryIO) -> bytes:
    size_bytes = file.seek(0, os.SEEK_END)
    file.seek(max(0, size_bytes - MANIFEST_TAIL_BYTES))
    tail = file.read(MANIFEST_TAIL_BYTES)
    return tail[tail.rfind(b"\n", 0, -1) + 1 :]


def _line_of(fields: dict[str, Any]) -> bytes:
    return _encode(fields).encode("utf-8", "replace") + b"\n"


def _fields(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise BackupDamaged("the manifest has no end")
    fields = _decode(line.decode())
    if not isinstance(fields, dict):
        raise BackupDamaged("the manifest has a line that is no object")
    return fields


def _foot(fields: dict[str, Any]) -> Foot:
    failures = [{"path": str(one["path"]), "error": str(one["error"])} for one in fields["failures"]]
    return Foot(int(fields["files"]), int(fields["sizeBytes"]), int(fields["failedItems"]), failures)


def _checked(path: bytes, kind: str) -> bytes:
    """``path``, which leads nowhere but below the top: a manifest is a file that anything may have written."""
    is_top = not path and kind == "dir"
    if not is_top and (b"\0" in path or any(name in {b"", b".", b".."} for name in path.split(b"/"))):
        raise BackupDamaged("the manifest has a path that leads out of the tree")
    return path


def _entry(fields: dict[str, Any]) -> Entry:
    kind, name = next(iter(fields.items()), ("", ""))
    path = _checked(os.fsencode(file_name(name)), kind)
    owner = fields.get("owner")
    owner = (int(owner[0]), int(owner[1])) if owner else None
    if kind == "file":
        return Entry(
            kind,
            path,
            int(fields["mode"], 8),
            int(fields["mtimeNs"]),
            int(fields["sizeBytes"]),
            str(fields["sha256"]),
            str(fields.get("problem", "")),
            owner=owner,
            is_database=bool(fields.get("database")),
            source=fields.get("from"),
        )
    if kind == "dir":
        return Entry(kind, path, int(fields["mode"], 8), int(fields["mtimeNs"]), owner=owner)
    if kind == "link":
        return Entry(kind, path, text=str(fields["target"]), owner=owner)
    if kind == "leftOut":
        return Entry(kind, path, text=str(fields["reason"]))
    if kind == "failed":
        return Entry(kind, path, text=str(fields["error"]))
    raise BackupDamaged(f"the manifest has a line of a kind that is not known: {kind}")
