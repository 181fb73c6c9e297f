"""This machine as the planner's one node, and what Models take of its memory: pure functions, in Ollama's manner.

A Model needs what is estimated for it, and idle ones leave when that is more than is free. One that needs more than
there is gets what there is: when all others who may leave have left it is started all the same, since the weights are
mapped and an estimate is on the safe side. So nobody waits for memory that can never be free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from corral_core.eviction import pinned
from corral_core.node import Needs, Node
from corral_core.quantities import MEMORY, total
from corral_core.snapshot import ModelState, NodeState, Replica

NAME = "this machine"


def on_this_machine(
    states: Sequence[ModelState], sizes: Mapping[str, int], capacity: int
) -> tuple[tuple[ModelState, ...], NodeState]:
    """The Models with their needs and what their runners hold, by their ``sizes``, and the node with that taken.

    ``capacity`` is the bytes that there are for all runners together.
    """
    holding = [_holding(state, sizes.get(state.key, 0)) for state in states]
    kept = sum(one.holds.get(MEMORY, 0) for state in holding if pinned(state) for one in state.live)
    most = {True: capacity, False: max(0, capacity - kept)}
    placed = tuple(_needing(state, sizes.get(state.key), most[pinned(state)]) for state in holding)
    room = {MEMORY: capacity}
    taken = total(one.holds for state in placed for one in state.replicas)
    return placed, NodeState(Node(NAME, room, {}, room), taken)


def _holding(state: ModelState, size: int) -> ModelState:
    return replace(state, replicas=tuple(_on_here(one, size) for one in state.replicas))


def _on_here(replica: Replica, size: int) -> Replica:
    """What it has on GPUs it does not take of the machine's own memory."""
    elsewhere = replica.activity.vram_bytes if replica.activity is not None else 0
    return replace(replica, node=NAME, holds={MEMORY: max(0, size - elsewhere)})


def _needing(state: ModelState, size: int | None, most: int) -> ModelState:
    if size is None:
        return state
    return replace(state, needs=Needs(((MEMORY, min(size, most)),)))
