"""What can be asked for, by name."""

from __future__ import annotations

import os
from typing import Any, Callable

from sidecar.remote.python.agent import AgentSessions, database_of
from sidecar.remote.python.errors import FAULTS, told
from sidecar.remote.python.files import open_folder
from sidecar.remote.python.host import Host
from sidecar.remote.python.listing import files
from sidecar.remote.python.locations import Agent, find_agent, list_agents
from sidecar.remote.python.preview import preview
from sidecar.remote.python.removal import Removal
from sidecar.remote.python.session_names import FOLDERS, classify
from sidecar.remote.python.sqlite_store import DATABASE
from sidecar.remote.python.text import spelled, wire_name
from sidecar.remote.python.zstd import Zstd

_KEPT_FROM = ("import", "cold")


def analyze(host: Host, _request: dict[str, Any]) -> None:
    """Say what every session of every agent holds."""
    zstd = Zstd()
    for agent in list_agents(host.openclaw_dir):
        sessions = AgentSessions(agent, host, zstd)
        total = sessions.sessions_total
        host.output.say("agent", wire_name(agent.name), total)
        for _ in sessions.analyse():
            if sessions.sessions_total != total:
                total = sessions.sessions_total
                host.output.say("total", total)
            host.tick()


def names(host: Host, request: dict[str, Any]) -> None:
    """Say which files of one agent, or all, are of sessions, and of one agent what its database holds."""
    agent_id = request["agentId"]
    if agent_id is None:
        for agent in list_agents(host.openclaw_dir):
            _say_names(agent, host)
        return
    agent = find_agent(host.openclaw_dir, str(agent_id))
    _say_names(agent, host)
    database = database_of(agent, host, Zstd())
    try:
        ids = database.ids() if database else []
    except FAULTS as error:
        host.output.say("ids-failed", wire_name(os.path.join(agent.path, DATABASE)), *told(error))
        return
    for session_id in ids:
        host.output.say("id", session_id)


def _say_names(agent: Agent, host: Host) -> None:
    host.output.say("agent", wire_name(agent.name))
    for folder, _ in FOLDERS:
        try:
            with open_folder(os.path.join(agent.path, folder)) as fd, os.scandir(fd) as found:
                host.output.say("folder", folder)
                for entry in found:
                    # Through a descriptor names come as the locale has them.
                    name = spelled(os.fsencode(entry.name))
                    known = classify(name)
                    if known is None or known.role in _KEPT_FROM:
                        continue
                    if entry.is_file(follow_symlinks=False) or entry.is_symlink():
                        host.output.say("name", wire_name(name))
        except FileNotFoundError:
            continue
        except OSError as error:
            host.output.say("unread", folder, *told(error))


def remove(host: Host, request: dict[str, Any]) -> None:
    """Delete files of sessions of one agent, and their entries in its index."""
    Removal(find_agent(host.openclaw_dir, str(request["agentId"])), host).run(request["sessions"])


OPS: dict[str, Callable[[Host, dict[str, Any]], None]] = {
    "analyze": analyze,
    "files": files,
    "preview": preview,
    "names": names,
    "remove": remove,
}
