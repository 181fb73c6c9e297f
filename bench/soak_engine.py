"""Soak test of one engine: ten thousand tasks of every kind, and the cells, samplers and memory that they leave behind.

The tasks include cancelled ones, stop strings, refused prompts, valid and invalid grammars, logprobs, drafts, full
contexts and decodes that fail. The weights are random and tiny, because decoding is not what is tested; ``--model
FILE`` takes others. Resident memory is printed after every tenth of the tasks; ``growth_kib`` is the growth in the
second half.

    python bench/soak_engine.py [--requests N] [--draft N] [--model FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from tests.support.soak import EngineSoak, make_decodes_fail
from tests.support.tiny_model import write_tiny_model

PARTS = 10


def resident_kib() -> int:
    gc.collect()
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line).split()[1])


def soak(engine: LlamaEngine, requests: int) -> dict[str, object]:
    make_decodes_fail(engine)
    run, resident = EngineSoak(engine), [resident_kib()]
    start = time.perf_counter()
    print(f"requests  tokens  resident KiB  (begins with {resident[0]})")
    for part in range(1, PARTS + 1):
        asyncio.run(run.run(requests // PARTS))
        resident.append(resident_kib())
        print(f"{requests * part // PARTS:>8} {run.tokens:>7} {resident[-1]:>13}", flush=True)
    kept = engine._cache.cells_used
    engine._cache.clear_idle_slots()
    return {
        "requests": run.outcomes.total(),
        "outcomes": dict(run.outcomes),
        "seconds": round(time.perf_counter() - start, 1),
        "running": engine.running + engine.waiting,
        "cells_kept_for_reuse": kept,
        "cells_in_use": engine._cache.cells_used,
        "growth_kib": resident[-1] - resident[PARTS // 2],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Requests of every kind, and what they leave behind.")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--draft", type=int, default=4)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    options = EngineOptions(context_length=256, slots=8, batch_size=64, threads=1, draft_tokens=arguments.draft)
    with tempfile.TemporaryDirectory() as folder:
        engine = LlamaEngine.load(arguments.model or write_tiny_model(Path(folder)), options)
        try:
            print(json.dumps(soak(engine, arguments.requests)))
        finally:
            engine.close()


if __name__ == "__main__":
    main()
