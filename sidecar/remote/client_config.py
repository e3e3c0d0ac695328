"""OpenSSH's client configuration, as asyncssh reads it, but not given up for one line that asyncssh doesn't take."""

from __future__ import annotations

import glob
import logging
import os
import re
import shlex
from collections.abc import Callable, Iterable
from contextlib import suppress
from getpass import getuser
from pathlib import Path
from typing import Any, cast

from asyncssh.config import ConfigParseError, SSHClientConfig
from asyncssh.encryption import get_encryption_algs
from asyncssh.kex import get_kex_algs
from asyncssh.mac import get_mac_algs
from asyncssh.pattern import WildcardPattern
from asyncssh.public_key import get_public_key_algs

from sidecar.errors import RemoteFailed
from sidecar.limits import MAX_CONFIG_FAULTS, MAX_INCLUDE_DEPTH, MAX_SSH_CONFIG_FILES

log = logging.getLogger(__name__)
_BLOCK = re.compile(r"\s*(?:host|match)\b", re.IGNORECASE)
_INCLUDE = re.compile(r"\s*include[\s=]+(?P<patterns>.*)", re.IGNORECASE)
_EXPANSION = re.compile(r"Invalid (?P<kind>token|environment) expansion: (?P<name>.*)", re.DOTALL)
_EXPANDED = re.compile(
    r"\s*(?:hostname|certificatefile|forwardagent|identityagent|identityfile|proxycommand|remotecommand)[\s=]",
    re.IGNORECASE,
)
_ALGORITHMS = {
    "Ciphers": ("encryption_algs", get_encryption_algs),
    "MACs": ("mac_algs", get_mac_algs),
    "KexAlgorithms": ("kex_algs", get_kex_algs),
    "CASignatureAlgorithms": ("signature_algs", get_public_key_algs),
}
_COMMENT = re.compile(r"\s+#")


def usable_config(
    home: str, alias: str, folder: str, user: str | None = None, port: int | None = None
) -> tuple[list[Path], SSHClientConfig]:
    """The paths of a configuration that asyncssh can read, and what it says of the host ``alias``.

    They are copies in ``folder``, of the file and of what it includes, without the lines that asyncssh can't read; none
    if there is no file. Runs what ``Match exec`` names: call it in a thread. ``OSError`` if the file can't be read,
    ``RemoteFailed`` if too much of it is wrong.
    """
    path = os.path.join(home, ".ssh", "config")
    if not os.path.isfile(path):
        return [], no_config(alias, user, port)
    copies = _Copies(home, folder)
    copy = copies.copy(path)
    for _ in range(MAX_CONFIG_FAULTS):
        reader = no_config(alias, user, port)
        try:
            reader.parse(Path(copy))
        # It has no error of its own for some malformed lines.
        except Exception as error:
            copies.leave_out(str(reader._path), reader._line_no, error)
        else:
            return [Path(copy)], reader
    raise RemoteFailed(f"~/.ssh/config has more than {MAX_CONFIG_FAULTS} lines that can't be read")


def no_config(alias: str, user: str | None, port: int | None) -> SSHClientConfig:
    """What is known of the host ``alias`` without a file."""
    given: Any = (user if user is not None else (), alias, port if port is not None else ())
    return SSHClientConfig(cast("SSHClientConfig", None), False, False, False, getuser(), *given)


def usable_algorithms(config: SSHClientConfig) -> dict[str, str]:
    """Arguments for asyncssh in place of lists of algorithms of which it knows none, for which it would give up."""
    given: dict[str, str] = {}
    for option, (argument, known) in _ALGORITHMS.items():
        patterns = str(config.get(option) or "+")
        # With such a sign a list changes what is usual, and so leaves something.
        if patterns[0] not in "+-^" and not any(
            WildcardPattern(pattern).matches(name.decode()) for pattern in patterns.split(",") for name in known()
        ):
            log.warning("~/.ssh/config: of its %s none is known", option)
            given[argument] = "default"
    return given


class _Copies:
    """Copies of a configuration and what it includes, each of which includes the copies."""

    def __init__(self, home: str, folder: str) -> None:
        self._home = home
        self._folder = folder
        self._original: dict[str, str] = {}

    def copy(self, path: str, depth: int = 0) -> str:
        """Where the copy of the file at ``path`` is: each inclusion has its own, or a loop of them had no end."""
        copy = os.path.join(self._folder, str(len(self._original)))
        self._original[copy] = path
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [self._copied(line.rstrip("\r\n"), depth) for line in file]
        _write(copy, lines)
        return copy

    def leave_out(self, copy: str, number: int, error: Exception) -> None:
        """Change the line that asyncssh doesn't take. Its words are in no log: they may quote a secret."""
        expansion = _EXPANSION.fullmatch(str(error)) if isinstance(error, ConfigParseError) else None
        if expansion is None:
            self._change(copy, number, _mended)
            return
        # It says so at a file's end, not where the line is.
        sought = f"%{expansion['name']}" if expansion["kind"] == "token" else f"${{{expansion['name']}}}"
        for path in self._original:
            for place, line in enumerate(_read(path), 1):
                if sought in line and _EXPANDED.match(line):
                    self._change(path, place, lambda _: "")

    def _change(self, copy: str, number: int, change: Callable[[str], str]) -> None:
        lines = _read(copy)
        if not 0 < number <= len(lines):
            raise RemoteFailed("~/.ssh/config can't be read")
        lines[number - 1] = change(lines[number - 1])
        log.warning("%s, line %d: passed over, wholly or in part", self._original[copy], number)
        _write(copy, lines)

    def _copied(self, line: str, depth: int) -> str:
        match = _INCLUDE.fullmatch(line)
        if not match:
            return line
        copies = [
            self.copy(path, depth + 1)
            for path in self._included(match["patterns"])
            if depth < MAX_INCLUDE_DEPTH and len(self._original) < MAX_SSH_CONFIG_FILES
        ]
        return f"Include {' '.join(map(shlex.quote, copies))}" if copies else ""

    def _included(self, patterns: str) -> Iterable[str]:
        """The files that an ``Include`` names, in OpenSSH's order, which asyncssh doesn't keep."""
        try:
            words = shlex.split(patterns, comments=True)
        except ValueError:
            return
        for word in words:
            pattern = os.path.join(glob.escape(self._home), word[2:]) if word.startswith("~/") else word
            for path in sorted(glob.glob(os.path.join(glob.escape(self._home), ".ssh", pattern))):
                if os.path.isfile(path) and os.access(path, os.R_OK):
                    yield path


def _mended(line: str) -> str:
    """What can be kept of a line that asyncssh doesn't take: what stands before a comment, else nothing."""
    for comment in _COMMENT.finditer(line):
        with suppress(ValueError):  # it is within quotes
            if words := shlex.split(line[: comment.start()]):
                return shlex.join(words)
    # What follows the head of a block must not fall to the block before it.
    return "Match !all" if _BLOCK.match(line) else ""


def _read(path: str) -> list[str]:
    with open(path, encoding="utf-8") as file:
        return file.read().split("\n")[:-1]


def _write(path: str, lines: Iterable[str]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
