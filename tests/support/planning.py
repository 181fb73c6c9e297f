"""Short ways to write the planner's values in tests. NOW is the moment at which they plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from corral_core.activity import Activity
from corral_core.model import ModelSpec
from corral_core.node import Needs, Node, Taint
from corral_core.planner import plan
from corral_core.quantities import total
from corral_core.snapshot import Decision, Demand, ModelState, NodeState, Plan, Policy, Replica, Snapshot

NOW = 1_000_000.0


def spec(**fields: object) -> ModelSpec:
    return ModelSpec.model_validate({"source": "file:///weights.gguf"} | fields, by_name=True)


def activity(
    *,
    in_flight: int = 0,
    loaded: bool = True,
    keep_alive: float = 300.0,
    expires_at: float | None = NOW + 300,
    last_end: float | None = NOW - 1,
) -> Activity:
    """A runner's word; idle and used before, unless told."""
    return Activity(
        in_flight=in_flight,
        waiting=0,
        slots=4,
        loaded=loaded,
        draining=False,
        keep_alive=keep_alive,
        last_end=last_end,
        expires_at=None if in_flight else expires_at,
        size_bytes=1,
        vram_bytes=0,
        context_length=4096,
    )


def replica(said: Activity | None = None, *, ready: bool = True, terminating: bool = False) -> Replica:
    return Replica("r", ready, terminating, NOW - 60, said, NOW - 50 if ready else None)


def cold(key: str, *, waiting_since: float | None = None, **fields: object) -> ModelState:
    """A Model at zero; ``waiting_since`` in seconds before NOW."""
    return ModelState(key, 0.0, spec(**fields), 0, demand=_demand(waiting_since))


def warm(
    key: str,
    said: Activity | None = None,
    *,
    waiting_since: float | None = None,
    draining: bool = False,
    **fields: object,
) -> ModelState:
    """A Model with one ready replica, idle unless ``said`` says otherwise."""
    replicas = (replica(said if said is not None else activity()),)
    return ModelState(key, 0.0, spec(**fields), 1, replicas, _demand(waiting_since), draining=draining)


def loading(key: str, *, waiting_since: float | None = None) -> ModelState:
    said = activity(loaded=False, expires_at=None, last_end=None)
    return ModelState(key, 0.0, spec(), 1, (replica(said, ready=False),), _demand(waiting_since))


def leaving(key: str, *, waiting_since: float | None = None) -> ModelState:
    """A Model that was scaled down and whose replica has not gone yet."""
    return ModelState(key, 0.0, spec(), 0, (replica(activity(), terminating=True),), _demand(waiting_since))


def _demand(waiting_since: float | None) -> Demand | None:
    return None if waiting_since is None else Demand(1, NOW - waiting_since)


def plan_for(*models: ModelState, limit: int = 3, now: float = NOW) -> Plan:
    return plan(Snapshot(models, Policy(max_loaded=limit)), now)


def decide(model: ModelState, *others: ModelState, limit: int = 3, now: float = NOW) -> Decision:
    """The Decision for the first Model."""
    return plan_for(model, *others, limit=limit, now=now).decisions[model.key]


def node(
    name: str, memory: int = 0, *, labels: dict[str, str] | None = None, taints: tuple[Taint, ...] = (), **more: int
) -> Node:
    """A ready node; ``more`` are further resources."""
    allocatable = {"memory": memory, "pods": 110, **more}
    return Node(name, allocatable, labels or {}, allocatable, taints)


def needs(memory: int = 0, **more: int) -> Needs:
    return Needs(tuple(sorted({"memory": memory, "pods": 1, **more}.items())))


def sized(model: ModelState, memory: int, *, on: str = "", place: str = "", **more: int) -> ModelState:
    """The Model with needs; its replicas are on the node and hold as much."""
    wanted = needs(memory, **more)
    there = tuple(replace(one, node=on, holds=dict(wanted.amounts)) for one in model.replicas)
    return replace(model, needs=wanted, replicas=there, place=place)


def plan_on(nodes: Iterable[Node], *models: ModelState, others: dict[str, int] | None = None, limit: int = 9) -> Plan:
    """The plan on these nodes, of which the Models' replicas, and ``others``' memory, are taken."""
    states = []
    for each in nodes:
        held = [one.holds for model in models for one in model.replicas if one.node == each.name]
        states.append(NodeState(each, total([*held, {"memory": (others or {}).get(each.name, 0)}])))
    return plan(Snapshot(models, Policy(max_loaded=limit), tuple(states)), NOW)
