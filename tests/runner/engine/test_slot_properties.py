"""Properties of scheduler, slots and KV cache over random tasks, adapters, cancellations, failures and shifts."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from corral_server.runner.engine import adapter_turns
from corral_server.runner.engine.generation import GenerationResult, GenerationTask
from corral_server.runner.engine.slots import Generation
from corral_server.runner.llama.context import NO_ROOM
from tests.runner.engine.fake_llama import ABORTED, ADAPTERS, FakeEngine, compute_cells, tokens_alone

TASKS = st.builds(
    lambda shared, rest, **options: GenerationTask((*range(100, 100 + shared), *(rest,) * rest), **options),
    shared=st.sampled_from([40, 40, 40, 40, 55, 20]),
    rest=st.integers(1, 3),
    adapter=st.sampled_from(["", *ADAPTERS]),
    max_tokens=st.sampled_from([1, 1, 20, 90]),
    keep=st.sampled_from([4, 0, 20]),
    context_shift=st.booleans(),
)


class SlotMachine(RuleBasedStateMachine):
    """Tasks whose prompts have a common prefix, with and without an adapter, some of which are cancelled or fail.

    An adapter's turn is one step, so that the order does not depend on the time.
    """

    @initialize(draft=st.sampled_from([0, 4]), can_truncate=st.sampled_from([True, True, True, True, False]))
    def start(self, draft: int, can_truncate: bool) -> None:
        self.turn = patch.object(adapter_turns, "TURN_SECONDS", 0.0)
        self.turn.start()
        self.can_truncate = can_truncate
        self.engine = FakeEngine(draft_tokens=draft if can_truncate else 0, can_truncate=can_truncate)
        self.generations: list[Generation] = []

    @rule(tasks=st.lists(TASKS, min_size=1, max_size=8), steps=st.integers(0, 12))
    def submit(self, tasks: list[GenerationTask], steps: int) -> None:
        self.generations += [self.engine.submit(task) for task in tasks]
        self.run(steps)

    @precondition(lambda self: self.generations)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.generations)).stream.closed = True

    @rule(steps=st.sampled_from([1, 2, 8]))
    def run_steps(self, steps: int) -> None:
        self.run(steps)

    @rule(status=st.sampled_from([NO_ROOM, ABORTED]))
    def fail_next_decode(self, status: int) -> None:
        self.engine.context.next_status = status

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.engine.step()
            self.reusable_cells_are_computed_from_the_beginning()

    @invariant()
    def cells_are_those_of_the_slots(self) -> None:
        for slot, cells in zip(self.engine.slots, self.engine.context.sequences, strict=True):
            assert [cell.token for cell in cells] == slot.tokens
            assert {cell.adapter for cell in cells} <= {slot.adapter}
            assert slot.generation is None or slot.generation.task.adapter == slot.adapter

    @invariant()
    def reusable_cells_are_computed_from_the_beginning(self) -> None:
        for slot, cells in zip(self.engine.slots, self.engine.context.sequences, strict=True):
            reusable = tuple(slot.reusable_tokens)
            assert tuple(cells[: len(reusable)]) == compute_cells(reusable, slot.adapter)

    @invariant()
    def tokens_are_those_of_a_lone_task(self) -> None:
        for generation in self.generations:
            expected = tokens_alone(generation.task, can_truncate=self.can_truncate)
            got = tuple(generation.generated_tokens)
            assert got == expected[: len(got)]
            assert not isinstance(self.engine.ended.get(generation), GenerationResult) or got == expected

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        try:
            self.engine.run_until(lambda: not self.engine.busy)
            self.tokens_are_those_of_a_lone_task()
            assert [one for one in self.generations if one not in self.engine.ended and not one.stream.closed] == []
        finally:
            self.turn.stop()


TestSlots = SlotMachine.TestCase
TestSlots.settings = settings(max_examples=400, stateful_step_count=15, deadline=None, report_multiple_bugs=False)
