"""Input and output of the planner as frozen values, shared by the operator and local mode.

All times are in Unix seconds (UTC).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from corral_core.base.quantities import ResourceAmounts
from corral_core.contracts.runner_status import RunnerStatus
from corral_core.model.model import ModelSpec
from corral_core.planning.node import Node, PodRequirements
from corral_core.planning.node_pools import NodePool


@dataclass(frozen=True, slots=True)
class Replica:
    """One runner of a Model as observed. With a ``status`` of None it is unreachable and counts as busy.

    ``ready_since`` is None while the runner is not ready or if the time is unknown. ``node`` is the runner's node and
    ``requests`` its resources there until it is gone; both are empty without nodes. ``progress_at`` is when its start
    was last seen to progress (``load_progress``) on the clock of the process that plans, None if unknown: since
    ``started_at``.
    """

    name: str
    ready: bool
    terminating: bool
    started_at: float
    status: RunnerStatus | None = None
    ready_since: float | None = None
    node: str = ""
    requests: ResourceAmounts = field(default_factory=dict)
    progress_at: float | None = None

    @property
    def last_progress(self) -> float:
        """When the start last progressed."""
        return self.started_at if self.progress_at is None else self.progress_at

    @property
    def idle(self) -> bool:
        return self.status is not None and self.status.loaded and not self.status.busy


@dataclass(frozen=True, slots=True)
class Demand:
    """Pending requests of a Model, summed over the gateways. ``oldest`` is the arrival of the oldest request."""

    waiting: int
    oldest: float


@dataclass(frozen=True, slots=True)
class ModelState:
    """A Model with its observed state. ``desired`` is the current number of desired replicas.

    ``rejection`` is why the Model is not served (its names belong to another Model, for example), None if it is served.
    ``not_pulled`` is why no runner can start although the requirements of one are known: the weights are not there yet.
    ``draining``, ``draining_since``, ``starting_since``, ``loaded_since`` and ``placement`` are from the last plan
    (``PlanMemory``): a busy victim stays the victim and has its deadline, a start without a node counts as stalled
    after a while, a Model has been loaded since its first runner was, whatever replaced that one, and a pending Model
    prefers its node. ``requirements`` are those of a replica on its node, None if unknown. ``replicas`` are those with
    a node; a pod without one holds no resources and counts as not started.
    """

    key: str
    created: float
    spec: ModelSpec
    desired: int
    replicas: tuple[Replica, ...] = ()
    demand: Demand | None = None
    rejection: str | None = None
    draining: bool = False
    requirements: PodRequirements | None = None
    placement: str = ""
    draining_since: float | None = None
    starting_since: float | None = None
    loaded_since: float | None = None
    not_pulled: str | None = None

    live: tuple[Replica, ...] = field(init=False, repr=False, compare=False)
    """The replicas that are not terminating, including those that start."""

    def __post_init__(self) -> None:
        staying = tuple(replica for replica in self.replicas if not replica.terminating)
        object.__setattr__(self, "live", staying)

    @property
    def terminating(self) -> bool:
        """Whether a replica is terminating and still holds its memory."""
        return len(self.live) < len(self.replicas)


@dataclass(frozen=True, slots=True)
class Policy:
    """Settings of the installation. ``max_loaded`` None means Ollama's default: 3 per GPU, 3 without GPUs.

    ``keep_alive`` (seconds) is the default of Models without one. A replica without requests is not unloaded within
    ``min_residency`` seconds after it became ready, because the request that it was started for is about to arrive. A
    start without progress for ``load_timeout`` seconds is given up when no requests are pending for it or another Model
    needs its capacity. A victim has ``eviction_timeout`` seconds to finish its requests.
    """

    keep_alive: float = 300.0
    max_loaded: int | None = None
    gpus: int = 0
    min_residency: float = 10.0
    load_timeout: float = 300.0
    eviction_timeout: float = 300.0

    @property
    def loaded_limit(self) -> int:
        return self.max_loaded or 3 * max(self.gpus, 1)


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node with the resources requested by all pods there that have not terminated."""

    node: Node
    requested: ResourceAmounts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """With ``nodes`` empty, only the limit of loaded Models is applied. ``node_pools`` can add nodes."""

    models: tuple[ModelState, ...]
    policy: Policy = field(default_factory=Policy)
    nodes: tuple[NodeState, ...] = ()
    node_pools: tuple[NodePool, ...] = ()


class ScaleDownCause(StrEnum):
    """Why the planner scales a Model down."""

    EXPIRED = "expired"
    ROOM = "room"
    LIMIT = "limit"
    UNUSED = "unused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Decision:
    """Desired state of one Model, with a readable reason.

    ``waiting_for_capacity``: requests are pending and no replica could be started yet. ``evicted_for`` is the key of
    the Model for which this one is evicted. ``draining``: the Model is a busy victim; its replicas stay, gateways queue
    new requests instead of routing them (they count as demand), and it is unloaded when idle. ``placement`` is the node
    on which it starts or for which it waits. ``failure`` is why it can never start on the existing nodes. ``cause``
    classifies the reason for metrics when the Model is scaled down.

    ``draining_since``: since when the Model drains or its replicas terminate. ``interrupt``: they had the eviction
    timeout; their remaining requests are ended now. ``age_floor``: the Model's pending requests count as if they had
    not arrived before this time, because it had its turn and others wait.
    """

    replicas: int
    reason: str
    waiting_for_capacity: bool = False
    draining: bool = False
    evicted_for: str | None = None
    placement: str = ""
    failure: str | None = None
    cause: ScaleDownCause | None = None
    draining_since: float | None = None
    interrupt: bool = False
    age_floor: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One Decision for every Model, and the time at which the plan changes without an event (None: never)."""

    decisions: Mapping[str, Decision]
    replan_at: float | None = None
