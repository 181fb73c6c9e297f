"""Set-up time: from a fresh clone to the end of ``make demo ONCE=1``.

Warm: the caches of pip and uv and the compiled wheel of llama-cpp-python exist, as for the second clone on a machine.
Cold: all of them are empty, so everything is downloaded and llama.cpp is compiled for this CPU, as on a new machine.

    python bench/setup.py [--cold]

Needs git, make and what the demo needs. The last line is one JSON object: ``warm_s``, and ``cold_s`` with ``--cold``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 3600.0


def measure(*, cold: bool) -> float:
    """Return the seconds of ``make demo ONCE=1`` in a new clone; its output goes to the terminal."""
    with tempfile.TemporaryDirectory(prefix="corral-setup-") as work:
        clone = Path(work) / "corral"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True, timeout=60)
        environment = dict(os.environ) | ({"XDG_CACHE_HOME": f"{work}/cache"} if cold else {})
        start = time.monotonic()
        subprocess.run(["make", "demo", "ONCE=1", "PORT=0"], cwd=clone, env=environment, check=True, timeout=LIMIT)
        return round(time.monotonic() - start, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time from a fresh clone to the end of make demo ONCE=1.")
    parser.add_argument("--cold", action="store_true", help="with empty caches too: compiles llama.cpp")
    arguments = parser.parse_args()
    figures = {"warm_s": measure(cold=False)}
    if arguments.cold:
        figures["cold_s"] = measure(cold=True)
    for key, seconds in figures.items():
        print(f"{key:>8} {seconds:8.1f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
