"""What a store is, a place where sessions of one agent lie, whatever its format; what a home is, which has agents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import msgspec

from sidecar.cancel import CancelToken
from sidecar.core.analysis import Kind, SessionAnalysis
from sidecar.core.blocks import Block
from sidecar.core.failures import FailedItems


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


class AgentSource(Protocol):
    """All sessions of one agent, whatever stores they lie in. ``sessions_total`` and ``sessions`` as of ``Store``."""

    @property
    def agent(self) -> str: ...

    @property
    def sessions_total(self) -> int: ...

    def sessions(self, now_ms: float) -> Iterator[SessionAnalysis | None]: ...


class Home(Protocol):
    """An OpenClaw directory, here or on a host: what every session command reads.

    ``None`` among what is given stands for a moment in which there is nothing yet and another may have the thread. What
    can't be read goes into ``failed``, and the rest goes on; a directory that can't be read at all is an ``OSError`` or
    ``SidecarError``.
    """

    @property
    def now_ms(self) -> float:
        """The one reading of the clock there that ages are counted from; known once there is an agent."""

    def agents(self, token: CancelToken, failed: FailedItems) -> Iterator[AgentSource | None]:
        """The agents, by name; of each all sessions are to be taken before the next is asked for."""

    def files(self, token: CancelToken, failed: FailedItems) -> Iterator[SessionFile | None]:
        """What lies in the session folders and databases, sorted by ``relative_path``."""

    def transcript(self, agent_id: str, session_id: str, token: CancelToken) -> Iterator[Block | None] | None:
        """A transcript as of ``Store``; ``None`` if there is no such session or agent, ``InvalidParams`` for no names.

        Where that takes time to find out, it is only found out, and ``SessionNotFound`` raised, while it is read.
        """
