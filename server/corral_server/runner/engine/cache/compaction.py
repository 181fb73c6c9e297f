"""Compaction: moves running generations into gaps between the running slots.

llama.cpp decodes only sequences with consecutive numbers together, so each gap costs one more pass over the weights in
every step (measured on a CPU: four streams in one run of numbers take 37 ms a step, in two runs 46 ms, in four 49 ms).
A copy of a slot's cells costs less than one pass.

Invariants:

- a move never increases the number of passes;
- the cells of an idle slot are given up only for a larger gain.
"""

from __future__ import annotations

from collections.abc import Sequence

from corral_server.runner.engine.cache.prefix_cache import count_passes
from corral_server.runner.engine.slots import Generation, Slot

_STEPS_PER_COPY = 2
_CELLS_PER_STEP = 4
"""Cells of an idle slot that are worth one saved pass: its prompt may come again, and costs half of that to compute."""

SlotMoves = list[tuple[Slot, Slot]]
"""Pairs of a slot with a running generation and the idle slot that it moves to."""


def plan_moves(slots: Sequence[Slot]) -> SlotMoves:
    """Return the moves that join the shortest run of running slots to another run; empty when that does not pay."""
    running = {slot.sequence for slot in slots if slot.generation is not None}
    if count_passes(running) < 2:
        return []
    movers = min(_contiguous_slots(slots), key=len)
    staying = running - {slot.sequence for slot in movers}
    idle = [slot for slot in slots if slot.generation is None]
    planned: SlotMoves = []
    for mover in movers:
        target = _best_target(idle, staying)
        if target is None:
            return []
        idle.remove(target)
        staying.add(target.sequence)
        planned.append((mover, target))
    return planned if count_passes(staying) < count_passes(running) and _is_worthwhile(planned) else []


def _contiguous_slots(slots: Sequence[Slot]) -> list[list[Slot]]:
    """Group the running slots by runs of consecutive sequence numbers."""
    runs: list[list[Slot]] = []
    for slot in sorted(slots, key=lambda slot: slot.sequence):
        if slot.generation is None:
            continue
        if runs and runs[-1][-1].sequence == slot.sequence - 1:
            runs[-1].append(slot)
        else:
            runs.append([slot])
    return runs


def _best_target(idle: Sequence[Slot], running: set[int]) -> Slot | None:
    """Return the neighbouring idle slot that leaves the fewest passes; then the emptiest, the least recently used."""
    near = [slot for slot in idle if slot.sequence - 1 in running or slot.sequence + 1 in running]
    return min(
        near,
        key=lambda slot: (count_passes({*running, slot.sequence}), len(slot.tokens), slot.last_used),
        default=None,
    )


def _is_worthwhile(planned: SlotMoves) -> bool:
    lost = sum(len(target.tokens) for _, target in planned)
    steps = min(_expected_steps(mover.generation) for mover, _ in planned if mover.generation is not None)
    return steps >= _STEPS_PER_COPY * len(planned) + lost / _CELLS_PER_STEP


def _expected_steps(generation: Generation) -> int:
    """Estimate the remaining steps: as many as there were, up to the limit. A generation in prefill does not move."""
    done = len(generation.generated_tokens)
    return min(generation.max_tokens - done, done + 8) if done else 0
