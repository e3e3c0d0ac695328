"""What a store is: a place where sessions of one agent lie, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import msgspec

from sidecar.core.analysis import Kind, SessionAnalysis
from sidecar.core.blocks import Block


class SessionFile(msgspec.Struct, rename="camel", gc=False):
    """A row of ``list_session_files``; ``relative_path`` is below the OpenClaw directory, with ``/``."""

    path: str
    relative_path: str
    agent: str
    kind: Kind
    size_bytes: int


class Store(Protocol):
    """Sessions of one agent. Reading leaves no trace: no file of ours, no lock, no transaction while output waits.

    What can't be read goes into the ``FailedItems`` that the store was made with, and the rest goes on.
    """

    @property
    def sessions_total(self) -> int:
        """How many sessions are known here; goes down when one vanishes before it is read."""

    def sessions(self, now_ms: float) -> Iterator[SessionAnalysis | None]:
        """Analyse one session after another in a stable order; ``None`` between the blocks of a large one."""

    def transcript(self, session_id: str) -> Iterator[Block] | None:
        """The transcript of a session as blocks of whole lines, in order; ``None`` if it isn't here.

        A block is valid until the next is asked for. ``OSError`` or ``SidecarError`` where it can't be read.
        """
