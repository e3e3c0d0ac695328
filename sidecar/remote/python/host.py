"""What every op is given of the host it runs on."""

from __future__ import annotations

import os
import tempfile

from sidecar.remote.python.errors import told
from sidecar.remote.python.output import Output
from sidecar.remote.python.text import spelled, wire_name
from sidecar.remote.python.watchdog import Watchdog


class Host:
    """What every op is given: where OpenClaw lies, where to say what was found, how to name private files."""

    def __init__(self, openclaw_dir: str, output: Output, watchdog: Watchdog, nonce: str) -> None:
        self.openclaw_dir = openclaw_dir
        self.output = output
        self.tick = output.tick
        self.reports_failures = True
        self._watchdog = watchdog
        self._nonce = nonce

    def failed(self, path: str, error: BaseException) -> None:
        """Say that the item at ``path`` failed, unless what is asked for is one item."""
        if self.reports_failures:
            self.output.say("failed", wire_name(path), *told(error))

    def private_folder(self) -> str:
        """Make a folder that nobody else may look into, and that is gone when this process is."""
        temp = os.path.abspath(os.fsencode(tempfile.gettempdir()))
        folder = os.path.join(temp, b"clawpal-sidecar-" + self._nonce.encode())
        self._watchdog.remove_at_end(folder)
        os.mkdir(folder, 0o700)
        return spelled(folder)
