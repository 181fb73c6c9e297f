"""Responses made of hostile parts: every one ends in a result or in an error of a pull, with nothing of it repeated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral_core.base.errors import SourceError
from corral_server.pull.errors import PullError
from corral_server.pull.http.client import HttpClient
from corral_server.pull.http.settings import NetworkSettings
from corral_server.pull.remote_files import HttpLocation
from tests.pull.http.conftest import LOOPBACK
from tests.pull.http.raw_server import RawServer
from tests.pull.http.test_ranges import read_all

VALUES = st.one_of(
    st.sampled_from(
        ["0", "5", "-1", "99999999999999999999999", "bytes 0-4/5", "bytes 2-4/5", "chunked", "gzip", "a" * 9000]
    ),
    st.integers().map(str),
    st.text(st.characters(min_codepoint=1, max_codepoint=255, exclude_characters="\r\n"), max_size=40),
)
NAMES = st.sampled_from(
    ["Content-Length", "Content-Range", "Transfer-Encoding", "Content-Encoding", "Location", "ETag", "Retry-After"]
)
STATUSES = st.sampled_from(
    ["200", "206", "301", "302", "307", "401", "403", "404", "416", "429", "503", "100", "999", "x", "-1"]
)
BODIES = st.sampled_from(
    [b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"ffffffff\r\nhello", b"-5\r\nhello", b"\x00" * 9000]
)


class Replies:
    """Server whose reply can be changed, and a client."""

    def __init__(self) -> None:
        self.reply = b""


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Replies, RawServer, HttpClient]]:
    replies = Replies()
    http = HttpClient(NetworkSettings(plain_http_hosts=LOOPBACK, stall_timeout=0.5), wait=lambda _: None)
    with RawServer(lambda _: [replies.reply]) as server:
        yield replies, server, http
    http.close()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(status=STATUSES, headers=st.lists(st.tuples(NAMES, VALUES), max_size=5), body=BODIES, start=st.integers(0, 3))
def test_hostile_responses(
    served: tuple[Replies, RawServer, HttpClient],
    status: str,
    headers: list[tuple[str, str]],
    body: bytes,
    start: int,
) -> None:
    replies, server, http = served
    lines = [f"HTTP/1.1 {status} Text", "Connection: close", *(f"{name}: {value}" for name, value in headers)]
    replies.reply = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    with contextlib.suppress(SourceError, PullError):
        found = read_all(http.open(HttpLocation(server.url()), start=start))
        assert found in body or b"\r\n" in body
    with contextlib.suppress(SourceError, PullError):
        assert len(http.request("GET", server.url(), limit=1000).body) <= 1000
