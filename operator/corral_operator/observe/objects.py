"""The operator's view of API objects: frozen values, parsed once when an object arrives.

Every value has a ``meta`` with the resource version as a number, by which ``object_store`` orders updates. Values of
nodes and of other pods compare without it: a kubelet's heartbeat or status update leaves them equal.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from corral_core.base.errors import MISSING, InvalidModel, Problem
from corral_core.base.json_fields import JsonObject, get_int, get_object, get_objects, get_str
from corral_core.base.quantities import ResourceAmounts
from corral_core.base.timestamps import parse_timestamp
from corral_core.contracts.demand import DemandEntry, parse_demand
from corral_core.contracts.model_metadata import ModelMetadata, metadata_in_status
from corral_core.contracts.source_resolution import RESOLVE_ANNOTATION, SourceResolution, resolution_in_status
from corral_core.model.model import Model
from corral_core.model.remote_sources import remote_sources
from corral_core.model.resource import parse_model
from corral_core.planning.dra_offers import claimed_memory, with_claimed_memory
from corral_core.planning.gpus.offers import pod_gpu_memory
from corral_core.planning.gpus.request import GpuRequest
from corral_core.planning.load_progress import CREATED, HAS_ADDRESS, ON_NODE, PULLED
from corral_core.planning.node import Node, PodRequirements, parse_node, pod_requests, pod_requirements
from corral_core.planning.node_pools import NO_POOLS, Pools
from corral_core.weights.files import matches_spec
from corral_operator.observe.labels import (
    GENERATION_ANNOTATION,
    GPU_MEMORY_ANNOTATION,
    MODEL_LABEL,
    PLACEMENT_ANNOTATION,
    PULLED_BYTES_ANNOTATION,
    PULLER_CONTAINER,
    RANGES_ANNOTATION,
    SNAPSHOTS_ANNOTATION,
    TEMPLATE_ANNOTATION,
)
from corral_operator.observe.pod_failures import (
    ContainerState,
    PodFailure,
    container_state,
    deployment_failure,
    pod_failure,
)


@dataclass(frozen=True, slots=True)
class Meta:
    """``key`` is ``namespace/name``; ``model`` is the key of the Model that the object is or belongs to.

    ``model`` is empty for nodes and for other pods.
    """

    key: str
    model: str
    uid: str
    version: int
    generation: int
    deleted: bool


@dataclass(frozen=True, slots=True)
class ModelObject:
    """A Model of the API server. ``model`` is None if the spec is invalid; ``problems`` then says why.

    ``metadata`` is the model metadata in the status, None if the status has none that can be parsed. ``remote`` are
    the sources to pull, and ``resolution`` is what the status says of those of this or an earlier spec.
    ``resolve_requested`` is the time at which a user asked for another resolution, in Unix seconds (an annotation).
    """

    meta: Meta
    name: str
    namespace: str
    created: float
    model: Model | None
    problems: tuple[Problem, ...]
    status: JsonObject
    demand: tuple[DemandEntry, ...]
    metadata: ModelMetadata | None = None
    remote: tuple[str, ...] = ()
    resolution: SourceResolution | None = None
    resolve_requested: float | None = None

    @property
    def inspected(self) -> bool:
        """Whether the status has the metadata of the weights that the spec names now, and their resolution."""
        return self.metadata is not None and self.describes(self.metadata) and (not self.remote or self.resolved)

    @property
    def resolved(self) -> bool:
        """Whether the resolution in the status is that of the remote sources that the spec names now."""
        known, model = self.resolution, self.model
        if known is None or model is None:
            return False
        return known.uri == model.spec.source and known.pins.keys() == set(self.remote)

    def describes(self, metadata: ModelMetadata) -> bool:
        """Return whether the metadata is of the weights that the spec names now."""
        return self.model is not None and matches_spec(metadata, self.model.spec)


MAX_WHY = 4096
"""Characters of the reason for a placement, which goes into the status."""


@dataclass(frozen=True, slots=True)
class DeploymentObject:
    """``replicas`` is the desired number; ``failure`` says why the API server rejects the pods.

    ``requirements`` is what each of the pods requires of a node. ``template`` identifies the pod template and
    ``model_generation`` is the generation of the Model that it was made from; empty and 0 if an older release wrote it.
    ``settled``: all pods have the present template and are available. ``snapshots`` are the pulled ones that the pods
    load, ``pulled_bytes`` is their size. ``ranges`` are the address ranges of the cluster in the template of pods that
    pull. ``mounts_image``: the pods have an image volume instead. ``gpus`` are those that were chosen for the pods,
    None on the CPU, and ``why`` is the reason. ``context_passed`` is the context length that is passed to the
    runners, 0 for none.
    """

    meta: Meta
    replicas: int
    requirements: PodRequirements
    failure: PodFailure | None = None
    template: str = ""
    model_generation: int = 0
    settled: bool = False
    snapshots: tuple[str, ...] = ()
    pulled_bytes: int = 0
    ranges: tuple[str, ...] = ()
    mounts_image: bool = False
    gpus: GpuRequest | None = None
    why: str = ""
    context_passed: int = 0


@dataclass(frozen=True, slots=True)
class ServiceObject:
    meta: Meta


@dataclass(frozen=True, slots=True)
class NetworkPolicyObject:
    meta: Meta


@dataclass(frozen=True, slots=True)
class PodObject:
    """One pod of a Model. ``ip`` and ``node`` are empty until they are assigned.

    ``created`` is Unix seconds of the API server's clock, which orders pods; ``pod_times`` has the times that can be
    compared with the present one. ``requests`` is what the pod takes of its node until it has terminated;
    ``memory_limit`` is the quantity as written, empty without one. ``deletion_grace`` is the seconds that the kubelet
    got to end the pod, None if it is not deleted. ``owner`` is the uid of the pod's controller, empty without one.
    ``pull`` is the state of the init container that pulls the weights, None for a pod without one.
    """

    meta: Meta
    name: str
    ip: str
    ready: bool
    created: float
    finished: bool
    scheduled: bool
    failure: PodFailure | None
    node: str = ""
    requests: ResourceAmounts = field(default_factory=dict)
    memory_limit: str = ""
    deletion_grace: int | None = None
    owner: str = ""
    pull: ContainerState | None = None

    @property
    def pulling(self) -> bool:
        """Whether the pod has yet to pull its weights, or does so."""
        return self.pull is not None and self.pull is not ContainerState.SUCCEEDED and not self.finished

    @property
    def stage(self) -> float:
        """The stage of its start (``load_progress``)."""
        if not self.scheduled:
            return CREATED
        if self.pull is ContainerState.SUCCEEDED:
            return PULLED
        return HAS_ADDRESS if self.ip else ON_NODE


@dataclass(frozen=True, slots=True)
class NodeObject:
    meta: Meta = field(compare=False)
    node: Node


@dataclass(frozen=True, slots=True)
class OtherPod:
    """A pod that belongs to no Model of this operator: the resources that it takes of its node."""

    meta: Meta = field(compare=False)
    node: str
    requests: ResourceAmounts


def parse_model_object(raw: JsonObject) -> ModelObject:
    model: Model | None = None
    problems: tuple[Problem, ...] = ()
    try:
        model = parse_model(raw)
    except InvalidModel as error:
        problems = error.problems
    except Exception as error:  # a defect of the parser: the Model's status reports it, and no other Model is concerned
        problems = (Problem("spec", MISSING, f"the operator cannot read it ({type(error).__name__}: {error})"[:1000]),)
    name, namespace = get_str(raw, "metadata", "name"), get_str(raw, "metadata", "namespace")
    status = get_object(raw, "status")
    return ModelObject(
        meta=parse_meta(raw, f"{namespace}/{name}"),
        name=name,
        namespace=namespace,
        created=_time(raw, "metadata", "creationTimestamp") or 0.0,
        model=model,
        problems=problems,
        status=status,
        demand=parse_demand(status),
        metadata=metadata_in_status(status),
        remote=remote_sources(model.spec) if model is not None else (),
        resolution=resolution_in_status(status),
        resolve_requested=_time(raw, "metadata", "annotations", RESOLVE_ANNOTATION),
    )


def parse_deployment(raw: JsonObject) -> DeploymentObject:
    generation = get_str(raw, "metadata", "annotations", GENERATION_ANNOTATION)
    placement = _json_object(get_str(raw, "metadata", "annotations", PLACEMENT_ANNOTATION))
    return DeploymentObject(
        meta=parse_meta(raw, model_of(raw)),
        replicas=get_int(raw, "spec", "replicas"),
        requirements=_requirements(get_object(raw, "spec", "template")),
        failure=deployment_failure(raw),
        template=get_str(raw, "metadata", "annotations", TEMPLATE_ANNOTATION),
        model_generation=_number(generation),
        settled=_settled(raw),
        snapshots=_items(get_str(raw, "metadata", "annotations", SNAPSHOTS_ANNOTATION)),
        pulled_bytes=_number(get_str(raw, "metadata", "annotations", PULLED_BYTES_ANNOTATION)),
        ranges=_items(get_str(raw, "metadata", "annotations", RANGES_ANNOTATION)),
        mounts_image=any("image" in item for item in get_objects(raw, "spec", "template", "spec", "volumes")),
        gpus=GpuRequest.from_json(get_object(placement, "gpus")),
        why=get_str(placement, "why")[:MAX_WHY],
        context_passed=max(0, get_int(placement, "contextLength")),
    )


def _requirements(template: JsonObject) -> PodRequirements:
    plain = pod_requirements(get_object(template, "spec"), gpu_memory=_gpu_memory(template))
    return with_claimed_memory(plain, claimed_memory(template))


def _items(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def _json_object(text: str) -> JsonObject:
    """Parse an annotation; empty if it holds no object."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) <= 18 else 0


def _settled(raw: JsonObject) -> bool:
    """Whether a rollout is complete (``DeploymentComplete`` in Kubernetes' ``deployment_util.go``)."""
    wanted, status = get_int(raw, "spec", "replicas"), get_object(raw, "status")
    counts = (get_int(status, name) for name in ("updatedReplicas", "replicas", "availableReplicas"))
    observed = get_int(status, "observedGeneration") >= get_int(raw, "metadata", "generation")
    return observed and all(count == wanted for count in counts)


def parse_service(raw: JsonObject) -> ServiceObject:
    return ServiceObject(meta=parse_meta(raw, model_of(raw)))


def parse_network_policy(raw: JsonObject) -> NetworkPolicyObject:
    return NetworkPolicyObject(meta=parse_meta(raw, model_of(raw)))


def parse_pod(raw: JsonObject) -> PodObject:
    conditions = {get_str(item, "type"): item for item in get_objects(raw, "status", "conditions")}
    ready = conditions.get("Ready", {})
    finished = get_str(raw, "status", "phase") in ("Succeeded", "Failed")
    return PodObject(
        meta=parse_meta(raw, model_of(raw)),
        name=get_str(raw, "metadata", "name"),
        ip=get_str(raw, "status", "podIP"),
        ready=get_str(ready, "status") == "True",
        created=_time(raw, "metadata", "creationTimestamp") or 0.0,
        finished=finished,
        scheduled=bool(get_str(raw, "spec", "nodeName")),
        failure=pod_failure(raw),
        node=get_str(raw, "spec", "nodeName"),
        requests={} if finished else _pod_amounts(raw),
        memory_limit=next(
            (get_str(item, "resources", "limits", "memory") for item in get_objects(raw, "spec", "containers")), ""
        ),
        deletion_grace=(
            get_int(raw, "metadata", "deletionGracePeriodSeconds")
            if get_str(raw, "metadata", "deletionTimestamp")
            else None
        ),
        owner=next(
            (
                get_str(item, "uid")
                for item in get_objects(raw, "metadata", "ownerReferences")
                if item.get("controller")
            ),
            "",
        ),
        pull=_pull_state(raw),
    )


def _pull_state(raw: JsonObject) -> ContainerState | None:
    if all(container.get("name") != PULLER_CONTAINER for container in get_objects(raw, "spec", "initContainers")):
        return None
    statuses = get_objects(raw, "status", "initContainerStatuses")
    return container_state(next((each for each in statuses if each.get("name") == PULLER_CONTAINER), {}))


def node_parser(pools: Pools = NO_POOLS) -> Callable[[JsonObject], NodeObject]:
    """Return the parser of nodes with the GPU memory that the pools tell."""
    return lambda raw: NodeObject(parse_meta(raw, ""), parse_node(raw, gpu_pools=pools.gpu))


def trim_node(raw: JsonObject) -> JsonObject:
    """Keep the fields that ``node_parser`` reads; a node lists all images on it, which take more memory."""
    status = {name: value for name, value in get_object(raw, "status").items() if name != "images"}
    metadata = {name: value for name, value in get_object(raw, "metadata").items() if name != "managedFields"}
    return {"metadata": metadata, "spec": get_object(raw, "spec"), "status": status}


def parse_other_pod(trimmed: JsonObject) -> OtherPod:
    """Parse what ``trim_other_pod`` keeps of a pod."""
    requests = {name: number for name, number in get_object(trimmed, "requests").items() if isinstance(number, int)}
    return OtherPod(parse_meta(trimmed, ""), get_str(trimmed, "node"), requests)


def trim_other_pod(raw: JsonObject) -> JsonObject:
    """Keep the node and the resource requests: a list of all pods of a large cluster would not fit into memory."""
    return {
        "metadata": {name: get_str(raw, "metadata", name) for name in ("namespace", "name", "uid", "resourceVersion")},
        "node": get_str(raw, "spec", "nodeName"),
        "requests": _pod_amounts(raw),
    }


def _pod_amounts(pod: JsonObject) -> dict[str, int]:
    """Return the resource requests of a pod, and the memory that it takes of shared GPUs."""
    requests = pod_requests(get_object(pod, "spec"))
    return requests | pod_gpu_memory(requests, _gpu_memory(pod)) | claimed_memory(pod)


def _gpu_memory(pod: JsonObject) -> int:
    return _number(get_str(pod, "metadata", "annotations", GPU_MEMORY_ANNOTATION))


def parse_meta(raw: JsonObject, model: str) -> Meta:
    return Meta(
        key=f"{get_str(raw, 'metadata', 'namespace')}/{get_str(raw, 'metadata', 'name')}",
        model=model,
        uid=get_str(raw, "metadata", "uid"),
        version=resource_version(get_str(raw, "metadata", "resourceVersion")),
        generation=get_int(raw, "metadata", "generation"),
        deleted=bool(get_str(raw, "metadata", "deletionTimestamp")),
    )


def resource_version(version: str) -> int:
    """Return a resource version as a number; one that is not a number sorts before all others."""
    return int(version) if version.isdecimal() else 0


def model_of(raw: JsonObject) -> str:
    """Return the key of the Model that an object belongs to, by its label."""
    return f"{get_str(raw, 'metadata', 'namespace')}/{get_str(raw, 'metadata', 'labels', MODEL_LABEL)}"


def _time(raw: JsonObject, *path: str) -> float | None:
    return parse_timestamp(get_str(raw, *path))
