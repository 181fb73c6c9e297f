"""What the planner sees and what it answers: plain values, the same in the operator and in local mode.

All times are Unix seconds (UTC).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from corral_core.activity import Activity
from corral_core.model import ModelSpec


@dataclass(frozen=True, slots=True)
class Replica:
    """One runner of a Model as observed. ``activity`` None means it cannot be asked, and so counts as busy."""

    name: str
    ready: bool
    terminating: bool
    started_at: float
    activity: Activity | None = None

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
    """

    key: str
    created: float
    spec: ModelSpec
    desired: int
    replicas: tuple[Replica, ...] = ()
    demand: Demand | None = None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """The installation's rules. ``max_loaded`` None means Ollama's default: 3 for each GPU, 3 without any.

    ``keep_alive`` (seconds) is for Models that give none.
    """

    keep_alive: float = 300.0
    max_loaded: int | None = None
    gpus: int = 0

    @property
    def loaded_limit(self) -> int:
        return self.max_loaded or 3 * max(self.gpus, 1)


@dataclass(frozen=True, slots=True)
class Snapshot:
    models: tuple[ModelState, ...]
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done with one Model, with a reason for a person.

    ``waiting_for_capacity`` is set when requests wait and nothing could be started for them yet.
    """

    replicas: int
    reason: str
    waiting_for_capacity: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """One Decision for every Model, and the time at which time alone changes the answer (None: never)."""

    decisions: Mapping[str, Decision]
    next: float | None = None
