"""What the API server holds, as last heard: one cache for each kind of object.

Watches, lists and the answers to writes arrive in any order, so versions decide: a newer object is never replaced by an
older one, and one that was deleted does not come back from a list that is older than its deletion.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Generic, Protocol, TypeVar

from corral_operator.objects import Meta


class Tracked(Protocol):
    @property
    def meta(self) -> Meta: ...


T = TypeVar("T", bound=Tracked)


class Cache(Generic[T]):
    """``changed(before, after)`` is called after every change; one of the two is None at an object's ends."""

    def __init__(self, changed: Callable[[T | None, T | None], None] = lambda before, after: None) -> None:
        self._changed = changed
        self._objects: dict[str, T] = {}
        self._by_model: dict[str, dict[str, T]] = {}
        self._deleted: dict[str, int] = {}

    def get(self, key: str) -> T | None:
        return self._objects.get(key)

    def all(self) -> Collection[T]:
        return self._objects.values()

    def of_model(self, model: str) -> Collection[T]:
        return self._by_model.get(model, {}).values()

    def put(self, item: T) -> bool:
        """Keeps the object unless a newer one, or its deletion, is known; returns whether it is news."""
        meta = item.meta
        known = self._objects.get(meta.key)
        if known is not None and known.meta.version >= meta.version:
            return False
        if self._deleted.get(meta.key, -1) >= meta.version:
            return False
        self._deleted.pop(meta.key, None)
        self._set(item)
        return True

    def drop(self, item: T) -> bool:
        """The object was deleted; returns whether it is news."""
        meta = item.meta
        known = self._objects.get(meta.key)
        if known is not None and known.meta.uid != meta.uid and known.meta.version > meta.version:
            return False
        self._deleted[meta.key] = max(meta.version, self._deleted.get(meta.key, 0))
        return self._remove(meta.key)

    def relist(self, items: Iterable[T], version: int) -> set[str]:
        """Takes in a whole list as of ``version``; returns the keys of the Models whose objects changed."""
        changed = set()
        listed = set()
        for item in items:
            listed.add(item.meta.key)
            if self.put(item):
                changed.add(item.meta.model)
        for key, known in list(self._objects.items()):
            if key not in listed and known.meta.version <= version:
                self._remove(key)
                changed.add(known.meta.model)
        self._deleted = {key: at for key, at in self._deleted.items() if at > version}
        return changed

    def _set(self, item: T) -> None:
        known = self._take_out(item.meta.key)
        self._objects[item.meta.key] = item
        self._by_model.setdefault(item.meta.model, {})[item.meta.key] = item
        self._changed(known, item)

    def _remove(self, key: str) -> bool:
        known = self._take_out(key)
        if known is None:
            return False
        self._changed(known, None)
        return True

    def _take_out(self, key: str) -> T | None:
        known = self._objects.pop(key, None)
        if known is None:
            return None
        siblings = self._by_model[known.meta.model]
        del siblings[key]
        if not siblings:
            del self._by_model[known.meta.model]
        return known
