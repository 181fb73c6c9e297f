"""Shares of a runner's slots when several gateways use it.

The rule for one endpoint:

- If requests for the model are pending at this gateway only, it may use every slot that no other gateway uses.
- If requests are pending at peers as well, the gateways with pending requests share the slots that the remaining ones
  do not use, evenly and rounded up. So no slot stays empty, no gateway starves, and each gateway sends less than one
  request too many, which waits in the runner's own queue in order of arrival.

The usage of other gateways comes from the runner status, which counts requests by gateway; the number of this gateway's
own requests is known exactly and is newer. Before the first status of a runner, and if a status does not count by
gateway, the usage of other gateways is taken as zero.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from corral_core.contracts.runner_status import RunnerStatus
from corral_server.gateway.directory.directory import Endpoint


class ContendingPeers(Protocol):
    def contenders(self, key: str) -> Collection[str]:
        """Return the names of the peers with pending requests for this model."""


def slot_share(slots: int, status: RunnerStatus | None, *, own: str, contenders: Collection[str]) -> int:
    """Return how many of the ``slots`` of an endpoint the gateway ``own`` may use."""
    sharing = {own, *contenders}
    free = max(0, slots - _used_by_others(status, sharing))
    return -(-free // len(sharing))


def _used_by_others(status: RunnerStatus | None, sharing: Collection[str]) -> int:
    if status is None or status.by_gateway is None:
        return 0
    shared = sum(status.by_gateway.get(name, 0) for name in sharing)
    return max(0, status.in_flight + status.waiting - shared)


class SlotShares:
    """Slot shares from the last status of each runner."""

    def __init__(self, own: str, peers: ContendingPeers) -> None:
        self._own = own
        self._peers = peers
        self._status: dict[str, RunnerStatus] = {}

    def capacity(self, key: str, endpoint: Endpoint) -> int:
        """Implements ``EndpointCapacity``."""
        status = self._status.get(endpoint.id)
        return slot_share(endpoint.slots, status, own=self._own, contenders=self._peers.contenders(key))

    def update(self, endpoint_id: str, status: RunnerStatus | None) -> None:
        """Set the runner status; None if the runner does not respond any more."""
        if status is None:
            self._status.pop(endpoint_id, None)
        else:
            self._status[endpoint_id] = status
