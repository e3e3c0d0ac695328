"""The host of transcripts that have one: a real sshd on this machine, with Node, Python and the sample home.

The sidecar knows it as several hosts, which differ in what there is for a login and in where OpenClaw's files lie.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any, Literal, Self, get_args

from tests.remote.node import node_executable
from tests.remote.sshd import Sshd, tools_folder
from tests.transcripts.sample_home import write_sample_home

Key = Literal["trusted", "unknown", "changed"]
"""What the sidecar knows of the host's key when the conversation begins."""
KEYS: tuple[Key, ...] = get_args(Key)

# What the engines are started with, and no more.
_TOOLS = ("sh", "env", "uname")
_PYTHON = Path("/usr/bin/python3")
_KEY_ALGORITHM = "ssh-ed25519"
_KEY_TYPES = ("ed25519",)
_KEY, _LOCKED_KEY, _BARE_KEY, _FULL_KEY = ".ssh/key", ".ssh/locked_key", ".ssh/bare_key", ".ssh/full_key"
_HOMES = ("brief", "large", "huge", "broken", "damaged", "busy", "blocked", "nobody")


class SampleHost:
    """A host that runs. To be used with ``with``; one serves any number of conversations, one after another."""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="clawpal-tools-")))
            folder.chmod(0o755)
            path = tools_folder(folder / "bin", _TOOLS, node=node_executable(), python3=_PYTHON)
            self._sshd = undo.enter_context(Sshd(path=str(path)))
            bare = tools_folder(folder / "bare", _TOOLS)
            self._bare = undo.enter_context(Sshd(path=str(bare), key_types=_KEY_TYPES))
            self._full = undo.enter_context(Sshd(max_sessions=0, key_types=_KEY_TYPES))
            # A port that is taken, and at which nobody listens; one where so many wait already that nobody is answered.
            silent, mute, *waiting = (undo.enter_context(socket.socket()) for _ in range(4))
            for taken in (silent, mute):
                taken.bind((self._sshd.host, 0))
            self._silent_port: int = silent.getsockname()[1]
            self._mute_port: int = mute.getsockname()[1]
            mute.listen(0)
            for client in waiting:
                client.setblocking(False)
                client.connect_ex(mute.getsockname())
            self._closing = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @property
    def port(self) -> int:
        return self._sshd.port

    @property
    def home(self) -> Path:
        return self._sshd.home

    @property
    def fingerprint(self) -> str:
        """Of the key by which the host is known, or shown to a client that doesn't know it."""
        return self._sshd.fingerprints[_KEY_ALGORITHM]

    def prepare(self, home: Path, key: Key) -> None:
        """Make the host as new, and known in ``home``, a sample home, by ``instances.json`` and ``known_hosts``."""
        self._empty()
        write_sample_home(self.home)
        self._sshd.account.own(*self.home.iterdir())

        keys = {
            _KEY: self._sshd.client_key,
            _LOCKED_KEY: self._sshd.encrypted_key,
            _BARE_KEY: self._bare.client_key,
            _FULL_KEY: self._full.client_key,
        }
        for name, given in keys.items():
            shutil.copy(given, home / name)
            (home / name).chmod(0o600)
        instances = home / ".clawpal" / "instances.json"
        stored = json.loads(instances.read_text())
        stored["instances"] += self._instances()
        instances.write_text(json.dumps(stored))
        known_hosts = {
            "trusted": "".join(host.known_hosts_line(_KEY_ALGORITHM) for host in (self._sshd, self._bare, self._full)),
            # As good as any other key of that kind.
            "changed": f"[{self._sshd.host}]:{self.port} {self._sshd.client_key.with_suffix('.pub').read_text()}",
            "unknown": "",
        }
        (home / ".ssh" / "known_hosts").write_text(known_hosts[key])

    def _empty(self) -> None:
        for path in self.home.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _instances(self) -> list[dict[str, Any]]:
        return [
            self._instance("sample"),
            *(self._instance(name, home=str(self.home / name)) for name in _HOMES),
            self._instance("locked", keyPath=f"~/{_LOCKED_KEY}"),
            self._instance("stranger", username="stranger"),
            self._instance("silent", port=self._silent_port),
            self._instance("mute", port=self._mute_port),
            self._instance("bare", port=self._bare.port, keyPath=f"~/{_BARE_KEY}"),
            self._instance("full", port=self._full.port, keyPath=f"~/{_FULL_KEY}"),
        ]

    def _instance(self, name: str, home: str | None = None, **settings: object) -> dict[str, Any]:
        instance_id = f"ssh:{name}"
        config = {
            "id": instance_id,
            "label": name,
            "host": self._sshd.host,
            "port": self.port,
            "username": self._sshd.user,
            "authMethod": "key",
            "keyPath": f"~/{_KEY}",
            **settings,
        }
        return {
            "id": instance_id,
            "instanceType": "remote_ssh",
            "label": name,
            "openclawHome": home,
            "clawpalDataDir": home and f"{home}/.clawpal",
            "sshHostConfig": config,
        }
