"""Forwarding: relayed responses and streams, retries, disconnects and back-pressure."""

from __future__ import annotations

import asyncio
import json

import pytest

from corral_server.wire.errors import RUNNER_STOPPED
from tests.support.fake_upstream import (
    Call,
    close_at_once,
    fake_upstream,
    refuse,
    reply,
    reset_at_once,
)
from tests.support.gateway import MemoryDirectory, endpoint, entry, gateway_with_upstream, raw_request, running_gateway
from tests.support.waiting import auntil


async def test_a_response_is_relayed_byte_for_byte() -> None:
    body = b'{ "odd"  : "\xc3\xa9", "done":true }'
    behaviour = reply(201, body, cache_control="no-store")
    async with gateway_with_upstream(behaviour) as (up, gateway):
        answer = await gateway.chat(keep_alive="5m")
    assert (answer.status_code, answer.content) == (201, body)
    assert answer.headers["cache-control"] == "no-store"
    assert json.loads(up.calls[0].body)["keep_alive"] == "5m"


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages", "/api/embed"])
async def test_a_runner_gets_no_credentials_cookies_or_addresses_of_clients(path: str) -> None:
    secret = "corral_secret"
    sent = {
        "authorization": f"Bearer {secret}",
        "x-api-key": secret,
        "api-key": secret,
        "x-goog-api-key": secret,
        "proxy-authorization": f"Basic {secret}",
        "cookie": f"session={secret}",
        "x-forwarded-for": secret,
        "x-amz-security-token": secret,
        "corral-model-name": secret,
        "corral-gateway": secret,
        "referer": f"https://{secret}.example",
    }
    async with gateway_with_upstream() as (up, gateway):
        await gateway.http.post(f"{path}?key={secret}", json={"model": "tiny"}, headers={**sent, "user-agent": "mine"})
    call = up.calls[0]
    assert secret not in str(call.headers) + call.path
    assert call.headers["user-agent"] == "mine"
    assert call.headers["corral-model-name"] == "tiny:latest"


async def test_a_runner_sets_no_cookies_or_security_headers_for_clients() -> None:
    behaviour = reply(
        set_cookie="session=stolen; Domain=example.com",
        access_control_allow_origin="*",
        strict_transport_security="max-age=0",
        clear_site_data='"*"',
        content_security_policy="none",
        location="https://elsewhere.example",
        corral_retry="loading",
        retry_after="3",
        connection="keep-alive, cache-control",
        cache_control="no-store",
    )
    async with gateway_with_upstream(behaviour) as (_, gateway):
        answer = await gateway.chat()
    assert set(answer.headers) <= {"content-type", "content-length", "date", "retry-after", "server", "connection"}
    assert answer.headers["retry-after"] == "3"


async def test_a_request_is_reframed_without_hop_by_hop_headers() -> None:
    async with gateway_with_upstream() as (up, gateway):
        reader, writer = await gateway.connect()
        writer.write(
            b"POST /api/chat?ts=1 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
            b"connection: x-mine, user-agent\r\nuser-agent: x\r\n"
            b'x-mine: 1\r\nte: trailers\r\naccept: 2\r\n\r\n10\r\n{"model":"tiny"}\r\n0\r\n\r\n'
        )
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
    call = up.calls[0]
    assert call.path == "/api/chat"
    assert call.body == b'{"model":"tiny"}'
    assert call.headers["content-length"] == "16"
    assert call.headers["accept"] == "2"
    assert not {"transfer-encoding", "connection", "te", "x-mine", "user-agent"} & set(call.headers)


async def test_a_stream_is_relayed_as_it_arrives() -> None:
    go_on = asyncio.Event()

    async def behave(call: Call) -> None:
        await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
        await call.chunk(b'{"n":1}\n')
        await go_on.wait()
        await call.chunk(b'{"n":2}\n')
        await call.write(b"0\r\n\r\n")

    async with (
        gateway_with_upstream(behave) as (_, gateway),
        gateway.http.stream("POST", "/api/chat", json={"model": "tiny"}) as answer,
    ):
        lines = answer.aiter_lines()
        assert await anext(lines) == '{"n":1}'
        go_on.set()
        assert [line async for line in lines] == ['{"n":2}']


async def test_an_incomplete_stream_ends_with_an_error_line() -> None:
    async def behave(call: Call) -> None:
        await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
        await call.chunk(b'{"n":1}\n')
        await call.write(b'8\r\n{"n"')
        call.close()

    async with gateway_with_upstream(behave) as (_, gateway):
        answer = await gateway.chat()
    assert answer.status_code == 200
    first, last = answer.text.splitlines()
    assert first == '{"n":1}'
    assert json.loads(last)["error"] == "an error was encountered while running the model: unexpected EOF"


async def test_an_incomplete_openai_stream_ends_with_an_error_event() -> None:
    async def behave(call: Call) -> None:
        await call.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await call.chunk(b'data: {"n":1}\n\ndata: {"n"')
        call.reset()

    async with gateway_with_upstream(behave) as (_, gateway):
        answer = await gateway.chat(path="/v1/chat/completions")
    first, last = answer.text.rstrip("\n").split("\n\n")
    assert first == 'data: {"n":1}'
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "api_error"


async def test_an_incomplete_anthropic_stream_ends_with_an_error_event() -> None:
    async def behave(call: Call) -> None:
        await call.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await call.chunk(b'event: ping\ndata: {"type":"ping"}\n\nevent: content')
        call.reset()

    async with gateway_with_upstream(behave) as (up, gateway):
        answer = await gateway.chat(path="/v1/messages")
    first, last = answer.text.rstrip("\n").split("\n\n")
    assert first == 'event: ping\ndata: {"type":"ping"}'
    kind, _, data = last.partition("\n")
    assert (kind, json.loads(data.removeprefix("data: "))["error"]["type"]) == ("event: error", "api_error")
    assert len(up.calls) == 1, "what has begun to answer is not asked again"


async def test_an_incomplete_response_that_is_not_a_stream_becomes_a_500() -> None:
    async def behave(call: Call) -> None:
        await call.head(200, {"content-type": "application/json", "content-length": "100"})
        await call.write(b'{"half":')
        call.close()

    async with gateway_with_upstream(behave) as (up, gateway):
        answer = await gateway.chat()
    assert (answer.status_code, answer.json()) == (500, {"error": RUNNER_STOPPED})
    assert len(up.calls) == 1


async def test_a_request_is_not_retried_when_the_runner_dies() -> None:
    async with gateway_with_upstream(close_at_once) as (up, gateway):
        answer = await gateway.chat(path="/v1/chat/completions")
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == RUNNER_STOPPED
    assert len(up.calls) == 1


async def test_a_request_is_queued_while_the_runner_is_unreachable() -> None:
    async with fake_upstream() as gone:
        pass
    directory = MemoryDirectory.of(entry("tiny", gone.port))
    async with running_gateway(directory) as gateway, asyncio.TaskGroup() as group:
        asked = group.create_task(gateway.chat())
        await auntil(lambda: directory.demands and directory.demands[-1][1] == 1)
        async with fake_upstream() as up:
            directory.put(entry("tiny", up.port))
            assert (await asked).status_code == 200


async def test_a_request_fails_when_the_runner_stays_unreachable() -> None:
    async with fake_upstream() as up:
        port = up.port
    directory = MemoryDirectory.of(entry("tiny", port))
    async with running_gateway(directory, connect_retry_timeout=0.5) as gateway:
        answer = await gateway.chat()
    assert (answer.status_code, answer.json()) == (500, {"error": RUNNER_STOPPED})
    assert directory.demands[-1] == ("default/tiny", 0, None)


async def test_another_runner_serves_when_one_is_unreachable() -> None:
    async with fake_upstream() as gone:
        pass
    async with fake_upstream() as up:
        directory = MemoryDirectory.of(entry("tiny", gone.port, up.port))
        async with running_gateway(directory) as gateway:
            assert (await gateway.chat()).status_code == 200


async def test_an_idle_connection_closed_by_the_runner_causes_no_error() -> None:
    async def once(call: Call) -> None:
        await reply()(call)
        call.close()

    async with gateway_with_upstream(once) as (up, gateway):
        answers = [await gateway.chat() for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    assert up.connections == 20


async def test_connections_to_runners_are_reused() -> None:
    async with gateway_with_upstream() as (up, gateway):
        for _ in range(10):
            await gateway.chat()
    assert up.connections == 1


async def test_a_request_is_retried_until_a_loading_runner_is_ready() -> None:
    async with gateway_with_upstream(reply(), *[refuse()] * 7) as (up, gateway):
        answer = await gateway.chat()
    assert answer.status_code == 200
    assert len(up.calls) == 8


async def test_the_queue_time_is_sent_to_the_runner() -> None:
    async with gateway_with_upstream(reply(), refuse()) as (up, gateway):
        await gateway.chat()
    first, second = (int(call.headers["corral-queued-ns"]) for call in up.calls)
    assert second - first >= 40_000_000, "the runner that refused rests for 50 ms"


async def test_a_client_cannot_set_the_queue_time() -> None:
    async with gateway_with_upstream(reply()) as (up, gateway):
        await gateway.http.post("/api/chat", json={"model": "tiny"}, headers={"corral-queued-ns": "987654321000"})
    assert up.calls[0].headers.get("corral-queued-ns") != "987654321000"


async def test_a_503_without_the_retry_header_is_relayed() -> None:
    async with gateway_with_upstream(reply(503, b'{"error":"mine"}')) as (_, gateway):
        answer = await gateway.chat()
    assert (answer.status_code, answer.json()) == (503, {"error": "mine"})


async def test_a_disconnect_removes_the_request_from_the_queue() -> None:
    async with fake_upstream() as up:
        directory = MemoryDirectory.of(entry("tiny"))
        async with running_gateway(directory) as gateway:
            _, writer = await gateway.connect()
            writer.write(raw_request(body=b'{"model":"tiny","who":"leaver"}'))
            await gateway.until_pending(1)
            writer.close()
            await gateway.until_pending(0)
            assert directory.demands[-1] == ("default/tiny", 0, None)
            directory.change(endpoints=(endpoint(up.port),))
            await gateway.chat()
    assert [b"leaver" in call.body for call in up.calls] == [False]


async def test_a_disconnect_during_a_stream_aborts_the_runner_and_frees_the_slot() -> None:
    noticed = asyncio.Event()

    async def behave(call: Call) -> None:
        await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
        await call.chunk(b'{"n":1}\n')
        await call.wait_closed()
        noticed.set()

    async with gateway_with_upstream(reply(), behave, slots=1) as (_, gateway):
        reader, writer = await gateway.connect()
        writer.write(raw_request())
        await reader.readuntil(b'{"n":1}\n')
        writer.close()
        await asyncio.wait_for(noticed.wait(), 10)
        assert (await gateway.chat()).status_code == 200


async def test_a_disconnect_before_the_response_aborts_the_request() -> None:
    noticed = asyncio.Event()

    async def behave(call: Call) -> None:
        await call.wait_closed()
        noticed.set()

    async with gateway_with_upstream(behave) as (up, gateway):
        _, writer = await gateway.connect()
        writer.write(raw_request())
        await auntil(lambda: up.calls)
        writer.close()
        await asyncio.wait_for(noticed.wait(), 10)
        assert gateway.gateway.dispatcher.queue.slots_in_use("default/tiny") == 0


async def test_a_client_that_stops_reading_slows_the_runner_down() -> None:
    sent = 0

    async def behave(call: Call) -> None:
        nonlocal sent
        await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
        line = b'{"x":"' + b"a" * 32_000 + b'"}\n'
        for _ in range(2000):
            await call.chunk(line)
            sent += len(line)
        await call.write(b"0\r\n\r\n")

    async with gateway_with_upstream(behave) as (_, gateway):
        reader, writer = await gateway.connect()
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # this client does not read at all
        writer.write(raw_request())
        last = -1

        def still() -> bool:
            nonlocal last
            before, last = last, sent
            return 0 < before == last

        await auntil(still, 20, what="the runner stands still")
        assert sent < 20 * 1024 * 1024
        reader._transport.resume_reading()  # type: ignore[attr-defined]  # and now it does
        size = 0
        while size < 2000 * 32_000:
            size += len(await reader.read(1 << 20))
        writer.close()


async def test_a_disconnecting_client_does_not_mark_a_failing_endpoint_healthy() -> None:
    async def hang(call: Call) -> None:
        await call.wait_closed()

    async with gateway_with_upstream(hang, reply(), hang, reset_at_once, slots=2) as (up, gateway):
        await gateway.chat()
        _, writer = await gateway.connect()
        writer.write(raw_request())
        await auntil(lambda: len(up.calls) == 2)
        assert (await gateway.chat()).status_code == 500
        (queue,) = [queue for _, queue in gateway.gateway.dispatcher.queue.model_queues()]
        (endpoint_state,) = queue.endpoints.values()
        assert (endpoint_state.half_open, endpoint_state.failures) == (True, 1)
        writer.close()
        await auntil(lambda: endpoint_state.in_use == 0)
        assert (endpoint_state.half_open, endpoint_state.failures) == (True, 1)
