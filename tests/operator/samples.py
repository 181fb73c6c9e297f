"""Objects as the API server would hand them out, for tests with values."""

from __future__ import annotations

from collections.abc import Mapping

from corral_core.activity import Activity
from corral_core.facts import ModelFacts
from corral_core.model import API_VERSION
from tests.core.test_estimate import SMOLLM2

SOURCE = "file:///weights.gguf"
FACTS = ModelFacts(
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
    shape=SMOLLM2,
    source=SOURCE,
)
CREATED = "2026-01-02T03:04:05Z"


def model(
    name: str = "tiny",
    *,
    version: int = 10,
    spec: Mapping[str, object] | None = None,
    status: Mapping[str, object] | None = None,
    known: bool = True,
    **extra: object,
) -> dict[str, object]:
    """A Model in the namespace ``lab``, whose weights are ``known``; ``extra`` are further top-level fields."""
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
        **extra,
        "status": {**({"model": FACTS.to_json()} if known else {}), **(status or {})},
    }


def owned(model_name: str, name: str, *, version: int = 10, **extra: object) -> dict[str, object]:
    """Metadata of an object that belongs to a Model."""
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
        **extra,
    }


def deployment(model_name: str = "tiny", *, replicas: int = 0, version: int = 10) -> dict[str, object]:
    return owned(model_name, f"model-{model_name}", version=version, spec={"replicas": replicas})


def pod(model_name: str = "tiny", *, name: str = "tiny-0", ready: bool = True, version: int = 10) -> dict[str, object]:
    conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": CREATED}]
    status = {"phase": "Running", "podIP": "10.1.2.3", "startTime": CREATED, "conditions": conditions}
    return owned(model_name, name, version=version, spec={"nodeName": "node-1"}, status=status)


def activity(*, in_flight: int = 0, expires_at: float | None = None, loaded: bool = True) -> Activity:
    return Activity(
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
    devices: dict[str, str] | None = None,
    ready: str = "True",
    heartbeat: str = CREATED,
    version: int = 10,
) -> dict[str, object]:
    """A node with 4 cores."""
    conditions = [{"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat}]
    amounts = {"cpu": "4", "memory": memory, "pods": "110", **(devices or {})}
    return {
        "metadata": {"name": name, "resourceVersion": str(version), "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": amounts, "capacity": amounts, "conditions": conditions},
    }
