"""The transcript of one session of a host, found by its id and sent over SFTP."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import aclosing

from sidecar.errors import SourceUnreadable
from sidecar.remote.sftp.files import HostFiles, is_file, is_link
from sidecar.remote.sftp.home import DATABASE_UNREAD, has_database
from sidecar.remote.sftp.output import Output
from sidecar.remote.sftp.sessions import as_place, may_lead_to_file
from sidecar.remote.sftp.text import ArrivingText, is_compressed
from sidecar.stores.locations import AgentFolder
from sidecar.stores.session_names import ALL_FOLDERS, LIVE_FOLDER, SUFFIX, Archive, is_transcript
from sidecar.text import file_name


async def find_transcript(files: HostFiles, agent: AgentFolder, session_id: str) -> str | None:
    """The path of the transcript of a session; ``None`` if no file of the agent is of that id.

    ``session_id`` is a name, so that no path made of it leads out of a folder. ``SourceUnreadable`` if the agent has a
    database: a file of that id may be an older copy of what is there.
    """
    if await has_database(files, agent):
        raise SourceUnreadable(DATABASE_UNREAD)
    for folder, name in _sought(file_name(session_id)):
        path = posixpath.join(agent.path, folder, name)
        try:
            attrs = await files.lstat(path)
        except OSError:
            continue
        if is_file(attrs) or (is_link(attrs) and await may_lead_to_file(files, path)):
            return path
    return None


async def send_transcript(files: HostFiles, output: Output, path: str) -> None:
    """Send the transcript at a path that ``find_transcript`` gave."""
    async with files.opened(path) as file:
        await output.tell("found")
        text = ArrivingText(file.pieces(file.size_bytes), is_compressed=is_compressed(path))
        skipped = 0
        async with aclosing(text.blocks()) as blocks:
            async for block in blocks:
                if text.overlong > skipped:
                    await output.tell("skipped", text.overlong - skipped)
                    skipped = text.overlong
                with memoryview(block.buffer) as view, view[block.start : block.end] as lines:
                    await output.tell_bytes("lines", lines)
        if text.overlong > skipped:
            await output.tell("skipped", text.overlong - skipped)


def _sought(name: str) -> Iterator[tuple[str, str]]:
    """Where the transcript of the session of this id may lie, the likeliest place first."""
    if is_transcript(name + SUFFIX):
        yield LIVE_FOLDER, name + SUFFIX
    for folder in sorted(ALL_FOLDERS):
        if isinstance(as_place(folder, name), Archive):
            yield folder, name
    if is_transcript(name):
        yield LIVE_FOLDER, name
