"""Bad bounds on who waits for a Model; part of ``bad_models``."""

from __future__ import annotations

from tests.core.model_cases import Bad, with_fields

BAD_QUEUES = [
    Bad("nobody may wait", with_fields(queue={"maxPending": 0}), "spec.queue.maxPending", "at least 1", "equal to 1"),
    Bad(
        "an unknown field of the queue",
        with_fields(queue={"maxpending": 1}),
        "spec.queue.maxpending",
        "did you mean maxPending?",
        'unknown field "spec.queue.maxpending"',
    ),
    Bad("a wait of nothing", with_fields(queue={"maxWait": "0s"}), "spec.queue.maxWait", "above zero", "above zero"),
    Bad("a wait of zero seconds", with_fields(queue={"maxWait": 0}), "spec.queue.maxWait", "above zero", "equal to 1"),
    Bad("a wait for ever", with_fields(queue={"maxWait": "-1s"}), "spec.queue.maxWait", "above zero", "above zero"),
    Bad("a wait without a unit", with_fields(queue={"maxWait": "10"}), "spec.queue.maxWait", "above", "above zero"),
    Bad(
        "a wait of centuries",
        with_fields(queue={"maxWait": "9223372037s"}),
        "spec.queue.maxWait",
        "above zero",
        "must be at most 9223372036 seconds",
    ),
]
