"""Why there is no connection to a host, in the words that the frontend looks for (CONTRACT section 4)."""

from __future__ import annotations

import os
import re
import socket

import asyncssh

from sidecar.errors import (
    HostTimedOut,
    HostUnreachable,
    LoginRefused,
    PassphraseNeeded,
    RemoteFailed,
    SidecarError,
    describe_os_error,
)
from sidecar.limits import CONNECT_S, LOGIN_S
from sidecar.remote.trust import FAILED

_ERROR_NUMBER = re.compile(r"\[Errno (\d+)\]")
_TOO_MANY_KEYS = "Too many authentication failures"


def timed_out(name: str, *, has_answered: bool) -> HostTimedOut:
    """The error for a host that said nothing at all in time, or for one that didn't let us in."""
    if has_answered:
        return HostTimedOut(f"timed out: {name} didn't finish the login within {LOGIN_S:.0f} s")
    return HostTimedOut(f"timed out: {name} didn't answer within {CONNECT_S:.0f} s")


def described(error: Exception, name: str, locked_path: str | None, *, agent_refused: bool) -> SidecarError:
    """The error for a connection to the host ``name``; ``locked_path`` is of a key that could not be opened for it."""
    if isinstance(error, asyncssh.PermissionDenied) or _TOO_MANY_KEYS in str(error):
        if locked_path is not None:
            return PassphraseNeeded(f"the key needs a passphrase, or another one: {locked_path}", path=locked_path)
        if agent_refused:
            return LoginRefused(f"permission denied: sign_and_send_pubkey: agent refused operation, for {name}")
        return LoginRefused(f"permission denied: {name} accepts none of the keys or passwords that there are for it")
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return HostUnreachable(f"{FAILED}: {error}")
    if isinstance(error, TimeoutError):
        return timed_out(name, has_answered=False)
    if isinstance(error, asyncssh.ConnectionLost):
        return HostUnreachable(f"connection closed by {name}: {error}")
    if isinstance(error, socket.gaierror):
        return HostUnreachable(f"the name {name} can't be resolved: {error.strerror}")
    if isinstance(error, OSError):
        return HostUnreachable(f"{_words_of(error)}: {name}")
    if isinstance(error, asyncssh.ChannelOpenError):
        return HostUnreachable(f"failed to open channel to {name}: {error}")
    if isinstance(error, asyncssh.Error):
        return HostUnreachable(f"no connection to {name}: {error}")
    return RemoteFailed(f"no connection to {name}: {error}")


def _words_of(error: OSError) -> str:
    """The system's words: asyncio has its own for a failed connection, and of several attempts tells all at once."""
    if error.filename is not None:
        return describe_os_error(error)
    numbers = map(int, _ERROR_NUMBER.findall(str(error)))
    return ", ".join(dict.fromkeys(os.strerror(number).lower() for number in numbers)) or describe_os_error(error)
