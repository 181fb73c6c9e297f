"""HTTP server of a puller: status, stream, and clients that it does not serve."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from corral_core.contracts.pull_status import PullStatus, parse_pull_status
from corral_server.pull.pod.progress_server import MAX_CONNECTIONS, CurrentStatus, ProgressServer
from tests.support.waiting import until

FIRST = PullStatus(0, 100, 0.0, "resolving")


@pytest.fixture
def status() -> CurrentStatus:
    return CurrentStatus(FIRST)


@pytest.fixture
def server(status: CurrentStatus) -> Iterator[ProgressServer]:
    made = ProgressServer(("127.0.0.1", 0), status, identity="lab/tiny uid-1")
    yield made
    made.close()


def get(server: ProgressServer, path: str, **headers: str) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read()


def stream(server: ProgressServer) -> Iterator[PullStatus]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        connection.request("GET", "/progress?watch=true")
        response = connection.getresponse()
        while line := response.readline():
            yield parse_pull_status(line)


def test_one_status(server: ProgressServer) -> None:
    code, body = get(server, "/progress")
    assert (code, PullStatus.from_json(json.loads(body))) == (200, FIRST)
    assert get(server, "/healthz")[0] == 200
    assert get(server, "/metrics")[0] == 404


def test_a_stream_has_each_change_and_ends_with_the_server(server: ProgressServer, status: CurrentStatus) -> None:
    lines = stream(server)
    assert next(lines) == FIRST
    later = PullStatus(50, 100, 10.0, "pulling")
    status.set(later)
    assert next(lines) == later
    server.close()
    assert list(lines) == []


def test_an_unchanged_status_is_repeated(server: ProgressServer) -> None:
    lines = stream(server)
    assert [next(lines), next(lines)] == [FIRST, FIRST]


def test_a_request_for_another_model_is_refused(server: ProgressServer) -> None:
    assert get(server, "/progress", corral_model_identity="lab/other uid-1")[0] == 421
    assert get(server, "/progress", corral_model_identity="lab/tiny uid-2")[0] == 421
    assert get(server, "/progress", corral_model_identity="lab/tiny uid-1")[0] == 200


def test_connections_beyond_the_limit_are_closed(server: ProgressServer) -> None:
    held = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(MAX_CONNECTIONS)]
    try:
        with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as further:
            assert further.recv(1) == b""
    finally:
        for connection in held:
            connection.close()

    def served() -> bool:
        try:
            return get(server, "/healthz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    until(served, 10, what="a place for a new connection")
