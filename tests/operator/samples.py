"""Sample objects in the form of the API server, and sample runner statuses."""

from __future__ import annotations

from collections.abc import Mapping

from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.contracts.runner_status import RunnerStatus
from corral_core.model.model import API_VERSION
from tests.core.weights.test_memory_estimate import SMOLLM2

NOW = 1_800_000_000.0
CREATED = "2026-01-02T03:04:05Z"
SOURCE = "file:///weights.gguf"
METADATA = ModelMetadata(
    size=98_362_432,
    family="llama",
    families=("llama",),
    parameter_size="135M",
    parameter_count=135_000_000,
    quantization_level="Q4_1",
    context_length=8192,
    embedding_length=576,
    capabilities=("completion",),
    template="",
    dimensions=SMOLLM2,
    source=SOURCE,
)


def model(
    name: str = "tiny",
    *,
    version: int = 10,
    spec: Mapping[str, object] | None = None,
    status: Mapping[str, object] | None = None,
    inspected: bool = True,
) -> dict[str, object]:
    """Return a Model in the namespace ``lab``; if ``inspected``, its status has the metadata of its weights."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Model",
        "metadata": {
            "name": name,
            "namespace": "lab",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "generation": 1,
            "creationTimestamp": CREATED,
        },
        "spec": {"source": SOURCE, **(spec or {})},
        "status": {**({"model": METADATA.to_json()} if inspected else {}), **(status or {})},
    }


def owned(model_name: str, name: str, *, version: int = 10, **fields: object) -> dict[str, object]:
    """Return an object that belongs to a Model; ``fields`` are its top-level fields beside the metadata."""
    return {
        "metadata": {
            "name": name,
            "namespace": "lab",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "generation": 1,
            "creationTimestamp": CREATED,
            "labels": {"corral.dev/model": model_name},
        },
        **fields,
    }


def deployment(
    model_name: str = "tiny", *, replicas: int = 0, version: int = 10, pod_spec: Mapping[str, object] | None = None
) -> dict[str, object]:
    spec = {"replicas": replicas, **({"template": {"spec": pod_spec}} if pod_spec is not None else {})}
    return owned(model_name, f"model-{model_name}", version=version, spec=spec)


def pod(
    model_name: str = "tiny",
    *,
    name: str = "tiny-0",
    ready: bool = True,
    version: int = 10,
    spec: Mapping[str, object] | None = None,
    status: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return a runner pod on ``node-1``; ``spec`` replaces its spec and ``status`` adds to its status."""
    conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": CREATED}]
    running = {"phase": "Running", "podIP": "10.1.2.3", "startTime": CREATED, "conditions": conditions}
    return owned(
        model_name,
        name,
        version=version,
        spec=dict(spec) if spec is not None else {"nodeName": "node-1"},
        status={**running, **(status or {})},
    )


def with_metadata(raw: Mapping[str, object], **fields: object) -> dict[str, object]:
    """Return the object with these metadata fields."""
    metadata = raw["metadata"]
    assert isinstance(metadata, dict)
    return {**raw, "metadata": {**metadata, **fields}}


def requesting(memory: str) -> dict[str, object]:
    """Return the spec of a pod with this memory request."""
    return {"containers": [{"resources": {"requests": {"memory": memory}}}]}


def unschedulable(message: str) -> dict[str, object]:
    """Return the status of a pod that no node can run."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"phase": "Pending", "conditions": [condition]}


def runner_status(*, in_flight: int = 0, expires_at: float | None = None, loaded: bool = True) -> RunnerStatus:
    return RunnerStatus(
        in_flight=in_flight,
        waiting=0,
        slots=4,
        loaded=loaded,
        draining=False,
        keep_alive=300.0,
        last_end=None,
        expires_at=expires_at,
        size_bytes=1,
        vram_bytes=0,
        context_length=4096,
    )


def node(
    name: str,
    *,
    memory: str = "8Gi",
    devices: Mapping[str, str] | None = None,
    ready: str = "True",
    heartbeat: str = CREATED,
    version: int = 10,
) -> dict[str, object]:
    """Return a node with 4 cores."""
    conditions = [{"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat}]
    amounts = {"cpu": "4", "memory": memory, "pods": "110", **(devices or {})}
    return {
        "metadata": {"name": name, "resourceVersion": str(version), "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": amounts, "capacity": amounts, "conditions": conditions},
    }


def other_pod(
    name: str,
    *,
    node: str = "node-1",
    memory: str = "1Gi",
    version: int = 10,
    namespace: str = "other",
    model: str = "",
) -> dict[str, object]:
    """Return a pod without the label of a Model, unless ``model`` is given."""
    labels = {"corral.dev/model": model} if model else {}
    metadata = {"name": name, "namespace": namespace, "resourceVersion": str(version), "labels": labels}
    return {"metadata": metadata, "spec": {"nodeName": node, **requesting(memory)}}
