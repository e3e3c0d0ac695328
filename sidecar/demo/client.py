"""How an app talks to the sidecar: spawn it, write requests, read replies and notifications.

Uses the standard library alone and nothing of the ``sidecar`` package, so that it can be copied.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple

_END_S = 5.0


class ClientError(Exception):
    """The sidecar answered with an error, lost a notification, or ended."""


class Notification(NamedTuple):
    """A message that nobody asked for one by one: the method names the event, the parameters are its payload."""

    method: str
    params: dict[str, Any]


class Sidecar:
    """A sidecar process, for one thread. Leaving the ``with`` block ends it; after an exception, at once."""

    def __init__(self, environ: Mapping[str, str] | None = None, *options: str) -> None:
        # A session of its own: Ctrl-C in the terminal is for the app, and the app ends its sidecar.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sidecar", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environ,
            start_new_session=True,
        )
        assert self._process.stdin
        assert self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._numbers = itertools.count(1)
        self._replies: dict[int, dict[str, Any]] = {}
        self._notifications: defaultdict[str, deque[Notification]] = defaultdict(deque)

    def call(self, method: str, **params: Any) -> Any:
        """Send a request and wait for its result. Notifications that come first are kept for ``stream``."""
        number = next(self._numbers)
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        try:
            self._stdin.write(json.dumps(request).encode() + b"\n")
            self._stdin.flush()
        except OSError:
            raise self._ended() from None
        while number not in self._replies:
            self._receive()
        reply = self._replies.pop(number)
        if "error" in reply:
            raise ClientError(f"{method}: {reply['error']['message']}")
        return reply["result"]

    def stream(self, handle_id: str) -> Iterator[Notification]:
        """The notifications of a handle, as they arrive, up to its terminal. The numbers prove that none is missing."""
        for seq in itertools.count():
            while not self._notifications[handle_id]:
                self._receive()
            notification = self._notifications[handle_id].popleft()
            if notification.params["seq"] != seq:
                raise ClientError(f"notification {seq} of {handle_id} is missing")
            yield notification
            if notification.method.endswith(":done"):
                del self._notifications[handle_id]
                return

    def _receive(self) -> None:
        """Read one message and put it where the one who waits for it looks."""
        line = self._stdout.readline()
        if not line:
            raise self._ended()
        message = json.loads(line)
        if "method" in message:
            self._notifications[message["params"]["handleId"]].append(
                Notification(message["method"], message["params"])
            )
        else:
            self._replies[message["id"]] = message

    def _ended(self) -> ClientError:
        return ClientError(f"the sidecar ended with exit code {self._process.wait()}")

    def __enter__(self) -> Sidecar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The end of its stdin tells the sidecar that the app is done; a closed stdout, that nobody reads any more.
        with contextlib.suppress(OSError):
            self._stdin.close()
        if error is not None:
            self._stdout.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
