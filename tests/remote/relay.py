"""A link between two network namespaces that carries each packet as late, as slowly or as rarely as it is told to.

``slow_link.py`` runs this file, reads the names of the two network devices that are its ends, and then gives it JSON
objects, one a line; each is answered with how many bytes were carried so far. When stdin ends, so does the link, with
its devices. The kernel can do the same (netem), but not every kernel is built with it.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import struct
import sys
import time
from collections import deque

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
MAX_PACKET_BYTES = 65_536
IP_VERSION_4 = 4
# What a router holds back before it drops packets.
BUFFERED_S = 0.1
MIN_BUFFERED_BYTES = 64 * 1024


def open_end() -> tuple[int, str]:
    """A network device and the descriptor at which its packets come out and go in."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    answer = fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"clawtest%d", IFF_TUN | IFF_NO_PI))
    return fd, answer[:16].rstrip(b"\0").decode()


class Direction:
    """The packets that are on their way from one end to the other."""

    def __init__(self, source: int, target: int) -> None:
        self.source = source
        self.target = target
        self.bytes_per_s = 0.0
        self.delay_s = 0.0
        self.cut = False
        self.carried_bytes = 0
        self._on_the_way: deque[tuple[float, bytes]] = deque()
        self._sent_at_s = 0.0

    def take(self) -> None:
        """Take what the source has sent."""
        while True:
            try:
                packet = os.read(self.source, MAX_PACKET_BYTES)
            except BlockingIOError:
                return
            # What devices say to each other by themselves, in IPv6, is nothing that a test has sent.
            if packet[0] >> 4 != IP_VERSION_4 or self.cut:
                continue
            now_s = time.monotonic()
            self._sent_at_s = max(self._sent_at_s, now_s)
            if self.bytes_per_s:
                waiting_bytes = (self._sent_at_s - now_s) * self.bytes_per_s
                if waiting_bytes > max(MIN_BUFFERED_BYTES, BUFFERED_S * self.bytes_per_s):
                    continue
                self._sent_at_s += len(packet) / self.bytes_per_s
            self._on_the_way.append((self._sent_at_s + self.delay_s, packet))

    def give(self) -> float | None:
        """Give the target what has arrived; in how many seconds the next packet does."""
        while self._on_the_way:
            wait_s = self._on_the_way[0][0] - time.monotonic()
            if wait_s > 0:
                return wait_s
            packet = self._on_the_way.popleft()[1]
            try:
                os.write(self.target, packet)
            except OSError:
                # An end that is down loses what arrives.
                continue
            self.carried_bytes += len(packet)
        return None

    def drop_all(self) -> None:
        self._on_the_way.clear()


def main() -> None:
    (here, here_name), (there, there_name) = open_end(), open_end()
    directions = (Direction(here, there), Direction(there, here))
    sys.stdout.write(f"{here_name} {there_name}\n")
    sys.stdout.flush()
    while True:
        waits = [wait_s for one in directions if (wait_s := one.give()) is not None]
        readable = select.select([here, there, 0], [], [], min(waits, default=None))[0]
        for one in directions:
            if one.source in readable:
                one.take()
        if 0 in readable:
            line = os.read(0, MAX_PACKET_BYTES)
            if not line:
                return
            order = json.loads(line)
            for one in directions:
                one.bytes_per_s = order["bytes_per_s"]
                one.delay_s = order["delay_s"]
                one.cut = order["cut"]
                if one.cut:
                    one.drop_all()
            sys.stdout.write(f"{sum(one.carried_bytes for one in directions)}\n")
            sys.stdout.flush()


main()
