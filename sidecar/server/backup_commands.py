"""The commands about backups, each with a ``remote_`` twin that does the same on a host.

What does the work is imported when a command first needs it, as in ``session_commands``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.cancel import CancelToken
from sidecar.server.command import Command, Context, Job, twin
from sidecar.streams.base import Stream

if TYPE_CHECKING:
    from sidecar.server.schema import BackupNameParams, BackupParams, RestoreParams
    from sidecar.streams.backup import BackupInfo


def backup(context: Context, params: BackupParams) -> Job:
    from sidecar.backup.progress import Progress
    from sidecar.streams.backup import info_of

    backups = context.backups(params)
    at_host = hasattr(params, "host_id")

    def work(token: CancelToken) -> BackupInfo:
        info = info_of(backups.backup(params.include_sessions is not False, Progress(token)))
        if at_host:
            # As the app has always had it: a path on a host is none that it could open.
            info.path = ""
        return info

    return work


def backup_streamed(context: Context, params: BackupParams) -> Stream:
    from sidecar.streams.backup import backup_stream

    return backup_stream(context.backups(params), params.include_sessions is not False)


def list_backups(context: Context, params: Any) -> Job:
    from sidecar.streams.backup import info_of

    backups = context.backups(params)
    return lambda token: [info_of(snapshot) for snapshot in backups.list(token)]


def restore(context: Context, params: RestoreParams) -> Job:
    from sidecar.backup.progress import Progress
    from sidecar.streams.backup import restored_message

    backups = context.backups(params)

    def work(token: CancelToken) -> str:
        backups.restore(params.backup_name, params.force is True, Progress(token))
        return restored_message(params.backup_name)

    return work


def restore_streamed(context: Context, params: RestoreParams) -> Stream:
    from sidecar.streams.backup import restore_stream

    return restore_stream(context.backups(params), params.backup_name, params.force is True)


def verify_streamed(context: Context, params: BackupNameParams) -> Stream:
    from sidecar.streams.backup import verify_stream

    return verify_stream(context.backups(params), params.backup_name)


def delete(context: Context, params: BackupNameParams) -> Job:
    backups = context.backups(params)
    return lambda token: backups.delete(params.backup_name, token)


_HERE: tuple[Command, ...] = (
    Command("backup_before_upgrade", "BackupParams", "job", backup, "Makes a backup, in one answer.", takes_long=True),
    Command(
        "backup_before_upgrade_stream", "BackupParams", "stream", backup_streamed, "Makes a backup, with progress."
    ),
    Command("list_backups", None, "job", list_backups, "The backups that there are."),
    Command(
        "restore_from_backup", "RestoreParams", "job", restore, "Restores a backup, in one answer.", takes_long=True
    ),
    Command("restore_from_backup_stream", "RestoreParams", "stream", restore_streamed, "Restores, with progress."),
    Command("verify_backup_stream", "BackupNameParams", "stream", verify_streamed, "Checks a backup, with progress."),
    Command("delete_backup", "BackupNameParams", "job", delete, "Deletes a backup."),
)

BACKUP_COMMANDS = (*_HERE, *map(twin, _HERE))
