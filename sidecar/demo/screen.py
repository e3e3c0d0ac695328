"""The terminal that the demo shows its parts on, with rich, and a picture of it all."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

_PICTURE_COLUMNS = 80
_FRAMES_PER_S = 20

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


def _print(console: Console, part: RenderableType) -> None:
    console.print(part, soft_wrap=isinstance(part, Text) and bool(part.no_wrap))
