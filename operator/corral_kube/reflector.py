"""Reflector: an in-memory copy of all objects of one resource, kept up to date by a list-watch.

Only changes are reported: a list that returns known objects reports nothing. If ``changed`` raises for an object, the
error is recorded, the other objects are reported, and this one is reported again by the next list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from corral_core.base.json_fields import JsonObject
from corral_kube.client import Transform, identity
from corral_kube.list_watch import EventLogger, ListerWatcher, ListWatch
from corral_kube.unreadable import UnreadableObjects, key_of


class Reflector:
    """``changed(before, after)`` is called after every change; None means that the object does not exist.

    ``selector`` is a label selector; an object that stops matching counts as deleted. The copy has what ``trim`` keeps.
    """

    def __init__(
        self,
        source: ListerWatcher,
        path: str,
        *,
        changed: Callable[[JsonObject | None, JsonObject | None], None],
        log: EventLogger,
        selector: str = "",
        trim: Transform = identity,
        unreadable: UnreadableObjects | None = None,
    ) -> None:
        self._changed = changed
        self._path = path
        self._unreadable = unreadable or UnreadableObjects()
        self._objects: dict[str, JsonObject] = {}
        self._list_watch = ListWatch(
            source, path, self, log=log, selector=selector, trim=trim, unreadable=self._unreadable
        )

    @property
    def synced(self) -> bool:
        """Whether the first list has completed."""
        return self._list_watch.synced

    async def run(self) -> None:
        """List and watch until cancelled."""
        await self._list_watch.run()

    def replace(self, items: Sequence[JsonObject], version: str) -> None:
        current = {key_of(item): item for item in items}
        for key in self._objects.keys() - current.keys():
            with self._unreadable.isolated(self._path, self._objects[key]):
                self._update(key, None)
        for key, item in current.items():
            with self._unreadable.isolated(self._path, item):
                self._update(key, item)

    def apply(self, item: JsonObject) -> None:
        self._update(key_of(item), item)

    def delete(self, item: JsonObject) -> None:
        self._update(key_of(item), None)

    def _update(self, key: str, item: JsonObject | None) -> None:
        before = self._objects.get(key)
        if before == item:
            return
        self._changed(before, item)
        if item is None:
            del self._objects[key]
        else:
            self._objects[key] = item
