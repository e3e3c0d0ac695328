"""A host over SSH for the tests of the page: a real sshd with a home of sessions of both eras.

It says how to reach it in one line of JSON, does what the lines on stdin say (``kill``: the host loses its power), each
answered by a line, and ends with stdin.
"""

from __future__ import annotations

import json
import sys
import time

from sidecar.demo.eras import EraPlan, write_both_eras
from tests.remote.sshd import Sshd

# Of one agent so much that its analysis takes a while.
AGENTS = (
    EraPlan("main", 20_000, in_files=20, in_database=30, archives=8),
    EraPlan("work", 400_000, in_files=400),
)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


with Sshd() as sshd:
    write_both_eras(sshd.home / ".openclaw", AGENTS, now_ms=time.time_ns() // 1_000_000)
    sshd.account.own(*sshd.home.iterdir())
    reach = {
        "host": sshd.host,
        "port": sshd.port,
        "username": sshd.user,
        "keyPath": str(sshd.client_key),
        "fingerprints": list(sshd.fingerprints.values()),
    }
    _say(json.dumps(reach))
    for line in sys.stdin:
        assert line == "kill\n", line
        sshd.kill()
        _say("killed")
