"""This machine as the planner's only node, and the memory that Models request and use there: pure functions.

A Model requests its memory estimate, and idle Models are evicted if less is free. The request is capped at the
machine's capacity: weights are memory-mapped and the estimate is conservative. A Model above the capacity starts once
everything that can be evicted is gone, and no request waits for memory that can never be free (Ollama:
server/sched.go).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from corral_core.base.quantities import MEMORY, sum_amounts
from corral_core.planning.eviction import is_pinned
from corral_core.planning.node import Node, PodRequirements
from corral_core.planning.snapshot import ModelState, NodeState, Replica

NAME = "this machine"


def with_local_node(
    states: Sequence[ModelState], sizes: Mapping[str, int], capacity: int
) -> tuple[tuple[ModelState, ...], NodeState]:
    """Return the Models with request and usage from ``sizes`` (bytes by key), and the node with that usage.

    ``capacity`` is the bytes available to all runners together.
    """
    holding = [_with_usage(state, sizes.get(state.key, 0)) for state in states]
    kept = sum(one.requests.get(MEMORY, 0) for state in holding if is_pinned(state) for one in state.live)
    most = {True: capacity, False: max(0, capacity - kept)}
    placed = tuple(_with_request(state, sizes.get(state.key), most[is_pinned(state)]) for state in holding)
    room = {MEMORY: capacity}
    taken = sum_amounts(one.requests for state in placed for one in state.replicas)
    return placed, NodeState(Node(NAME, room, {}, room), taken)


def _with_usage(state: ModelState, size: int) -> ModelState:
    return replace(state, replicas=tuple(_on_local_node(one, size) for one in state.replicas))


def _on_local_node(replica: Replica, size: int) -> Replica:
    """Return the replica with its usage of main memory; bytes on GPUs do not count."""
    elsewhere = replica.status.vram_bytes if replica.status is not None else 0
    return replace(replica, node=NAME, requests={MEMORY: max(0, size - elsewhere)})


def _with_request(state: ModelState, size: int | None, most: int) -> ModelState:
    if size is None:
        return state
    return replace(state, requirements=PodRequirements(((MEMORY, min(size, most)),)))
