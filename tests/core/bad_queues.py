"""Invalid queue and request limits, with the errors of the parser and of the CRD; part of ``bad_models``."""

from __future__ import annotations

from tests.core.model_cases import Bad, with_fields

BAD_QUEUES = [
    Bad(
        "no pending requests allowed",
        with_fields(queue={"maxPending": 0}),
        "spec.queue.maxPending",
        "at least 1",
        "equal to 1",
    ),
    Bad(
        "an unknown field of the queue",
        with_fields(queue={"maxpending": 1}),
        "spec.queue.maxpending",
        "did you mean maxPending?",
        'unknown field "spec.queue.maxpending"',
    ),
    Bad("a maxWait of zero", with_fields(queue={"maxWait": "0s"}), "spec.queue.maxWait", "above zero", "above zero"),
    Bad(
        "a maxWait of zero seconds", with_fields(queue={"maxWait": 0}), "spec.queue.maxWait", "above zero", "equal to 1"
    ),
    Bad("a negative maxWait", with_fields(queue={"maxWait": "-1s"}), "spec.queue.maxWait", "above zero", "above zero"),
    Bad("a maxWait without a unit", with_fields(queue={"maxWait": "10"}), "spec.queue.maxWait", "above", "above zero"),
    Bad(
        "a maxWait above the maximum",
        with_fields(queue={"maxWait": "9223372037s"}),
        "spec.queue.maxWait",
        "above zero",
        "must be at most 9223372036 seconds",
    ),
    Bad(
        "no output tokens allowed",
        with_fields(requestLimits={"maxOutputTokens": 0}),
        "spec.requestLimits.maxOutputTokens",
        "at least 1",
        "equal to 1",
    ),
    Bad(
        "an unknown request limit",
        with_fields(requestLimits={"maxTokens": 1}),
        "spec.requestLimits.maxTokens",
        "did you mean maxOutputTokens?",
        'unknown field "spec.requestLimits.maxTokens"',
    ),
    Bad(
        "a maxDuration of zero",
        with_fields(requestLimits={"maxDuration": "0s"}),
        "spec.requestLimits.maxDuration",
        "above zero",
        "above zero",
    ),
    Bad(
        "a maxDuration above the maximum",
        with_fields(requestLimits={"maxDuration": "9223372037s"}),
        "spec.requestLimits.maxDuration",
        "above zero",
        "must be at most 9223372036 seconds",
    ),
]
