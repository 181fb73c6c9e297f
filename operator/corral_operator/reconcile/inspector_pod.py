"""Manifest of the inspector pod, which reads the GGUF header of a Model's weights before the first start of a runner.

The operator cannot read the weights, and a runner's memory depends on them. An inspector has the Model's image, claim
and node selection, reads the header, writes the metadata as its termination message and ends. The message is kept in
the pod's status, so nothing is lost while the operator is down. The kubelet restarts an inspector that fails, with
growing pauses, until the weights are there.

For remote sources the pod is a *resolver*: it has the network of a puller, finds out what the sources name at present,
and reads the header by ranges. So the memory of a runner is known before the weights are pulled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from corral_core.base.json_fields import JsonObject
from corral_core.contracts.model_variable import model_variables
from corral_core.model.model import Model
from corral_core.model.resource import runner_model
from corral_operator.config import RunnerDefaults
from corral_operator.observe.inspector import DIGEST_ANNOTATION, INSPECTOR_CONTAINER
from corral_operator.observe.labels import INSPECTOR, MODEL_LABEL, NAME_LABEL, RESOLVER, component_labels
from corral_operator.reconcile.manifests import owner_reference
from corral_operator.reconcile.runner_pod import base_spec, environment
from corral_operator.reconcile.source_access.network import network_mounts, network_volumes, puller_environment

_RESOURCES: JsonObject = {"requests": {"cpu": "10m", "memory": "128Mi"}, "limits": {"memory": "640Mi"}}
"""Measured: 35 MiB for a header with 49,152 tokens. A header may hold strings of 64 MiB before it is rejected.

Then a child process plans compute buffers: 75 MiB, for recurrent models up to ``compute_buffers.MEMORY_LIMIT``.
"""

_RESOLVER_RESOURCES: JsonObject = {"requests": {"cpu": "10m", "memory": "192Mi"}, "limits": {"memory": "768Mi"}}
"""Measured: 115 MiB for the same header, read from a registry, and the child process."""

_FIELDS = ("source", "sha256", "adapters")
"""Fields of the spec that a resolver depends on."""


def inspector_pod(
    model: Model,
    *,
    defaults: RunnerDefaults,
    remote: bool = False,
    pins: Mapping[str, str] | None = None,
    ranges: Sequence[str] = (),
    after: str = "",
) -> JsonObject:
    """Return the pod, with the digest of its spec as an annotation.

    ``remote``: some of the sources are remote. ``pins`` are those of sources that were resolved before, which stay.
    ``ranges`` are the address ranges of the cluster; neither is part of the digest. ``after`` is the time of the
    resolution that this one follows, empty for the first.
    """
    spec = _spec(model, defaults, remote=remote, pins=pins or {}, ranges=ranges)
    metadata = {
        "name": f"model-{model.name}-info",
        "namespace": model.namespace,
        "labels": {
            **model.spec.pod.labels,
            NAME_LABEL: RESOLVER if remote else INSPECTOR,
            MODEL_LABEL: model.name,
            **component_labels(model.name, INSPECTOR_CONTAINER),
        },
        "annotations": {
            **model.spec.pod.annotations,
            DIGEST_ANNOTATION: inspector_digest(model, defaults=defaults, remote=remote, after=after),
        },
        "ownerReferences": [owner_reference(model)],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def inspector_digest(model: Model, *, defaults: RunnerDefaults, remote: bool = False, after: str = "") -> str:
    """Return the digest of the pod's manifest."""
    spec = _spec(model, defaults, remote=remote, pins={}, ranges=())
    return hashlib.sha256((after + json.dumps(spec, sort_keys=True)).encode()).hexdigest()


def content_digest(model: Model, *, defaults: RunnerDefaults, remote: bool) -> str:
    """Return a digest of the pod without what identifies the Model: equal for Models whose inspectors read the same."""
    spec = model.spec.model_copy(update={"names": ()})
    nameless = replace(model, name="", uid="", generation=0, created=0.0, spec=spec)
    return inspector_digest(nameless, defaults=defaults, remote=remote)


def _spec(
    model: Model, defaults: RunnerDefaults, *, remote: bool, pins: Mapping[str, str], ranges: Sequence[str]
) -> dict[str, object]:
    module = "corral_server.pull.pod.inspect" if remote else "corral_server.runner.lifecycle.inspect"
    container = {
        "name": INSPECTOR_CONTAINER,
        "image": model.spec.pod.image or defaults.image,
        "command": ["python", "-m", module],
        "env": _resolver_environment(model, defaults, pins, ranges) if remote else environment(model, defaults, {}),
        "resources": _RESOLVER_RESOURCES if remote else _RESOURCES,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    network = defaults.puller
    base = base_spec(
        model,
        container,
        defaults=defaults,
        volumes=network_volumes(model, network) if remote else (),
        mounts=network_mounts(model, network) if remote else (),
    )
    return {**base, "restartPolicy": "OnFailure", "terminationGracePeriodSeconds": 1}


def _resolver_environment(
    model: Model, defaults: RunnerDefaults, pins: Mapping[str, str], ranges: Sequence[str]
) -> list[JsonObject]:
    document = runner_model(model)
    spec = document["spec"]
    assert isinstance(spec, dict)
    reduced = {**document, "spec": {name: spec[name] for name in _FIELDS if name in spec}}
    values = {
        **model_variables(json.dumps(reduced, ensure_ascii=False, sort_keys=True, separators=(",", ":"))),
        "CORRAL_PVC_ROOT": "/weights",
        **({"CORRAL_PINS": json.dumps(dict(sorted(pins.items())))} if pins else {}),
    }
    own = [{"name": name, "value": value.replace("$", "$$")} for name, value in values.items()]
    return [*own, *puller_environment(model, defaults.puller, ranges)]
