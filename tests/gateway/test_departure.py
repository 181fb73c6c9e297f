"""A client that leaves mid-stream, with everything real between it and llama.cpp: gateway, runner, engine, model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import cast

import pytest

from corral_server.runner.engine import EngineOptions, LlamaEngine
from corral_server.runner.stream import Delivery
from tests.runner.engines import weights
from tests.support.fake_engine import FakeEngine
from tests.support.gateway import MemoryDirectory, entry, raw_request, run, running_gateway
from tests.support.runner_server import ServedRunner, runner_state, served
from tests.support.waiting import auntil

pytestmark = pytest.mark.process

BODY = json.dumps({"model": "tiny", "prompt": "Count.", "raw": True, "options": {"num_predict": 3000}}).encode()


class Steps:
    """Watches the engine's steps: how many there were, and how many began for a reader that had left."""

    def __init__(self, engine: LlamaEngine) -> None:
        self.count = self.late = 0
        self._engine = engine
        self._step = engine._stepper.step
        engine._stepper.step = self._watched  # type: ignore[method-assign]  # the test's own engine

    def _watched(self) -> Delivery:
        left = [slot for slot in self._engine._slots if slot.generation and slot.generation.stream.closed]
        done = self._step()
        self.count += 1
        self.late += sum(slot.generation is not None for slot in left)
        return done


@pytest.fixture
def engine() -> Iterator[LlamaEngine]:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=4096, slots=1, batch=64, threads=1))
    yield engine
    engine.close()


@pytest.fixture
def runner(engine: LlamaEngine) -> Iterator[ServedRunner]:
    with served(runner_state(cast(FakeEngine, engine))) as runner:  # an engine is an engine
        yield runner


@pytest.mark.parametrize("path", ["/api/generate", "/v1/completions"])
def test_the_sequence_is_cancelled_with_the_step_that_follows(
    engine: LlamaEngine, runner: ServedRunner, path: str
) -> None:
    body = BODY if path == "/api/generate" else BODY.replace(b'"raw"', b'"max_tokens": 3000, "stream"')

    async def scenario() -> None:
        steps = Steps(engine)
        async with running_gateway(MemoryDirectory.of(entry("tiny", runner.port, slots=1))) as gateway:
            reader, writer = await gateway.connect()
            writer.write(raw_request(path, body))
            for _ in range(12):
                await reader.readuntil(b"\n")
            before = steps.count
            writer.close()
            await auntil(lambda: not engine.running, what="the sequence is gone")
            assert steps.count - before < 50, "of 3000 tokens"
            assert steps.late == 0, "the first step after its reader left has no part of it"
            await auntil(lambda: not runner.active())
            assert gateway.gateway.dispatcher.queue.in_use("default/tiny") == 0
            answer = await gateway.http.post(path, json={"model": "tiny", "prompt": "x", "stream": False, **_SHORT})
            assert answer.status_code == 200, "the slot serves the next"

    run(scenario())


_SHORT = {"max_tokens": 2, "options": {"num_predict": 2}}


def test_a_client_that_leaves_while_its_prompt_is_read_ends_that_too(engine: LlamaEngine, runner: ServedRunner) -> None:
    async def scenario() -> None:
        steps = Steps(engine)
        body = json.dumps({"model": "tiny", "prompt": "one two three " * 1000, "raw": True}).encode()
        async with running_gateway(MemoryDirectory.of(entry("tiny", runner.port, slots=1))) as gateway:
            _, writer = await gateway.connect()
            writer.write(raw_request("/api/generate", body))
            await auntil(lambda: steps.count >= 1)
            writer.close()
            await auntil(lambda: not engine.running, what="the sequence is gone")
            assert steps.late == 0
            await auntil(lambda: not runner.active())

    run(scenario())


def test_a_client_that_leaves_the_queue_never_reaches_the_runner(engine: LlamaEngine, runner: ServedRunner) -> None:
    async def scenario() -> None:
        async with running_gateway(MemoryDirectory.of(entry("tiny", runner.port, slots=1))) as gateway:
            reader, first = await gateway.connect()
            first.write(raw_request("/api/generate", BODY))
            await reader.readuntil(b"\n")
            _, second = await gateway.connect()
            second.write(raw_request("/api/generate", BODY))
            await gateway.until_waiting(1)
            second.close()
            await gateway.until_waiting(0)
            assert runner.active() == 1
            first.close()
            await auntil(lambda: not engine.running)
            await auntil(lambda: not runner.active())
            assert gateway.gateway.dispatcher.queue.in_use("default/tiny") == 0

    run(scenario())
