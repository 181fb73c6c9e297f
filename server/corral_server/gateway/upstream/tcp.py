"""TCP options and TCP state of connections to runners and clients.

A machine can be lost without closing its connections: its power or its network fails. The kernel of a reachable machine
acknowledges data and keepalive probes at once, however busy its runner is. Missing acknowledgements therefore
distinguish a lost machine from a runner that computes.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

_KEEPIDLE: Final[int] = getattr(socket, "TCP_KEEPIDLE", 0) or getattr(socket, "TCP_KEEPALIVE", 0)
"""The option for the seconds before the first probe; macOS calls it TCP_KEEPALIVE (tcp(4))."""
_RUNNER_KEEPALIVE = ((_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
"""A machine that vanished is noticed within 30 s; a model may compute as long as it needs."""
_CLIENT_KEEPALIVE = ((_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
"""Two minutes: a client's machine may be off its network for longer, and an idle client costs less."""
_USER_TIMEOUT = 10_000
"""Milliseconds after which unacknowledged data ends the connection (TCP_USER_TIMEOUT, RFC 5482)."""
_INFO_SIZE, _BYTES_ACKED = 128, 120
"""Offset of ``tcpi_bytes_acked`` (64 bits) in Linux' ``struct tcp_info`` (include/uapi/linux/tcp.h)."""


def set_runner_keepalive(sock: socket.socket) -> None:
    """Have the kernel end a connection to a runner when its machine is gone."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _RUNNER_KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT)


def set_client_keepalive(listener: socket.socket) -> None:
    """Have the kernel end connections to clients that are gone; accepted sockets inherit it from the listener."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _CLIENT_KEEPALIVE:
        listener.setsockopt(socket.IPPROTO_TCP, option, value)


def acknowledged_bytes(sock: socket.socket) -> int | None:
    """Return how many bytes the peer's kernel has acknowledged so far; None where the system does not tell."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
    except (AttributeError, OSError):
        return None
    if len(info) < _INFO_SIZE:
        return None
    counted: int = struct.unpack_from("=Q", info, _BYTES_ACKED)[0]
    return max(0, counted - 1)  # the SYN counts as one
