"""``status`` of a Model: a pure function of what is observed and decided.

The reason always says what is being waited for. ``demand`` is the gateways' part and is never touched here. What a
runner told of its weights is kept while the Model is cold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral_core.estimate import Estimate
from corral_core.facts import ModelFacts
from corral_core.jsonfields import Json, mapping, objects, text
from corral_core.model import Model
from corral_core.snapshot import Decision
from corral_core.timestamps import format_seconds
from corral_operator.explain import explained, explained_inspector
from corral_operator.inspectors import Inspector
from corral_operator.manifests import selector
from corral_operator.objects import ModelObject, PodObject, Trouble
from corral_operator.observe import RunnerInfo

OURS = (
    "phase",
    "observedGeneration",
    "conditions",
    "replicas",
    "readyReplicas",
    "selector",
    "model",
    "placement",
    "expiresAt",
)
"""The fields that the operator owns."""

EXPIRY_EVERY = 60.0
"""A change of expiresAt alone is written at most this often (seconds), so that warm traffic writes nothing."""


@dataclass(frozen=True, slots=True)
class View:
    """All that the status of one Model depends on. ``decision`` is None for a Model that is not valid.

    ``pods`` are those that have not ended, the newest last. ``refusal`` says why none can be made. ``facts`` are of the
    weights that the Model names now, ``inspector`` is who reads them, ``estimate`` what a runner of them takes.
    """

    item: ModelObject
    decision: Decision | None
    refused: str | None = None
    pods: Sequence[PodObject] = ()
    info: RunnerInfo | None = None
    expires_at: float | None = None
    refusal: Trouble | None = None
    facts: ModelFacts | None = None
    inspector: Inspector | None = None
    estimate: Estimate | None = None

    @property
    def staying(self) -> list[PodObject]:
        return [pod for pod in self.pods if not pod.meta.deleted]

    @property
    def ready(self) -> int:
        return sum(1 for pod in self.staying if pod.ready)

    @property
    def trouble(self) -> Trouble | None:
        """What keeps the Model from serving: the newest runner's trouble, when no runner is without."""
        troubles = [explained(pod, self.estimate) for pod in self.staying]
        if not troubles:
            return self.refusal
        return troubles[-1] if all(troubles) else None

    @property
    def unread(self) -> bool:
        """Whether the Model waits for the header of its weights to be read, before anything can run."""
        return self.facts is None and not self.pods


@dataclass(frozen=True, slots=True)
class _Condition:
    kind: str
    true: bool
    reason: str
    message: str


def status_of(view: View, now: float) -> dict[str, object]:
    """The operator's fields; those without a value are left out."""
    old = view.item.status
    conditions = [_accepted(view)]
    facts = _facts(view)
    if conditions[0].true:
        conditions += [_inspected(view), _scheduled(view), _readiness(view)]
    optional: dict[str, object] = {
        "model": facts.to_json() if facts else dict(mapping(old, "model")),
        "placement": _placement(view.item.model, view.info) if view.info else _expected(view),
        "expiresAt": format_seconds(view.expires_at) if view.expires_at is not None else None,
    }
    return {
        "phase": _phase(view),
        "observedGeneration": view.item.meta.generation,
        "conditions": [_written(condition, view.item, now) for condition in conditions],
        "replicas": len(view.staying),
        "readyReplicas": view.ready,
        "selector": ",".join(f"{key}={value}" for key, value in sorted(selector(view.item.name).items())),
        **{name: value for name, value in optional.items() if value},
    }


def difference(old: Json, new: Json) -> set[str]:
    """The operator's fields in which two statuses differ."""
    return {name for name in OURS if old.get(name) != new.get(name)}


def _phase(view: View) -> str:
    decision, model = view.decision, view.item.model
    if decision is None or model is None or view.refused is not None:
        return "Failed"
    if decision.failure is not None and not view.pods:
        return "Failed"
    if model.spec.suspend:
        return "Draining" if view.pods else "Suspended"
    if view.unread:
        trouble = explained_inspector(view.inspector) if view.inspector else view.refusal
        return trouble.phase if trouble and trouble.phase != "Loading" else "Pending"
    if decision.draining or (decision.replicas == 0 and view.pods and not decision.waiting_for_capacity):
        return "Draining"
    if decision.replicas == 0:
        return "WaitingForCapacity" if decision.waiting_for_capacity else "Idle"
    if view.ready:
        return "Ready"
    return view.trouble.phase if view.trouble is not None else "Loading"


def _accepted(view: View) -> _Condition:
    if view.item.model is None:
        problems = "; ".join(str(problem) for problem in view.item.problems)
        return _Condition("Accepted", False, "Invalid", problems)
    if view.refused is not None:
        return _Condition("Accepted", False, "NameTaken", view.refused)
    return _Condition("Accepted", True, "Valid", "the Model is valid and its names are its own")


def _inspected(view: View) -> _Condition:
    """Whether it is known what is in the weights, so that a runner's needs are."""
    if view.facts is not None:
        known = f"{view.facts.parameter_size} {view.facts.family}, {view.facts.quantization_level}"
        takes = f"; a runner takes about {view.estimate}" if view.estimate else ""
        return _Condition("Inspected", True, "Read", known + takes)
    inspector = view.inspector
    if inspector is None and view.refusal is not None:
        return _Condition("Inspected", False, view.refusal.reason, view.refusal.message)
    if inspector is None:
        return _Condition("Inspected", False, "Waiting", "the header of its weights is to be read first")
    trouble = explained_inspector(inspector)
    if trouble is not None:
        return _Condition("Inspected", False, trouble.reason, trouble.message)
    return _Condition("Inspected", False, "Reading", "the header of its weights is being read")


def _scheduled(view: View) -> _Condition:
    decision = view.decision
    if decision is not None and decision.failure is not None:
        return _Condition("Scheduled", False, "FitsNoNode", decision.failure)
    if decision is not None and decision.waiting_for_capacity:
        return _Condition("Scheduled", False, "WaitingForCapacity", decision.reason)
    if not view.staying:
        return _Condition("Scheduled", False, "NoReplicas", decision.reason if decision else "")
    if all(pod.scheduled for pod in view.staying):
        return _Condition("Scheduled", True, "Scheduled", "every runner has a node")
    trouble = view.trouble
    if trouble is not None and trouble.phase == "WaitingForCapacity":
        return _Condition("Scheduled", False, trouble.reason, trouble.message)
    return _Condition("Scheduled", False, "Pending", "a runner waits for a node")


def _readiness(view: View) -> _Condition:
    decision, phase = view.decision, _phase(view)
    if view.unread and decision is not None and decision.failure is None:
        unknown = _inspected(view)
        return _Condition("Ready", False, unknown.reason, unknown.message)
    trouble = view.trouble
    if trouble is not None and decision is not None and decision.replicas > 0:
        return _Condition("Ready", False, trouble.reason, trouble.message)
    reason = decision.reason if decision is not None else ""
    if phase == "Ready":
        return _Condition("Ready", True, "Ready", f"{view.ready} of {len(view.staying)} runners ready")
    if phase == "Loading":
        return _Condition("Ready", False, "Loading", "a runner starts or loads the weights")
    return _Condition("Ready", False, phase, reason)


def _written(condition: _Condition, item: ModelObject, now: float) -> dict[str, object]:
    old = next((known for known in objects(item.status, "conditions") if text(known, "type") == condition.kind), {})
    status = "True" if condition.true else "False"
    same = text(old, "status") == status and text(old, "lastTransitionTime")
    return {
        "type": condition.kind,
        "status": status,
        "reason": condition.reason,
        "message": condition.message[:32768],
        "observedGeneration": item.meta.generation,
        "lastTransitionTime": text(old, "lastTransitionTime") if same else format_seconds(now),
    }


def _facts(view: View) -> ModelFacts | None:
    """What a loaded runner tells is the most there is to know, unless it still has other weights than the Model."""
    if view.info is not None and (view.facts is None or view.item.are_of_spec(view.info.facts)):
        return view.info.facts
    return view.facts


def _expected(view: View) -> dict[str, object]:
    """The placement while nothing runs: what a runner is expected to get, else what the last one told."""
    made = view.estimate
    if made is None or not made.load.generates:
        return dict(mapping(view.item.status, "placement"))
    return {
        "gpus": view.item.model.spec.gpu.count if view.item.model else 0,
        "parallel": made.load.parallel,
        "contextLength": made.load.context,
        "sizeBytes": made.engine,
        "why": f"expected: {made}",
    }


def _placement(model: Model | None, info: RunnerInfo) -> dict[str, object]:
    gpus = model.spec.gpu.count if model else 0
    devices = [{"name": name[:256], "totalBytes": total} for name, total in info.devices]
    why = f"spec.gpu.count is {gpus}" if gpus else "on the CPU: spec.gpu.count is 0"
    return {
        "gpus": gpus,
        "parallel": info.parallel,
        "contextLength": info.context_length,
        "sizeBytes": info.size_bytes,
        "vramBytes": info.vram_bytes,
        **({"devices": devices} if devices else {}),
        "why": why,
    }
