"""Ranges of files from servers that behave, and from servers that do not."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from corral_core.base.errors import SourceError
from corral_server.pull.errors import FileChanged, LocationExpired, PullError, TransientError
from corral_server.pull.http.client import HttpClient
from corral_server.pull.http.settings import NetworkSettings
from corral_server.pull.remote_files import ByteStream, HttpLocation, ObjectLocation
from tests.pull.http.conftest import LOOPBACK
from tests.pull.http.raw_server import RawServer, Request, partial, response

CONTENT = bytes(range(256)) * 8


def read_all(stream: ByteStream, *, size: int = 300) -> bytes:
    """Return the rest of a stream, read in buffers of ``size`` bytes, and close it."""
    buffer, found = bytearray(size), b""
    try:
        while count := stream.readinto(memoryview(buffer)):
            found += buffer[:count]
    finally:
        stream.close()
    return found


def serve_ranges(request: Request) -> Iterable[bytes]:
    yield partial(CONTENT, request, ETag='"v1"', Connection="keep-alive")


def test_a_whole_file_is_read_without_a_range(client: HttpClient) -> None:
    with RawServer(serve_ranges) as server:
        stream = client.open(HttpLocation(server.url()))
        assert (stream.start, stream.total, stream.version) == (0, len(CONTENT), '"v1"')
        assert read_all(stream) == CONTENT
        assert "range" not in server.requests[0].headers
        assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(("start", "end"), [(0, 1), (5, 2000), (2047, None), (100, None), (2000, 9000)])
def test_a_range_has_its_offset_and_the_size_of_the_file(client: HttpClient, start: int, end: int | None) -> None:
    with RawServer(serve_ranges) as server:
        if end is not None and end > len(CONTENT):
            with pytest.raises(FileChanged, match=f"{len(CONTENT)} bytes; at least {end}"):
                client.open(HttpLocation(server.url()), start=start, end=end)
            return
        stream = client.open(HttpLocation(server.url()), start=start, end=end)
        assert (stream.start, stream.total) == (start, len(CONTENT))
        assert read_all(stream) == CONTENT[start:end]


def test_a_connection_is_used_for_the_next_range(client: HttpClient) -> None:
    with RawServer(serve_ranges) as server:
        for start in range(0, 2000, 200):
            read_all(client.open(HttpLocation(server.url()), start=start, end=start + 200))
        assert server.connections == 1


def test_a_stream_closed_early_gives_its_place_back(client: HttpClient) -> None:
    with RawServer(serve_ranges) as server:
        for _ in range(100):  # more than the connections of a host
            stream = client.open(HttpLocation(server.url()))
            stream.readinto(memoryview(bytearray(10)))
            stream.close()
        assert len(server.requests) == 100


def test_a_server_without_ranges_is_reported_by_the_offset(client: HttpClient) -> None:
    with RawServer(lambda _: [response(200, CONTENT)]) as server:
        stream = client.open(HttpLocation(server.url()), start=100, end=200)
        assert (stream.start, stream.total) == (0, len(CONTENT))
        assert read_all(stream) == CONTENT


@pytest.mark.parametrize(
    "said",
    [
        "bytes 11-19/2048",  # another start
        "bytes 10-20/2048",  # beyond the end
        "bytes 10-19/15",  # beyond the size
        "bytes 19-10/2048",
        "bytes 10-19",
        "items 10-19/2048",
        "bytes 10-19/99999999999999999999",
        "bytes */2048",
        "",
    ],
)
def test_another_range_than_asked_for_is_an_error(client: HttpClient, said: str) -> None:
    headers = {"Content_Range": said} if said else {}
    with RawServer(lambda _: [response(206, b"x" * 10, **headers)]) as server, pytest.raises(FileChanged):
        client.open(HttpLocation(server.url()), start=10, end=20)


def test_a_range_whose_length_is_not_that_of_its_body_is_an_error(client: HttpClient) -> None:
    reply = response(206, b"x" * 5, Content_Range="bytes 10-19/2048")
    with RawServer(lambda _: [reply]) as server, pytest.raises(FileChanged, match="length"):
        client.open(HttpLocation(server.url()), start=10, end=20)


def test_a_206_without_a_range_request_is_an_error(client: HttpClient) -> None:
    reply = response(206, b"x" * 5, Content_Range="bytes 0-4/2048")
    with RawServer(lambda _: [reply]) as server, pytest.raises(SourceError, match="answers 206"):
        client.open(HttpLocation(server.url()))


def test_an_unsatisfiable_range_names_the_size(client: HttpClient) -> None:
    with RawServer(serve_ranges) as server, pytest.raises(FileChanged, match="it has 2048 bytes"):
        client.open(HttpLocation(server.url()), start=5000, end=6000)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_response_that_ends_early_is_transient(client: HttpClient, chunked: bool) -> None:
    head = b"HTTP/1.1 206 OK\r\nContent-Range: bytes 10-109/2048\r\n"
    body = b"Transfer-Encoding: chunked\r\n\r\n32\r\n" if chunked else b"Content-Length: 100\r\n\r\n"
    end = b"\r\n0\r\n\r\n" if chunked else b""
    with RawServer(lambda _: [head + body + b"x" * 50 + end]) as server:
        stream = client.open(HttpLocation(server.url()), start=10, end=110)
        with pytest.raises(TransientError):
            read_all(stream)


def test_more_bytes_than_announced_are_an_error(client: HttpClient) -> None:
    head = b"HTTP/1.1 206 OK\r\nContent-Range: bytes 10-19/2048\r\nTransfer-Encoding: chunked\r\n\r\n"
    with RawServer(lambda _: [head + b"32\r\n" + b"x" * 50 + b"\r\n0\r\n\r\n"]) as server:
        stream = client.open(HttpLocation(server.url()), start=10, end=20)
        with pytest.raises(FileChanged, match="more bytes"):
            read_all(stream)


@pytest.mark.parametrize("after_head", [False, True])
def test_a_stall_is_transient(client: HttpClient, after_head: bool) -> None:
    def stall(_: Request) -> Iterable[bytes]:
        yield response(200, b"x" * 10, Content_Length="100") if after_head else b"HTTP/1.1 200 OK\r\n"
        server.released.wait(10)

    with RawServer(stall) as server, pytest.raises(TransientError, match="sent nothing"):
        read_all(client.open(HttpLocation(server.url())))


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
    ids=["head", "chunk", "continue"],
)
def test_a_server_that_never_comes_to_an_end_is_left(client: HttpClient, sent: bytes) -> None:
    """Every byte comes in time; the head of a response or of a chunk never ends."""
    rest = sent if b"Continue" in sent else b"0"

    def trickle(_: Request) -> Iterable[bytes]:
        yield sent
        while not server.released.wait(0.05):
            yield rest

    with RawServer(trickle) as server, pytest.raises(TransientError):
        read_all(client.open(HttpLocation(server.url())))


def test_bytes_are_returned_as_they_come(client: HttpClient) -> None:
    def slow(_: Request) -> Iterable[bytes]:
        yield response(200, b"x" * 10, Content_Length="20")
        server.released.wait(10)
        yield b"y" * 10

    with RawServer(slow) as server:
        stream, buffer = client.open(HttpLocation(server.url())), bytearray(100)
        assert stream.readinto(memoryview(buffer)) == 10
        server.released.set()
        assert stream.readinto(memoryview(buffer)) == 10
        assert stream.readinto(memoryview(buffer)) == 0
        stream.close()


def test_a_size_that_is_not_known_is_none(client: HttpClient) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    with RawServer(lambda _: [head]) as server:
        stream = client.open(HttpLocation(server.url()))
        assert stream.total is None
        assert read_all(stream) == b"hello"


def test_a_body_is_not_decompressed(client: HttpClient) -> None:
    reply = response(200, b"x", Content_Encoding="gzip")
    with RawServer(lambda _: [reply]) as server, pytest.raises(SourceError, match="sent compressed"):
        client.open(HttpLocation(server.url()))


@pytest.mark.parametrize(
    ("status", "target", "authorization", "error", "text"),
    [
        (401, "/file", "", SourceError, "refuses access"),
        (403, "/file", "Bearer x", SourceError, "refuses access"),
        (401, "/file", "Bearer x", LocationExpired, "not valid any more"),
        (403, "/file?sig=geheim", "", LocationExpired, "not valid any more"),
        (401, "/file?sig=geheim", "", LocationExpired, "not valid any more"),
        (404, "/file?sig=geheim", "", SourceError, "does not exist"),
        (410, "/file", "", SourceError, "does not exist"),
        (412, "/file", "", FileChanged, "has changed"),
        (304, "/file", "", SourceError, "answers 304"),
        (429, "/file", "", TransientError, "too many requests"),
        (503, "/file", "", TransientError, "the server failed"),
        (408, "/file", "", TransientError, "408"),
    ],
)
def test_a_refusal_says_what_to_do(
    client: HttpClient, status: int, target: str, authorization: str, error: type[Exception], text: str
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    with RawServer(lambda _: [response(status)]) as server, pytest.raises(error, match=text) as raised:
        client.open(HttpLocation(server.url(target), headers), start=5)
    assert type(raised.value) is error
    assert "geheim" not in str(raised.value)


def test_a_busy_server_names_the_time_to_wait(client: HttpClient) -> None:
    with RawServer(lambda _: [response(503, Retry_After="17")]) as server, pytest.raises(TransientError) as raised:
        client.open(HttpLocation(server.url()))
    assert raised.value.retry_after == 17
    assert len(server.requests) == 1


def test_an_object_of_a_bucket_is_not_for_this_reader(client: HttpClient) -> None:
    with pytest.raises(TypeError):
        client.open(ObjectLocation("s3://bucket/key"))


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\x00\x01\x02\x03\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffffffff\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    ],
)
def test_what_is_not_http_is_an_error_of_a_pull(client: HttpClient, reply: bytes) -> None:
    with RawServer(lambda _: [reply]) as server, pytest.raises(PullError):
        read_all(client.open(HttpLocation(server.url())))


def test_connections_to_a_host_are_bounded_and_waited_for() -> None:
    http = HttpClient(NetworkSettings(plain_http_hosts=LOOPBACK, connections=2))
    with RawServer(serve_ranges) as server, ThreadPoolExecutor(1) as threads:
        first, second = (http.open(HttpLocation(server.url())) for _ in range(2))
        third = threads.submit(http.open, HttpLocation(server.url()), start=5, end=10)
        with pytest.raises(TimeoutError):
            third.result(timeout=0.2)
        assert len(server.requests) == server.connections == 2
        first.close()
        assert read_all(third.result(timeout=10)) == CONTENT[5:10]
        second.close()
    http.close()


def test_ranges_in_many_threads(client: HttpClient) -> None:
    def read(start: int) -> bytes:
        return read_all(client.open(HttpLocation(server.url()), start=start, end=start + 8))

    with RawServer(serve_ranges) as server, ThreadPoolExecutor(16) as threads:
        assert b"".join(threads.map(read, range(0, len(CONTENT), 8))) == CONTENT
        assert server.connections <= 16
