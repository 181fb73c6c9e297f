"""What is measured of a server that generates: each measure asks one side and gives one figure.

What always holds: every side gets the same prompts in a round, and no prompt begins like one of another round, so no
prefix is reused but where that is what is measured.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.engine_sides import Side, ask
from bench.models import BenchModel

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
OURS, THEIRS, OLLAMA = "corral", "llama.cpp", "ollama"


@dataclass(frozen=True, slots=True)
class Asked:
    """One server, what it serves, and the number of the round."""

    side: Side
    model: BenchModel
    number: int

    def prompt(self, stream: int, *, filler: int = 0, text: str = "") -> str:
        topic = TOPICS[stream % len(TOPICS)]
        own = f"{self.number}-{stream}: {FILLER * filler}Write a very long story about {topic}."
        return self.model.prompt(text or own)


Figure = Callable[[Asked], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Measure:
    """``figures`` by variant; ``peers`` are those that it is compared with, ``seconds``: less is better."""

    key: str
    figures: Mapping[str, Figure]
    seconds: bool = False
    peers: Sequence[str] = (THEIRS,)
    only: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Variants of which a peer is not asked for all."""

    def asks(self, name: str, variant: str) -> bool:
        return name == OURS or (name in self.peers and variant in self.only.get(name, self.figures))


def decode(streams: int) -> Figure:
    """Tokens a second of all streams, from the first request to the last token."""

    async def figure(asked: Asked) -> float:
        start = time.perf_counter()
        replies = await asyncio.gather(*(ask(asked.side, asked.prompt(n), DECODE_TOKENS) for n in range(streams)))
        return sum(reply.tokens for reply in replies) / (time.perf_counter() - start)

    return figure


def first_text(streams: int) -> Figure:
    """Mean seconds to the first text of prompts of about 300 tokens that are sent at once."""

    async def figure(asked: Asked) -> float:
        replies = await asyncio.gather(*(ask(asked.side, asked.prompt(n, filler=12), 2) for n in range(streams)))
        return statistics.mean(reply.first for reply in replies)

    return figure


async def prefill(asked: Asked) -> float:
    """Tokens a second of one prompt of about 1,000 tokens."""
    filler = 1000 // TOKENS_OF_FILLER
    reply = await ask(asked.side, asked.prompt(0, filler=filler), 1)
    return filler * TOKENS_OF_FILLER / reply.first


def shared(streams: int) -> Figure:
    """Mean seconds to the first text of prompts that share their first 1,000 tokens with one answered before."""

    async def figure(asked: Asked) -> float:
        common = f"Round {asked.number}-{streams}. {FILLER * (1000 // TOKENS_OF_FILLER)}"
        prompts = [asked.prompt(n, text=f"{common} {n}: what about {TOPICS[n]}?") for n in range(streams)]
        await ask(asked.side, asked.prompt(0, text=f"{common} Hello."), 2)
        replies = await asyncio.gather(*(ask(asked.side, prompt, 2) for prompt in prompts))
        return statistics.mean(reply.first for reply in replies)

    return figure


def held(schema: Mapping[str, object] | None) -> Figure:
    """Tokens a second of one stream after its first."""

    async def figure(asked: Asked) -> float:
        prompt = asked.prompt(0, text=f"Number {asked.number}: a book with 40 chapters about the sea, as JSON.")
        reply = await ask(asked.side, prompt, DECODE_TOKENS, schema=schema)
        return (reply.tokens - 1) / (reply.end - reply.first)

    return figure


MEASURES = {
    "decode": Measure(
        "decode",
        {str(streams): decode(streams) for streams in (1, 4, 8, 16)},
        peers=(THEIRS, OLLAMA),
        only={OLLAMA: ("1", "4", "8")},
    ),
    "ttft": Measure("ttft", {str(streams): first_text(streams) for streams in (1, 4, 8)}, seconds=True),
    "prefill": Measure("prefill", {"1": prefill}),
    "shared": Measure("ttft_shared_prefix", {str(streams): shared(streams) for streams in (1, 8)}, seconds=True),
    "constrained": Measure("constrained", {"schema": held(SCHEMA), "free": held(None)}),
}
