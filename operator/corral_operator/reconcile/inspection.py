"""Inspection: creates an inspector pod for every Model whose metadata is not known, a bounded number at once.

- Whether a Model needs an inspector follows from the Model and its status alone (``task_pods``).
- The status gets the metadata first; only then is the pod that reported it deleted.
- A source keeps its pin when another field of the Model changes: the pins in the status are given to the resolver.
- First inspections go before those of polled sources, and Models of the same content share one
  (``shared_inspections``).
- With ``updatePolicy: Poll`` a source is resolved again, without its pin, when the time in the status is old enough.
  The pod is identified by that time, so it ends when the status has the next one. What it reports of a new version is
  known as long as it exists, so it stays until that version is pulled; if no puller gets on, the next poll replaces it.
- The annotation ``RESOLVE_ANNOTATION`` ends the interval: a user asks for the resolution now.
- With ``updatePolicy: OnRestart`` the pod exists as long as the start from zero replicas, and until the status has the
  new version (``pulling.restarts``).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from corral_core.base.clock import steady_time
from corral_core.base.json_fields import JsonObject
from corral_core.base.timestamps import parse_timestamp
from corral_core.model.model import Model
from corral_kube.client import KubeClient
from corral_operator.config import RunnerDefaults
from corral_operator.observe.cluster_state import ClusterState
from corral_operator.observe.inspector import Inspector
from corral_operator.observe.objects import ModelObject
from corral_operator.observe.pulling.sources import newer_resolution
from corral_operator.reconcile.inspector_pod import content_digest, inspector_digest, inspector_pod
from corral_operator.reconcile.pulling.cluster_ranges import ClusterRanges
from corral_operator.reconcile.pulling.restarts import end_start, starting, updating
from corral_operator.reconcile.pulling.task_pods import TaskPods
from corral_operator.reconcile.shared_inspections import SharedInspections


class Inspection:
    """``requeue(key, delay)`` reconciles the Model again after ``delay`` seconds."""

    def __init__(
        self,
        kube: KubeClient,
        state: ClusterState,
        defaults: RunnerDefaults,
        *,
        limit: int,
        requeue: Callable[[str, float], None],
        clock: Callable[[], float] = steady_time,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._ranges = ClusterRanges(kube, clock=clock)
        self._requeue = requeue
        self._clock = clock
        self._wall_clock = wall_clock
        self._defaults = defaults
        self._shared = SharedInspections(state, requeue=requeue, clock=clock)
        self._pods: TaskPods[Inspector] = TaskPods(
            "inspector",
            kube,
            state,
            pods=state.inspectors,
            failures=state.inspection_failures,
            limit=limit,
            requeue=requeue,
            clock=clock,
        )

    async def reconcile(self, item: ModelObject) -> None:
        """Keep one inspector while the metadata is not known, and none otherwise. Raises KubeError."""
        model = item.model
        digest = None
        if item.inspected or model is None:
            self._shared.forget(item.meta.key)
        if model is not None and not item.inspected:
            digest = self._first_digest(item, model)
        elif model is not None and (self._poll_due(item) or self._start_needs(item)):
            digest = inspector_digest(model, defaults=self._defaults, remote=True, after=_after(item))
        end_start(self._state, item, self._clock())
        polled = item.inspected and model is not None and model.spec.poll_seconds is not None
        await self._pods.reconcile(item, digest, lambda: self._manifest(item), deferrable=polled)

    def _first_digest(self, item: ModelObject, model: Model) -> str | None:
        """Return the digest of the inspector that the Model needs, None if it uses that of another Model."""
        remote = bool(item.remote)
        digest = inspector_digest(model, defaults=self._defaults, remote=remote)
        present = (each for each in self._state.inspectors.of_model(item.meta.key) if not each.meta.deleted)
        own = next((each for each in present if each.digest == digest), None)
        content = item.namespace, content_digest(model, defaults=self._defaults, remote=remote)
        return digest if self._shared.needs_own(item, content, own) else None

    def forget(self, model: str) -> None:
        """Drop what is kept about a deleted Model."""
        self._shared.forget(model)
        self._state.starts.pop(model, None)
        self._state.start_failures.pop(model, None)
        self._pods.forget(model)

    def _start_needs(self, item: ModelObject) -> bool:
        """Return whether a resolver is needed for a start, or until the new version it found is pulled and recorded."""
        key = item.meta.key
        found = newer_resolution(item, self._state.inspectors.of_model(key))
        source = self._state.source(key)
        unrecorded = found is not None and source is not None and found.pins == source.pins
        return unrecorded or updating(self._state, item) or starting(self._state, item, self._clock())

    def _poll_due(self, item: ModelObject) -> bool:
        """Return whether a polled source must be resolved again; if not, reconcile the Model when it must."""
        interval = item.model.spec.poll_seconds if item.model is not None and item.remote else None
        if interval is None:
            return False
        update, puller = self._state.update(item.meta.key), self._state.puller(item.meta.key)
        if update is None:
            return self._passed(item, _resolved_at(item), interval)
        # A new version that cannot be pulled may have been followed by another one: its pod ends, and the next comes.
        return (puller is not None and puller.active) or not self._passed(item, update.resolved_at, interval)

    def _passed(self, item: ModelObject, since: str, interval: float) -> bool:
        """Return whether the interval has passed since this time, or a user has asked since for another resolution.

        If not, reconcile the Model when the interval has passed.
        """
        resolved_at, now = parse_timestamp(since) or 0.0, self._wall_clock()
        left = resolved_at + interval - now
        requested = item.resolve_requested
        if requested is not None and resolved_at < requested <= now:
            return True
        if left > 0:
            self._requeue(item.meta.key, left)
        return left <= 0

    async def _manifest(self, item: ModelObject) -> JsonObject:
        model = item.model
        assert model is not None, "a Model without a valid spec has no inspector"
        if not item.remote:
            return inspector_pod(model, defaults=self._defaults)
        known = item.resolution.pins if item.resolution is not None and not item.inspected else {}
        pins = {uri: pin for uri, pin in known.items() if uri in item.remote}
        ranges = await self._ranges.get()
        return inspector_pod(model, defaults=self._defaults, remote=True, pins=pins, ranges=ranges, after=_after(item))


def _after(item: ModelObject) -> str:
    """Return what tells a resolver from an earlier one of the same source: the time of the one before, or a start."""
    if not item.inspected or item.model is None:
        return ""
    return _resolved_at(item) if item.model.spec.poll_seconds is not None else "start"


def _resolved_at(item: ModelObject) -> str:
    return item.resolution.resolved_at if item.resolution is not None else ""
