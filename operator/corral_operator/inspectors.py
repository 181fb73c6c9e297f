"""Inspectors: pods that read the header of a Model's weights before its first start, and what they say.

The operator cannot see the weights, and a runner's requests follow from them. An inspector has the Model's image, claim
and nodes, reads the header, writes the facts as its last words, and ends; the pod's status keeps them. Nothing is asked
over the network and nothing is lost when the operator is away. One that fails is started again by the kubelet, after
growing pauses, until the weights are there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from corral_core.facts import ModelFacts
from corral_core.jsonfields import Json, integer, mapping, objects, text
from corral_core.model import API_VERSION, KIND, Model
from corral_core.packed import unpack
from corral_core.quantities import Amounts
from corral_operator.config import RunnerDefaults
from corral_operator.objects import MODEL_LABEL, Meta, PodObject, parse_pod
from corral_operator.runner_pod import environment, frame
from corral_operator.troubles import Trouble

NAME_LABEL, NAME = "app.kubernetes.io/name", "corral-inspector"
DIGEST = "corral.dev/inspects"
"""The annotation that tells which pod was wanted: an edited Model wants another one."""

UNREADABLE = "WeightsUnreadable"
_CONTAINER = "inspector"
_RESOURCES: Json = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}
"""Measured: 35 MiB for a header with 49,152 tokens. A header may hold texts of 64 MiB before it is refused."""


@dataclass(frozen=True, slots=True)
class Inspector:
    """``facts`` are those it told; ``trouble`` is why it has not. ``digest`` is of the pod as it was wanted.

    ``lost``: its node ended it (or lost it) before it was done, and the kubelet will not start it again.
    """

    pod: PodObject
    digest: str
    facts: ModelFacts | None
    trouble: Trouble | None
    lost: bool

    @property
    def meta(self) -> Meta:
        return self.pod.meta

    @property
    def node(self) -> str:
        return self.pod.node

    @property
    def holds(self) -> Amounts:
        return self.pod.holds

    @property
    def at_work(self) -> bool:
        return not (self.pod.finished or self.meta.deleted or self.trouble)


def is_inspector(raw: Json) -> bool:
    return text(raw, "metadata", "labels", NAME_LABEL) == NAME


def parse_inspector(raw: Json) -> Inspector:
    container = next(
        (item for item in objects(raw, "status", "containerStatuses") if item.get("name") == _CONTAINER), {}
    )
    pod, phase = parse_pod(raw), text(raw, "status", "phase")
    facts = None
    if phase == "Succeeded":
        facts, trouble = _told(container)
    else:
        trouble = _trouble(pod, container)
    digest = text(raw, "metadata", "annotations", DIGEST)
    return Inspector(pod=pod, digest=digest, facts=facts, trouble=trouble, lost=phase == "Failed")


def inspector_name(model: str) -> str:
    return f"model-{model}-info"


def inspector_pod(model: Model, *, defaults: RunnerDefaults) -> Json:
    """The pod, with its own digest among its annotations."""
    container = {
        "name": _CONTAINER,
        "image": model.spec.pod.image or defaults.image,
        "command": ["python", "-m", "corral_server.runner.inspect"],
        "env": environment(model, defaults, {}),
        "resources": _RESOURCES,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    spec = {
        **frame(model, container, defaults=defaults),
        "restartPolicy": "OnFailure",
        "terminationGracePeriodSeconds": 1,
    }
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(model, {**model.spec.pod.annotations, DIGEST: digest}),
        "spec": spec,
    }


def digest_of(pod: Json) -> str:
    return text(pod, "metadata", "annotations", DIGEST)


def _metadata(model: Model, annotations: Mapping[str, str]) -> dict[str, object]:
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": model.name, "uid": model.uid, "controller": True}
    labels = {
        **model.spec.pod.labels,
        NAME_LABEL: NAME,
        MODEL_LABEL: model.name,
        "app.kubernetes.io/instance": model.name,
        "app.kubernetes.io/component": _CONTAINER,
        "app.kubernetes.io/part-of": "corral",
        "app.kubernetes.io/managed-by": "corral-operator",
    }
    return {
        "name": inspector_name(model.name),
        "namespace": model.namespace,
        "labels": labels,
        "annotations": dict(annotations),
        "ownerReferences": [owner],
    }


def _told(container: Json) -> tuple[ModelFacts | None, Trouble | None]:
    try:
        return unpack(text(container, "state", "terminated", "message")), None
    except ValueError as error:
        return None, Trouble(UNREADABLE, f"what the inspector told of the weights cannot be read: {error}", "Failed")


def _trouble(pod: PodObject, container: Json) -> Trouble | None:
    """A header is read or not: the first failure is told, and stays told while the kubelet tries again."""
    ended = mapping(container, "lastState", "terminated")
    if integer(ended, "exitCode") != 0 and text(container, "state", "waiting", "reason") in ("", "CrashLoopBackOff"):
        said = text(ended, "message").strip() or text(ended, "reason")
        return Trouble(UNREADABLE, f"the weights cannot be read: {said}", "Failed")
    if pod.trouble is None or pod.trouble.phase != "Loading":
        return pod.trouble
    if pod.trouble.reason == "RunnerFailed":
        return Trouble(UNREADABLE, f"the weights cannot be read: {pod.trouble.message}", "Failed")
    return replace(pod.trouble, phase="Failed")
