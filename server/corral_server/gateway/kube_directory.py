"""The Directory of a gateway in a cluster: Models and EndpointSlices are watched, demand is written to Models' status.

Everything is answered from memory. While the API server is away, warm Models go on being served from what was known
last; afterwards everything is brought up to date.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from corral_core.demand import field_manager
from corral_core.jsonfields import Json, mapping, text
from corral_core.model import GROUP, PLURAL, VERSION, Model
from corral_core.names import canonical
from corral_core.resource import claims
from corral_core.settings import list_setting, text_setting
from corral_kube.calls import Calls
from corral_kube.client import connect
from corral_kube.reflector import Reflector, Source
from corral_server.gateway import log
from corral_server.gateway.directory import Entry
from corral_server.gateway.kube.demand import Demands, Target
from corral_server.gateway.kube.entries import MODEL_LABEL, entry_of, model_key, model_of


@dataclass(frozen=True, slots=True)
class KubeSettings:
    """``namespaces`` empty means all of them; ``kubeconfig`` None means the pod's own service account."""

    kubeconfig: str | None = None
    namespaces: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> KubeSettings:
        return cls(
            kubeconfig=text_setting(environ, "KUBECONFIG") or None,
            namespaces=list_setting(environ, "CORRAL_WATCH_NAMESPACES"),
        )


class ApiServer(Source, Target, Protocol):
    """What is needed of the API server; ``corral_kube.client.Kube``."""


class KubeDirectory:
    """Implements ``Directory``. Made by ``open_directory``, which also keeps it up to date."""

    def __init__(self, client: ApiServer, settings: KubeSettings, *, gateway_id: str) -> None:
        self._demands = Demands(client, gateway_id)
        self._subscribers: list[Callable[[str], None]] = []
        self._models: dict[str, tuple[Model, Json]] = {}
        self._slices: dict[str, dict[str, Json]] = {}
        self._entries: dict[str, Entry] = {}
        self._refused: dict[str, str] = {}
        self._names: dict[str, str] = {}
        scopes = [f"/namespaces/{namespace}" for namespace in settings.namespaces] or [""]
        self._reflectors = [
            reflector
            for scope in scopes
            for reflector in (
                Reflector(
                    client, f"/apis/{GROUP}/{VERSION}{scope}/{PLURAL}", changed=self._model_changed, said=log.event
                ),
                Reflector(
                    client,
                    f"/apis/discovery.k8s.io/v1{scope}/endpointslices",
                    changed=self._slice_changed,
                    said=log.event,
                    selector=MODEL_LABEL,
                ),
            )
        ]

    def find(self, name: str) -> Entry | None:
        key = self._names.get(canonical(name))
        return None if key is None else self._entries.get(key)

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def entries(self) -> Sequence[Entry]:
        return sorted(self._entries.values(), key=lambda entry: (-entry.modified, entry.key))

    def subscribe(self, changed: Callable[[str], None]) -> None:
        self._subscribers.append(changed)

    def demand(self, key: str, waiting: int, oldest: float | None) -> None:
        self._demands.state(key, waiting, oldest)

    def settled(self) -> bool:
        return all(reflector.listed for reflector in self._reflectors)

    async def run(self) -> None:
        """Keeps everything up to date, for ever."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run())

    async def close(self) -> None:
        """Withdraws what demand was stated."""
        await self._demands.close()

    def _model_changed(self, before: Json | None, after: Json | None) -> None:
        item = after or before or {}
        key = f"{text(item, 'metadata', 'namespace')}/{text(item, 'metadata', 'name')}"
        known = self._models.get(key)
        model = model_of(after) if after is not None else None
        if model is None:
            self._models.pop(key, None)
        else:
            self._models[key] = (model, mapping(after, "status"))
        if (known[0] if known else None) != model:
            self._share_names()
        self._refresh(key)

    def _slice_changed(self, before: Json | None, after: Json | None) -> None:
        for item in (before, after):
            if item is None:
                continue
            key, name = model_key(item), text(item, "metadata", "name")
            slices = self._slices.setdefault(key, {})
            slices.pop(name, None)
            if item is after:
                slices[name] = item
            if not slices:
                del self._slices[key]
        for key in {model_key(item) for item in (before, after) if item is not None}:
            self._refresh(key)

    def _share_names(self) -> None:
        """Of Models that claim one name, the oldest is served; the same rule as the operator's."""
        models = [model for model, _ in self._models.values()]
        before, self._refused = self._refused, dict(claims(models))
        for key in before.keys() ^ self._refused.keys():
            self._refresh(key)

    def _refresh(self, key: str) -> None:
        """Makes the Entry anew, and tells the subscribers when it is another one."""
        known = self._models.get(key)
        before = self._entries.get(key)
        after = None
        if known is not None and key not in self._refused:
            after = entry_of(*known, self._slices.get(key, {}).values())
        if before == after:
            return
        for name in before.names if before else ():
            if self._names.get(name) == key:
                del self._names[name]
        if after is None:
            del self._entries[key]
        else:
            if before is not None and before.endpoints == after.endpoints:
                # The very same tuple tells the queue that nothing changed.
                after = replace(after, endpoints=before.endpoints)
            self._entries[key] = after
            self._names.update(dict.fromkeys(after.names, key))
        for subscriber in self._subscribers:
            subscriber(key)


@asynccontextmanager
async def open_directory(settings: KubeSettings, *, gateway_id: str, calls: Calls) -> AsyncIterator[KubeDirectory]:
    """A Directory that is kept up to date until the block ends. Raises KubeError when there are no credentials.

    Should watching ever fail for good, the block is cancelled and the failure raised: better no gateway than one that
    routes by what was.
    """
    client = await connect(settings.kubeconfig, manager=field_manager(gateway_id), calls=calls)
    directory = KubeDirectory(client, settings, gateway_id=gateway_id)
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(directory.run(), name="watching Models and EndpointSlices")
            kept = group.create_task(client.keep_open(), name="a connection for demand")
            try:
                yield directory
            finally:
                await directory.close()
                watching.cancel()
                kept.cancel()
    finally:
        await client.close()
