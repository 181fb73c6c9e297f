"""The API server, as the gateway uses it: lists, watches and one kind of write. The one module that knows the client.

Objects are plain JSON. Every call has a timeout, and a watch is given up when it is silent for longer than bookmarks
take to come. Every failure is one of:

KubeError
├── Unreachable   no answer, a broken stream, or the server's own trouble
└── Refused       an answer that is no success
    ├── NotFound  404
    └── Expired   410: the watch cannot go on from where it was
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config as _config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from corral_core.errors import CorralError
from corral_core.jsonfields import Json, integer, mapping, objects, text

TIMEOUT = 15.0
"""Seconds that one call may take."""

WATCH_SECONDS = 300
SILENCE = 90.0
"""A bookmark comes about once a minute."""

_JSON, _APPLY = "application/json", "application/apply-patch+yaml"


class KubeError(CorralError):
    """A call to the API server that failed."""


class Unreachable(KubeError):
    """No answer; it may be there again soon."""


class Refused(KubeError):
    """The API server said no; the text is its reason."""


class NotFound(Refused):
    """The object, or its kind, does not exist."""


class Expired(Refused):
    """The version is too old to go on from: list anew."""


class KubeClient:
    """A connection to the API server. Made by ``connect``; ``close`` it in the end."""

    def __init__(self, api: ApiClient) -> None:
        self._api: Any = api  # the client's methods have no types

    async def list(self, path: str, *, selector: str = "") -> tuple[list[Json], str]:
        """All objects, and the version from which a watch goes on."""
        query = {"labelSelector": selector} if selector else {}
        answer = await self._call("GET", path, query=query)
        return list(objects(answer, "items")), text(answer, "metadata", "resourceVersion")

    async def apply(self, path: str, body: Json, *, manager: str) -> Json:
        """Server-side apply: the fields of ``body`` become the manager's, those it left out are given up."""
        return await self._call("PATCH", path, query={"fieldManager": manager, "force": "true"}, body=body)

    async def watch(self, path: str, version: str, *, selector: str = "") -> AsyncIterator[tuple[str, Json]]:
        """``(ADDED | MODIFIED | DELETED | BOOKMARK, object)`` until the server ends the watch."""
        query = {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version}
        query |= {"timeoutSeconds": str(WATCH_SECONDS)} | ({"labelSelector": selector} if selector else {})
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=SILENCE)
        answer = await self._request("GET", path, query=query, body=None, timeout=timeout)
        try:
            if answer.status != 200:
                raise _failure(answer.status, await answer.read(), f"watch of {path}")
            async for line in answer.response.content:
                yield _event(line, path)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"watch of {path}: {error or type(error).__name__}") from error
        finally:
            answer.response.close()

    async def close(self) -> None:
        await self._api.close()

    async def _call(self, method: str, path: str, *, query: Mapping[str, str], body: Json | None = None) -> Json:
        answer = await self._request(method, path, query=query, body=body, timeout=TIMEOUT)
        try:
            payload: bytes = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{method} {path}: {error or type(error).__name__}") from error
        if not 200 <= answer.status < 300:
            raise _failure(answer.status, payload, f"{method} {path}")
        return _object(payload)

    async def _request(
        self, method: str, path: str, *, query: Mapping[str, str], body: Json | None, timeout: object
    ) -> Any:
        headers = {"Content-Type": _APPLY if method == "PATCH" else _JSON, "Accept": _JSON}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = f"{self._api.configuration.host}{path}?{urlencode(query)}"
        try:
            return await self._api.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=timeout
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{method} {path}: {error or type(error).__name__}") from error


async def connect(kubeconfig: str | None) -> KubeClient:
    """By the given kubeconfig, else as a pod does. Raises KubeError when there are no credentials."""
    configuration = Configuration()
    loader: Any = _config  # its functions have no types
    try:
        if kubeconfig:
            await loader.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
        else:
            loader.load_incluster_config(client_configuration=configuration)
    except (_config.ConfigException, OSError) as error:
        raise KubeError(f"no way to the API server (set KUBECONFIG, or run in a pod): {error}") from error
    return KubeClient(ApiClient(configuration))


def _event(line: bytes, path: str) -> tuple[str, Json]:
    event = _object(line)
    kind, item = text(event, "type"), mapping(event, "object")
    if kind == "ERROR" or not kind:
        raise _failure(integer(item, "code"), line, f"watch of {path}")
    return kind, item


def _failure(status: int, payload: bytes, call: str) -> KubeError:
    answer = _object(payload)
    said = text(answer, "message") or text(answer, "object", "message") or payload[:200].decode(errors="replace")
    message = f"{call}: {status} {said}"
    if status == 404:
        return NotFound(message)
    if status == 410:
        return Expired(message)
    return Unreachable(message) if status >= 500 or status == 429 else Refused(message)


def _object(payload: bytes) -> Json:
    try:
        found = json.loads(payload)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
