"""Prometheus metrics of a runner: state, GPUs, engine and memory. Each series has the label ``model``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from corral_core.base.exposition import Labels, Metric, counter, expose, gauge, histogram
from corral_core.base.process_metrics import process_families
from corral_core.contracts.runner_status import Offload
from corral_server.runner.engine.generation import Engine
from corral_server.runner.engine.metrics import EngineMetrics
from corral_server.runner.lifecycle.gpus.metrics import device_families
from corral_server.runner.lifecycle.state import RunnerState

_COUNTERS: tuple[tuple[str, str, Callable[[EngineMetrics], float]], ...] = (
    ("prompt_tokens_total", "Prompt tokens processed in prefill.", lambda metrics: metrics.prompt_tokens),
    (
        "prompt_cached_tokens_total",
        "Prompt tokens reused from the prefix cache.",
        lambda metrics: metrics.cached_tokens,
    ),
    ("generated_tokens_total", "Generated tokens.", lambda metrics: metrics.generated_tokens),
    ("prefill_seconds_total", "Time in steps with prompt tokens.", lambda metrics: metrics.prefill_seconds),
    ("decode_seconds_total", "Time in steps without prompt tokens.", lambda metrics: metrics.decode_seconds),
    ("decode_tokens_total", "Tokens generated in steps without prompt tokens.", lambda metrics: metrics.decode_tokens),
    ("draft_tokens_total", "Draft tokens decoded for speculative decoding.", lambda metrics: metrics.draft_tokens),
    (
        "draft_accepted_tokens_total",
        "Draft tokens accepted by the sampler.",
        lambda metrics: metrics.accepted_draft_tokens,
    ),
)


def exposition(state: RunnerState, accept: str = "") -> tuple[bytes, str]:
    """Return the exposition in an accepted format and its content type."""
    return expose((process_families, lambda: families(state)), accept)


def families(state: RunnerState) -> Iterator[Metric]:
    """Yield all metrics; while the model loads, only those of the state and of the GPUs."""
    labels: Labels = {"model": state.name}
    yield from _state_families(state, labels)
    yield from device_families(state.device_health, labels, failed=bool(state.device_failure))
    if state.loaded is not None:
        yield from _engine_families(state.loaded.engine, labels)


def _state_families(state: RunnerState, labels: Labels) -> Iterator[Metric]:
    status, memory = state.status(), state.request_memory
    levels = (
        ("loaded", "1 if the model is loaded.", status.loaded),
        ("draining", "1 if the runner is shutting down and accepts no new requests.", status.draining),
        ("load_progress_ratio", "Fraction of the weights that has been loaded.", status.load_progress),
        ("load_duration_seconds", "Duration of the model load; 0 while it is in progress.", state.load_seconds),
        ("in_flight_requests", "Requests being served.", status.in_flight),
        ("pending_requests", "Requests waiting for a slot of this runner.", status.waiting),
        ("slots", "Slots: requests served concurrently.", status.slots),
        ("model_size_bytes", "Memory of weights, KV cache and compute buffers.", status.size_bytes),
        ("model_vram_bytes", "GPU memory of weights, KV cache and compute buffers.", status.vram_bytes),
        ("request_memory_bytes", "Memory reserved by requests: bodies, prompts, unread output.", memory.used),
        ("request_memory_limit_bytes", "Maximum memory that requests may reserve.", memory.total),
    )
    for name, text, value in levels:
        yield gauge(f"corral_runner_{name}", text, [(labels, value)])
    yield counter(
        "corral_runner_short_context_requests_total",
        "Requests with a num_ctx above the context length, which were served with the context length.",
        [(labels, state.short_contexts.requests)],
    )
    yield counter(
        "corral_runner_refused_requests_total",
        "Requests refused for their memory: too_large alone, or no_memory left by the others.",
        [({**labels, "reason": reason}, count) for reason, count in list(memory.refused.items())],
    )


def _engine_families(engine: Engine, labels: Labels) -> Iterator[Metric]:
    metrics = engine.metrics
    for name, text, read in _COUNTERS:
        yield counter(f"corral_runner_{name}", text, [(labels, read(metrics))])
    yield counter(
        "corral_runner_generations_total",
        "Completed generations by reason: stop, length, failed, or cancelled by the client.",
        [({**labels, "reason": reason}, count) for reason, count in list(metrics.finished.items())],
    )
    yield histogram("corral_runner_batch_sequences", "Sequences in one batch.", [(labels, metrics.batch_sequences)])
    yield histogram("corral_runner_batch_tokens", "Tokens in one batch.", [(labels, metrics.batch_tokens)])
    yield gauge("corral_runner_running_sequences", "Sequences with a slot.", [(labels, engine.running)])
    yield gauge("corral_runner_pending_sequences", "Sequences waiting for a slot.", [(labels, engine.waiting)])
    yield gauge(
        "corral_runner_kv_cache_used_cells",
        "KV cache cells that hold tokens, including those that idle slots keep for prefix reuse.",
        [(labels, engine.kv_cells_used)],
    )
    yield from _device_families(engine.offload, labels)
    total = engine.context_length * engine.slots
    yield gauge("corral_runner_kv_cache_cells", "KV cache cells.", [(labels, total)])


def _device_families(offload: Offload, labels: Labels) -> Iterator[Metric]:
    yield gauge("corral_runner_gpu_layers", "Layers on GPUs, the output included.", [(labels, offload.layers)])
    yield gauge("corral_runner_layers", "Layers of the model, the output included.", [(labels, offload.total_layers)])
    devices = [({**labels, "device": device.name}, device) for device in offload.devices]
    yield gauge(
        "corral_runner_device_bytes",
        "GPU memory of weights, KV cache and compute buffers by device.",
        [(names, device.bytes) for names, device in devices],
    )
    yield gauge(
        "corral_runner_device_predicted_bytes",
        "GPU memory that llama.cpp planned before the load, by device.",
        [(names, device.predicted) for names, device in devices],
    )
