"""What can go wrong, as the wire tells it: a stable ``kind``, a JSON-RPC code, whether to try again, a sentence.

Two families live here. *Wire* errors are the codes of the JSON-RPC 2.0 specification. *Command* errors are ours.
A third family, *item* errors, is counted inside a stream and never raised across it.
"""

from __future__ import annotations

import logging
import os
from typing import Any, ClassVar, TypeVar

_Error = TypeVar("_Error", bound=BaseException)

log = logging.getLogger(__name__)


class SidecarError(Exception):
    """An error with a place on the wire; ``details`` go into ``error.data`` beside ``kind`` and ``retryable``."""

    kind: ClassVar[str]
    code: ClassVar[int]
    retryable: ClassVar[bool] = False
    meaning: ClassVar[str]

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class ParseError(SidecarError):
    kind, code, meaning = "parse_error", -32700, "The line is not JSON, or is longer than the line limit."


class InvalidRequest(SidecarError):
    kind, code, meaning = "invalid_request", -32600, "The JSON is not a JSON-RPC 2.0 request."


class MethodNotFound(SidecarError):
    kind, code, meaning = "method_not_found", -32601, "There is no such method."


class InvalidParams(SidecarError):
    kind, code, meaning = "invalid_params", -32602, "A parameter is missing or has the wrong type."


class InternalError(SidecarError):
    kind, code, meaning = "internal", -32603, "A fault of the sidecar; the traceback is in its log."

    def __init__(self) -> None:
        super().__init__("internal error; see the sidecar's log")


class HomeUnknown(SidecarError):
    kind, code = "home_unknown", -32010
    meaning = "No OpenClaw or ClawPal directory is configured and no home directory is known."


class SourceUnreadable(SidecarError):
    kind, code, retryable = "source_unreadable", -32011, True
    meaning = "A file or folder that the command needs can't be read."


class SessionNotFound(SidecarError):
    kind, code, meaning = "session_not_found", -32013, "The agent has no session of that id."

    def __init__(self, agent_id: str, session_id: str) -> None:
        # The frontend looks for "no such file".
        super().__init__(f'no such file: agent "{agent_id}" has no session "{session_id}"')


class SessionsRefused(SidecarError):
    """Some sessions were not deleted, after the others were.

    ``details`` are ``deleted``, the number of sessions (or of files, when all are cleared), and ``refused``, a list of
    ``{sessionId, agent, reason}``.
    """

    kind, code = "sessions_refused", -32014
    meaning = "Some sessions were not deleted, each for the reason given; what else was asked is done."


class BrokenDatabase(SidecarError):
    kind, code, meaning = "broken_database", -32015, "A database is damaged, or of a form that is not known."


class BrokenCompression(SidecarError):
    kind, code, meaning = "broken_compression", -32016, "Compressed data is damaged or cut off."


class HostUnknown(SidecarError):
    kind, code, meaning = "host_not_found", -32030, "There is no host of that id."

    def __init__(self, host_id: str) -> None:
        super().__init__(f'no such host: "{host_id}"')


class HostKeyUnknown(SidecarError):
    """``details`` are ``{host, port, algorithm, fingerprint}``: what ``trust_ssh_host_key`` takes, and what to show."""

    kind, code, meaning = "host_key_unknown", -32031, "The host's key is not trusted yet; ask, then trust_ssh_host_key."


class HostKeyChanged(SidecarError):
    """``details`` as of ``HostKeyUnknown``."""

    kind, code, meaning = "host_key_changed", -32032, "The host's key is another than the trusted one, or is revoked."


class PassphraseNeeded(SidecarError):
    kind, code = "passphrase_needed", -32033
    meaning = "A key is encrypted, and there is no passphrase for it, or a wrong one: ssh_connect_with_passphrase."


class LoginRefused(SidecarError):
    kind, code, meaning = "login_refused", -32034, "The host refused every key or password that there is for it."


class HostUnreachable(SidecarError):
    kind, code, retryable = "host_unreachable", -32035, True
    meaning = "No connection to the host could be made."


class ConnectionBroken(SidecarError):
    kind, code, retryable = "connection_lost", -32036, True
    meaning = "The connection to the host broke while the command ran; what came before is not the whole."


class ChannelRefused(SidecarError):
    kind, code, retryable = "channel_refused", -32037, True
    meaning = "The host takes no more commands on this connection for now."


class HostTimedOut(SidecarError):
    kind, code, retryable = "timed_out", -32038, True
    meaning = "The host didn't answer in time."


class RemoteFailed(SidecarError):
    kind, code, meaning = "remote_failed", -32039, "What ran on the host failed; the message has its words."


class BackupNotFound(SidecarError):
    kind, code, meaning = "backup_not_found", -32050, "There is no snapshot of that name."


class BackupDamaged(SidecarError):
    """``details`` are ``failedItems``, the number of differences, and ``failures``, the first as ``{path, error}``."""

    kind, code = "backup_damaged", -32051
    meaning = "A snapshot doesn't hold what its manifest says; nothing was changed."


class BackupUnverified(SidecarError):
    kind, code, meaning = "backup_unverified", -32052, "A snapshot has no manifest, so that nothing tells what it held."


class NoSpace(SidecarError):
    kind, code, meaning = "no_space", -32053, "The disk is too full for it; nothing was changed."


class TargetInUse(SidecarError):
    """``details`` are ``users``, the first of what stands in the way, each a sentence."""

    kind, code, retryable = "target_in_use", -32054, True
    meaning = "OpenClaw, or another program, is using what would be replaced; stop it, then try again."


class TargetNotWritable(SidecarError):
    """``details`` are ``failedItems`` and ``failures`` as of ``BackupDamaged``."""

    kind, code = "target_not_writable", -32055
    meaning = "Something that would be replaced can't be; nothing was changed."


class ReplyTooLarge(SidecarError):
    kind, code, meaning = "reply_too_large", -32020, "The answer is over the reply limit; use the stream it names."


class TooBusy(SidecarError):
    kind, code, retryable = "too_busy", -32021, True
    meaning = "Too many streams or jobs are open; try again when one has ended."


class Cancelled(SidecarError):
    kind, code, meaning = "cancelled", -32022, "The command was cancelled before it was done."

    def __init__(self) -> None:
        super().__init__("cancelled")


WIRE_ERRORS = (ParseError, InvalidRequest, MethodNotFound, InvalidParams, InternalError)
BACKUP_ERRORS = (BackupNotFound, BackupDamaged, BackupUnverified, NoSpace, TargetInUse, TargetNotWritable)
COMMAND_ERRORS = (
    HomeUnknown,
    SourceUnreadable,
    SessionNotFound,
    SessionsRefused,
    BrokenDatabase,
    BrokenCompression,
    HostUnknown,
    HostKeyUnknown,
    HostKeyChanged,
    PassphraseNeeded,
    LoginRefused,
    HostUnreachable,
    ConnectionBroken,
    ChannelRefused,
    HostTimedOut,
    RemoteFailed,
    *BACKUP_ERRORS,
    ReplyTooLarge,
    TooBusy,
    Cancelled,
)


def as_sidecar_error(error: BaseException) -> SidecarError:
    """Map any exception to one that may go on the wire; the one place that does.

    An unknown one becomes ``InternalError`` with a fixed text, since a message may hold anything, and is logged here.
    """
    if isinstance(error, SidecarError):
        return without_frames(error)
    if isinstance(error, OSError):
        return SourceUnreadable(describe_os_error(error))
    log.error("unexpected %s", type(error).__name__, exc_info=error)
    return InternalError()


def without_frames(error: _Error) -> _Error:
    """The error without the tracebacks of itself and of what led to it, for where it is kept.

    Their frames hold what was at hand: requests of 16 MiB, open files, and often what the error is kept in. That is a
    circle, which would stay until the garbage collector looks for such.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def describe_os_error(error: OSError) -> str:
    """The system's own words, lower-case as the frontend looks for them ("no such file", "permission denied")."""
    text = (error.strerror or type(error).__name__).lower()
    if error.filename is None:
        return text
    return f"{text}: {os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename}"
