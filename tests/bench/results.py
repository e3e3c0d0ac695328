"""What a bench has measured, every round of it, and the file that keeps it: plots and tables are drawn from that."""

from __future__ import annotations

import os
import platform
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

FILE = Path(__file__).with_name("results.json")
_SIGNIFICANT_DIGITS = 4
_LIST = re.compile(rb"\[([^\[\]{}]*)\]")
"""The rounds of one figure, which stand on one line."""


class Machine(msgspec.Struct):
    """Where and when the rounds were run; ``load`` is that of the last minute, before each corpus and at the end."""

    date: str
    cores: int
    python: str
    load: list[float]


class Results(msgspec.Struct):
    """``figures`` has a list of rounds for each subject ("B"), side ("sidecar") and quantity ("wall_s").

    ``sizes_bytes`` says how large the transcripts of each corpus are.
    """

    machine: Machine
    rounds: int
    sizes_bytes: dict[str, int]
    figures: dict[str, dict[str, dict[str, list[float]]]]

    def add(self, subject: str, side: str, /, **quantities: float) -> None:
        """One round."""
        of_side = self.figures.setdefault(subject, {}).setdefault(side, {})
        for quantity, value in quantities.items():
            of_side.setdefault(quantity, []).append(float(f"{value:.{_SIGNIFICANT_DIGITS}g}"))

    def add_load(self) -> None:
        self.machine.load.append(round(os.getloadavg()[0], 1))

    def of(self, subject: str, side: str, quantity: str) -> Spread | None:
        """Median and extremes over the rounds; ``None`` where it wasn't measured."""
        rounds = self.figures.get(subject, {}).get(side, {}).get(quantity)
        return Spread.of(rounds) if rounds else None

    def ratio(self, subject: str, quantity: str, ours: str = "sidecar", theirs: str = "baseline") -> Spread | None:
        """Of the rounds, each beside its neighbour."""
        sides = self.figures.get(subject, {})
        if quantity not in sides.get(ours, {}) or quantity not in sides.get(theirs, {}):
            return None
        pairs = zip(sides[ours][quantity], sides[theirs][quantity], strict=True)
        return Spread.of([mine / other for mine, other in pairs])


class Spread(NamedTuple):
    """Of several rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def scaled(self, factor: float) -> Spread:
        return Spread(*(value * factor for value in self))

    def inverse(self, numerator: float) -> Spread:
        """Of ``numerator / value``."""
        return Spread(numerator / self.median, numerator / self.high, numerator / self.low)


def begun(rounds: int, sizes_bytes: Mapping[str, int]) -> Results:
    """Results of this machine, without figures."""
    machine = Machine(time.strftime("%Y-%m-%d", time.gmtime()), os.cpu_count() or 0, platform.python_version(), [])
    return Results(machine, rounds, dict(sizes_bytes), {})


def load(path: Path = FILE) -> Results:
    return msgspec.json.decode(path.read_bytes(), type=Results)


def save(results: Results, path: Path = FILE) -> None:
    text = msgspec.json.format(msgspec.json.encode(results), indent=1)
    path.write_bytes(_LIST.sub(lambda found: b"[" + b" ".join(found[1].split()) + b"]", text) + b"\n")
