"""Builders of planner values for tests; plans are made at NOW."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from corral_core.base.quantities import sum_amounts
from corral_core.contracts.runner_status import RunnerStatus
from corral_core.model.model import ModelSpec
from corral_core.planning.gpus.offers import gpu_offers, pod_gpu_memory, shared_memory
from corral_core.planning.node import Node, PodRequirements, Taint
from corral_core.planning.planner import plan
from corral_core.planning.snapshot import Decision, Demand, ModelState, NodeState, Plan, Policy, Replica, Snapshot

NOW = 1_000_000.0


def spec(**fields: object) -> ModelSpec:
    return ModelSpec.model_validate({"source": "file:///weights.gguf"} | fields, by_name=True)


def runner_status(
    *,
    in_flight: int = 0,
    loaded: bool = True,
    keep_alive: float = 300.0,
    expires_at: float | None = NOW + 300,
    last_end: float | None = NOW - 1,
) -> RunnerStatus:
    """Build a runner status; by default idle after a request."""
    return RunnerStatus(
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


def replica(status: RunnerStatus | None = None, *, ready: bool = True, terminating: bool = False) -> Replica:
    return Replica("r", ready, terminating, NOW - 60, status, NOW - 50 if ready else None)


def cold(key: str, *, waiting_since: float | None = None, **fields: object) -> ModelState:
    """Build a Model at zero replicas; ``waiting_since`` is in seconds before NOW."""
    return ModelState(key, 0.0, spec(**fields), 0, demand=_demand(waiting_since))


def warm(
    key: str,
    status: RunnerStatus | None = None,
    *,
    waiting_since: float | None = None,
    draining: bool = False,
    **fields: object,
) -> ModelState:
    """Build a Model with one ready replica, by default idle."""
    replicas = (replica(status if status is not None else runner_status()),)
    return ModelState(key, 0.0, spec(**fields), 1, replicas, _demand(waiting_since), draining=draining)


def loading(key: str, *, waiting_since: float | None = None) -> ModelState:
    status = runner_status(loaded=False, expires_at=None, last_end=None)
    return ModelState(key, 0.0, spec(), 1, (replica(status, ready=False),), _demand(waiting_since))


def leaving(key: str, *, waiting_since: float | None = None) -> ModelState:
    """Build a Model that was scaled down with a terminating replica."""
    return ModelState(key, 0.0, spec(), 0, (replica(runner_status(), terminating=True),), _demand(waiting_since))


def _demand(waiting_since: float | None) -> Demand | None:
    return None if waiting_since is None else Demand(1, NOW - waiting_since)


def plan_for(*models: ModelState, limit: int = 3, now: float = NOW) -> Plan:
    return plan(Snapshot(models, Policy(max_loaded=limit)), now)


def decide(model: ModelState, *others: ModelState, limit: int = 3, now: float = NOW) -> Decision:
    """Plan and return the Decision on the first Model."""
    return plan_for(model, *others, limit=limit, now=now).decisions[model.key]


def node(
    name: str, memory: int = 0, *, labels: dict[str, str] | None = None, taints: tuple[Taint, ...] = (), **more: int
) -> Node:
    """Build a ready node; ``more`` are further resources."""
    allocatable = {"memory": memory, "pods": 110, **more}
    return Node(name, allocatable, labels or {}, allocatable, taints)


GPU = "nvidia.com/gpu"
MI = 2**20


def gpu_node(
    name: str, gpus: int, gpu_memory: int, *, replicas: int = 1, strategy: str = "time-slicing", memory: int = 1000
) -> Node:
    """Build a node with GPUs of ``gpu_memory`` MiB, each with a number of replicas."""
    labels = {f"{GPU}.memory": str(gpu_memory), f"{GPU}.replicas": str(replicas), f"{GPU}.sharing-strategy": strategy}
    built = node(name, memory, labels=labels, taints=(), **{GPU: gpus * replicas})
    offers = gpu_offers(built.allocatable, labels)
    allocatable = {**built.allocatable, **shared_memory(offers)}
    return replace(built, allocatable=allocatable, max_allocatable=allocatable, gpus=offers)


def on_gpus(model: ModelState, gpus: int, gpu_memory: int, *, on: str = "", place: str = "") -> ModelState:
    """Add requirements of GPUs to a Model, in MiB on each; its replicas are on the node and take the same."""
    state = sized(model, 1, on=on, place=place, **{GPU: gpus})
    assert state.requirements is not None
    wanted = replace(state.requirements, gpu_memory=gpu_memory * MI)
    amounts = {**dict(wanted.requests), **pod_gpu_memory(dict(wanted.requests), wanted.gpu_memory)}
    return replace(state, requirements=wanted, replicas=tuple(replace(one, requests=amounts) for one in state.replicas))


def pod_requirements(memory: int = 0, **more: int) -> PodRequirements:
    return PodRequirements(tuple(sorted({"memory": memory, "pods": 1, **more}.items())))


def sized(model: ModelState, memory: int, *, on: str = "", place: str = "", **more: int) -> ModelState:
    """Add requirements to a Model; its replicas are on the node and request the same."""
    wanted = pod_requirements(memory, **more)
    there = tuple(replace(one, node=on, requests=dict(wanted.requests)) for one in model.replicas)
    return replace(model, requirements=wanted, replicas=there, placement=place)


def plan_on(nodes: Iterable[Node], *models: ModelState, others: dict[str, int] | None = None, limit: int = 9) -> Plan:
    """Plan on nodes that are used by the Models' replicas and by other pods (``others``: node to memory)."""
    states = []
    for each in nodes:
        held = [one.requests for model in models for one in model.replicas if one.node == each.name]
        states.append(NodeState(each, sum_amounts([*held, {"memory": (others or {}).get(each.name, 0)}])))
    return plan(Snapshot(models, Policy(max_loaded=limit), tuple(states)), NOW)
