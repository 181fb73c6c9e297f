"""API keys that namespaces have in a Secret of their own, watched at the API server.

- The Secret has the same name in every namespace, so that the gateway's role can be limited to Secrets of this name:
  RBAC cannot be limited to a label. Each item of its data is a file of keys, as ``parse_keys`` reads it.
- The keys see their own namespace and the shared ones, no others.
- A Secret is input of a tenant. Its size is limited, it is parsed in a thread, and parsing takes a small part of the
  time, however often it changes. If it is invalid, its previous keys stay in use; if it is deleted, they end.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from corral_core.base.json_fields import JsonObject, get_object, get_str
from corral_core.base.json_log import error_location
from corral_core.contracts.api_keys import MAX_SECRET_BYTES
from corral_kube.calls import APICallMetrics
from corral_kube.client import connect
from corral_kube.list_watch import ListerWatcher, ListWatch
from corral_server.gateway import log
from corral_server.gateway.auth.key_file import ApiKey, InvalidKeyFile, parse_keys
from corral_server.gateway.auth.key_store import KeyStore
from corral_server.gateway.directory.kubernetes import KubeSettings

PAUSE_FACTOR = 20
"""Parsing pauses for this many times the time that the last Secret took."""


class NamespaceKeys:
    """Feeds a KeyStore with the keys of Secrets. ``run`` runs the watches and parses what they deliver."""

    def __init__(self, source: ListerWatcher, store: KeyStore, secret: str, *, namespaces: Sequence[str] = ()) -> None:
        self._store = store
        self._secret = secret
        self._changed: dict[str, JsonObject | None] = {}
        self._wake = asyncio.Event()
        scopes = [f"/namespaces/{namespace}" for namespace in namespaces] or [""]
        self._watches = [
            ListWatch(
                source, f"/api/v1{scope}/secrets", _Secrets(self), log=log.event, fields=f"metadata.name={secret}"
            )
            for scope in scopes
        ]

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            for watch in self._watches:
                group.create_task(watch.run())
            group.create_task(self._parse_changes())

    def changed(self, namespace: str, secret: JsonObject | None) -> None:
        """Take a Secret; None if it does not exist any more."""
        self._changed[namespace] = secret
        self._wake.set()

    async def _parse_changes(self) -> None:
        for watch in self._watches:
            await watch.wait_synced()
        while True:
            while self._changed:
                namespace = next(iter(self._changed))
                started = time.perf_counter()
                await self._parse(namespace, self._changed.pop(namespace))
                if self._store.listed:
                    await asyncio.sleep((time.perf_counter() - started) * PAUSE_FACTOR)
            self._store.listed = True
            self._wake.clear()
            await self._wake.wait()

    async def _parse(self, namespace: str, secret: JsonObject | None) -> None:
        if secret is None:
            self._store.set_namespace(namespace, ())
            return
        try:
            keys = await asyncio.to_thread(keys_of, namespace, secret)
        except Exception as error:  # no Secret may end the gateway
            reason = str(error) if isinstance(error, InvalidKeyFile) else error_location(error)
            self._store.mark_invalid(namespace)
            log.event("api_keys_invalid", namespace=namespace, secret=self._secret, reason=reason)
            return
        self._store.set_namespace(namespace, keys)
        log.event("api_keys_loaded", namespace=namespace, secret=self._secret, keys=len(keys))


class _Secrets:
    """WatchedStore of one watch: the namespaces that have the Secret."""

    def __init__(self, keys: NamespaceKeys) -> None:
        self._keys = keys
        self._namespaces: set[str] = set()

    def replace(self, items: Sequence[JsonObject], version: str) -> None:
        for namespace in self._namespaces - {_namespace(item) for item in items}:
            self._remove(namespace)
        for item in items:
            self.apply(item)

    def apply(self, item: JsonObject) -> None:
        self._namespaces.add(_namespace(item))
        self._keys.changed(_namespace(item), item)

    def delete(self, item: JsonObject) -> None:
        self._remove(_namespace(item))

    def _remove(self, namespace: str) -> None:
        self._namespaces.discard(namespace)
        self._keys.changed(namespace, None)


@asynccontextmanager
async def open_namespace_keys(
    store: KeyStore | None, settings: KubeSettings, *, calls: APICallMetrics
) -> AsyncIterator[None]:
    """Watch the Secrets with keys until the block ends; nothing without their name. Raises KubeError.

    If a watch fails permanently, the block is cancelled and the error raised.
    """
    if store is None or not settings.keys_secret:
        yield
        return
    client = await connect(settings.kubeconfig, manager="corral-gateway-keys", calls=calls)
    try:
        store.listed = False
        keys = NamespaceKeys(client, store, settings.keys_secret, namespaces=settings.namespaces)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(keys.run(), name="API keys of namespaces")
            try:
                yield
            finally:
                watching.cancel()
    finally:
        await client.close()


def keys_of(namespace: str, secret: JsonObject) -> list[ApiKey]:
    """Return the keys of a namespace's Secret. Raises InvalidKeyFile."""
    data = get_object(secret, "data")
    if sum(len(item) for item in data.values() if isinstance(item, str)) * 3 // 4 > MAX_SECRET_BYTES:
        raise InvalidKeyFile(f"the Secret is larger than {MAX_SECRET_BYTES} bytes")
    keys: list[ApiKey] = []
    for item in data.values():
        try:
            text = base64.b64decode(item if isinstance(item, str) else "", validate=True).decode()
        except (binascii.Error, ValueError):
            raise InvalidKeyFile("an item of the Secret is not text") from None
        keys += parse_keys(text, namespace=namespace)
    if len({key.name for key in keys}) < len(keys) or len({key.digest for key in keys}) < len(keys):
        raise InvalidKeyFile("two keys have the same name or sha256")
    return keys


def _namespace(secret: JsonObject) -> str:
    return get_str(secret, "metadata", "namespace")
