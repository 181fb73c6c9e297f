from __future__ import annotations

import asyncio
import json

from corral_server.wire.errors import RUNNER_STOPPED
from tests.support.fake_upstream import (
    Call,
    close_at_once,
    fake_upstream,
    refuse,
    reply,
)
from tests.support.gateway import MemoryDirectory, endpoint, entry, gateway_over, raw_request, run, running_gateway
from tests.support.waiting import auntil


def test_an_answer_is_relayed_byte_for_byte() -> None:
    async def scenario() -> None:
        body = b'{ "odd"  : "\xc3\xa9", "done":true }'
        behaviour = reply(201, body, x_own="kept", connection="keep-alive, x-hop", x_hop="dropped")
        async with gateway_over(behaviour) as (up, gateway):
            answer = await gateway.chat(keep_alive="5m")
        assert (answer.status_code, answer.content) == (201, body)
        assert answer.headers["x-own"] == "kept"
        assert "x-hop" not in answer.headers
        assert json.loads(up.calls[0].body)["keep_alive"] == "5m"

    run(scenario())


def test_the_request_is_framed_anew_and_stripped_of_hop_by_hop_headers() -> None:
    async def scenario() -> None:
        async with gateway_over() as (up, gateway):
            reader, writer = await gateway.connect()
            writer.write(
                b"POST /api/chat?ts=1 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: x-mine\r\n"
                b'x-mine: 1\r\nte: trailers\r\nx-kept: 2\r\n\r\n10\r\n{"model":"tiny"}\r\n0\r\n\r\n'
            )
            await reader.readuntil(b"\r\n\r\n")
            writer.close()
        call = up.calls[0]
        assert call.path == "/api/chat?ts=1"
        assert call.body == b'{"model":"tiny"}'
        assert call.headers["content-length"] == "16"
        assert call.headers["x-kept"] == "2"
        assert not {"transfer-encoding", "connection", "te", "x-mine"} & set(call.headers)

    run(scenario())


def test_a_stream_arrives_as_it_is_made() -> None:
    async def scenario() -> None:
        go_on = asyncio.Event()

        async def behave(call: Call) -> None:
            await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
            await call.chunk(b'{"n":1}\n')
            await go_on.wait()
            await call.chunk(b'{"n":2}\n')
            await call.write(b"0\r\n\r\n")

        async with (
            gateway_over(behave) as (_, gateway),
            gateway.http.stream("POST", "/api/chat", json={"model": "tiny"}) as answer,
        ):
            lines = answer.aiter_lines()
            assert await anext(lines) == '{"n":1}'
            go_on.set()
            assert [line async for line in lines] == ['{"n":2}']

    run(scenario())


def test_a_stream_that_breaks_off_ends_with_an_error_line() -> None:
    async def scenario() -> None:
        async def behave(call: Call) -> None:
            await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
            await call.chunk(b'{"n":1}\n')
            await call.write(b'8\r\n{"n"')
            call.close()

        async with gateway_over(behave) as (_, gateway):
            answer = await gateway.chat()
        assert answer.status_code == 200
        first, last = answer.text.splitlines()
        assert first == '{"n":1}'
        assert json.loads(last)["error"] == "an error was encountered while running the model: unexpected EOF"

    run(scenario())


def test_an_openai_stream_that_breaks_off_ends_with_an_error_event() -> None:
    async def scenario() -> None:
        async def behave(call: Call) -> None:
            await call.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
            await call.chunk(b'data: {"n":1}\n\ndata: {"n"')
            call.reset()

        async with gateway_over(behave) as (_, gateway):
            answer = await gateway.chat(path="/v1/chat/completions")
        first, last = answer.text.rstrip("\n").split("\n\n")
        assert first == 'data: {"n":1}'
        assert json.loads(last.removeprefix("data: "))["error"]["type"] == "api_error"

    run(scenario())


def test_an_anthropic_stream_that_breaks_off_ends_with_an_error_event() -> None:
    async def scenario() -> None:
        async def behave(call: Call) -> None:
            await call.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
            await call.chunk(b'event: ping\ndata: {"type":"ping"}\n\nevent: content')
            call.reset()

        async with gateway_over(behave) as (up, gateway):
            answer = await gateway.chat(path="/v1/messages")
        first, last = answer.text.rstrip("\n").split("\n\n")
        assert first == 'event: ping\ndata: {"type":"ping"}'
        kind, _, data = last.partition("\n")
        assert (kind, json.loads(data.removeprefix("data: "))["error"]["type"]) == ("event: error", "api_error")
        assert len(up.calls) == 1, "what has begun to answer is not asked again"

    run(scenario())


def test_a_whole_answer_that_breaks_off_is_a_500() -> None:
    async def scenario() -> None:
        async def behave(call: Call) -> None:
            await call.head(200, {"content-type": "application/json", "content-length": "100"})
            await call.write(b'{"half":')
            call.close()

        async with gateway_over(behave) as (up, gateway):
            answer = await gateway.chat()
        assert (answer.status_code, answer.json()) == (500, {"error": RUNNER_STOPPED})
        assert len(up.calls) == 1

    run(scenario())


def test_a_runner_that_dies_over_a_request_is_not_sent_it_again() -> None:
    async def scenario() -> None:
        async with gateway_over(close_at_once) as (up, gateway):
            answer = await gateway.chat(path="/v1/chat/completions")
        assert answer.status_code == 500
        assert answer.json()["error"]["message"] == RUNNER_STOPPED
        assert len(up.calls) == 1

    run(scenario())


def test_a_request_waits_for_a_runner_that_cannot_be_reached_yet() -> None:
    async def scenario() -> None:
        async with fake_upstream() as gone:
            pass
        directory = MemoryDirectory.of(entry("tiny", gone.port))
        async with running_gateway(directory) as gateway, asyncio.TaskGroup() as group:
            asked = group.create_task(gateway.chat())
            await auntil(lambda: directory.demands and directory.demands[-1][1] == 1)
            async with fake_upstream() as up:
                directory.put(entry("tiny", up.port))
                assert (await asked).status_code == 200

    run(scenario())


def test_a_runner_that_cannot_be_reached_is_given_up_after_a_while() -> None:
    async def scenario() -> None:
        async with fake_upstream() as up:
            port = up.port
        directory = MemoryDirectory.of(entry("tiny", port))
        async with running_gateway(directory, connect_patience=0.5) as gateway:
            answer = await gateway.chat()
        assert (answer.status_code, answer.json()) == (500, {"error": RUNNER_STOPPED})
        assert directory.demands[-1] == ("default/tiny", 0, None)

    run(scenario())


def test_another_runner_takes_over_from_one_that_cannot_be_reached() -> None:
    async def scenario() -> None:
        async with fake_upstream() as gone:
            pass
        async with fake_upstream() as up:
            directory = MemoryDirectory.of(entry("tiny", gone.port, up.port))
            async with running_gateway(directory) as gateway:
                assert (await gateway.chat()).status_code == 200

    run(scenario())


def test_a_connection_that_the_runner_closed_while_idle_costs_nobody_an_error() -> None:
    async def scenario() -> None:
        async def once(call: Call) -> None:
            await reply()(call)
            call.close()

        async with gateway_over(once) as (up, gateway):
            answers = [await gateway.chat() for _ in range(20)]
        assert {answer.status_code for answer in answers} == {200}
        assert up.connections == 20

    run(scenario())


def test_connections_are_kept_alive() -> None:
    async def scenario() -> None:
        async with gateway_over() as (up, gateway):
            for _ in range(10):
                await gateway.chat()
        assert up.connections == 1

    run(scenario())


def test_a_runner_that_is_still_loading_is_asked_again_until_it_is_ready() -> None:
    async def scenario() -> None:
        async with gateway_over(reply(), *[refuse()] * 7) as (up, gateway):
            answer = await gateway.chat()
        assert answer.status_code == 200
        assert len(up.calls) == 8

    run(scenario())


def test_a_request_that_was_held_tells_the_runner_for_how_long() -> None:
    async def scenario() -> None:
        async with gateway_over(reply(), refuse()) as (up, gateway):
            await gateway.chat()
        first, second = (int(call.headers["corral-queued-ns"]) for call in up.calls)
        assert second - first >= 40_000_000, "the runner that refused rests for 50 ms"

    run(scenario())


def test_no_client_says_for_how_long_its_request_was_held() -> None:
    async def scenario() -> None:
        async with gateway_over(reply()) as (up, gateway):
            await gateway.http.post("/api/chat", json={"model": "tiny"}, headers={"corral-queued-ns": "987654321000"})
        assert up.calls[0].headers.get("corral-queued-ns") != "987654321000"

    run(scenario())


def test_a_503_without_the_retry_header_is_the_answer() -> None:
    async def scenario() -> None:
        async with gateway_over(reply(503, b'{"error":"mine"}')) as (_, gateway):
            answer = await gateway.chat()
        assert (answer.status_code, answer.json()) == (503, {"error": "mine"})

    run(scenario())


def test_a_client_that_leaves_the_queue_frees_its_place_and_is_never_dispatched() -> None:
    async def scenario() -> None:
        async with fake_upstream() as up:
            directory = MemoryDirectory.of(entry("tiny"))
            async with running_gateway(directory) as gateway:
                _, writer = await gateway.connect()
                writer.write(raw_request(body=b'{"model":"tiny","who":"leaver"}'))
                await gateway.until_waiting(1)
                writer.close()
                await gateway.until_waiting(0)
                assert directory.demands[-1] == ("default/tiny", 0, None)
                directory.change(endpoints=(endpoint(up.port),))
                await gateway.chat()
        assert [b"leaver" in call.body for call in up.calls] == [False]

    run(scenario())


def test_a_client_that_leaves_mid_stream_ends_the_runners_work_and_frees_the_slot() -> None:
    async def scenario() -> None:
        noticed = asyncio.Event()

        async def behave(call: Call) -> None:
            await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
            await call.chunk(b'{"n":1}\n')
            await call.gone()
            noticed.set()

        async with gateway_over(reply(), behave, slots=1) as (_, gateway):
            reader, writer = await gateway.connect()
            writer.write(raw_request())
            await reader.readuntil(b'{"n":1}\n')
            writer.close()
            await asyncio.wait_for(noticed.wait(), 10)
            assert (await gateway.chat()).status_code == 200

    run(scenario())


def test_a_client_that_leaves_before_the_runner_answers_ends_the_request() -> None:
    async def scenario() -> None:
        noticed = asyncio.Event()

        async def behave(call: Call) -> None:
            await call.gone()
            noticed.set()

        async with gateway_over(behave) as (up, gateway):
            _, writer = await gateway.connect()
            writer.write(raw_request())
            await auntil(lambda: up.calls)
            writer.close()
            await asyncio.wait_for(noticed.wait(), 10)
            assert gateway.gateway.dispatcher.queue.in_use("default/tiny") == 0

    run(scenario())


def test_a_client_that_stops_reading_slows_the_runner_down() -> None:
    async def scenario() -> None:
        sent = 0

        async def behave(call: Call) -> None:
            nonlocal sent
            await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
            line = b'{"x":"' + b"a" * 32_000 + b'"}\n'
            for _ in range(2000):
                await call.chunk(line)
                sent += len(line)
            await call.write(b"0\r\n\r\n")

        async with gateway_over(behave) as (_, gateway):
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

    run(scenario())
