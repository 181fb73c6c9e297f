"""Cluster state: the operator's one copy of API objects and runner statuses.

Invariants:
- Objects of every kind enter by ``apply``, ``delete`` and ``replace``: watch events, lists and the responses to writes.
- A stored object is only ever replaced by a newer one (``object_store``).
- What follows from several objects (demand, node usage, client names) is updated as objects change.
- A runner whose status is not known has no entry in ``runner_statuses``; the planner then treats it as busy.
- This module does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from corral_core.base.clock import steady_time
from corral_core.base.json_fields import JsonObject
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.contracts.pull_status import PullStatus
from corral_core.contracts.runner_status import RunnerStatus
from corral_core.contracts.source_resolution import SourceResolution
from corral_core.model.model import Model
from corral_core.model.name_index import LostName, NameIndex
from corral_core.model.remote_sources import pulled_in_pod
from corral_core.planning.load_progress import LoadProgress
from corral_core.planning.node import PodRequirements
from corral_core.planning.node_pools import NO_POOLS, Pools
from corral_core.planning.snapshot import NodeState
from corral_kube.unreadable import UnreadableObjects
from corral_operator.observe.demand_tracker import DemandTracker
from corral_operator.observe.dra.stores import DraStores
from corral_operator.observe.inspector import Inspector, is_inspector, parse_inspector
from corral_operator.observe.node_usage import NodeUsage, PodUsage
from corral_operator.observe.object_store import ObjectStore, Tracked
from corral_operator.observe.objects import (
    DeploymentObject,
    ModelObject,
    NetworkPolicyObject,
    NodeObject,
    OtherPod,
    PodObject,
    ServiceObject,
    node_parser,
    parse_deployment,
    parse_model_object,
    parse_network_policy,
    parse_other_pod,
    parse_pod,
    parse_service,
)
from corral_operator.observe.pod_failures import PodFailure
from corral_operator.observe.pod_times import PodTimes
from corral_operator.observe.pulling.claims import ClaimObject, claim_name, parse_claim
from corral_operator.observe.pulling.image_volumes import MountedImage, mountable_image, mounts_image
from corral_operator.observe.pulling.puller import Puller, is_puller, parse_puller
from corral_operator.observe.pulling.sources import known_source, newer_resolution
from corral_operator.observe.streams.runner_info import RunnerInfo, gpu_memory


class Kind(StrEnum):
    """Kinds of objects. PODS are runners, inspectors and pullers; OTHER_PODS are all other pods that have a node."""

    MODELS = "models"
    DEPLOYMENTS = "deployments"
    SERVICES = "services"
    NETWORK_POLICIES = "network policies"
    CLAIMS = "claims"
    PODS = "pods"
    NODES = "nodes"
    OTHER_PODS = "other pods"
    RESOURCE_SLICES = "resource slices"
    RESOURCE_CLAIMS = "resource claims"


@dataclass(frozen=True, slots=True)
class StateChange:
    """``models`` are the keys of the Models whose objects changed; the flags say which other kinds did.

    ``pods``: runners, inspectors or pullers, which ``models`` names too.
    """

    models: frozenset[str] = frozenset()
    pods: bool = False
    nodes: bool = False
    other_pods: bool = False

    def __bool__(self) -> bool:
        return bool(self.models) or self.nodes or self.other_pods


_AnyPod = PodObject | Inspector | Puller | OtherPod | None


class _ObjectInput(Protocol):
    """The side of an ``ObjectStore`` by which objects enter."""

    def record_unreadable(self, kind: str, unreadable: UnreadableObjects) -> None: ...

    def apply(self, raw: JsonObject) -> Tracked | None: ...

    def delete(self, raw: JsonObject) -> Tracked | None: ...

    def replace(self, raws: Sequence[JsonObject], version: str) -> Sequence[Tracked]: ...


class ClusterState:
    """Objects by ``namespace/name``; runner statuses and infos, and the progress of starts, by the uid of their pod.

    ``left_models`` are those for which another installation acts. ``inspection_failures`` holds the Models whose
    inspector pod the API server rejects, and ``pull_failures`` those whose claim or puller pod it rejects.
    ``pull_statuses`` are by the uid of the pod that pulls. ``starts`` are the times since when a start from zero
    replicas waits for its source, and ``start_failures`` why the last start was one with the present version
    (``reconcile.pulling.restarts``). ``shared_reports`` are inspectors of other Models of the same content
    (``reconcile.shared_inspections``). ``shared_namespaces`` are those whose Models have plain names for every client,
    empty for all. ``pools`` are the node pools that the installation declares. ``unreadable`` records the objects that
    are skipped. Used on one event loop.
    """

    def __init__(
        self,
        *,
        shared_namespaces: Sequence[str] = (),
        pools: Pools = NO_POOLS,
        clock: Callable[[], float] = steady_time,
        unreadable: UnreadableObjects | None = None,
    ) -> None:
        self._clock = clock
        self.pools = pools
        self.demand_tracker = DemandTracker()
        self.pod_times = PodTimes(clock)
        self._usage = NodeUsage()
        self._names = NameIndex(shared_namespaces)
        self._renamed: set[str] = set()  # keys of Models whose names another Model's change took or returned
        self._reported_lost: dict[str, tuple[LostName, ...]] = {}
        self._listed: set[Kind] = set()
        self.models: ObjectStore[ModelObject] = ObjectStore(parse_model_object, self._model_changed)
        self.deployments: ObjectStore[DeploymentObject] = ObjectStore(parse_deployment)
        self.services: ObjectStore[ServiceObject] = ObjectStore(parse_service)
        self.network_policies: ObjectStore[NetworkPolicyObject] = ObjectStore(parse_network_policy)
        self.pods: ObjectStore[PodObject] = ObjectStore(parse_pod, self._pod_changed)
        self.inspectors: ObjectStore[Inspector] = ObjectStore(parse_inspector, self._pod_changed)
        self.pullers: ObjectStore[Puller] = ObjectStore(parse_puller, self._pod_changed)
        self.claims: ObjectStore[ClaimObject] = ObjectStore(parse_claim)
        self._inputs: Mapping[Kind, _ObjectInput] = {
            Kind.MODELS: self.models,
            Kind.DEPLOYMENTS: self.deployments,
            Kind.SERVICES: self.services,
            Kind.NETWORK_POLICIES: self.network_policies,
            Kind.CLAIMS: self.claims,
            Kind.NODES: ObjectStore[NodeObject](node_parser(pools), self._node_changed),
            Kind.OTHER_PODS: ObjectStore[OtherPod](parse_other_pod, self._pod_changed),
            Kind.RESOURCE_SLICES: (dra := DraStores(self._usage)).slices,
            Kind.RESOURCE_CLAIMS: dra.claims,
        }
        self._begin_reports()

    def _begin_reports(self) -> None:
        """Hold nothing of what is not an API object of its own: it is observed or decided in this process."""
        self.runner_statuses: dict[str, RunnerStatus] = {}
        self.load_progress: dict[str, LoadProgress] = {}
        self.runner_infos: dict[str, RunnerInfo] = {}
        self.left_models: set[str] = set()
        self.inspection_failures: dict[str, PodFailure] = {}
        self.shared_reports: dict[str, Inspector] = {}
        self.pull_statuses: dict[str, PullStatus] = {}
        self.pull_failures: dict[str, PodFailure] = {}
        self.starts: dict[str, float] = {}
        self.start_failures: dict[str, PodFailure] = {}

    def apply(self, kind: Kind, raw: JsonObject) -> StateChange:
        """Store an object that a watch or a write returned."""
        item = self._input(kind, raw).apply(raw)
        return self._change(kind, [item] if item is not None else [])

    def delete(self, kind: Kind, raw: JsonObject) -> StateChange:
        """Remove an object that a watch reported as deleted."""
        item = self._input(kind, raw).delete(raw)
        return self._change(kind, [item] if item is not None else [])

    def replace(self, kind: Kind, raws: Sequence[JsonObject], version: str) -> StateChange:
        """Store a complete list of a kind as of a resource version."""
        if kind is Kind.PODS:
            changed: list[Tracked] = []
            for store in (self.pods, self.inspectors, self.pullers):
                changed += store.replace([raw for raw in raws if self._pod_store(raw) is store], version)
        else:
            changed = [*self._inputs[kind].replace(raws, version)]
        self._listed.add(kind)
        if kind is Kind.MODELS:
            self._renamed |= self._with_other_owners()
        return self._change(kind, changed)

    def metadata(self, model: str) -> ModelMetadata | None:
        """Return the metadata of the weights that the Model names: from its status, a runner or an inspector."""
        item = self.models.get(model)
        if item is None:
            return None
        newer = newer_resolution(item, self._reporting(model))
        known = newer is None or item.resolution is None or newer.pins == item.resolution.pins
        if item.inspected and (known or self.update(model) is not None):
            return item.metadata
        infos = [self.runner_infos.get(pod.meta.uid) for pod in self.pods.of_model(model)]
        reported = [each.metadata for each in self._reporting(model) if each.metadata is not None]
        reported += [info.metadata for info in infos if info is not None]
        return next((metadata for metadata in reported if item.describes(metadata)), None)

    def inspector(self, model: str) -> Inspector | None:
        """Return the inspector of the Model that is not being deleted."""
        return next((each for each in self.inspectors.of_model(model) if not each.meta.deleted), None)

    def _reporting(self, model: str) -> Sequence[Inspector]:
        """Return the inspectors whose reports count for the Model."""
        shared = self.shared_reports.get(model)
        return [*self.inspectors.of_model(model), *((shared,) if shared is not None else ())]

    def puller(self, model: str) -> Puller | None:
        """Return the puller of the Model that is not being deleted."""
        return next((each for each in self.pullers.of_model(model) if not each.meta.deleted), None)

    def source(self, model: str) -> SourceResolution | None:
        """Return what the remote sources of the present spec were resolved to; with snapshots if they are pulled."""
        item = self.models.get(model)
        if item is None or item.model is None or not item.remote:
            return None
        claim = self.claims.get(f"{item.namespace}/{claim_name(item.model)}")
        return known_source(
            item,
            self._reporting(model),
            self.pullers.of_model(model),
            claim=claim,
            image_volumes=self._image_volumes(item),
        )

    def update(self, model: str) -> SourceResolution | None:
        """Return the new version that is to be pulled beside the pulled one of ``source``, None without one."""
        item, source = self.models.get(model), self.source(model)
        newer = newer_resolution(item, self._reporting(model)) if item is not None else None
        return newer if newer is not None and source is not None and newer.pins != source.pins else None

    def pulled(self, model: str) -> bool:
        """Return whether nothing is left to pull before a runner can start."""
        item = self.models.get(model)
        if item is None or not item.remote:
            return True
        source = self.source(model)
        in_pod = item.model is not None and pulled_in_pod(item.model.spec)
        return source is not None and (in_pod or bool(source.snapshots) or self.mounted_image(model) is not None)

    def mounted_image(self, model: str) -> MountedImage | None:
        """Return the image that runners mount instead of a store, None if the sources of the Model are pulled."""
        item = self.models.get(model)
        if item is None or item.model is None or not self._image_volumes(item):
            return None
        return mountable_image(item.model, self.source(model))

    def _image_volumes(self, item: ModelObject) -> bool:
        key = item.meta.key
        return mounts_image(item, self.deployments.of_model(key), self.nodes(), requirements=self.requirements(key))

    def forget_runners(self) -> None:
        """Drop the statuses and infos of runners whose pods no longer exist."""
        alive = {pod.meta.uid for pod in self.pods.all()}
        by_uid: tuple[MutableMapping[str, Any], ...] = (self.runner_statuses, self.runner_infos, self.load_progress)
        for reported in by_uid:
            for uid in reported.keys() - alive:
                del reported[uid]
        pulling = {pod.meta.uid for pod in self.pods.all() if pod.pulling}
        for uid in self.pull_statuses.keys() - pulling - {puller.meta.uid for puller in self.pullers.all()}:
            del self.pull_statuses[uid]

    def set_runner_status(self, runner: str, status: RunnerStatus | None) -> None:
        """Record the status of a runner (its pod's uid); None: it is unreachable."""
        if status is None:
            self.runner_statuses.pop(runner, None)
        else:
            self.runner_statuses[runner] = status
        if runner in self.load_progress:
            self.load_progress[runner].observe_status(status, self._clock())

    def set_runner_info(self, model: str, runner: str, info: RunnerInfo) -> bool:
        """Record what a runner (its pod's uid) reports of its model; return whether it tells something of its node."""
        self.runner_infos[runner] = info
        pod = next((pod for pod in self.pods.of_model(model) if pod.meta.uid == runner), None)
        known = _valid(self.models.get(model))
        memory = gpu_memory(info, pod, known) if pod is not None and known is not None else None
        return pod is not None and memory is not None and self._usage.set_gpu_memory(pod.node, *memory)

    def set_pull_status(self, pod: str, status: PullStatus) -> None:
        """Record the progress of the pull in a pod (its uid)."""
        self.pull_statuses[pod] = status
        if pod in self.load_progress:
            self.load_progress[pod].observe_pull(status, self._clock())

    def valid_models(self) -> list[Model]:
        """Return the Models that are valid and not being deleted."""
        return [model for model in map(_valid, self.models.all()) if model is not None]

    def lost_names(self, model: str) -> tuple[LostName, ...]:
        """Return the names of a valid Model that address another one, for its status."""
        lost = self._names.lost(model)
        if lost:
            self._reported_lost[model] = lost
        else:
            self._reported_lost.pop(model, None)
        return lost

    def client_names(self, model: str) -> tuple[str, ...]:
        """Return the names by which every client reaches a valid Model."""
        return self._names.displayed_names(model)

    def replacement_blocked(self, model: str) -> bool:
        """Return whether a new runner of the Model cannot be scheduled while another one, maybe its old one, runs."""
        staying = [pod for pod in self.pods.of_model(model) if not pod.meta.deleted and not pod.finished]
        unscheduled = [pod for pod in staying if not pod.scheduled and pod.failure is not None]
        return bool(unscheduled) and any(pod.scheduled for pod in staying)

    def requirements(self, model: str) -> PodRequirements | None:
        """Return what a runner of the Model requires of a node, by its Deployment; None without one."""
        return next((known.requirements for known in self.deployments.of_model(model)), None)

    def nodes(self) -> tuple[NodeState, ...]:
        """Return the nodes with the resources requested on them, by name; none before nodes and pods were listed."""
        return self._usage.states() if self._nodes_known else ()

    def gpus(self) -> int:
        """Return the number of allocatable GPUs of the nodes; 0 before nodes were listed."""
        return self._usage.gpus() if self._nodes_known else 0

    def node_alive(self, name: str) -> bool | None:
        """Return whether the node exists and its kubelet reports; None before nodes were listed."""
        return self._usage.is_alive(name) if self._nodes_known else None

    @property
    def _nodes_known(self) -> bool:
        return {Kind.NODES, Kind.OTHER_PODS} <= self._listed

    def _input(self, kind: Kind, raw: JsonObject) -> _ObjectInput:
        return self._pod_store(raw) if kind is Kind.PODS else self._inputs[kind]

    def _pod_store(self, raw: JsonObject) -> ObjectStore[PodObject] | ObjectStore[Inspector] | ObjectStore[Puller]:
        if is_puller(raw):
            return self.pullers
        return self.inspectors if is_inspector(raw) else self.pods

    def _with_other_owners(self) -> set[str]:
        """Return the Models whose status names a past owner of a lost name; at each list, because they may be many."""
        changed = {model for model, lost in self._reported_lost.items() if self._names.lost(model) != lost}
        for model in changed:
            del self._reported_lost[model]
        return changed

    def _change(self, kind: Kind, changed: Sequence[Tracked]) -> StateChange:
        if kind in (Kind.NODES, Kind.RESOURCE_SLICES):
            return StateChange(nodes=bool(changed))
        if kind in (Kind.OTHER_PODS, Kind.RESOURCE_CLAIMS):
            return StateChange(other_pods=bool(changed))
        models, self._renamed = {item.meta.model for item in changed} | self._renamed, set()
        return StateChange(frozenset(models), pods=kind is Kind.PODS and bool(changed))

    def _model_changed(self, before: ModelObject | None, after: ModelObject | None) -> None:
        known, model = _valid(before), _valid(after)
        if model is not None:
            self._renamed |= self._names.put(model)
        elif known is not None:
            self._renamed |= self._names.remove(known.key)
        if after is not None:
            initial = Kind.MODELS not in self._listed
            self.demand_tracker.update(after.meta.key, after.demand, now=self._clock(), initial=initial)
        elif before is not None:
            self.demand_tracker.update(before.meta.key, (), now=self._clock())

    def _node_changed(self, before: NodeObject | None, after: NodeObject | None) -> None:
        for item in (before, after):
            if item is not None:
                self._usage.set_node(item.node.name, item.node if item is after else None)

    def _pod_changed(self, before: _AnyPod, after: _AnyPod) -> None:
        self._usage.update_pod(_pod_usage(before), _pod_usage(after))
        self.pod_times.update(_own_pod(before), _own_pod(after))
        if isinstance(after, PodObject):
            now = self._clock()
            known = self.load_progress.get(after.meta.uid) or self.load_progress.setdefault(
                after.meta.uid, LoadProgress(now)
            )
            known.observe_stage(after.stage, now)


def _own_pod(pod: _AnyPod) -> PodObject | None:
    """Return a pod of a Model, None for any other one."""
    if isinstance(pod, Inspector | Puller):
        return pod.pod
    return pod if isinstance(pod, PodObject) else None


def _pod_usage(pod: _AnyPod) -> PodUsage | None:
    if pod is None:
        return None
    holder = pod.pod if isinstance(pod, Inspector | Puller) else pod
    return PodUsage(holder.node, holder.requests)


def _valid(item: ModelObject | None) -> Model | None:
    return None if item is None or item.meta.deleted else item.model
