"""Feed of the cluster state: the one path by which observed objects enter, whichever watch or list they come from.

Two sources feed it. kopf watches the Models and what they own, in the namespaces of this operator, and ``resync`` lists
the same kinds. ``cluster_watch`` feeds nodes and other pods, which kopf cannot watch: an operator of some namespaces
sees no pods outside them, and kopf has no field selectors, so every pod of the cluster would pass through it. Responses
to the operator's own writes go to the state directly, since they need no reaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from corral_core.base.json_fields import JsonObject
from corral_operator.observe.cluster_state import ClusterState, Kind, StateChange


class StateFeed:
    """``changed`` is called with every change of the state. Used on one event loop."""

    def __init__(self, state: ClusterState, changed: Callable[[StateChange], None]) -> None:
        self._state = state
        self._changed = changed

    def apply(self, kind: Kind, raw: JsonObject) -> None:
        self._report(self._state.apply(kind, raw))

    def delete(self, kind: Kind, raw: JsonObject) -> None:
        self._report(self._state.delete(kind, raw))

    def replace(self, kind: Kind, raws: Sequence[JsonObject], version: str) -> None:
        self._report(self._state.replace(kind, raws, version))

    def of(self, kind: Kind) -> KindFeed:
        return KindFeed(self, kind)

    def _report(self, change: StateChange) -> None:
        if change:
            self._changed(change)


class KindFeed:
    """The feed of one kind, as the store of a ``corral_kube.list_watch.ListWatch``."""

    def __init__(self, feed: StateFeed, kind: Kind) -> None:
        self._feed = feed
        self._kind = kind

    def apply(self, item: JsonObject) -> None:
        self._feed.apply(self._kind, item)

    def delete(self, item: JsonObject) -> None:
        self._feed.delete(self._kind, item)

    def replace(self, items: Sequence[JsonObject], version: str) -> None:
        self._feed.replace(self._kind, items, version)
