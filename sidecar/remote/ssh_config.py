"""The hosts that ``~/.ssh/config`` names, each with what OpenSSH would take from there for it.

As OpenSSH does: of each setting the first value counts whose block applies, files that are included stand in the place
of their ``Include``, and a block in one applies only if the block around the ``Include`` does. Otherwise than there, a
line that is malformed is passed over. So is each ``Match`` block that asks for more than ``all``, ``host`` and
``originalhost``: what it asks for, such as the outcome of a program, is only known when a connection is made. The
system's own configuration isn't read.
"""

from __future__ import annotations

import logging
import os
import re

import msgspec

from sidecar.limits import MAX_SSH_CONFIG_ALIASES
from sidecar.remote.ssh_config_file import File, Reader, with_home
from sidecar.text import wire_name

log = logging.getLogger(__name__)

_TOKEN = re.compile("%(.)")


class SshConfigHostSuggestion(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """A host of the configuration; what it doesn't say is absent. ``identity_file`` is the first, ``~`` expanded."""

    host_alias: str
    host_name: str | None = None
    user: str | None = None
    port: int | None = None
    identity_file: str | None = None


def list_ssh_config_hosts(home: str) -> list[SshConfigHostSuggestion]:
    """The hosts that ``.ssh/config`` in the directory ``home`` names without ``*`` and ``?``, by alias.

    None without a file. ``SourceUnreadable`` or ``OSError`` if it can't be read, or is too large; a file that it
    includes and that can't be read is passed over.
    """
    try:
        file = Reader(home).read(os.path.join(home, ".ssh", "config"))
    except FileNotFoundError:
        return []
    aliases = sorted(set(file.aliases()))
    if len(aliases) > MAX_SSH_CONFIG_ALIASES:
        log.warning("~/.ssh/config names %d hosts; the first %d are suggested", len(aliases), MAX_SSH_CONFIG_ALIASES)
    suggestions = (_suggestion(alias, file, home) for alias in aliases[:MAX_SSH_CONFIG_ALIASES])
    return [suggestion for suggestion in suggestions if suggestion]


def _suggestion(alias: str, file: File, home: str) -> SshConfigHostSuggestion | None:
    """What the configuration says of an alias; ``None`` if only blocks that never apply to it name it."""
    values: dict[str, str] = {}
    if not _gather(alias, file, values):
        return None
    host_name = _host_name(alias, values)
    user = values.get("user")
    port = values.get("port")
    identity = values.get("identityfile")
    if identity is not None:
        known = {"d": home, "h": host_name, "n": alias, "p": port or "22"} | ({} if user is None else {"r": user})
        identity = _with_tokens(with_home(identity, home), known)
    return SshConfigHostSuggestion(
        wire_name(alias),
        wire_name(host_name) if "hostname" in values else None,
        None if user is None else wire_name(user),
        int(port) if port else None,
        wire_name(identity) if identity and identity.lower() != "none" else None,
    )


def _gather(alias: str, file: File, values: dict[str, str]) -> bool:
    """Add what a file says of an alias to ``values``, where it isn't there yet; whether a block for it names it."""
    is_named = False
    for block in file.blocks_for(alias):
        if not block.applies(alias, _host_name(alias, values)):
            continue
        is_named |= alias in block.aliases
        for item in block.content:
            if isinstance(item, File):
                is_named |= _gather(alias, item, values)
            else:
                values.setdefault(item.keyword, item.value)
    return is_named


def _host_name(alias: str, values: dict[str, str]) -> str:
    """The host name so far: what the alias stands for, itself if nothing was said."""
    return _with_tokens(values["hostname"], {"h": alias}) if "hostname" in values else alias


def _with_tokens(text: str, tokens: dict[str, str]) -> str:
    """``text`` with its percent tokens replaced, as far as they are known."""
    return _TOKEN.sub(lambda match: (tokens | {"%": "%"}).get(match[1], match[0]), text)
