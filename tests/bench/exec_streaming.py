"""``python -m tests.bench.exec_streaming``: does output arrive before the end, does a slow reader hold it back?

Over a real sshd on loopback, with ``exec_streaming`` in this process. Nothing passes or fails.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sidecar.remote.connect import Surroundings
from sidecar.remote.hosts import SshHost
from sidecar.remote.pool import Host, SshConnectionPool
from tests.bench.process import status_bytes
from tests.remote.sshd import Sshd

MIB = 1024 * 1024
STALL_S = 3.0


async def measure(pool: SshConnectionPool, host: Host, table: Table) -> None:
    started_s = time.perf_counter()
    async with aclosing(pool.exec_streaming(host, "echo first; exec sleep 5")) as chunks:
        await anext(chunks)
        first_ms = (time.perf_counter() - started_s) * 1000
        table.add_row("first byte of a command that then sleeps 5 s", f"{first_ms:.1f} ms")

    started_s = time.perf_counter()
    count = 0
    async for chunk in pool.exec_streaming(host, "head -c 500000000 /dev/zero"):
        count += len(chunk)
    table.add_row("500 MB read as fast as it comes", f"{count / 1e6 / (time.perf_counter() - started_s):,.0f} MB/s")

    idle_bytes = status_bytes(os.getpid(), "VmRSS")
    _forget_peak()
    async with aclosing(pool.exec_streaming(host, "yes & echo $! >&2; wait")) as chunks:
        await anext(chunks)
        await asyncio.sleep(STALL_S)
        written = [_written_by_yes()]
        await asyncio.sleep(STALL_S)
        written.append(_written_by_yes())
    growth_bytes = status_bytes(os.getpid(), "VmHWM") - idle_bytes
    table.add_row(f"`yes`, unread for {STALL_S:.0f} s: bytes that it could write", f"{written[0] / MIB:.2f} MiB")
    table.add_row(f"and in another {STALL_S:.0f} s", f"{(written[1] - written[0]) / MIB:.2f} MiB")
    table.add_row("memory here meanwhile", f"{growth_bytes / MIB:+.2f} MiB")


def _written_by_yes() -> int:
    (name,) = [path for path in Path("/proc").glob("[0-9]*/comm") if path.read_text() == "yes\n"]
    fields = dict(line.split(": ") for line in name.with_name("io").read_text().splitlines())
    return int(fields["wchar"])


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


async def run(table: Table) -> None:
    with Sshd() as sshd, tempfile.TemporaryDirectory() as home:
        known_hosts = Path(home) / "known_hosts"
        known_hosts.write_text(sshd.known_hosts_line() + "\n")
        settings = SshHost(
            id="bench",
            label="bench",
            host=sshd.host,
            port=sshd.port,
            username=sshd.user,
            auth_method="key",
            key_path=str(sshd.client_key),
        )
        pool = SshConnectionPool()
        host = Host(settings, Surroundings(str(known_hosts), {"HOME": home}))
        await pool.connect(host)
        await measure(pool, host, table)
        await pool.close()


def main() -> None:
    table = Table("what", "measured")
    asyncio.run(run(table))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
