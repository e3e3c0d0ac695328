"""What the demo shows, with rich: lines, tables that move while a stream runs, and a picture of it all."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sidecar.demo.progress import AnalysisProgress, Counts

_PICTURE_COLUMNS = 80
_FRAMES_PER_S = 20
_NAME_CELLS = 14
_SHOWN_FAILURES = 3

# Rich's own template loads a font from another host.
_SVG_FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
    <style>
    .{unique_id}-matrix {{
        font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace;
        font-size: {char_height}px;
        line-height: {line_height}px;
    }}
    .{unique_id}-title {{
        font-size: 18px;
        font-weight: bold;
        font-family: "DejaVu Sans", Arial, sans-serif;
    }}
    {styles}
    </style>
    <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
    </clipPath>
    {lines}
    </defs>
    {chrome}
    <g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix" xml:space="preserve">
    {matrix}
    </g>
    </g>
</svg>
"""


class Screen:
    """The terminal, or a plain file, and a memory of what stayed on it."""

    def __init__(self) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._shown: list[RenderableType] = []

    def show(self, *parts: RenderableType) -> None:
        for part in parts:
            self._shown.append(part)
            _print(self._console, part)

    @contextmanager
    def live(self, draw: Callable[[], RenderableType]) -> Iterator[None]:
        """Draw again and again while the block runs, and a last time after it. Without a terminal: only then."""
        if self._console.is_interactive:
            with Live(get_renderable=draw, console=self._console, refresh_per_second=_FRAMES_PER_S):
                yield
            self._shown.append(draw())
        else:
            yield
            self.show(draw())

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Say what is going on, as long as it does."""
        with self._console.status(text):
            yield

    def save_picture(self, path: str) -> None:
        """Write what was shown as an SVG that needs nothing from elsewhere."""
        picture = Console(
            record=True,
            file=io.StringIO(),
            width=_PICTURE_COLUMNS,
            force_terminal=True,
            color_system="standard",
            no_color=False,
            highlight=False,
            markup=False,
            emoji=False,
        )
        for part in self._shown:
            _print(picture, part)
        # The frame cuts the last line a little short.
        picture.print()
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(picture.export_svg(title="make demo", code_format=_SVG_FORMAT))


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
    table = _table("agent", "", "sessions", "empty", "low value", "valuable", "size", "first at")
    # The bar alone gives way when the terminal is narrow.
    table.columns[1].no_wrap, table.columns[1].max_width = False, 12
    for agent in list(progress.agents.values()):
        counts = agent.counts
        table.add_row(
            _name(agent.name),
            _bar(counts.sessions, counts.files),
            f"{counts.sessions}/{counts.files}",
            str(counts.empty),
            str(counts.low_value),
            str(counts.valuable),
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
    else:
        text.append("No sessions found.", "yellow")
    if failed:
        text.append(f"\n{failed} {'item' if failed == 1 else 'items'} could not be read:", "yellow")
        for failure in progress.terminal["failures"][:_SHOWN_FAILURES]:
            text.append(f"\n  {printable(shown_path(failure['path']))}: {printable(failure['error'])}")
        if failed > _SHOWN_FAILURES:
            text.append(f"\n  and {failed - _SHOWN_FAILURES} more")
    return text


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
    table = _table("agent", "sessions", "messages", "tokens", "size", "last activity")
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


def _print(console: Console, part: RenderableType) -> None:
    console.print(part, soft_wrap=isinstance(part, Text) and bool(part.no_wrap))


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for number, header in enumerate(headers):
        table.add_column(header, justify="right" if number and header else "left", no_wrap=True)
    return table


def _total_cells(counts: Counts) -> list[str]:
    last = printable(counts.last_activity[:10]) or "-"
    return [str(counts.sessions), f"{counts.messages:,}", f"{counts.tokens:,}", _size(counts.size_bytes), last]


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
