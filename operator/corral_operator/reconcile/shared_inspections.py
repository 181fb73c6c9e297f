"""Shared inspections: one inspector for the Models of a namespace whose inspectors would read the same.

- Two Models have the same *content* if their inspector pods differ in the name of the Model alone: source, credentials,
  image and network are the same.
- The first Model of a content is its reader and has the inspector. The others wait for the report, each for
  ``LONGEST_WAIT`` at most. After a failure of the reader each has an inspector of its own, and its conditions say why.
- A report counts for the Models that were there when it came, or at most ``LATEST`` afterwards: for a Model that is
  created later, a remote source may name something else.
- Nothing of this is stored. After a restart of the operator each Model that has an inspector keeps it.
"""

from __future__ import annotations

from collections.abc import Callable

from corral_core.base.clock import steady_time
from corral_operator.observe.cluster_state import ClusterState
from corral_operator.observe.inspector import Inspector
from corral_operator.observe.objects import ModelObject

LONGEST_WAIT = 60.0
"""Seconds that a Model waits for the inspector of another one."""

LATEST = 5.0
"""Seconds after a report in which a new Model still uses it: a set of Models is created within seconds."""

_KEPT = 300.0
"""Seconds for which a report is kept. It covers the time in which all waiting Models are reconciled."""

Content = tuple[str, str]
"""Namespace, and digest of the inspector's manifest without the name of the Model."""


class SharedInspections:
    """``requeue(key, delay)`` reconciles a Model again after ``delay`` seconds. Used on one event loop."""

    def __init__(
        self,
        state: ClusterState,
        *,
        requeue: Callable[[str, float], None],
        clock: Callable[[], float] = steady_time,
    ) -> None:
        self._state = state
        self._requeue = requeue
        self._clock = clock
        self._content_of: dict[str, Content] = {}
        self._seen: dict[str, float] = {}
        self._readers: dict[Content, str] = {}
        self._failed: set[Content] = set()
        self._reports: dict[Content, tuple[Inspector, float]] = {}
        self._waiting: dict[str, float] = {}

    def needs_own(self, item: ModelObject, content: Content, own: Inspector | None) -> bool:
        """Return whether the Model, whose metadata is not known, needs an inspector of its own.

        ``own`` is the inspector that it has. A report of another Model's inspector is given to the state.
        """
        key = item.meta.key
        if self._content_of.get(key, content) != content:
            self.forget(key)
        self._content_of[key] = content
        seen = self._seen.setdefault(key, self._clock())
        if own is not None:
            self._observe(content, own)
            return True
        report = self._report(content, seen)
        if report is not None:
            self._waiting.pop(key, None)
            self._state.shared_reports[key] = report
            return False
        if content in self._failed or self._readers.setdefault(content, key) == key:
            return True
        return self._waited(key)

    def forget(self, model: str) -> None:
        """Drop what is kept about a Model that is inspected or deleted, or has another content now."""
        self._state.shared_reports.pop(model, None)
        self._waiting.pop(model, None)
        self._seen.pop(model, None)
        content = self._content_of.pop(model, None)
        if content is None:
            return
        if self._readers.get(content) == model:
            del self._readers[content]
            self._wake(content)
        if content not in self._content_of.values():
            self._failed.discard(content)

    def _observe(self, content: Content, own: Inspector) -> None:
        """Record the report or the failure of an inspector."""
        if own.report is not None:
            if self._reports.get(content, (None, 0.0))[0] != own:
                self._reports[content] = own, self._clock()
                self._failed.discard(content)
                self._wake(content)
        elif own.failure is not None and content not in self._failed:
            self._failed.add(content)
            self._wake(content)

    def _report(self, content: Content, seen: float) -> Inspector | None:
        """Return the report for a Model that was ``seen`` first at this time, None without one."""
        now = self._clock()
        self._reports = {each: (own, at) for each, (own, at) in self._reports.items() if now < at + _KEPT}
        own, at = self._reports.get(content, (None, 0.0))
        return own if seen <= at + LATEST else None

    def _waited(self, key: str) -> bool:
        """Return whether the Model has waited long enough for the reader; if not, reconcile it when it has."""
        now = self._clock()
        left = self._waiting.setdefault(key, now) + LONGEST_WAIT - now
        if left > 0:
            self._requeue(key, left)
        return left <= 0

    def _wake(self, content: Content) -> None:
        for model in list(self._waiting):
            if self._content_of.get(model) == content:
                self._requeue(model, 0.0)
