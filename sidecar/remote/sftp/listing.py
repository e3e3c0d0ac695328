"""What lies in the session folders of a host's agents, over SFTP: the files in order, and the names for a deletion."""

from __future__ import annotations

import posixpath
from contextlib import aclosing
from typing import NamedTuple

from asyncssh.sftp import SFTPAttrs

from sidecar.core.analysis import Kind
from sidecar.errors import SourceUnreadable
from sidecar.remote.sftp.files import HostFiles, is_file, is_folder, is_link
from sidecar.remote.sftp.home import DATABASE, DATABASE_UNREAD, has_database
from sidecar.remote.sftp.output import Output, told
from sidecar.stores.locations import AgentFolder
from sidecar.stores.session_names import FOLDERS, classify
from sidecar.text import wire_name


class _Entry(NamedTuple):
    """A name, with a slash behind that of a folder, and the size of a regular file; ``None`` for what to look at."""

    name: str
    size_bytes: int | None


class _Walk(NamedTuple):
    """A folder that is being walked: its path, how that begins in rows, and what is to come, the last one first."""

    path: str
    relative_path: str
    entries: list[_Entry]


class FileListing:
    """The files of one agent, as ``stores/listing.py`` lists them. Holds the names of one branch of folders."""

    def __init__(self, files: HostFiles, output: Output, agent: AgentFolder) -> None:
        self._files = files
        self._output = output
        self._agent = agent

    async def tell(self) -> None:
        """Tell of each file, sorted by its relative path."""
        if await has_database(self._files, self._agent):
            path = posixpath.join(self._agent.path, DATABASE)
            await self._output.fail(wire_name(path), SourceUnreadable(DATABASE_UNREAD))
        for folder, kind in FOLDERS:
            await self._tell_below(folder, kind)

    async def _tell_below(self, folder: str, kind: Kind) -> None:
        shown_agent = wire_name(self._agent.name)
        path = posixpath.join(self._agent.path, folder, "")
        walks = [_Walk(path, f"agents/{shown_agent}/{folder}/", await self._sorted(path))]
        while walks:
            path, relative_path, entries = walks[-1]
            if not entries:
                walks.pop()
                continue
            name, size_bytes = entries.pop()
            if name.endswith("/"):
                below = path + name
                walks.append(_Walk(below, relative_path + wire_name(name), await self._sorted(below)))
                continue
            if size_bytes is None and (size_bytes := await self._size_bytes(path + name)) is None:
                continue
            shown_name = wire_name(name)
            row = wire_name(path) + shown_name, relative_path + shown_name, shown_agent, kind, size_bytes
            await self._output.tell("file", *row)

    async def _sorted(self, path: str) -> list[_Entry]:
        """What is in a folder, by name, the last one first."""
        found: list[_Entry] = []
        try:
            async with aclosing(self._files.entries(path)) as entries:
                async for name, attrs in entries:
                    if (entry := _entry(name, attrs)) is not None:
                        found.append(entry)
        except FileNotFoundError:
            pass
        except OSError as error:
            await self._output.fail(wire_name(path), error)
        found.sort(key=lambda entry: wire_name(entry.name), reverse=True)
        return found

    async def _size_bytes(self, path: str) -> int | None:
        """The size of what a link leads to; ``None`` if that is no regular file, or has gone."""
        try:
            attrs = await self._files.stat(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            await self._output.fail(wire_name(path), error)
            return None
        return attrs.size or 0 if is_file(attrs) else None


def _entry(name: str, attrs: SFTPAttrs) -> _Entry | None:
    if is_folder(attrs):
        return _Entry(name + "/", None)
    if is_link(attrs):
        return _Entry(name, None)
    return _Entry(name, attrs.size or 0) if is_file(attrs) else None


async def tell_names(files: HostFiles, output: Output, agent: AgentFolder) -> None:
    """Tell of each file, or link, of an agent that is of a session and can be deleted."""
    await output.tell("agent", wire_name(agent.name))
    for folder, _ in FOLDERS:
        await output.tell("folder", folder)
        try:
            async with aclosing(files.entries(posixpath.join(agent.path, folder))) as entries:
                async for name, attrs in entries:
                    known = classify(name)
                    if known is None or known.role in {"import", "cold"}:
                        continue
                    if is_file(attrs) or is_link(attrs):
                        await output.tell("name", wire_name(name))
        except FileNotFoundError:
            continue
        except OSError as error:
            await output.tell("unread", folder, *told(error))


async def tell_ids(files: HostFiles, output: Output, agent: AgentFolder) -> None:
    """Tell that what an agent's database holds can't be told, if there is one."""
    if await has_database(files, agent):
        path = posixpath.join(agent.path, DATABASE)
        await output.tell("ids-failed", wire_name(path), *told(SourceUnreadable(DATABASE_UNREAD)))
