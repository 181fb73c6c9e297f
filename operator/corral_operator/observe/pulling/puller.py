"""Puller pods as observed: the snapshots that they have pulled, or why they have not.

A puller ends with the ids of its snapshots as its termination message (``corral_core.contracts.pull_status``). The
kubelet restarts one that fails, with growing pauses; its partial files stay on the claim.
"""

from __future__ import annotations

from dataclasses import dataclass

from corral_core.base.json_fields import JsonObject, get_object, get_objects, get_str
from corral_core.contracts.pull_status import PullFailure, decode_pulled
from corral_operator.observe.labels import NAME_LABEL, PULLER, PULLER_CONTAINER
from corral_operator.observe.objects import Meta, PodObject, parse_pod
from corral_operator.observe.pod_failures import PodFailure, puller_failure

DIGEST_ANNOTATION = "corral.dev/pulls"
"""Digest of what the pod pulls and how: an edited Model needs another pod."""

CLAIM_ANNOTATION = "corral.dev/claim-uid"
"""UID of the claim that the pod writes to, empty for one that the operator did not create."""

AFFINITY_ANNOTATION = "corral.dev/affinity"
"""Digest of the affinity that the operator chose for the pod, empty for that of the Model."""


@dataclass(frozen=True, slots=True)
class Puller:
    """``snapshots`` are what the pod has pulled, empty before, onto the claim ``claim_uid``; ``failure`` is why it does
    not run.

    ``affinity`` is the digest of the affinity that the operator chose.
    ``running``: the container runs. ``evicted``: the pod failed as a whole; the kubelet does not restart it.
    """

    pod: PodObject
    digest: str
    claim_uid: str = ""
    snapshots: tuple[str, ...] = ()
    failure: PodFailure | None = None
    running: bool = False
    evicted: bool = False
    affinity: str = ""

    @property
    def meta(self) -> Meta:
        return self.pod.meta

    @property
    def active(self) -> bool:
        """Whether the pod starts or runs."""
        return not (self.pod.finished or self.meta.deleted or self.failure)


def is_puller(raw: JsonObject) -> bool:
    return get_str(raw, "metadata", "labels", NAME_LABEL) == PULLER


def parse_puller(raw: JsonObject) -> Puller:
    statuses = get_objects(raw, "status", "containerStatuses")
    container = next((item for item in statuses if item.get("name") == PULLER_CONTAINER), {})
    pod, phase = parse_pod(raw), get_str(raw, "status", "phase")
    running = "running" in get_object(container, "state")
    snapshots: tuple[str, ...] = ()
    failure = None
    if phase == "Succeeded":
        snapshots, failure = _pulled(container)
    elif not running:
        failure = puller_failure(container) or pod.failure
    return Puller(
        pod=pod,
        digest=get_str(raw, "metadata", "annotations", DIGEST_ANNOTATION),
        claim_uid=get_str(raw, "metadata", "annotations", CLAIM_ANNOTATION),
        snapshots=snapshots,
        failure=failure,
        running=running and not pod.finished,
        evicted=phase == "Failed",
        affinity=get_str(raw, "metadata", "annotations", AFFINITY_ANNOTATION),
    )


def _pulled(container: JsonObject) -> tuple[tuple[str, ...], PodFailure | None]:
    try:
        return decode_pulled(get_str(container, "state", "terminated", "message")), None
    except ValueError as error:
        return (), PodFailure(PullFailure.FAILED, f"the puller pod ended without a result: {error}", "Failed")
