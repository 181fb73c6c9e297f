"""Status writer: writes a Model's status when it changed, and an Event for each change of phase.

Three kinds of changes are delayed:
- ``expiresAt`` alone is written once a minute at most, since each request of a loaded Model moves it.
- Changes of a Model in the phase Loading are gathered for a moment. Several follow within the first tenth of a second
  of a start, and writing each would take API server time from the start itself.
- The progress of a pull is written every few seconds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable

from pydantic.alias_generators import to_snake

from corral_core.base.json_fields import JsonObject, get_str
from corral_core.model.model import API_VERSION, KIND
from corral_kube.client import KubeClient
from corral_kube.errors import Conflict, KubeError, NotFound
from corral_operator import logs
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.objects import ModelObject
from corral_operator.report.events import phase_event, pull_event
from corral_operator.report.status import changed_fields, failed_status, model_status
from corral_operator.report.view import ModelView

EXPIRY_WRITE_INTERVAL = 60.0
"""Minimum seconds between two writes that change ``expiresAt`` alone."""

LOADING_DELAY = 0.1
"""Seconds for which changes of a Model in the phase Loading are gathered."""


PULL_WRITE_INTERVAL = 3.0
"""Minimum seconds between two writes of the progress of a pull."""


class StatusWriter:
    """``installation`` is the name of this installation of the operator, which the status has in ``operator``."""

    def __init__(
        self, kube: KubeClient, state: ClusterState, *, installation: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        self._kube = kube
        self._installation = installation
        self._state = state
        self._clock = clock
        self._written: dict[str, tuple[str, int]] = {}
        self._expiry_written: dict[str, float] = {}
        self._loading: dict[str, float] = {}
        self._pull_written: dict[str, float] = {}

    async def write(self, view: ModelView) -> float | None:
        """Write the status if it changed; return in how many seconds a delayed change is due. Raises KubeError."""
        item, now = view.item, self._clock()
        key = item.meta.key
        status = model_status(view, now)
        if self._installation:
            status["operator"] = self._installation
        changed = changed_fields(item.status, status)
        if not changed or self._written.get(key) == (_digest(status), item.meta.version):
            return None
        delay = self._delay(key, changed, now, phase=status["phase"])
        if delay is not None:
            return delay
        self._loading.pop(key, None)
        await self._apply(item, status)
        if "pull" in status:
            self._pull_written[key] = now
        news = pull_event(item, status, now)
        if news is not None:
            logs.event(to_snake(get_str(news, "reason")), model=key)
            await self._post(item, news)
        if "phase" in changed:
            self._expiry_written.pop(key, None)  # the first expiry of each phase is written at once
            logs.event("phase_changed", model=key, phase=status["phase"], previous=get_str(item.status, "phase"))
            await self._post_event(view, status)
        if "expiresAt" not in status:
            self._expiry_written.pop(key, None)
        elif "expiresAt" in changed:
            self._expiry_written[key] = now
        return None

    async def write_failure(self, item: ModelObject, error: str) -> None:
        """Add the condition Reconciled with the error to the Model's present status. Raises KubeError.

        The next ``write`` removes it.
        """
        status = failed_status(item, error, self._clock())
        if changed_fields(item.status, status):
            await self._apply(item, status)

    def forget(self, model: str) -> None:
        """Drop what is kept about a deleted Model."""
        self._written.pop(model, None)
        self._expiry_written.pop(model, None)
        self._loading.pop(model, None)
        self._pull_written.pop(model, None)

    def _delay(self, key: str, changed: set[str], now: float, *, phase: object) -> float | None:
        """Return for how many seconds the write must wait; None: write now."""
        due = self._expiry_written.get(key, 0.0) + EXPIRY_WRITE_INTERVAL
        if changed == {"expiresAt"} and now < due:
            return due - now
        if phase == "Loading":
            due = self._loading.setdefault(key, now) + LOADING_DELAY
            if now < due:
                return due - now
        due = self._pull_written.get(key, 0.0) + PULL_WRITE_INTERVAL
        progress = phase == "Pulling" or "pull" in changed
        if progress and changed <= {"pull", "conditions"} and now < due:
            return due - now
        return None

    async def _post_event(self, view: ModelView, status: JsonObject) -> None:
        item = view.item
        reason = view.decision.reason if view.decision else ""
        await self._post(item, phase_event(item, status, self._clock(), decision_reason=reason))

    async def _post(self, item: ModelObject, event: JsonObject) -> None:
        try:
            await self._kube.create(api_paths.events(item.namespace), event)
        except KubeError as error:
            logs.event("event_create_failed", level=logging.DEBUG, model=item.meta.key, error=str(error))

    async def _apply(self, item: ModelObject, status: JsonObject) -> None:
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": item.name, "namespace": item.namespace, "uid": item.meta.uid},
            "status": status,
        }
        try:
            written = await self._kube.apply(api_paths.model_status(item.namespace, item.name), body)
        except (NotFound, Conflict):
            # The Model was deleted, and maybe created again, in the meantime: a watch event follows.
            return
        self._state.apply(Kind.MODELS, written)
        known = self._state.models.get(item.meta.key)
        if known is not None:
            # A field that the schema prunes would always differ; the memo makes it written once.
            self._written[item.meta.key] = (_digest(status), known.meta.version)


def _digest(status: JsonObject) -> str:
    return hashlib.sha256(json.dumps(status, sort_keys=True).encode()).hexdigest()
