"""Debian's own sshd, run by the tests beside the system's, with keys, accounts and homes that the system never sees."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Self

import pytest

from tests.client import eventually

AS_ROOT = os.geteuid() == 0
PASSWORD = "a walk in the woods"
"""What ``walker`` logs in with where keys aren't wanted; root has no password."""
PASSPHRASE = "correct horse"
"""What opens ``Sshd.encrypted_key``."""
KEY_TYPES = ("ed25519", "ecdsa", "rsa")

_PASSWORD_HASH = (
    "$6$clawpal$YGvLdiBKMFoZ7K2RNN7Rk1rMY5I8h2pV/FWfRxvec.j5KghhpaUI6RsK9YC4oUxvrEsl0VbPbWVpO6pH/Jsqx0"  # of PASSWORD
)
_WALKER_ID = 4242
_SYSTEM_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SUPERVISOR = Path(__file__).with_name("supervisor.py")
# Without root, an account may still mount things over the system's files for itself and what it runs.
_AS_ITSELF = () if AS_ROOT else ("--user", "--map-current-user", "--keep-caps")
_IN_NAMESPACES = ("unshare", *_AS_ITSELF, "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child")
_WITHIN_S = 20.0
_POLL_S = 0.002
_PORT_TRIES = 5
# sshd since 9.8 lets an address wait that failed to log in, and every test has the same address.
_PENALTIES_SINCE = (9, 8)


@dataclass(frozen=True)
class Account:
    """Who can log in, and what ``~`` is for them."""

    name: str
    uid: int
    gid: int
    home: Path

    def own(self, *paths: Path) -> None:
        """Give files that a test has made to this account, folders with all that is in them."""
        for top in paths:
            for path in (top, *top.rglob("*")):
                os.chown(path, self.uid, self.gid, follow_symlinks=False)


@dataclass(frozen=True)
class RemoteProcess:
    """Something that runs on the host and isn't sshd; ``pid`` is what this side knows it by."""

    pid: int
    command: str


def cannot(what: str) -> NoReturn:
    """Skip a test because of what this machine hasn't got; under CI that is a failure."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{what}; under CI nothing may be skipped", pytrace=False)
    pytest.skip(what)


def sshd_program() -> str:
    """Where sshd is; the test is skipped if there is none."""
    found = shutil.which("sshd", path=_SYSTEM_FOLDERS)
    if not found or not shutil.which("ssh-keygen"):
        cannot("tests against a real sshd need Debian's openssh-server and openssh-client")
    return found


def program(name: str) -> str:
    """Where one of the system's programs is; the test is skipped if there is none."""
    found = shutil.which(name, path=_SYSTEM_FOLDERS)
    if found is None:
        cannot(f"this test needs the program {name}")
    return found


def require_root(what: str) -> None:
    """Skip the test unless it runs as root."""
    if not AS_ROOT:
        cannot(f"{what} needs tests that run as root")


@functools.cache
def _namespaces_work() -> bool:
    command = [*_IN_NAMESPACES, "mount", "-t", "proc", "proc", "/proc"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Sshd:
    """One host: an sshd on a port of its own. To be used with ``with``, after which nothing of it is left.

    It runs in namespaces of its own, where ``/etc/passwd`` gives its accounts temporary homes: ``walker`` and ``root``
    if the tests run as root, otherwise only the account that runs them. Process ids there are others than here.

    ``shell`` is the login shell of all; ``path`` is the ``PATH`` of commands and of login shells too (see
    ``tools_folder``); ``extra`` are further lines of ``sshd_config``, which come first and so win.
    """

    def __init__(
        self,
        *,
        max_sessions: int = 10,
        shell: str = "/bin/bash",
        path: str | None = None,
        environment: Mapping[str, str] | None = None,
        key_types: Sequence[str] = KEY_TYPES,
        extra: Iterable[str] = (),
    ) -> None:
        self._program = sshd_program()
        if not _namespaces_work():
            cannot("an sshd with homes of its own needs the right to make namespaces")
        self.host = "127.0.0.1"
        self.port = 0
        self.folder = Path()
        self.accounts: dict[str, Account] = {}
        self._max_sessions = max_sessions
        self._shell = shell
        self._path = path
        self._environment = dict(environment or {})
        self._key_types = tuple(key_types)
        self._extra = tuple(extra)
        self._process: subprocess.Popen[str] | None = None
        self._supervisor_pid = 0
        self._listener_pid = 0
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            self.folder = Path(tempfile.mkdtemp(prefix="clawpal-sshd-"))
            # The supervisor removes it as well, and so does that of tests that were killed; it may have left something.
            undo.callback(shutil.rmtree, self.folder, ignore_errors=True)
            # pytest's own folders are closed to the ordinary account.
            self.folder.chmod(0o755)
            self._make_accounts()
            self._make_keys()
            undo.callback(self._end)
            self._begin()
            self._start()
            self._closing = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    # Who and how to log in.

    @property
    def account(self) -> Account:
        """An ordinary user where the tests run as root, otherwise who runs the tests."""
        return next(iter(self.accounts.values()))

    @property
    def user(self) -> str:
        return self.account.name

    @property
    def home(self) -> Path:
        return self.account.home

    @property
    def walker(self) -> Account:
        return self._account("walker")

    @property
    def root(self) -> Account:
        return self._account("root")

    def _account(self, name: str) -> Account:
        if name not in self.accounts:
            require_root(f"a login as {name}")
        return self.accounts[name]

    @property
    def client_key(self) -> Path:
        """A private key without a passphrase that may log in as any account."""
        return self.folder / "client_key"

    @property
    def encrypted_key(self) -> Path:
        """Another such key, which ``PASSPHRASE`` opens."""
        return self.folder / "encrypted_key"

    @property
    def authorized_keys(self) -> Path:
        """The keys that may log in: those of all accounts."""
        return self.folder / "authorized_keys"

    @property
    def log(self) -> str:
        """What sshd has said so far."""
        return self._log_path.read_text(errors="replace")

    @property
    def host_keys(self) -> dict[str, str]:
        """The public host keys by their algorithm's name, as ``ssh-ed25519 AAAA…``."""
        keys = (self._host_key(kind).with_suffix(".pub").read_text().split() for kind in self._key_types)
        return {algorithm: f"{algorithm} {key}" for algorithm, key, *_ in keys}

    @property
    def fingerprints(self) -> dict[str, str]:
        """The host keys' fingerprints by their algorithm's name, as ``SHA256:…``."""
        return {algorithm: _fingerprint(line) for algorithm, line in self.host_keys.items()}

    def known_hosts_line(self, algorithm: str | None = None) -> str:
        """What a ``known_hosts`` file says of one of the host keys: of the first, unless ``algorithm`` is given."""
        keys = self.host_keys
        return f"[{self.host}]:{self.port} {keys[algorithm or next(iter(keys))]}\n"

    def ssh_command(self, *arguments: str, user: str | None = None, key: Path | None = None) -> list[str]:
        """The ``ssh`` program with what it needs to log in here, reading nothing of the system's or the user's."""
        known_hosts = self.folder / "known_hosts"
        known_hosts.write_text("".join(self.known_hosts_line(algorithm) for algorithm in self.host_keys))
        options = {
            "UserKnownHostsFile": str(known_hosts),
            "GlobalKnownHostsFile": "none",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "10",
        }
        return [
            *("ssh", "-F", "none", "-T", "-p", str(self.port), "-i", str(key or self.client_key)),
            *(f"-o{name}={value}" for name, value in options.items()),
            *(f"{user or self.user}@{self.host}", *arguments),
        ]

    # What happens to it.

    def kill(self) -> None:
        """End the listener and all its sessions at once, as a host does that loses its power; what they ran goes on."""
        # The listener first, so that none is added to the sessions.
        if self._listener_runs():
            _signal(self._listener_pid, signal.SIGKILL)
        self._until(lambda: not self._kill_sshd(), "the end of every sshd process")

    def stop_all(self) -> None:
        """Let the listener and all its sessions stand still, so that nothing answers and nothing is closed."""
        self._until(lambda: not self._signal_those_in("RSD", signal.SIGSTOP), "a stop of every sshd process")

    def continue_all(self) -> None:
        """The end of ``stop_all``."""
        self._until(lambda: not self._signal_those_in("T", signal.SIGCONT), "every sshd process to go on")

    def restart(self, *, new_host_keys: bool = False) -> None:
        """A ``kill``, then another sshd on the same port."""
        self.kill()
        if new_host_keys:
            self._make_host_keys()
        self._start()

    def mount_small_disk(self, folder: Path, size_bytes: int) -> None:
        """Make a folder in a home that has no more room than that; what is in it only the host sees."""
        require_root("a disk of its own")
        owner = next(account for account in self.accounts.values() if folder.is_relative_to(account.home))
        folder.mkdir()
        options = f"size={size_bytes},uid={owner.uid},gid={owner.gid},mode=755"
        inside = ("nsenter", "--mount", "--target", str(self._supervisor_pid))
        subprocess.run([*inside, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)

    def connections(self) -> int:
        """How many connections there are, with those that haven't logged in."""
        return list(_parents().values()).count(self._listener_pid)

    def processes(self) -> list[RemoteProcess]:
        """All that runs on the host, orphans too, but for sshd."""
        found = []
        for pid in self._descendants():
            command = _command(pid)
            if command and not _is_sshd(pid):
                found.append(RemoteProcess(pid, command))
        return found

    def all_pids(self) -> list[int]:
        """Every process that belongs to the host."""
        return [self._supervisor_pid, *self._descendants()]

    async def wait_until_no_processes(self, within_s: float) -> None:
        """Wait for the host to be left as it was; what still runs after ``within_s`` is the test's failure."""
        left: list[RemoteProcess] = []

        def none_left() -> bool:
            left[:] = self.processes()
            return not left

        try:
            await eventually(none_left, "no process is left on the host", within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}: {left}") from None

    # How it is made.

    @property
    def _log_path(self) -> Path:
        return self.folder / "sshd.log"

    @property
    def _errors_path(self) -> Path:
        return self.folder / "sshd.errors"

    def _host_key(self, kind: str) -> Path:
        return self.folder / f"host_{kind}_key"

    def _make_accounts(self) -> None:
        if AS_ROOT:
            named = [("walker", _WALKER_ID, _WALKER_ID), ("root", 0, 0)]
        else:
            own = pwd.getpwuid(os.getuid())
            named = [(own.pw_name, own.pw_uid, own.pw_gid)]
        for name, uid, gid in named:
            account = Account(name, uid, gid, self.folder / "homes" / name)
            account.home.mkdir(parents=True)
            account.own(account.home)
            self.accounts[name] = account

    def _make_keys(self) -> None:
        self._make_host_keys()
        _make_key("ed25519", self.client_key)
        _make_key("ed25519", self.encrypted_key, PASSPHRASE)
        publics = (key.with_suffix(".pub").read_text() for key in (self.client_key, self.encrypted_key))
        self.authorized_keys.write_text("".join(publics))
        self.authorized_keys.chmod(0o644)

    def _make_host_keys(self) -> None:
        for kind in self._key_types:
            self._host_key(kind).unlink(missing_ok=True)
            _make_key(kind, self._host_key(kind))

    def _private_files(self) -> list[tuple[str, str]]:
        """What the host has in place of the system's files."""
        accounts = self.accounts.values()
        lines = {
            "passwd": [f"{one.name}:x:{one.uid}:{one.gid}::{one.home}:{self._shell}" for one in accounts],
            "shadow": [f"{one.name}:{_PASSWORD_HASH if one.uid else '*'}:19000:0:99999:7:::" for one in accounts],
            "group": [f"{one.name}:x:{one.gid}:" for one in accounts],
        }
        if not AS_ROOT:
            # Which only root can read; there are no passwords then.
            del lines["shadow"]
        replaced = []
        for name, own in lines.items():
            system = Path("/etc", name)
            names = {line.partition(":")[0] for line in own}
            others = [line for line in system.read_text().splitlines() if line.partition(":")[0] not in names]
            copy = self.folder / name
            copy.write_text("\n".join([*own, *others]) + "\n")
            copy.chmod(0o600 if name == "shadow" else 0o644)
            replaced.append((str(copy), str(system)))
        if self._path is not None and os.path.exists("/etc/profile"):
            # The system's would put its own folders into the PATH of every login shell.
            profile = self.folder / "profile"
            profile.write_text("")
            profile.chmod(0o644)
            replaced.append((str(profile), "/etc/profile"))
        return replaced

    def _config(self) -> str:
        variables = dict(self._environment)
        if self._path is not None:
            variables["PATH"] = self._path
        lines = [
            *self._extra,
            f"ListenAddress {self.host}:{self.port}",
            *(f"HostKey {self._host_key(kind)}" for kind in self._key_types),
            f"PidFile {self.folder / 'pid'}",
            f"AuthorizedKeysFile {self.authorized_keys}",
            f"MaxSessions {self._max_sessions}",
            "MaxStartups 200",
            f"PasswordAuthentication {'yes' if AS_ROOT else 'no'}",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin yes",
            "UsePAM no",
            "StrictModes no",
            "UseDNS no",
            "PrintMotd no",
            "PrintLastLog no",
            "LogLevel VERBOSE",
            "Subsystem sftp internal-sftp",
        ]
        if _version() >= _PENALTIES_SINCE:
            lines.append("PerSourcePenalties no")
        if variables:
            # Of several such lines sshd takes the first only.
            quoted = (f'{name}="{value}"' for name, value in variables.items())
            lines.append(f"SetEnv {' '.join(quoted)}")
        return "\n".join(lines) + "\n"

    def _namespaces(self) -> list[str]:
        """What goes before the supervisor's command."""
        return [*_IN_NAMESPACES]

    def _begin(self) -> None:
        config = self.folder / "sshd_config"
        setup = {
            # Where sshd writes: its privilege separation folder, and who logged in when.
            "empty_folders": ["/run", "/var/log"],
            "replaced_files": self._private_files(),
            "folder": str(self.folder),
            "errors": str(self._errors_path),
            "command": [self._program, "-D", "-f", str(config), "-E", str(self._log_path)],
            "environment": {"PATH": _SYSTEM_FOLDERS, "LANG": "C.UTF-8"},
        }
        self._process = subprocess.Popen(
            [*self._namespaces(), sys.executable, "-I", str(_SUPERVISOR)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C in a terminal is for the tests, which then end this.
            start_new_session=True,
        )
        self._supervisor_pid = int(self._ask(json.dumps(setup)))

    def _ask(self, line: str) -> str:
        assert self._process
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the supervisor ended with {self._process.wait(_WITHIN_S)}"
        return answer

    def _start(self) -> None:
        """Start an sshd and wait until it listens: at first on any free port, later on the same."""
        assigned = self.port
        for _ in range(_PORT_TRIES):
            if not assigned:
                self.port = self._choose_port()
            (self.folder / "sshd_config").write_text(self._config())
            self._log_path.write_text("")
            self._listener_pid = self._pid_here(int(self._ask("start")))
            self._until(self._listens_or_ended, "an sshd that listens")
            if self._listens():
                return
            # Between the search for a port and its use another process can take it.
            if assigned or "Address already in use" not in self.log:
                break
        pytest.fail(f"sshd doesn't start: {self._errors_path.read_text()}{self.log}")

    def _choose_port(self) -> int:
        with socket.socket() as probe:
            probe.bind((self.host, 0))
            port: int = probe.getsockname()[1]
            return port

    def _pid_here(self, pid: int) -> int:
        """What is process ``pid`` for the supervisor, as this side knows it; 0 if it has ended."""
        for own, parent in _parents().items():
            if parent == self._supervisor_pid and _innermost_pid(own) == pid:
                return own
        return 0

    def _listens(self) -> bool:
        return self._log_path.exists() and "Server listening on" in self.log

    def _listens_or_ended(self) -> bool:
        return self._listens() or not self._listener_runs()

    def _end(self) -> None:
        if self._process is None:
            return
        with self._process as process:
            assert process.stdin
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(_WITHIN_S)
            except subprocess.TimeoutExpired:
                # The kernel then ends the namespace with all that is in it.
                process.kill()
                raise

    # What it is made of.

    def _descendants(self) -> list[int]:
        below: dict[int, list[int]] = {}
        for pid, parent in _parents().items():
            below.setdefault(parent, []).append(pid)
        found: list[int] = []
        unread = [self._supervisor_pid]
        while unread:
            children = below.get(unread.pop(), [])
            found += children
            unread += children
        return found

    def _listener_runs(self) -> bool:
        name, state, parent = _stat(self._listener_pid)
        return parent == self._supervisor_pid and name.startswith("sshd") and state not in "ZX"

    def _sshd_pids(self) -> list[int]:
        return [pid for pid in self._descendants() if _is_sshd(pid)]

    def _kill_sshd(self) -> list[int]:
        pids = self._sshd_pids()
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        return pids

    def _signal_those_in(self, states: str, number: signal.Signals) -> list[int]:
        pids = [pid for pid in self._sshd_pids() if _state(pid) in states]
        for pid in pids:
            _signal(pid, number)
        return pids

    def _until(self, happened: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + _WITHIN_S
        while not happened():
            if time.monotonic() > deadline_s:
                pytest.fail(f"not within {_WITHIN_S} s: {what}\n{self.log}")
            time.sleep(_POLL_S)


def tools_folder(folder: Path, names: Iterable[str], **programs: Path) -> Path:
    """Fill ``folder``, to be a host's whole ``PATH``, with the system's tools of such names and other ``programs``.

    What isn't named there is missing on that host.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).symlink_to(program(name))
    for name, path in programs.items():
        if _all_can_reach(path):
            (folder / name).symlink_to(path)
        else:
            shutil.copy2(path, folder / name)
    return folder


def _all_can_reach(program: Path) -> bool:
    """Whether the ordinary account can run a program, which may lie in the closed home of who runs the tests."""
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in (program, *program.resolve().parents))


def _version() -> tuple[int, int]:
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    numbers = re.search(r"OpenSSH_(\d+)\.(\d+)", said)
    assert numbers, said
    return int(numbers[1]), int(numbers[2])


def _make_key(kind: str, path: Path, passphrase: str = "") -> None:
    bits = ["-b", "2048"] if kind == "rsa" else []
    command = ["ssh-keygen", "-q", "-t", kind, *bits, "-N", passphrase, "-C", f"test {path.name}", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)


def _fingerprint(public_key: str) -> str:
    digest = hashlib.sha256(base64.b64decode(public_key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _stat(pid: int) -> tuple[str, str, int]:
    """A process's name, state and parent; the state is ``X`` if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return "", "X", 0
    name, _, rest = text.partition("(")[2].rpartition(")")
    state, parent = rest.split()[:2]
    return name, state, int(parent)


def _parents() -> dict[int, int]:
    """The parent of each process that hasn't ended."""
    stats = {int(name): _stat(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    return {pid: parent for pid, (_, state, parent) in stats.items() if state not in "ZX"}


def _innermost_pid(pid: int) -> int:
    """What a process is called in its own namespace."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return 0
    numbers = re.search(r"^NSpid:.*?(\d+)$", status, re.MULTILINE)
    return int(numbers[1]) if numbers else 0


def _state(pid: int) -> str:
    return _stat(pid)[1]


def _is_sshd(pid: int) -> bool:
    # Since 9.8 a session is a program of its own, sshd-session.
    return _stat(pid)[0].startswith("sshd")


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
