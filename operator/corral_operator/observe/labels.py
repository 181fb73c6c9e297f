"""Labels by which the operator finds the objects of a Model."""

from __future__ import annotations

from collections.abc import Mapping

TEMPLATE_ANNOTATION = "corral.dev/pod-template"
"""Annotation of a Deployment: SHA-256 of the pod template that the operator applied."""

GENERATION_ANNOTATION = "corral.dev/model-generation"
"""Annotation of a Deployment: generation of the Model that the pod template was made from."""

SNAPSHOTS_ANNOTATION = "corral.dev/snapshots"
"""Annotation of a Deployment: the ids of the pulled snapshots that its runners load, separated by commas."""

PULLED_BYTES_ANNOTATION = "corral.dev/pulled-bytes"
"""Annotation of a Deployment: the size of those snapshots."""

RANGES_ANNOTATION = "corral.dev/cluster-ranges"
"""Annotation of a Deployment whose pods pull: the address ranges of the cluster in its template, with commas."""

GPU_MEMORY_ANNOTATION = "corral.dev/gpu-memory"
"""Annotation of a pod and of a pod template: the bytes that the pod takes on each of its GPUs."""

PLACEMENT_ANNOTATION = "corral.dev/placement"
"""Annotation of a Deployment: the GPUs that were chosen for its pods, and why."""

MODEL_LABEL = "corral.dev/model"
NAME_LABEL = "app.kubernetes.io/name"
RUNNER, INSPECTOR = "corral-runner", "corral-inspector"
RESOLVER, PULLER = "corral-resolver", "corral-puller"
"""Values of ``NAME_LABEL`` on the pods of a Model. A resolver is the inspector of a Model with remote sources."""

PULLER_CONTAINER = "puller"
"""Name of the container that pulls: of a puller pod, or the init container of a runner pod."""


def owned_name(model: str) -> str:
    """Return the name of the objects that a Model owns. A Model's name is a DNS label of at most 52 characters."""
    return f"model-{model}"


def pull_policy_name(model: str) -> str:
    """Return the name of the NetworkPolicy of a Model's pullers, which ``owned_name`` returns for no other Model."""
    return f"pull-{owned_name(model)}"


def runner_selector(model: str) -> dict[str, str]:
    """Return the labels that select the runner pods of the Model with this name; a Deployment cannot change them."""
    return {NAME_LABEL: RUNNER, MODEL_LABEL: model}


def component_labels(model: str, component: str) -> Mapping[str, str]:
    """Return the recommended labels (``app.kubernetes.io/*``) of an object that belongs to the Model."""
    return {
        "app.kubernetes.io/instance": model,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "corral",
        "app.kubernetes.io/managed-by": "corral-operator",
    }
