"""``python -m tests.bench.bundle PROGRAM …``: how large each bundled sidecar is, and how soon it answers.

From the spawn to the answer of a ``ping``, with the program in the page cache, and after it was put out of it. The
first row is the sidecar of this Python. Nothing passes or fails.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sidecar.limits import MIB
from tests.bench.process import Sidecar

_ROUNDS = 10


def files_of(program: Path) -> list[Path]:
    """The program, and what lies in the folder that PyInstaller put beside it."""
    beside = program.parent / "_internal"
    return [program, *(file for file in beside.rglob("*") if file.is_file())]


def put_out_of_cache(files: list[Path]) -> None:
    for file in files:
        fd = os.open(file, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def answer_s(command: list[str]) -> float:
    started_s = time.perf_counter()
    with Sidecar(command=command) as sidecar:
        sidecar.call("ping")
        return time.perf_counter() - started_s


def main() -> None:
    commands = [[sys.executable, "-m", "sidecar"], *([program] for program in sys.argv[1:])]
    warm: list[list[float]] = [[] for _ in commands]
    cold: list[list[float]] = [[] for _ in commands]
    for number in range(_ROUNDS + 1):
        for index, command in enumerate(commands):
            seconds = answer_s(command)
            if number:
                warm[index].append(seconds)
    for _ in range(_ROUNDS):
        for index, command in enumerate(commands[1:], start=1):
            put_out_of_cache(files_of(Path(command[0])))
            cold[index].append(answer_s(command))
    table = Table("sidecar", "MiB", "answers after", "its files not in the page cache", title=f"medians of {_ROUNDS}")
    for index, command in enumerate(commands):
        size = f"{sum(file.stat().st_size for file in files_of(Path(command[0]))) / MIB:.1f}" if index else ""
        table.add_row(" ".join(Path(part).name for part in command), size, _ms(warm[index]), _ms(cold[index]))
    Console(width=110).print(table)


def _ms(seconds: list[float]) -> str:
    if not seconds:
        return ""
    low, high = min(seconds) * 1000, max(seconds) * 1000
    return f"{statistics.median(seconds) * 1000:.0f} ms ({low:.0f}–{high:.0f})"


if __name__ == "__main__":
    main()
