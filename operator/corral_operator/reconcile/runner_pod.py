"""Spec of a runner pod: a pure function of the Model, its memory estimate and the installation's defaults.

Everything that a runner requires of a node is in this spec, and other modules read it from there. Without an
estimate (the header of the weights was not read yet) the pod requests only what the Model itself sets.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from corral_core.base.durations import FOREVER
from corral_core.base.json_fields import JsonObject, get_object, get_objects
from corral_core.contracts.model_variable import model_variables
from corral_core.contracts.source_resolution import SourceResolution
from corral_core.model.accelerator import GPUPodSettings, vendor_of
from corral_core.model.model import Model
from corral_core.model.pod import TolerationSpec
from corral_core.model.remote_sources import pulled_in_pod
from corral_core.model.resource import runner_model
from corral_core.planning.affinity import required_node_affinity, with_required_terms
from corral_core.planning.gpus.request import GpuRequest, and_terms
from corral_core.sources.forms import ClaimSource
from corral_core.sources.uri import parse_source
from corral_core.weights.memory_estimate import MemoryEstimate
from corral_operator.config import RunnerDefaults
from corral_operator.observe.pulling.image_volumes import MountedImage
from corral_operator.observe.pulling.sources import expected_snapshots
from corral_operator.observe.streams.pod_streams import RUNNER_PORT
from corral_operator.reconcile.probes import probes
from corral_operator.reconcile.resources import resources
from corral_operator.reconcile.source_access.network import default_secret, network_volumes
from corral_operator.reconcile.source_access.puller_container import puller_container, puller_mounts
from corral_operator.reconcile.store_volume import (
    STORE_PATH,
    WEIGHTS_PATH,
    image_mounts,
    image_volumes,
    pod_storage,
    store_limit,
    store_mounts,
    store_security,
    store_volumes,
)

_TMP_SIZE = "2Gi"
"""Size of ``/tmp``, so that no pod fills the disk of its node. Corral writes nothing there; CUDA keeps up to 1 GiB of
compiled kernels.
"""
NVIDIA_RUNTIME_CLASS = "nvidia"
_KILL_MARGIN = 10
"""Seconds between the end of the runner's own drain and SIGKILL by the kubelet."""

_RESTRICTED: JsonObject = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
"""Container security context of the Pod Security level ``restricted``."""


def pod_spec(
    model: Model,
    estimate: MemoryEstimate | None,
    *,
    defaults: RunnerDefaults,
    gpus: GpuRequest | None = None,
    source: SourceResolution | None = None,
    ranges: Sequence[str] = (),
    image: MountedImage | None = None,
) -> dict[str, object]:
    """Return the spec of a runner pod, on the CPU without ``gpus``.

    ``source`` is what the remote sources were resolved to. If the pod pulls them itself, an init container does, and
    ``ranges`` are the address ranges of the cluster for it. ``image`` is the image that the pod mounts instead.
    """
    if image is not None:
        return _spec_with_image(model, estimate, image, defaults=defaults, gpus=gpus)
    container = _runner_container(model, estimate, _pulled_weights(source), defaults=defaults, gpus=gpus, source=source)
    volumes = store_volumes(model, source.total if source is not None else 0)
    pulls: dict[str, object] = {}
    if source is not None and pulled_in_pod(model.spec):
        limit = {"CORRAL_STORE_LIMIT": str(store_limit(model, source.total))}
        puller = puller_container(model, source, limit, defaults=defaults, ranges=ranges)
        pulls = {"initContainers": [_restricted(model, puller, puller_mounts(model, defaults.puller))]}
        volumes += network_volumes(model, defaults.puller)
    base = base_spec(model, container, defaults=defaults, volumes=volumes, mounts=store_mounts(model))
    return {**base, **pulls, **_runner_only(model, base, defaults=defaults, gpus=gpus)}


def _spec_with_image(
    model: Model,
    estimate: MemoryEstimate | None,
    image: MountedImage,
    *,
    defaults: RunnerDefaults,
    gpus: GpuRequest | None,
) -> dict[str, object]:
    container = _runner_container(model, estimate, {"CORRAL_IMAGE_PATH": image.path}, defaults=defaults, gpus=gpus)
    base = base_spec(model, container, defaults=defaults, volumes=image_volumes(image), mounts=image_mounts())
    return {**base, **_image_pull_secrets(model, defaults), **_runner_only(model, base, defaults=defaults, gpus=gpus)}


def _image_pull_secrets(model: Model, defaults: RunnerDefaults) -> dict[str, object]:
    """Return the Secrets with which the kubelet pulls, the credentials of the source among them.

    The operator cannot read Secrets. The kubelet uses those of the type ``kubernetes.io/dockerconfigjson``, and passes
    over others (``MakeDockerKeyring`` in Kubernetes' ``pkg/credentialprovider/secrets/secrets.go``).
    """
    reference = model.spec.source_secret_ref
    of_source = reference["name"] if reference is not None else default_secret(model, defaults.puller)
    names = dict.fromkeys([*_image_secrets(model, defaults), of_source])
    return {"imagePullSecrets": [{"name": name} for name in names if name]} if any(names) else {}


def _image_secrets(model: Model, defaults: RunnerDefaults) -> list[str]:
    """Return the names of the Secrets for the registries of the pod's own images."""
    own = (each["name"] for each in model.spec.pod.image_pull_secrets)
    return list(dict.fromkeys([*own, *defaults.pull_secrets]))


def base_spec(
    model: Model,
    container: JsonObject,
    *,
    defaults: RunnerDefaults,
    volumes: Sequence[JsonObject] = (),
    mounts: Sequence[JsonObject] = (),
) -> dict[str, object]:
    """Return what the pods of a Model have in common: placement, security, and the claim of a ``pvc://`` source.

    ``volumes`` and ``mounts`` are further ones.
    """
    spec = model.spec
    tolerations = [*spec.pod.tolerations, *(each for each in defaults.tolerations if each not in spec.pod.tolerations)]
    optional: dict[str, object] = {
        "nodeSelector": {**defaults.node_selector, **spec.pod.node_selector},
        "tolerations": [
            *tolerations,
            *_unreachable_node_tolerations(tolerations, defaults.unreachable_node_timeout),
        ],
        "affinity": spec.pod.affinity,
        "imagePullSecrets": [{"name": name} for name in _image_secrets(model, defaults)],
        "priorityClassName": spec.pod.priority_class_name or defaults.priority_class,
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, **store_security(model)}
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "shareProcessNamespace": True,  # as process 1 it would not receive SIGTERM before it has set a handler
        "securityContext": security,
        "containers": [_restricted(model, container, mounts)],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": _TMP_SIZE}}, *_weights_volumes(model), *volumes],
        **{name: value for name, value in optional.items() if value},
    }


def _restricted(model: Model, container: JsonObject, mounts: Sequence[JsonObject]) -> JsonObject:
    """Return the container with its security context and its mounts: what all have in common, and ``mounts``."""
    own: list[JsonObject] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108  the pod's, not this host's
    if _weights_volumes(model):
        own.append({"name": "weights", "mountPath": WEIGHTS_PATH, "readOnly": True})
    return {**container, "securityContext": _RESTRICTED, "volumeMounts": [*own, *mounts]}


def environment(
    model: Model, defaults: RunnerDefaults, chosen: Mapping[str, str], *, gpus: GpuRequest | None = None
) -> list[JsonObject]:
    """Return the container's variables.

    ``chosen`` overrides the installation's settings; variables of ``defaults.env``, of its settings for the GPUs and of
    the Model override both, the Model's first.
    """
    values = {
        **model_variables(_compact(runner_model(model, gpus=gpus.count if gpus is not None else 0))),
        "CORRAL_PORT": str(RUNNER_PORT),
        "CORRAL_PVC_ROOT": WEIGHTS_PATH,
        "OLLAMA_LOAD_TIMEOUT": f"{defaults.load_timeout:f}s" if defaults.load_timeout < FOREVER else "-1",
        "CORRAL_DRAIN_TIMEOUT": f"{defaults.drain_timeout:f}s",
        **defaults.settings,
        **chosen,
    }
    overrides = {
        str(item.get("name")): item for item in (*defaults.env, *_gpu_pod(gpus, defaults).env, *model.spec.pod.env)
    }
    kept = [{"name": name, "value": _escape(value)} for name, value in values.items() if name not in overrides]
    return [*kept, *overrides.values()]


def _compact(document: JsonObject) -> str:
    return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _pulled_weights(source: SourceResolution | None) -> dict[str, str]:
    """Return the variables by which a runner finds pulled weights."""
    if source is None or not source.pins:
        return {}
    snapshots = dict(sorted(expected_snapshots(source).items()))
    return {"CORRAL_STORE": STORE_PATH, "CORRAL_SNAPSHOTS": json.dumps(snapshots)}


def _runner_container(
    model: Model,
    estimate: MemoryEstimate | None,
    weights: Mapping[str, str],
    *,
    defaults: RunnerDefaults,
    gpus: GpuRequest | None,
    source: SourceResolution | None = None,
) -> dict[str, object]:
    """Return the container; ``weights`` are the variables by which it finds pulled or mounted weights."""
    chosen = dict(weights)
    if estimate is not None and estimate.load_config.generates:
        chosen["OLLAMA_NUM_PARALLEL"] = str(estimate.load_config.parallel)
    if estimate is not None and estimate.load_config.context_passed:
        chosen["CORRAL_CONTEXT_LENGTH"] = str(estimate.load_config.context_length)
    storage = pod_storage(model, source.total if source is not None else 0)
    return {
        "name": "runner",
        "image": model.spec.pod.image or _image(gpus, defaults),
        "command": ["python", "-m", "corral_server.runner"],
        "env": environment(model, defaults, chosen, gpus=gpus),
        "ports": [{"name": "http", "containerPort": RUNNER_PORT, "protocol": "TCP"}],
        "resources": resources(model, estimate, defaults=defaults, gpus=gpus, storage=storage),
        **probes(defaults),
    }


def _image(gpus: GpuRequest | None, defaults: RunnerDefaults) -> str:
    return (defaults.image_for(gpus.resource) if gpus is not None else None) or defaults.image


def _runner_only(
    model: Model, base: Mapping[str, object], *, defaults: RunnerDefaults, gpus: GpuRequest | None
) -> dict[str, object]:
    """Return the fields that only runners have, and those of ``base`` that the GPUs and their settings extend."""
    settings, runtime = _gpu_pod(gpus, defaults), _runtime_class(model, defaults, gpus=gpus)
    selector = {**defaults.node_selector, **settings.node_selector, **model.spec.pod.node_selector}
    given = [*get_objects(base, "tolerations"), *settings.tolerations]
    return {
        "terminationGracePeriodSeconds": math.ceil(defaults.drain_timeout) + _KILL_MARGIN,
        "tolerations": [*given, *(each for each in _gpu_tolerations(gpus) if each not in given)],
        **_affinity(model, gpus),
        "securityContext": {
            **get_object(base, "securityContext"),
            **({"supplementalGroups": settings.supplemental_groups} if settings.supplemental_groups else {}),
        },
        **({"nodeSelector": selector} if selector else {}),
        **({"runtimeClassName": runtime} if runtime else {}),
    }


def _affinity(model: Model, gpus: GpuRequest | None) -> dict[str, object]:
    """Return the affinity of the Model with the nodes on which the GPUs suffice; that of the Model alone stays."""
    if gpus is None or not gpus.terms:
        return {}
    own = model.spec.pod.affinity or {}
    return {"affinity": with_required_terms(own, and_terms(required_node_affinity(own), gpus.terms))}


def _gpu_tolerations(gpus: GpuRequest | None) -> list[JsonObject]:
    """Return tolerations of the taints that keep pods without GPUs from nodes with GPUs.

    Their key is the resource, as Kubernetes' admission plugin ExtendedResourceToleration has it, or the vendor's
    ``gpu`` for all of its resources; GKE and NVIDIA's documentation taint nodes so.
    """
    if gpus is None:
        return []
    vendors = [f"{domain}/gpu" for domain in ("nvidia.com", "amd.com") if gpus.resource.startswith(f"{domain}/")]
    keys = dict.fromkeys([gpus.resource, *vendors])
    return [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in keys]


def _gpu_pod(gpus: GpuRequest | None, defaults: RunnerDefaults) -> GPUPodSettings:
    """Return the installation's settings for the GPUs; without GPUs there are none."""
    return defaults.gpu_pod(gpus.resource) if gpus is not None else GPUPodSettings()


def _unreachable_node_tolerations(given: Sequence[TolerationSpec], seconds: float) -> list[JsonObject]:
    """Return tolerations that evict the pod soon after its node became unreachable, unless others are given for that.

    The default of Kubernetes is five minutes, after it has waited for most of a minute before it sets the taint. No
    request is routed to the pod by then, and a runner keeps no state.
    """
    own = {toleration.get("key") for toleration in given}
    missing = [key for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable") if key not in own]
    common = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": math.ceil(seconds)}
    return [{"key": key, **common} for key in missing]


def _runtime_class(model: Model, defaults: RunnerDefaults, *, gpus: GpuRequest | None) -> str:
    """Return the RuntimeClass of the Model, or that of the installation for NVIDIA's GPUs; others need none.

    NVIDIA's container toolkit registers its runtime as ``nvidia``, which is used if nothing else is known.
    """
    if model.spec.runtime_class_name is not None:
        return model.spec.runtime_class_name
    if gpus is None or vendor_of(gpus.resource) != "nvidia":
        return ""
    return NVIDIA_RUNTIME_CLASS if defaults.runtime_class is None else defaults.runtime_class


def _escape(value: str) -> str:
    """Escape ``$``: the kubelet expands ``$(NAME)`` in values, and ``$$`` stands for a plain ``$``."""
    return value.replace("$", "$$")


def _weights_volumes(model: Model) -> list[JsonObject]:
    source = parse_source(model.spec.source)
    if not isinstance(source, ClaimSource):
        return []
    claim = {"claimName": source.claim, "readOnly": True}
    return [{"name": "weights", "persistentVolumeClaim": claim}]
