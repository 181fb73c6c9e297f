"""What the operator keeps of the API server's objects: frozen values, parsed once when an object arrives.

Every value knows its ``version`` (resourceVersion as a number, which only grows), so a newer one is never replaced by
an older one, whichever of list, watch and answer to a write came last.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from corral_core.demand import DemandEntry, entries_of
from corral_core.errors import InvalidModel, Problem
from corral_core.facts import ModelFacts
from corral_core.jsonfields import Json, integer, mapping, objects, text
from corral_core.model import Model
from corral_core.node import Needs, needs_of, requests_of
from corral_core.quantities import Amounts
from corral_core.resource import parse_model
from corral_core.timestamps import parse_timestamp
from corral_core.weights import are_of
from corral_operator.troubles import Trouble as Trouble
from corral_operator.troubles import refusal_of, trouble_of

MODEL_LABEL = "corral.dev/model"


@dataclass(frozen=True, slots=True)
class Meta:
    """``key`` is ``namespace/name``; ``model`` the key of the Model that the object belongs to, or is."""

    key: str
    model: str
    uid: str
    version: int
    generation: int
    deleted: bool


@dataclass(frozen=True, slots=True)
class ModelObject:
    """A Model as the API server holds it. ``model`` is None when it is not valid, ``problems`` say why.

    ``facts`` are those in its status, None when there are none that can be read.
    """

    meta: Meta
    name: str
    namespace: str
    created: float
    model: Model | None
    problems: tuple[Problem, ...]
    status: Json
    demand: tuple[DemandEntry, ...]
    facts: ModelFacts | None = None

    @property
    def knows_weights(self) -> bool:
        """Whether the status tells the weights that the spec names now."""
        return self.facts is not None and self.are_of_spec(self.facts)

    def are_of_spec(self, facts: ModelFacts) -> bool:
        return self.model is not None and are_of(facts, self.model.spec)


@dataclass(frozen=True, slots=True)
class DeploymentObject:
    """``replicas`` is what is asked for; ``trouble`` says why the API server refuses to have its pods.

    ``needs`` is what each of its pods asks of a node.
    """

    meta: Meta
    replicas: int
    needs: Needs
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class ServiceObject:
    meta: Meta


@dataclass(frozen=True, slots=True)
class PodObject:
    """One runner pod. Times are Unix seconds; ``ip`` and ``node`` are empty until it has one.

    ``holds`` is what it takes of its node until it has ended; ``memory_limit`` is as it is written, empty without one.
    ``gone_by`` is when its kubelet is to have ended it, None while it is to stay.
    """

    meta: Meta
    name: str
    ip: str
    ready: bool
    ready_since: float | None
    started_at: float
    finished: bool
    scheduled: bool
    trouble: Trouble | None
    node: str = ""
    holds: Amounts = field(default_factory=dict)
    gone_by: float | None = None
    memory_limit: str = ""


def parse_model_object(raw: Json) -> ModelObject:
    model: Model | None = None
    problems: tuple[Problem, ...] = ()
    try:
        model = parse_model(raw)
    except InvalidModel as error:
        problems = error.problems
    name, namespace = text(raw, "metadata", "name"), text(raw, "metadata", "namespace")
    status = mapping(raw, "status")
    return ModelObject(
        meta=_meta(raw, f"{namespace}/{name}"),
        name=name,
        namespace=namespace,
        created=_time(raw, "metadata", "creationTimestamp") or 0.0,
        model=model,
        problems=problems,
        status=status,
        demand=entries_of(status),
        facts=_facts(status),
    )


def _facts(status: Json) -> ModelFacts | None:
    try:
        return ModelFacts.from_json(mapping(status, "model"))
    except ValueError:
        return None


def parse_deployment(raw: Json) -> DeploymentObject:
    return DeploymentObject(
        meta=_meta(raw),
        replicas=integer(raw, "spec", "replicas"),
        needs=needs_of(mapping(raw, "spec", "template", "spec")),
        trouble=refusal_of(raw),
    )


def parse_service(raw: Json) -> ServiceObject:
    return ServiceObject(meta=_meta(raw))


def parse_pod(raw: Json) -> PodObject:
    conditions = {text(item, "type"): item for item in objects(raw, "status", "conditions")}
    ready = conditions.get("Ready", {})
    is_ready = text(ready, "status") == "True"
    finished = text(raw, "status", "phase") in ("Succeeded", "Failed")
    return PodObject(
        meta=_meta(raw),
        name=text(raw, "metadata", "name"),
        ip=text(raw, "status", "podIP"),
        ready=is_ready,
        ready_since=_time(ready, "lastTransitionTime") if is_ready else None,
        started_at=_time(raw, "status", "startTime") or _time(raw, "metadata", "creationTimestamp") or 0.0,
        finished=finished,
        scheduled=bool(text(raw, "spec", "nodeName")),
        trouble=trouble_of(raw),
        node=text(raw, "spec", "nodeName"),
        holds={} if finished else requests_of(mapping(raw, "spec")),
        gone_by=_time(raw, "metadata", "deletionTimestamp"),
        memory_limit=next(
            (text(item, "resources", "limits", "memory") for item in objects(raw, "spec", "containers")), ""
        ),
    )


def _meta(raw: Json, model: str | None = None) -> Meta:
    namespace, name = text(raw, "metadata", "namespace"), text(raw, "metadata", "name")
    version = text(raw, "metadata", "resourceVersion")
    return Meta(
        key=f"{namespace}/{name}",
        model=model or f"{namespace}/{_owner(raw)}",
        uid=text(raw, "metadata", "uid"),
        version=int(version) if version.isdecimal() else 0,
        generation=integer(raw, "metadata", "generation"),
        deleted=bool(text(raw, "metadata", "deletionTimestamp")),
    )


def _owner(raw: Json) -> str:
    return text(raw, "metadata", "labels", MODEL_LABEL)


def _time(raw: Json, *path: str) -> float | None:
    return parse_timestamp(text(raw, *path))
