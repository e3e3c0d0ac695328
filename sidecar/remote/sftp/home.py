"""Where a host keeps its OpenClaw directory, and which agents there are, over SFTP: as ``stores/locations.py``."""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Mapping
from typing import Any

from sidecar.errors import HomeUnknown, InvalidParams
from sidecar.remote.sftp.errors import os_error
from sidecar.remote.sftp.files import HostFiles, is_folder, is_link
from sidecar.stores.locations import AgentFolder, objection_to_name
from sidecar.text import file_name, wire_name

DATABASE = "agent/openclaw-agent.sqlite"
DATABASE_UNREAD = (
    "the database can't be read over SFTP alone: Node 22.13 or newer, or Python 3 with sqlite3, is needed on the host"
)


async def openclaw_dir(files: HostFiles, request: Mapping[str, Any]) -> str:
    """The OpenClaw directory, absolute. ``HomeUnknown`` if it hangs on a home directory and there is none."""
    environ = {name: file_name(value) for name, value in request["env"].items()}
    if request["openclawHome"] is not None:
        return posixpath.join(await _expanded(files, file_name(request["openclawHome"]), environ), ".openclaw")
    if chosen := environ.get("CLAWPAL_OPENCLAW_DIR"):
        return await _expanded(files, chosen, environ)
    if home := environ.get("OPENCLAW_HOME"):
        home = await _expanded(files, home, environ)
        inner = posixpath.join(home, ".openclaw")
        is_state_dir = [await files.exists(posixpath.join(inner, name)) for name in ("openclaw.json", "agents")]
        return inner if any(is_state_dir) else home
    return await _expanded(files, environ.get("OPENCLAW_STATE_DIR") or "~/.openclaw", environ)


async def list_agents(files: HostFiles, openclaw_dir: str) -> list[AgentFolder]:
    """The agents below a directory, by name; none without an ``agents`` folder. ``OSError`` if it can't be read."""
    folder = posixpath.join(openclaw_dir, "agents")
    agents = []
    try:
        async for name, attrs in files.entries(folder):
            path = posixpath.join(folder, name)
            if is_folder(attrs) or (is_link(attrs) and await _leads_to_folder(files, path)):
                agents.append(AgentFolder(name, path))
    except FileNotFoundError:
        return []
    return sorted(agents)


async def find_agent(files: HostFiles, openclaw_dir: str, agent_id: str) -> AgentFolder:
    """The agent of this name, a wire name. ``InvalidParams`` if it is no name; ``FileNotFoundError`` without one."""
    if objection := objection_to_name(agent_id):
        raise InvalidParams(f"agentId: {objection}")
    for agent in await list_agents(files, openclaw_dir):
        if wire_name(agent.name) == agent_id:
            return agent
    raise os_error(errno.ENOENT, f"agents/{agent_id}")


async def has_database(files: HostFiles, agent: AgentFolder) -> bool:
    """Whether the agent keeps sessions where SFTP can't get at them."""
    return await files.exists(posixpath.join(agent.path, DATABASE))


async def _expanded(files: HostFiles, path: str, environ: Mapping[str, str]) -> str:
    """``path`` made absolute, ``~`` and ``~/`` at its start replaced by the home directory."""
    if path == "~" or path.startswith("~/"):
        path = (environ.get("HOME") or await _login_folder(files)) + path[1:]
    if not path.startswith("/"):
        path = posixpath.join(await _login_folder(files), path)
    return posixpath.normpath(path)


async def _login_folder(files: HostFiles) -> str:
    """Where a login begins, which is its home directory."""
    try:
        return await files.home()
    except OSError:
        raise HomeUnknown("no home directory: the host's SFTP server doesn't tell where it is") from None


async def _leads_to_folder(files: HostFiles, path: str) -> bool:
    try:
        return is_folder(await files.stat(path))
    except FileNotFoundError:
        return False
    except OSError:  # a loop of links, say: listing its sessions will report it
        return True
