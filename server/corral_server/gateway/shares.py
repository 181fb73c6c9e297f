"""How many requests this gateway may have at a runner that other gateways use as well.

The rule, for one endpoint:

- While requests for the model wait here alone, this gateway may use every slot that nobody else uses.
- While requests for it wait at other gateways too, those of them who wait (the rivals, and this one) share the slots
  that the rest does not use, evenly and rounded up. So no slot stays empty and nobody starves, and less than one
  request too many comes from each of them: it waits in the runner's own short queue, in the order of arrival.

What others use is the runner's own word, its activity, in which this gateway's requests are told apart: the count of
them here is exact and newer. Before a runner has said anything, and when it does not tell them apart, nobody else is
taken to use it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from corral_core.activity import Activity
from corral_server.gateway.directory import Endpoint


class Rivals(Protocol):
    def rivals(self, key: str) -> Collection[str]:
        """The other gateways at which requests wait for this model."""


def allowance(slots: int, activity: Activity | None, *, own: str, rivals: Collection[str]) -> int:
    """How many requests the gateway ``own`` may have at an endpoint of so many slots."""
    sharing = {own, *rivals}
    free = max(0, slots - _used_by_others(activity, sharing))
    return -(-free // len(sharing))


def _used_by_others(activity: Activity | None, sharing: Collection[str]) -> int:
    if activity is None or activity.by_gateway is None:
        return 0
    theirs = sum(activity.by_gateway.get(name, 0) for name in sharing)
    return max(0, activity.in_flight + activity.waiting - theirs)


class Shares:
    """The allowances as of the runners' last word."""

    def __init__(self, own: str, rivals: Rivals) -> None:
        self._own = own
        self._rivals = rivals
        self._said: dict[str, Activity] = {}

    def allowed(self, key: str, endpoint: Endpoint) -> int:
        said = self._said.get(endpoint.id)
        return allowance(endpoint.slots, said, own=self._own, rivals=self._rivals.rivals(key))

    def heard(self, endpoint_id: str, activity: Activity | None) -> None:
        """None when the runner cannot be asked any more."""
        if activity is None:
            self._said.pop(endpoint_id, None)
        else:
            self._said[endpoint_id] = activity
