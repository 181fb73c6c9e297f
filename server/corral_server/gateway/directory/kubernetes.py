"""Directory of a gateway in a cluster: watches Models and EndpointSlices, writes demand to the status of Models.

All lookups are served from memory. While the API server is unavailable, loaded Models are served from the last known
state. A Model or an EndpointSlice that cannot be processed is skipped and counted; the others are served.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from corral_core.base.errors import InvalidSetting
from corral_core.base.json_fields import JsonObject, get_object, get_str
from corral_core.base.settings import list_setting, str_setting
from corral_core.contracts.demand import field_manager
from corral_core.model.model import GROUP, PLURAL, VERSION, Model
from corral_core.model.name_index import EVERYWHERE, NameIndex, Scope
from corral_kube.calls import APICallMetrics
from corral_kube.client import connect
from corral_kube.list_watch import ListerWatcher
from corral_kube.reflector import Reflector
from corral_kube.unreadable import UnreadableObjects
from corral_server.gateway import log
from corral_server.gateway.directory.directory import FoundModel, ModelEntry, ObservedState
from corral_server.gateway.directory.kubernetes_demand import DemandWriter, StatusApplier
from corral_server.gateway.directory.kubernetes_entries import MODEL_LABEL, entry_of, model_key, model_of, trim_model
from corral_server.gateway.directory.kubernetes_state import observed_state


@dataclass(frozen=True, slots=True)
class KubeSettings:
    """Empty ``namespaces`` mean all; ``kubeconfig`` None means the pod's service account.

    ``shared_namespaces`` are those whose Models have plain names for every client, empty for all. ``keys_secret`` is
    the name of the Secret in which a namespace can have API keys, empty for none.
    """

    kubeconfig: str | None = None
    namespaces: tuple[str, ...] = ()
    shared_namespaces: tuple[str, ...] = ()
    keys_secret: str = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> KubeSettings:
        return cls(
            kubeconfig=str_setting(environ, "KUBECONFIG") or None,
            namespaces=list_setting(environ, "CORRAL_WATCH_NAMESPACES"),
            shared_namespaces=list_setting(environ, "CORRAL_SHARED_NAMESPACES"),
            keys_secret=_secret_name(str_setting(environ, "CORRAL_API_KEYS_SECRET")),
        )


def _secret_name(name: str) -> str:
    """Raises InvalidSetting for a text that no Secret can have as its name."""
    if name and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", name):
        raise InvalidSetting(f"CORRAL_API_KEYS_SECRET={name!r} is not allowed: it must be the name of a Secret")
    return name


class ApiClient(ListerWatcher, StatusApplier, Protocol):
    """The required part of ``corral_kube.client.KubeClient``."""


class KubeDirectory:
    """Implements ``Directory``. Created by ``open_directory``, which runs its watches."""

    def __init__(
        self,
        client: ApiClient,
        settings: KubeSettings,
        *,
        gateway_id: str,
        unreadable: UnreadableObjects | None = None,
    ) -> None:
        self._demand = DemandWriter(client, gateway_id)
        self._subscribers: list[Callable[[str], None]] = []
        self._models: dict[str, tuple[Model, JsonObject]] = {}
        self._slices: dict[str, dict[str, JsonObject]] = {}
        self._entries: dict[str, ModelEntry] = {}
        self._names = NameIndex(settings.shared_namespaces)
        scopes = [f"/namespaces/{namespace}" for namespace in settings.namespaces] or [""]
        self._reflectors = [
            reflector
            for scope in scopes
            for reflector in (
                Reflector(
                    client,
                    f"/apis/{GROUP}/{VERSION}{scope}/{PLURAL}",
                    changed=self._model_changed,
                    log=log.event,
                    trim=trim_model,
                    unreadable=unreadable,
                ),
                Reflector(
                    client,
                    f"/apis/discovery.k8s.io/v1{scope}/endpointslices",
                    changed=self._slice_changed,
                    log=log.event,
                    selector=MODEL_LABEL,
                    unreadable=unreadable,
                ),
            )
        ]

    def find(self, name: str, scope: Scope = EVERYWHERE) -> FoundModel | None:
        found = self._names.find(name, scope)
        entry = None if found is None else self._entries.get(found.key)
        return None if found is None or entry is None else FoundModel(entry, found.name)

    def sees(self, scope: Scope, namespace: str) -> bool:
        return self._names.sees(scope, namespace)

    def displayed_names(self, key: str, scope: Scope) -> tuple[str, ...]:
        return self._names.displayed_names(key, scope)

    def get(self, key: str) -> ModelEntry | None:
        return self._entries.get(key)

    def observed(self, key: str) -> ObservedState | None:
        known = self._models.get(key)
        return observed_state(*known, self._slices.get(key, {}).values()) if known is not None else None

    def entries(self) -> Sequence[ModelEntry]:
        return sorted(self._entries.values(), key=lambda entry: (-entry.modified, entry.key))

    def subscribe(self, changed: Callable[[str], None]) -> None:
        self._subscribers.append(changed)

    def report_demand(self, key: str, pending: int, oldest: float | None) -> None:
        self._demand.set_level(key, pending, oldest)

    def want_context(self, key: str, length: int) -> None:
        self._demand.set_context(key, length)

    def want_pull(self, key: str, wanted: bool) -> None:
        self._demand.set_pull(key, wanted)

    def synced(self) -> bool:
        return all(reflector.synced for reflector in self._reflectors)

    async def run(self) -> None:
        """Run the watches until cancelled."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run())

    async def close(self) -> None:
        """Withdraw all demand."""
        await self._demand.close()

    def _model_changed(self, before: JsonObject | None, after: JsonObject | None) -> None:
        item = after or before or {}
        key = f"{get_str(item, 'metadata', 'namespace')}/{get_str(item, 'metadata', 'name')}"
        model = model_of(after) if after is not None else None
        if model is None:
            self._models.pop(key, None)
            renamed = self._names.remove(key)
        else:
            self._models[key] = (model, get_object(after, "status"))
            renamed = self._names.put(model)
        for one in {key, *renamed}:
            self._refresh(one)

    def _slice_changed(self, before: JsonObject | None, after: JsonObject | None) -> None:
        for item in (before, after):
            if item is None:
                continue
            key, name = model_key(item), get_str(item, "metadata", "name")
            slices = self._slices.setdefault(key, {})
            slices.pop(name, None)
            if item is after:
                slices[name] = item
            if not slices:
                del self._slices[key]
        for key in {model_key(item) for item in (before, after) if item is not None}:
            self._refresh(key)

    def _refresh(self, key: str) -> None:
        """Compute the Model's entry again, and notify the subscribers if it has changed."""
        known = self._models.get(key)
        before = self._entries.get(key)
        after = None
        if known is not None:
            names = self._names.displayed_names(key)
            after = entry_of(*known, self._slices.get(key, {}).values(), names=names)
        if before == after:
            return
        if after is None:
            del self._entries[key]
        else:
            if before is not None and before.endpoints == after.endpoints:
                # The queue compares the tuples by identity.
                after = replace(after, endpoints=before.endpoints)
            self._entries[key] = after
        for subscriber in self._subscribers:
            subscriber(key)


@asynccontextmanager
async def open_directory(
    settings: KubeSettings, *, gateway_id: str, calls: APICallMetrics
) -> AsyncIterator[KubeDirectory]:
    """Run a KubeDirectory until the block ends. Raises KubeError if there are no credentials.

    If a watch fails permanently, the block is cancelled and the error raised: the gateway restarts instead of routing
    by stale state.
    """
    client = await connect(settings.kubeconfig, manager=field_manager(gateway_id), calls=calls)
    directory = KubeDirectory(client, settings, gateway_id=gateway_id, unreadable=calls.unreadable)
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(directory.run(), name="directory watches")
            connection = group.create_task(client.keep_open(), name="demand connection")
            try:
                yield directory
            finally:
                await directory.close()
                watching.cancel()
                connection.cancel()
    finally:
        await client.close()
