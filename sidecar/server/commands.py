"""Every command: its name, its parameters, what it does. One row each, but for the twins on hosts."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import msgspec

from sidecar import PROTOCOL_VERSION, __version__
from sidecar.cancel import CancelToken
from sidecar.server.backup_commands import BACKUP_COMMANDS
from sidecar.server.command import Command, Context, Job
from sidecar.server.host_commands import HOST_COMMANDS
from sidecar.server.process import memory_bytes
from sidecar.server.session_commands import SESSION_COMMANDS
from sidecar.stores.locations import expand
from sidecar.text import file_name

if TYPE_CHECKING:
    from sidecar.server.schema import HandleParams, PathParams


def ping(context: Context, params: None) -> str:
    return "pong"


class MemoryUse(msgspec.Struct, rename="camel"):
    """The memory of the process in bytes, now and at its peak; null where the system can't tell."""

    resident_bytes: int | None
    peak_bytes: int | None


class SidecarInfo(msgspec.Struct, rename="camel"):
    """The process as it is now; ``uptime_ms`` counts from its start, in milliseconds."""

    name: str
    version: str
    protocol_version: str
    pid: int
    uptime_ms: int
    memory: MemoryUse
    open_handles: int


def get_sidecar_info(context: Context, params: None) -> SidecarInfo:
    return SidecarInfo(
        name="clawpal-sidecar",
        version=__version__,
        protocol_version=PROTOCOL_VERSION,
        pid=os.getpid(),
        uptime_ms=round((time.monotonic() - context.started_at_s) * 1000),
        memory=MemoryUse(*memory_bytes()),
        open_handles=len(context.running),
    )


def discover(context: Context, params: None) -> Job:
    def work(token: CancelToken) -> dict[str, Any]:
        # Not with the other imports: it needs all that describes a type.
        from sidecar.server.openrpc import document

        return document()

    return work


def shutdown(context: Context, params: None) -> bool:
    context.stop()
    return True


def cancel_stream(context: Context, params: HandleParams) -> bool:
    return context.running.cancel(params.handle_id)


def set_active_openclaw_home(context: Context, params: PathParams) -> bool:
    context.paths.openclaw_home = _chosen_path(context, params)
    return True


def set_active_clawpal_data_dir(context: Context, params: PathParams) -> bool:
    context.paths.clawpal_data_dir = _chosen_path(context, params)
    return True


def _chosen_path(context: Context, params: PathParams) -> str | None:
    """An absolute path; ``None`` takes the choice back, and so does an empty one."""
    return expand(file_name(params.path), context.environ) if params.path else None


COMMANDS: tuple[Command, ...] = (
    Command("ping", None, "value", ping, 'Answers "pong".'),
    Command("rpc.discover", None, "job", discover, "This document: the protocol, as OpenRPC describes one."),
    Command("get_sidecar_info", None, "value", get_sidecar_info, "Versions, process id, memory, open streams."),
    Command("shutdown", None, "value", shutdown, "Cancels what runs, lets the terminals out, exits with 0."),
    Command("cancel_stream", "HandleParams", "value", cancel_stream, "Stops a running stream of any family."),
    Command(
        "set_active_openclaw_home",
        "PathParams",
        "value",
        set_active_openclaw_home,
        "Makes <path>/.openclaw the OpenClaw directory.",
    ),
    Command(
        "set_active_clawpal_data_dir",
        "PathParams",
        "value",
        set_active_clawpal_data_dir,
        "Chooses the ClawPal directory.",
    ),
    *SESSION_COMMANDS,
    *BACKUP_COMMANDS,
    *HOST_COMMANDS,
)
