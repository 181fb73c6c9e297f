"""What to do about a Model that waits or fails, by the reasons of its conditions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from corral_core.base.json_fields import JsonObject, get_objects, get_str
from corral_kubectl.models import condition, name_of

_BY_REASON = {
    "ClaimMissing": "Create the PersistentVolumeClaim, or correct spec.source.",
    "ClaimPending": "`kubectl describe pvc` says why the claim has no volume: most often the StorageClass.",
    "CrashLoopBackOff": "The last lines of the log say why the runner ends: `kubectl corral logs {name}`.",
    "GPUFailed": "Look at the node's GPU (`nvidia-smi`, dmesg); the pod is replaced by itself.",
    "ImagePullBackOff": "Correct the image, or its pull secret: spec.pod.image, or the values of the chart.",
    "InternalError": "This is a defect of the operator: report it with the operator's log.",
    "Invalid": "Correct the fields that the condition Accepted names.",
    "LoadFailed": "The log of the runner says why: `kubectl corral logs {name}`. The next request tries again.",
    "NameConflict": "Give this Model names of its own in spec.names, or delete the other Model.",
    "NoSuitableNode": "Choose a smaller quantization, context or number of GPUs, or add a larger node.",
    "NotAccelerated": "The message says why no GPU is used; spec.gpu.offload: full makes the load fail instead.",
    "OOMKilled": "Raise spec.pod.resources.limits.memory, or lower spec.contextLength or spec.parallel.",
    "Pulling": "Wait for the pull; `kubectl corral logs -f {name}` follows it.",
    "QuotaExceeded": "Ask for a larger ResourceQuota, or unload another Model of the namespace.",
    "ResolveFailed": "Check that the source exists and that pullers reach it (proxy, credentials).",
    "RuntimeClassMissing": "Install the GPU vendor's operator, or set spec.runtimeClassName.",
    "ScaledToZero": "Remove spec.replicas, or raise it: `kubectl scale model {name} --replicas=1`.",
    "Suspended": "Set spec.suspend to false: `kubectl edit model {name}`.",
    "Unschedulable": "The message above is the scheduler's: free resources, or change spec.pod.nodeSelector.",
    "WaitingForCapacity": "Wait until the other Models are idle, unload one (`kubectl corral unload`), or add a node.",
}
_BY_PHASE = {
    "": "Is the operator running? `kubectl get pods -A -l app.kubernetes.io/component=operator`",
    "Idle": "Nothing: the next request loads it. `kubectl corral load {name}` loads it now.",
    "Loading": "Wait for the load; `kubectl corral logs -f {name}` follows it.",
    "Pending": "Wait until the header of the weights is read; `kubectl corral logs {name}` shows the inspector.",
    "Ready": "Nothing: it serves requests.",
    "Draining": "Nothing: it finishes its requests and is unloaded.",
}
_TELLING = ("Stalled", "Accepted", "Ready", "Loaded", "Scheduled", "Pulled", "Accelerated", "Inspected")


def advice(model: JsonObject, pods: Sequence[JsonObject]) -> list[str]:
    """Return sentences; at least one."""
    found = dict.fromkeys(_BY_REASON[reason] for reason in _reasons(model, pods) if reason in _BY_REASON)
    phase = get_str(model, "status", "phase")
    if not found:
        fallback = "The messages above say what is wrong; `kubectl corral logs {name}` shows the log."
        found = {_BY_PHASE.get(phase, fallback): None}
    return [sentence.format(name=name_of(model)) for sentence in found]


def _reasons(model: JsonObject, pods: Sequence[JsonObject]) -> Iterator[str]:
    """Yield the reasons of conditions that hold the Model back, then those of its pods."""
    for kind in _TELLING:
        item = condition(model, kind)
        if get_str(item, "status") == ("True" if kind == "Stalled" else "False"):
            yield get_str(item, "reason")
    if get_str(model, "status", "phase") == "WaitingForCapacity":
        yield "WaitingForCapacity"
    for pod in pods:
        for container in get_objects(pod, "status", "containerStatuses"):
            yield get_str(container, "state", "waiting", "reason")
            yield get_str(container, "lastState", "terminated", "reason")
