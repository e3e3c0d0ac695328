"""Which files and rows there are: the twin of ``sidecar/stores/listing.py``."""

from __future__ import annotations

import os
import stat
from functools import partial
from heapq import merge
from itertools import chain
from typing import Any, Callable, Iterator, NamedTuple

from sidecar.remote.python.agent import database_of
from sidecar.remote.python.host import Host
from sidecar.remote.python.limits import LISTED_FILES_A_STEP
from sidecar.remote.python.locations import Agent, list_agents
from sidecar.remote.python.session_names import FOLDERS
from sidecar.remote.python.text import raw, spelled, wire_name
from sidecar.remote.python.zstd import Zstd


def files(host: Host, _request: dict[str, Any]) -> None:
    """Say which files and rows there are, sorted by their relative paths."""
    zstd = Zstd()
    for agent in sorted(list_agents(host.openclaw_dir), key=lambda agent: wire_name(agent.name) + "/"):
        database = database_of(agent, host, zstd)
        rows = database.files() if database else iter(())
        found = chain.from_iterable(_files_below(agent, folder, kind, host) for folder, kind in FOLDERS)
        for _, say in merge(rows, found, key=lambda row: row[0]):
            say()
        if database:
            database.close()


class _Walk(NamedTuple):
    """A folder that is being walked: its path, how that begins in records and rows, and the names that are to come."""

    path: str
    shown_path: str
    relative_path: str
    names: list[str]


def _files_below(agent: Agent, folder: str, kind: str, host: Host) -> Iterator[tuple[str, Callable[[], None]]]:
    """The regular files below a folder of an agent, and links to such, as ``SqliteStore.files``, by their whole paths.

    In each folder the names are sorted with a slash behind those of folders, as it is in the paths of what lies there.
    """
    shown_agent = wire_name(agent.name)
    path = os.path.join(agent.path, folder, "")
    walks = [_Walk(path, wire_name(path), f"agents/{shown_agent}/{folder}/", _sorted_names(path, host))]
    while walks:
        path, shown_path, relative_path, names = walks[-1]
        if not names:
            walks.pop()
            continue
        host.tick()
        name = names.pop()
        shown_name = wire_name(name)
        if name.endswith("/"):
            path = os.path.join(path, name)
            walks.append(_Walk(path, wire_name(path), relative_path + shown_name, _sorted_names(path, host)))
            continue
        try:
            found = os.stat(raw(path + name))
        except FileNotFoundError:  # it has gone, or is a link to what has
            continue
        except OSError as error:
            host.failed(path + name, error)
            continue
        if stat.S_ISREG(found.st_mode):
            relative_name = relative_path + shown_name
            row = ["file", shown_path + shown_name, relative_name, shown_agent, kind, found.st_size]
            yield relative_name, partial(host.output.say, *row)


def _sorted_names(path: str, host: Host) -> list[str]:
    """What is in a folder, by name, the last one first; the names of folders have a slash behind them."""
    names: list[str] = []
    try:
        with os.scandir(raw(path)) as found:
            for number, entry in enumerate(found):
                names.append(spelled(entry.name) + ("/" if entry.is_dir(follow_symlinks=False) else ""))
                if number % LISTED_FILES_A_STEP == 0:
                    host.tick()
    except FileNotFoundError:
        pass
    except OSError as error:
        host.failed(path, error)
    names.sort(key=None if all(map(str.isascii, names)) else wire_name, reverse=True)
    return names
