"""Messages for pod failures: the numbers of the memory estimate and what to change are added."""

from __future__ import annotations

import re
from dataclasses import replace

from corral_core.base.quantities import CPU, MEMORY, ResourceAmounts, format_amount
from corral_core.weights.memory_estimate import MemoryEstimate
from corral_operator.observe.inspector import Inspector
from corral_operator.observe.objects import PodObject
from corral_operator.observe.pod_failures import PodFailure

_OOM_KILLED = "OOMKilled"
_UNSCHEDULABLE = "Unschedulable"

_CLAIM_NOT_FOUND = re.compile(r'persistentvolumeclaim "([^"]*)" not found')


def runner_failure(pod: PodObject, estimate: MemoryEstimate | None) -> PodFailure | None:
    """Return the failure of a runner pod with a message that says what to change."""
    failure = pod.failure
    if failure is None:
        return None
    if failure.reason == _OOM_KILLED and not pod.pulling:
        return replace(failure, message=_out_of_memory(pod, estimate))
    return _unschedulable(failure, pod.requests) if failure.reason == _UNSCHEDULABLE else failure


def inspector_failure(inspector: Inspector) -> PodFailure | None:
    """Return the failure of an inspector pod with a message that says what to change."""
    failure = inspector.failure
    if failure is None or failure.reason != _UNSCHEDULABLE:
        return failure
    return _unschedulable(failure, inspector.pod.requests)


def _out_of_memory(pod: PodObject, estimate: MemoryEstimate | None) -> str:
    limit = f"its limit of {pod.memory_limit}" if pod.memory_limit else "the memory that its node had left"
    killed = f"the runner was killed because it needed more memory than {limit}"
    if estimate is None:
        return f"{killed}; raise spec.pod.resources.limits.memory"
    advice = "raise spec.pod.resources.limits.memory" if pod.memory_limit else "give it a node with more memory"
    smaller = "lower spec.contextLength or spec.parallel"
    return f"{killed}; the estimate is {estimate}: {advice}, or {smaller}"


def _unschedulable(failure: PodFailure, requests: ResourceAmounts) -> PodFailure:
    """Add the requests of the pod to the scheduler's message, which counts nodes only."""
    if missing := _CLAIM_NOT_FOUND.search(failure.message):
        message = f'the namespace of the Model has no PersistentVolumeClaim "{missing[1]}"'
        return PodFailure("ClaimMissing", f"{message}: create it, or correct spec.source", "Failed")
    amounts = [format_amount(name, number) for name, number in requests.items() if name in (CPU, MEMORY) or "/" in name]
    if not amounts:
        return failure
    return replace(failure, message=f"{failure.message} (the pod requests {', '.join(amounts)})")
