"""Read a file in the form of OpenSSH's client configuration, with what it includes, as far as suggestions need it."""

from __future__ import annotations

import fnmatch
import glob
import heapq
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

from sidecar.errors import SourceUnreadable
from sidecar.limits import MAX_INCLUDE_DEPTH, MAX_SSH_CONFIG_BYTES, MAX_SSH_CONFIG_FILES, MIB
from sidecar.stores.files import open_regular
from sidecar.text import wire_name

log = logging.getLogger(__name__)

_SETTINGS = {"hostname", "user", "port", "identityfile"}
_CRITERIA = {"host", "originalhost"}
_LINE = re.compile(r'[ \t\r]*"?(?P<keyword>[^ \t\r="]+)"?(?:[ \t\r]*=|$|(?=[ \t\r]))(?P<rest>.*)', re.DOTALL)
_PIECE = re.compile(
    r"""(?P<space>[ \t\r]+) | \\(?P<escaped>['"\\ ]) | (?P<plain>[^'"\\ \t\r]+ | \\)
        | '(?P<single>(?:\\['"\\] | [^'])*+)' | "(?P<double>(?:\\['"\\] | [^"])*+)" """,
    re.VERBOSE,
)
_QUOTED_ESCAPE = re.compile(r"""\\(['"\\])""")


class Setting(NamedTuple):
    """A line of a block: its keyword in lower case, and its value."""

    keyword: str
    value: str


class _Patterns:
    """Of which one must match, and of those with ``!`` none; ``*`` and ``?`` are special in them."""

    def __init__(self, patterns: Sequence[str]) -> None:
        wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
        self.literal = {pattern for pattern in wanted if not set(pattern) & set("*?")}
        self.has_others = len(self.literal) < len(set(patterns))
        self._wanted = _expression(pattern for pattern in wanted if pattern not in self.literal)
        self._refused = _expression(pattern[1:] for pattern in patterns if pattern.startswith("!"))

    def match(self, text: str) -> bool:
        return (text in self.literal or self._wanted.match(text) is not None) and not self._refused.match(text)


class _Criterion(NamedTuple):
    """One thing that a ``Match`` line asks for; without a name, what a ``Host`` line does, where case counts."""

    patterns: _Patterns
    name: str = ""
    is_negated: bool = False

    def holds(self, alias: str, host_name: str) -> bool:
        subject = host_name if self.name == "host" else alias
        return self.patterns.match(subject.lower() if self.name else subject) != self.is_negated


@dataclass(slots=True)
class Block:
    """Settings and included files in their order, the aliases that its ``Host`` names, and what it asks for.

    Without a list of criteria it never applies.
    """

    criteria: list[_Criterion] | None
    aliases: Set[str] = frozenset()
    content: list[Setting | File] = field(default_factory=list)

    def applies(self, alias: str, host_name: str) -> bool:
        """Whether it applies to ``alias``, which stands for ``host_name`` as far as it is known."""
        return self.criteria is not None and all(criterion.holds(alias, host_name) for criterion in self.criteria)

    def names_all(self) -> bool:
        """Whether it applies to nothing but its aliases."""
        return bool(self.aliases) and not any(criterion.patterns.has_others for criterion in self.criteria or ())


class File:
    """The blocks of a file; those of one alias are found without a look at each."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        self._general = [(number, block) for number, block in enumerate(blocks) if not block.names_all()]
        self._by_alias: dict[str, list[tuple[int, Block]]] = {}
        for number, block in enumerate(blocks):
            for alias in block.aliases if block.names_all() else ():
                self._by_alias.setdefault(alias, []).append((number, block))

    def blocks_for(self, alias: str) -> Iterator[Block]:
        """The blocks that may apply to an alias, in their order."""
        for _, block in heapq.merge(self._general, self._by_alias.get(alias, ()), key=itemgetter(0)):
            yield block

    def aliases(self) -> Iterator[str]:
        """The names on ``Host`` lines, here and in what is included."""
        for block in self._blocks:
            yield from block.aliases
            for item in block.content:
                if isinstance(item, File):
                    yield from item.aliases()


def with_home(path: str, home: str) -> str:
    """``path`` with ``home`` in the place of a ``~`` for it."""
    return home + path[1:] if path == "~" or path.startswith("~/") else path


class _Malformed(Exception):
    pass


class Reader:
    """Reads a configuration and what it includes, up to the bounds for all of it."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._bytes_left = MAX_SSH_CONFIG_BYTES
        self._files_left = MAX_SSH_CONFIG_FILES

    def read(self, path: str, depth: int = 0) -> File:
        """The blocks of a file. ``SourceUnreadable`` or ``OSError`` if it can't be read, or with it all is too much."""
        # What stands before the first Host or Match applies whenever the file does.
        blocks = [Block([])]
        for number, line in enumerate(self._text(path).split("\n"), 1):
            try:
                self._take(line, blocks, depth)
            except _Malformed as error:
                log.info("%s, line %d: passed over: %s", wire_name(path), number, error)
        return File(blocks)

    def _text(self, path: str) -> str:
        try:
            fd, _, _ = open_regular(path)
        except SourceUnreadable as error:
            raise SourceUnreadable(f"{error.message}: {wire_name(path)}") from None
        with os.fdopen(fd, "rb") as file:
            data = file.read(self._bytes_left + 1)
        if len(data) > self._bytes_left:
            raise SourceUnreadable(f"over {MAX_SSH_CONFIG_BYTES // MIB} MiB of configuration: {wire_name(path)}")
        self._bytes_left -= len(data)
        self._files_left -= 1
        return data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")

    def _take(self, line: str, blocks: list[Block], depth: int) -> None:
        match = _LINE.fullmatch(line.rstrip(" \t\r\f"))
        keyword = match["keyword"].lower() if match else ""
        if match is None or keyword.startswith("#"):
            return
        if keyword in {"host", "match"}:
            # If the line is malformed, what follows it belongs to no host rather than to the one before.
            blocks.append(Block(None))
            words = _words(match["rest"])
            if keyword == "host":
                patterns = _Patterns(words)
                blocks[-1] = Block([_Criterion(patterns)], patterns.literal)
            else:
                blocks[-1].criteria = _match_criteria(words)
        elif keyword == "include":
            for pattern in _words(match["rest"]):
                blocks[-1].content += self._included(pattern, depth + 1)
        elif keyword in _SETTINGS:
            words = _words(match["rest"])
            if len(words) != 1:
                raise _Malformed("more than one value")
            if keyword == "port" and not (re.fullmatch("[0-9]{1,5}", words[0]) and 0 < int(words[0]) < 65_536):
                raise _Malformed("not a port")
            blocks[-1].content.append(Setting(keyword, words[0]))

    def _included(self, pattern: str, depth: int) -> Iterator[File]:
        if depth > MAX_INCLUDE_DEPTH:
            raise _Malformed(f"Include within {MAX_INCLUDE_DEPTH} others")
        home = glob.escape(self._home)
        path = os.path.expanduser(with_home(pattern, home))
        for found in sorted(glob.glob(os.path.join(home, ".ssh", path))):
            if not self._files_left:
                raise _Malformed(f"{MAX_SSH_CONFIG_FILES} files were read already")
            try:
                yield self.read(found, depth)
            except (OSError, SourceUnreadable) as error:
                log.warning("~/.ssh/config: passed over an included file: %s", error)


def _words(text: str) -> list[str]:
    """The arguments of a line, without quotes and escapes, up to a comment."""
    words = []
    word: str | None = None
    place = 0
    while place < len(text) and not (word is None and text[place] == "#"):
        piece = _PIECE.match(text, place)
        if piece is None:
            raise _Malformed("a quote without its other one")
        place = piece.end()
        if not piece["space"]:
            word = (word or "") + _unquoted(piece)
        elif word is not None:
            words.append(word)
            word = None
    words += [] if word is None else [word]
    if not words or "" in words or "\0" in text:
        raise _Malformed("no value, or an empty one, or one with a NUL in it")
    return words


def _unquoted(piece: re.Match[str]) -> str:
    quoted = piece["single"] if piece["single"] is not None else piece["double"]
    if quoted is not None:
        return _QUOTED_ESCAPE.sub(r"\1", quoted)
    return piece["escaped"] or piece["plain"]


def _match_criteria(words: list[str]) -> list[_Criterion]:
    """What a ``Match`` line asks for. ``_Malformed`` if that is something else than what is known here."""
    words = [part.lower() for word in words for part in word.split("=", 1)]
    if words == ["all"]:
        return []
    names, lists = words[::2], words[1::2]
    if len(names) != len(lists) or not {name.removeprefix("!") for name in names} <= _CRITERIA:
        raise _Malformed("a Match for other things than all, host and originalhost")
    return [
        _Criterion(_Patterns(patterns.split(",")), name.removeprefix("!"), name.startswith("!"))
        for name, patterns in zip(names, lists, strict=True)
    ]


def _expression(patterns: Iterable[str]) -> re.Pattern[str]:
    """What matches a text that one of ``patterns`` matches, in which ``*`` and ``?`` are special."""
    # Python's patterns have sets of characters as well, which OpenSSH's don't.
    return re.compile("|".join(fnmatch.translate(pattern.replace("[", "[[]")) for pattern in patterns) or "(?!)")
