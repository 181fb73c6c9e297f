"""What the kernel tells of a connection."""

from __future__ import annotations

import socket
import sys

import pytest

from corral_server.gateway.sockets import acknowledged, notice_loss
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell what was acknowledged")


def test_bytes_count_once_the_other_sides_kernel_has_them() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        notice_loss(client)
        assert acknowledged(client) == 0
        client.sendall(b"x" * 100)
        until(lambda: acknowledged(client) == 100, what="the acknowledgement, although nobody has read")


def test_a_socket_that_is_closed_tells_nothing() -> None:
    client = socket.socket()
    client.close()
    assert acknowledged(client) is None
