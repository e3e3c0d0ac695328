"""The plots of the results, as SVG that follows the reader's light or dark mode and needs no font or script."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from tests.bench.report import SUBJECTS, mib, ms, rate
from tests.bench.results import Results, Spread

FOLDER = Path(__file__).parent

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 840, 214, 96, 84, 20
_BAR, _BETWEEN = 12, 16
_AXIS = 22
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: var(--text);
         paint-order: stroke; stroke: var(--card); stroke-width: 4px; stroke-linejoin: round }
  .title { font-size: 16px; font-weight: 600 }
  .faint { fill: var(--faint); font-size: 12px }
  .card { fill: var(--card); stroke: var(--line) }
  .grid { stroke: var(--line) }
  .spread { stroke: var(--text); stroke-width: 1.5 }
  .sidecar { fill: var(--sidecar) } .baseline { fill: var(--baseline) } .cancel { fill: var(--cancel) }
  svg { --card: #ffffff; --text: #1f2328; --faint: #59636e; --line: #d1d9e0;
        --sidecar: #0969da; --baseline: #afb8c1; --cancel: #bc4c00 }
  @media (prefers-color-scheme: dark) {
    svg { --card: #0d1117; --text: #f0f6fc; --faint: #9198a1; --line: #3d444d;
          --sidecar: #4493f8; --baseline: #6e7681; --cancel: #f0883e }
  }
"""


class Mark(NamedTuple):
    """A figure in a row: what it is of ("sidecar", "baseline", "cancel"), and how it is told."""

    kind: str
    value: Spread
    told: str


class Row(NamedTuple):
    """What is measured, and its figures; those that weren't are left out."""

    name: str
    marks: list[Mark]


def write_all(results: Results) -> None:
    for name, draw in PLOTS.items():
        (FOLDER / name).write_text(draw(results), encoding="utf-8")


def throughput(results: Results) -> str:
    """Transcripts analysed a second."""

    def marks(subject: str) -> Iterator[Mark]:
        for kind in ("sidecar", "baseline"):
            if wall := results.of(subject, kind, "wall_s"):
                of = wall.inverse(results.sizes_bytes[SUBJECTS[subject].corpus] / 1e6)
                yield Mark(kind, of, rate(of.median))

    return _bars("Throughput: transcripts read, MB a second", "more is better", _rows(marks))


def memory(results: Results) -> str:
    """The most that work takes above the process at rest."""

    def marks(subject: str) -> Iterator[Mark]:
        for kind in ("sidecar", "baseline"):
            if above := results.of(subject, kind, "above_idle_bytes"):
                yield Mark(kind, above, mib(above.median))

    return _bars("Peak memory above the process at rest, MiB", "less is better", _rows(marks))


def delays(results: Results) -> str:
    """When the first batch is there, when a cancel has done its work, and when the baseline has anything to show."""

    def marks(subject: str) -> Iterator[Mark]:
        for kind, side, quantity in (
            ("baseline", "baseline", "wall_s"),
            ("sidecar", "sidecar", "first_s"),
            ("cancel", "sidecar", "cancel_s"),
        ):
            if delay := results.of(subject, side, quantity):
                yield Mark(kind, delay, ms(delay.median))

    return _dots("Until there is something to see, and from a cancel to the end", "less is better", _rows(marks))


PLOTS: dict[str, Callable[[Results], str]] = {
    "throughput.svg": throughput,
    "delays.svg": delays,
    "memory.svg": memory,
}


def _rows(marks: Callable[[str], Iterator[Mark]]) -> list[Row]:
    rows = [Row(name, list(marks(subject))) for subject, (name, _) in SUBJECTS.items()]
    return [row for row in rows if row.marks]


def _bars(title: str, hint: str, rows: Sequence[Row]) -> str:
    """A bar for each mark, from zero on; the line across its end goes from the lowest round to the highest."""
    widest = max(mark.value.high for row in rows for mark in row.marks)
    scale = (_WIDTH - _LEFT - _RIGHT) / widest
    legend = (("sidecar", "sidecar"), ("baseline", "baseline"))
    parts, y = [], float(_TOP)
    for row in rows:
        height = len(row.marks) * (_BAR + 3)
        parts.append(_text(_LEFT - 12, y + height / 2 + 3, row.name, "end"))
        for mark in row.marks:
            low, end, high = (_LEFT + scale * at for at in (mark.value.low, mark.value.median, mark.value.high))
            middle = y + _BAR / 2
            parts.append(
                f'<rect class="{mark.kind}" x="{_LEFT}" y="{y:.1f}" width="{end - _LEFT:.1f}" height="{_BAR}" rx="2"/>'
            )
            parts.append(_line(low, middle, high, middle, "spread"))
            parts.append(_text(max(high, end) + 8, middle + 4.5, mark.told))
            y += _BAR + 3
        y += _BETWEEN
    return _card(title, hint, legend, [_line(_LEFT, _TOP - 8, _LEFT, y - _BETWEEN + 5, "grid"), *parts], y)


def _dots(title: str, hint: str, rows: Sequence[Row]) -> str:
    """A dot for each mark on a logarithmic scale of seconds, with a line from the lowest round to the highest."""
    values = [mark.value for row in rows for mark in row.marks]
    first = math.floor(math.log10(min(value.low for value in values)))
    last = math.ceil(math.log10(max(value.high for value in values)))
    scale = (_WIDTH - _LEFT - 40) / (last - first)

    def x(seconds: float) -> float:
        return _LEFT + scale * (math.log10(seconds) - first)

    legend = (("sidecar", "first batch"), ("cancel", "cancel"), ("baseline", "the baseline's whole answer"))
    parts, step = [], 44
    bottom = _TOP + _AXIS + step * len(rows)
    for power in range(first, last + 1):
        parts.append(_line(x(10.0**power), _TOP + 6, x(10.0**power), bottom - 12, "grid"))
        parts.append(_text(x(10.0**power), _TOP, _power(power), "middle", "faint"))
    for number, row in enumerate(rows):
        y = _TOP + _AXIS + step * number + 14
        parts.append(_text(_LEFT - 12, y + 4.5, row.name, "end"))
        for mark in row.marks:
            parts.append(_line(x(mark.value.low), y, x(mark.value.high), y, "spread"))
            parts.append(f'<circle class="{mark.kind}" cx="{x(mark.value.median):.1f}" cy="{y}" r="6"/>')
            parts.append(_text(x(mark.value.median), y - 10, mark.told, "middle", "faint"))
    return _card(title, hint, legend, parts, bottom)


def _power(power: int) -> str:
    """That power of ten, in seconds."""
    return f"{10**power} s" if power >= 0 else f"{10.0 ** (power + 3):g} ms"


def _card(title: str, hint: str, legend: Sequence[tuple[str, str]], parts: Sequence[str], bottom: float) -> str:
    height = round(bottom + _BOTTOM)
    key = []
    x = float(_LEFT)
    for kind, name in legend:
        key.append(f'<rect class="{kind}" x="{x}" y="45" width="12" height="12" rx="2"/>')
        key.append(_text(x + 18, 55.5, name, "start", "faint"))
        x += 42 + 7 * len(name)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
            f'height="{height}" role="img" aria-label="{escape(title)}">',
            f"<style>{_STYLE}</style>",
            f'<rect class="card" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>',
            _text(24, 31, title, "start", "title"),
            _text(_WIDTH - 24, 31, hint, "end", "faint"),
            *key,
            *parts,
            "</svg>",
            "",
        ]
    )


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    css = f' class="{kind}"' if kind else ""
    return f'<text{css} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
