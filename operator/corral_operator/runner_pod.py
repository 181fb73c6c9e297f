"""The pod of a Model's runner: a pure function of the Model, the facts of its weights and the installation's defaults.

``pod_spec`` is all that decides what a runner needs of a node; whoever counts room counts what it says. Without facts
(the header of the weights has not been read yet) nothing is asked for beyond what the Model itself says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from corral_core.estimate import Estimate
from corral_core.jsonfields import Json
from corral_core.model import Model
from corral_core.resource import serving_spec
from corral_core.source import parse_source
from corral_operator.config import RunnerDefaults
from corral_operator.probes import probes
from corral_operator.resources import resources

PORT = 8080
WEIGHTS = "/weights"
DRAIN_MARGIN = 10
"""Seconds between the end of the runner's own drain and the kubelet's SIGKILL."""
CONTAINED: Json = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def pod_spec(model: Model, size: int, made: Estimate | None, *, defaults: RunnerDefaults) -> dict[str, object]:
    """The spec of the pod of a runner that loads weights of ``size`` bytes as ``made`` says, as plain JSON."""
    container = runner_container(model, size, made, defaults=defaults)
    return {**frame(model, container, defaults=defaults), **_only_for_runners(model, defaults)}


def frame(model: Model, container: Json, *, defaults: RunnerDefaults) -> dict[str, object]:
    """What every pod of a Model has: where it may run, what it may do, and the claim with its weights."""
    spec = model.spec
    optional: dict[str, object] = {
        "nodeSelector": dict(spec.pod.node_selector),
        "tolerations": [*spec.pod.tolerations, *_lost_node_tolerations(model, defaults.lost_node)],
        "affinity": spec.pod.affinity,
        "imagePullSecrets": list(spec.pod.image_pull_secrets),
        "priorityClassName": spec.pod.priority_class_name or defaults.priority_class,
    }
    mounts: list[dict[str, object]] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108  the pod's own, not this host's
    if _claims(model):
        mounts.append({"name": "weights", "mountPath": WEIGHTS, "readOnly": True})
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "shareProcessNamespace": True,  # a process 1 would not hear SIGTERM before it has set a handler
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{**container, "securityContext": CONTAINED, "volumeMounts": mounts}],
        "volumes": [{"name": "tmp", "emptyDir": {}}, *_claims(model)],
        **{name: value for name, value in optional.items() if value},
    }


def _only_for_runners(model: Model, defaults: RunnerDefaults) -> dict[str, object]:
    runtime = model.spec.runtime_class_name or _default_runtime_class(model)
    return {
        "terminationGracePeriodSeconds": math.ceil(defaults.drain) + DRAIN_MARGIN,
        **({"runtimeClassName": runtime} if runtime else {}),
    }


def _lost_node_tolerations(model: Model, seconds: float) -> list[Json]:
    """How long the pod stays where its node has been lost, unless the Model says so itself.

    Kubernetes would wait five minutes. It has waited for most of a minute already, nobody is routed there, and a runner
    keeps nothing that another one lacks.
    """
    theirs = {toleration.get("key") for toleration in model.spec.pod.tolerations}
    wanted = [key for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable") if key not in theirs]
    common = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": math.ceil(seconds)}
    return [{"key": key, **common} for key in wanted]


def _default_runtime_class(model: Model) -> str | None:
    """NVIDIA's container toolkit registers its runtime under this name; other vendors' GPUs need none."""
    gpu = model.spec.gpu
    return "nvidia" if gpu.count > 0 and gpu.resource.startswith("nvidia.com/") else None


def runner_container(model: Model, size: int, made: Estimate | None, *, defaults: RunnerDefaults) -> dict[str, object]:
    decided = {"OLLAMA_NUM_PARALLEL": str(made.load.parallel)} if made is not None and made.load.generates else {}
    return {
        "name": "runner",
        "image": model.spec.pod.image or defaults.image,
        "command": ["python", "-m", "corral_server.runner"],
        "env": environment(model, defaults, decided),
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "resources": resources(model, made, defaults=defaults),
        **probes(size, defaults=defaults),
    }


def environment(model: Model, defaults: RunnerDefaults, decided: Mapping[str, str]) -> list[Json]:
    """The container's variables. ``decided`` goes before the installation's settings, and whoever sets one by name
    before both.
    """
    described = {"name": model.name, "namespace": model.namespace, "spec": serving_spec(model)}
    ours = {
        "CORRAL_MODEL": json.dumps(described, ensure_ascii=False, sort_keys=True, separators=(",", ":")),
        "CORRAL_PORT": str(PORT),
        "CORRAL_PVC_ROOT": WEIGHTS,
        "CORRAL_DRAIN_TIMEOUT": f"{defaults.drain:f}s",
        **defaults.settings,
        **decided,
    }
    theirs = {str(item.get("name")): item for item in (*defaults.env, *model.spec.pod.env)}
    kept = [{"name": name, "value": _literal(value)} for name, value in ours.items() if name not in theirs]
    return [*kept, *theirs.values()]


def _literal(value: str) -> str:
    """The kubelet expands ``$(NAME)`` in values; ``$$`` stands for a plain ``$``."""
    return value.replace("$", "$$")


def _claims(model: Model) -> list[Json]:
    source = parse_source(model.spec.source)
    if source.scheme != "pvc":
        return []
    claim = {"claimName": source.root, "readOnly": True}
    return [{"name": "weights", "persistentVolumeClaim": claim}]
