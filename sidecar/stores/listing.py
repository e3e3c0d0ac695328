"""What lies in the session folders of every agent, and in its database, sorted by path."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from heapq import merge
from itertools import islice
from typing import NamedTuple

from sidecar.cancel import CancelToken
from sidecar.core.analysis import Kind
from sidecar.core.failures import FailedItems
from sidecar.errors import Cancelled, SidecarError
from sidecar.limits import LISTED_FILES_A_STEP
from sidecar.stores.base import SessionFile
from sidecar.stores.locations import AgentFolder, list_agents
from sidecar.stores.session_names import FOLDERS
from sidecar.text import wire_name

DatabaseFiles = Callable[[AgentFolder, CancelToken, FailedItems], Iterable[SessionFile]]
"""Gives the rows of an agent's database, sorted by ``relative_path``."""


def list_files(
    openclaw_dir: str, token: CancelToken, failed: FailedItems, database_files: DatabaseFiles
) -> Iterator[SessionFile | None]:
    """The rows of all agents, sorted by ``relative_path``; ``None`` now and then while there is none to give.

    ``OSError`` if the folder of the agents can't be listed; whatever fails below it goes into ``failed``.
    """
    # The slash counts: a name that goes on with a character below it comes before the shorter name.
    for agent in sorted(list_agents(openclaw_dir), key=lambda agent: wire_name(agent.name) + "/"):
        rows = _database_rows(agent, token, failed, database_files)
        found = (file for folder, kind in FOLDERS for file in _files_below(agent, folder, kind, token, failed))
        yield from merge(rows, found, key=lambda file: file.relative_path if file else "")


def _database_rows(
    agent: AgentFolder, token: CancelToken, failed: FailedItems, database_files: DatabaseFiles
) -> Iterator[SessionFile]:
    try:
        yield from database_files(agent, token, failed)
    except Cancelled:
        raise
    except (OSError, SidecarError) as error:
        failed.add(wire_name(agent.path), error)


class _Folder(NamedTuple):
    """A folder that is being walked: its path, as it is, as it is shown and in rows, and the names that are to come."""

    path: str
    shown_path: str
    relative_path: str
    names: list[str]


def _files_below(
    agent: AgentFolder, folder: str, kind: Kind, token: CancelToken, failed: FailedItems
) -> Iterator[SessionFile | None]:
    """The regular files below a folder of an agent, and links to such, in the order of their whole paths.

    In each folder the names are sorted with a slash behind those of folders, as it is in the paths of what lies there.
    No link to a folder is followed but ``folder`` itself: links may go round in circles.
    """
    shown_agent = wire_name(agent.name)
    path = os.path.join(agent.path, folder, "")
    names = yield from _sorted_names(path, token, failed)
    folders = [_Folder(path, wire_name(path), f"agents/{shown_agent}/{folder}/", names)]
    while folders:
        path, shown_path, relative_path, names = folders[-1]
        if not names:
            folders.pop()
            continue
        token.check()
        name = names.pop()
        shown_name = wire_name(name)
        if name.endswith("/"):
            path = os.path.join(path, name[:-1], "")
            names = yield from _sorted_names(path, token, failed)
            folders.append(_Folder(path, wire_name(path), relative_path + shown_name, names))
            continue
        try:
            found = os.stat(path + name)
        except FileNotFoundError:  # it has gone, or is a link to what has
            continue
        except OSError as error:
            failed.add(shown_path + shown_name, error)
            continue
        if stat.S_ISREG(found.st_mode):
            yield SessionFile(shown_path + shown_name, relative_path + shown_name, shown_agent, kind, found.st_size)


def _sorted_names(path: str, token: CancelToken, failed: FailedItems) -> Generator[None, None, list[str]]:
    """What is in a folder, by name, the last one first; the names of folders have a slash behind them."""
    names: list[str] = []
    try:
        with os.scandir(path) as entries:
            while step := list(islice(entries, LISTED_FILES_A_STEP)):
                names += [entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name for entry in step]
                token.check()
                yield
    except FileNotFoundError:
        pass
    except OSError as error:
        failed.add(wire_name(path), error)
    # Without a key it takes half the time, and nearly always each name is its own wire name.
    names.sort(key=None if all(map(str.isascii, names)) else wire_name, reverse=True)
    return names
