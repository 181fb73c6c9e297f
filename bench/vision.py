"""Requests with images, and a stream of text beside them, compared with llama.cpp's own server.

The model is SmolLM2-135M with a projector of random weights in the shape of a small vision transformer: what it says is
noise, what it costs is not. Every request has an image that no other one has. The rounds of both sides alternate.

- ``vision_per_s``: requests a second, four at a time, of one image and eight tokens each;
- ``vision_gap_p50_s``, ``vision_gap_p99_s``: seconds between the pieces of one stream of text while requests with
  images come one after another; ``_alone`` without them;
- ``vision_memory_mib``: growth of the runner's resident memory from the load to the end.

``_vs_llamacpp`` are ratios of medians: better above 1 for requests, below 1 for seconds.

    python bench/vision.py [--rounds N] [--threads N]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.engine_sides import Side, llamacpp, runner
from bench.models import smollm2
from corral_server.system.cores import available_cores
from tests.support.pictures import png
from tests.support.projectors import VisionShape, write_projector
from tests.support.waiting import auntil

SHAPE = VisionShape(width=768, inner=3072, heads=12, side=224, blocks=12)
"""About ViT-B/16, 86 million weights: 196 rows for an image."""
SLOTS = 8
REQUESTS = 12
CLIENTS = 4
TOKENS = 8
STREAM_TOKENS = 1000
BESIDE = 5
"""Requests with images while the stream is measured."""
TIMEOUT = 300.0

Figures = dict[tuple[str, str], float]
"""By side and measure."""
_shades = count(1)


def picture() -> str:
    """Return the data URL of an image that differs from all earlier ones."""
    number = next(_shades)
    data = png(200 + number // 250, 150, shade=number % 250)
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def question(image: str | None, tokens: int) -> dict[str, object]:
    """Return the body of a request; without an image it asks for a long text."""
    parts: list[object] = [{"type": "text", "text": "Describe it." if image else "Tell me a very long story."}]
    if image:
        parts.append({"type": "image_url", "image_url": {"url": image}})
    messages = [{"role": "user", "content": parts if image else "Tell me a very long story."}]
    return {"model": "bench", "messages": messages, "max_tokens": tokens, "temperature": 0, "stream": image is None}


async def see(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/chat/completions", json=question(picture(), TOKENS))
    if answer.status_code != 200:
        raise SystemExit(f"{client.base_url}: {answer.status_code} {answer.text[:300]}")


async def requests_per_second(client: httpx.AsyncClient) -> float:
    left = iter(range(REQUESTS))
    start = time.perf_counter()

    async def ask() -> None:
        for _ in left:
            await see(client)

    await asyncio.gather(*(ask() for _ in range(CLIENTS)))
    return REQUESTS / (time.perf_counter() - start)


async def pieces(client: httpx.AsyncClient) -> AsyncIterator[float]:
    """Yield the times of the pieces of long texts, one text after another, and 0 between two texts."""
    while True:
        async with client.stream("POST", "/v1/chat/completions", json=question(None, STREAM_TOKENS)) as response:
            async for line in response.aiter_lines():
                if '"content"' in line:
                    yield time.perf_counter()
        yield 0.0


class Gaps:
    """Seconds between the pieces of the stream since ``begin``."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def begin(self) -> None:
        self.seconds = []

    async def record(self, client: httpx.AsyncClient) -> None:
        last = 0.0
        async for now in pieces(client):
            if last and now:
                self.seconds.append(now - last)
            last = now

    def share(self, part: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


async def gaps(client: httpx.AsyncClient) -> dict[str, float]:
    found = Gaps()
    stream = asyncio.create_task(found.record(client))
    try:
        await auntil(lambda: len(found.seconds) >= 100 or stream.done(), timeout=TIMEOUT, what="the stream of text")
        made = {"gap_p50_alone_s": found.share(0.5), "gap_p99_alone_s": found.share(0.99)}
        found.begin()
        for _ in range(BESIDE):
            await see(client)
        return made | {"gap_p50_s": found.share(0.5), "gap_p99_s": found.share(0.99)}
    finally:
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)


async def round_of(side: Side) -> Figures:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{side.port}", timeout=TIMEOUT) as client:
        made = {"per_s": await requests_per_second(client), **await gaps(client)}
    return {(side.name, name): figure for name, figure in made.items()}


async def measure(sides: Sequence[Side], rounds: int) -> list[Figures]:
    """Return the figures of each round after a warm-up."""
    rows = []
    for number in range(rounds + 1):
        row: Figures = {}
        for side in sides if number % 2 else sides[::-1]:
            row |= await round_of(side)
        if number:
            rows.append(row)
            print(f"{number:>3} " + "  ".join(f"{side} {name} {value:.3f}" for (side, name), value in row.items()))
    return rows


def result(rows: Sequence[Figures]) -> dict[str, object]:
    made: dict[str, object] = {}
    for name in ("per_s", "gap_p50_s", "gap_p99_s", "gap_p50_alone_s", "gap_p99_alone_s"):
        own, peer = (statistics.median(row[side, name] for row in rows) for side in ("corral", "llama.cpp"))
        made |= {f"vision_{name}": round(own, 3), f"vision_{name}_vs_llamacpp": round(own / peer, 3)}
    return made


def resident(pid: int) -> int:
    """Return MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Requests with images beside llama.cpp's own server.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=available_cores())
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        projector = write_projector(folder / "mmproj.gguf", shape=SHAPE)
        weights, threads = smollm2(), arguments.threads
        sides = [
            stack.enter_context(runner(weights, threads, slots=SLOTS, projector=projector)),
            stack.enter_context(llamacpp(weights, threads, slots=SLOTS, projector=projector)),
        ]
        before = resident(sides[0].pid)
        made = result(asyncio.run(measure(sides, arguments.rounds)))
        made["vision_memory_mib"] = resident(sides[0].pid) - before
    print(json.dumps(made | {"rounds": arguments.rounds, "threads": arguments.threads}))


if __name__ == "__main__":
    main()
