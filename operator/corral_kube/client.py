"""Calls to the API server: objects go in and out as plain JSON, every call has a timeout.

Every failure is a KubeError (``errors``). A watch is given up when it is silent for longer than bookmarks take to come.
"""

from __future__ import annotations

import asyncio
import json
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

from corral_core.jsonfields import Json, integer, mapping, objects, text
from corral_kube.calls import UNREACHABLE, Calls
from corral_kube.errors import Conflict, KubeError, NotFound, Unreachable, failure

TIMEOUT = 15.0
"""Seconds that one call may take."""

KEPT = 75.0
"""Seconds for which an idle connection is kept; the API server closes it after 90."""

KEEPING = 50.0
"""Seconds between two requests whose only purpose is that the connection stays open."""

WATCH_SECONDS = 300
SILENCE = 90.0
"""A bookmark comes about once a minute."""

PAGE = 500
"""Objects that are asked for at once: a list of everything in a large cluster would not fit into memory."""

Trim = Callable[[Json], Json]
"""Makes of an object what is kept of it."""

_JSON, _APPLY = "application/json", "application/apply-patch+yaml"


def whole(item: Json) -> Json:
    """The Trim that keeps everything."""
    return item


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything of one kind, as of ``version``, from which a watch goes on."""

    items: Sequence[Json]
    version: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """How another client in this process reaches the same API server. Paths are files, empty when not used.

    A pod's token is a file that the kubelet writes anew before it expires; ``token_path`` then names it.
    """

    server: str
    ca_path: str
    certificate_path: str
    private_key_path: str
    token: str
    token_path: str
    insecure: bool


class Kube:
    """A connection to the API server. Made by ``connect``; ``close`` it in the end.

    ``manager`` is the field manager of everything that is written without another one.
    """

    def __init__(self, api: ApiClient, *, manager: str, token_path: str = "", calls: Calls | None = None) -> None:
        self._api: Any = api  # the client's methods have no types
        self._manager = manager
        self._token_path = token_path
        self.calls = calls or Calls()

    async def get(self, path: str) -> Json:
        return await self._call("GET", path)

    async def list(self, path: str, *, selector: str = "", fields: str = "", trim: Trim = whole) -> Listing:
        """Everything that the selectors select, by labels and by fields, as of one version."""
        query = {"limit": str(PAGE), **_selected(selector, fields)}
        items: list[Json] = []
        while True:
            answer = await self._call("GET", path, query=query)
            items.extend(map(trim, objects(answer, "items")))
            more = text(answer, "metadata", "continue")
            if not more:
                return Listing(items, text(answer, "metadata", "resourceVersion"))
            query["continue"] = more

    async def watch(
        self, path: str, version: str, *, selector: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[str, Json]]:
        """``(ADDED | MODIFIED | DELETED | BOOKMARK, object)`` until the server ends the watch."""
        query = {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version}
        query |= {"timeoutSeconds": str(WATCH_SECONDS), **_selected(selector, fields)}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=SILENCE)
        answer = await self._request("GET", path, query=query, body=None, content=_JSON, timeout=timeout)
        try:
            if answer.status != 200:
                raise _failed(answer.status, await answer.read(), f"watch of {path}")
            async for line in answer.response.content:
                yield _event(line, path)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"watch of {path}: {error or type(error).__name__}") from error
        finally:
            answer.response.close()

    async def apply(self, path: str, body: Json, *, manager: str = "", force: bool = True) -> Json:
        """Server-side apply: the fields of ``body`` become the manager's, those it left out are given up.

        Without ``force`` a field that has another value by another manager raises Conflict.
        """
        query = {"fieldManager": manager or self._manager, "force": "true" if force else "false"}
        return await self._call("PATCH", path, query=query, body=body, content=_APPLY)

    async def create(self, path: str, body: Json) -> Json:
        return await self._call("POST", path, query={"fieldManager": self._manager}, body=body)

    async def replace(self, path: str, body: Json) -> Json:
        """Raises Conflict unless ``body`` carries the resourceVersion of now."""
        return await self._call("PUT", path, query={"fieldManager": self._manager}, body=body)

    async def delete(self, path: str, *, uid: str, grace: int | None = None) -> None:
        """Deletes the object of this uid; ``grace`` is in seconds, 0 waits for no kubelet. Gone already is well too."""
        body: dict[str, object] = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        try:
            await self._call("DELETE", path, body=body)
        except (NotFound, Conflict):
            return

    async def keep_open(self) -> None:
        """For ever: keeps one connection open while nothing is asked, so that what comes in haste finds it there.

        Setting up TLS would take longer than the request itself. Where the server is away nothing is lost by trying.
        """
        while True:
            with suppress(KubeError):
                await self._call("GET", "/version")
            await asyncio.sleep(KEEPING)

    async def credentials(self) -> Credentials:
        settings = self._api.configuration
        header = await settings.get_api_key_with_prefix("BearerToken") or ""
        return Credentials(
            server=settings.host,
            ca_path=settings.ssl_ca_cert or "",
            certificate_path=settings.cert_file or "",
            private_key_path=settings.key_file or "",
            token=header.split()[-1] if header else "",  # the client puts "Bearer" before it, in either case
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
        body: Json | None = None,
        content: str = _JSON,
    ) -> Json:
        answer = await self._request(method, path, query=query or {}, body=body, content=content, timeout=TIMEOUT)
        try:
            payload: bytes = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{method} {path}: {error or type(error).__name__}") from error
        if not 200 <= answer.status < 300:
            raise _failed(answer.status, payload, f"{method} {path}")
        return _object(payload)

    async def _request(
        self, method: str, path: str, *, query: Mapping[str, str], body: Json | None, content: str, timeout: object
    ) -> Any:
        headers = {"Content-Type": content, "Accept": _JSON}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self._api.configuration.host + path + ("?" + urlencode(query) if query else "")
        began, code = time.perf_counter(), UNREACHABLE
        try:
            answer = await self._api.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=timeout
            )
            code = str(answer.status)
            return answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{method} {path}: {error or type(error).__name__}") from error
        finally:
            self.calls.note(method, path, watch="watch" in query, code=code, seconds=time.perf_counter() - began)


async def connect(kubeconfig: str | None, *, manager: str, calls: Calls | None = None) -> Kube:
    """By the given kubeconfig, else as a pod does. Raises KubeError when there are no credentials.

    ``calls`` counts for several connections of one process.
    """
    configuration = Configuration()
    loader: Any = _config  # its functions have no types
    try:
        if kubeconfig:
            await loader.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
        else:
            loader.load_incluster_config(client_configuration=configuration)
    except (_config.ConfigException, OSError) as error:
        raise KubeError(f"no way to the API server (set KUBECONFIG, or run in a pod): {error}") from error
    token_path = "" if kubeconfig else SERVICE_TOKEN_FILENAME
    api = ApiClient(configuration)
    api.rest_client = _Patient(configuration)
    return Kube(api, manager=manager, token_path=token_path, calls=calls)


class _Patient(RESTClientObject):
    """Keeps idle connections for longer than aiohttp would."""

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(limit=self.maxsize, ssl=self.ssl_context, keepalive_timeout=KEPT)


def _selected(selector: str, fields: str) -> dict[str, str]:
    given = {"labelSelector": selector, "fieldSelector": fields}
    return {name: text for name, text in given.items() if text}


def _event(line: bytes, path: str) -> tuple[str, Json]:
    event = _object(line)
    kind, item = text(event, "type"), mapping(event, "object")
    if kind == "ERROR" or not kind:
        raise _failed(integer(item, "code"), line, f"watch of {path}")
    return kind, item


def _failed(status: int, payload: bytes, call: str) -> KubeError:
    answer = _object(payload)
    said = text(answer, "message") or text(answer, "object", "message") or payload[:200].decode(errors="replace")
    return failure(status, f"{call}: {status} {said}")


def _object(payload: bytes) -> Json:
    try:
        found = json.loads(payload) if payload else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
