"""Cold start in local mode: time from a request to its first token, by part.

Each round begins with the model unloaded and its runner ended. After the first round, which is a warm-up, the weights
are in the page cache; the first load after a reboot also reads the file.

    python bench/wake.py [--rounds N]

Needs only the demo's set-up. The last line is a JSON object with the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.serving import Serving
from scripts.wake import PARTS, Wake, unload, wake

MODEL_FILE = Path(__file__).resolve().parent.parent / "examples/smollm2.yaml"
MODEL = "smollm2"
PROMPT = "Name three colours."
KEYS = ("first_token_s", *PARTS)


def figures(woken: Wake) -> dict[str, float]:
    return {"first_token_s": woken.first_token_s, **woken.parts}


def measure(rounds: int) -> list[dict[str, float]]:
    """Return one row of figures per round, without the warm-up."""
    rows = []
    with Serving([str(MODEL_FILE)]) as serving:
        for number in range(rounds + 1):
            row = figures(wake(serving, MODEL, PROMPT, on_text=lambda _: None, predict=8))
            if number:
                rows.append(row)
                show(str(number), row)
            unload(serving, MODEL)
    return rows


def show(label: str, row: dict[str, float]) -> None:
    print(f"{label:>8}" + "".join(f"{row[key]:>18.3f}" for key in KEYS), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Cold request to first token in local mode.")
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(f"{'round':>8}" + "".join(f"{key:>18}" for key in KEYS))
    rows = measure(rounds)
    median = {key: statistics.median(row[key] for row in rows) for key in KEYS}
    show("median", median)
    print(json.dumps({key: round(value, 4) for key, value in median.items()} | {"rounds": rounds}))


if __name__ == "__main__":
    main()
