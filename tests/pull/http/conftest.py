"""Clients for tests on the loopback interface."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from corral_server.pull.http.client import HttpClient
from corral_server.pull.http.settings import NetworkSettings

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


@pytest.fixture
def waits() -> list[float]:
    """Return the delays that the client waited for, without waiting."""
    return []


@pytest.fixture
def client(waits: list[float]) -> Iterator[HttpClient]:
    """Return a client that reaches loopback hosts without TLS and does not wait between attempts."""
    made = HttpClient(NetworkSettings(plain_http_hosts=LOOPBACK, stall_timeout=0.3), wait=waits.append)
    yield made
    made.close()
