"""Small requests: attempts, limits, redirects, headers, and what no text shows."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable, Iterator

import pytest

from corral_core.base.errors import CorralError, SourceError
from corral_server.pull.errors import TransientError
from corral_server.pull.http.client import MAX_REDIRECTS, HttpClient
from corral_server.pull.http.retries import ATTEMPTS
from corral_server.pull.http.settings import NetworkSettings
from corral_server.pull.remote_files import HttpLocation
from tests.pull.http.conftest import LOOPBACK
from tests.pull.http.raw_server import RawServer, Request, response

SECRET = "geheim"


def test_any_status_but_429_and_5xx_is_returned(client: HttpClient) -> None:
    with RawServer(lambda request: [response(int(request.target[1:]), b"body")]) as server:
        for status in (200, 201, 300, 304, 400, 401, 404, 418, 451):
            found = client.request("GET", server.url(f"/{status}"))
            assert (found.status, found.url) == (status, server.url(f"/{status}"))
    assert len(server.requests) == 9


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 599])
def test_a_busy_server_is_asked_again(client: HttpClient, waits: list[float], status: int) -> None:
    replies = iter([response(status), response(status), response(200, b"there")])
    with RawServer(lambda _: [next(replies)]) as server:
        assert client.request("GET", server.url()).body == b"there"
    assert len(waits) == 2
    assert 0.25 <= waits[0] <= 0.5 <= waits[1] <= 1.0


def test_the_attempts_are_bounded(client: HttpClient, waits: list[float]) -> None:
    with RawServer(lambda _: [response(500)]) as server, pytest.raises(TransientError, match="answers 500"):
        client.request("GET", server.url())
    assert len(server.requests) == ATTEMPTS == len(waits) + 1


def test_a_broken_connection_is_tried_again(client: HttpClient) -> None:
    replies = iter([b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal", response(200, b"whole")])
    with RawServer(lambda _: [next(replies)]) as server:
        assert client.request("GET", server.url()).body == b"whole"


def test_retry_after_is_waited_for(client: HttpClient, waits: list[float]) -> None:
    replies = iter([response(429, Retry_After="7"), response(200)])
    with RawServer(lambda _: [next(replies)]) as server:
        client.request("GET", server.url())
    assert waits == [7]


def test_a_server_that_asks_for_too_much_patience_is_not_waited_for(client: HttpClient, waits: list[float]) -> None:
    with RawServer(lambda _: [response(429, Retry_After="600")]) as server, pytest.raises(TransientError) as raised:
        client.request("GET", server.url())
    assert raised.value.retry_after == 600
    assert waits == []


def test_headers_have_lower_case_names_and_repeated_ones_are_joined(client: HttpClient) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nLINK: <a>\r\nLink: <b>\r\n\r\n"
    with RawServer(lambda _: [head]) as server:
        assert client.request("GET", server.url()).headers["link"] == "<a>, <b>"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_response_above_the_limit_is_an_error(client: HttpClient, chunked: bool) -> None:
    def endless(_: Request) -> Iterable[bytes]:
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        while True:
            yield b"ff\r\n" + b"x" * 255 + b"\r\n"

    reply = endless if chunked else lambda _: [response(200, b"x" * 1001)]
    with RawServer(reply) as server, pytest.raises(SourceError, match="larger than 1000 bytes"):
        client.request("GET", server.url(), limit=1000)
    assert len(server.requests) == 1


def test_a_response_as_large_as_the_limit_is_returned(client: HttpClient) -> None:
    with RawServer(lambda _: [response(200, b"x" * 1000)]) as server:
        assert len(client.request("GET", server.url(), limit=1000).body) == 1000


def test_a_body_is_sent_once_and_no_redirect_is_followed(client: HttpClient) -> None:
    with RawServer(lambda _: [response(307, Location="/elsewhere")]) as server:
        assert client.request("POST", server.url(), body=b"grant").status == 307
    assert [(request.method, request.body) for request in server.requests] == [("POST", b"grant")]


def test_head_has_no_body(client: HttpClient) -> None:
    with RawServer(lambda _: [response(200, Content_Length="5000000000")]) as server:
        found = client.request("HEAD", server.url())
    assert (found.body, found.headers["content-length"]) == (b"", "5000000000")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_and_relative_ones_resolved(client: HttpClient, status: int) -> None:
    def reply(request: Request) -> Iterable[bytes]:
        places = {"/a/b": "../c?x=1", "/c?x=1": "//localhost:PORT/d", "/d": "e%20f g"}
        place = places.get(request.target, "").replace("PORT", str(server.port))
        yield response(status, b"gone", Location=place) if place else response(200, request.target.encode())

    with RawServer(reply) as server:
        found = client.request("GET", server.url("/a/b"))
    assert found.body == b"/e%20f%20g"
    assert found.url == server.url("/e%20f%20g", host="localhost")


def test_a_redirect_can_be_returned(client: HttpClient) -> None:
    with RawServer(lambda _: [response(307, Location="https://cdn.example.com/x")]) as server:
        found = client.request("GET", server.url(), redirects=False)
    assert (found.status, found.headers["location"]) == (307, "https://cdn.example.com/x")


def test_the_number_of_redirects_is_bounded(client: HttpClient) -> None:
    reply = response(302, Location="/file")
    with RawServer(lambda _: [reply]) as server, pytest.raises(SourceError, match="redirects again"):
        client.request("GET", server.url())
    assert len(server.requests) == MAX_REDIRECTS + 1


@pytest.fixture
def two() -> Iterator[tuple[RawServer, RawServer]]:
    """Yield a server that redirects ``/to/...`` there and back to the second server, which redirects ``/back``."""
    with (
        RawServer(lambda request: [response(302, Location=places[request.target])], address="127.0.0.1") as first,
        RawServer(lambda request: [_second(request, first)], address="::1") as second,
    ):
        places = {"/there": second.url("/file", host="[::1]"), "/around": second.url("/back", host="[::1]")}
        yield first, second


def _second(request: Request, first: RawServer) -> bytes:
    return response(302, Location=first.url("/end")) if request.target == "/back" else response(200, b"x" * 10)


def test_the_headers_are_not_sent_to_another_host(client: HttpClient, two: tuple[RawServer, RawServer]) -> None:
    first, second = two
    sent = {"Authorization": f"Bearer {SECRET}", "X-Api-Key": SECRET, "Cookie": SECRET, "Accept": "text/plain"}
    client.request("GET", first.url("/there"), headers=sent)
    client.open(HttpLocation(first.url("/there"), sent)).close()
    assert SECRET in str(first.requests[0].headers)
    assert len(second.requests) == 2
    for request in second.requests:
        assert SECRET not in str(request.headers)
        assert request.headers["accept"] == "text/plain"


def test_the_headers_are_not_sent_again_when_the_redirect_leads_back(client: HttpClient) -> None:
    places = dict[str, str]()
    with (
        RawServer(lambda request: [_around(request, places)]) as first,
        RawServer(lambda _: [response(302, Location=first.url("/end"))], address="::1") as second,
    ):
        places["/around"] = second.url("/", host="[::1]")
        client.request("GET", first.url("/around"), headers={"Authorization": SECRET})
    assert [SECRET in str(request.headers) for request in first.requests] == [True, False]


def _around(request: Request, places: dict[str, str]) -> bytes:
    place = places.get(request.target)
    return response(302, Location=place) if place else response(200)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("http://169.254.169.254/latest/meta-data/", "add 169.254.169.254"),
        ("https://169.254.169.254/latest/meta-data/", "never connected to"),
        ("https://[fe80::1]/", "never connected to"),
        ("https://[::ffff:169.254.169.254]/", "never connected to"),
        ("https://2852039166/", "never connected to"),
        ("https://0xa9fea9fe/", "never connected to"),
        ("https://0.0.0.0/", "never connected to"),
        ("https://[::]/", "never connected to"),
        ("https://224.0.0.1/", "never connected to"),
        ("https://255.255.255.255/", "never connected to"),
        ("https://100.100.100.200/", "never connected to"),
        ("https://[fd00:ec2::254]/", "never connected to"),
        ("https://metadata.google.internal/", "never connected to"),
        ("ftp://example.com/", "only https and http"),
        ("file:///etc/passwd", "only https and http"),
        (f"https://user:{SECRET}@example.com/", "user or password"),
        ("https://example.com:99999/", "not valid"),
        ("https://exa mple.com/", "not a host name"),
        ("https://" + "a" * 20_000, "redirects to a URL of"),
        ("https://exämple.com/", "not a host name"),
        ("https:///path", "not a host name"),
    ],
)
def test_a_hostile_redirect_is_an_error(client: HttpClient, place: str, text: str) -> None:
    reply = response(302, Location=place)
    with RawServer(lambda _: [reply]) as server, pytest.raises(SourceError, match=text) as raised:
        client.request("GET", server.url())
    assert SECRET not in str(raised.value)


def test_a_name_of_a_metadata_address_is_not_connected_to() -> None:
    settings = NetworkSettings(plain_http_hosts=frozenset({"bad.test"}))
    http = HttpClient(settings, resolve=lambda host, port: ["169.254.169.254", "fe80::1%eth0"])
    with pytest.raises(SourceError, match=r"bad\.test has the address 169\.254\.169\.254"):
        http.request("GET", "http://bad.test/")


def test_a_name_with_one_usable_address_is_connected_to(client: HttpClient) -> None:
    with RawServer(lambda _: [response(200, b"here")]) as server:
        settings = NetworkSettings(plain_http_hosts=frozenset({"mixed.test"}))
        http = HttpClient(settings, resolve=lambda host, port: ["fe80::1", "::1", "127.0.0.1"])
        assert http.request("GET", server.url(host="mixed.test")).body == b"here"
        http.close()


def test_a_host_without_tls_must_be_named(client: HttpClient) -> None:
    with pytest.raises(SourceError, match=r"add example\.com to CORRAL_PLAIN_HTTP_HOSTS"):
        client.request("GET", "http://example.com/")


@pytest.mark.parametrize("value", [f"{SECRET}\r\nX: y", f"{SECRET}\n", f"{SECRET}\x00", f"{SECRET}\u2026"])
def test_a_header_value_that_http_does_not_allow_is_not_shown(client: HttpClient, value: str) -> None:
    with pytest.raises(SourceError, match="header 'authorization' has characters") as raised:
        client.request("GET", "https://example.com", headers={"Authorization": value})
    assert SECRET not in str(raised.value)


def test_no_error_and_no_log_line_shows_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """Signed URLs have their signature in the query; every kind of failure is tried with one."""
    caplog.set_level(logging.DEBUG)
    replies = [b"", response(500), response(401), response(206), b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n"]
    replies.append(response(302, Location=f"https://127.0.0.1:1/x?sig={SECRET}"))
    http = HttpClient(NetworkSettings(plain_http_hosts=LOOPBACK), wait=lambda _: None)
    shown = [repr(HttpLocation(f"https://x/?sig={SECRET}", {"Authorization": SECRET}))]
    for reply in replies:
        with RawServer(lambda _, reply=reply: [reply]) as server:  # type: ignore[misc]
            url = server.url(f"/file?sig={SECRET}")
            try:
                shown.append(repr(http.request("GET", url, headers={"Authorization": SECRET})))
                stream = http.open(HttpLocation(url, {"Authorization": SECRET}), start=3)
                shown.append(repr(stream))
                stream.close()
            except CorralError as error:
                shown += traceback.format_exception(error)
    http.close()
    assert len(shown) > len(replies)
    assert SECRET not in "".join(shown) + caplog.text


@pytest.mark.parametrize("url", ["https://10.0.0.7/token", "https://inside.test/token"])
def test_a_public_host_cannot_name_a_private_address(url: str) -> None:
    addresses = {"public.test": "8.8.8.8", "inside.test": "10.0.0.7"}
    http = HttpClient(NetworkSettings(), resolve=lambda host, port: [addresses[host]])
    with pytest.raises(SourceError, match=r"the private address .*10\.0\.0\.7.*, or a token server there, is refused"):
        http.request("GET", url, named_by="https://public.test/v2/")


def test_a_private_host_can_name_a_private_address(client: HttpClient) -> None:
    with RawServer(lambda _: [response(200, b"token")]) as server:
        assert client.request("GET", server.url(), named_by="https://127.0.0.9/v2/").body == b"token"
        assert client.request("GET", server.url(), named_by=server.url("/v2/")).body == b"token"


def test_a_setting_lets_a_public_host_name_a_private_address() -> None:
    settings = NetworkSettings(plain_http_hosts=frozenset({"127.0.0.1"}), private_redirects=True)
    with RawServer(lambda _: [response(200, b"token")]) as server:
        assert HttpClient(settings).request("GET", server.url(), named_by="https://8.8.8.8/").body == b"token"
