"""Where OpenClaw and ClawPal keep their files, and which agents there are (CONTRACT section 5)."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sidecar.errors import HomeUnknown, InvalidParams
from sidecar.limits import MAX_NAME_BYTES
from sidecar.text import file_name, wire_name


@dataclass(slots=True)
class ActivePaths:
    """The directories that the app has chosen; ``None`` where it leaves the choice to the environment."""

    openclaw_home: str | None = None
    clawpal_data_dir: str | None = None

    def openclaw_dir(self, environ: Mapping[str, str]) -> str:
        """The OpenClaw directory, absolute. ``HomeUnknown`` if it hangs on a home directory and there is none."""
        if self.openclaw_home is not None:
            return os.path.join(self.openclaw_home, ".openclaw")
        if chosen := environ.get("CLAWPAL_OPENCLAW_DIR"):
            return expand(chosen, environ)
        if home := environ.get("OPENCLAW_HOME"):
            home = expand(home, environ)
            inner = os.path.join(home, ".openclaw")
            return inner if _is_state_dir(inner) else home
        return expand(environ.get("OPENCLAW_STATE_DIR") or "~/.openclaw", environ)

    def clawpal_dir(self, environ: Mapping[str, str]) -> str:
        """The ClawPal directory, absolute. ``HomeUnknown`` as above."""
        if self.clawpal_data_dir is not None:
            return self.clawpal_data_dir
        return expand(environ.get("CLAWPAL_DATA_DIR") or "~/.clawpal", environ)


class AgentFolder(NamedTuple):
    """An agent's name, as the file system spells it, and its folder."""

    name: str
    path: str


def list_agents(openclaw_dir: str) -> list[AgentFolder]:
    """The agents below ``openclaw_dir``, by name; none without an ``agents`` folder. ``OSError`` if it can't be read.

    A symlink to a folder is an agent too: people move one to a larger disk that way.
    """
    try:
        entries = os.scandir(os.path.join(openclaw_dir, "agents"))
    except FileNotFoundError:
        return []
    with entries:
        return sorted(AgentFolder(entry.name, entry.path) for entry in entries if _may_be_folder(entry))


def find_agent(openclaw_dir: str, agent_id: str) -> AgentFolder:
    """The agent of this name, as on the wire. ``InvalidParams`` if it is no name; ``FileNotFoundError`` without one."""
    if objection := objection_to_name(agent_id):
        raise InvalidParams(f"agentId: {objection}")
    for agent in list_agents(openclaw_dir):
        if wire_name(agent.name) == agent_id:
            return agent
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"agents/{agent_id}")


def objection_to_name(name: str) -> str | None:
    """Why a name, as on the wire, can't be that of a file; to be asked before any file is looked at."""
    if name in {"", ".", ".."} or any(character in name for character in "/\\\0"):
        return "not a valid name"
    try:
        return "the name is too long" if len(os.fsencode(file_name(name))) > MAX_NAME_BYTES else None
    except UnicodeError:
        return "not a valid name"


def expand(path: str, environ: Mapping[str, str]) -> str:
    """``path`` made absolute, ``~`` and ``~/`` at its start replaced by the home directory."""
    if path == "~" or path.startswith(("~/", "~" + os.sep)):
        path = home_dir(environ) + path[1:]
    return os.path.abspath(path)


def home_dir(environ: Mapping[str, str]) -> str:
    """The user's home directory: ``$HOME``, or on Windows ``%USERPROFILE%``. ``HomeUnknown`` if neither is set."""
    home = environ.get("HOME") or (environ.get("USERPROFILE") if os.name == "nt" else None)
    if not home:
        raise HomeUnknown("no home directory: HOME is not set, and neither is a directory to use instead of it")
    return home


def _is_state_dir(path: str) -> bool:
    return any(os.path.exists(os.path.join(path, name)) for name in ("openclaw.json", "agents"))


def _may_be_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links, say: listing its sessions will report it
        return True
