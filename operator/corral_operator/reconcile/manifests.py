"""Manifests of the objects that a Model owns: a Deployment of runners, a Service and a NetworkPolicy.

They depend on the Model, the memory estimate and the installation's defaults alone. The owner reference makes the
garbage collector delete them with the Model; no finalizer is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from corral_core.base.json_fields import JsonObject
from corral_core.contracts.source_resolution import SourceResolution
from corral_core.model.model import API_VERSION, KIND, Model
from corral_core.model.remote_sources import remote_sources
from corral_core.planning.gpus.request import GpuRequest
from corral_operator.config import RunnerDefaults
from corral_operator.observe.labels import (
    GENERATION_ANNOTATION,
    GPU_MEMORY_ANNOTATION,
    INSPECTOR,
    MODEL_LABEL,
    NAME_LABEL,
    PLACEMENT_ANNOTATION,
    PULLED_BYTES_ANNOTATION,
    RANGES_ANNOTATION,
    RUNNER,
    SNAPSHOTS_ANNOTATION,
    TEMPLATE_ANNOTATION,
    component_labels,
    owned_name,
    runner_selector,
)
from corral_operator.observe.pulling.image_volumes import MountedImage
from corral_operator.observe.pulling.sources import expected_snapshots
from corral_operator.observe.streams.pod_streams import RUNNER_PORT
from corral_operator.reconcile.gpus.claim import GPUClaim, claim_template, gpu_claim, with_claim
from corral_operator.reconcile.runner_pod import pod_spec
from corral_operator.report.load import UNKNOWN_LOAD, LoadChoice

NO_DEADLINE = 2**31 - 1
"""``progressDeadlineSeconds`` without a deadline: the Deployment controller counts pods, not loaded weights."""


def owner_reference(model: Model) -> JsonObject:
    return {"apiVersion": API_VERSION, "kind": KIND, "name": model.name, "uid": model.uid, "controller": True}


def deployment(
    model: Model,
    replicas: int,
    *,
    defaults: RunnerDefaults,
    load: LoadChoice = UNKNOWN_LOAD,
    no_surge: bool = False,
    source: SourceResolution | None = None,
    ranges: Sequence[str] = (),
    image: MountedImage | None = None,
) -> JsonObject:
    """Return the Deployment of the Model's runners.

    ``load`` is the chosen load config with its GPUs and its memory. ``no_surge``: the nodes have no
    capacity for a new runner beside the old one. ``source`` is what the remote sources were resolved to, ``ranges`` are
    the address ranges of the cluster for pods that pull them. ``image`` is the image that the runners mount instead.
    """
    template: JsonObject = {
        "metadata": {
            "labels": {**model.spec.pod.labels, **_labels(model)},
            "annotations": {**model.spec.pod.annotations, **_gpu_memory(load.gpus)},
        },
        "spec": pod_spec(
            model, load.estimate, defaults=defaults, gpus=load.gpus, source=source, ranges=ranges, image=image
        ),
    }
    template = with_claim(template, gpu_claim(model, load.gpus))
    annotations = {TEMPLATE_ANNOTATION: _digest(template), **_annotations(model, load, source=source, ranges=ranges)}
    if source is not None:
        annotations[PULLED_BYTES_ANNOTATION] = str(source.total if image is None else 0)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {**_metadata(model), "annotations": annotations},
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": NO_DEADLINE,
            "selector": {"matchLabels": runner_selector(model.name)},
            "strategy": _strategy(
                no_surge=no_surge, recreate=load.gpus is not None or (image is None and _on_one_node(model))
            ),
            "template": template,
        },
    }


def _annotations(
    model: Model, load: LoadChoice, *, source: SourceResolution | None, ranges: Sequence[str]
) -> dict[str, str]:
    """Return the annotations of the Deployment by which the operator recognizes what its pods were made from."""
    annotations = {GENERATION_ANNOTATION: str(model.generation)}
    if load.why or load.gpus is not None:
        annotations[PLACEMENT_ANNOTATION] = load.to_text()
    if source is not None:
        annotations[SNAPSHOTS_ANNOTATION] = ",".join(sorted(expected_snapshots(source).values()))
    if ranges:
        annotations[RANGES_ANNOTATION] = ",".join(ranges)
    return annotations


def _gpu_memory(gpus: GpuRequest | None) -> dict[str, str]:
    """Return the annotation of the pods by which the memory of shared GPUs is counted."""
    return {GPU_MEMORY_ANNOTATION: str(gpus.memory)} if gpus is not None and gpus.memory else {}


def gpu_claim_template(model: Model, claim: GPUClaim) -> JsonObject:
    """Return the ResourceClaimTemplate that the Deployment's pods name."""
    return claim_template(model, claim, owner_reference(model))


def _digest(template: JsonObject) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()


def service(model: Model) -> JsonObject:
    """Return the Service; the gateways find the runners through its EndpointSlices."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(model),
        "spec": {
            "selector": runner_selector(model.name),
            "ports": [{"name": "http", "port": RUNNER_PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def network_policy(model: Model, clients: Sequence[JsonObject], *, egress: Sequence[JsonObject] = ()) -> JsonObject:
    """Return the NetworkPolicy of the Model's runners and of an inspector of local sources.

    ``clients`` may connect to the runners' port, as in ``spec.ingress[].from``; at least one, since an empty list would
    admit everything. The pods open no connections themselves, not even for name lookups: their weights are on a volume
    or in the image. Only pods that pull need the rules ``egress``. The kubelet's probes are admitted by every network
    plugin.
    """
    pods = {
        "matchLabels": {MODEL_LABEL: model.name},
        "matchExpressions": [{"key": NAME_LABEL, "operator": "In", "values": [RUNNER, INSPECTOR]}],
    }
    ports = [{"port": RUNNER_PORT, "protocol": "TCP"}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(model),
        "spec": {
            "podSelector": pods,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": ports, "from": list(clients)}],
            "egress": list(egress),  # also without rules, so that rules of other field managers are replaced
        },
    }


def _metadata(model: Model) -> dict[str, object]:
    return {
        "name": owned_name(model.name),
        "namespace": model.namespace,
        "labels": _labels(model),
        "ownerReferences": [owner_reference(model)],
    }


def _labels(model: Model) -> dict[str, str]:
    return {**runner_selector(model.name), **component_labels(model.name, "runner")}


def _strategy(*, no_surge: bool, recreate: bool) -> dict[str, object]:
    """Return the rollout strategy. No request is lost either way: runners drain, and the gateway queues requests.

    With GPUs the old runner ends first, since the new one may find no other GPU, and so it does with a claim that one
    node can mount, since the new one may be placed on another node. Otherwise the new one starts first, unless it has
    no capacity beside the old one.
    """
    if recreate:
        return {"type": "Recreate"}
    surge = 0 if no_surge else 1
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1 - surge, "maxSurge": surge}}


def _on_one_node(model: Model) -> bool:
    cache = model.spec.cache
    return bool(remote_sources(model.spec)) and cache.own_claim and "ReadWriteMany" not in cache.access_modes
