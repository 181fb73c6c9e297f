"""The objects that a Model owns, as plain JSON: one Deployment of runners and one Service in front of them.

Everything is derived from the Model, the facts of its weights and the installation's defaults alone. The owner
reference makes the garbage collector delete them with the Model; no finalizer is used.
"""

from __future__ import annotations

from corral_core.estimate import Estimate
from corral_core.jsonfields import Json
from corral_core.model import API_VERSION, KIND, Model
from corral_operator.config import RunnerDefaults
from corral_operator.objects import MODEL_LABEL
from corral_operator.runner_pod import PORT, pod_spec


def owned_name(model: str) -> str:
    """The name of a Model's Deployment and Service. A Model's name is a DNS label of at most 52 characters."""
    return f"model-{model}"


def selector(model: str) -> dict[str, str]:
    """The labels by which a Model's runner pods are found; they never change."""
    return {"app.kubernetes.io/name": "corral-runner", MODEL_LABEL: model}


def deployment(
    model: Model,
    replicas: int,
    *,
    defaults: RunnerDefaults,
    size: int = 0,
    made: Estimate | None = None,
    cramped: bool = False,
) -> Json:
    """``size`` is the bytes of the weights, ``made`` how they are loaded and what that takes; 0 and None: not known.

    ``cramped``: there is no room for a new runner beside the old one.
    """
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(model),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 1,
            "selector": {"matchLabels": selector(model.name)},
            "strategy": _strategy(model, cramped=cramped),
            "template": {
                "metadata": {
                    "labels": {**model.spec.pod.labels, **_labels(model)},
                    "annotations": dict(model.spec.pod.annotations),
                },
                "spec": pod_spec(model, size, made, defaults=defaults),
            },
        },
    }


def service(model: Model) -> Json:
    """The Service exists for its EndpointSlices, from which the gateways learn the runners."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(model),
        "spec": {
            "selector": selector(model.name),
            "ports": [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def _metadata(model: Model) -> dict[str, object]:
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": model.name, "uid": model.uid, "controller": True}
    return {
        "name": owned_name(model.name),
        "namespace": model.namespace,
        "labels": _labels(model),
        "ownerReferences": [owner],
    }


def _labels(model: Model) -> dict[str, str]:
    return {
        **selector(model.name),
        "app.kubernetes.io/instance": model.name,
        "app.kubernetes.io/component": "runner",
        "app.kubernetes.io/part-of": "corral",
        "app.kubernetes.io/managed-by": "corral-operator",
    }


def _strategy(model: Model, *, cramped: bool) -> dict[str, object]:
    """An edited Model loses no request either way: runners drain, and requests wait at the gateway meanwhile.

    On GPUs the old runner goes first, since the new one may find no other GPU; otherwise the new one comes first, and
    only where it finds no room the old one makes it.
    """
    if model.spec.gpu.count > 0:
        return {"type": "Recreate"}
    surge = 0 if cramped else 1
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1 - surge, "maxSurge": surge}}
