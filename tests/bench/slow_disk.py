"""A tree as if on a slow disk, with nothing of it in memory: a read-only file system that waits, over Linux' FUSE.

It serves one request after the other, as a disk without a queue does. Needs root, for the mount.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SEEK_S = 0.01
BYTES_A_SECOND = 50e6
"""As a hard disk of 5,400 revolutions that is not new; a card in a small computer reads slower, and seeks faster."""

INODES_A_BLOCK = 16
"""Of ext4. What is told of a file is in memory once it was told of one beside it."""

# The kernel's numbers and structures, of linux/fuse.h.
_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _STATFS, _RELEASE, _INIT = 1, 2, 3, 14, 15, 17, 18, 26
_OPENDIR, _READDIR, _RELEASEDIR, _INTERRUPT, _BATCH_FORGET = 27, 28, 29, 36, 42
_UNANSWERED = {_FORGET, _BATCH_FORGET, _INTERRUPT}
_IN = struct.Struct("<IIQQ16x")
_OUT = struct.Struct("<IiQ")
_INIT_OUT = struct.Struct("<4I2H2I2HI28x")
_ATTR = struct.Struct("<6Q10I")
_READ_IN = struct.Struct("<QQI20x")
_ENTRY = struct.Struct("<QQQQII")
_VERSION = (7, 31)
_REQUEST_BYTES = 256 * 1024
_READ_AHEAD_BYTES = 128 * 1024
_VALID_S = 3600
_ROOT_ID = 1
_MS_RDONLY, _MNT_DETACH = 1, 2


@contextmanager
def on_slow_disk(tree: Path) -> Iterator[Path]:
    """The tree at another path, where looking up and reading take their time. Nothing of it is cached before."""
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    with tempfile.TemporaryDirectory() as folder:
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        if libc.mount(b"slow-disk", os.fsencode(folder), b"fuse", _MS_RDONLY, options):
            raise OSError(ctypes.get_errno(), "mount", folder)
        server = threading.Thread(target=_Disk(tree, device).serve)
        server.start()
        try:
            yield Path(folder)
        finally:
            libc.umount2(os.fsencode(folder), _MNT_DETACH)
            server.join()


class _Disk:
    """Answers what the kernel asks about one tree."""

    def __init__(self, tree: Path, device: int) -> None:
        self._device = device
        self._paths = {_ROOT_ID: str(tree)}
        self._ids = {str(tree): _ROOT_ID}
        self._listed: list[tuple[bytes, bool]] = []
        """What the folder holds of which the listing began last."""
        self._lookups: Counter[int] = Counter()
        self._at: tuple[int, int] | None = None
        """The file under the head, and the place in it."""

    def serve(self) -> None:
        """Until it is unmounted; the end of the device ends what still waits for an answer."""
        try:
            while self._serve_one():
                pass
        finally:
            os.close(self._device)

    def _serve_one(self) -> bool:
        try:
            request = os.read(self._device, _REQUEST_BYTES)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINTR, errno.ENODEV):
                raise
            return error.errno != errno.ENODEV  # else a request was taken back
        _, operation, unique, node = _IN.unpack_from(request)
        if operation not in _UNANSWERED:
            try:
                answer, error_number = self._answer(operation, node, request[_IN.size :]), 0
            except OSError as error:
                answer, error_number = b"", -(error.errno or errno.EIO)
            with contextlib.suppress(FileNotFoundError):  # who asked is gone
                os.write(self._device, _OUT.pack(_OUT.size + len(answer), error_number, unique) + answer)
        return True

    def _answer(self, operation: int, node: int, body: bytes) -> bytes:
        if operation == _INIT:
            return _INIT_OUT.pack(*_VERSION, _READ_AHEAD_BYTES, 0, 1, 1, _READ_AHEAD_BYTES, 1, 0, 0, 0)
        if operation == _LOOKUP:
            return self._look_up(node, body.rstrip(b"\0"))
        if operation == _GETATTR:
            return struct.pack("<QII", _VALID_S, 0, 0) + _attributes(node, os.lstat(self._paths[node]))
        if operation == _READ:
            return self._read(node, *_READ_IN.unpack_from(body)[1:])
        if operation == _READDIR:
            return self._list(node, *_READ_IN.unpack_from(body)[1:])
        if operation in (_OPEN, _OPENDIR):
            return bytes(16)
        if operation in (_RELEASE, _RELEASEDIR):
            return b""
        if operation == _STATFS:
            return bytes(80)
        raise OSError(errno.ENOSYS, "not here")

    def _look_up(self, folder: int, name: bytes) -> bytes:
        if self._lookups[folder] % INODES_A_BLOCK == 0:
            self._seek()
        self._lookups[folder] += 1
        path = os.path.join(self._paths[folder], os.fsdecode(name))
        found = os.lstat(path)
        node = self._ids.setdefault(path, len(self._ids) + _ROOT_ID)
        self._paths[node] = path
        return _ENTRY.pack(node, 0, _VALID_S, _VALID_S, 0, 0) + _attributes(node, found)

    def _read(self, node: int, offset: int, size: int) -> bytes:
        if self._at != (node, offset):
            self._seek()
        with open(self._paths[node], "rb") as file:
            data = os.pread(file.fileno(), size, offset)
        time.sleep(len(data) / BYTES_A_SECOND)
        self._at = node, offset + len(data)
        return data

    def _list(self, node: int, offset: int, size: int) -> bytes:
        if offset == 0:
            self._seek()
            with os.scandir(self._paths[node]) as entries:
                self._listed = [(os.fsencode(entry.name), entry.is_dir()) for entry in entries]
        answer = bytearray()
        for number, (name, is_folder) in enumerate(self._listed[offset:], offset + 1):
            kind = (stat.S_IFDIR if is_folder else stat.S_IFREG) >> 12
            record = struct.pack("<QQII", number + 1, number, len(name), kind) + name
            record += bytes(-len(record) % 8)
            if len(answer) + len(record) > size:
                break
            answer += record
        return bytes(answer)

    def _seek(self) -> None:
        time.sleep(SEEK_S)
        self._at = None


def _attributes(node: int, found: os.stat_result) -> bytes:
    times = (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)
    return _ATTR.pack(
        node,
        found.st_size,
        found.st_blocks,
        *(ns // 10**9 for ns in times),
        *(ns % 10**9 for ns in times),
        found.st_mode,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        0,
        4096,
        0,
    )
