"""Ten thousand requests of every kind against one engine: what is left of them in cells, samplers and memory.

Cancelled ones, stop strings, refused prompts, grammars that compile or not, logprobs, drafts, full windows, and decodes
that fail. The weights are random and tiny, for it is about what surrounds the decoding; ``--model FILE`` takes others.
Resident memory is printed after every tenth of the requests; ``growth_kib`` is what the second half added.

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

from corral_server.runner.engine import EngineOptions, LlamaEngine
from tests.support.soak import Soak, make_decodes_fail
from tests.support.tiny_model import write

PARTS = 10


def resident_kib() -> int:
    gc.collect()
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line).split()[1])


def soak(engine: LlamaEngine, requests: int) -> dict[str, object]:
    make_decodes_fail(engine)
    run, resident = Soak(engine), [resident_kib()]
    start = time.perf_counter()
    print(f"requests  tokens  resident KiB  (begins with {resident[0]})")
    for part in range(1, PARTS + 1):
        asyncio.run(run.run(requests // PARTS))
        resident.append(resident_kib())
        print(f"{requests * part // PARTS:>8} {run.tokens:>7} {resident[-1]:>13}", flush=True)
    kept = engine.cells_in_use
    engine._memory.forget_idle()
    return {
        "requests": run.outcomes.total(),
        "outcomes": dict(run.outcomes),
        "seconds": round(time.perf_counter() - start, 1),
        "running": engine.running + engine.waiting,
        "cells_kept_for_reuse": kept,
        "cells_in_use": engine.cells_in_use,
        "growth_kib": resident[-1] - resident[PARTS // 2],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Requests of every kind, and what they leave behind.")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--draft", type=int, default=4)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    options = EngineOptions(context_length=256, slots=8, batch=64, threads=1, draft=arguments.draft)
    with tempfile.TemporaryDirectory() as folder:
        engine = LlamaEngine.load(arguments.model or write(Path(folder)), options)
        try:
            print(json.dumps(soak(engine, arguments.requests)))
        finally:
            engine.close()


if __name__ == "__main__":
    main()
