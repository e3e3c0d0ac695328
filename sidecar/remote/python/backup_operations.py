"""What can be asked for of backups, by name: ``sidecar/backup``, which is sent along, does it; records tell of it."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable

from sidecar.backup.folder import Snapshot
from sidecar.backup.home import LocalBackups
from sidecar.backup.progress import Progress
from sidecar.cancel import CancelToken
from sidecar.errors import Cancelled, SidecarError
from sidecar.limits import PROGRESS_S
from sidecar.remote.python.errors import Fault
from sidecar.remote.python.host import Host
from sidecar.remote.python.locations import find_clawpal_dir
from sidecar.remote.python.output import Output
from sidecar.remote.python.text import raw
from sidecar.text import wire_name


class _Refused(Fault):
    """A ``SidecarError`` as records tell of it."""

    def __init__(self, error: SidecarError) -> None:
        super().__init__(error.message)
        self.kind = error.kind
        self.details = error.details


class _InputToken(CancelToken):
    """Is set when the input ends: then whoever asked has gone, or wants no more."""

    __slots__ = ("_output",)

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def check(self) -> None:
        """Raise ``Cancelled`` if the token is set."""
        if self._output.is_over:
            raise Cancelled


class _Reporter:
    """Says how far the work has come, not more often than anyone can look."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._said_at_s = 0.0
        self.progress = Progress(_InputToken(output), self._look)

    def _look(self) -> None:
        if time.monotonic() - self._said_at_s >= PROGRESS_S:
            self.say()
        self._output.tick()

    def say(self) -> None:
        """Say how far it has come."""
        self._said_at_s = time.monotonic()
        one = self.progress
        path = None if one.current_path is None else wire_name(one.current_path)
        counts = one.files_copied, one.bytes_copied, one.files_total, one.bytes_total
        self._output.say("progress", one.phase, *counts, path)


def backup(backups: LocalBackups, request: dict[str, Any], reporter: _Reporter, output: Output) -> None:
    """Make a snapshot, and say what it is."""
    made = backups.backup(bool(request["includeSessions"]), reporter.progress)
    reporter.say()
    output.say("snapshot", *_told(made))


def restore(backups: LocalBackups, request: dict[str, Any], reporter: _Reporter, output: Output) -> None:
    """Restore a snapshot, and say what it is, and what the one of the state before."""
    restored = backups.restore(str(request["backupName"]), bool(request["force"]), reporter.progress)
    reporter.say()
    output.say("snapshot", *_told(restored.snapshot))
    if restored.previous is None:
        output.say("previous", None)
    else:
        output.say("previous", *_told(restored.previous))


def verify(backups: LocalBackups, request: dict[str, Any], reporter: _Reporter, output: Output) -> None:
    """Check a snapshot, and say what it is."""
    verified = backups.verify(str(request["backupName"]), reporter.progress)
    reporter.say()
    output.say("snapshot", *_told(verified))


def list_all(backups: LocalBackups, _request: dict[str, Any], _reporter: _Reporter, output: Output) -> None:
    """Say which snapshots there are."""
    for snapshot in backups.list(_InputToken(output)):
        output.say("snapshot", *_told(snapshot))


def delete(backups: LocalBackups, request: dict[str, Any], _reporter: _Reporter, output: Output) -> None:
    """Delete a snapshot, and say whether there was one."""
    output.say("deleted", backups.delete(str(request["backupName"]), _InputToken(output)))


Work = Callable[[LocalBackups, "dict[str, Any]", _Reporter, Output], None]


def _op(work: Work) -> Callable[[Host, dict[str, Any]], None]:
    def run(host: Host, request: dict[str, Any]) -> None:
        clawpal_dir = find_clawpal_dir(request)
        backups = LocalBackups(raw(host.openclaw_dir), raw(clawpal_dir), bool(request["share"]))
        try:
            work(backups, request, _Reporter(host.output), host.output)
        except SidecarError as error:
            raise _Refused(error) from None
        finally:
            # This process ends without waiting for its threads, of which one may still remove what was staged.
            for thread in threading.enumerate():
                if thread is not threading.current_thread() and not thread.daemon:
                    thread.join()

    return run


def _told(snapshot: Snapshot) -> tuple[Any, ...]:
    name, path = (wire_name(one) for one in (snapshot.name, snapshot.path))
    return name, path, *snapshot[2:]


OPS = {
    "backup": _op(backup),
    "restore": _op(restore),
    "verify": _op(verify),
    "backups": _op(list_all),
    "delete-backup": _op(delete),
}
