"""Figures of several rounds, in words for a terminal: the median, and with it the spread or the largest."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from sidecar.limits import MIB


def ms_of(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) * 1000:,.0f} ms"


def mib_of(sizes_bytes: Sequence[float]) -> str:
    return f"{statistics.median(sizes_bytes) / MIB:.1f} MiB (max {max(sizes_bytes) / MIB:.1f})"


def ratios_of(baseline: Sequence[float], ours: Sequence[float], digits: int = 2) -> str:
    """Of each round beside its neighbour."""
    ratios = [mine / theirs for theirs, mine in zip(baseline, ours, strict=True)]
    median, low, high = (f"{ratio:.{digits}f}" for ratio in (statistics.median(ratios), min(ratios), max(ratios)))
    return f"{median} ({low}–{high})"
