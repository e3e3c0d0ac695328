"""What SFTP says of errors, as the errors of the system that it stands for; README.md tells which look alike."""

from __future__ import annotations

import errno
import os

import asyncssh

from sidecar.errors import ConnectionBroken, HostTimedOut

_NUMBERS: dict[type[asyncssh.SFTPError], int] = {
    asyncssh.SFTPNoSuchFile: errno.ENOENT,
    asyncssh.SFTPNoSuchPath: errno.ENOENT,
    asyncssh.SFTPPermissionDenied: errno.EACCES,
    # What OpenSSH says of a name that is too long, and hardly of anything else that is asked here.
    asyncssh.SFTPBadMessage: errno.ENAMETOOLONG,
    asyncssh.SFTPOpUnsupported: errno.ENOSYS,
    # Of later versions, which some servers send all the same.
    asyncssh.SFTPFileAlreadyExists: errno.EEXIST,
    asyncssh.SFTPWriteProtect: errno.EROFS,
    asyncssh.SFTPNoSpaceOnFilesystem: errno.ENOSPC,
    asyncssh.SFTPQuotaExceeded: errno.ENOSPC,
    asyncssh.SFTPNotADirectory: errno.ENOTDIR,
    asyncssh.SFTPFileIsADirectory: errno.EISDIR,
    asyncssh.SFTPLinkLoop: errno.ELOOP,
}
_OF_THE_LINK = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)


class LinkLost(Exception):
    """The session on the host has gone, so that nothing more can be asked; no error of an item."""

    def __init__(self, error: ConnectionBroken | HostTimedOut) -> None:
        super().__init__(error.message)
        self.error = error


def os_error(number: int, file_name: str | None = None) -> OSError:
    """The error that the system gives, in this system's words."""
    words = os.strerror(number)
    return OSError(number, words) if file_name is None else OSError(number, words, file_name)


def as_os_error(error: asyncssh.Error | OSError, file_name: str | None) -> OSError | LinkLost:
    """What ``error``, which a request for ``file_name`` raised, is here; an ``OSError`` there is of the connection."""
    if isinstance(error, asyncssh.SFTPError) and not isinstance(error, _OF_THE_LINK):
        return os_error(_NUMBERS.get(type(error), errno.EIO), file_name)
    if "eepalive" in str(error):
        return LinkLost(HostTimedOut(f"timed out: {error}"))
    return LinkLost(ConnectionBroken(f"connection closed: the host has gone: {error}"))
