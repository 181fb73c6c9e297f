"""What the planner sees and what it answers: plain values, the same in the operator and in local mode.

All times are Unix seconds (UTC).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from corral_core.activity import Activity
from corral_core.model import ModelSpec
from corral_core.node import Needs, Node
from corral_core.quantities import Amounts


@dataclass(frozen=True, slots=True)
class Replica:
    """One runner of a Model as observed. ``activity`` None means it cannot be asked, and so counts as busy.

    ``ready_since`` is when it became ready, None while it is not or when nobody noted it. ``node`` is where it runs and
    ``holds`` what it takes there, until it is gone; where nodes are not known both are empty.
    """

    name: str
    ready: bool
    terminating: bool
    started_at: float
    activity: Activity | None = None
    ready_since: float | None = None
    node: str = ""
    holds: Amounts = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        return self.activity is not None and self.activity.loaded and not self.activity.busy


@dataclass(frozen=True, slots=True)
class Demand:
    """Requests that wait for a Model, summed over the gateways. ``oldest`` is when the oldest of them arrived."""

    waiting: int
    oldest: float


@dataclass(frozen=True, slots=True)
class ModelState:
    """A Model and all that is known of it. ``desired`` is the number of replicas asked for at present.

    ``refused`` is why the Model is not served at all (its names belong to another Model, say); None when it is.
    ``draining`` is what the last plan said: a busy Model that was picked to make room stays picked. ``place`` is the
    node that it had in mind for the Model, empty for none. ``needs`` is what a replica asks of a node, None: not known.
    ``replicas`` are those that have a node; one without holds nothing yet, and is as good as not begun.
    """

    key: str
    created: float
    spec: ModelSpec
    desired: int
    replicas: tuple[Replica, ...] = ()
    demand: Demand | None = None
    refused: str | None = None
    draining: bool = False
    needs: Needs | None = None
    place: str = ""

    live: tuple[Replica, ...] = field(init=False, repr=False, compare=False)
    """The replicas that are to stay, those that start included."""

    def __post_init__(self) -> None:
        staying = tuple(replica for replica in self.replicas if not replica.terminating)
        object.__setattr__(self, "live", staying)

    @property
    def leaving(self) -> bool:
        """Whether a replica is on its way out and still holds its memory."""
        return len(self.live) < len(self.replicas)


@dataclass(frozen=True, slots=True)
class Policy:
    """The installation's rules. ``max_loaded`` None means Ollama's default: 3 for each GPU, 3 without any.

    ``keep_alive`` (seconds) is for Models that give none. A replica that became ready less than ``min_residency``
    seconds ago and has served nobody yet is not unloaded: the request it was started for is on its way. One that nobody
    waits for and that is not ready ``load_timeout`` seconds after its start is given up.
    """

    keep_alive: float = 300.0
    max_loaded: int | None = None
    gpus: int = 0
    min_residency: float = 10.0
    load_timeout: float = 300.0

    @property
    def loaded_limit(self) -> int:
        return self.max_loaded or 3 * max(self.gpus, 1)


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node and what is taken of it, by all pods there that have not ended, whoever owns them."""

    node: Node
    taken: Amounts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``nodes`` empty: nothing is known of them, and only the number of loaded Models counts."""

    models: tuple[ModelState, ...]
    policy: Policy = field(default_factory=Policy)
    nodes: tuple[NodeState, ...] = ()


class Cause(StrEnum):
    """Why a Model gets fewer replicas than it had, where the planner itself took them."""

    EXPIRED = "expired"
    ROOM = "room"
    LIMIT = "limit"
    UNUSED = "unused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done with one Model, with a reason for a person.

    ``waiting_for_capacity`` is set when requests wait and nothing could be started for them yet. ``yields_to`` is the
    key of the Model that this one makes room for. With ``draining`` it is still busy: its replicas stay, but nobody may
    route new requests to them (they wait, and count as demand), so that it becomes idle and leaves. ``place`` is the
    node that it starts or waits for. ``failure`` is why it can never start on the nodes that there are. ``cause`` is
    what ``reason`` says, for those who count, when the Model is unloaded.
    """

    replicas: int
    reason: str
    waiting_for_capacity: bool = False
    draining: bool = False
    yields_to: str | None = None
    place: str = ""
    failure: str | None = None
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One Decision for every Model, and the time at which time alone changes the answer (None: never)."""

    decisions: Mapping[str, Decision]
    next: float | None = None
