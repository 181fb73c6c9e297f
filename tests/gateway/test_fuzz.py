"""A short run of bench/fuzz_gateway.py: client input, with the invariants of tests/support/fuzz_gateway.py."""

from __future__ import annotations

import asyncio
import gc

import pytest

from corral_server.gateway.http_server.connection import ClientConnection
from corral_server.gateway.http_server.exchange import Exchange
from corral_server.gateway.messages import Request
from corral_server.gateway.observability.request_metrics import RequestMetrics
from corral_server.gateway.queueing.model_queue import PendingRequest
from tests.support.fuzz_gateway import TRUNCATED_RESPONSE, GatewayFuzzer
from tests.support.gateway import raw_request

CASES = 1500


@pytest.mark.slow
@pytest.mark.parametrize("seed", [20, 21])
async def test_fuzzed_input_breaks_nothing_and_leaves_nothing_behind(seed: int) -> None:
    fuzz, tasks = GatewayFuzzer(), len(asyncio.all_tasks())
    fuzz.start()
    try:
        for number in range(CASES):
            await fuzz.run(seed, number)
    finally:
        await fuzz.close()
    assert min(fuzz.forwarded, fuzz.answered, fuzz.rejected) > CASES / 20, "most cases get past the first byte"
    assert len(asyncio.all_tasks()) == tasks


@pytest.mark.parametrize("turns", range(6))
async def test_a_client_that_disconnects_at_any_moment_holds_no_slot(turns: int) -> None:
    """The client disconnects ``turns`` turns of the event loop after its request, whatever the request does then."""

    fuzz = GatewayFuzzer()
    fuzz.start()
    try:
        for answer in (None, TRUNCATED_RESPONSE):
            fuzz.bad_response = answer
            connection, client = fuzz.client()
            connection.data_received(raw_request())
            for _ in range(turns if answer else 20):
                await asyncio.sleep(0)
            client.close()
            await fuzz.wait_idle()
        assert fuzz.forwarded == 2
    finally:
        await fuzz.close()


_STREAM = raw_request(body=b'{"model":"tiny","stream":true}')


@pytest.mark.parametrize(
    "sent", [b"", b"no HTTP\r\n\r\n", raw_request(), _STREAM], ids=["none", "bad", "whole", "stream"]
)
async def test_nothing_of_a_disconnected_client_is_kept(sent: bytes) -> None:
    async def client(fuzz: GatewayFuzzer) -> None:
        connection, socket = fuzz.client()
        connection.data_received(sent)
        for _ in range(20):
            await asyncio.sleep(0)
        socket.close()
        await fuzz.wait_idle()

    fuzz = GatewayFuzzer()
    fuzz.start()
    try:
        for _ in range(5):
            await client(fuzz)
        gc.collect()
        kinds = (ClientConnection, Exchange, Request, RequestMetrics, PendingRequest)
        assert [each for each in gc.get_objects() if isinstance(each, kinds)] == []
    finally:
        await fuzz.close()
