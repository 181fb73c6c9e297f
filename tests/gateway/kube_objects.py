"""Models and EndpointSlices as the API server returns them."""

from __future__ import annotations

from corral_core.model.model import API_VERSION

FACTS: dict[str, object] = {
    "size": 98,
    "family": "llama",
    "families": ["llama"],
    "parameterSize": "135M",
    "parameterCount": 135,
    "quantization": "Q4_1",
    "contextLength": 2048,
    "embeddingLength": 576,
    "capabilities": ["completion"],
    "template": "",
    "info": {},
}


def model(
    name: str = "tiny",
    *,
    created: int = 1,
    spec: dict[str, object] | None = None,
    status: dict[str, object] | None = None,
) -> dict[str, object]:
    """Return a Model. ``created`` is in seconds after a fixed time."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Model",
        "metadata": {
            "name": name,
            "namespace": "lab",
            "uid": f"uid-{name}",
            "resourceVersion": "10",
            "generation": 2,
            "creationTimestamp": f"2026-01-02T03:04:{created:02d}Z",
        },
        "spec": {"source": "file:///weights.gguf", **(spec or {})},
        "status": {"observedGeneration": 2, **(status or {})},
    }


def endpoint(address: str = "10.1.2.3", *, ready: bool = True, terminating: bool = False) -> dict[str, object]:
    return {
        "addresses": [address],
        "conditions": {"ready": ready, "serving": ready, "terminating": terminating},
        "targetRef": {"kind": "Pod", "name": f"pod-{address}", "uid": f"uid-{address}"},
    }


def endpoint_slice(
    *endpoints: dict[str, object], name: str = "model-tiny-abc", model: str = "tiny"
) -> dict[str, object]:
    labels = {"kubernetes.io/service-name": f"model-{model}", "corral.dev/model": model}
    return {
        "metadata": {"name": name, "namespace": "lab", "labels": labels, "resourceVersion": "20"},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }
