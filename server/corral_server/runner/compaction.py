"""Closes the gaps that finished slots leave: llama.cpp decodes only sequences with consecutive numbers together.

Each gap costs one more pass over the weights in every step (measured on a CPU: four streams in one run of numbers take
37 ms a step, in two runs 46 ms, in four 49 ms), and a copy of a slot's cells costs less than one pass. What always
holds: a move never gives a step more passes, and never takes the cells of an idle slot for a gain that is smaller.
"""

from __future__ import annotations

from collections.abc import Sequence

from corral_server.runner.sequence import Generation, Slot, passes

_STEPS_PER_COPY = 2
_CELLS_PER_STEP = 4
"""Tokens of another prompt's cells that are worth one pass: perhaps it comes back, and reads them in half of that."""

Moves = list[tuple[Slot, Slot]]
"""From a slot whose generation runs to an idle one."""


def moves(slots: Sequence[Slot]) -> Moves:
    """How the shortest run of running slots joins another one; empty when there is one run, or it is not worth it."""
    running = {slot.sequence for slot in slots if slot.generation is not None}
    if passes(running) < 2:
        return []
    movers = min(_runs(slots), key=len)
    staying = running - {slot.sequence for slot in movers}
    idle = [slot for slot in slots if slot.generation is None]
    planned: Moves = []
    for mover in movers:
        target = _beside(idle, staying)
        if target is None:
            return []
        idle.remove(target)
        staying.add(target.sequence)
        planned.append((mover, target))
    return planned if passes(staying) < passes(running) and _pays(planned) else []


def _runs(slots: Sequence[Slot]) -> list[list[Slot]]:
    """The running slots, those with consecutive numbers together."""
    runs: list[list[Slot]] = []
    for slot in sorted(slots, key=lambda slot: slot.sequence):
        if slot.generation is None:
            continue
        if runs and runs[-1][-1].sequence == slot.sequence - 1:
            runs[-1].append(slot)
        else:
            runs.append([slot])
    return runs


def _beside(idle: Sequence[Slot], running: set[int]) -> Slot | None:
    """The idle slot that makes the fewest runs; of several the emptiest, then the longest unused."""
    near = [slot for slot in idle if slot.sequence - 1 in running or slot.sequence + 1 in running]
    return min(near, key=lambda slot: (passes({*running, slot.sequence}), len(slot.cells), slot.used), default=None)


def _pays(planned: Moves) -> bool:
    lost = sum(len(target.cells) for _, target in planned)
    steps = min(_steps_left(mover.generation) for mover, _ in planned if mover.generation is not None)
    return steps >= _STEPS_PER_COPY * len(planned) + lost / _CELLS_PER_STEP


def _steps_left(generation: Generation) -> int:
    """What is generated for long goes on for long; the limit is known. One that still reads its prompt stays."""
    done = len(generation.generated)
    return min(generation.limit - done, done + 8) if done else 0
