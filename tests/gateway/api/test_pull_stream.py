"""``/api/pull`` of a Model whose source is being pulled: Ollama's lines, from the directory's entry."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx

from corral_server.gateway.directory.directory import PullingFile
from corral_server.gateway.queueing.limits import QueueLimits
from tests.support.gateway import MemoryDirectory, RunningGateway, entry, run, running_gateway
from tests.support.waiting import auntil

WEIGHTS, PROJECTOR = "cd" * 32, "ef" * 32


def pulling(completed: int, *, second: int = 0) -> tuple[PullingFile, ...]:
    return PullingFile(WEIGHTS, 1000, completed), PullingFile(PROJECTOR, 50, second)


def line(file: PullingFile) -> dict[str, object]:
    done = {"completed": file.completed} if file.completed else {}
    return {
        "status": f"pulling {file.digest[:12]}",
        "digest": f"sha256:{file.digest}",
        "total": file.total,
        **done,
    }


async def streamed(gateway: RunningGateway, **body: object) -> AsyncIterator[dict[str, object]]:
    async with gateway.http.stream("POST", "/api/pull", json={"model": "tiny", **body}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/x-ndjson"
        async for text in response.aiter_lines():
            yield json.loads(text)


def test_the_stream_follows_the_pull_to_its_end() -> None:
    async def scenario() -> None:
        directory = MemoryDirectory.of(entry("tiny", pulling=()))
        async with running_gateway(directory) as gateway:
            lines = streamed(gateway)
            assert await anext(lines) == {"status": "pulling manifest"}
            for files in (pulling(0), pulling(300)):
                directory.change(pulling=files)
                assert await anext(lines) == line(files[0])
            directory.change(pulling=pulling(1000, second=20))
            assert [await anext(lines), await anext(lines)] == [*map(line, pulling(1000, second=20))]
            directory.change(pulling=None)
            rest = [item async for item in lines]
        assert rest == [
            *map(line, pulling(1000, second=50)),
            {"status": "verifying sha256 digest"},
            {"status": "writing manifest"},
            {"status": "success"},
        ]

    run(scenario())


def test_a_pull_that_nothing_else_asks_for_is_wanted_until_it_is_complete() -> None:
    async def scenario() -> None:
        directory = MemoryDirectory.of(entry("tiny", unpulled=True))
        async with running_gateway(directory) as gateway:
            first, second = streamed(gateway), streamed(gateway)
            for lines in (first, second):
                assert await anext(lines) == {"status": "pulling manifest"}
            directory.change(unpulled=False, pulling=pulling(300))
            assert await anext(first) == await anext(second) == line(pulling(300)[0])
            directory.change(pulling=None)
            for lines in (first, second):
                assert [item async for item in lines][-1] == {"status": "success"}
        assert directory.pulls == [("default/tiny", True), ("default/tiny", True), ("default/tiny", False)]
        assert directory.demands == []

    run(scenario())


def test_a_client_that_disconnects_wants_the_pull_no_more() -> None:
    async def scenario() -> None:
        directory = MemoryDirectory.of(entry("tiny", unpulled=True))
        async with running_gateway(directory) as gateway:
            async with gateway.http.stream("POST", "/api/pull", json={"model": "tiny"}) as response:
                await anext(response.aiter_lines())
            await auntil(lambda: directory.pulls[-1] == ("default/tiny", False))

    run(scenario())


def test_a_model_that_is_pulled_succeeds_at_once_and_is_not_pulled_again() -> None:
    async def scenario() -> None:
        directory = MemoryDirectory.of(entry("tiny"))
        async with running_gateway(directory) as gateway:
            assert [item async for item in streamed(gateway)][-1] == {"status": "success"}
        assert directory.pulls == []

    run(scenario())


def test_a_failed_pull_ends_with_its_reason() -> None:
    async def scenario() -> None:
        directory = MemoryDirectory.of(entry("tiny", pulling=pulling(10)))
        async with running_gateway(directory) as gateway:
            lines = streamed(gateway)
            assert await anext(lines) == {"status": "pulling manifest"}
            directory.change(unavailable_reason="the registry has no tag 'x'")
            rest = [item async for item in lines]
        assert rest[-1] == {"error": "the registry has no tag 'x'"}

    run(scenario())


def test_the_pull_of_a_model_that_is_deleted_ends_with_an_error() -> None:
    async def scenario() -> None:
        directory = MemoryDirectory.of(entry("tiny", pulling=()))
        async with running_gateway(directory) as gateway:
            lines = streamed(gateway)
            await anext(lines)
            directory.remove()
            assert [item async for item in lines] == [{"error": "the Model was deleted"}]

    run(scenario())


def test_a_shutdown_does_not_wait_for_the_pull() -> None:
    async def scenario() -> None:
        directory = MemoryDirectory.of(entry("tiny", pulling=pulling(10)))
        async with running_gateway(directory) as gateway:
            lines = streamed(gateway)
            await anext(lines)
            gateway.gateway.drain()
            rest = [item async for item in lines]
        assert rest[-1] == {"error": "the gateway is shutting down, please try again; what is pulled already stays"}

    run(scenario())


def test_without_a_stream_the_response_comes_after_the_pull() -> None:
    async def scenario() -> None:
        directory = MemoryDirectory.of(entry("tiny", pulling=pulling(10)))
        async with running_gateway(directory) as gateway:
            answer = asyncio.create_task(gateway.http.post("/api/pull", json={"model": "tiny", "stream": False}))
            tags = (await gateway.http.get("/api/tags")).json()
            assert tags["models"][0]["pulling"] == {"total": 1050, "completed": 10}
            assert not answer.done()
            directory.change(pulling=None)
            assert (await answer).json() == {"status": "success"}
            assert "pulling" not in (await gateway.http.get("/api/tags")).json()["models"][0]

    run(scenario())


def test_the_error_of_a_request_that_waits_too_long_has_the_progress_of_the_pull() -> None:
    async def scenario() -> None:
        files = (PullingFile(WEIGHTS, 1000 * 10**6, 430 * 10**6),)
        directory = MemoryDirectory.of(entry("tiny", pulling=files))
        limits = QueueLimits(max_wait=0.2)
        async with running_gateway(directory, queue_limits=limits) as gateway:
            answer: httpx.Response = await gateway.http.post("/api/generate", json={"model": "tiny", "prompt": "hi"})
        assert answer.status_code == 504
        assert answer.json()["error"].endswith("whose weights are being pulled (43 % of 1.0 GB so far)")

    run(scenario())
