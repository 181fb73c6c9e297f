"""Request smuggling: ambiguous framing is rejected, and forwarded requests get new framing."""

from __future__ import annotations

import asyncio

import pytest

from corral_server.gateway.proxy.headers import REQUEST_HEADERS
from corral_server.gateway.proxy.relay import STREAM_BROKE
from tests.support.fake_upstream import Call, fake_upstream, reply
from tests.support.gateway import (
    MemoryDirectory,
    RunningGateway,
    entry,
    gateway_with_upstream,
    raw_request,
    running_gateway,
)

BODY = b'{"model":"tiny"}'
CHUNKED = b"10\r\n" + BODY + b"\r\n0\r\n\r\n"
INNER = b"GET /api/version HTTP/1.1\r\nhost: x\r\n\r\n"


async def talk(gateway: RunningGateway, data: bytes) -> bytes:
    """Sends the bytes and reads until the gateway closes."""
    reader, writer = await gateway.connect()
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


def post(*lines: bytes, body: bytes = BODY, first: bytes = b"POST /api/chat HTTP/1.1") -> bytes:
    return b"\r\n".join([first, b"host: x", *lines, b"", b""]) + body


LENGTH, CODED = b"content-length: 16", b"transfer-encoding: chunked"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(post(LENGTH, CODED, body=CHUNKED), id="CL.TE"),
        pytest.param(post(CODED, LENGTH, body=CHUNKED), id="TE.CL"),
        pytest.param(post(LENGTH, b"content-length: 17"), id="two lengths"),
        pytest.param(post(LENGTH, LENGTH), id="one length twice"),
        pytest.param(post(b"content-length: 16, 16"), id="a list of lengths"),
        pytest.param(post(b"content-length: +16"), id="a length with a sign"),
        pytest.param(post(b"content-length: 0x10"), id="a hexadecimal length"),
        pytest.param(post(b"content-length: 16 0"), id="a length with a space"),
        pytest.param(post(b"content-length:\r\n 16"), id="obs-fold"),
        pytest.param(post(b"x: a\r\n transfer-encoding: chunked", LENGTH), id="obs-fold around a coding"),
        pytest.param(post(LENGTH).replace(b"\r\n", b"\n"), id="bare LF"),
        pytest.param(post(b"x: y\ncontent-length: 16"), id="bare LF in a header"),
        pytest.param(post(b"x: y\rcontent-length: 16"), id="bare CR in a header"),
        pytest.param(post(b"content-length : 16"), id="space before the colon"),
        pytest.param(post(b"transfer-encoding : chunked", body=CHUNKED), id="space before a coding's colon"),
        pytest.param(post(b"transfer-encoding: \x0bchunked", body=CHUNKED), id="a control before the coding"),
        pytest.param(post(b"transfer-encoding: xchunked", body=CHUNKED), id="no coding"),
        pytest.param(post(b"transfer-encoding: identity", body=CHUNKED), id="identity"),
        pytest.param(post(b"transfer-encoding: gzip, chunked", body=CHUNKED), id="two codings"),
        pytest.param(post(b"transfer-encoding: chunked, identity", body=CHUNKED), id="chunked not last"),
        pytest.param(post(CODED, CODED, body=CHUNKED), id="chunked twice"),
        pytest.param(post(b"transfer-encoding:", body=CHUNKED), id="an empty coding"),
        pytest.param(post(CODED, body=CHUNKED, first=b"POST /api/chat HTTP/1.0"), id="a coding in HTTP/1.0"),
        pytest.param(post(CODED, body=b"10\n" + BODY + b"\r\n0\r\n\r\n"), id="bare LF after a chunk's size"),
        pytest.param(post(CODED, body=b"10;a\nb\r\n" + BODY + b"\r\n0\r\n\r\n"), id="bare LF in an extension"),
        pytest.param(post(CODED, body=b"0x10\r\n" + BODY + b"\r\n0\r\n\r\n"), id="a chunk's size with 0x"),
        pytest.param(post(CODED, body=b"f\r\n" + BODY + b"\r\n0\r\n\r\n"), id="a chunk that is too long"),
        pytest.param(post(CODED, body=b"10000000000000010\r\n" + BODY), id="a chunk's size that overflows"),
        pytest.param(
            post(CODED, body=b"10\r\n" + BODY + b"\r\n0\r\ncontent-length: 5\r\n\r\n"), id="a length as trailer"
        ),
        pytest.param(post(LENGTH, first=b"POST /api/chat HTTP/2.0"), id="HTTP/2.0"),
        pytest.param(b"POST /api/chat\r\n\r\n", id="HTTP/0.9"),
        pytest.param(post(LENGTH, first=b"POST /api/chat HTTP/1.1 x"), id="more after the version"),
        pytest.param(post(LENGTH, first=b"post /api/chat HTTP/1.1"), id="a method in small letters"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2's preface"),
        pytest.param(post(b"host: y", LENGTH), id="two hosts"),
        pytest.param(post(LENGTH).replace(b"host: x\r\n", b""), id="no host"),
        pytest.param(post(b"h\xc3\xb6st: y", LENGTH), id="a name that is not ASCII"),
        pytest.param(post(b": y", LENGTH), id="no name"),
        pytest.param(post(b"x: a\x00b", LENGTH), id="NUL in a value"),
        pytest.param(post(LENGTH, first=b"CONNECT other:443 HTTP/1.1"), id="CONNECT"),
        *[
            pytest.param(post(b"transfer-encoding: " + value, body=CHUNKED), id=f"coding {value!r}")
            for value in (b"chunked\t", b"chunked,", b",chunked", b"chunked;q=1", b'"chunked"')
        ],
        *[
            pytest.param(post(b"content-length:" + value), id=f"length {value!r}")
            for value in (b"", b" -1", b" 16,", b" 16\x0b", b" 18446744073709551632")
        ],
        *[
            pytest.param(post(CODED, body=size + BODY + b"\r\n0\r\n\r\n"), id=f"chunk {size!r}")
            for size in (b"10 \r\n", b" 10\r\n", b"-10\r\n", b"1_0\r\n", b"10\r")
        ],
        *[
            pytest.param(post(CODED, body=b"10\r\n" + BODY + end), id=f"end {end!r}")
            for end in (b"0\r\n\r\n", b"\n0\r\n\r\n", b"\r\n0\n\n", b"\r\n0\r\n\n", b"\r\n0\r\n" + CODED + b"\r\n\r\n")
        ],
        *[
            pytest.param(post(line, LENGTH), id=f"header {line!r}")
            for line in (b"x y: z", b"x[y]: z", b"x(y): z", b"x\x7f: z", b"x: a\x7f", b"x: a\x01", b"x: a\x1b")
        ],
        *[
            pytest.param(post(LENGTH, first=b"POST /api/chat " + version), id=f"version {version!r}")
            for version in (b"http/1.1", b"HTTP/1.2", b"HTTP/1.10", b"HTTP/0.9", b"HTTP/1.1 ", b"HTTP/1,1")
        ],
    ],
)
async def test_an_ambiguous_request_is_rejected_and_nothing_after_it_is_parsed(data: bytes) -> None:
    async with gateway_with_upstream() as (up, gateway):
        said = await talk(gateway, data + INNER + b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert said[9:10] == b"4"
        refused = [
            b"too many Host",
            b"missing required Host",
        ]  # these two are whole requests, and others may follow
        assert said.count(b"HTTP/1.1 ") == 1 or any(text in said for text in refused)
        assert (await gateway.chat()).status_code == 200
    assert len(up.calls) == 1, "only the valid request is forwarded"


async def test_a_valid_request_before_an_invalid_one_is_answered() -> None:
    async with gateway_with_upstream() as (up, gateway):
        said = await talk(gateway, raw_request() + b"nonsense\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 200 ")
        assert said.endswith(b'{"done":true}')
    assert len(up.calls) == 1


async def test_data_after_a_connection_close_request_is_discarded() -> None:
    async with gateway_with_upstream() as (up, gateway):
        said = await talk(gateway, raw_request("/api/chat", BODY, "connection: close") + raw_request())
        assert said.count(b"HTTP/1.1 ") == 1
        assert said.startswith(b"HTTP/1.1 200 ")
    assert len(up.calls) == 1


@pytest.mark.parametrize("times", [1, 2])
async def test_a_forwarded_request_has_a_length_and_no_hop_by_hop_headers(times: int) -> None:
    """``times``: the second request uses the connection of the first."""

    request = post(
        CODED,
        b"connection: x-mine, content-length, host",
        b"x-mine: 1",
        b"accept: 2",
        b"keep-alive: 5",
        b"te: trailers",
        b"proxy-authorization: x",
        b"upgrade-insecure-requests: 1",
        b"corral-gateway: evil",
        b"corral-queued-ns: 1",
        b"trailer: x-late",
        body=CHUNKED[:-2] + b"x-late: 1\r\n\r\n",
    )
    async with gateway_with_upstream() as (up, gateway):
        for _ in range(times):
            reader, writer = await gateway.connect()
            writer.write(request)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            writer.close()
    headers = up.calls[-1].headers
    assert up.calls[-1].body == BODY
    assert headers["content-length"] == "16"
    assert headers["accept"] == "2"
    assert headers["host"] == "runner"
    assert headers["corral-gateway"] == "gateway"
    assert headers.get("corral-queued-ns") != "1"
    own = {name for name in headers if name.startswith("corral-")} | {"host", "content-length"}
    assert headers.keys() - own <= {name.decode() for name in REQUEST_HEADERS}


@pytest.mark.parametrize("times", [1, 2])
async def test_hop_by_hop_headers_of_the_runner_are_not_forwarded(times: int) -> None:
    behave = reply(
        connection="x-its, keep-alive", x_its="1", keep_alive="5", retry_after="2", upgrade="h2c", trailer="x"
    )
    async with gateway_with_upstream(behave) as (_, gateway):
        for _ in range(times):
            answer = await gateway.chat()
    assert answer.headers["retry-after"] == "2"
    assert not {"x-its", "keep-alive", "upgrade", "trailer"} & answer.headers.keys()


@pytest.mark.parametrize("target", ["http://other.example/api/chat", "http://user@other:1/api/chat?x=1"])
async def test_an_absolute_target_selects_a_path_and_no_other_host(target: str) -> None:
    async with gateway_with_upstream() as (up, gateway):
        said = await talk(gateway, raw_request(target, BODY, "connection: close"))
        assert said.startswith(b"HTTP/1.1 200 ")
    assert up.calls[0].path.partition("?")[0] == "/api/chat"
    assert up.calls[0].headers["host"] == "runner"


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "M-SEARCH", "SOURCE", "PURGE", "QUERY"])
async def test_unusual_methods_are_not_forwarded(method: str) -> None:
    async with gateway_with_upstream() as (up, gateway):
        said = await talk(gateway, raw_request("/api/chat", BODY, "connection: close", method=method))
        assert said[9:10] == b"4"
    assert not up.calls


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\x00\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\nset-cookie: x\n\nok",
        b"HTTP/1.1 200 OK\r\nx: a\r\n b: c\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ncontent-length: 5\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 99 Odd\r\ncontent-length: 2\r\n\r\nok",
    ],
)
@pytest.mark.parametrize("served", [0, 1])
async def test_an_ambiguous_response_of_a_runner_is_an_error(answer: bytes, served: int) -> None:
    """``served``: valid responses before it; with one the connection is reused."""

    async def behave(call: Call) -> None:
        await call.write(answer)

    async with (
        fake_upstream(behave, *[reply()] * served) as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port))) as gateway,
    ):
        for _ in range(served):
            assert (await gateway.chat()).status_code == 200
        async with asyncio.timeout(10):
            assert (await gateway.chat()).status_code == 500


@pytest.mark.parametrize("served", [0, 1])
async def test_a_stream_shorter_than_its_content_length_ends_with_an_error(served: int) -> None:
    async def behave(call: Call) -> None:
        await call.head(200, {"content-type": "application/x-ndjson", "content-length": "10"})
        await call.write(b"{}\n")
        call.close()

    async with (
        fake_upstream(behave, *[reply()] * served) as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port))) as gateway,
    ):
        for _ in range(served):
            await gateway.chat()
        async with asyncio.timeout(10):
            answer = await gateway.chat()
        assert "content-length" not in answer.headers
        assert answer.text.splitlines() == ["{}", f'{{"error":"{STREAM_BROKE}"}}']


async def test_data_after_a_runners_response_is_not_the_next_response() -> None:
    async def behave(call: Call) -> None:
        await call.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" * 2)

    async with gateway_with_upstream(behave) as (up, gateway):
        answers = [(await gateway.chat()).text for _ in range(3)]
    assert answers == ["ok"] * 3
    assert up.connections == 3


async def test_an_http_1_0_client_gets_no_100_continue() -> None:
    """It would take the 100 for its response, and the response for that of its next request."""

    async with gateway_with_upstream() as (_, gateway):
        reader, writer = await gateway.connect()
        writer.write(post(LENGTH, b"expect: 100-continue", body=b"", first=b"POST /api/chat HTTP/1.0"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        writer.write(BODY)
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 200 ")
        writer.close()
