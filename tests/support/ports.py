"""Ports for servers that cannot choose one themselves, or whose port must be known before they start."""

from __future__ import annotations

import socket
from random import SystemRandom

_PORTS = range(12_000, 30_000)
"""Below the ports that Linux gives to outgoing connections (``net.ipv4.ip_local_port_range``): a connection could take
one of those between its choice and the start of the server. Below the node ports of Kubernetes, too. They are chosen at
random, since several test runs choose at the same time."""
_random = SystemRandom()


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that nothing used a moment ago."""
    found: list[int] = []
    for port in _random.sample(_PORTS, len(_PORTS)):
        if len(found) == count:
            break
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        found.append(port)
    return found


def free_port() -> int:
    (port,) = free_ports(1)
    return port
