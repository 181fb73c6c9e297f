"""Embeddings per second of a runner compared with llama.cpp's server, both over HTTP at ``/v1/embeddings``.

Both sides have the same weights (all-MiniLM-L6-v2 in float16), threads and inputs; no input is repeated. The rounds of
both sides alternate in one run, and so does the side that begins. The result is the median of the rounds' ratios; above
1 the runner is faster.

    python bench/embeddings.py [--rounds N] [--threads N]

Needs the development set-up, which has the package with the model. The last line is a JSON object with the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx

from bench.engine_sides import child, llamacpp_python
from corral_server.system.cores import available_cores
from scripts.llama_wheel import cache_dir
from tests.support.minilm import write_gguf

SLOTS = 8


@dataclass(frozen=True, slots=True)
class Load:
    """``clients`` concurrent clients, each with ``requests`` requests of ``inputs`` texts of ``words`` words."""

    name: str
    clients: int
    requests: int
    inputs: int
    words: int

    def texts(self, seed: int) -> list[str]:
        return [" ".join(f"word {seed} {index} {n}" for n in range(self.words // 4)) for index in range(self.inputs)]

    @property
    def total(self) -> int:
        return self.clients * self.requests * self.inputs


LOADS = (
    Load("one_short", 1, 30, 1, 12),
    Load("eight_clients", 8, 6, 1, 12),
    Load("batch_of_64", 1, 1, 64, 12),
    Load("batch_of_long", 1, 1, 8, 160),
)


async def rate(url: str, load: Load, seed: int) -> float:
    """Return embeddings per second."""

    async def client(number: int) -> None:
        for request in range(load.requests):
            texts = load.texts(seed * 10_000 + number * 100 + request)
            answer = await http.post("/v1/embeddings", json={"model": "minilm", "input": texts})
            assert len(answer.raise_for_status().json()["data"]) == load.inputs

    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as http:
        start = time.perf_counter()
        await asyncio.gather(*(client(number) for number in range(load.clients)))
        return load.total / (time.perf_counter() - start)


@contextmanager
def runner(weights: Path, threads: int) -> Iterator[str]:
    model = {"name": "minilm", "namespace": "default", "spec": {"source": weights.as_uri(), "parallel": SLOTS}}
    own = {"CORRAL_HOST": "127.0.0.1", "CORRAL_PORT": "0", "CORRAL_PARENT_FD": "0", "CORRAL_THREADS": str(threads)}
    command = [sys.executable, "-m", "corral_server.runner"]
    with child(command, {**os.environ, **own, "CORRAL_MODEL": json.dumps(model)}) as process:
        assert process.stdout is not None
        port = 0
        for line in process.stdout:
            event = json.loads(line)
            port = event.get("port", port)
            if event["event"] == "loaded":
                yield f"http://127.0.0.1:{port}"
                return
        raise SystemExit("the runner did not load its model; see bench-engine.log in the cache")


@contextmanager
def llamacpp(weights: Path, threads: int) -> Iterator[str]:
    wanted = {"model": str(weights), "context": 512, "slots": SLOTS, "threads": threads, "embedding": True}
    program = str(Path(__file__).with_name("llamacpp_server.py"))
    with child([str(llamacpp_python()), program, json.dumps(wanted)]) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if urlsplit(address).port is None:
            raise SystemExit("llama.cpp's server did not start; see bench-engine.log in the cache")
        yield address


async def measure(ours: str, peer: str, rounds: int) -> dict[str, float]:
    """Return the median ratio of each load; the first round is a warm-up."""
    ratios: dict[str, list[float]] = {load.name: [] for load in LOADS}
    for number in range(rounds + 1):
        for load in LOADS:
            found = {url: await rate(url, load, number) for url in ((ours, peer) if number % 2 else (peer, ours))}
            if number:
                ratios[load.name].append(found[ours] / found[peer])
                figures = f"{found[ours]:>10.1f} {found[peer]:>10.1f} {ratios[load.name][-1]:>7.2f}"
                print(f"{number:>5} {load.name:>14} {figures}", flush=True)
    return {name: round(statistics.median(values), 3) for name, values in ratios.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Embeddings of a runner beside those of llama.cpp's own server.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=available_cores())
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cache_dir().mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        weights = write_gguf(folder / "minilm.gguf")
        ours = stack.enter_context(runner(weights, arguments.threads))
        peer = stack.enter_context(llamacpp(weights, arguments.threads))
        print(f"{arguments.threads} threads; embeddings a second, ours, llama.cpp's and the ratio")
        ratios = asyncio.run(measure(ours, peer, arguments.rounds))
    print(json.dumps({"embeddings_vs_llamacpp": ratios, "rounds": arguments.rounds, "threads": arguments.threads}))


if __name__ == "__main__":
    main()
