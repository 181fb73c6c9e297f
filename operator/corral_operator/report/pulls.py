"""Pull of a Model's remote sources in its status: pure functions of its view.

The numbers of a message change with every write of the status, so the writer bounds how often it writes them
(``status_writer``).
"""

from __future__ import annotations

from corral_core.base.durations import format_duration
from corral_core.base.quantities import format_bytes
from corral_core.contracts.pull_status import PullStatus
from corral_core.contracts.source_resolution import SourceResolution
from corral_operator.observe.pod_failures import PodFailure
from corral_operator.report.view import PullView

PULLED, UPDATING, UPDATE_FAILED, RESOLVE_FAILED = "Pulled", "Updating", "UpdateFailed", "ResolveFailed"
"""Reasons of the condition Pulled while it is true."""

NOT_STARTED = "NotStarted"
"""Reason of the condition Pulled of a Model whose sources are pulled later."""

_UNBOUND = "unbound"
_SHOWN_PIN = 71
"""Characters of a pin in a message: those of a digest."""


def pull_phase(pull: PullView) -> str:
    """Return the phase of a Model without runners whose sources are resolved and not pulled."""
    failure = pull_failure(pull)
    if failure is not None and failure.phase != "Loading":
        return failure.phase
    return "Pulling" if pull.wanted else "Idle"


def pull_state(pull: PullView) -> tuple[bool, str, str]:
    """Return whether the condition Pulled is true, its reason and its message.

    It is true while a version is pulled; the reason then is Pulled, Updating, UpdateFailed or ResolveFailed.
    """
    if pull.source is None:
        return False, "Resolving", "the source must be resolved first"
    if not pull.pulled:
        return False, *_not_pulled(pull, pull.source)
    where = "in the volume of each runner pod" if pull.in_pods else f"on the claim {pull.source.claim}"
    present = f"{format_bytes(pull.source.total)} are {where}"
    if pull.mounted is not None:
        present = f"runners mount the image {pull.mounted.reference}, which the kubelet pulls first"
    if pull.update is not None:
        reason = UPDATING if pull_failure(pull) is None else UPDATE_FAILED
        _, message = _not_pulled(pull, pull.update)
        when = "; before the start" if pull.holds_start else " and serve until"
        return True, reason, f"{present}{when} the new version {shown_pin(pull.update)} is pulled: {message}"
    if pull.not_updated is not None:
        return True, pull.not_updated.reason, f"{present}; {pull.not_updated.message}"
    return True, PULLED if pull.mounted is None else "ImageVolume", present


def shown_pin(source: SourceResolution) -> str:
    """Return the pin of the weights for a message."""
    return source.pins.get(source.uri, "")[:_SHOWN_PIN]


def _not_pulled(pull: PullView, target: SourceResolution) -> tuple[str, str]:
    """Return reason and message of a version that is not pulled."""
    failure = pull_failure(pull)
    if failure is not None:
        return failure.reason, failure.message
    if not pull.wanted:
        return NOT_STARTED, pull.postponed
    puller = pull.puller
    if puller is None:
        return "Pending", "a puller pod is created when fewer pullers run (CORRAL_PULLERS)"
    if not puller.running:
        return "Pending", f"the pod {puller.pod.name} that pulls the weights starts"
    return "Pulling", progress_text(pull.status, target.total)


def pull_failure(pull: PullView) -> PodFailure | None:
    """Return why the sources are not pulled, with a message that says what to change."""
    failure = pull.rejected or (pull.puller.failure if pull.puller is not None else None)
    if failure is None or _UNBOUND not in failure.message:
        return failure
    advice = "the claim has no volume: set spec.cache.storageClassName, or give the cluster a default StorageClass"
    return PodFailure("ClaimPending", f"{advice} ({failure.message})", failure.phase)


def pull_fields(pull: PullView) -> dict[str, object]:
    """Return ``status.pull`` while a puller runs, else nothing."""
    status = pull.status
    if (pull.pulled and pull.update is None) or status is None or pull.puller is None or not pull.puller.running:
        return {}
    optional = {"totalBytes": status.total, "secondsLeft": status.seconds_left}
    return {
        "completed": f"{status.percent}%" if status.percent is not None else format_bytes(status.completed),
        "completedBytes": status.completed,
        "rate": round(status.rate),
        **{name: value for name, value in optional.items() if value is not None},
    }


def progress_text(status: PullStatus | None, total: int) -> str:
    """Return the progress for people: part, size, rate and time left."""
    if status is None:
        return f"pulling {format_bytes(total)}" if total else "pulling"
    if status.percent is None or status.total is None:
        done = f"pulling: {format_bytes(status.completed)}"
    else:
        done = f"pulling: {status.percent} % of {format_bytes(status.total)}"
    left = "" if status.seconds_left is None else f", {format_duration(status.seconds_left)} left"
    return f"{done}, {format_bytes(round(status.rate))}/s{left}"
