"""Half a minute of what ``python -m tests.soak`` does for five."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.soak.streams import STREAMS, soak

SECONDS = 30.0
# Half a minute, as the longer run has it, would leave none.
WARM_UP_S = 12.0


async def test_many_streams_over_all_kinds_of_stores_cancelled_at_random_leave_nothing(
    tmp_path: Path, record_measured: Callable[[str], None]
) -> None:
    seen = await soak(tmp_path, SECONDS, WARM_UP_S)

    record_measured(f"soak: {seen}")
    assert seen.breaches == []
    assert sum(count for name, count in seen.ends.items() if name.endswith(" cancelled")) > STREAMS
    assert sum(count for name, count in seen.ends.items() if name.endswith("_stream done")) > STREAMS
