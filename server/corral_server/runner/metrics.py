"""What a runner tells Prometheus: the engine's work, its memory, who is served. Every series names the Model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from corral_core.metrics import Family, Labels, counter, gauge, histogram, render
from corral_core.process_metrics import process_families
from corral_server.runner.generation import Engine
from corral_server.runner.measures import EngineMeasures
from corral_server.runner.state import RunnerState

_COUNTERS: tuple[tuple[str, str, Callable[[EngineMeasures], float]], ...] = (
    ("prompt_tokens_total", "Tokens of prompts that were read.", lambda said: said.prompted),
    ("prompt_cached_tokens_total", "Tokens of prompts that were there from before.", lambda said: said.cached),
    ("generated_tokens_total", "Tokens that were generated.", lambda said: said.generated),
    ("prefill_seconds_total", "Time in steps that read prompts.", lambda said: said.prefill_seconds),
    ("decode_seconds_total", "Time in steps that only generated.", lambda said: said.decode_seconds),
    ("decode_tokens_total", "Tokens generated in steps that only generated.", lambda said: said.decoded),
    ("draft_tokens_total", "Tokens that were decoded on speculation.", lambda said: said.drafted),
    ("draft_accepted_tokens_total", "Of these, the ones that the sampler chose as well.", lambda said: said.accepted),
)


def exposition(state: RunnerState) -> str:
    return render((process_families, lambda: families(state)))


def families(state: RunnerState) -> Iterator[Family]:
    """While the model loads, only how far it is."""
    labels: Labels = {"model": state.name}
    yield from _state_families(state, labels)
    if state.loaded is not None:
        yield from _engine_families(state.loaded.engine, labels)


def _state_families(state: RunnerState, labels: Labels) -> Iterator[Family]:
    activity = state.activity()
    levels = (
        ("loaded", "Whether the model is loaded.", activity.loaded),
        ("draining", "Whether the runner takes no new requests because it is to end.", activity.draining),
        ("load_progress_ratio", "How much of the weights has been read.", activity.progress),
        ("load_seconds", "How long loading the model took; 0 while it loads.", state.load_seconds),
        ("in_flight", "Requests that are served.", activity.in_flight),
        ("waiting", "Requests that wait for a slot of this runner.", activity.waiting),
        ("slots", "Requests that are served at once.", activity.slots),
        ("model_size_bytes", "Memory of weights, KV cache and buffers.", activity.size_bytes),
        ("model_vram_bytes", "The part of that which is on GPUs.", activity.vram_bytes),
    )
    for name, text, value in levels:
        yield gauge(f"corral_runner_{name}", text, [(labels, value)])


def _engine_families(engine: Engine, labels: Labels) -> Iterator[Family]:
    said = engine.measures
    for name, text, read in _COUNTERS:
        yield counter(f"corral_runner_{name}", text, [(labels, read(said))])
    yield counter(
        "corral_runner_generations_total",
        "Generations that ended: stop, length, failed, or cancelled by the client.",
        [({**labels, "reason": reason}, count) for reason, count in list(said.ended.items())],
    )
    yield histogram("corral_runner_batch_sequences", "Sequences decoded in one step.", [(labels, said.sequences)])
    yield histogram("corral_runner_batch_tokens", "Tokens decoded in one step.", [(labels, said.tokens)])
    yield gauge("corral_runner_sequences_running", "Generations that have a slot.", [(labels, engine.running)])
    yield gauge("corral_runner_sequences_waiting", "Generations that wait for a slot.", [(labels, engine.waiting)])
    yield gauge(
        "corral_runner_kv_cells_used",
        "Cells of the KV cache that hold tokens, those that idle slots keep for later included.",
        [(labels, engine.cells_held)],
    )
    total = engine.context_length * engine.slots
    yield gauge("corral_runner_kv_cells", "Cells of the KV cache.", [(labels, total)])
