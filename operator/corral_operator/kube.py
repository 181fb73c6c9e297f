"""The API server, as the operator uses it: the one module that knows the kubernetes client.

Objects go in and out as plain JSON. Every call has a timeout, and every failure is one of:

KubeError
├── Unreachable   no answer: the server is away, or too slow
├── NotFound      404
├── Conflict      409: somebody else was first
└── Refused       any other answer that is no success
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config as _config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.incluster_config import SERVICE_TOKEN_FILENAME

from corral_core.errors import CorralError
from corral_core.jsonfields import Json, objects, text

FIELD_MANAGER = "corral-operator"
TIMEOUT = 15.0
"""Seconds that one call may take."""

_JSON, _APPLY = "application/json", "application/apply-patch+yaml"


class KubeError(CorralError):
    """A call to the API server that failed."""


class Unreachable(KubeError):
    """No answer."""


class NotFound(KubeError):
    """The object, or its kind, does not exist."""


class Conflict(KubeError):
    """The object was changed by somebody else, or exists already."""


class Refused(KubeError):
    """The API server said no; the text is its reason."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything of one kind, as of ``version``."""

    items: Sequence[Json]
    version: int


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
    """A connection to the API server. Made by ``connect``; ``close`` it in the end."""

    def __init__(self, api: ApiClient, *, token_path: str = "") -> None:
        self._api: Any = api  # the client's methods have no types
        self._token_path = token_path

    async def get(self, path: str) -> Json:
        return await self._call("GET", path)

    async def list(self, path: str, *, selector: str = "") -> Listing:
        query = {"labelSelector": selector} if selector else {}
        answer = await self._call("GET", path, query=query)
        version = text(answer, "metadata", "resourceVersion")
        return Listing(objects(answer, "items"), int(version) if version.isdecimal() else 0)

    async def apply(self, path: str, body: Json, *, manager: str = FIELD_MANAGER, force: bool = True) -> Json:
        """Server-side apply: the fields of ``body`` become this manager's, those it left out are given up.

        Without ``force`` a field that has another value by another manager raises Conflict.
        """
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        return await self._call("PATCH", path, query=query, body=body, content=_APPLY)

    async def create(self, path: str, body: Json) -> Json:
        return await self._call("POST", path, query={"fieldManager": FIELD_MANAGER}, body=body)

    async def replace(self, path: str, body: Json) -> Json:
        """Raises Conflict unless ``body`` carries the resourceVersion of now."""
        return await self._call("PUT", path, query={"fieldManager": FIELD_MANAGER}, body=body)

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
        headers = {"Content-Type": content, "Accept": _JSON}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self._api.configuration.host + path + ("?" + urlencode(query) if query else "")
        try:
            answer = await self._api.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=TIMEOUT
            )
            payload = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{method} {path}: {error or type(error).__name__}") from error
        return _checked(answer.status, payload, f"{method} {path}")


async def connect(kubeconfig: str | None) -> Kube:
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
    return Kube(ApiClient(configuration), token_path="" if kubeconfig else SERVICE_TOKEN_FILENAME)


def _checked(status: int, payload: bytes, call: str) -> Json:
    try:
        answer = json.loads(payload) if payload else {}
    except ValueError:
        answer = {}
    if not isinstance(answer, dict):
        answer = {}
    if 200 <= status < 300:
        return answer
    message = f"{call}: {status} {text(answer, 'message') or payload[:200].decode(errors='replace')}"
    if status == 404:
        raise NotFound(message)
    if status == 409:
        raise Conflict(message)
    if status >= 500 or status == 429:
        raise Unreachable(message)
    raise Refused(message)
