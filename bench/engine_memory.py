"""What a runner holds resident beyond its weights and its KV cache."""

from __future__ import annotations

from pathlib import Path

from bench.engine_sides import CONTEXT, SLOTS
from corral_core.estimate import MIB, estimate
from corral_core.gguf_facts import read_facts
from corral_core.load import Load


def beyond(pid: int, weights: Path) -> dict[str, int]:
    """MiB: ``resident`` of the process, its ``weights`` and ``kv``, and what is ``beyond`` these two.

    ``mapped`` is what is resident of files: right after loading less than the weights, where llama.cpp copied of them.
    """
    shape = read_facts(weights).shape
    if shape is None:
        raise SystemExit(f"{weights} does not tell its shape")
    made = estimate(shape, Load(CONTEXT, SLOTS))
    resident = _status(pid, "VmRSS")
    known = {"resident": resident, "weights": weights.stat().st_size // MIB, "kv": made.kv // MIB}
    return known | {"beyond": resident - known["weights"] - known["kv"], "mapped": _status(pid, "RssFile")}


def _status(pid: int, key: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1]) // 1024
