"""A short run of what bench/fuzz_gateway.py runs for long: bytes that a client may send, and nothing breaks."""

from __future__ import annotations

import asyncio
import gc

import pytest

from corral_server.gateway.express import Express
from corral_server.gateway.front.connection import FrontConnection
from corral_server.gateway.front.exchange import Exchange
from corral_server.gateway.messages import Request
from corral_server.gateway.queue import Ticket
from corral_server.gateway.record import Record
from tests.support.fuzz_gateway import HALF_AN_ANSWER, Fuzz
from tests.support.gateway import raw_request, run

CASES = 1500


@pytest.mark.slow
@pytest.mark.parametrize("seed", [20, 21])
def test_whatever_is_sent_nothing_breaks_and_nothing_is_left_over(seed: int) -> None:
    async def scenario() -> None:
        fuzz, tasks = Fuzz(), len(asyncio.all_tasks())
        fuzz.start()
        try:
            for number in range(CASES):
                await fuzz.run(seed, number)
        finally:
            fuzz.close()
        assert min(fuzz.begun, fuzz.answered, fuzz.refused) > CASES / 20, "most of it is not refused at the first byte"
        assert len(asyncio.all_tasks()) == tasks

    run(scenario())


@pytest.mark.parametrize("turns", range(6))
def test_a_client_that_leaves_while_its_request_is_handed_on_holds_no_slot(turns: int) -> None:
    """The short way gives up on the runner's answer, and the client leaves about when the long way begins."""

    async def scenario() -> None:
        fuzz = Fuzz()
        fuzz.start()
        try:
            for answer in (None, HALF_AN_ANSWER):
                fuzz.bad = answer
                connection, client = fuzz.client()
                connection.data_received(raw_request())
                for _ in range(turns if answer else 20):
                    await asyncio.sleep(0)
                client.close()
                await fuzz.until_settled()
            assert fuzz.begun == 2
        finally:
            fuzz.close()

    run(scenario())


_STREAM = raw_request(body=b'{"model":"tiny","stream":true}')


@pytest.mark.parametrize(
    "sent", [b"", b"no HTTP\r\n\r\n", raw_request(), _STREAM], ids=["none", "bad", "whole", "stream"]
)
def test_nothing_of_a_client_that_left_is_kept(sent: bytes) -> None:
    async def client(fuzz: Fuzz) -> None:
        connection, socket = fuzz.client()
        connection.data_received(sent)
        for _ in range(20):
            await asyncio.sleep(0)
        socket.close()
        await fuzz.until_settled()

    async def scenario() -> None:
        fuzz = Fuzz()
        fuzz.start()
        try:
            for _ in range(5):
                await client(fuzz)
            gc.collect()
            kinds = (FrontConnection, Exchange, Express, Request, Record, Ticket)
            assert [each for each in gc.get_objects() if isinstance(each, kinds)] == []
        finally:
            fuzz.close()

    run(scenario())
