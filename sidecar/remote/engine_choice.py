"""Find out, once a connection, what a host has that can read sessions, and where its OpenClaw keeps them.

A login shell is asked first, since version managers put ``node`` into its PATH alone, and its profile may say where
OpenClaw's directory is; a host whose login shell can't be asked that way (csh) or hangs is asked without it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from sidecar.errors import HostTimedOut, RemoteFailed
from sidecar.limits import MAX_NOISE_BYTES, PROBE_S
from sidecar.remote.engines import NODE_BOOTSTRAP, PYTHON_BOOTSTRAP
from sidecar.remote.pool import Host, SshConnectionPool, quoted

log = logging.getLogger(__name__)

MIN_NODE = 18
MIN_PYTHON = (3, 8)

_NODE_PLACES = (
    "/usr/local/bin/node /opt/homebrew/bin/node /snap/bin/node "
    '"$HOME"/.nvm/versions/node/*/bin/node "$HOME"/.local/share/fnm/node-versions/*/installation/bin/node '
    '"$HOME"/.volta/bin/node "$HOME"/.asdf/shims/node'
)
_ASK_NODE = (
    "let s=0;try{require('node:sqlite');s=1}catch{};"
    "[process.versions.node,s,require('zlib').zstdDecompressSync?1:0].join(' ')"
)
_ASK_PYTHON = (
    "import sys,importlib.util as u;f=lambda n:int(u.find_spec(n) is not None);"
    "print('%d.%d'%sys.version_info[:2],f('_sqlite3'),int(sys.version_info>=(3,14)) or f('zstandard'))"
)
# One line, since csh takes no line breaks in quotes. On a Mac without developer tools /usr/bin/python3 is a stub that
# opens a dialogue.
_PROBE = (
    'printf "%s\\n" "" "clawpal-probe NONCE" "home $HOME"; '
    'for v in CLAWPAL_OPENCLAW_DIR CLAWPAL_DATA_DIR OPENCLAW_HOME OPENCLAW_STATE_DIR; do eval "x=\\${$v-}"; '
    'if [ -n "$x" ]; then printf "%s\\n" "env $v=$x"; fi; done; '
    f'for n in "$(command -v node)" {_NODE_PLACES}; do if [ -x "$n" ]; then '
    f'a=$("$n" --no-warnings -p "{_ASK_NODE}" </dev/null 2>/dev/null) && printf "%s\\n" "node $a $n"; fi; done; '
    'for p in "$(command -v python3)" /usr/local/bin/python3 /opt/homebrew/bin/python3; do if [ -x "$p" ]; then '
    'if [ "$p $(uname -s)" = "/usr/bin/python3 Darwin" ] && ! xcode-select -p >/dev/null 2>&1; then :; else '
    f'a=$("$p" -c "{_ASK_PYTHON}" </dev/null 2>/dev/null) && printf "%s\\n" "python $a $p"; fi; fi; done; '
    'echo "clawpal-probe end"'
)
_IN_LOGIN_SHELL = 'PROBE={probe}; export PROBE; exec "${{SHELL:-/bin/sh}}" -l -c {run} 2>/dev/null'
_RUN_PROBE = 'exec /bin/sh -c "$PROBE"'
_FOUND = re.compile(
    r"(?P<kind>node|python) (?P<major>\d+)\.(?P<minor>\d+)\S* (?P<sqlite>[01]) (?P<zstd>[01]) (?P<path>/.*)"
)
# What stands in single quotes in a command, whatever the shell. A program in another place is not used.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+@:,= -]+")


class Program(NamedTuple):
    """A program on the host that an engine is for."""

    kind: Literal["node", "python"]
    version: tuple[int, int]
    sqlite: bool
    zstd: bool
    path: str

    @property
    def command(self) -> str:
        """What starts it, for any login shell; it then reads its script from its input."""
        if self.kind == "node":
            return f"exec {quoted(self.path)} --no-warnings -e {quoted(NODE_BOOTSTRAP)}"
        return f"exec {quoted(self.path)} -X utf8 -u -c {quoted(PYTHON_BOOTSTRAP)}"


@dataclass(slots=True)
class Means:
    """What a host can read sessions with: a program, or SFTP alone; and the variables that say where they are."""

    program: Program | None = None
    backup_program: Program | None = None
    """What can make backups there: Python with SQLite, else Node."""
    environment: dict[str, str] = field(default_factory=dict)


async def choose(pool: SshConnectionPool, host: Host) -> Means:
    """What to read the host's sessions with; found out once a connection. ``SidecarError`` if it can't be reached."""
    facts = pool.facts(host)
    means = facts.get("means")
    if not isinstance(means, Means):
        means = await _look(pool, host)
        # The connection was opened, and forgot what was known before, while this was found out.
        pool.facts(host)["means"] = means
    return means


async def _look(pool: SshConnectionPool, host: Host) -> Means:
    nonce = secrets.token_hex(8)
    probe = _PROBE.replace("NONCE", nonce)
    in_login_shell = _IN_LOGIN_SHELL.format(probe=quoted(probe), run=quoted(_RUN_PROBE))
    for command in (in_login_shell, probe):
        lines = await _ask(pool, host, command, f"clawpal-probe {nonce}")
        if lines is not None:
            return _means(lines)
    log.info("host %s: no shell there answers; SFTP will have to do", host.id)
    return Means()


async def _ask(pool: SshConnectionPool, host: Host, command: str, begin: str) -> list[str] | None:
    """The lines of the answer; ``None`` if none came in time."""
    output = bytearray()
    try:
        async with asyncio.timeout(PROBE_S), aclosing(pool.exec_streaming(host, command)) as chunks:
            async for chunk in chunks:
                output += chunk
                if len(output) > MAX_NOISE_BYTES:
                    return None
    except (TimeoutError, HostTimedOut, RemoteFailed) as error:
        log.info("host %s: asked in vain what it has: %s", host.id, error)
    lines = output.decode("utf-8", "replace").split("\n")
    if begin not in lines or "clawpal-probe end" not in lines:
        return None
    return lines[lines.index(begin) + 1 : lines.index("clawpal-probe end")]


def _means(lines: list[str]) -> Means:
    means = Means()
    programs = []
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "home":
            means.environment["HOME"] = rest
        elif word == "env":
            name, _, value = rest.partition("=")
            means.environment[name] = value
        elif match := _FOUND.fullmatch(line):
            programs.append(_program(match))
    usable = [program for program in programs if _is_usable(program)]
    able = [program for program in usable if program.sqlite or program.kind == "node"]
    # Python first, since what it runs is what makes backups here.
    means.backup_program = min(able, key=lambda one: (not one.sqlite, one.kind != "python"), default=None)
    # The first that was found, of the best kind: Node as OpenClaw itself needs it, else Python, else what reads files.
    means.program = min(usable, key=lambda one: (not one.sqlite, one.kind != "node"), default=None)
    return means


def _program(match: re.Match[str]) -> Program:
    version = int(match["major"]), int(match["minor"])
    kind: Literal["node", "python"] = "node" if match["kind"] == "node" else "python"
    return Program(kind, version, match["sqlite"] == "1", match["zstd"] == "1", match["path"])


def _is_usable(program: Program) -> bool:
    if not _PLAIN_PATH.fullmatch(program.path):
        return False
    return program.version >= ((MIN_NODE, 0) if program.kind == "node" else MIN_PYTHON)
