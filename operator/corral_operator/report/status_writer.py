"""Status writer: writes a Model's status when it changed, and the Events that follow from the change.

Four kinds of changes are delayed:
- ``expiresAt`` and ``idleSince`` alone are written once a minute at most, since each request of a loaded Model moves
  them.
- ``pending`` alone is written every ten seconds at most, since each request to a busy Model changes it.
- Changes of a Model in the phase Loading are gathered for a moment. Several follow within the first tenth of a second
  of a start, and writing each would take API server time from the start itself.
- The progress of a pull is written every few seconds.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from corral_core.base.json_fields import JsonObject, get_str
from corral_core.model.model import API_VERSION, KIND
from corral_kube.client import KubeClient
from corral_kube.errors import Conflict, NotFound
from corral_operator import logs
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.objects import ModelObject
from corral_operator.report.event_recorder import EventRecorder
from corral_operator.report.events import ModelEvent, internal_error_event, model_events
from corral_operator.report.phases import PHASES
from corral_operator.report.status import changed_fields, failed_status, model_status
from corral_operator.report.view import ModelView

USAGE_FIELDS = frozenset({"expiresAt", "idleSince", "keepAlive"})

USAGE_WRITE_INTERVAL = 60.0
"""Minimum seconds between two writes that change these fields alone."""

PENDING_WRITE_INTERVAL = 10.0
"""Minimum seconds between a write and the next one that changes ``pending`` alone."""

LOADING_DELAY = 0.1
"""Seconds for which changes of a Model in the phase Loading are gathered."""


PULL_WRITE_INTERVAL = 3.0
"""Minimum seconds between two writes of the progress of a pull."""


@dataclass(slots=True)
class _Written:
    """What is kept of one Model. ``memo`` is the digest of what was written last, with the version that it made.

    The times are Unix seconds: when the usage was written last, any field, and the progress of a pull, and since when
    changes of a loading Model are gathered. ``idle_since`` is the last one that was reported, written or not.
    """

    memo: tuple[str, int] = ("", 0)
    usage: float = 0.0
    any: float = 0.0
    pull: float = 0.0
    loading: float | None = None
    idle_since: str = ""


class StatusWriter:
    """``installation`` is the name of this installation of the operator, which the status has in ``operator``."""

    def __init__(
        self,
        kube: KubeClient,
        state: ClusterState,
        recorder: EventRecorder,
        *,
        installation: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kube = kube
        self._installation = installation
        self._state = state
        self._recorder = recorder
        self._clock = clock
        self._kept: dict[str, _Written] = {}

    async def write(self, view: ModelView) -> float | None:
        """Write the status if it changed; return in how many seconds a delayed change is due. Raises KubeError."""
        item, now = view.item, self._clock()
        kept = self._kept.setdefault(item.meta.key, _Written())
        status = model_status(view, now)
        _keep_idle_since(kept, view, status)
        if self._installation:
            status["operator"] = self._installation
        changed = changed_fields(item.status, status)
        if not changed or kept.memo == (_digest(status), item.meta.version):
            return None
        delay = _delay(kept, changed, now, phase=status["phase"])
        if delay is not None:
            return delay
        await self._apply(item, status)
        _record(kept, status, changed, now)
        if "phase" in changed:
            logs.event(
                "phase_changed", model=item.meta.key, phase=status["phase"], previous=get_str(item.status, "phase")
            )
        await self._post(item, model_events(view, status))
        return None

    async def write_failure(self, item: ModelObject, error: str) -> None:
        """Add the condition Stalled with the error to the Model's present status. Raises KubeError.

        The next ``write`` removes it.
        """
        status = failed_status(item, error, self._clock())
        if changed_fields(item.status, status):
            await self._apply(item, status)
            await self._recorder.record(item, internal_error_event(error))

    def forget(self, model: str) -> None:
        """Drop what is kept about a deleted Model."""
        self._kept.pop(model, None)
        self._recorder.forget(model)

    async def _post(self, item: ModelObject, events: Sequence[ModelEvent]) -> None:
        for event in events:
            if event.reason not in PHASES:
                logs.event("model_event", model=item.meta.key, reason=event.reason, message=event.message)
            await self._recorder.record(item, event)

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
            self._kept.setdefault(item.meta.key, _Written()).memo = _digest(status), known.meta.version


def _keep_idle_since(kept: _Written, view: ModelView, status: dict[str, object]) -> None:
    """Keep ``idleSince`` of a Model whose runners have ended."""
    if "idleSince" in status:
        kept.idle_since = str(status["idleSince"])
        return
    known = kept.idle_since or get_str(view.item.status, "idleSince")
    if known and not view.staying:
        status["idleSince"] = known


def _delay(kept: _Written, changed: set[str], now: float, *, phase: object) -> float | None:
    """Return for how many seconds the write must wait; None: write now."""
    dues = []
    if changed <= USAGE_FIELDS | {"pending"}:
        usage = [kept.usage + USAGE_WRITE_INTERVAL] if changed & USAGE_FIELDS else []
        pending = [kept.any + PENDING_WRITE_INTERVAL] if "pending" in changed else []
        dues.append(min(usage + pending))
    if phase == "Loading":
        kept.loading = now if kept.loading is None else kept.loading
        dues.append(kept.loading + LOADING_DELAY)
    progress = phase == "Pulling" or "pull" in changed
    if progress and changed <= {"pull", "conditions", "columns"}:
        dues.append(kept.pull + PULL_WRITE_INTERVAL)
    due = max(dues, default=0.0)
    return due - now if now < due else None


def _record(kept: _Written, status: JsonObject, changed: set[str], now: float) -> None:
    """Record what was written."""
    kept.loading, kept.any = None, now
    if "pull" in status:
        kept.pull = now
    known = "keepAlive" in status
    if not known or "phase" in changed:
        kept.usage = 0.0  # the first usage of each phase is written at once
    if known and changed & USAGE_FIELDS:
        kept.usage = now


def _digest(status: JsonObject) -> str:
    return hashlib.sha256(json.dumps(status, sort_keys=True).encode()).hexdigest()
