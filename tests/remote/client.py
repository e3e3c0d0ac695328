"""What commands do with hosts, for tests that speak to no sidecar: ``RemoteService`` with a loop of its own."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sidecar.errors import HostKeyUnknown
from sidecar.remote.home import RemoteHome
from sidecar.remote.service import RemoteService
from tests.remote.sshd import Account, Sshd

T = TypeVar("T")
DEADLINE_S = 60
HOST_ID = "ssh:host"


class Client:
    """Commands from one ClawPal directory, on hosts that are written into it."""

    def __init__(self, folder: Path) -> None:
        self.clawpal_dir = str(folder / ".clawpal")
        self.environ = {"HOME": str(folder), "PATH": os.environ["PATH"]}
        self.loop = asyncio.new_event_loop()
        self.service = RemoteService(self.environ)
        self._thread = threading.Thread(target=self.loop.run_forever, name="client")
        self._thread.start()

    def add(self, host: Sshd, account: Account | None = None, host_id: str = HOST_ID, home: str | None = None) -> None:
        """Make ``host`` known under ``host_id``, and its key trusted."""
        write_instance(Path(self.clawpal_dir), host, account or host.account, host_id, home)
        try:
            self.wait(self.service.connect(self.clawpal_dir, host_id))
        except HostKeyUnknown as error:
            self.wait(self.service.trust(self.clawpal_dir, host_id, str(error.details["fingerprint"])))
            self.wait(self.service.connect(self.clawpal_dir, host_id))

    def home(self, host_id: str = HOST_ID) -> RemoteHome:
        return RemoteHome(self.loop, lambda request: self.service.start_engine(self.clawpal_dir, host_id, request))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(DEADLINE_S)

    def close(self) -> None:
        self.wait(self.service.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@contextmanager
def client_in(folder: Path) -> Iterator[Client]:
    client = Client(folder)
    try:
        yield client
    finally:
        client.close()


def write_instance(
    clawpal_dir: Path, host: Sshd, account: Account, host_id: str = HOST_ID, home: str | None = None
) -> None:
    """``instances.json`` as the app writes it, with one host."""
    config = {
        "id": host_id,
        "label": "a host",
        "host": host.host,
        "port": host.port,
        "username": account.name,
        "authMethod": "key",
        "keyPath": str(host.client_key),
    }
    entry = {
        "id": host_id,
        "instanceType": "remote_ssh",
        "label": "a host",
        "openclawHome": home,
        "clawpalDataDir": None,
        "sshHostConfig": config,
    }
    clawpal_dir.mkdir(parents=True, exist_ok=True)
    (clawpal_dir / "instances.json").write_text(json.dumps({"instances": [entry]}))
