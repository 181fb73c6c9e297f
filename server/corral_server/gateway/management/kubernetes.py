"""ModelStore on the API server, with the service account of the gateway.

- A Model is created by POST, so that of two gateways that make one Model only one succeeds.
- A change is a PUT with the resource version that was read, repeated when another client wrote between the two: the
  operator writes the status of a Model at any time.
- What the API server refuses reaches the client with its message: the schema, an admission policy, a quota.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, Protocol

from corral_core.base.json_fields import JsonObject, get_object, get_str
from corral_core.model.model import GROUP, PLURAL, VERSION
from corral_kube.calls import APICallMetrics
from corral_kube.client import connect
from corral_kube.errors import Conflict, KubeError, NotFound, refusal
from corral_server.gateway.directory.kubernetes import KubeSettings
from corral_server.gateway.management.management import Management
from corral_server.gateway.management.oci.blobs import open_registry_blobs
from corral_server.gateway.management.oci.repository import blob_repository
from corral_server.gateway.management.policy import CreationPolicy
from corral_server.gateway.management.store import ModelExists, ModelMissing, ModelRefused

MANAGER: Final = "corral-gateway-models"
"""Field manager of the Models that clients make."""
ATTEMPTS: Final = 5
"""Number of times that a change is tried while other clients change the Model in between."""

_NO_PERMISSION: Final = re.compile(r'User "[^"]*" cannot [a-z]+ resource')
"""In the message for an account without a permission, which other refusals with 403 do not have."""


class ModelClient(Protocol):
    """The required part of ``corral_kube.client.KubeClient``."""

    async def get(self, path: str) -> JsonObject: ...

    async def create(self, path: str, body: JsonObject) -> JsonObject: ...

    async def replace(self, path: str, body: JsonObject) -> JsonObject: ...

    async def delete(self, path: str, *, uid: str, grace: int | None = None) -> None: ...


class KubeModelStore:
    """Implements ``ModelStore``."""

    def __init__(self, client: ModelClient) -> None:
        self._client = client

    async def create(self, resource: JsonObject) -> None:
        namespace = get_str(resource, "metadata", "namespace")
        try:
            await self._client.create(_path(namespace), resource)
        except Conflict as error:
            if "already exists" in error.server_message:
                raise ModelExists(error.server_message) from None
            raise _refused(error, namespace) from None
        except KubeError as error:
            raise _refused(error, namespace) from None

    async def update(self, resource: JsonObject) -> None:
        namespace, name = (get_str(resource, "metadata", field) for field in ("namespace", "name"))
        path = _path(namespace, name)
        for attempt in range(1, ATTEMPTS + 1):
            current = await self._get(path, namespace)
            metadata = {**get_object(current, "metadata"), "labels": get_object(resource, "metadata", "labels")}
            try:
                await self._client.replace(path, {**current, "metadata": metadata, "spec": resource["spec"]})
                return
            except NotFound as error:
                raise ModelMissing(error.server_message) from None
            except KubeError as error:
                if not isinstance(error, Conflict) or attempt == ATTEMPTS:
                    raise _refused(error, namespace) from None

    async def delete(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        path = _path(namespace, name)
        uid = get_str(await self._get(path, namespace), "metadata", "uid")
        try:
            await self._client.delete(path, uid=uid)
        except KubeError as error:
            raise _refused(error, namespace) from None

    async def read(self, key: str) -> JsonObject:
        namespace, _, name = key.partition("/")
        found = await self._get(_path(namespace, name), namespace)
        return {field: value for field, value in found.items() if field != "status"}

    async def _get(self, path: str, namespace: str) -> JsonObject:
        try:
            return await self._client.get(path)
        except NotFound as error:
            raise ModelMissing(error.server_message) from None
        except KubeError as error:
            raise _refused(error, namespace) from None


@asynccontextmanager
async def open_management(
    environ: Mapping[str, str], settings: KubeSettings, *, calls: APICallMetrics
) -> AsyncIterator[Management]:
    """Yield what makes Models for clients. Raises InvalidSetting, and KubeError if there are no credentials."""
    policy = CreationPolicy.from_environment(environ)
    repository = blob_repository(environ)
    client = await connect(settings.kubeconfig, manager=MANAGER, calls=calls)
    try:
        if repository is None:
            yield Management(KubeModelStore(client), policy)
            return
        async with open_registry_blobs(repository) as blobs:
            yield Management(KubeModelStore(client), policy, blobs)
    finally:
        await client.close()


def _path(namespace: str, name: str = "") -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}{f'/{name}' if name else ''}"


def _refused(error: KubeError, namespace: str) -> ModelRefused:
    """Return the error for a client."""
    message = error.server_message or str(error)
    if error.status == 403 and _NO_PERMISSION.search(message):
        return ModelRefused(
            403,
            f"the gateways may not manage models in namespace {namespace}: ask an administrator to extend their "
            f"permissions (chart: models.create, models.namespace, watchNamespaces); the API server says: {message}",
        )
    if isinstance(error, NotFound):
        return ModelRefused(404, f"{message}: ask an administrator to create the namespace (chart: models.namespace)")
    if isinstance(error, Conflict):
        return ModelRefused(409, f"{message}; please try again")
    if refusal(error) is None:
        return ModelRefused(503, f"the API server did not take the change, please try again: {message}")
    return ModelRefused(error.status if 400 <= error.status < 500 else 422, message)
