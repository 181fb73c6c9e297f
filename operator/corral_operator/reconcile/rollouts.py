"""Rollouts of an upgrade: runners of loaded Models are replaced for one Model after the other.

A new release or a changed setting of the installation changes the pod template of every Model. Applied at once, all
loaded Models would load again at the same time, next to their old runners. Rules:

- A Model without runners gets the new template at once, since nothing is rolled.
- A change of the Model itself is applied at once: its author asked for it.
- Any other change of the template waits until the Deployment that was changed before it has its new runners ready. It
  waits at most for the load timeout, so a Model whose new runner does not start stops no other.

What is kept in memory is only whose turn it is; after a restart the next turn begins at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from corral_core.base.json_fields import JsonObject
from corral_operator import logs
from corral_operator.observe.cluster_state import ClusterState
from corral_operator.observe.objects import DeploymentObject, parse_deployment

RETRY = 10.0
"""Seconds after which a Model whose rollout waits is looked at again."""

Requeue = Callable[[str, float], None]


class Rollouts:
    """``timeout`` is in seconds; ``requeue(model, seconds)`` makes the Model be reconciled again."""

    def __init__(
        self, state: ClusterState, *, timeout: float, requeue: Requeue, clock: Callable[[], float] = time.time
    ) -> None:
        self._state = state
        self._timeout = timeout
        self._requeue = requeue
        self._clock = clock
        self._rolling: str | None = None
        self._template = ""
        self._since = 0.0
        self._waiting: set[str] = set()

    def postponed(self, current: DeploymentObject | None, manifest: JsonObject) -> bool:
        """Return whether the manifest must wait because it would replace runners while those of another Model roll.

        A manifest that may be applied takes the turn.
        """
        wanted = parse_deployment(manifest)
        if current is None or not _rolls(current, wanted):
            return False
        model = current.meta.model
        if self._rolling != model and self._busy():
            if model not in self._waiting:
                self._waiting.add(model)
                logs.event("rollout_waits", level=logging.INFO, model=model, rolling=self._rolling)
            self._requeue(model, RETRY)
            return True
        self._waiting.discard(model)
        self._rolling, self._template, self._since = model, wanted.template, self._clock()
        return False

    def forget(self, model: str) -> None:
        self._waiting.discard(model)

    def _busy(self) -> bool:
        if self._rolling is None or self._clock() >= self._since + self._timeout:
            return False
        deployments = self._state.deployments.of_model(self._rolling)
        return any(not each.settled or each.template != self._template for each in deployments)


def _rolls(current: DeploymentObject, wanted: DeploymentObject) -> bool:
    """Whether the wanted Deployment replaces runners for a reason that is not a change of the Model or its scale."""
    if not current.replicas or current.replicas != wanted.replicas or current.template == wanted.template:
        return False
    return current.model_generation in (0, wanted.model_generation)
