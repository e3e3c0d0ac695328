"""What each command answers with, which errors it ends in and what its stream sends: the table that is published.

Loaded when somebody asks for it (``rpc.discover``, the tests, ``describe``), never at the start.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from sidecar import errors
from sidecar.core.analysis import AgentSessionAnalysis
from sidecar.core.batching import SessionsChunk
from sidecar.core.failures import Failure
from sidecar.core.preview import PreviewMessage, PreviewPage
from sidecar.errors import SidecarError
from sidecar.remote.hosts import SshHost
from sidecar.remote.ssh_config import SshConfigHostSuggestion
from sidecar.server.command import Command
from sidecar.server.commands import SidecarInfo
from sidecar.stores.base import SessionFile
from sidecar.streams.analyze import SessionsDone
from sidecar.streams.backup import BackupInfo, InfoDone, RestoreDone, WorkError, WorkProgress
from sidecar.streams.base import ErrorNotice, Notice
from sidecar.streams.files import SessionFilesChunk, SessionFilesDone
from sidecar.streams.preview import PreviewDone

Handle = Annotated[str, msgspec.Meta(extra_json_schema={"format": "uuid"})]
Done = Annotated[bool, msgspec.Meta(extra_json_schema={"const": True})]


class SshTransferStats(msgspec.Struct, rename="camel"):
    """What went to a host and came from it; rates over the last seconds, totals since the process started."""

    host_id: str
    upload_bytes_per_sec: int
    download_bytes_per_sec: int
    total_upload_bytes: int
    total_download_bytes: int
    updated_at_ms: int


class RefusedSession(msgspec.Struct, rename="camel"):
    """A session that was not deleted, and why."""

    session_id: str
    agent: str
    reason: str


class ErrorData(msgspec.Struct, rename="camel"):
    """The ``data`` of an error: choose by ``kind``; what some kinds have beside it is absent in the others."""

    kind: str
    retryable: bool
    stream_instead: str | UnsetType | None = UNSET
    deleted: int | UnsetType = UNSET
    refused: list[RefusedSession] | UnsetType = UNSET
    host: str | UnsetType = UNSET
    port: int | UnsetType = UNSET
    algorithm: str | UnsetType = UNSET
    fingerprint: str | UnsetType = UNSET
    path: str | UnsetType = UNSET
    failed_items: int | UnsetType = UNSET
    failures: list[Failure] | UnsetType = UNSET
    users: list[str] | UnsetType = UNSET


class ErrorObject(msgspec.Struct):
    """The ``error`` of a reply; ``message`` is a sentence for people."""

    code: int
    message: str
    data: ErrorData


class Answer(NamedTuple):
    """A result, the errors of this command's own, and of a stream the notifications in the order of their coming."""

    result: Any
    errors: tuple[type[SidecarError], ...] = ()
    notifications: tuple[str, ...] = ()


class Notification(NamedTuple):
    """The payload of a notification, without ``handleId`` and ``seq``; after a terminal nothing follows."""

    payload: type[msgspec.Struct]
    summary: str
    terminal: bool = False


_HOME = (errors.HomeUnknown,)
_READ = (*_HOME, errors.SourceUnreadable)
_READ_ALL = (*_READ, errors.ReplyTooLarge)
_DELETE = (*_HOME, errors.SessionsRefused)
_PREVIEW = (*_READ_ALL, errors.SessionNotFound, errors.BrokenDatabase, errors.BrokenCompression)
_BACKUP = (*_READ, errors.NoSpace)
_RESTORE = (
    *_BACKUP,
    errors.BackupNotFound,
    errors.BackupDamaged,
    errors.TargetInUse,
    errors.TargetNotWritable,
)
_CONNECT = (
    *_READ,
    errors.HostUnknown,
    errors.HostKeyUnknown,
    errors.HostKeyChanged,
    errors.PassphraseNeeded,
    errors.LoginRefused,
    errors.HostUnreachable,
    errors.ConnectionBroken,
    errors.ChannelRefused,
    errors.HostTimedOut,
    errors.RemoteFailed,
)

ANSWERS: dict[str, Answer] = {
    "ping": Answer(Literal["pong"]),
    "rpc.discover": Answer(dict[str, Any]),
    "get_sidecar_info": Answer(SidecarInfo),
    "shutdown": Answer(Done),
    "cancel_stream": Answer(bool),
    "set_active_openclaw_home": Answer(Done, _HOME),
    "set_active_clawpal_data_dir": Answer(Done, _HOME),
    "analyze_sessions": Answer(list[AgentSessionAnalysis], _READ_ALL),
    "analyze_sessions_stream": Answer(
        Handle, _HOME, ("sessions:chunk", "sessions:cancelled", "sessions:error", "sessions:done")
    ),
    "list_session_files": Answer(list[SessionFile], _READ_ALL),
    "list_session_files_stream": Answer(
        Handle, _HOME, ("session-files:chunk", "sessions:cancelled", "sessions:error", "session-files:done")
    ),
    "preview_session": Answer(list[PreviewMessage], _PREVIEW),
    "preview_session_stream": Answer(
        Handle, _HOME, ("session-preview:page", "sessions:cancelled", "sessions:error", "session-preview:done")
    ),
    "delete_sessions_by_ids": Answer(int, _DELETE),
    "clear_all_sessions": Answer(int, _DELETE),
    "backup_before_upgrade": Answer(BackupInfo, _BACKUP),
    "backup_before_upgrade_stream": Answer(
        Handle, _HOME, ("backup:progress", "backup:cancelled", "backup:error", "backup:done")
    ),
    "list_backups": Answer(list[BackupInfo], _READ),
    "restore_from_backup": Answer(str, _RESTORE),
    "restore_from_backup_stream": Answer(
        Handle, _HOME, ("restore:progress", "restore:cancelled", "restore:error", "restore:done")
    ),
    "verify_backup_stream": Answer(
        Handle, _HOME, ("verify:progress", "verify:cancelled", "verify:error", "verify:done")
    ),
    "delete_backup": Answer(bool, _READ),
    "list_ssh_hosts": Answer(list[SshHost], _READ),
    "upsert_ssh_host": Answer(SshHost, _READ),
    "delete_ssh_host": Answer(bool, _READ),
    "list_ssh_config_hosts": Answer(list[SshConfigHostSuggestion], _READ),
    "ssh_connect": Answer(Done, _CONNECT),
    "ssh_connect_with_passphrase": Answer(Done, _CONNECT),
    "ssh_disconnect": Answer(Done),
    "ssh_status": Answer(Literal["connected", "disconnected"]),
    "get_ssh_transfer_stats": Answer(SshTransferStats),
    "trust_ssh_host_key": Answer(Done, _CONNECT),
}
"""By command, without the twins on hosts; the errors are those that ``answer_of`` can't tell from the command's row."""

NOTIFICATIONS: dict[str, Notification] = {
    "sessions:chunk": Notification(SessionsChunk, "Some sessions of one agent, and its counters so far."),
    "session-files:chunk": Notification(SessionFilesChunk, "Some files, and the totals so far."),
    "session-preview:page": Notification(PreviewPage, "Some messages of a session, and how many there were so far."),
    "sessions:cancelled": Notification(Notice, "The stream was cancelled; its terminal follows."),
    "sessions:error": Notification(ErrorNotice, "The stream failed; its terminal follows."),
    "sessions:done": Notification(SessionsDone, "The end of an analysis, whatever it was.", terminal=True),
    "session-files:done": Notification(SessionFilesDone, "The end of a list, whatever it was.", terminal=True),
    "session-preview:done": Notification(PreviewDone, "The end of a preview, whatever it was.", terminal=True),
    "backup:progress": Notification(WorkProgress, "How far a backup is."),
    "backup:cancelled": Notification(Notice, "The backup was cancelled; backup:error follows."),
    "backup:error": Notification(WorkError, "There is no backup, and why.", terminal=True),
    "backup:done": Notification(InfoDone, "The backup is made.", terminal=True),
    "restore:progress": Notification(WorkProgress, "How far a restore is."),
    "restore:cancelled": Notification(Notice, "The restore was cancelled; restore:error follows."),
    "restore:error": Notification(WorkError, "Nothing was restored, and why.", terminal=True),
    "restore:done": Notification(RestoreDone, "The backup is restored.", terminal=True),
    "verify:progress": Notification(WorkProgress, "How far a check is."),
    "verify:cancelled": Notification(Notice, "The check was cancelled; verify:error follows."),
    "verify:error": Notification(WorkError, "What is wrong with the backup, or why it wasn't checked.", terminal=True),
    "verify:done": Notification(InfoDone, "The backup is exactly as it was made.", terminal=True),
}


def answer_of(command: Command) -> Answer:
    """A command's answer with all errors that its reply can have. ``KeyError`` for one that isn't in the table."""
    answer = ANSWERS[command.name.removeprefix("remote_")]
    found = (
        *((errors.InvalidParams,) if command.params else ()),
        *answer.errors,
        # A stream connects after its reply.
        *(_CONNECT if command.at_host and command.kind == "job" else ()),
        *((errors.TooBusy,) if command.kind != "value" else ()),
        *((errors.Cancelled,) if command.kind == "job" else ()),
    )
    return answer._replace(errors=tuple(dict.fromkeys(found)))
