"""Kubernetes client with plain JSON objects, over the ``kubernetes`` package's aiohttp transport.

- Every call has a timeout, and every failure is a KubeError (``errors``).
- A watch ends when it is silent for longer than the interval of bookmarks.
- An object that is nested too deep, or that ``trim`` cannot process, affects no other object of a list or a watch: a
  value that is too deep is replaced (``bounded_json``), and an object that cannot be trimmed is left out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config as _config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config.incluster_config import SERVICE_TOKEN_FILENAME

from corral_core.base.json_fields import JsonObject, get_int, get_object, get_objects, get_str
from corral_kube.bounded_json import LineTooLong, decode, has_deep_value, read_lines
from corral_kube.calls import UNREACHABLE, APICallMetrics
from corral_kube.errors import APIServerUnreachable, Conflict, KubeError, NotFound, WriteNotAllowed, error_from_status
from corral_kube.unreadable import key_of
from corral_kube.yaml_json import encode

CALL_TIMEOUT = 15.0
"""Seconds; the timeout of one call."""

IDLE_CONNECTION_TIMEOUT = 75.0
"""Seconds after which an idle connection is closed; the API server closes it after 90."""

KEEP_OPEN_INTERVAL = 50.0
"""Seconds between two requests that only keep a connection open."""

WATCH_SECONDS = 300
WATCH_SILENCE_TIMEOUT = 90.0
"""Seconds; the API server sends a bookmark about once a minute."""

PAGE_SIZE = 500
"""Objects per page of a list: all objects of a large cluster at once would not fit into memory."""

Transform = Callable[[JsonObject], JsonObject]
"""Returns the part of an object that is kept, like client-go's ``cache.TransformFunc``."""

_MERGE = "application/merge-patch+json"
_ANYTHING = "application/json, */*"
_JSON, _APPLY = "application/json", "application/apply-patch+yaml; charset=utf-8"


def identity(item: JsonObject) -> JsonObject:
    """Keep the whole object."""
    return item


@dataclass(frozen=True, slots=True)
class ObjectList:
    """All objects of a list at resource version ``version``, from which a watch continues."""

    items: Sequence[JsonObject]
    version: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials for another client of the same API server in this process. Paths are files, empty if unused.

    ``token_path`` is the file of a pod's token, which the kubelet replaces before it expires.
    """

    server: str
    ca_path: str
    certificate_path: str
    private_key_path: str
    token: str
    token_path: str
    insecure: bool


class KubeClient:
    """Client of one API server, created by ``connect``; call ``close`` when done.

    ``manager`` is the default field manager of writes.
    """

    def __init__(
        self, api: ApiClient, *, manager: str, token_path: str = "", calls: APICallMetrics | None = None
    ) -> None:
        self._api: Any = api  # the client's methods have no types
        self._manager = manager
        self._token_path = token_path
        self._write_time: Callable[[], float] | None = None
        self.calls = calls or APICallMetrics()

    def fenced(self, remaining: Callable[[], float]) -> KubeClient:
        """Return a client with the same connections whose writes begin and end within ``remaining()`` seconds.

        A write that would begin later raises WriteNotAllowed. One that has begun is given up at that moment. The API
        server has the same limit for it, by the parameter ``timeout``, since it may not learn that the connection was
        closed (kubernetes, apiserver/pkg/endpoints/filters/request_deadline.go).
        """
        client = KubeClient(self._api, manager=self._manager, token_path=self._token_path, calls=self.calls)
        client._write_time = remaining
        return client

    async def get(self, path: str) -> JsonObject:
        return await self._call("GET", path)

    async def list(self, path: str, *, selector: str = "", fields: str = "", trim: Transform = identity) -> ObjectList:
        """List all objects that match the label and field selectors, page by page at one resource version."""
        query = {"limit": str(PAGE_SIZE), **_selected(selector, fields)}
        items: list[JsonObject] = []
        keys: set[str] = set()
        while True:
            response, deep = await self._exchange("GET", path, query=query)
            page = get_objects(response, "items")
            keys.update(map(key_of, page))
            items += self._trimmed(path, page, trim=trim, deep=deep)
            more = get_str(response, "metadata", "continue")
            if not more:
                self.calls.unreadable.keep(path, keys)
                return ObjectList(items, get_str(response, "metadata", "resourceVersion"))
            query["continue"] = more

    def _trimmed(self, path: str, page: Sequence[JsonObject], *, trim: Transform, deep: bool) -> Sequence[JsonObject]:
        """Trim the objects of a page; one that cannot be trimmed is left out."""
        trimmed: list[JsonObject] = []
        for item in page:
            self.calls.unreadable.set_deep(path, item, deep and has_deep_value(item))
            with self.calls.unreadable.isolated(path, item):
                trimmed.append(trim(item))
        return trimmed

    async def current_version(self, path: str, *, fields: str = "") -> str:
        """Return the current resource version of a resource type; the API server reads it from etcd.

        ``fields`` is the field selector by which the account may list, if it may not list everything.
        """
        query = {"limit": "1", **_selected("", fields)}
        return get_str(await self._call("GET", path, query=query), "metadata", "resourceVersion")

    async def watch(
        self, path: str, version: str, *, selector: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[str, JsonObject]]:
        """Yield ``(ADDED | MODIFIED | DELETED | BOOKMARK, object)`` until the server ends the watch."""
        query = {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version}
        query |= {"timeoutSeconds": str(WATCH_SECONDS), **_selected(selector, fields)}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CALL_TIMEOUT, sock_read=WATCH_SILENCE_TIMEOUT)
        response = await self._request("GET", path, query=query, body=None, content=_JSON, timeout=timeout)
        try:
            if response.status != 200:
                raise _failed(response.status, await response.read(), f"watch of {path}")
            async for line in read_lines(response.response.content):
                kind, item, deep = _event(line, path)
                self.calls.unreadable.set_deep(path, item, deep and has_deep_value(item))
                yield kind, item
        except LineTooLong as error:
            raise KubeError(f"watch of {path}: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise APIServerUnreachable(f"watch of {path}: {error or type(error).__name__}") from error
        finally:
            response.response.close()

    async def apply(self, path: str, body: JsonObject, *, manager: str = "", force: bool = True) -> JsonObject:
        """Apply server-side: the manager owns the fields of ``body`` and gives up those that it left out.

        Without ``force``, a field that another manager set to another value raises Conflict.
        """
        query = {"fieldManager": manager or self._manager, "force": "true" if force else "false"}
        return await self._call("PATCH", path, query=query, body=body, content=_APPLY)

    async def merge(self, path: str, body: JsonObject) -> JsonObject:
        """Change the fields of ``body`` alone, by a JSON merge patch (RFC 7396)."""
        return await self._call("PATCH", path, query={"fieldManager": self._manager}, body=body, content=_MERGE)

    async def create(self, path: str, body: JsonObject) -> JsonObject:
        return await self._call("POST", path, query={"fieldManager": self._manager}, body=body)

    async def replace(self, path: str, body: JsonObject) -> JsonObject:
        """Replace an object. Raises Conflict unless ``body`` has the current resourceVersion."""
        return await self._call("PUT", path, query={"fieldManager": self._manager}, body=body)

    async def delete(self, path: str, *, uid: str, grace: int | None = None) -> None:
        """Delete the object with this uid if it exists; ``grace`` is in seconds, 0 does not wait for the kubelet."""
        body: dict[str, object] = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        try:
            await self._call("DELETE", path, body=body)
        except (NotFound, Conflict):
            return

    async def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: JsonObject | None = None,
        silence: float | None = None,
    ) -> AsyncIterator[bytes]:
        """Yield the pieces of a response that is no object of the API: a log, or what a proxied Service sends.

        The response may be silent for ``silence`` seconds, None for no limit.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CALL_TIMEOUT, sock_read=silence)
        response = await self._request(
            method, path, query=query or {}, body=body, content=_JSON, timeout=timeout, accept=_ANYTHING
        )
        try:
            if not 200 <= response.status < 300:
                raise _failed(response.status, await response.read(), f"{method} {path}")
            async for piece in response.response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise APIServerUnreachable(f"{method} {path}: {error or type(error).__name__}") from error
        finally:
            response.response.close()

    async def keep_open(self) -> None:
        """Keep one connection open until cancelled, so that an urgent request does not wait for a TLS handshake.

        The handshake takes longer than the request itself. Failures are ignored: the next request reports them.
        """
        while True:
            with suppress(KubeError):
                await self._call("GET", "/version")
            await asyncio.sleep(KEEP_OPEN_INTERVAL)

    async def credentials(self) -> Credentials:
        settings = self._api.configuration
        header = await settings.get_api_key_with_prefix("BearerToken") or ""
        return Credentials(
            server=settings.host,
            ca_path=settings.ssl_ca_cert or "",
            certificate_path=settings.cert_file or "",
            private_key_path=settings.key_file or "",
            token=header.split()[-1] if header else "",  # the client prefixes "Bearer"
            token_path=self._token_path,
            insecure=not settings.verify_ssl,
        )

    async def close(self) -> None:
        await self._api.close()

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: JsonObject | None = None,
        content: str = _JSON,
    ) -> JsonObject:
        return (await self._exchange(method, path, query=query, body=body, content=content))[0]

    async def _exchange(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: JsonObject | None = None,
        content: str = _JSON,
    ) -> tuple[JsonObject, bool]:
        """Send a request; return the object in the response and whether a part of it was nested too deep."""
        timeout = CALL_TIMEOUT
        if method != "GET" and self._write_time is not None:
            timeout = min(timeout, self._write_time())
            if timeout <= 0:
                raise WriteNotAllowed(f"{method} {path}: this process may not write any more")
            query = {**(query or {}), "timeout": f"{timeout:.3f}s"}
        response = await self._request(method, path, query=query or {}, body=body, content=content, timeout=timeout)
        try:
            payload: bytes = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise APIServerUnreachable(f"{method} {path}: {error or type(error).__name__}") from error
        if not 200 <= response.status < 300:
            raise _failed(response.status, payload, f"{method} {path}")
        return _decoded(payload, f"{method} {path}")

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        body: JsonObject | None,
        content: str,
        timeout: object,
        accept: str = _JSON,
    ) -> Any:
        headers = {"Content-Type": content, "Accept": accept}
        data = encode(body) if content == _APPLY else body
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self._api.configuration.host + path + ("?" + urlencode(query) if query else "")
        began, code = time.perf_counter(), UNREACHABLE
        try:
            response = await self._api.rest_client.request(
                method, url, headers=headers, body=data, _request_timeout=timeout
            )
            code = str(response.status)
            return response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise APIServerUnreachable(f"{method} {path}: {error or type(error).__name__}") from error
        finally:
            self.calls.record(method, path, watch="watch" in query, code=code, seconds=time.perf_counter() - began)


async def connect(kubeconfig: str | None, *, manager: str, calls: APICallMetrics | None = None) -> KubeClient:
    """Connect with the given kubeconfig, else with the pod's service account. Raises KubeError without credentials.

    ``calls`` are metrics that several clients of one process share.
    """
    configuration = Configuration()
    loader: Any = _config  # its functions have no types
    try:
        if kubeconfig:
            await loader.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
        else:
            loader.load_incluster_config(client_configuration=configuration)
    except (_config.ConfigException, OSError) as error:
        raise KubeError(f"no credentials for the API server (set KUBECONFIG or run in a pod): {error}") from error
    token_path = "" if kubeconfig else SERVICE_TOKEN_FILENAME
    return KubeClient(_api_client(configuration), manager=manager, token_path=token_path, calls=calls)


async def connect_as_user(kubeconfig: str, context: str, *, manager: str) -> tuple[KubeClient, str]:
    """Connect as kubectl does; return the client and the namespace of the context.

    An empty ``kubeconfig`` means the files of the variable KUBECONFIG, else ``~/.kube/config``; an empty ``context``
    means the current one. Raises KubeError without credentials.
    """
    configuration = Configuration()
    loader: Any = _config  # its functions have no types
    file, name = kubeconfig or None, context or None
    try:
        await loader.load_kube_config(
            config_file=file, context=name, client_configuration=configuration, persist_config=False
        )
        contexts, current = loader.list_kube_config_contexts(config_file=file)
    except (_config.ConfigException, OSError) as error:
        raise KubeError(f"no credentials for the API server: {error}") from error
    chosen = next((each for each in contexts if each.get("name") == name), current)
    namespace = get_str(chosen, "context", "namespace") or "default"
    return KubeClient(_api_client(configuration), manager=manager), namespace


def _api_client(configuration: Configuration) -> ApiClient:
    api = ApiClient(configuration)
    api.rest_client = _KeepAliveRESTClient(configuration)
    return api


class _KeepAliveRESTClient(RESTClientObject):
    """Keeps idle connections longer than aiohttp's default."""

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(limit=self.maxsize, ssl=self.ssl_context, keepalive_timeout=IDLE_CONNECTION_TIMEOUT)


def _selected(selector: str, fields: str) -> dict[str, str]:
    given = {"labelSelector": selector, "fieldSelector": fields}
    return {name: text for name, text in given.items() if text}


def _event(line: bytes, path: str) -> tuple[str, JsonObject, bool]:
    event, deep = _decoded(line, f"watch of {path}")
    kind, item = get_str(event, "type"), get_object(event, "object")
    if kind == "ERROR" or not kind:
        raise _failed(get_int(item, "code"), line, f"watch of {path}")
    return kind, item, deep


def _failed(status: int, payload: bytes, call: str) -> KubeError:
    try:
        response, _ = decode(payload)
    except ValueError:
        response = None
    message = get_str(response, "message") or get_str(response, "object", "message")
    message = message or payload[:200].decode(errors="replace")
    return error_from_status(status, f"{call}: {status} {message}", server_message=message)


def _decoded(payload: bytes, call: str) -> tuple[JsonObject, bool]:
    """Decode a response of success; an empty one reads as an empty object.

    A response that is no JSON object comes from something between this process and the API server: it must not read as
    a list without objects.
    """
    if not payload:
        return {}, False
    try:
        value, deep = decode(payload)
    except ValueError as error:
        raise APIServerUnreachable(f"{call}: the response is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise APIServerUnreachable(f"{call}: the response is not a JSON object")
    return value, deep
