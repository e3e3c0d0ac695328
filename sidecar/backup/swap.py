"""Do the operations of a journal, or undo them: each looks at what is there, so that it can be done again.

Nothing is written here: what comes is staged, so each step is a rename, or makes or removes a folder.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from sidecar.backup import journal
from sidecar.backup.journal import Operation, Workspace, is_folder, rename


def forward(workspace: Workspace, operation: Operation) -> None:
    """Do what ``operation`` says, or what is left of it. ``OSError`` if it can't be done."""
    kind, number, path = operation.kind, operation.number, workspace.full(operation.path)
    if kind == "put":
        if os.path.lexists(workspace.new(number)):
            _move_aside(workspace, path, number)
            rename(workspace.new(number), path)
    elif kind == "aside":
        _move_aside(workspace, path, number)
    elif kind == "mkdir":
        if not is_folder(path):
            _move_aside(workspace, path, number)
            _make_folder(path)
    elif kind == "rmdir":
        if not _remove_folder(path):
            _set_mode(path, operation.mode)
    elif kind == "enter":
        _make_writable(path, operation.mode)
    elif kind == "leave":
        _set_status(path, operation)


def back(workspace: Workspace, operation: Operation) -> None:
    """Undo what ``operation`` says, as far as it was done. ``OSError`` if that can't be done."""
    kind, number, path = operation.kind, operation.number, workspace.full(operation.path)
    if kind == "put":
        if not os.path.lexists(workspace.new(number)) and os.path.lexists(path):
            rename(path, workspace.new(number))
        _move_back(workspace, path, number)
    elif kind == "aside":
        _move_back(workspace, path, number)
    elif kind == "mkdir":
        if is_folder(path):
            _remove_folder(path)
        _move_back(workspace, path, number)
    elif kind == "rmdir":
        if not is_folder(path):
            _make_folder(path)
    elif kind == "enter":
        _set_status(path, operation)
    elif kind == "leave":
        _make_writable(path, operation.mode)


def _move_aside(workspace: Workspace, path: bytes, number: int) -> None:
    if not os.path.lexists(workspace.old(number)):
        with suppress(FileNotFoundError):
            rename(path, workspace.old(number))


def _move_back(workspace: Workspace, path: bytes, number: int) -> None:
    if os.path.lexists(workspace.old(number)):
        rename(workspace.old(number), path)


def _make_folder(path: bytes) -> None:
    journal.step("mkdir")
    os.mkdir(path, 0o700)


def _remove_folder(path: bytes) -> bool:
    """Remove a folder if it is empty; False if it isn't."""
    journal.step("rmdir")
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _make_writable(path: bytes, mode: int) -> None:
    """Let a folder of this mode be changed for a while."""
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        _set_mode(path, mode | stat.S_IRWXU)


def _set_mode(path: bytes, mode: int) -> None:
    # Of a folder that is another's, but may be written to, mode and times stay as they are.
    with suppress(FileNotFoundError, PermissionError):
        journal.step("chmod")
        os.chmod(path, mode)


def _set_status(path: bytes, operation: Operation) -> None:
    if operation.owner is not None:
        with suppress(FileNotFoundError, PermissionError):
            journal.step("chown")
            os.chown(path, *operation.owner)
    _set_mode(path, operation.mode)
    if operation.mtime_ns:
        with suppress(FileNotFoundError, PermissionError):
            journal.step("utime")
            os.utime(path, ns=(operation.mtime_ns, operation.mtime_ns))
