"""The API server at the operator's seam, in memory: objects by path, versions that grow, and failures on demand."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from corral_core.jsonfields import Json, text
from corral_kube.client import Kube, Listing, Trim, whole
from corral_kube.errors import Conflict, KubeError, NotFound


class FakeApi(Kube):
    """``writes`` is every path that was written, in order. ``failures`` are raised by the next calls, one each."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, object]] = {}
        self.writes: list[str] = []
        self.failures: list[KubeError] = []
        self.version = 100

    async def get(self, path: str) -> Json:
        self._fail()
        if path not in self.objects:
            raise NotFound(path)
        return copy.deepcopy(self.objects[path])

    async def list(self, path: str, *, selector: str = "", fields: str = "", trim: Trim = whole) -> Listing:
        self._fail()
        plural = path.rpartition("/")[2]
        found: Sequence[Json] = [value for key, value in self.objects.items() if key.split("/")[-2] == plural]
        return Listing(found, str(self.version))

    async def apply(self, path: str, body: Json, *, manager: str = "", force: bool = True) -> Json:
        """Replaces the whole object, or its status by a path that ends in ``/status``."""
        self._fail()
        self.writes.append(path)
        if path.endswith("/status"):
            target = self.objects.get(path.removesuffix("/status"))
            if target is None:
                raise NotFound(path)
            target["status"] = copy.deepcopy(body.get("status", {}))
            return self._bump(target, spec=False)
        known = self.objects.get(path, {})
        if known and not force:
            raise Conflict(f"fields of {path} belong to another manager")
        merged = {**copy.deepcopy(dict(known)), **copy.deepcopy(dict(body))}
        merged["metadata"] = {**_metadata(known), **_metadata(body)}
        changed = known.get("spec") != body.get("spec")
        self.objects[path] = merged
        return self._bump(merged, spec=changed) if changed else copy.deepcopy(merged)

    async def create(self, path: str, body: Json) -> Json:
        self._fail()
        name = text(body, "metadata", "name") or f"{text(body, 'metadata', 'generateName')}{self.version}"
        place = f"{path}/{name}"
        if place in self.objects:
            raise Conflict(place)
        self.objects[place] = copy.deepcopy(dict(body))
        return self._bump(self.objects[place], spec=True)

    async def replace(self, path: str, body: Json) -> Json:
        self._fail()
        if path not in self.objects:
            raise NotFound(path)
        if text(self.objects[path], "metadata", "resourceVersion") != text(body, "metadata", "resourceVersion"):
            raise Conflict(path)
        self.objects[path] = copy.deepcopy(dict(body))
        self.writes.append(path)
        return self._bump(self.objects[path], spec=True)

    async def delete(self, path: str, *, uid: str, grace: int | None = None) -> None:
        self._fail()
        if text(self.objects.get(path, {}), "metadata", "uid") == uid:
            del self.objects[path]

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    def _bump(self, item: dict[str, object], *, spec: bool) -> Json:
        self.version += 1
        metadata = _metadata(item)
        generation = metadata.get("generation")
        metadata["resourceVersion"] = str(self.version)
        metadata["generation"] = (generation if isinstance(generation, int) else 0) + spec
        metadata.setdefault("uid", f"uid-{self.version}")
        metadata.setdefault("creationTimestamp", "2027-01-15T08:00:00Z")
        item["metadata"] = metadata
        return copy.deepcopy(item)


def _metadata(item: Json) -> dict[str, object]:
    found = item.get("metadata")
    return dict(found) if isinstance(found, dict) else {}
