"""Everything the operator knows, in one place: what was heard of objects, runners and gateways, and the planner's view.

Nothing here does I/O. What is known is only ever replaced by something newer; a runner of which nothing was heard has
no activity, and the planner then takes it for busy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from corral_core.activity import Activity
from corral_core.facts import ModelFacts
from corral_core.jsonfields import Json
from corral_core.model import Model
from corral_core.node import Needs
from corral_core.resource import claims
from corral_core.snapshot import Demand, ModelState, Policy, Replica, Snapshot
from corral_operator.cache import Cache, Tracked
from corral_operator.inspectors import Inspector, is_inspector, parse_inspector
from corral_operator.ledger import DemandLedger
from corral_operator.nodes import Held, NodeLedger
from corral_operator.objects import (
    DeploymentObject,
    ModelObject,
    PodObject,
    ServiceObject,
    parse_deployment,
    parse_model_object,
    parse_pod,
    parse_service,
)
from corral_operator.troubles import Trouble

DELETED = "DELETED"
"""The type of a watch event that says that an object is gone."""


@dataclass(frozen=True, slots=True)
class RunnerInfo:
    """What a loaded runner says of its model: the facts, its slots, its context (tokens), and the bytes it takes.

    ``devices`` are its GPUs: name and bytes of memory.
    """

    facts: ModelFacts
    parallel: int
    context_length: int
    size_bytes: int = 0
    vram_bytes: int = 0
    devices: tuple[tuple[str, int], ...] = ()


_T = TypeVar("_T", bound=Tracked)

Places = Mapping[str, str]
"""Models to nodes."""

_NOWHERE: Places = {}


class Store:
    """``models``, ``deployments``, ``services`` and ``pods`` by ``namespace/name``; runners by their pod's uid.

    ``nodes`` counts these pods by itself, and others' as it is told of them. ``refusals`` are of the Models whose
    inspector the API server does not let be made.
    """

    def __init__(self) -> None:
        self.models: Cache[ModelObject] = Cache()
        self.deployments: Cache[DeploymentObject] = Cache()
        self.services: Cache[ServiceObject] = Cache()
        self.nodes = NodeLedger()
        self.pods: Cache[PodObject] = Cache(self._pod_changed)
        self.inspectors: Cache[Inspector] = Cache(self._pod_changed)
        self.activities: dict[str, Activity] = {}
        self.infos: dict[str, RunnerInfo] = {}
        self.refusals: dict[str, Trouble] = {}
        self._ledger = DemandLedger()
        self._claims: dict[str, str] | None = None

    def heard_model(self, raw: Json, *, kind: str, now: float) -> str | None:
        """Takes in a watch event; returns the key of the Model that changed, None when it is no news."""
        item = parse_model_object(raw)
        known = self.models.get(item.meta.key)
        if not _take(self.models, item, kind):
            return None
        if kind == DELETED or known is None or _valid(known) != _valid(item):
            self._claims = None
        self._ledger.note(item.meta.key, () if kind == DELETED else item.demand, now=now)
        return item.meta.key

    def heard_deployment(self, raw: Json, *, kind: str) -> str | None:
        return _heard(self.deployments, parse_deployment(raw), kind)

    def heard_service(self, raw: Json, *, kind: str) -> str | None:
        return _heard(self.services, parse_service(raw), kind)

    def heard_pod(self, raw: Json, *, kind: str) -> str | None:
        if is_inspector(raw):
            return _heard(self.inspectors, parse_inspector(raw), kind)
        return _heard(self.pods, parse_pod(raw), kind)

    def listed_pods(self, raws: Iterable[Json], version: int) -> set[str]:
        """Takes in a whole list, of runners and inspectors."""
        listed = list(raws)
        runners = [parse_pod(raw) for raw in listed if not is_inspector(raw)]
        inspectors = [parse_inspector(raw) for raw in listed if is_inspector(raw)]
        return self.pods.relist(runners, version) | self.inspectors.relist(inspectors, version)

    def facts(self, model: str) -> ModelFacts | None:
        """What is known of the weights that the Model names now: by its status, else by who has just told."""
        item = self.models.get(model)
        if item is None or item.knows_weights:
            return item.facts if item else None
        runners = [self.infos.get(pod.meta.uid) for pod in self.pods.of_model(model)]
        told = [info.facts for info in runners if info is not None]
        told += [inspector.facts for inspector in self.inspectors.of_model(model) if inspector.facts is not None]
        return next((facts for facts in told if facts and item.are_of_spec(facts)), None)

    def inspector(self, model: str) -> Inspector | None:
        """The pod that reads the Model's weights, if there is one."""
        return next((each for each in self.inspectors.of_model(model) if not each.meta.deleted), None)

    def listed_models(self, raws: Iterable[Json], version: int, *, now: float, first: bool) -> set[str]:
        """Takes in a whole list; ``first`` when it is the first one of this process."""
        items = [parse_model_object(raw) for raw in raws]
        changed = self.models.relist(items, version)
        self._claims = None
        for key in changed:
            known = self.models.get(key)
            self._ledger.note(key, known.demand if known else (), now=now, found=first)
        return changed

    def _pod_changed(self, before: PodObject | Inspector | None, after: PodObject | Inspector | None) -> None:
        self.nodes.pod(_held(before), _held(after))

    def forget_runners(self) -> None:
        """Drops what was said by runners whose pods are gone."""
        alive = {pod.meta.uid for pod in self.pods.all()}
        for told in (self.activities, self.infos):
            for uid in told.keys() - alive:
                del told[uid]

    def abandoned_demand(self, now: float, *, after: float) -> list[tuple[str, str]]:
        """(Model, gateway) of entries that no gateway has renewed for ``after`` seconds."""
        return self._ledger.abandoned(now, after=after)

    def demand(self, model: str, now: float) -> Demand | None:
        return self._ledger.demand(model, now)

    def next_demand_end(self, now: float) -> float | None:
        return self._ledger.next_end(now)

    def lost_name(self, model: str) -> str | None:
        """Why the Model is not served: an older one has a name of its own. None when all of its names are its own."""
        if self._claims is None:
            self._claims = dict(claims([model for model in map(_valid, self.models.all()) if model is not None]))
        return self._claims.get(model)

    def cramped(self, model: str) -> bool:
        """Whether a runner of the Model finds no room while another one, which it may be to replace, has a node."""
        staying = [pod for pod in self.pods.of_model(model) if not pod.meta.deleted and not pod.finished]
        refused = [pod for pod in staying if not pod.scheduled and pod.trouble is not None]
        return bool(refused) and any(pod.scheduled for pod in staying)

    def needs(self, model: str) -> Needs | None:
        """What a runner of the Model asks of a node, by its Deployment; None while there is none."""
        return next((known.needs for known in self.deployments.of_model(model)), None)

    def snapshot(
        self, policy: Policy, now: float, draining: Callable[[str], bool], places: Places = _NOWHERE
    ) -> Snapshot:
        """The planner's view. The last plan let those drain whom ``draining`` tells, and chose these ``places``."""
        valid = [model for model in map(_valid, self.models.all()) if model is not None]
        states = (self._state(model, now, draining(model.key), place=places.get(model.key, "")) for model in valid)
        nodes = self.nodes.states()
        return Snapshot(tuple(states), replace(policy, gpus=self.nodes.gpus()) if nodes else policy, nodes)

    def _state(self, model: Model, now: float, draining: bool, *, place: str) -> ModelState:
        deployments = self.deployments.of_model(model.key)
        # A pod without a node holds nothing yet, and need not be waited for when nobody asks any more.
        pods = [pod for pod in self.pods.of_model(model.key) if pod.scheduled and not pod.finished]
        return ModelState(
            key=model.key,
            created=model.created,
            spec=model.spec,
            desired=sum(deployment.replicas for deployment in deployments if not deployment.meta.deleted),
            replicas=tuple(self._replica(pod) for pod in pods),
            demand=self.demand(model.key, now),
            refused=self.lost_name(model.key) or (None if pods else self._unknown(model.key)),
            draining=draining,
            needs=self.needs(model.key),
            place=place,
        )

    def _unknown(self, model: str) -> str | None:
        """Why the Model cannot be started yet, while nothing is known of its weights; None when it is."""
        if self.facts(model) is not None:
            return None
        inspector = self.inspector(model)
        if inspector is None and model in self.refusals:
            return self.refusals[model].message
        if inspector is None:
            return "the header of its weights is to be read first"
        return inspector.trouble.message if inspector.trouble else "the header of its weights is being read"

    def _replica(self, pod: PodObject) -> Replica:
        return Replica(
            name=pod.name,
            ready=pod.ready,
            terminating=pod.meta.deleted,
            started_at=pod.started_at,
            activity=self.activities.get(pod.meta.uid),
            ready_since=pod.ready_since,
            node=pod.node,
            holds=pod.holds,
        )


def _held(pod: PodObject | Inspector | None) -> Held | None:
    return Held(pod.node, pod.holds) if pod is not None else None


def _valid(item: ModelObject) -> Model | None:
    return None if item.meta.deleted else item.model


def _take(cache: Cache[_T], item: _T, kind: str) -> bool:
    return cache.drop(item) if kind == DELETED else cache.put(item)


def _heard(cache: Cache[_T], item: _T, kind: str) -> str | None:
    return item.meta.model if _take(cache, item, kind) else None
