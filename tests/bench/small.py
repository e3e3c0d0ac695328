"""A small machine: one core, 96 MB of memory; every stream over every corpus must end as it should, nothing failed.

What a process may have is bounded by RLIMIT_DATA: its private memory, touched or not. So it is refused what a cgroup
would kill it for. A thread's stack counts as a whole, and is of 1 MiB here instead of 8.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from sidecar.limits import MIB
from tests.bench.corpora import linked
from tests.bench.process import COMMAND, Sidecar, status_bytes
from tests.bench.remote import connected, path_with
from tests.remote.client import HOST_ID
from tests.remote.sshd import Sshd

MEMORY_BYTES = 96_000_000
_LIMITED = f"""
import os, resource, sys
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
resource.setrlimit(resource.RLIMIT_STACK, ({MIB}, {MIB}))
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]),) * 2)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Ended(NamedTuple):
    """A stream that ended as it should: where, of what, and what the process had of memory."""

    place: str
    corpus: str
    command: str
    wall_s: float
    peak_bytes: int
    private_bytes: int


def limited(command: Sequence[str], memory_bytes: int = MEMORY_BYTES) -> list[str]:
    """The command, on one core and with no more private memory than that."""
    return [sys.executable, "-c", _LIMITED, str(memory_bytes), *command]


def here(tree: Path, memory_bytes: int = MEMORY_BYTES) -> Iterator[Ended]:
    """Every stream over the tree, by one process; what it writes is put beside the tree meanwhile."""
    with tempfile.TemporaryDirectory(dir=tree.parent) as folder:
        openclaw = Path(folder) / "openclaw"
        shutil.copytree(tree, openclaw, copy_function=linked)
        command = limited(COMMAND, memory_bytes)
        with Sidecar(openclaw, command=command, CLAWPAL_DATA_DIR=Path(folder) / "clawpal") as sidecar:
            yield from _streams(sidecar, openclaw, "here", tree.name)


def at_host(engine: str, tree: Path) -> Iterator[Ended]:
    """The twins of all streams, by one process; the host is this machine, without the limits."""
    with tempfile.TemporaryDirectory() as folder, Sshd(path=path_with(engine, Path(folder))) as host:
        openclaw = host.home / ".openclaw"
        shutil.copytree(tree, openclaw)
        host.account.own(openclaw)
        with connected(host, limited(COMMAND)) as sidecar:
            yield from _streams(sidecar, openclaw, engine, tree.name)
        for written in (openclaw, host.home / ".clawpal"):
            shutil.rmtree(written, ignore_errors=True)  # which takes longer than a host may take to end


def _streams(sidecar: Sidecar, openclaw: Path, place: str, name: str) -> Iterator[Ended]:
    at_host: dict[str, Any] = {} if place == "here" else {"hostId": HOST_ID}
    prefix = "remote_" if at_host else ""
    sessions: list[tuple[int, str]] = []

    def note(line: bytes) -> None:
        sessions.extend((one["sizeBytes"], one["sessionId"]) for one in orjson.loads(line)["params"]["sessions"])

    def ended(method: str, *, each: Any = len, **params: Any) -> tuple[Ended, dict[str, Any]]:
        # Its memory above nothing is its whole size.
        run = sidecar.stream(f"{prefix}{method}", idle_bytes=0, each=each, **at_host, **params)
        if run.told.get("failedItems") or run.told.get("cancelled") or run.told.get("info", {}).get("failedItems"):
            raise SystemExit(f"{place}, {name}: {method}: {run.told}")
        private_bytes = status_bytes(sidecar.process.pid, "VmData")
        return Ended(place, name, f"{prefix}{method}", run.wall_s, run.above_idle_bytes, private_bytes), run.told

    done, told = ended("analyze_sessions_stream", each=note)
    if told["totalSessions"] != len(sessions) or not sessions:
        raise SystemExit(f"{place}, {name}: {len(sessions)} sessions came, of {told['totalSessions']}")
    yield done
    yield ended("list_session_files_stream")[0]
    yield ended("preview_session_stream", agentId="main", sessionId=max(sessions)[1])[0]
    if place == "sftp":
        return  # where nothing runs there are no backups
    done, told = ended("backup_before_upgrade_stream")
    yield done
    backup_name = told["info"]["name"]
    yield ended("verify_backup_stream", backupName=backup_name)[0]
    lost = max(openclaw.glob("agents/main/*/*"), key=lambda path: path.stat().st_size)
    size_bytes = lost.stat().st_size
    lost.unlink()
    yield ended("restore_from_backup_stream", backupName=backup_name)[0]
    if lost.stat().st_size != size_bytes:
        raise SystemExit(f"{place}, {name}: the restore gave another {lost.name}")
