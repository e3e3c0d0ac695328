"""Names for what differs from run to run: ``protocol/transcripts/README.md`` lists them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

NUMBERS = (
    "pid",
    "uptimeMs",
    "residentBytes",
    "peakBytes",
    "totalUploadBytes",
    "totalDownloadBytes",
    "updatedAtMs",
)
RATES = ("uploadBytesPerSec", "downloadBytesPerSec")
TOTALS = ("totalAgents", "totalSessions", "totalMessages", "totalFiles", "totalSizeBytes")
VERSIONS = ("version", "protocolVersion")
SECRETS = ("passphrase", "password")
SECRET = "<secret>"  # noqa: S105 (it stands for one)

_SNAPSHOT = re.compile(r"\b\d{4}-\d\d-\d\d_\d{6}(?:-\d+)?\b")
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_FREE = re.compile(r"[\d,]+\.\d MiB(?= are free)")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

Rule = tuple[str, Callable[[Any], bool]]
"""A name for the values of a field, and what must hold of one that gets it."""


class Names:
    """Puts names for what differs from run to run, and takes them back.

    ``texts`` are names and what each stands for, the longer meaning before the one that is a part of it. Times and
    snapshots that begin with ``fixed`` are the same in each run. ``rules`` adds to the names of values, by field.
    """

    def __init__(self, texts: Mapping[str, str], *, fixed: str | None = None, rules: Mapping[str, Rule] | None = None):
        self._texts = dict(texts)
        self._fixed = fixed
        self._handles: dict[str, str] = {}
        self._snapshots: dict[str, str] = {}
        self._rules: dict[str, Rule] = {
            "createdAt": ("<time>", self._is_time_of_run),
            "ageDays": ("<age>", lambda value: _is_number(value) and value >= 0),
            **dict.fromkeys(RATES, ("<rate>", lambda value: _is_number(value) and value >= 0)),
            **dict.fromkeys(NUMBERS, ("<number>", lambda value: _is_number(value) and value > 0)),
            **dict.fromkeys(VERSIONS, ("<version>", lambda value: isinstance(value, str))),
            **(rules or {}),
        }

    def counts_differ_from_now_on(self) -> None:
        """After a ``< ...``: ``seq`` and totals have a name too."""
        for field in ("seq", *TOTALS):
            self._rules[field] = ("<number>", _is_number)

    def real(self, text: str) -> str:
        """``text`` with what its names stand for."""
        for name, meant in self._texts.items():
            text = text.replace(name, meant)
        for meant, name in (self._handles | self._snapshots).items():
            text = text.replace(name, meant)
        return text

    def named(self, value: Any, field: str = "") -> Any:
        """The JSON ``value``, found in ``field``, with names in it."""
        if isinstance(value, dict):
            return {key: self.named(inner, key) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.named(inner) for inner in value]
        if field in self._rules:
            name, holds = self._rules[field]
            return name if holds(value) else value
        if isinstance(value, str):
            if field in {"result", "handleId"} and _UUID.fullmatch(value):
                return self._handles.setdefault(value, f"<handle-{len(self._handles) + 1}>")
            return self.named_text(value)
        return value

    def named_text(self, text: str) -> str:
        """Any text with names for what stands in its midst."""
        text = _UUID.sub(lambda match: self._handles.get(match[0], match[0]), text)
        for name, meant in self._texts.items():
            text = text.replace(meant, name)
        return _FREE.sub("<free>", _SNAPSHOT.sub(self._name_of_snapshot, text))

    def _name_of_snapshot(self, match: re.Match[str]) -> str:
        if self._is_fixed(match[0]):
            return match[0]
        return self._snapshots.setdefault(match[0], f"<backup-{len(self._snapshots) + 1}>")

    def _is_time_of_run(self, value: object) -> bool:
        return isinstance(value, str) and bool(_TIME.fullmatch(value)) and not self._is_fixed(value)

    def _is_fixed(self, time: str) -> bool:
        return self._fixed is not None and time.startswith(self._fixed)


def without_secrets(value: Any) -> Any:
    """``value`` with a name for each password and passphrase in it."""
    if isinstance(value, dict):
        return {
            key: SECRET if key in SECRETS and isinstance(inner, str) else without_secrets(inner)
            for key, inner in value.items()
        }
    return [without_secrets(inner) for inner in value] if isinstance(value, list) else value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
