"""Heartbeats on streams that have not begun, and the errors and responses that follow them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
import pytest

from corral_core.base.errors import InvalidSetting
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.observability.access_log import AccessLog
from corral_server.gateway.observability.request_metrics import RequestObserver
from corral_server.gateway.proxy.heartbeat import COMMENT, PING
from corral_server.gateway.queueing.limits import NO_LIMITS, QueueLimits
from corral_server.wire.errors import RUNNER_STOPPED
from tests.support.fake_upstream import Behaviour, Call, close_at_once, fake_upstream, refuse, reply, stream
from tests.support.gateway import MemoryDirectory, RunningGateway, endpoint, entry, running_gateway

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
ANSWER = b'data: {"n":1}\n\ndata: [DONE]\n\n'
ANSWERS: Behaviour = stream([ANSWER], content_type="text/event-stream")
INTERVAL = 0.05


@asynccontextmanager
async def cold(
    heartbeat: float = INTERVAL,
    *,
    queue_limits: QueueLimits = NO_LIMITS,
    drain: float = 10.0,
    observers: Sequence[RequestObserver] = (),
) -> AsyncIterator[tuple[MemoryDirectory, RunningGateway]]:
    """Run a gateway with a Model that has no runner; ``load`` gives it one."""
    directory = MemoryDirectory.of(entry("tiny"))
    async with running_gateway(
        directory, heartbeat=heartbeat, queue_limits=queue_limits, drain=drain, observers=observers
    ) as gateway:
        yield directory, gateway


@asynccontextmanager
async def asked(
    gateway: RunningGateway, path: str = CHAT, **headers: str
) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[bytes]]]:
    """Ask for a stream; yield the response once its head has arrived, and its pieces."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with gateway.http.stream("POST", path, json=body, headers=headers) as response:
        yield response, response.aiter_raw()


async def beats(pieces: AsyncIterator[bytes], heartbeat: bytes = COMMENT, *, number: int = 1) -> bool:
    """Wait for this number of heartbeats; return whether nothing else has come. Several can arrive as one piece."""
    received = b""
    while len(received) < number * len(heartbeat):
        received += await anext(pieces)
    return not received.replace(heartbeat, b"")


async def rest(pieces: AsyncIterator[bytes], heartbeat: bytes = COMMENT) -> bytes:
    """Return what follows the heartbeats."""
    return b"".join([piece async for piece in pieces]).replace(heartbeat, b"")


async def load(
    directory: MemoryDirectory, behaviour: Behaviour, *script: Behaviour, pieces: AsyncIterator[bytes]
) -> bytes:
    """Give the Model a runner, and return what follows the heartbeats."""
    async with fake_upstream(behaviour, *script) as upstream:
        directory.change(endpoints=(endpoint(upstream.port),))
        return await rest(pieces)


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses", "/infill"])
async def test_comments_come_while_the_request_is_queued_and_the_response_follows(path: str) -> None:
    async with cold() as (directory, gateway), asked(gateway, path) as (response, pieces):
        assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream")
        assert await beats(pieces, number=3)
        assert await load(directory, ANSWERS, pieces=pieces) == ANSWER


async def test_messages_have_ping_events() -> None:
    async with cold() as (directory, gateway), asked(gateway, MESSAGES) as (_, pieces):
        assert await beats(pieces, PING)
        async with fake_upstream(ANSWERS) as upstream:
            directory.change(endpoints=(endpoint(upstream.port),))
            assert await rest(pieces, PING) == ANSWER


async def test_json_lines_have_only_an_early_head() -> None:
    line = b'{"message":{"content":"hi"},"done":true}\n'
    async with cold() as (directory, gateway), asked(gateway, "/api/chat") as (response, pieces):
        assert (response.status_code, response.headers["content-type"]) == (200, "application/x-ndjson")
        assert gateway.pending == 1
        assert await load(directory, stream([line]), pieces=pieces) == line


async def test_a_runner_that_reads_a_prompt_has_heartbeats_before_it() -> None:
    go_on = asyncio.Event()

    async def slow(call: Call) -> None:
        await go_on.wait()
        await ANSWERS(call)

    async with (
        fake_upstream(slow) as upstream,
        running_gateway(MemoryDirectory.of(entry("tiny", upstream.port)), heartbeat=INTERVAL) as gateway,
        asked(gateway) as (_, pieces),
    ):
        assert await beats(pieces)
        go_on.set()
        assert await rest(pieces) == ANSWER


async def test_a_stream_that_has_begun_has_no_heartbeats() -> None:
    go_on = asyncio.Event()

    async def pauses(call: Call) -> None:
        await call.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await call.chunk(b'data: {"n":1}\n\n')
        await go_on.wait()
        await call.chunk(b"data: [DONE]\n\n")
        await call.write(b"0\r\n\r\n")

    async with (
        fake_upstream(pauses) as upstream,
        running_gateway(MemoryDirectory.of(entry("tiny", upstream.port)), heartbeat=INTERVAL) as gateway,
        asked(gateway) as (_, pieces),
    ):
        assert (await anext(pieces)).endswith(b'data: {"n":1}\n\n')
        asyncio.get_running_loop().call_later(4 * INTERVAL, go_on.set)
        assert await rest(pieces, b"") == b"data: [DONE]\n\n"


@pytest.mark.parametrize("fields", ["{}", '{"stream":false}', '{"stream":"true"}', '{"stream":null}'])
async def test_a_request_without_a_stream_keeps_the_status_of_its_error(fields: str) -> None:
    async with cold(queue_limits=QueueLimits(0, 4 * INTERVAL)) as (_, gateway):
        answer = await gateway.chat(path=CHAT, **json.loads(fields))
    assert answer.status_code == 504
    assert "timed out" in answer.json()["error"]["message"]


async def test_an_error_before_the_first_interval_keeps_its_status() -> None:
    async with cold(heartbeat=60.0, queue_limits=QueueLimits(0, INTERVAL)) as (_, gateway):
        assert (await gateway.chat(path=CHAT, stream=True)).status_code == 504


async def test_no_heartbeats_with_an_interval_of_0() -> None:
    async with cold(heartbeat=0.0, queue_limits=QueueLimits(0, 4 * INTERVAL)) as (_, gateway):
        assert (await gateway.chat(path=CHAT, stream=True)).status_code == 504


@pytest.mark.parametrize(
    ("path", "event", "kind"), [(CHAT, "", "api_error"), (MESSAGES, "event: error\n", "timeout_error")]
)
async def test_a_wait_that_times_out_ends_with_an_error_event(path: str, event: str, kind: str) -> None:
    async with cold(queue_limits=QueueLimits(0, 4 * INTERVAL)) as (_, gateway), asked(gateway, path) as (_, pieces):
        last = (await rest(pieces, PING if path == MESSAGES else COMMENT)).decode()
    assert last.startswith(f"{event}data: ")
    assert last.endswith("\n\n")
    error = json.loads(last.removeprefix(f"{event}data: "))["error"]
    assert error["type"] == kind
    assert "timed out" in error["message"]


async def test_a_wait_that_times_out_ends_json_lines_with_an_error_line() -> None:
    limits = QueueLimits(0, 4 * INTERVAL)
    async with cold(queue_limits=limits) as (_, gateway), asked(gateway, "/api/chat") as (response, pieces):
        assert response.status_code == 200
        assert "timed out" in json.loads(await rest(pieces))["error"]


async def test_a_model_that_cannot_load_ends_the_stream_with_its_reason() -> None:
    async with cold() as (directory, gateway), asked(gateway) as (_, pieces):
        assert await beats(pieces)
        directory.change(unavailable_reason="the weights are damaged")
        last = await rest(pieces)
    assert json.loads(last.removeprefix(b"data: "))["error"]["message"] == "the weights are damaged"


async def test_a_model_that_is_deleted_ends_the_stream_with_its_name() -> None:
    async with cold() as (directory, gateway), asked(gateway) as (_, pieces):
        assert await beats(pieces)
        directory.remove()
        error = json.loads((await rest(pieces)).removeprefix(b"data: "))["error"]
    assert (error["type"], error["message"]) == ("not_found_error", "model 'tiny' not found")


async def test_a_request_is_sent_again_after_heartbeats() -> None:
    async with cold() as (directory, gateway), asked(gateway) as (_, pieces):
        assert await beats(pieces)
        assert await load(directory, ANSWERS, refuse(), refuse(), pieces=pieces) == ANSWER


async def test_a_runner_that_dies_after_heartbeats_ends_the_stream_with_an_error() -> None:
    async with cold() as (directory, gateway), asked(gateway) as (_, pieces):
        assert await beats(pieces)
        last = await load(directory, close_at_once, pieces=pieces)
    assert json.loads(last.removeprefix(b"data: "))["error"]["message"] == RUNNER_STOPPED


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (CHAT, b'data: {"error": {"message":"no"}}\n\n'),
        (MESSAGES, b'event: error\ndata: {"error": {"message":"no"}}\n\n'),
        ("/api/chat", b'{"error": {"message":"no"}}\n'),
    ],
)
async def test_an_error_response_of_the_runner_becomes_the_end_of_the_stream(path: str, expected: bytes) -> None:
    refusal = reply(400, b'{"error":\n{"message":"no"}}\n')
    async with cold() as (directory, gateway), asked(gateway, path) as (_, pieces):
        if path != "/api/chat":
            assert await beats(pieces, PING if path == MESSAGES else COMMENT)
        async with fake_upstream(refusal) as upstream:
            directory.change(endpoints=(endpoint(upstream.port),))
            assert await rest(pieces, PING if path == MESSAGES else COMMENT) == expected


async def test_an_error_response_that_is_no_json_becomes_an_error_event() -> None:
    async with cold() as (directory, gateway), asked(gateway) as (_, pieces):
        assert await beats(pieces)
        last = await load(directory, reply(502, b"<html>\r\n</html>", content_type="text/html"), pieces=pieces)
    assert json.loads(last.removeprefix(b"data: "))["error"]["message"] == RUNNER_STOPPED


async def test_a_shutdown_ends_the_stream_with_an_error() -> None:
    async with cold(drain=0.1) as (_, gateway), asked(gateway) as (_, pieces):
        assert await beats(pieces)
        gateway.server.should_exit = True
        last = await rest(pieces)
    assert "shutting down" in json.loads(last.removeprefix(b"data: "))["error"]["message"]


async def test_a_client_that_disconnects_between_heartbeats_is_not_pending() -> None:
    async with cold() as (_, gateway):
        async with asked(gateway) as (_, pieces):
            assert await beats(pieces)
        await gateway.until_pending(0)


async def test_an_early_head_has_the_cors_headers() -> None:
    origin = "http://localhost:3000"
    async with cold() as (directory, gateway), asked(gateway, origin=origin) as (response, pieces):
        assert response.headers["access-control-allow-origin"] == origin
        assert await load(directory, ANSWERS, pieces=pieces) == ANSWER


async def test_the_access_log_has_the_status_of_the_error() -> None:
    lines: list[dict[str, object]] = []
    log = AccessLog(100, write=lambda _event, **fields: lines.append(fields))
    limits = QueueLimits(0, 4 * INTERVAL)
    async with cold(queue_limits=limits, observers=[log]) as (_, gateway), asked(gateway) as (response, pieces):
        assert response.status_code == 200
        await rest(pieces)
    assert [line["code"] for line in lines] == [504]


async def test_heartbeats_do_not_count_as_the_first_token() -> None:
    lines: list[dict[str, float]] = []
    log = AccessLog(100, write=lambda _event, **fields: lines.append(fields))
    async with cold(observers=[log]) as (directory, gateway), asked(gateway) as (_, pieces):
        assert await beats(pieces, number=4)
        await load(directory, ANSWERS, pieces=pieces)
        (line,) = lines
    assert line["ttft"] >= line["queue_seconds"] >= 3 * INTERVAL
    assert line["bytes"] == len(ANSWER)


async def test_an_http_1_0_client_gets_heartbeats_without_chunks() -> None:
    body = b'{"model":"tiny","stream":true}'
    async with cold() as (directory, gateway):
        reader, writer = await gateway.connect()
        head = f"POST {CHAT} HTTP/1.0\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        received = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding" not in received
        assert await reader.readexactly(len(COMMENT)) == COMMENT
        async with fake_upstream(ANSWERS) as upstream:
            directory.change(endpoints=(endpoint(upstream.port),))
            assert (await reader.read()).replace(COMMENT, b"") == ANSWER
        writer.close()


def test_the_interval_is_a_setting() -> None:
    assert GatewayConfig.from_environment({}).heartbeat == 15
    assert GatewayConfig.from_environment({"CORRAL_HEARTBEAT": "0"}).heartbeat == 0
    assert GatewayConfig.from_environment({"CORRAL_HEARTBEAT": "500ms"}).heartbeat == 0.5
    with pytest.raises(InvalidSetting, match="at least 100ms"):
        GatewayConfig.from_environment({"CORRAL_HEARTBEAT": "1ms"})
