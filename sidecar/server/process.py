"""Facts about this process, and its memory."""

from __future__ import annotations

import sys
from typing import Any

from sidecar.limits import MAX_FREED_BYTES_AT_REST

_M_ARENA_MAX = -8
"""As in glibc's malloc.h."""


def share_one_heap() -> None:
    """Have all threads allocate from one heap of glibc; elsewhere this does nothing.

    It makes one for nearly every thread, and what is freed in one is neither given back nor used by others: after
    minutes of many streams that was 100 MiB.
    """
    if mallopt := _of_libc("mallopt"):
        mallopt(_M_ARENA_MAX, 1)


class FreedMemory:
    """Gives back to the system what glibc keeps of freed memory; elsewhere this does nothing."""

    def __init__(self) -> None:
        self._at_rest_bytes = 0

    def give_back(self) -> None:
        """To be called when nothing runs; takes some milliseconds if there is over ``MAX_FREED_BYTES_AT_REST``."""
        resident_bytes, _ = memory_bytes()
        if resident_bytes is None or resident_bytes <= self._at_rest_bytes + MAX_FREED_BYTES_AT_REST:
            return
        if malloc_trim := _of_libc("malloc_trim"):
            malloc_trim(0)
        self._at_rest_bytes = memory_bytes()[0] or 0


def memory_bytes() -> tuple[int | None, int | None]:
    """Resident memory now and at its peak, in bytes; ``None`` where the system has no cheap way to tell."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            fields = dict(line.split(":", 1) for line in status if ":" in line)
        return int(fields["VmRSS"].split()[0]) * 1024, int(fields["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        return None, _peak_bytes()


def _peak_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _of_libc(name: str) -> Any:
    if sys.platform != "linux":
        return None
    import ctypes

    return getattr(ctypes.CDLL(None), name, None)
