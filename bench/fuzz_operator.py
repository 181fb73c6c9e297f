"""Fuzz operator, gateway and local mode by objects of the API server and by what runners and inspectors report.

    python bench/fuzz_operator.py [--cases 100000] [--api 3000] [--seed 1] [--first 0] [--corpus 1000]

``tests/support/fuzz_operator.py`` describes a case and what is checked after each. With ``--api``, Models and statuses
of the same corpus go through a real API server to operator and gateway processes, which must live on and serve a good
Model (``tests/cluster/fuzz_api_server.py``). A case is determined by seed, size of the corpus and number, so that a
failing one can be repeated with ``--first``. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.cluster.cluster import open_cluster
from tests.cluster.fake_kubelet import FakeKubelet
from tests.cluster.fuzz_api_server import APIServerFuzzer
from tests.cluster.installation import installation
from tests.cluster.tools import programs
from tests.support.fuzz_objects import Corpus
from tests.support.fuzz_operator import InvariantViolated, ObjectFuzzer

REPORT_EVERY = 10_000


async def in_process(corpus: Corpus, seed: int, first: int, *, cases: int) -> dict[str, object]:
    fuzz = ObjectFuzzer(corpus, seed)
    await fuzz.start()
    began = time.monotonic()
    try:
        for number in range(first, first + cases):
            try:
                await fuzz.run(number)
            except InvariantViolated as error:
                sys.exit(f"seed {seed} case {number}: {error}")
            if (number - first + 1) % REPORT_EVERY == 0:
                print(f"{number - first + 1} cases, {dict(fuzz.counts)}, {_memory()} KiB", flush=True)
    finally:
        await fuzz.close()
    return {
        "cases": cases,
        "cases_per_second": round(cases / (time.monotonic() - began)),
        **fuzz.counts,
        "internal_errors": fuzz.internal_errors,
        "errors": fuzz.metrics.errors.total(),
        "unreadable": len(list(fuzz.unreadable.listed())),
    }


def through_api_server(corpus: Corpus, seed: int, first: int, *, cases: int) -> dict[str, object]:
    began = time.monotonic()
    with open_cluster(programs()) as cluster, cluster.namespace() as namespace:
        kubelet = FakeKubelet(cluster.api, cluster.workspace)
        try:
            with installation(cluster, namespace, runners=lambda: kubelet.children(namespace)) as corral:
                fuzz = APIServerFuzzer(corral, corpus, seed)
                fuzz.start()
                for number in range(first, first + cases):
                    fuzz.run(number)
                    if number and number % 500 == 0:
                        print(f"{number - first} cases through the API server, {dict(fuzz.counts)}", flush=True)
        finally:
            kubelet.stop()
    return {"cases": cases, "cases_per_second": round(cases / (time.monotonic() - began)), **fuzz.counts}


def _memory() -> int:
    """The process's memory now, in KiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz operator, gateway and local mode.")
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--api", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--corpus", type=int, default=1000)
    chosen = parser.parse_args()
    corpus = Corpus.generate(chosen.seed, size=chosen.corpus)
    found: dict[str, object] = {"corpus": len(corpus.specs) + len(corpus.statuses) + len(corpus.values)}
    found["in_process"] = asyncio.run(in_process(corpus, chosen.seed, chosen.first, cases=chosen.cases))
    print(json.dumps(found), flush=True)
    if chosen.api:
        found["through_api_server"] = through_api_server(corpus, chosen.seed, chosen.first, cases=chosen.api)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
