"""OpenSSH's client configuration, as asyncssh reads it, but not given up for one line that asyncssh doesn't take."""

from __future__ import annotations

import glob
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from getpass import getuser
from pathlib import Path

from asyncssh.config import ConfigParseError, SSHClientConfig

from sidecar.limits import MAX_CONFIG_FAULTS

log = logging.getLogger(__name__)
_FAULT = re.compile(r"(?P<path>.*) line (?P<number>\d+): (?P<reason>.*)", re.DOTALL)
_BLOCK = re.compile(r"\s*(?:host|match)\b", re.IGNORECASE)
_INCLUDE = re.compile(r"\s*include[\s=]+(?P<patterns>.*)", re.IGNORECASE)


@contextmanager
def usable_config(home: str, alias: str) -> Iterator[list[Path]]:
    """The paths of a configuration that asyncssh can read for the host ``alias``: none if there is no file.

    If a line of the file, or of one that it includes, stops asyncssh, the paths are of copies without such lines; they
    are gone afterwards.
    """
    path = os.path.join(home, ".ssh", "config")
    if not os.path.isfile(path):
        yield []
        return
    try:
        load([Path(path)], alias)
    except ConfigParseError:
        with tempfile.TemporaryDirectory(prefix="clawpal-sidecar-") as folder:
            copy = _Copies(home, folder).copy(path)
            _leave_out_faults(copy, alias)
            yield [Path(copy)]
    else:
        yield [Path(path)]


def load(paths: list[Path], alias: str, user: str | None = None, port: int | None = None) -> SSHClientConfig:
    """What the configuration says of a host. ``ConfigParseError`` if asyncssh doesn't take it."""
    given = (user if user is not None else (), port if port is not None else ())
    config = SSHClientConfig.load(None, list(paths), False, False, False, getuser(), given[0], alias, given[1])
    assert isinstance(config, SSHClientConfig)
    return config


class _Copies:
    """Copies of a configuration and what it includes, each of which includes the copies."""

    def __init__(self, home: str, folder: str) -> None:
        self._home = home
        self._folder = folder
        self._of: dict[str, str] = {}

    def copy(self, path: str) -> str:
        if path not in self._of:
            self._of[path] = os.path.join(self._folder, str(len(self._of)))
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = [self._copied(line.rstrip("\r\n")) for line in file]
            with open(self._of[path], "w", encoding="utf-8") as target:
                target.writelines(f"{line}\n" for line in lines)
        return self._of[path]

    def _copied(self, line: str) -> str:
        match = _INCLUDE.fullmatch(line)
        if not match:
            return line
        copies = [
            self.copy(path)
            for pattern in match["patterns"].split()
            for path in sorted(glob.glob(self._absolute(pattern.strip('"'))))
            if os.path.isfile(path)
        ]
        return f"Include {' '.join(copies)}" if copies else ""

    def _absolute(self, pattern: str) -> str:
        if pattern.startswith("~/"):
            return os.path.join(self._home, pattern[2:])
        return os.path.join(self._home, ".ssh", pattern)


def _leave_out_faults(copy: str, alias: str) -> None:
    """Blank the lines of ``copy``, and of those that it includes, which asyncssh can't read for this host."""
    for _ in range(MAX_CONFIG_FAULTS):
        try:
            load([Path(copy)], alias)
        except ConfigParseError as error:
            match = _FAULT.fullmatch(str(error))
            if not match:
                raise
            log.warning("~/.ssh/config: left out a line: %s", match["reason"])
            _blank(match["path"], int(match["number"]))
        else:
            return


def _blank(path: str, number: int) -> None:
    with open(path, encoding="utf-8") as file:
        lines = file.readlines()
    # What follows the head of a block must not fall to the block before it.
    lines[number - 1] = "Match !all\n" if _BLOCK.match(lines[number - 1]) else "\n"
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines)
