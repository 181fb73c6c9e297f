"""Client disconnects with a real gateway, runner, engine and model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import cast

import pytest

from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.stream import StreamItems
from tests.runner.engines import weights
from tests.support.fake_engine import FakeEngine
from tests.support.gateway import MemoryDirectory, entry, raw_request, running_gateway
from tests.support.runner_server import ServedRunner, runner_state, serving_state
from tests.support.waiting import auntil

pytestmark = pytest.mark.process

BODY = json.dumps({"model": "tiny", "prompt": "Count.", "raw": True, "options": {"num_predict": 3000}}).encode()


class Steps:
    """Counts the engine's steps, and those that include a sequence whose client had disconnected (``late``)."""

    def __init__(self, engine: LlamaEngine) -> None:
        self.count = self.late = 0
        self._engine = engine
        self._step = engine._scheduler.step
        engine._scheduler.step = self._watched  # type: ignore[method-assign]  # the test's own engine

    def _watched(self, out: StreamItems) -> None:
        left = [slot for slot in self._engine._slots if slot.generation and slot.generation.stream.closed]
        self._step(out)
        self.count += 1
        self.late += sum(slot.generation is not None for slot in left)


@pytest.fixture
def engine() -> Iterator[LlamaEngine]:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=4096, slots=1, batch_size=64, threads=1))
    yield engine
    engine.close()


@pytest.fixture
def runner(engine: LlamaEngine) -> Iterator[ServedRunner]:
    with serving_state(runner_state(cast(FakeEngine, engine))) as runner:  # an engine is an engine
        yield runner


@pytest.mark.parametrize("path", ["/api/generate", "/v1/completions"])
async def test_a_disconnect_cancels_the_sequence_before_the_next_step(
    engine: LlamaEngine, runner: ServedRunner, path: str
) -> None:
    body = BODY if path == "/api/generate" else BODY.replace(b'"raw"', b'"max_tokens": 3000, "stream"')

    steps = Steps(engine)
    async with running_gateway(MemoryDirectory.of(entry("tiny", runner.port, slots=1))) as gateway:
        reader, writer = await gateway.connect()
        writer.write(raw_request(path, body))
        for _ in range(12):
            await reader.readuntil(b"\n")
        before = steps.count
        writer.close()
        await auntil(lambda: not engine.running, what="the sequence has ended")
        assert steps.count - before < 50, "of 3000 tokens"
        assert steps.late == 0, "the first step after the disconnect does not include it"
        await auntil(lambda: not runner.active())
        assert gateway.gateway.dispatcher.queue.slots_in_use("default/tiny") == 0
        answer = await gateway.http.post(path, json={"model": "tiny", "prompt": "x", "stream": False, **_SHORT})
        assert answer.status_code == 200, "the slot serves the next request"


_SHORT = {"max_tokens": 2, "options": {"num_predict": 2}}


async def test_a_disconnect_during_prefill_cancels_the_sequence(engine: LlamaEngine, runner: ServedRunner) -> None:
    steps = Steps(engine)
    body = json.dumps({"model": "tiny", "prompt": "one two three " * 1000, "raw": True}).encode()
    async with running_gateway(MemoryDirectory.of(entry("tiny", runner.port, slots=1))) as gateway:
        _, writer = await gateway.connect()
        writer.write(raw_request("/api/generate", body))
        await auntil(lambda: steps.count >= 1)
        writer.close()
        await auntil(lambda: not engine.running, what="the sequence has ended")
        assert steps.late == 0
        await auntil(lambda: not runner.active())


async def test_a_disconnected_queued_request_never_reaches_the_runner(
    engine: LlamaEngine, runner: ServedRunner
) -> None:
    async with running_gateway(MemoryDirectory.of(entry("tiny", runner.port, slots=1))) as gateway:
        reader, first = await gateway.connect()
        first.write(raw_request("/api/generate", BODY))
        await reader.readuntil(b"\n")
        _, second = await gateway.connect()
        second.write(raw_request("/api/generate", BODY))
        await gateway.until_pending(1)
        second.close()
        await gateway.until_pending(0)
        assert runner.active() == 1
        first.close()
        await auntil(lambda: not engine.running)
        await auntil(lambda: not runner.active())
        assert gateway.gateway.dispatcher.queue.slots_in_use("default/tiny") == 0
