"""Every command: its name, its parameters, what it does. One row each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sidecar import PROTOCOL_VERSION, __version__
from sidecar.cancel import CancelToken
from sidecar.remote.hosts import delete_host, list_hosts, upsert_host
from sidecar.remote.ssh_config import list_ssh_config_hosts
from sidecar.server.process import memory_bytes
from sidecar.stores.deletion import clear_all, delete_sessions
from sidecar.stores.home import LocalHome
from sidecar.stores.locations import ActivePaths, expand
from sidecar.streams.analyze import AnalysisStream, analyze_sessions
from sidecar.streams.base import Stream
from sidecar.streams.files import SessionFilesStream, list_session_files
from sidecar.streams.preview import PreviewStream, preview_session
from sidecar.text import file_name

if TYPE_CHECKING:
    from sidecar.server.schema import (
        BatchParams,
        DeleteParams,
        HandleParams,
        HostIdParams,
        HostParams,
        PathParams,
        PreviewParams,
        PreviewStreamParams,
    )

Job = Callable[[CancelToken], Any]
"""The work of an eager command; runs in a thread, and its result is the reply's."""


class Running(Protocol):
    """The streams that run, as far as commands deal with them."""

    def __len__(self) -> int: ...

    def cancel(self, handle_id: str) -> bool: ...


@dataclass(slots=True)
class Context:
    """What commands work on: the paths of this connection, its streams, and the way to end it."""

    running: Running
    stop: Callable[[], None]
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    paths: ActivePaths = field(default_factory=ActivePaths)
    started_at_s: float = field(default_factory=time.monotonic)

    def openclaw_dir(self) -> str:
        return self.paths.openclaw_dir(self.environ)

    def clawpal_dir(self) -> str:
        return self.paths.clawpal_dir(self.environ)

    def home(self) -> LocalHome:
        return LocalHome(self.openclaw_dir())


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the table. ``run`` returns at once: a value, or the job to do, or the stream to start.

    ``params`` names a model of ``schema``, which is imported when a command first needs it. An eager command that can
    grow too large to answer names the stream to use instead.
    """

    name: str
    params: str | None
    kind: Literal["value", "job", "stream"]
    run: Callable[[Context, Any], Any]
    summary: str
    stream_instead: str | None = None


def ping(context: Context, params: None) -> str:
    return "pong"


def get_sidecar_info(context: Context, params: None) -> dict[str, Any]:
    resident, peak = memory_bytes()
    return {
        "name": "clawpal-sidecar",
        "version": __version__,
        "protocolVersion": PROTOCOL_VERSION,
        "pid": os.getpid(),
        "uptimeMs": round((time.monotonic() - context.started_at_s) * 1000),
        "memory": {"residentBytes": resident, "peakBytes": peak},
        "openHandles": len(context.running),
    }


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


def analyze(context: Context, params: None) -> Job:
    return partial(analyze_sessions, context.home())


def analyze_stream(context: Context, params: BatchParams) -> Stream:
    return AnalysisStream(context.home(), params.batch_size)


def list_files(context: Context, params: None) -> Job:
    return partial(list_session_files, context.home())


def list_files_stream(context: Context, params: BatchParams) -> Stream:
    return SessionFilesStream(context.home(), params.batch_size)


def delete(context: Context, params: DeleteParams) -> Job:
    return partial(delete_sessions, context.home(), params.agent_id, params.session_ids)


def clear(context: Context, params: None) -> Job:
    return partial(clear_all, context.home())


def preview(context: Context, params: PreviewParams) -> Job:
    transcript = partial(context.home().transcript, params.agent_id, params.session_id)
    return partial(preview_session, transcript, params.agent_id, params.session_id)


def preview_stream(context: Context, params: PreviewStreamParams) -> Stream:
    transcript = partial(context.home().transcript, params.agent_id, params.session_id)
    return PreviewStream(transcript, params.agent_id, params.session_id, params.page_size)


def list_ssh_hosts(context: Context, params: None) -> Job:
    clawpal_dir = context.clawpal_dir()
    return lambda _token: [host.members() for host in list_hosts(clawpal_dir)]


def upsert_ssh_host(context: Context, params: HostParams) -> Job:
    clawpal_dir = context.clawpal_dir()
    host = params.host.ssh_host()
    return lambda _token: upsert_host(clawpal_dir, host).members()


def delete_ssh_host(context: Context, params: HostIdParams) -> Job:
    clawpal_dir = context.clawpal_dir()
    return lambda _token: delete_host(clawpal_dir, params.host_id)


def suggest_ssh_hosts(context: Context, params: None) -> Job:
    home = expand("~", context.environ)
    return lambda _token: list_ssh_config_hosts(home)


def _chosen_path(context: Context, params: PathParams) -> str | None:
    """An absolute path; ``None`` takes the choice back, and so does an empty one."""
    return expand(file_name(params.path), context.environ) if params.path else None


COMMANDS: tuple[Command, ...] = (
    Command("ping", None, "value", ping, 'Answers "pong".'),
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
    Command(
        "analyze_sessions", None, "job", analyze, "Analyses every session, in one answer.", "analyze_sessions_stream"
    ),
    Command(
        "list_session_files",
        None,
        "job",
        list_files,
        "Every file in the session folders, in one answer.",
        "list_session_files_stream",
    ),
    Command("list_session_files_stream", "BatchParams", "stream", list_files_stream, "The files, in batches."),
    Command("delete_sessions_by_ids", "DeleteParams", "job", delete, "Deletes sessions of one agent, by their ids."),
    Command("clear_all_sessions", None, "job", clear, "Deletes the sessions of all agents that are files."),
    Command(
        "preview_session",
        "PreviewParams",
        "job",
        preview,
        "The messages of a session, in one answer.",
        "preview_session_stream",
    ),
    Command("preview_session_stream", "PreviewStreamParams", "stream", preview_stream, "The messages, in pages."),
    Command("analyze_sessions_stream", "BatchParams", "stream", analyze_stream, "Analyses every session, in batches."),
    Command("list_ssh_hosts", None, "job", list_ssh_hosts, "The hosts over SSH that the app knows."),
    Command("upsert_ssh_host", "HostParams", "job", upsert_ssh_host, "Stores a host, or changes one."),
    Command("delete_ssh_host", "HostIdParams", "job", delete_ssh_host, "Forgets a host."),
    Command("list_ssh_config_hosts", None, "job", suggest_ssh_hosts, "The hosts that ~/.ssh/config names."),
)
