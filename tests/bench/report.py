"""The results in words: tables for a terminal, and the part of the README that is drawn from the committed file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.table import Table

from sidecar.limits import MIB
from tests.bench.results import Results, Spread

README = Path(__file__).parents[2] / "README.md"

ROWS = {
    "A": "110 MB in 1,000 files",
    "B": "1 GB in 1,000 files",
    "C": "one file of 500 MB",
    "D": "20,000 files of 2 KB",
    "preview": "preview of 500 MB",
    "S": "1 GB in SQLite, zstd rows",
    "R node": "1 GB on a host, by Node",
    "R python": "1 GB on a host, by Python",
    "B cold": "1 GB in 1,000 files, cold",
    "D cold": "20,000 files of 2 KB, cold",
}
"""What is measured, as it is called in tables and plots."""

AIMS = {"A": 0.60, "B": 0.40, "C": 0.35, "D": 0.70, "preview": 0.60, "S": 2.50}
"""The most that the time may be of the baseline's; of S, that of our own for the same in files."""

_BEGIN = (
    "<!-- figures: drawn from tests/bench/results.json by make bench, checked by tests/unit/test_bench_report.py -->"
)
_END = "<!-- /figures -->"
_FIGURES = re.compile(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", re.DOTALL)


def ms(seconds: float) -> str:
    """Milliseconds with two or three digits that count; seconds from one on."""
    if seconds >= 1:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:,.0f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms".replace(".0 ", " ")


def us(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs"


def mib(size_bytes: float) -> str:
    return f"{size_bytes / MIB:.1f} MiB"


def rate(mb_a_second: float) -> str:
    """With three digits at most, since the next one differs from run to run."""
    return f"{float(f'{mb_a_second:.3g}'):,.0f} MB/s"


def ratio(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.low:.2f}–{spread.high:.2f})"


def table(results: Results) -> Table:
    """For a terminal, with what the project aims at."""
    machine = results.machine
    load = f"load {min(machine.load)}–{max(machine.load)}"
    title = f"{results.rounds} rounds, medians (lowest–highest); {machine.cores} cores, {load}"
    shown = Table("what", "sidecar", "beside it", "ratio", "aim", title=title)
    for subject, name in ROWS.items():
        if wall := results.of(subject, "sidecar", "wall_s"):
            theirs = "files" if subject == "S" else "baseline"
            beside = results.of(subject, theirs, "wall_s")
            of = results.ratio(subject, "wall_s", theirs=theirs)
            aim = f"≤ {AIMS[subject]:.2f}" if subject in AIMS else ""
            shown.add_row(name, ms(wall.median), beside and ms(beside.median), of and ratio(of), aim)
            if of := results.ratio(subject, "cpu_s", theirs=theirs):
                shown.add_row("   processor time", "", "", ratio(of))
        for what, quantity, told, aim in (
            ("first batch after the request", "first_s", ms, "≤ 50 ms"),
            ("cancel to terminal", "cancel_s", ms, "≤ 100 ms"),
            ("peak above idle", "above_idle_bytes", mib, "≤ 8 MiB" if subject == "preview" else "≤ 4 MiB"),
        ):
            if found := results.of(subject, "sidecar", quantity):
                beside = results.of(subject, "baseline", quantity)
                shown.add_row(
                    f"   {what}",
                    _spread(found, told),
                    beside and _spread(beside, told),
                    "",
                    aim if subject in AIMS else "",
                )
    for row in _others(results):
        shown.add_row(*row)
    return shown


def markdown(results: Results) -> str:
    """The README's tables."""
    lines = [
        "| | read, and by the baseline | time, of its | first batch | cancel | peak above idle, and its |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for subject, name in ROWS.items():
        if wall := results.of(subject, "sidecar", "wall_s"):
            size_mb = results.sizes_bytes[subject] / 1e6
            beside = results.of(subject, "baseline", "wall_s")
            of = results.ratio(subject, "wall_s")
            peaks = (results.of(subject, side, "above_idle_bytes") for side in ("sidecar", "baseline"))
            cells = [
                name,
                ", ".join(rate(size_mb / each.median) for each in (wall, beside) if each),
                ratio(of) if of else "–",
                *(_cell(results, subject, quantity) for quantity in ("first_s", "cancel_s")),
                ", ".join(mib(peak.median) for peak in peaks if peak),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| | sidecar | beside it | ratio |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in _others(results)]
    machine = results.machine
    lines += [
        "",
        f"Medians of {results.rounds} rounds, in which both sides take turns, with the lowest and highest ratio. "
        f"{machine.date}, {machine.cores} cores, Python {machine.python}, "
        f"load {min(machine.load)} to {max(machine.load)}.",
    ]
    return "\n".join(lines)


def _others(results: Results) -> Iterator[tuple[str, str, str, str]]:
    """What is no work on a corpus: what, ours, what stands beside it, the ratio."""
    if databases := results.ratio("S", "wall_s", theirs="files"):
        ours, files = results.of("S", "sidecar", "wall_s"), results.of("S", "files", "wall_s")
        assert ours
        assert files
        yield "1 GB in SQLite", ms(ours.median), f"the same in files, by us: {ms(files.median)}", ratio(databases)
    for what, quantity, told in (("start to the first reply", "wall_s", ms), ("memory at rest", "idle_bytes", mib)):
        for side in ("imports", "imports with asyncssh"):
            yield from _pair(results, "start", what, quantity, told, side, f"bare {side}")
    for subject in ("one request at a time", "requests all at once"):
        yield from _pair(results, subject, f"{subject}, each", "wall_s", us, "echo", "a line echoed by Python")


def _pair(
    results: Results, subject: str, what: str, quantity: str, told: Callable[[float], str], side: str, name: str
) -> Iterator[tuple[str, str, str, str]]:
    ours, theirs = results.of(subject, "sidecar", quantity), results.of(subject, side, quantity)
    of = results.ratio(subject, quantity, theirs=side)
    if ours and theirs and of:
        yield what, told(ours.median), f"{name}: {told(theirs.median)}", ratio(of)


def _cell(results: Results, subject: str, quantity: str) -> str:
    found = results.of(subject, "sidecar", quantity)
    return ms(found.median) if found else "–"


def _spread(spread: Spread, told: Callable[[float], str]) -> str:
    return f"{told(spread.median)} (max {told(spread.high)})"


def with_figures(readme: str, results: Results) -> str:
    """A README with these results between its marks."""
    text, marks = _FIGURES.subn(lambda _: f"{_BEGIN}\n\n{markdown(results)}\n\n{_END}", readme)
    assert marks == 1, "README.md has no place for the figures"
    return text


def write_readme(results: Results) -> None:
    README.write_text(with_figures(README.read_text(encoding="utf-8"), results), encoding="utf-8")
