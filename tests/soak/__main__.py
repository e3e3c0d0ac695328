"""Many streams at once over all kinds of stores, cancelled at random, for minutes: ``python -m tests.soak``.

Nothing may be lost, doubled or late, and at the end there must be nothing left: no stream, thread, descriptor, child,
half-made snapshot, nor memory. Ends with 1 if there is.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.soak.streams import soak


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="in all, warm-up included (default: 300)")
    parser.add_argument("--warm-up", type=float, default=30.0, metavar="SECONDS", help="(default: 30)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        seen = asyncio.run(soak(Path(folder), arguments.seconds, arguments.warm_up, arguments.seed))
    print(seen)
    for breach in seen.breaches:
        print(f"BREACH: {breach}")
    sys.exit(1 if seen.breaches else 0)


if __name__ == "__main__":
    main()
