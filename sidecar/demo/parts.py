"""What the demo shows: lines, and tables that move while a stream runs."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from sidecar.demo.progress import AnalysisProgress, Counts, Latest, PreviewProgress

SHOWN_MESSAGES = 6
_SHOWN_FAILURES = 3
_SHOWN_CHARACTERS = 400
_NAME_CELLS = 14
_IN_FILES, _IN_DATABASE, _ARCHIVED = "cyan", "magenta", "yellow"


class EraBar:
    """How many of an agent's sessions have arrived, by where they lie. It gives way where the terminal is narrow."""

    def __init__(self, counts: Counts) -> None:
        self._total = max(counts.expected, 1)
        self._parts = (
            (counts.in_files, _IN_FILES),
            (counts.in_database, _IN_DATABASE),
            (counts.archives, _ARCHIVED),
        )

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(4, min(12, options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        width = min(12, options.max_width)
        arrived = drawn = 0
        for count, color in self._parts:
            arrived += count
            cells = min(width, round(arrived / self._total * width)) - drawn
            yield Segment("━" * cells, Style(color=color))
            drawn += cells
        yield Segment(("━" if console.color_system else " ") * (width - drawn), Style(color="bright_black"))


def heading(text: str, command: str) -> Text:
    """The start of a part, and the command it is about."""
    return Text.assemble("\n", (text, "bold"), "  ", (command, "cyan"))


def analysis_so_far(progress: AnalysisProgress, memory_now: int | None = None) -> RenderableType:
    """A header line, and a row for each agent that has appeared."""
    header = f"{_ms(progress.elapsed_ms)} elapsed"
    if progress.first_chunk_ms is not None:
        header += f", first chunk after {_ms(progress.first_chunk_ms)}"
    if memory_now is not None:
        header += f", sidecar at {_size(memory_now)}"
    table = _table("agent", "", "sessions", "files", "database", "archives", "size", "first at")
    # The bar alone gives way when the terminal is narrow.
    table.columns[1].no_wrap = False
    for column, color in zip(table.columns[3:6], (_IN_FILES, _IN_DATABASE, _ARCHIVED), strict=True):
        column.header_style = f"not dim {color}"
    for agent in list(progress.agents.values()):
        counts = agent.counts
        table.add_row(
            _name(agent.name),
            EraBar(counts),
            f"{counts.sessions}/{counts.expected}",
            *(str(count or "-") for count in (counts.in_files, counts.in_database, counts.archives)),
            _size(counts.size_bytes),
            _ms(agent.first_chunk_ms),
        )
    return Group(Text(header), table) if progress.agents else Text(header)


def analysis_summary(progress: AnalysisProgress) -> Text:
    """One line about a stream that has ended, and what it could not read."""
    total, failed = progress.total(), progress.terminal["failedItems"]
    text = Text()
    if total.sessions:
        text.append(f"{total.sessions} sessions, {_size(total.size_bytes)} ", "bold green")
        text.append(f"in {progress.elapsed_ms / 1000:.2f} s, in {progress.chunks} chunks", "green")
        text.append(f"\n{total.in_files} in files, {total.in_database} in databases, {total.archives} archived")
        if progress.archived_as:
            ways = (f"{count} {way}" for way, count in progress.archived_as.most_common())
            text.append(f" ({', '.join(ways)})")
    else:
        text.append("No sessions found.", "yellow")
    if failed:
        text.append(f"\n{failed} {'item' if failed == 1 else 'items'} could not be read:", "yellow")
        for failure in progress.terminal["failures"][:_SHOWN_FAILURES]:
            text.append(f"\n  {printable(shown_path(failure['path']))}: {printable(failure['error'])}")
        if failed > _SHOWN_FAILURES:
            text.append(f"\n  and {failed - _SHOWN_FAILURES} more")
    return text


def preview_source(latest: Latest, place: str) -> Text:
    """Which session a preview is of."""
    where = {"sqlite": "in a database", "jsonl": "in a file"}.get(place, "that is archived")
    name = f"{printable(latest.agent)}/{printable(latest.session_id)}"
    return Text.assemble(f"The latest session {where}: ", (name, "bold"))


def preview(progress: PreviewProgress) -> RenderableType:
    """The first messages, a line each, and how many there are."""
    if progress.error is not None:
        return Text(f"It could not be read: {printable(progress.error)}", "yellow")
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(no_wrap=True, max_width=_NAME_CELLS, style="dim")
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for message in progress.messages:
        content = " ".join(message["content"][:_SHOWN_CHARACTERS].split())
        table.add_row(printable(message["role"]), printable(content) or Text("(no text)", "dim"))
    more = progress.total - len(progress.messages)
    summary = Text.assemble((f"{progress.total} messages", "bold green"))
    if progress.first_page_ms is not None:
        summary.append(f", the first page after {_ms(progress.first_page_ms)}", "green")
    return Group(table, Text(f"and {more} more", "dim"), summary) if more else Group(table, summary)


def cancel_so_far(progress: AnalysisProgress, expected: int) -> RenderableType:
    """One bar for the whole stream."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    arrived = progress.total().sessions
    grid.add_row(_bar(arrived, expected, width=36), f"{arrived}/{expected} sessions", f"{_ms(progress.elapsed_ms)}")
    return grid


def cancel_summary(progress: AnalysisProgress, expected: int, at_cancel: int, cancelled_ms: float | None) -> Text:
    """What a cancel did: ``cancelled_ms`` is when it was sent, by the stream's clock, and ``None`` if it never was."""
    arrived = progress.total().sessions
    if cancelled_ms is None or not progress.terminal["cancelled"]:
        return Text(f"The stream ended before it could be cancelled: {arrived} of {expected} arrived.", "yellow")
    late = arrived - at_cancel
    return Text.assemble(
        f"Cancelled when {at_cancel} had arrived{f', with {late} more on the way' if late else ''}.\n",
        ("sessions:done, cancelled: true, ", "bold green"),
        (f"{_ms(progress.elapsed_ms - cancelled_ms)} after the cancel", "green"),
    )


def totals(progress: AnalysisProgress) -> RenderableType:
    """The agents, the largest first, and their sum."""
    table = _table("agent", "empty", "low value", "valuable", "messages", "tokens", "last activity")
    rows = sorted(progress.agents.values(), key=lambda agent: -agent.counts.size_bytes)
    for agent in rows:
        table.add_row(_name(agent.name), *_total_cells(agent.counts))
    if rows:
        table.rows[-1].end_section = True
    table.add_row("total", *_total_cells(progress.total()), style="bold")
    return Group(Text(), table)


def memory_line(before: dict[str, Any], after: dict[str, Any]) -> Text:
    """From two answers of ``get_sidecar_info``: the idle process, and its peak since."""
    idle, peak = before["memory"]["residentBytes"], after["memory"]["peakBytes"]
    if idle is None or peak is None:
        return Text(f"Sidecar memory: {_size(peak)} at its peak" if peak else "Sidecar memory: not told by this system")
    return Text.assemble(
        f"Sidecar memory: {_size(idle)} idle, {_size(peak)} at its peak: ",
        (f"{_size(max(0, peak - idle))} above idle", "bold green"),
    )


def what_next(openclaw_dir: str) -> Text:
    """Lines to copy, which nothing may wrap."""
    home = shlex.quote(shown_path(openclaw_dir))
    return Text.assemble(
        ("\nNext\n", "bold"),
        ("make demo HOME_DIR=~", "cyan"),
        "  shows your own sessions, and only reads them\n",
        ("protocol/protocol.md", "cyan"),
        "  says what goes over the pipes; to see it:\n",
        (
            'printf \'{"jsonrpc":"2.0","id":1,"method":"analyze_sessions_stream"}\\n\' |\n'
            f"  OPENCLAW_HOME={home} {_sidecar_command()}",
            "cyan",
        ),
        no_wrap=True,
        overflow="ignore",
    )


def shown_path(path: str) -> str:
    """``path`` relative to the current directory if it is in it, with ``~`` if it is in the home directory."""
    path = os.path.abspath(path)
    here, home = os.getcwd(), os.path.expanduser("~")
    if path == here or path.startswith(os.path.join(here, "")):
        return os.path.relpath(path, here)
    if path == home or path.startswith(os.path.join(home, "")):
        return os.path.join("~", os.path.relpath(path, home)) if path != home else "~"
    return path


def printable(text: str) -> str:
    """Text without control codes: a file's name could move the cursor."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for number, header in enumerate(headers):
        table.add_column(header, justify="right" if number and header else "left", no_wrap=True)
    return table


def _total_cells(counts: Counts) -> list[str]:
    last = printable(counts.last_activity[:10]) or "-"
    values = (counts.empty, counts.low_value, counts.valuable)
    return [*map(str, values), f"{counts.messages:,}", f"{counts.tokens:,}", last]


def _bar(done: int, total: int, width: int | None = None) -> ProgressBar:
    return ProgressBar(
        total=max(total, 1),
        completed=done,
        width=width,
        style="bright_black",
        complete_style="cyan",
        finished_style="green",
    )


def _name(name: str) -> Text:
    text = Text(printable(name), "bold")
    text.truncate(_NAME_CELLS, overflow="ellipsis")
    return text


def _ms(ms: float) -> str:
    return f"{ms:.1f} ms" if ms < 10 else f"{ms:.0f} ms" if ms < 10_000 else f"{ms / 1000:.1f} s"


def _size(count: int) -> str:
    """Decimal units, as disks have them."""
    if count < 1_000:
        return f"{count} B"
    if count < 1_000_000:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1_000_000_000 else f"{count / 1e9:.2f} GB"


def _sidecar_command() -> str:
    script = os.path.join(os.path.dirname(sys.executable), "clawpal-sidecar")
    if os.path.exists(script):
        return shlex.quote(shown_path(script))
    return "clawpal-sidecar" if shutil.which("clawpal-sidecar") else "python -m sidecar"
