"""A pod's trouble with the numbers that its Model's estimate gives, and with what to change."""

from __future__ import annotations

import re
from dataclasses import replace

from corral_core.estimate import Estimate
from corral_core.quantities import CPU, MEMORY, Amounts, describe
from corral_operator.inspectors import Inspector
from corral_operator.objects import PodObject
from corral_operator.troubles import Trouble

OOM = "OOMKilled"
UNSCHEDULABLE = "Unschedulable"

_NO_CLAIM = re.compile(r'persistentvolumeclaim "([^"]*)" not found')


def explained(pod: PodObject, estimate: Estimate | None) -> Trouble | None:
    """The trouble of a runner's pod, in words that say what to do."""
    trouble = pod.trouble
    if trouble is None:
        return None
    if trouble.reason == OOM:
        return replace(trouble, message=_out_of_memory(pod, estimate))
    return _unscheduled(trouble, pod.holds) if trouble.reason == UNSCHEDULABLE else trouble


def explained_inspector(inspector: Inspector) -> Trouble | None:
    """The trouble of the pod that reads a header."""
    trouble = inspector.trouble
    if trouble is None or trouble.reason != UNSCHEDULABLE:
        return trouble
    return _unscheduled(trouble, inspector.holds)


def _out_of_memory(pod: PodObject, estimate: Estimate | None) -> str:
    limit = f"its limit of {pod.memory_limit}" if pod.memory_limit else "what its node could give"
    said = f"the runner was killed because it took more memory than {limit}"
    if estimate is None:
        return f"{said}; raise spec.pod.resources.limits.memory"
    advice = "raise spec.pod.resources.limits.memory" if pod.memory_limit else "give it a node with more memory"
    smaller = "lower spec.contextLength or spec.parallel"
    return f"{said}; by the estimate it takes {estimate}: {advice}, or {smaller}"


def _unscheduled(trouble: Trouble, asked: Amounts) -> Trouble:
    """What the scheduler says has counts of nodes; what the pod asks for is added."""
    if missing := _NO_CLAIM.search(trouble.message):
        said = f'there is no PersistentVolumeClaim "{missing[1]}" in the namespace of the Model'
        return Trouble("ClaimMissing", f"{said}: create it, or mend spec.source", "Failed")
    amounts = [describe(name, number) for name, number in asked.items() if name in (CPU, MEMORY) or "/" in name]
    return (
        replace(trouble, message=f"{trouble.message} (the pod asks for {', '.join(amounts)})") if amounts else trouble
    )
