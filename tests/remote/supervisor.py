"""What stands over one test sshd: the first process of the host's namespaces.

``sshd.py`` runs this file with a JSON object as the first line of its stdin; after that, each line starts an sshd. It
answers with its own process id as the tests see it, and then with the id of each sshd as it sees it itself. All that
was started under it stays its descendant, whatever becomes of its parents. When stdin ends, which it also does when the
tests are killed, all of them are ended and the host's folder is removed.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time

PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4


def descendants() -> list[int]:
    """The processes under this one, without those that have ended."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except OSError:
                continue
            if state not in {b"Z", b"X"}:
                children.setdefault(int(parent), []).append(int(name))
    found: list[int] = []
    unread = [os.getpid()]
    while unread:
        below = children.get(unread.pop(), [])
        found += below
        unread += below
    return found


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, stdin=subprocess.DEVNULL)


def reap(*_: object) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def main() -> None:
    setup = json.loads(sys.stdin.readline())
    # Before the namespace's own /proc is mounted this is the number that the tests know.
    own_pid = os.readlink("/proc/self")
    mount("-t", "proc", "proc", "/proc")
    for folder in setup["empty_folders"]:
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
    for source, target in setup["replaced_files"]:
        mount("--bind", source, target)
    os.mkdir("/run/sshd", 0o755)
    # An ordinary account could mount because of these; what it runs on the host is to have no more rights than usual.
    ctypes.CDLL(None).prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    signal.signal(signal.SIGCHLD, reap)
    sys.stdout.write(own_pid + "\n")
    sys.stdout.flush()
    null = os.open(os.devnull, os.O_RDWR)
    errors = os.open(setup["errors"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    files = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, errors, 2)]
    for _ in sys.stdin:
        pid = os.posix_spawn(
            setup["command"][0], setup["command"], setup["environment"], file_actions=files, setsid=True
        )
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
    while left := descendants():
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        time.sleep(0.005)
    shutil.rmtree(setup["folder"], ignore_errors=True)


main()
