"""What a runner does in a second beside llama.cpp's own server, both over HTTP.

Same weights, threads, context for each of sixteen slots, prompts and greedy sampling. Rounds of both sides alternate in
one run, and which side begins alternates too; what counts is the median of the rounds' ratios, because single runs
differ widely on a machine with other work. A ratio above 1 means that the runner is faster.

- ``decode``: tokens a second of 1, 4, 8 and 16 streams, over the time from the first request to the last token;
- ``ttft``: mean time to the first text of prompts of about 300 tokens that are sent at once, by the same numbers;
- ``prefill``: prompt tokens a second of one prompt of about 1,000 tokens;
- ``shared``: mean time to the first text of eight prompts sent at once, which share their first 1,000 tokens with each
  other, and with a prompt that was answered before;
- ``constrained``: tokens a second of one stream that is held to a JSON Schema; beside the same prompt without one it is
  ``constrained_share``, of the runner alone.

    python bench/engine.py [--rounds N] [--threads N] [--only decode,ttft]

Needs the demo's set-up. The last line is one JSON object with the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.engine_sides import Side, ask, llamacpp, runner
from corral_server.runner.threads import available_cores
from scripts.llama_wheel import cache_dir

DECODE_TOKENS = 96
TOPICS = ("the sea", "a city", "an old train", "the desert", "a school", "the moon", "a forest", "two brothers")
FILLER = (
    "The meeting began late, the coffee was cold, and nobody had read the paper before it was discussed at length. "
)
TOKENS_OF_FILLER = 22
SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "chapters": {"type": "array", "items": {"type": "string"}, "minItems": 20},
    },
    "required": ["title", "chapters"],
}

Measure = Callable[[Side, int], Awaitable[float]]
"""A side and the number of the round to a figure, more of which is better."""


def prompt_of(number: int, stream: int, *, filler: int = 0, text: str = "") -> str:
    """Begins differently every time, so that no prefix is reused."""
    topic = TOPICS[stream % len(TOPICS)]
    text = text or f"{number}-{stream}: {FILLER * filler}Write a very long story about {topic}."
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def decode(streams: int) -> Measure:
    async def measure(side: Side, number: int) -> float:
        start = time.perf_counter()
        replies = await asyncio.gather(*(ask(side, prompt_of(number, n), DECODE_TOKENS) for n in range(streams)))
        return sum(reply.tokens for reply in replies) / (time.perf_counter() - start)

    return measure


def first_text(streams: int) -> Measure:
    """First texts a second: the mean time's inverse."""

    async def measure(side: Side, number: int) -> float:
        replies = await asyncio.gather(*(ask(side, prompt_of(number, n, filler=12), 2) for n in range(streams)))
        return 1 / statistics.mean(reply.first for reply in replies)

    return measure


async def prefill(side: Side, number: int) -> float:
    filler = 1000 // TOKENS_OF_FILLER
    reply = await ask(side, prompt_of(number, 0, filler=filler), 1)
    return filler * TOKENS_OF_FILLER / reply.first


async def shared(side: Side, number: int) -> float:
    common = f"Round {number}. {FILLER * (1000 // TOKENS_OF_FILLER)}"
    prompts = [prompt_of(number, n, text=f"{common} {n}: what about {topic}?") for n, topic in enumerate(TOPICS)]
    await ask(side, prompt_of(number, 0, text=f"{common} Hello."), 2)
    replies = await asyncio.gather(*(ask(side, prompt, 2) for prompt in prompts))
    return 1 / statistics.mean(reply.first for reply in replies)


def held(schema: Mapping[str, object] | None) -> Measure:
    """Generated tokens a second after the first."""

    async def measure(side: Side, number: int) -> float:
        prompt = prompt_of(number, 0, text=f"Number {number}: a book with 40 chapters about the sea, as JSON.")
        reply = await ask(side, prompt, DECODE_TOKENS, schema=schema)
        return (reply.tokens - 1) / (reply.end - reply.first)

    return measure


MEASURES: dict[str, dict[str, Measure]] = {
    "decode": {str(streams): decode(streams) for streams in (1, 4, 8, 16)},
    "ttft": {str(streams): first_text(streams) for streams in (1, 4, 8)},
    "prefill": {"1": prefill},
    "shared": {"8": shared},
    "constrained": {"1": held(SCHEMA), "free": held(None)},
}

Figures = dict[tuple[str, str, str], float]
"""By side, measure and variant."""


async def measure(sides: Sequence[Side], wanted: Sequence[str], *, rounds: int) -> list[Figures]:
    """The figures of each round; a first one is thrown away."""
    rows = []
    for number in range(rounds + 1):
        row: Figures = {}
        for name in wanted:
            for variant, figure in MEASURES[name].items():
                for side in sides if number % 2 else sides[::-1]:
                    row[side.name, name, variant] = await figure(side, number)
                if number:
                    show(number, f"{name} {variant}", row["corral", name, variant], row["llama.cpp", name, variant])
        if number:
            rows.append(row)
    return rows


def show(number: int, what: str, ours: float, theirs: float) -> None:
    print(f"{number:>5} {what:<18} {ours:>10.2f} {theirs:>10.2f} {ours / theirs:>7.2f}", flush=True)


def medians(rows: Sequence[Figures], wanted: Sequence[str]) -> dict[str, object]:
    """Medians of the rounds' ratios; above 1 the runner is faster. ``spread`` is the least and the greatest."""

    def ratios(name: str, variant: str) -> list[float]:
        return [row["corral", name, variant] / row["llama.cpp", name, variant] for row in rows]

    result: dict[str, object] = {}
    for name in wanted:
        found = {variant: ratios(name, variant) for variant in MEASURES[name]}
        result[f"{name}_vs_llamacpp"] = {variant: round(statistics.median(all_), 3) for variant, all_ in found.items()}
        result[f"{name}_spread"] = {v: [round(min(all_), 2), round(max(all_), 2)] for v, all_ in found.items()}
    if "constrained" in wanted:
        share = [row["corral", "constrained", "1"] / row["corral", "constrained", "free"] for row in rows]
        result["constrained_share"] = round(statistics.median(share), 3)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="A runner beside llama.cpp's own server.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(MEASURES))
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(MEASURES):
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(MEASURES)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cache_dir().mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        sides = (stack.enter_context(runner(arguments.threads)), stack.enter_context(llamacpp(arguments.threads)))
        print(f"{arguments.threads} threads; tokens or first texts a second: ours, llama.cpp's, and the ratio")
        rows = asyncio.run(measure(sides, arguments.only, rounds=arguments.rounds))
    print(json.dumps(medians(rows, arguments.only) | {"rounds": arguments.rounds, "threads": arguments.threads}))


if __name__ == "__main__":
    main()
