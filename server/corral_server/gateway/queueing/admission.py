"""Admission to the request queue: one limit over all models and gateways, fair between namespaces and models.

The namespace of a request is the one that its API key is for, or else the namespace of the model. The rule for a
request that has no free slot:

- It is admitted while fewer than ``limit`` requests are pending, over all models and all gateways.
- At the limit, a namespace is admitted while it has fewer pending requests than its *share*: ``limit`` by its weight
  among the namespaces with pending requests. So the flood of one namespace locks out no other. The sum exceeds
  ``limit`` only while a flood is worked off, and such requests only to twice the limit.
- At the limit, a namespace at its share is admitted one request for each of its models without pending requests, while
  fewer of its models than its share have any. So one busy model locks out no other model of its namespace: each model
  can report demand, is loaded, and is served request by request.
- For a single busy model the limit is exact. What is above ``limit`` is paid back: a namespace at its share is admitted
  no further request of a model with pending requests until the total is below ``limit``.
- A Model's own ``queue.maxPending`` limits its pending requests over all gateways. If several namespaces use the model,
  each has its share of this limit in the same way.

An admitted request is never rejected because the queue is full. The numbers of the peers are as of their last report,
so the limit can be exceeded by the requests that arrive before the next one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from corral_server.gateway.queueing.fair_order import NO_WEIGHTS

PendingByNamespace = Mapping[str, Mapping[str, int]]
"""Pending requests by model (``namespace/name``) and namespace of the request, zeros omitted."""


class QueueFull(Exception):
    """The queue limit of the installation is reached."""


class ModelQueueFull(QueueFull):
    """The queue limit of the model is reached."""


class PeerPending(Protocol):
    """Pending requests at the peers, as of their last reports."""

    def pending_total(self) -> int: ...

    def pending_for(self, key: str) -> int: ...

    def pending_by_namespace(self) -> PendingByNamespace:
        """Return the pending requests of all peers together."""


class NoPeerPending:
    """PeerPending of a gateway without peers."""

    def pending_total(self) -> int:
        return 0

    def pending_for(self, key: str) -> int:
        return 0

    def pending_by_namespace(self) -> PendingByNamespace:
        return {}


class GatewayUsage:
    """Usage of this gateway, as its peers need it: pending requests by model, and the usage of API keys with limits.

    ``pending`` holds the pending requests of each model by the namespace of the request.
    ``on_change()`` is called after every change. ``key_usage`` returns by key name the number of running requests and
    of requests started in the last minute, ``key_tokens`` the tokens of the last minute and of the last day.
    """

    def __init__(self) -> None:
        self.pending_total = 0
        self.pending: dict[str, dict[str, int]] = {}
        self.on_change: Callable[[], None] = _ignore
        self.key_usage: Callable[[], Mapping[str, tuple[int, int]]] = dict
        self.key_tokens: Callable[[], Mapping[str, tuple[int, int]]] = dict

    @property
    def pending_by_model(self) -> dict[str, int]:
        """Pending requests by model, zeros omitted."""
        return {key: sum(pending.values()) for key, pending in self.pending.items()}

    def add(self, key: str, number: int, namespace: str = "") -> None:
        """Add to the number of pending requests of a model that come from a namespace."""
        self.pending_total += number
        by_namespace = self.pending.get(key)
        if by_namespace is None:
            by_namespace = self.pending[key] = {}
        pending = by_namespace.get(namespace, 0) + number
        if pending:
            by_namespace[namespace] = pending
        else:
            del by_namespace[namespace]
            if not by_namespace:
                del self.pending[key]
        self.on_change()


class QueueAdmission:
    """The rule above, over the pending requests of this gateway and its peers."""

    def __init__(
        self, limit: int, usage: GatewayUsage, peers: PeerPending, *, weights: Mapping[str, float] = NO_WEIGHTS
    ) -> None:
        self._limit = limit
        self._usage = usage
        self._peers = peers
        self._weights = weights

    def check(self, key: str, *, namespace: str = "", max_pending: int | None = None) -> None:
        """Raise QueueFull or ModelQueueFull if no further request of the namespace may be queued for this model."""
        if max_pending is not None and self._pending_for(key) >= max_pending:
            model = self._by_model().get(key, {})
            if len({*model, namespace}) < 2 or not self._below_share(model, namespace, max_pending):
                raise ModelQueueFull
        total = self._usage.pending_total + self._peers.pending_total()
        if total < self._limit:
            return
        by_model = self._by_model()
        by_namespace: Counter[str] = Counter()
        for pending in by_model.values():
            by_namespace.update(pending)
        if total < 2 * self._limit and self._below_share(by_namespace, namespace, self._limit):
            return
        own_models = sum(1 for pending in by_model.values() if namespace in pending)
        has_pending = namespace in by_model.get(key, ())
        if has_pending or own_models >= self._share(by_namespace, namespace, self._limit):
            raise QueueFull

    def _below_share(self, pending: Mapping[str, int], namespace: str, limit: int) -> bool:
        return pending.get(namespace, 0) < self._share(pending, namespace, limit)

    def _share(self, pending: Mapping[str, int], namespace: str, limit: int) -> float:
        """Return the share of the limit of a namespace among those with pending requests."""
        weights = self._weights
        total = sum(weights.get(each, 1.0) for each in {*pending, namespace})
        return limit * weights.get(namespace, 1.0) / total

    def _by_model(self) -> PendingByNamespace:
        """Return the pending requests here and at the peers, by model and namespace."""
        found: dict[str, Counter[str]] = {}
        for source in (self._usage.pending, self._peers.pending_by_namespace()):
            for key, pending in source.items():
                found.setdefault(key, Counter()).update(pending)
        return found

    def _pending_for(self, key: str) -> int:
        return sum(self._usage.pending.get(key, {}).values()) + self._peers.pending_for(key)


def _ignore() -> None:
    """Do nothing on a change."""
