"""What a command is, and what it works on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sidecar.cancel import CancelToken
from sidecar.errors import HomeUnknown
from sidecar.server.remote import Remote
from sidecar.stores.locations import ActivePaths

if TYPE_CHECKING:
    from sidecar.remote.home import RemoteHome
    from sidecar.stores.home import LocalHome
    from sidecar.streams.backup import Backups

Job = Callable[[CancelToken], Any]
"""The work of an eager command; runs in a thread, and its result is the reply's."""


class Running(Protocol):
    """The streams that run, as far as commands deal with them."""

    def __len__(self) -> int: ...

    def cancel(self, handle_id: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Options:
    """What is chosen when the process starts.

    ``share`` is whether a snapshot shares files with the one before where nobody says so; ``index``, whether analyses
    remember what they have counted.
    """

    share: bool = True
    index: bool = True


DEFAULT_OPTIONS = Options()


@dataclass(slots=True)
class Context:
    """What commands work on: the paths of this connection, its streams, and the way to end it."""

    running: Running
    stop: Callable[[], None]
    options: Options = DEFAULT_OPTIONS
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    paths: ActivePaths = field(default_factory=ActivePaths)
    started_at_s: float = field(default_factory=time.monotonic)
    remote: Remote = field(init=False)

    def __post_init__(self) -> None:
        self.remote = Remote(self.environ)

    def openclaw_dir(self) -> str:
        return self.paths.openclaw_dir(self.environ)

    def clawpal_dir(self) -> str:
        return self.paths.clawpal_dir(self.environ)

    def index_folder(self) -> str | None:
        """Where the index of transcripts lies; ``None`` if there is to be none, or there is no place for it."""
        try:
            return os.path.join(self.clawpal_dir(), "cache") if self.options.index else None
        except HomeUnknown:
            return None

    def home(self, params: Any) -> LocalHome | RemoteHome:
        """The home that a session command is about: of the host that its parameters name, else that of this machine."""
        host_id: str | None = getattr(params, "host_id", None)
        if host_id is not None:
            return self.remote.home(self.clawpal_dir(), host_id)
        # Not with the other imports: the start needs neither this nor what backups need.
        from sidecar.stores.home import LocalHome

        return LocalHome(self.openclaw_dir(), index_folder=self.index_folder())

    def backups(self, params: Any) -> Backups:
        """The backups that a command is about, here or on a host as above."""
        chosen: bool | None = getattr(params, "share", None)
        share = self.options.share if chosen is None else chosen
        host_id: str | None = getattr(params, "host_id", None)
        if host_id is not None:
            return self.remote.backups(self.clawpal_dir(), host_id, share)
        from sidecar.backup.home import LocalBackups

        return LocalBackups(self.openclaw_dir(), self.clawpal_dir(), share)


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the table. ``run`` returns at once: a value, or the job to do, or the stream to start.

    ``params`` names a model of ``schema``, which is imported when a command first needs it. An eager command that can
    grow too large to answer names the stream to use instead. One that waits for a host (``at_host``), or copies a whole
    tree (``takes_long``), has threads of its own kind, so that no other waits behind the network or a backup.
    """

    name: str
    params: str | None
    kind: Literal["value", "job", "stream"]
    run: Callable[[Context, Any], Any]
    summary: str
    stream_instead: str | None = None
    at_host: bool = False
    takes_long: bool = False


def twin(command: Command) -> Command:
    """The same command on a host, which its parameters name before all others."""
    return replace(
        command,
        name=f"remote_{command.name}",
        params=f"Remote{command.params}" if command.params else "HostIdParams",
        summary=f"On a host: {command.summary[0].lower()}{command.summary[1:]}",
        stream_instead=command.stream_instead and f"remote_{command.stream_instead}",
        at_host=True,
    )
