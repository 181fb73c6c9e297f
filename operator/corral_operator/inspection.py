"""Makes every Model's weights known before it is started, by as few inspectors side by side as the installation says.

Level, not edge: whether one is wanted follows from the Model and what its status knows. The status is written first,
and only then the pod that told it goes, so an operator may be ended between any two steps. Those that are stuck (a
file is missing, an image cannot be pulled) keep no other Model waiting.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from corral_core.jsonfields import Json
from corral_kube.client import Kube
from corral_kube.errors import Conflict, NotFound, Refused
from corral_operator import logs, paths
from corral_operator.config import RunnerDefaults
from corral_operator.inspectors import Inspector, digest_of, inspector_pod
from corral_operator.objects import ModelObject
from corral_operator.observe import Store
from corral_operator.troubles import Trouble, refused

PATIENCE = 60.0
"""Seconds after which an inspector that has said nothing (a volume does not come, say) keeps no other one waiting."""

AGAIN = 10.0
"""Seconds after which it is tried again where the API server does not let an inspector be made."""


class Inspection:
    """``wake`` is called with the key of a Model that is to be looked at again, and in how many seconds."""

    def __init__(
        self,
        kube: Kube,
        store: Store,
        defaults: RunnerDefaults,
        *,
        limit: int,
        wake: Callable[[str, float], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kube = kube
        self._store = store
        self._defaults = defaults
        self._limit = limit
        self._wake = wake
        self._clock = clock
        self._waiting: dict[str, None] = {}
        self._deleted: set[str] = set()

    async def ensure(self, item: ModelObject) -> None:
        """One inspector while the weights are not known, none when they are. Raises KubeError."""
        key, model = item.meta.key, item.model
        self._waiting.pop(key, None)
        wanted = None
        if model is not None and not item.knows_weights and not self._store.lost_name(key):
            wanted = inspector_pod(model, defaults=self._defaults)
        there = list(self._store.inspectors.of_model(key))
        if wanted is None or there:
            self._store.refusals.pop(key, None)
        for inspector in there:
            if wanted is None or inspector.lost or inspector.digest != digest_of(wanted):
                await self._delete(inspector)
        if wanted is not None and not there:
            if self._at_work() < self._limit:
                await self._create(item, wanted)
            else:
                self._waiting[key] = None
                self._wake(key, PATIENCE)
        self._turn()

    def forget(self, model: str) -> None:
        """The Model is gone, and its inspector with it."""
        self._waiting.pop(model, None)
        self._store.refusals.pop(model, None)
        self._turn()

    def _at_work(self) -> int:
        since = self._clock() - PATIENCE
        return sum(1 for one in self._store.inspectors.all() if one.at_work and one.pod.started_at > since)

    def _turn(self) -> None:
        """Wakes as many as there are places; those that are asked for go first."""
        free = self._limit - self._at_work()
        if free <= 0 or not self._waiting:
            return
        now = self._clock()
        for key in sorted(self._waiting, key=lambda key: self._store.demand(key, now) is None)[:free]:
            self._wake(key, 0.0)

    async def _create(self, item: ModelObject, wanted: Json) -> None:
        try:
            answer = await self._kube.create(paths.pods(item.namespace), wanted)
        except (Conflict, NotFound):
            return  # it is there already, and there will be an event; or the Model's namespace is going
        except Refused as error:
            self._refused(item.meta.key, refused(str(error)))
            return
        self._store.refusals.pop(item.meta.key, None)
        logs.event("inspecting", model=item.meta.key)
        self._store.heard_pod(answer, kind="APPLIED")

    def _refused(self, key: str, trouble: Trouble) -> None:
        if self._store.refusals.get(key) != trouble:
            logs.event("not_inspected", level=logging.WARNING, model=key, error=trouble.message)
        self._store.refusals[key] = trouble
        self._wake(key, AGAIN)

    async def _delete(self, inspector: Inspector) -> None:
        meta = inspector.meta
        if meta.deleted or meta.uid in self._deleted:
            return
        namespace, _, name = meta.key.partition("/")
        await self._kube.delete(paths.pods(namespace, name), uid=meta.uid)
        self._deleted = {uid for uid in self._deleted if uid in self._uids()} | {meta.uid}

    def _uids(self) -> set[str]:
        return {inspector.meta.uid for inspector in self._store.inspectors.all()}
