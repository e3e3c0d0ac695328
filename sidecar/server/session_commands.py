"""The commands about sessions, each with a ``remote_`` twin that does the same on a host.

What does the work is imported when a command first needs it: to import all that the tables of commands need takes
11 ms, which no first reply has to wait for.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar.server.command import Command, Context, Job, twin
from sidecar.streams.base import Stream

if TYPE_CHECKING:
    from sidecar.server.schema import BatchParams, DeleteParams, PreviewParams, PreviewStreamParams


def analyze(context: Context, params: Any) -> Job:
    from sidecar.streams.analyze import analyze_sessions

    return partial(analyze_sessions, context.home(params))


def analyze_stream(context: Context, params: BatchParams) -> Stream:
    from sidecar.streams.analyze import AnalysisStream

    return AnalysisStream(context.home(params), params.batch_size)


def list_files(context: Context, params: Any) -> Job:
    from sidecar.streams.files import list_session_files

    return partial(list_session_files, context.home(params))


def list_files_stream(context: Context, params: BatchParams) -> Stream:
    from sidecar.streams.files import SessionFilesStream

    return SessionFilesStream(context.home(params), params.batch_size)


def delete(context: Context, params: DeleteParams) -> Job:
    from sidecar.stores.deletion import delete_sessions

    return partial(delete_sessions, context.home(params), params.agent_id, params.session_ids)


def clear(context: Context, params: Any) -> Job:
    from sidecar.stores.deletion import clear_all

    return partial(clear_all, context.home(params))


def preview(context: Context, params: PreviewParams) -> Job:
    from sidecar.streams.preview import preview_session

    transcript = partial(context.home(params).transcript, params.agent_id, params.session_id)
    instead = "remote_preview_session_stream" if hasattr(params, "host_id") else "preview_session_stream"
    return partial(preview_session, transcript, params.agent_id, params.session_id, stream_instead=instead)


def preview_stream(context: Context, params: PreviewStreamParams) -> Stream:
    from sidecar.streams.preview import PreviewStream

    transcript = partial(context.home(params).transcript, params.agent_id, params.session_id)
    return PreviewStream(transcript, params.agent_id, params.session_id, params.page_size)


_HERE: tuple[Command, ...] = (
    Command(
        "analyze_sessions", None, "job", analyze, "Analyses every session, in one answer.", "analyze_sessions_stream"
    ),
    Command("analyze_sessions_stream", "BatchParams", "stream", analyze_stream, "Analyses every session, in batches."),
    Command(
        "list_session_files",
        None,
        "job",
        list_files,
        "Every file in the session folders, in one answer.",
        "list_session_files_stream",
    ),
    Command("list_session_files_stream", "BatchParams", "stream", list_files_stream, "The files, in batches."),
    Command(
        "preview_session",
        "PreviewParams",
        "job",
        preview,
        "The messages of a session, in one answer.",
        "preview_session_stream",
    ),
    Command("preview_session_stream", "PreviewStreamParams", "stream", preview_stream, "The messages, in pages."),
    Command("delete_sessions_by_ids", "DeleteParams", "job", delete, "Deletes sessions of one agent, by their ids."),
    Command("clear_all_sessions", None, "job", clear, "Deletes the sessions of all agents that are files."),
)

SESSION_COMMANDS = (*_HERE, *map(twin, _HERE))
