"""Makes the objects that a Model owns be as decided. Writes only when something differs.

What may differ is what is wanted (the Model, the replicas or the defaults changed), what is there (somebody edited or
deleted the object), or what is known: after a start the first look applies everything once, which changes nothing on
the server when all is well.
"""

from __future__ import annotations

import hashlib
import json
from typing import Protocol

from corral_core.errors import CorralError
from corral_core.jsonfields import Json
from corral_core.model import Model
from corral_kube.client import Kube
from corral_kube.errors import Conflict
from corral_operator import manifests, paths
from corral_operator.config import RunnerDefaults
from corral_operator.objects import DeploymentObject, Meta, ModelObject, ServiceObject
from corral_operator.observe import Store
from corral_operator.sizing import chosen

_Applied = tuple[str, str, int]


class Foreign(CorralError):
    """An object of that name is there already, and belongs to somebody else: it is left alone."""


class Inspecting(Protocol):
    """Makes a Model's weights known; ``inspection.Inspection``."""

    async def ensure(self, item: ModelObject) -> None: ...

    def forget(self, model: str) -> None: ...


class Actor:
    def __init__(self, kube: Kube, store: Store, defaults: RunnerDefaults, inspection: Inspecting) -> None:
        self._kube = kube
        self._store = store
        self._defaults = defaults
        self._inspection = inspection
        self._applied: dict[str, _Applied] = {}

    async def ensure(self, item: ModelObject, replicas: int) -> None:
        """The Deployment first, since a request may wait for it. Raises KubeError, or Foreign."""
        model = item.model
        if model is None:
            return
        await self._ensure_deployment(model, replicas)
        await self._ensure_service(model)
        await self._inspection.ensure(item)

    def forget(self, model: str) -> None:
        """The Model is gone; what it owned goes by its owner references."""
        self._inspection.forget(model)
        for kind in ("deployment", "service"):
            self._applied.pop(f"{kind} {model}", None)

    async def _ensure_deployment(self, model: Model, replicas: int) -> None:
        """While the weights are not known nothing is started; what runs already is left as it is, or ended."""
        memo = f"deployment {model.key}"
        cramped, facts = self._store.cramped(model.key), self._store.facts(model.key)
        name = manifests.owned_name(model.name)
        there = self._store.deployments.get(f"{model.namespace}/{name}")
        if facts is None and (there is None or there.replicas <= replicas):
            return
        held = there.needs if there is not None and there.replicas and replicas else None
        made = chosen(self._store, model, facts, defaults=self._defaults, held=held)
        size = facts.size if facts is not None else 0
        wanted = manifests.deployment(model, replicas, defaults=self._defaults, size=size, made=made, cramped=cramped)
        digest = _digest(wanted)
        if there and there.replicas == replicas and self._applied.get(memo) == _state(digest, there):
            return
        answer = await self._apply(paths.deployments(model.namespace, name), wanted, known=there is not None)
        self._store.heard_deployment(answer, kind="APPLIED")
        now_there = self._store.deployments.get(f"{model.namespace}/{name}")
        if now_there:
            self._applied[memo] = _state(digest, now_there)

    async def _ensure_service(self, model: Model) -> None:
        memo = f"service {model.key}"
        wanted = manifests.service(model)
        name = manifests.owned_name(model.name)
        there = self._store.services.get(f"{model.namespace}/{name}")
        digest = _digest(wanted)
        if there and self._applied.get(memo) == _state(digest, there):
            return
        answer = await self._apply(paths.services(model.namespace, name), wanted, known=there is not None)
        self._store.heard_service(answer, kind="APPLIED")
        now_there = self._store.services.get(f"{model.namespace}/{name}")
        if now_there:
            self._applied[memo] = _state(digest, now_there)

    async def _apply(self, path: str, wanted: Json, *, known: bool) -> Json:
        """What is known has our label. What is not may exist without it, and then others' fields are not taken."""
        try:
            return await self._kube.apply(path, wanted, force=known)
        except Conflict as error:
            if known:
                raise
            raise Foreign(f"{path.rpartition('/')[2]} exists already and is not this Model's: {error}") from error


def _state(digest: str, there: DeploymentObject | ServiceObject) -> _Applied:
    """What was applied, and to which state of the object: a Deployment's status changes, so its generation counts."""
    meta: Meta = there.meta
    return digest, meta.uid, meta.generation if isinstance(there, DeploymentObject) else meta.version


def _digest(manifest: Json) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
