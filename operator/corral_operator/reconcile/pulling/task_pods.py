"""Task pods: pods that run once for a Model, one for each Model at most, and a bounded number at once.

- Which pod a Model needs follows from the Model and its status alone, so the operator may be restarted at any moment.
- A pod is replaced when the digest of its manifest changed, and created again when its node evicted or lost it.
- After an eviction the next pod is created with a delay that doubles, since a node may reject each one at once.
- A pod counts towards the limit from the moment at which its creation is decided.
- Only pods that their Model owns count towards the limit, and none that fails, does not start for a while or makes no
  progress. It goes on, and does not block other Models.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from corral_core.base.clock import steady_time
from corral_core.base.json_fields import JsonObject
from corral_kube.client import KubeClient
from corral_kube.errors import Conflict, KubeError, NotFound, refusal
from corral_operator import logs
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.object_store import ObjectStore
from corral_operator.observe.objects import Meta, ModelObject, PodObject
from corral_operator.observe.pod_failures import PodFailure, rejected_pod

SILENCE_TIMEOUT = 60.0
"""Seconds after which a pod that is silent, whose volume is missing for example, does not count towards the limit."""

MIN_PROGRESS = 1024**2
"""Bytes that a pod which has started must complete within ``SILENCE_TIMEOUT`` to count towards the limit."""

FIRST_EVICTED_DELAY, LONGEST_EVICTED_DELAY = 10.0, 300.0
"""Seconds between the deletion of an evicted pod and the creation of the next: after the first, and at most."""

RETRY_INTERVAL = 10.0
"""Seconds between two attempts to create a pod that the API server rejects."""


class TaskPod(Protocol):
    """A task pod as observed. ``evicted``: it failed as a whole; ``active``: it starts or runs without a failure."""

    @property
    def meta(self) -> Meta: ...

    @property
    def pod(self) -> PodObject: ...

    @property
    def digest(self) -> str: ...

    @property
    def evicted(self) -> bool: ...

    @property
    def active(self) -> bool: ...


T = TypeVar("T", bound=TaskPod)


@dataclass(frozen=True, slots=True)
class _Pending:
    """The pod of a Model waits for the end of others ``since`` this time, at which the Model was reconciled last."""

    deferrable: bool
    since: float


@dataclass(frozen=True, slots=True)
class _Evictions:
    """``delay`` is the present one; the next pod of the Model is not created before ``until``."""

    delay: float
    until: float


@dataclass(frozen=True, slots=True)
class _Progress:
    """``completed`` are the bytes at the time ``at``, since which less than ``MIN_PROGRESS`` were added."""

    completed: int
    at: float


class TaskPods(Generic[T]):
    """``name`` is the task in log events. ``failures`` gets why the API server rejects the pod of a Model.

    ``requeue(key, delay)`` reconciles the Model again after ``delay`` seconds. With ``completed``, which returns the
    bytes that the pod with a uid has completed, a pod that has started counts for as long as it makes progress.
    """

    def __init__(
        self,
        name: str,
        kube: KubeClient,
        state: ClusterState,
        *,
        pods: ObjectStore[T],
        failures: MutableMapping[str, PodFailure],
        limit: int,
        requeue: Callable[[str, float], None],
        completed: Callable[[str], int] | None = None,
        clock: Callable[[], float] = steady_time,
    ) -> None:
        self._name = name
        self._kube = kube
        self._state = state
        self._pods = pods
        self._failures = failures
        self._limit = limit
        self._requeue = requeue
        self._completed = completed
        self._clock = clock
        self._pending: dict[str, _Pending] = {}
        self._creating: set[str] = set()
        self._deleted: set[str] = set()
        self._evictions: dict[str, _Evictions] = {}
        self._progress: dict[str, _Progress] = {}

    async def reconcile(
        self,
        item: ModelObject,
        digest: str | None,
        manifest: Callable[[], Awaitable[JsonObject]],
        *,
        deferrable: bool = False,
    ) -> None:
        """Keep the pod with this digest, and none for None. Raises KubeError.

        ``manifest`` is called if the pod must be created. A ``deferrable`` pod is created after all pending others.
        """
        key = item.meta.key
        self._pending.pop(key, None)
        current = list(self._pods.of_model(key))
        if digest is None or current:
            self._failures.pop(key, None)
        if digest is None:
            self._evictions.pop(key, None)
        for each in current:
            if digest is None or each.evicted or each.digest != digest:
                await self._delete(each)
        if digest is not None and not current and not self._delayed(key):
            if self._active() < self._limit and not (deferrable and self._others_first()):
                self._creating.add(key)
                try:
                    await self._create(item, await manifest())
                finally:
                    self._creating.discard(key)
            else:
                self._pending[key] = _Pending(deferrable, self._clock())
                self._requeue(key, SILENCE_TIMEOUT)
        self._requeue_pending()

    def pending(self, model: str) -> bool:
        """Return whether the pod of the Model waits for the end of others."""
        return model in self._pending

    def forget(self, model: str) -> None:
        """Drop what is kept about a deleted Model."""
        self._pending.pop(model, None)
        self._failures.pop(model, None)
        self._evictions.pop(model, None)
        self._requeue_pending()

    def _active(self) -> int:
        existing = {known.meta.uid for known in self._pods.all()}
        self._progress = {uid: progress for uid, progress in self._progress.items() if uid in existing}
        counted = {one.meta.model for one in self._pods.all() if one.active and self._counts(one.pod)}
        return len(counted | self._creating)

    def _counts(self, pod: PodObject) -> bool:
        model = self._state.models.get(pod.meta.model)
        if model is None or pod.owner != model.meta.uid:
            return False
        since = self._state.pod_times.of(pod).seen_at
        if self._completed is not None and pod.ip:
            since = self._last_progress(pod.meta.uid, self._completed(pod.meta.uid))
        return since > self._clock() - SILENCE_TIMEOUT

    def _last_progress(self, uid: str, completed: int) -> float:
        """Return when the pod had last completed ``MIN_PROGRESS`` more bytes, as far as it was observed."""
        known = self._progress.get(uid)
        if known is None or completed >= known.completed + MIN_PROGRESS:
            known = self._progress[uid] = _Progress(completed, self._clock())
        return known.at

    def _delayed(self, key: str) -> bool:
        """Return whether the pod is not to be created yet; if so, reconcile the Model when it is."""
        evictions = self._evictions.get(key)
        left = evictions.until - self._clock() if evictions is not None else 0.0
        if left > 0:
            self._requeue(key, left)
        return left > 0

    def _others_first(self) -> bool:
        """Return whether a pod that is not deferrable is pending; a Model that is not reconciled any more has none."""
        stale = self._clock() - 2 * SILENCE_TIMEOUT
        self._pending = {key: each for key, each in self._pending.items() if each.since > stale}
        return not all(each.deferrable for each in self._pending.values())

    def _requeue_pending(self) -> None:
        """Reconcile as many pending Models as the limit allows: deferrable ones last, those with demand first."""
        free = self._limit - self._active()
        if free <= 0 or not self._pending:
            return
        now = self._clock()
        wanted = self._state.demand_tracker.weights_wanted
        order = sorted(self._pending, key=lambda key: (self._pending[key].deferrable, not wanted(key, now)))
        for key in order[:free]:
            self._requeue(key, 0.0)

    async def _create(self, item: ModelObject, manifest: JsonObject) -> None:
        try:
            created = await self._kube.create(api_paths.pods(item.namespace), manifest)
        except (Conflict, NotFound):
            return  # it exists already, and its watch event follows; or the namespace is being deleted
        except KubeError as error:
            message = refusal(error)
            if message is None:
                raise
            self._rejected(item.meta.key, rejected_pod(message))
            return
        self._failures.pop(item.meta.key, None)
        logs.event(f"{self._name}_started", model=item.meta.key)
        self._state.apply(Kind.PODS, created)

    def _rejected(self, key: str, failure: PodFailure) -> None:
        if self._failures.get(key) != failure:
            logs.event(f"{self._name}_rejected", level=logging.WARNING, model=key, error=failure.message)
        self._failures[key] = failure
        self._requeue(key, RETRY_INTERVAL)

    async def _delete(self, task: T) -> None:
        meta = task.meta
        if meta.deleted or meta.uid in self._deleted:
            return
        namespace, _, name = meta.key.partition("/")
        await self._kube.delete(api_paths.pods(namespace, name), uid=meta.uid)
        if task.evicted:
            known = self._evictions.get(meta.model)
            delay = FIRST_EVICTED_DELAY if known is None else min(2 * known.delay, LONGEST_EVICTED_DELAY)
            self._evictions[meta.model] = _Evictions(delay, self._clock() + delay)
        existing = {known.meta.uid for known in self._pods.all()}
        self._deleted = (self._deleted & existing) | {meta.uid}
