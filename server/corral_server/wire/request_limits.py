"""Limits of one request, which the gateway sends to the runner in headers: output tokens, and time in a slot.

They come from the Model, the installation and the API key; the lowest one counts. A request that reaches a limit ends
normally with the finish reason ``length``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MAX_OUTPUT_TOKENS = b"corral-max-output-tokens"
MAX_DURATION = b"corral-max-duration-ms"
"""Request headers with whole numbers; the gateway removes them from clients' requests."""
_MAX_DIGITS = 15


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """``max_duration`` is in seconds; 0 means no limit for both."""

    max_output_tokens: int = 0
    max_duration: float = 0.0

    def within(self, other: RequestLimits) -> RequestLimits:
        """Return the lower limits of both."""
        if not other.max_output_tokens and not other.max_duration:
            return self
        return RequestLimits(
            int(_lower(self.max_output_tokens, other.max_output_tokens)),
            _lower(self.max_duration, other.max_duration),
        )

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of the limits that are set."""
        found: list[tuple[bytes, bytes]] = []
        if self.max_output_tokens:
            found.append((MAX_OUTPUT_TOKENS, b"%d" % self.max_output_tokens))
        if self.max_duration:
            found.append((MAX_DURATION, b"%d" % _milliseconds(self.max_duration)))
        return found


NO_REQUEST_LIMITS = RequestLimits()


def parse_request_limits(headers: Iterable[tuple[bytes, bytes]]) -> RequestLimits:
    """Return the limits in the headers of a request; a value that is not a number counts as no limit."""
    values = {name: value for name, value in headers if name in (MAX_OUTPUT_TOKENS, MAX_DURATION)}
    if not values:
        return NO_REQUEST_LIMITS
    tokens, milliseconds = (_number(values.get(name, b"")) for name in (MAX_OUTPUT_TOKENS, MAX_DURATION))
    return RequestLimits(tokens, milliseconds / 1000)


def _lower(one: float, other: float) -> float:
    return min(one, other) if one and other else one or other


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _number(value: bytes) -> int:
    return int(value) if value.isdigit() and len(value) <= _MAX_DIGITS else 0
