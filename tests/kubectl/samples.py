"""Models, pods and Events as the API server returns them."""

from __future__ import annotations

from corral_core.base.timestamps import format_time
from corral_core.model.model import API_VERSION

NOW = 1_790_000_000.0


def ago(seconds: float) -> str:
    return format_time(NOW - seconds)


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, object]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def model(
    name: str = "llama",
    *conditions: dict[str, object],
    namespace: str = "lab",
    spec: dict[str, object] | None = None,
    **status: object,
) -> dict[str, object]:
    return {
        "apiVersion": API_VERSION,
        "kind": "Model",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": ago(3600)},
        "spec": {"source": "ollama://llama3.2:1b", **(spec or {})},
        "status": {"conditions": list(conditions), **status},
    }


def pod(
    name: str, component: str = "runner", *, created: float = 60, node: str = "node-a", **status: object
) -> dict[str, object]:
    labels = {"corral.dev/model": "llama", "app.kubernetes.io/component": component}
    return {
        "metadata": {"name": name, "labels": labels, "creationTimestamp": ago(created)},
        "spec": {"nodeName": node, "containers": [{"name": component}]},
        "status": {"phase": "Running", **status},
    }


def container(name: str, **state: object) -> dict[str, object]:
    """Return the status of a container; ``state`` is ``waiting``, ``running`` or ``terminated``."""
    return {"name": name, "state": state}


def event(reason: str, message: str, *, seconds: float, kind: str = "Model", count: int = 1) -> dict[str, object]:
    of = {"kind": kind, "name": "llama"}
    return {
        "reason": reason,
        "message": message,
        "lastTimestamp": ago(seconds),
        "count": count,
        "involvedObject": of,
    }
