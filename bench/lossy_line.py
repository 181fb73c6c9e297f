"""Bad line between two network namespaces: packets are delayed, lost at random, and limited in rate.

    with LossyLine(loss=0.05, delay=0.1, rate=2_000_000) as line:
        subprocess.run([*line.client, "curl", f"http://{SERVER}:8080/"])

Each namespace has a TUN device, and a process passes their packets on. ``loss`` and ``rate`` (bytes/s) apply to the
server's packets, ``delay`` (seconds) to both directions. It does what netem does, on kernels without netem too, and it
is the kernel's own TCP that meets the losses. Needs root.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from types import TracebackType

CLIENT, SERVER = "10.99.0.1", "10.99.0.2"
QUEUE_SECONDS = 0.5
"""Packets that would wait longer for their turn are dropped, as by a router's queue."""
MTU = 1500
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h


class LossyLine:
    """The line while the context lasts. ``client`` and ``server`` are the starts of command lines in the namespaces."""

    def __init__(self, *, loss: float, delay: float, rate: float, congestion: str = "cubic") -> None:
        self._settings = {"loss": loss, "delay": delay, "rate": rate}
        self._congestion = congestion
        self._names = [f"corral-{side}-{os.getpid()}" for side in ("client", "server")]
        self.client, self.server = (["ip", "netns", "exec", name] for name in self._names)
        self._relay: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LossyLine:
        try:
            for name in self._names:
                _ip("netns", "add", name)
                _ip("-n", name, "link", "set", "lo", "up")
            command = [sys.executable, __file__, json.dumps(self._settings), *self._names, self._congestion]
            self._relay = subprocess.Popen(command, stdout=subprocess.PIPE)
            assert self._relay.stdout is not None
            if self._relay.stdout.readline() != b"ready\n":
                raise RuntimeError("the relay did not start")
        except BaseException:  # Ctrl-C too: namespaces and the relay outlive this process
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._relay is not None:
            self._relay.kill()
            self._relay.communicate()
        for name in self._names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _open_tun(namespace: str, *, address: str, congestion: str) -> int:
    """Create a TUN device in the namespace and return its descriptor. TCP connections use ``congestion``."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    name = f"lossy{os.getpid() % 10_000}-{address[-1]}"
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH14x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    _ip("link", "set", name, "netns", namespace)
    _ip("-n", namespace, "address", "add", f"{address}/24", "dev", name)
    _ip("-n", namespace, "link", "set", name, "mtu", str(MTU), "up")
    _ip("-n", namespace, "route", "replace", "10.99.0.0/24", "dev", name, "congctl", congestion)
    return descriptor


def relay(client: int, server: int, *, loss: float, delay: float, rate: float) -> None:
    """Pass packets between the two devices until the process is killed."""
    chance, waiting, count, free_at = random.Random(1), list[tuple[float, int, int, bytes]](), 0, 0.0
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 1.0
        ready, _, _ = select.select([client, server], [], [], timeout)
        now = time.monotonic()
        for source in ready:
            packet = os.read(source, 65536)
            due, target = now + delay, server
            if source == server:
                target, starts = client, max(now, free_at)
                if chance.random() < loss or starts - now > QUEUE_SECONDS:
                    continue
                free_at = starts + len(packet) / rate
                due = free_at + delay
            count += 1
            heapq.heappush(waiting, (due, count, target, packet))
        while waiting and waiting[0][0] <= now:
            _, _, target, packet = heapq.heappop(waiting)
            os.write(target, packet)


def main() -> None:
    settings, client, server, congestion = json.loads(sys.argv[1]), *sys.argv[2:]
    devices = [
        _open_tun(name, address=address, congestion=congestion)
        for name, address in ((client, CLIENT), (server, SERVER))
    ]
    print("ready", flush=True)
    relay(*devices, **settings)


if __name__ == "__main__":
    main()
