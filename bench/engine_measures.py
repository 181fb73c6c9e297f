"""Measures of a generating server: each one sends requests to one server and returns one figure.

Invariant: in a round all servers get the same prompts. No prompt shares a prefix with one of another round, so a prefix
is reused only where that is measured.
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
OURS, LLAMACPP, OLLAMA = "corral", "llama.cpp", "ollama"


@dataclass(frozen=True, slots=True)
class Asked:
    """A server, its model, and the number of the round."""

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
    peers: Sequence[str] = (LLAMACPP,)
    only: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Variants of which a peer is not asked for all."""

    def asks(self, name: str, variant: str) -> bool:
        return name == OURS or (name in self.peers and variant in self.only.get(name, self.figures))


def decode(streams: int) -> Figure:
    """Return tokens per second of all streams, from the first request to the last token."""

    async def figure(asked: Asked) -> float:
        start = time.perf_counter()
        replies = await asyncio.gather(*(ask(asked.side, asked.prompt(n), DECODE_TOKENS) for n in range(streams)))
        return sum(reply.tokens for reply in replies) / (time.perf_counter() - start)

    return figure


def first_text(streams: int) -> Figure:
    """Return the mean time to first token of concurrent prompts of about 300 tokens, in seconds."""

    async def figure(asked: Asked) -> float:
        replies = await asyncio.gather(*(ask(asked.side, asked.prompt(n, filler=12), 2) for n in range(streams)))
        return statistics.mean(reply.first for reply in replies)

    return figure


async def prefill(asked: Asked) -> float:
    """Return prompt tokens per second of one prompt of about 1,000 tokens."""
    filler = 1000 // TOKENS_OF_FILLER
    reply = await ask(asked.side, asked.prompt(0, filler=filler), 1)
    return filler * TOKENS_OF_FILLER / reply.first


def shared(streams: int) -> Figure:
    """Return the mean time to first token of prompts whose first 1,000 tokens are cached, in seconds."""

    async def figure(asked: Asked) -> float:
        common = f"Round {asked.number}-{streams}. {FILLER * (1000 // TOKENS_OF_FILLER)}"
        prompts = [asked.prompt(n, text=f"{common} {n}: what about {TOPICS[n]}?") for n in range(streams)]
        await ask(asked.side, asked.prompt(0, text=f"{common} Hello."), 2)
        replies = await asyncio.gather(*(ask(asked.side, prompt, 2) for prompt in prompts))
        return statistics.mean(reply.first for reply in replies)

    return figure


def held(schema: Mapping[str, object] | None) -> Figure:
    """Return tokens per second of one stream after its first token."""

    async def figure(asked: Asked) -> float:
        prompt = asked.prompt(0, text=f"Number {asked.number}: a book with 40 chapters about the sea, as JSON.")
        reply = await ask(asked.side, prompt, DECODE_TOKENS, schema=schema)
        return (reply.tokens - 1) / (reply.end - reply.first)

    return figure


MEASURES = {
    "decode": Measure(
        "decode",
        {str(streams): decode(streams) for streams in (1, 4, 8, 16)},
        peers=(LLAMACPP, OLLAMA),
        only={OLLAMA: ("1", "4", "8")},
    ),
    "ttft": Measure("ttft", {str(streams): first_text(streams) for streams in (1, 4, 8)}, seconds=True),
    "prefill": Measure("prefill", {"1": prefill}),
    "shared": Measure("ttft_shared_prefix", {str(streams): shared(streams) for streams in (1, 8)}, seconds=True),
    "constrained": Measure("constrained", {"schema": held(SCHEMA), "free": held(None)}),
}
