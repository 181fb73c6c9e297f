"""The gateway behind a real nginx with the configuration of docs/faq.md."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from corral_server.gateway.proxy.heartbeat import COMMENT
from tests.docs.snippets import DOCS, blocks
from tests.support.fake_upstream import Behaviour, Call, fake_upstream, reply, stream
from tests.support.gateway import MemoryDirectory, RunningGateway, endpoint, entry, running_gateway
from tests.support.web_servers import nginx

pytestmark = pytest.mark.process

CHAT = "/v1/chat/completions"
ANSWER = b'data: {"n":1}\n\ndata: [DONE]\n\n'


def directives(port: int) -> str:
    """Return what is inside of the page's server block, for a gateway on this port."""
    [block] = blocks(DOCS / "faq.md", language="nginx")
    inside = block.text.partition("{")[2].rpartition("}")[0]
    inside = re.sub(r"^\s*(listen|server_name) .*$", "", inside, flags=re.MULTILINE)
    assert inside.count("127.0.0.1:11434") == 1
    return inside.replace("127.0.0.1:11434", f"127.0.0.1:{port}")


@asynccontextmanager
async def behind_nginx(
    folder: Path, directory: MemoryDirectory, *, read_timeout: str = "30m"
) -> AsyncIterator[tuple[RunningGateway, httpx.AsyncClient]]:
    """Run the gateway as on a loopback address, and yield a client of nginx in front of it."""
    async with running_gateway(directory, host="127.0.0.1", heartbeat=0.1) as gateway:
        server = directives(gateway.port)
        assert "proxy_read_timeout 30m;" in server
        server = server.replace("proxy_read_timeout 30m;", f"proxy_read_timeout {read_timeout};")
        with nginx(folder / "nginx", server) as port:
            base = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(base_url=base, timeout=60, trust_env=False) as client:
                yield gateway, client


@asynccontextmanager
async def with_runner(folder: Path, behaviour: Behaviour) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        fake_upstream(behaviour) as upstream,
        behind_nginx(folder, MemoryDirectory.of(entry("tiny", upstream.port))) as (_, client),
    ):
        yield client


async def test_a_stream_is_not_buffered(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def behave(call: Call) -> None:
        await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
        await call.chunk(b'{"n":1}\n')
        await go_on.wait()
        await call.chunk(b'{"n":2}\n')
        await call.write(b"0\r\n\r\n")

    async with (
        with_runner(tmp_path, behave) as client,
        client.stream("POST", "/api/chat", json={"model": "tiny"}) as answer,
    ):
        lines = answer.aiter_lines()
        assert await anext(lines) == '{"n":1}'
        go_on.set()
        assert [line async for line in lines] == ['{"n":2}']


async def test_an_image_of_several_megabytes_passes(tmp_path: Path) -> None:
    async with with_runner(tmp_path, reply()) as client:
        answer = await client.post("/api/generate", json={"model": "tiny", "images": ["A" * 5_000_000]})
    assert answer.status_code == 200


async def test_heartbeats_keep_a_cold_start_beyond_the_timeout_of_nginx(tmp_path: Path) -> None:
    directory = MemoryDirectory.of(entry("tiny"))
    body = {"model": "tiny", "messages": []}
    async with (
        behind_nginx(tmp_path, directory, read_timeout="3s") as (gateway, client),
        client.stream("POST", CHAT, json=body | {"stream": True}) as streamed,
    ):
        pieces = streamed.aiter_raw()
        assert (await anext(pieces)).startswith(COMMENT)
        assert (await client.post(CHAT, json=body)).status_code == 504, "nginx ends a request that has no heartbeats"
        async with fake_upstream(stream([ANSWER], content_type="text/event-stream")) as upstream:
            directory.change(endpoints=(endpoint(upstream.port),))
            assert b"".join([piece async for piece in pieces]).replace(COMMENT, b"") == ANSWER
        await gateway.until_pending(0)


async def test_an_error_passes_as_it_is(tmp_path: Path) -> None:
    async with with_runner(tmp_path, reply()) as client:
        answer = await client.post("/api/chat", json={"model": "nope"})
    assert (answer.status_code, json.loads(answer.content)) == (404, {"error": "model 'nope' not found"})
