"""Store of the objects of one kind, ordered by resource version.

Invariants:
- An object is never replaced by an older one. Watch events, lists and answers to writes may arrive in any order.
- A deleted object does not return from a list that is older than its deletion.
- An object that cannot be parsed is skipped and recorded; a version of it that is stored already stays.

Resource versions are compared as numbers; Kubernetes documents this for objects of one resource type
(https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Generic, Protocol, TypeVar

from corral_core.base.json_fields import JsonObject
from corral_kube.unreadable import UnreadableObjects, key_of
from corral_operator.observe.objects import Meta, parse_meta, resource_version


class Tracked(Protocol):
    @property
    def meta(self) -> Meta: ...


T = TypeVar("T", bound=Tracked)
OnChange = Callable[[T | None, T | None], None]


def _ignore(before: object, after: object) -> None:
    return


class ObjectStore(Generic[T]):
    """Objects by ``namespace/name``, with an index by Model.

    ``parse`` makes the stored value of an API object. ``on_change(before, after)`` is called after every change; None
    means that the object is absent. A newer version that equals the stored value is not a change.
    """

    def __init__(self, parse: Callable[[JsonObject], T], on_change: OnChange[T] = _ignore) -> None:
        self._parse = parse
        self._on_change = on_change
        self._kind = ""
        self._unreadable = UnreadableObjects()
        self._objects: dict[str, T] = {}
        self._by_model: dict[str, dict[str, T]] = {}
        self._deleted: dict[str, int] = {}

    def record_unreadable(self, kind: str, unreadable: UnreadableObjects) -> None:
        """Record objects that cannot be processed in ``unreadable``; ``kind`` is the plural in API paths."""
        self._kind, self._unreadable = kind, unreadable

    def get(self, key: str) -> T | None:
        return self._objects.get(key)

    def all(self) -> Collection[T]:
        return self._objects.values()

    def of_model(self, model: str) -> Collection[T]:
        return self._by_model.get(model, {}).values()

    def apply(self, raw: JsonObject) -> T | None:
        """Store the object unless a newer version or its deletion is known; return it if it is a change."""
        with self._unreadable.isolated(self._kind, raw):
            item = self._parse(raw)
            return item if self._apply(item) else None
        return None

    def delete(self, raw: JsonObject) -> T | None:
        """Record the deletion of the object; return what was stored of it."""
        meta = parse_meta(raw, "")
        known = self._objects.get(meta.key)
        if known is not None and known.meta.uid != meta.uid and known.meta.version > meta.version:
            return None
        self._unreadable.forget(self._kind, raw)
        self._deleted[meta.key] = max(meta.version, self._deleted.get(meta.key, 0))
        return known if self._remove(meta.key) else None

    def replace(self, raws: Iterable[JsonObject], version: str) -> list[T]:
        """Store a complete list as of ``version``; return the objects that changed or are gone."""
        at = resource_version(version)
        changed: list[T] = []
        listed: set[str] = set()
        for raw in raws:
            listed.add(key_of(raw))
            item = self.apply(raw)
            if item is not None:
                changed.append(item)
        for key, known in list(self._objects.items()):
            if key not in listed and known.meta.version <= at:
                self._remove(key)
                changed.append(known)
        self._unreadable.keep(self._kind, listed)
        self._deleted = {key: deleted_at for key, deleted_at in self._deleted.items() if deleted_at > at}
        return changed

    def _apply(self, item: T) -> bool:
        meta = item.meta
        known = self._objects.get(meta.key)
        if known is not None and known.meta.version >= meta.version:
            return False
        if self._deleted.get(meta.key, -1) >= meta.version:
            return False
        self._deleted.pop(meta.key, None)
        self._take_out(meta.key)
        self._objects[meta.key] = item
        if meta.model:
            self._by_model.setdefault(meta.model, {})[meta.key] = item
        if known == item:
            return False
        self._on_change(known, item)
        return True

    def _remove(self, key: str) -> bool:
        known = self._take_out(key)
        if known is None:
            return False
        self._on_change(known, None)
        return True

    def _take_out(self, key: str) -> T | None:
        known = self._objects.pop(key, None)
        if known is None or not known.meta.model:
            return known
        siblings = self._by_model[known.meta.model]
        del siblings[key]
        if not siblings:
            del self._by_model[known.meta.model]
        return known
