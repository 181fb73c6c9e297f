"""Throughput and latency of a runner compared with llama.cpp's server and Ollama, all over HTTP.

All sides have the same weights, threads, context length for each of sixteen slots, prompts and greedy sampling. Their
rounds alternate in one run, and so does the side that begins. The result is the median of the rounds' ratios, because
single runs differ widely on a busy machine; ``_spread`` is the minimum and the maximum.

- ``decode``: tokens/s of 1, 4, 8 and 16 streams, from the first request to the last token;
- ``prefill``: prompt tokens/s of one prompt of about 1,000 tokens;
- ``ttft``: mean time to first token of concurrent prompts of about 300 tokens, in seconds;
- ``shared``: mean time to first token of prompts that share their first 1,000 tokens with an earlier one, in seconds;
- ``constrained``: tokens/s of one stream constrained by a JSON Schema, and of the same prompt without it;
- ``memory``: resident memory of the runner at the end, other than weights, KV cache and 120 MiB;
- ``embeddings``, ``overhead``, ``fairness``, ``vision``: the programs with these names, run at the end.

Ratios of tokens/s are better above 1, ratios of seconds below 1.

    python bench/engine.py [--rounds N] [--seconds N] [--threads N] [--only decode,ttft] [--model gemma3]
                           [--without-ollama]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.engine_measures import MEASURES, OURS, Asked, Measure
from bench.engine_memory import beyond
from bench.engine_sides import Side, llamacpp, runner
from bench.models import MODELS, BenchModel
from bench.ollama_side import ollama
from corral_server.system.cores import available_cores
from scripts.llama_wheel import cache_dir

PROGRAMS = {
    "embeddings": ("embeddings.py", "--rounds"),
    "overhead": ("engine_overhead.py", "--rounds"),
    "fairness": ("fairness.py", "--prompts"),
    "vision": ("vision.py", "--rounds"),
}
"""The file of each, and its option for how often it measures."""
MOST = 3
"""How often the other programs measure at most."""
_ABOUT = ("rounds", "threads", "streams")
"""What the other programs say of themselves."""
MEMORY = "memory"
WANTED = (*MEASURES, MEMORY, *PROGRAMS)

Figures = dict[tuple[str, str, str], float]
"""By side, measure and variant."""


async def measure(
    sides: Sequence[Side], model: BenchModel, wanted: Sequence[str], *, rounds: int, seconds: float
) -> list[Figures]:
    """Return the figures of each round after a warm-up: at most ``rounds``, fewer if ``seconds`` have passed."""
    rows: list[Figures] = []
    start = began = time.monotonic()
    for number in range(rounds + 1):
        now = time.monotonic()
        if rows and now + (now - began) > start + seconds:
            break
        began = now
        row: Figures = {}
        for name in wanted:
            for variant, figure in MEASURES[name].figures.items():
                for side in sides if number % 2 else sides[::-1]:
                    if MEASURES[name].asks(side.name, variant):
                        row[side.name, name, variant] = await figure(Asked(side, model, number))
                if number:
                    show(number, row, name, variant, sides)
        if number:
            rows.append(row)
    return rows


def show(number: int, row: Figures, name: str, variant: str, sides: Sequence[Side]) -> None:
    cells = [f"{row[side.name, name, variant]:>10.2f}" for side in sides if (side.name, name, variant) in row]
    print(f"{number:>5} {f'{name} {variant}':<18} {' '.join(cells)}", flush=True)


def compared(rows: Sequence[Figures], name: str, peer: str) -> dict[str, object]:
    """Return the medians of the rounds' ratios of our figures to the peer's."""
    measured: Measure = MEASURES[name]
    variants = [variant for variant in measured.figures if measured.asks(peer, variant)]
    found = {v: [row[OURS, name, v] / row[peer, name, v] for row in rows] for v in variants}
    key = f"{measured.key}_vs_{peer.replace('.', '')}"
    return {
        key: {variant: round(statistics.median(ratios), 3) for variant, ratios in found.items()},
        f"{key}_spread": {variant: [round(min(r), 2), round(max(r), 2)] for variant, r in found.items()},
    }


def result(rows: Sequence[Figures], wanted: Sequence[str], sides: Sequence[Side]) -> dict[str, object]:
    made: dict[str, object] = {}
    for name in wanted:
        for side in sides:
            if side.name in MEASURES[name].peers:
                made |= compared(rows, name, side.name)
        figures = {v: round(statistics.median(r[OURS, name, v] for r in rows), 3) for v in MEASURES[name].figures}
        made[MEASURES[name].key] = figures
    if "constrained" in wanted:
        shares = [row[OURS, "constrained", "schema"] / row[OURS, "constrained", "free"] for row in rows]
        made["constrained_vs_free"] = round(statistics.median(shares), 3)
        made["constrained_vs_free_spread"] = [round(min(shares), 2), round(max(shares), 2)]
    return made


def beside(arguments: argparse.Namespace, model: BenchModel) -> dict[str, object]:
    """Everything that is asked over HTTP, and the runner's memory after it."""
    wanted = [name for name in arguments.only if name in MEASURES]
    if not wanted and MEMORY not in arguments.only:
        return {}
    weights, threads = model.find(), arguments.threads
    with ExitStack() as stack:
        sides = [stack.enter_context(runner(weights, threads)), stack.enter_context(llamacpp(weights, threads))]
        if "decode" in wanted and not arguments.without_ollama:
            sides.append(stack.enter_context(ollama(weights, threads)))
        print(f"{model.name}, {threads} threads; tokens a second, or seconds: {', '.join(side.name for side in sides)}")
        loaded = beyond(sides[0].pid, weights)
        limits = {"rounds": arguments.rounds, "seconds": arguments.seconds}
        rows = asyncio.run(measure(sides, model, wanted, **limits))
        made = result(rows, wanted, sides) | {"rounds": len(rows)}
        if MEMORY in arguments.only:
            made["memory_loaded_mib"], made["memory_mib"] = loaded, beyond(sides[0].pid, weights)
    return made


def program(name: str, *, threads: int, rounds: int) -> dict[str, object]:
    """Run another program, show its output, and return its last line."""
    file, often = PROGRAMS[name]
    command = [sys.executable, str(Path(__file__).with_name(file)), "--threads", str(threads), often, str(rounds)]
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for last in process.stdout:
            print(last, end="", flush=True)
    if process.returncode:
        raise SystemExit(f"{file} ended with {process.returncode}")
    found: dict[str, object] = json.loads(last)
    return {key: value for key, value in found.items() if key not in _ABOUT}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A runner beside llama.cpp's own server and Ollama.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=420)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(WANTED))
    parser.add_argument("--model", choices=sorted(MODELS), default="smollm2")
    parser.add_argument("--without-ollama", action="store_true")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(WANTED):
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(WANTED)}")
    return arguments


def main() -> None:
    arguments = parsed()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cache_dir().mkdir(parents=True, exist_ok=True)
    made = beside(arguments, MODELS[arguments.model])
    for name in PROGRAMS:
        if name in arguments.only and (arguments.model == "smollm2" or "--only" in sys.argv):
            made |= program(name, threads=arguments.threads, rounds=min(arguments.rounds, MOST))
    print(json.dumps(made | {"model": arguments.model, "threads": arguments.threads}))


if __name__ == "__main__":
    main()
