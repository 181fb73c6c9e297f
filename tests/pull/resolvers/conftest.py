"""Hub and HTTP client on the loopback interface."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from corral_server.pull.http.client import HttpClient
from corral_server.pull.http.settings import NetworkSettings
from tests.support.hub_server import HubServer, running_hub


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with running_hub() as running:
        yield running


@pytest.fixture
def client() -> Iterator[HttpClient]:
    """Return a client that reaches loopback hosts without TLS and does not wait between attempts."""
    made = HttpClient(NetworkSettings(plain_http_hosts=frozenset({"127.0.0.1", "localhost"})), wait=lambda _: None)
    yield made
    made.close()
