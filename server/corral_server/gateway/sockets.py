"""What the kernel is told, and tells, of a TCP connection to a runner.

A machine may vanish without a word: its power is cut, or its network. Only silence then tells a runner that is gone
from one that thinks. What was sent is acknowledged by the other machine's kernel at once, however busy its runner is;
and while nothing is sent, this machine's kernel asks from time to time.
"""

from __future__ import annotations

import socket
import struct

_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
"""A machine that vanished is noticed within 30 s, while a model may think as long as it likes."""
_CLIENT_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
"""A client's machine may be away from its network for longer, and costs less: two minutes."""
_UNHEARD = 10_000
"""Milliseconds after which what was sent and not acknowledged ends the connection."""
_INFO_SIZE, _BYTES_ACKED = 128, 120
"""Where ``tcpi_bytes_acked`` (64 bits) lies in Linux' ``struct tcp_info``."""


def notice_loss(sock: socket.socket) -> None:
    """Has the kernel end the connection when the other machine is gone."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNHEARD)


def notice_vanished(listener: socket.socket) -> None:
    """Much the same for clients: connections inherit it from the socket that they come to."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _CLIENT_KEEPALIVE:
        listener.setsockopt(socket.IPPROTO_TCP, option, value)


def acknowledged(sock: socket.socket) -> int | None:
    """How many bytes the other side's kernel has acknowledged so far; None where the system does not tell."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
    except (AttributeError, OSError):
        return None
    if len(info) < _INFO_SIZE:
        return None
    counted: int = struct.unpack_from("=Q", info, _BYTES_ACKED)[0]
    return max(0, counted - 1)  # the opening of the connection counts as one
