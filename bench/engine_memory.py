"""Resident memory of a runner, other than weights and KV cache."""

from __future__ import annotations

from pathlib import Path

from bench.engine_sides import CONTEXT, SLOTS
from corral_core.weights.gguf_metadata import read_metadata
from corral_core.weights.load_config import LoadConfig
from corral_core.weights.memory_estimate import MIB, estimate_memory


def beyond(pid: int, weights: Path) -> dict[str, int]:
    """Return MiB: ``resident`` memory of the process, its ``weights``, its ``kv`` cache, and the rest as ``beyond``.

    ``mapped`` is the resident memory of files: right after loading less than the weights, if llama.cpp copied some.
    """
    shape = read_metadata(weights).dimensions
    if shape is None:
        raise SystemExit(f"{weights} has no dimensions")
    made = estimate_memory(shape, LoadConfig(CONTEXT, SLOTS))
    resident = _status(pid, "VmRSS")
    known = {"resident": resident, "weights": weights.stat().st_size // MIB, "kv": made.kv_cache // MIB}
    return known | {"beyond": resident - known["weights"] - known["kv"], "mapped": _status(pid, "RssFile")}


def _status(pid: int, key: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1]) // 1024
