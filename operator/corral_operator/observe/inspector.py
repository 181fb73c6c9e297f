"""Inspector pods as observed: the model metadata that they report, or why they have not.

An inspector reads the GGUF header of a Model's weights before the first start of a runner and writes the metadata as
its termination message; ``reconcile.inspector_pod`` has the pod's manifest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from corral_core.base.json_fields import JsonObject, get_int, get_object, get_objects, get_str
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.contracts.source_resolution import ResolvedPins
from corral_core.contracts.termination_message import InspectionReport, decode_report
from corral_operator.observe.labels import INSPECTOR, NAME_LABEL, RESOLVER
from corral_operator.observe.objects import Meta, PodObject, parse_pod
from corral_operator.observe.pod_failures import PodFailure

DIGEST_ANNOTATION = "corral.dev/inspects"
"""Digest of the manifest that the pod was created from: an edited Model needs another pod."""

INSPECTOR_CONTAINER = "inspector"
WEIGHTS_UNREADABLE = "WeightsUnreadable"


@dataclass(frozen=True, slots=True)
class Inspector:
    """``report`` is what the pod reported, at ``finished_at`` as the kubelet wrote it; ``failure`` is why it has not.

    ``evicted``: the pod failed as a whole, since its node evicted or lost it; the kubelet does not restart it.
    """

    pod: PodObject
    digest: str
    report: InspectionReport | None
    failure: PodFailure | None
    evicted: bool
    finished_at: str = ""

    @property
    def meta(self) -> Meta:
        return self.pod.meta

    @property
    def metadata(self) -> ModelMetadata | None:
        return self.report.metadata if self.report is not None else None

    @property
    def resolved(self) -> ResolvedPins | None:
        return self.report.resolved if self.report is not None else None

    @property
    def active(self) -> bool:
        """Whether the pod starts or runs without a failure."""
        return not (self.pod.finished or self.meta.deleted or self.failure)


def is_inspector(raw: JsonObject) -> bool:
    return get_str(raw, "metadata", "labels", NAME_LABEL) in (INSPECTOR, RESOLVER)


def parse_inspector(raw: JsonObject) -> Inspector:
    statuses = get_objects(raw, "status", "containerStatuses")
    container = next((item for item in statuses if item.get("name") == INSPECTOR_CONTAINER), {})
    pod, phase = parse_pod(raw), get_str(raw, "status", "phase")
    report = None
    if phase == "Succeeded":
        report, failure = _reported(container)
    else:
        failure = _failure(pod, container)
    return Inspector(
        pod=pod,
        digest=manifest_digest(raw),
        report=report,
        failure=failure,
        evicted=phase == "Failed",
        finished_at=get_str(container, "state", "terminated", "finishedAt"),
    )


def manifest_digest(raw: JsonObject) -> str:
    return get_str(raw, "metadata", "annotations", DIGEST_ANNOTATION)


def _reported(container: JsonObject) -> tuple[InspectionReport | None, PodFailure | None]:
    try:
        return decode_report(get_str(container, "state", "terminated", "message")), None
    except ValueError as error:
        message = f"the inspector's termination message is not valid model metadata: {error}"
        return None, PodFailure(WEIGHTS_UNREADABLE, message, "Failed")


def _failure(pod: PodObject, container: JsonObject) -> PodFailure | None:
    """Return the failure from the first failed start on, also while the kubelet tries again."""
    ended = get_object(container, "lastState", "terminated")
    waiting = get_str(container, "state", "waiting", "reason")
    if get_int(ended, "exitCode") != 0 and waiting in ("", "CrashLoopBackOff"):
        message = get_str(ended, "message").strip() or get_str(ended, "reason")
        return PodFailure(WEIGHTS_UNREADABLE, f"the weights cannot be read: {message}", "Failed")
    if pod.failure is None or pod.failure.phase != "Loading":
        return pod.failure
    if pod.failure.reason == "RunnerFailed":
        return PodFailure(WEIGHTS_UNREADABLE, f"the weights cannot be read: {pod.failure.message}", "Failed")
    return replace(pod.failure, phase="Failed")
