"""Where OpenClaw keeps its files, and which agents there are: the twin of ``sidecar/stores/locations.py``."""

from __future__ import annotations

import errno
import os
from typing import Any, NamedTuple

from sidecar.remote.python.errors import HomeUnknown, InvalidParams
from sidecar.remote.python.text import file_name, objection_to_name, raw, spelled, wire_name


class Agent(NamedTuple):
    """An agent's name and its folder."""

    name: str
    path: str


def find_clawpal_dir(request: dict[str, Any]) -> str:
    """The ClawPal directory, absolute. ``HomeUnknown`` as below."""
    environ = _environ(request)
    chosen = request.get("clawpalDir")
    if chosen is not None:
        return expand(file_name(str(chosen)), environ)
    return expand(environ.get("CLAWPAL_DATA_DIR") or "~/.clawpal", environ)


def find_openclaw_dir(request: dict[str, Any]) -> str:
    """The OpenClaw directory, absolute. ``HomeUnknown`` if it hangs on a home directory and there is none."""
    environ = _environ(request)
    home = request.get("openclawHome")
    if home is not None:
        return os.path.join(file_name(str(home)), ".openclaw")
    if environ.get("CLAWPAL_OPENCLAW_DIR"):
        return expand(environ["CLAWPAL_OPENCLAW_DIR"], environ)
    if environ.get("OPENCLAW_HOME"):
        home = expand(environ["OPENCLAW_HOME"], environ)
        inner = os.path.join(home, ".openclaw")
        return inner if _is_state_dir(inner) else home
    return expand(environ.get("OPENCLAW_STATE_DIR") or "~/.openclaw", environ)


def _environ(request: dict[str, Any]) -> dict[str, str]:
    return {str(name): file_name(str(value)) for name, value in request.get("env", {}).items()}


def expand(path: str, environ: dict[str, str]) -> str:
    """``path`` made absolute, ``~`` and ``~/`` at its start replaced by the home directory."""
    if path == "~" or path.startswith("~/"):
        home = environ.get("HOME")
        if not home:
            raise HomeUnknown("no home directory: HOME is not set, and neither is a directory to use instead of it")
        path = home + path[1:]
    return spelled(os.path.abspath(raw(path)))


def _is_state_dir(path: str) -> bool:
    return any(os.path.exists(raw(os.path.join(path, name))) for name in ("openclaw.json", "agents"))


def list_agents(openclaw_dir: str) -> list[Agent]:
    """The agents, by name; none without an ``agents`` folder. ``OSError`` if it can't be read."""
    folder = os.path.join(openclaw_dir, "agents")
    try:
        entries = os.scandir(raw(folder))
    except FileNotFoundError:
        return []
    with entries:
        names = [spelled(entry.name) for entry in entries if _may_be_folder(entry)]
    return [Agent(name, os.path.join(folder, name)) for name in sorted(names)]


def find_agent(openclaw_dir: str, agent_id: str) -> Agent:
    """The agent of this wire name. ``InvalidParams`` if it is no name; ``FileNotFoundError`` without one."""
    objection = objection_to_name(agent_id)
    if objection:
        raise InvalidParams(f"agentId: {objection}")
    for agent in list_agents(openclaw_dir):
        if wire_name(agent.name) == agent_id:
            return agent
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"agents/{agent_id}")


def _may_be_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links, say: listing its sessions will report it
        return True
