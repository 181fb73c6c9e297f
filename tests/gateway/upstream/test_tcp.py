"""TCP state of a connection."""

from __future__ import annotations

import socket
import sys

import pytest

from corral_server.gateway.upstream.tcp import acknowledged_bytes, set_runner_keepalive
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell what was acknowledged_bytes")


def test_bytes_are_acknowledged_by_the_peers_kernel() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        set_runner_keepalive(client)
        assert acknowledged_bytes(client) == 0
        client.sendall(b"x" * 100)
        until(lambda: acknowledged_bytes(client) == 100, what="the acknowledgement before the data is read")


def test_a_closed_socket_reports_no_acknowledged_bytes() -> None:
    client = socket.socket()
    client.close()
    assert acknowledged_bytes(client) is None
