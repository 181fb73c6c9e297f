"""In-memory API server behind the operator's client: objects by path, growing versions, and failures on demand."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from corral_core.base.json_fields import JsonObject, get_str
from corral_kube.calls import APICallMetrics
from corral_kube.client import KubeClient, ObjectList, Transform, identity
from corral_kube.errors import Conflict, KubeError, NotFound


class FakeKube(KubeClient):
    """``writes`` are the paths that were written, in order, ``deleted`` those with their grace period.

    Each of ``failures`` is raised by one of the next calls.
    """

    def __init__(self) -> None:
        self.calls = APICallMetrics()
        self.objects: dict[str, dict[str, object]] = {}
        self.writes: list[str] = []
        self.deleted: list[tuple[str, int | None]] = []
        self.failures: list[KubeError] = []
        self.version = 100

    async def get(self, path: str) -> JsonObject:
        self._fail()
        if path not in self.objects:
            raise NotFound(path)
        return copy.deepcopy(self.objects[path])

    async def list(self, path: str, *, selector: str = "", fields: str = "", trim: Transform = identity) -> ObjectList:
        self._fail()
        plural = path.rpartition("/")[2]
        found: Sequence[JsonObject] = [value for key, value in self.objects.items() if key.split("/")[-2] == plural]
        return ObjectList(found, str(self.version))

    async def current_version(self, path: str, *, fields: str = "") -> str:
        self._fail()
        return str(self.version)

    async def apply(self, path: str, body: JsonObject, *, manager: str = "", force: bool = True) -> JsonObject:
        """Replace the whole object, or its status for a path that ends in ``/status``."""
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

    async def create(self, path: str, body: JsonObject) -> JsonObject:
        self._fail()
        name = get_str(body, "metadata", "name") or f"{get_str(body, 'metadata', 'generateName')}{self.version}"
        target = f"{path}/{name}"
        if target in self.objects:
            raise Conflict(target)
        self.objects[target] = copy.deepcopy(dict(body))
        return self._bump(self.objects[target], spec=True)

    async def replace(self, path: str, body: JsonObject) -> JsonObject:
        self._fail()
        if path not in self.objects:
            raise NotFound(path)
        version = get_str(body, "metadata", "resourceVersion")
        if get_str(self.objects[path], "metadata", "resourceVersion") != version:
            raise Conflict(path)
        self.objects[path] = copy.deepcopy(dict(body))
        self.writes.append(path)
        return self._bump(self.objects[path], spec=True)

    async def delete(self, path: str, *, uid: str, grace: int | None = None) -> None:
        self._fail()
        if get_str(self.objects.get(path, {}), "metadata", "uid") == uid:
            self.deleted.append((path, grace))
            del self.objects[path]

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    def _bump(self, item: dict[str, object], *, spec: bool) -> JsonObject:
        self.version += 1
        metadata = _metadata(item)
        generation = metadata.get("generation")
        metadata["resourceVersion"] = str(self.version)
        metadata["generation"] = (generation if isinstance(generation, int) else 0) + spec
        metadata.setdefault("uid", f"uid-{self.version}")
        metadata.setdefault("creationTimestamp", "2027-01-15T08:00:00Z")
        item["metadata"] = metadata
        return copy.deepcopy(item)


def _metadata(item: JsonObject) -> dict[str, object]:
    found = item.get("metadata")
    return dict(found) if isinstance(found, dict) else {}
