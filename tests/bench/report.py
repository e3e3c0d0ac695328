"""The results in words: tables for a terminal, and the part of the README that is drawn from the committed file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from sidecar.limits import MIB
from tests.bench.results import Results, Spread
from tests.bench.small import MEMORY_BYTES

README = Path(__file__).parents[2] / "README.md"


class Subject(NamedTuple):
    """What is measured, as tables and plots call it, and the letter of the corpus that it reads."""

    name: str
    corpus: str


SUBJECTS = {
    "A": Subject("110 MB in 1,000 files", "A"),
    "B": Subject("1 GB in 1,000 files", "B"),
    "C": Subject("one file of 500 MB", "C"),
    "D": Subject("20,000 files of 2 KB", "D"),
    "preview": Subject("preview of 500 MB", "C"),
    "S": Subject("1 GB in SQLite, zstd rows", "B"),
    "R node": Subject("1 GB on a host, by Node", "B"),
    "R python": Subject("1 GB on a host, by Python", "B"),
    "B cold": Subject("1 GB in 1,000 files, cold", "B"),
    "D cold": Subject("20,000 files of 2 KB, cold", "D"),
    "S cold": Subject("1 GB in SQLite, cold", "B"),
    "B slow disk": Subject("1 GB, 1,000 files, slow disk", "B"),
    "D slow disk": Subject("20,000 files, slow disk", "D"),
}

AIMS = {"A": 0.45, "B": 0.28, "C": 0.25, "D": 0.55, "preview": 0.50, "S": 2.50}
"""The most that the time may be of the baseline's; of S, that of our own for the same in files."""
_SMALL_PEAK = {"A", "B", "C"}
_FIRST_SOON = {"A", "B", "D"}

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


STARTS = {"start to the first reply": ("wall_s", ms), "memory at rest": ("idle_bytes", mib)}
AIMS_OF_STARTS = {
    ("start to the first reply", "bare imports with asyncssh"): "≤ 0.90",
    ("memory at rest", "bare imports"): "≤ 1.15",
}
"""What a start may take of bare imports."""


def table(results: Results) -> Table:
    """For a terminal, with what the project aims at."""
    machine = results.machine
    load = f"load {min(machine.load)}–{max(machine.load)}"
    title = f"{results.rounds} rounds, medians (lowest–highest); {machine.cores} cores, {load}"
    shown = Table("what", "sidecar", "beside it", "ratio", "aim", title=title)
    for subject, (name, _) in SUBJECTS.items():
        if subject in results.figures:
            _add_subject(shown, results, subject, name)
    for what, ours, beside, of in _others(results):
        shown.add_row(what, ours, beside, of, AIMS_OF_STARTS.get((what, beside.partition(":")[0]), ""))
    return shown


def _add_subject(shown: Table, results: Results, subject: str, name: str) -> None:
    theirs = "files" if subject == "S" else "baseline"
    of = results.ratio(subject, "wall_s", theirs=theirs)
    shown.add_row(name, "", "", of and ratio(of), f"≤ {AIMS[subject]:.2f}" if subject in AIMS else "")
    for what, quantity, told, aim in (
        ("whole", "wall_s", ms, ""),
        ("processor time", "cpu_s", ms, ""),
        ("first batch after the request", "first_s", ms, "≤ 30 ms" if subject in _FIRST_SOON else ""),
        ("cancel to terminal", "cancel_s", ms, "≤ 100 ms"),
        ("peak above idle", "above_idle_bytes", mib, "≤ 2 MiB" if subject in _SMALL_PEAK else "≤ 4 MiB"),
    ):
        if found := results.of(subject, "sidecar", quantity):
            beside = results.of(subject, theirs, quantity)
            of = results.ratio(subject, quantity, theirs=theirs) if quantity == "cpu_s" else None
            shown.add_row(
                f"   {what}",
                _spread(found, told),
                beside and _spread(beside, told),
                of and ratio(of),
                aim if subject in AIMS else "",
            )


def markdown(results: Results) -> str:
    """The README's tables."""
    lines = [
        "| | read, and by the baseline | time, of its | first batch | cancel | peak above idle, and its |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for subject, (name, _) in SUBJECTS.items():
        if subject in results.figures:
            of = results.ratio(subject, "wall_s")
            peaks = (results.of(subject, side, "above_idle_bytes") for side in ("sidecar", "baseline"))
            cells = [
                name,
                _rates(results, subject),
                ratio(of) if of else "–",
                *(_cell(results, subject, quantity) for quantity in ("first_s", "cancel_s")),
                ", ".join(mib(peak.median) for peak in peaks if peak) or "–",
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
    for what, (quantity, told) in STARTS.items():
        for side in ("imports", "imports with asyncssh"):
            yield from _pair(results, "start", what, quantity, told, side, f"bare {side}")
    for subject in ("one request at a time", "requests all at once"):
        yield from _pair(results, subject, f"{subject}, each", "wall_s", us, "echo", "a line echoed by Python")
    small = [results.of("small", "sidecar", quantity) for quantity in ("streams", "peak_bytes", "private_bytes")]
    if all(small):
        streams, peak, private = (found.median for found in small if found)
        yield (
            f"every stream over every corpus, on one core with {MEMORY_BYTES / 1e6:.0f} MB",
            f"{streams:.0f} streams end as they should, nothing fails",
            f"private memory {private / 1e6:.0f} MB at most, resident {peak / 1e6:.0f} MB",
            "",
        )


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


def _rates(results: Results, subject: str) -> str:
    """What is read a second, by the sidecar and by the baseline."""
    walls = [results.of(subject, side, "wall_s") for side in ("sidecar", "baseline")]
    size_mb = results.sizes_bytes[SUBJECTS[subject].corpus] / 1e6
    return ", ".join(rate(size_mb / wall.median) for wall in walls if wall) or "–"


def _spread(spread: Spread, told: Callable[[float], str]) -> str:
    return f"{told(spread.median)} (max {told(spread.high)})"


def with_figures(readme: str, results: Results) -> str:
    """A README with these results between its marks."""
    text, marks = _FIGURES.subn(lambda _: f"{_BEGIN}\n\n{markdown(results)}\n\n{_END}", readme)
    assert marks == 1, "README.md has no place for the figures"
    return text


def write_readme(results: Results) -> None:
    README.write_text(with_figures(README.read_text(encoding="utf-8"), results), encoding="utf-8")
