"""Usage reports that the gateways exchange: pending requests by model, and the usage of API keys.

``GET /internal/usage`` returns one report; with ``?watch=true`` it returns a stream with one JSON line at every change
and at least every ``HEARTBEAT`` seconds. A gateway that has sent nothing for ``PEER_TIMEOUT`` counts as having no
requests: either it has exited together with its requests, or its usage is unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from corral_core.base.json_fields import JsonObject, get_object, get_str
from corral_server.gateway.queueing.admission import GatewayUsage, PendingByNamespace

HEARTBEAT = 1.0
PEER_TIMEOUT = 3 * HEARTBEAT
COALESCE = 0.01
"""Seconds in which several changes become one line. Requests that arrive within them may exceed the shared limit."""
PATH = "/internal/usage"
MAX_COUNT = 1_000_000
"""Maximum of each number of a report: more requests than gateways can hold."""
MAX_TOKENS = 10**12
"""The same for tokens."""
MAX_NAME = 253


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Usage of one gateway.

    ``pending`` is the number of pending requests by ``namespace/name`` of the Model, zeros omitted, and ``namespaces``
    the same by namespace of the request. ``key_usage`` holds by key name the running requests and those started in the
    last minute, ``key_tokens`` the tokens of the last minute and of the last day, for keys with limits, zeros omitted.
    """

    gateway: str
    pending: Mapping[str, int] = field(default_factory=dict)
    key_usage: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    key_tokens: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    namespaces: PendingByNamespace = field(default_factory=dict)

    @property
    def pending_total(self) -> int:
        return sum(self.pending.values())

    def to_json(self) -> dict[str, object]:
        return {
            "gateway": self.gateway,
            "pending": dict(self.pending),
            "key_usage": dict(self.key_usage),
            "key_tokens": dict(self.key_tokens),
            "namespaces": {key: dict(pending) for key, pending in self.namespaces.items()},
        }

    @classmethod
    def from_json(cls, data: JsonObject) -> UsageReport:
        """Raises ValueError if the name of the gateway is missing. Invalid numbers count as 0."""
        gateway = get_str(data, "gateway")[:MAX_NAME]
        if not gateway:
            raise ValueError("a usage report lacks the name of its gateway")
        pending = _counts(get_object(data, "pending"))
        usage, tokens = _pairs(data, "key_usage", MAX_COUNT), _pairs(data, "key_tokens", MAX_TOKENS)
        by_namespace = get_object(data, "namespaces")
        namespaces = {key: _counts(get_object(by_namespace, key)) or _unnamed(key, pending[key]) for key in pending}
        return cls(gateway, pending, usage, tokens, namespaces)


def _counts(data: JsonObject) -> dict[str, int]:
    """Return the numbers above 0."""
    numbers = {name: _count(number) for name, number in data.items()}
    return {name: number for name, number in numbers.items() if number > 0}


def _unnamed(key: str, number: int) -> dict[str, int]:
    """Count the requests for the namespace of the Model."""
    return {key.partition("/")[0]: number}


def _pairs(data: JsonObject, name: str, maximum: int) -> dict[str, tuple[int, int]]:
    return {key: _pair(value, maximum) for key, value in get_object(data, name).items()}


def _pair(value: object, maximum: int) -> tuple[int, int]:
    numbers = value if isinstance(value, list) and len(value) == 2 else [0, 0]
    return _count(numbers[0], maximum), _count(numbers[1], maximum)


def _count(value: object, maximum: int = MAX_COUNT) -> int:
    return min(max(value, 0), maximum) if isinstance(value, int) else 0


class UsagePublisher:
    """Publishes the usage of this gateway to any number of watchers."""

    def __init__(self, gateway: str, usage: GatewayUsage) -> None:
        self._gateway = gateway
        self._usage = usage
        self._changed = asyncio.Event()
        self._closing = False
        usage.on_change = lambda: self._changed.set()

    def report(self) -> UsageReport:
        usage = self._usage
        namespaces = {key: dict(pending) for key, pending in usage.pending.items()}
        return UsageReport(
            self._gateway, dict(usage.pending_by_model), usage.key_usage(), usage.key_tokens(), namespaces
        )

    def close(self) -> None:
        """End the streams."""
        self._closing = True
        self._changed.set()

    async def watch(self) -> AsyncIterator[UsageReport]:
        """Yield a report now, at every change (changes within ``COALESCE`` as one) and at every heartbeat."""
        while not self._closing:
            changed = self._changed = self._unset_event()
            yield self.report()
            await asyncio.sleep(COALESCE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), HEARTBEAT)

    def _unset_event(self) -> asyncio.Event:
        """Return an event that is not set; all watchers share it."""
        return asyncio.Event() if self._changed.is_set() else self._changed
