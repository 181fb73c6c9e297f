"""The Models as the page shows them: one JSON object for each Model that a client sees.

The facts come from their owners: names, phase and pull from the directory, pending requests from the queues of this
gateway and its peers, memory, slots and speed from the runners. What is not known is null.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from corral_core.base.durations import FOREVER
from corral_core.base.timestamps import format_time
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.weights.template_capabilities import with_template
from corral_server.gateway.directory.directory import Directory, Endpoint, ModelEntry, ObservedState, pulled_bytes
from corral_server.gateway.peers.peer_usage import Peers
from corral_server.gateway.queueing.queue import RequestQueue
from corral_server.gateway.ui.runner_samples import RunnerSample, RunnerSamples

_UNKNOWN = ObservedState("Pending", "")


class ModelRows:
    """``directory`` is the one that is restricted to the current API key."""

    def __init__(self, directory: Directory, queue: RequestQueue, peers: Peers, runners: RunnerSamples) -> None:
        self._directory = directory
        self._queue = queue
        self._peers = peers
        self._runners = runners

    def endpoints(self) -> Iterator[Endpoint]:
        """Yield the runners of all Models that the current key sees."""
        for entry in self._directory.entries():
            yield from entry.endpoints

    def rows(self) -> list[dict[str, object]]:
        """Return the Models that the current key sees, the newest first."""
        return [self._row(entry) for entry in self._directory.entries()]

    def _row(self, entry: ModelEntry) -> dict[str, object]:
        state = self._directory.observed(entry.key) or _UNKNOWN
        return {
            "name": entry.names[0],
            "namespace": state.namespace,
            "names": list(entry.names),
            "phase": state.phase,
            "reason": state.reason,
            "pending": self._queue.pending_for(entry.key) + self._peers.pending_for(entry.key),
            "replicas": state.replicas,
            "replicasReady": state.ready,
            "nodes": list(state.nodes),
            **self._of_runners(entry, state),
            "pull": _pull(entry),
            **_of_weights(entry),
        }

    def _of_runners(self, entry: ModelEntry, state: ObservedState) -> dict[str, object]:
        known = [sample for endpoint in entry.endpoints if (sample := self._runners.get(endpoint)) is not None]
        complete = len(known) == len(entry.endpoints)
        statuses = [sample.status for sample in known]
        gpus = sum(len(status.offload.devices) if status.offload is not None else 0 for status in statuses)
        return {
            "slots": sum(endpoint.slots for endpoint in entry.endpoints),
            "slotsUsed": max(sum(status.in_flight for status in statuses), self._queue.slots_in_use(entry.key)),
            "gpus": state.gpus if state.gpus is not None else gpus if complete else None,
            "memoryBytes": sum(status.size_bytes for status in statuses) if complete else None,
            "vramBytes": sum(status.vram_bytes for status in statuses) if complete else None,
            "tokensPerSecond": _speed(known) if known and complete else None,
            "expiresAt": _expiry(known) if complete else None,
        }


def _speed(samples: Sequence[RunnerSample]) -> float | None:
    speeds = [sample.tokens_per_second for sample in samples]
    found = [speed for speed in speeds if speed is not None]
    return round(sum(found), 1) if len(found) == len(speeds) else None


def _expiry(samples: Sequence[RunnerSample]) -> str | None:
    """Return the time at which the last runner is unloaded; None if one is busy or never unloaded."""
    times = [sample.status.expires_at for sample in samples if sample.status.keep_alive != FOREVER]
    found = [time for time in times if time is not None]
    return format_time(max(found)) if found and len(found) == len(samples) else None


def _pull(entry: ModelEntry) -> dict[str, object] | None:
    if entry.pulling is None:
        return None
    total, completed = pulled_bytes(entry.pulling)
    return {"completedBytes": completed, "totalBytes": total or None}


def _of_weights(entry: ModelEntry) -> dict[str, object]:
    metadata = _metadata(entry)
    if metadata is None:
        return {
            "sizeBytes": None,
            "family": "",
            "parameterSize": "",
            "quantization": "",
            "contextLength": entry.context_length or None,
            "capabilities": [],
        }
    return {
        "sizeBytes": metadata.size,
        "family": metadata.family,
        "parameterSize": metadata.parameter_size,
        "quantization": metadata.quantization_level,
        "contextLength": entry.context_length or metadata.context_length or None,
        "capabilities": list(metadata.capabilities),
    }


def _metadata(entry: ModelEntry) -> ModelMetadata | None:
    template = entry.model.spec.template or entry.defaults.template or None
    return with_template(entry.metadata, template) if entry.metadata is not None else None
