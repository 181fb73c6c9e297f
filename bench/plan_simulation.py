"""Simulation of the planner over mixed nodes: exclusive GPUs, MIG slices, a GPU shared by memory, and none.

Small Models are asked without pause, and large ones that need a whole node once in a while
(``tests/core/mixed_nodes.py``). Every step asserts the invariants of the planner; a request that waits longer than
``MAX_WAIT`` is an error. The result is ``longest_wait_s``, in simulated seconds.

    python bench/plan_simulation.py [--steps N] [--seed N]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.core.mixed_nodes import MAX_WAIT, simulate

RUN = 1000
"""Steps of one run; each run has its own seed and starts with empty nodes."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began, requests, started, longest = time.monotonic(), 0, 0, 0
    for seed in range(options.seed, options.seed + -(-options.steps // RUN)):
        report = simulate(seed, RUN)
        requests, started = requests + report.requests, started + report.started
        model, wait = max(report.longest_wait.items(), key=lambda item: item[1])
        longest = max(longest, wait)
        print(f"seed {seed}: {report.requests} requests, longest wait {wait} s for {model}", flush=True)
        assert wait <= MAX_WAIT, f"{model} waited {wait} s with seed {seed}"
    result = {
        "steps": RUN * -(-options.steps // RUN),
        "requests": requests,
        "started": started,
        "longest_wait_s": longest,
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
