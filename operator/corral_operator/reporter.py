"""Writes a Model's status to the API server, only when it changed, and its changes of phase as Events.

A change of ``expiresAt`` alone waits until the last such write is a minute old: warm traffic moves it with every
request. While a Model loads, changes are gathered for a moment: in a start's first tenth of a second much changes, and
writing each step would take the API server's time from the start itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable

from corral_core.estimate import Estimate
from corral_core.jsonfields import Json, text
from corral_core.model import API_VERSION, KIND
from corral_kube.client import Kube
from corral_kube.errors import Conflict, KubeError, NotFound
from corral_operator import logs, paths
from corral_operator.config import RunnerDefaults
from corral_operator.events import phase_event
from corral_operator.objects import ModelObject
from corral_operator.observe import Store
from corral_operator.sizing import chosen
from corral_operator.status import EXPIRY_EVERY, View, difference, status_of

GATHERING = 0.1
"""Seconds for which changes of a Model that loads are gathered."""


class Reporter:
    def __init__(
        self, kube: Kube, store: Store, defaults: RunnerDefaults, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._kube = kube
        self._store = store
        self._defaults = defaults
        self._clock = clock
        self._written: dict[str, tuple[str, int]] = {}
        self._expiry_written: dict[str, float] = {}
        self._loading: dict[str, float] = {}

    async def report(self, view: View) -> float | None:
        """Returns after how many seconds a change that was held back is due. Raises KubeError."""
        item, now = view.item, self._clock()
        key = item.meta.key
        status = status_of(dataclasses.replace(view, estimate=self._estimate(view)), now)
        differs = difference(item.status, status)
        if not differs or self._written.get(key) == (_digest(status), item.meta.version):
            return None
        due = self._expiry_written.get(key, 0.0) + EXPIRY_EVERY
        if differs == {"expiresAt"} and now < due:
            return due - now
        if status["phase"] == "Loading":
            due = self._loading.setdefault(key, now) + GATHERING
            if now < due:
                return due - now
        self._loading.pop(key, None)
        await self._write(item, status)
        if "phase" in differs:
            self._expiry_written.pop(key, None)  # the first expiry of each phase is news
            logs.event("phase", model=key, phase=status["phase"], was=text(item.status, "phase"))
            await self._announce(view, status)
        if "expiresAt" not in status:
            self._expiry_written.pop(key, None)
        elif "expiresAt" in differs:
            self._expiry_written[key] = now
        return None

    def _estimate(self, view: View) -> Estimate | None:
        """What the runner takes that is asked for: the one of its Deployment."""
        model = view.item.model
        if model is None:
            return None
        held = self._store.needs(view.item.meta.key)
        return chosen(self._store, model, view.facts, defaults=self._defaults, held=held)

    async def _announce(self, view: View, status: Json) -> None:
        item = view.item
        decided = view.decision.reason if view.decision else ""
        event = phase_event(item, status, self._clock(), decided=decided)
        try:
            await self._kube.create(paths.events(item.namespace), event)
        except KubeError as error:
            logs.event("event_not_posted", level=logging.DEBUG, model=item.meta.key, error=str(error))

    def forget(self, model: str) -> None:
        self._written.pop(model, None)
        self._expiry_written.pop(model, None)
        self._loading.pop(model, None)

    async def _write(self, item: ModelObject, status: Json) -> None:
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": item.name, "namespace": item.namespace, "uid": item.meta.uid},
            "status": status,
        }
        try:
            answer = await self._kube.apply(paths.model_status(item.namespace, item.name), body)
        except (NotFound, Conflict):
            # The Model was deleted, and perhaps made anew, meanwhile: there will be an event.
            return
        self._store.heard_model(answer, kind="APPLIED", now=self._clock())
        known = self._store.models.get(item.meta.key)
        if known is not None:
            # A field that the schema does not keep would differ for ever; it is written once.
            self._written[item.meta.key] = (_digest(status), known.meta.version)


def _digest(status: Json) -> str:
    return hashlib.sha256(json.dumps(status, sort_keys=True).encode()).hexdigest()
