"""Requests to a gateway: load, unload and pull, by its Service through the API server, or by its own URL.

- Through the API server the user's account needs ``create`` on ``services/proxy`` in the namespace of the gateways. The
  API server removes the header ``Authorization`` from proxied requests (kubernetes,
  apiserver/pkg/endpoints/filters/authentication.go), so gateways with API keys cannot be reached in this way.
- By its URL the gateway gets the API key of the variable ``OLLAMA_API_KEY``, as from Ollama's clients.
- The Service is that of the installation that wrote the Model's status.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import aiohttp

from corral_core.base.json_fields import JsonObject, get_str
from corral_kube.client import KubeClient
from corral_kube.errors import Forbidden, KubeError, NotFound
from corral_kubectl.models import CommandFailed

_PORT = "http"
_OPERATOR = "-operator"
"""What the name of the operator's Lease has behind the name of the gateways' Service, in the chart."""
_HINT = "or set --gateway URL to reach the gateway by its own address, with the API key in OLLAMA_API_KEY"


@dataclass(frozen=True, slots=True)
class Service:
    """The Service of the gateways. With ``tls`` they accept only TLS."""

    namespace: str
    name: str
    tls: bool = False

    @property
    def path(self) -> str:
        scheme = "https:" if self.tls else ""
        return f"/api/v1/namespaces/{self.namespace}/services/{scheme}{self.name}:{_PORT}/proxy"


def service_of(model: JsonObject, given: str, *, tls: bool) -> Service:
    """Return the Service ``given`` as ``namespace/name``, else that of the Model's installation.

    Raises CommandFailed if it is not known.
    """
    lease = get_str(model, "status", "operator")
    namespace, _, name = (given or lease.removesuffix(_OPERATOR)).partition("/")
    if not namespace or not name:
        what = f"--service {given!r} must be NAMESPACE/NAME" if given else "no operator has processed this Model yet"
        raise CommandFailed(what)
    return Service(namespace, name, tls)


class GatewayRequests:
    """Sends requests to the gateway at ``url``, or without one to the Service of the gateways."""

    def __init__(self, kube: KubeClient, service: Service | None, *, url: str = "", key: str = "") -> None:
        self._kube = kube
        self._service = service
        self._url = url.rstrip("/")
        self._key = key

    async def post(self, path: str, body: Mapping[str, object]) -> AsyncIterator[JsonObject]:
        """Yield the objects of the response, which has one for each line. Raises CommandFailed, KubeError."""
        rest = b""
        async for piece in self._pieces(path, body):
            *lines, rest = (rest + piece).split(b"\n")
            for line in filter(None, lines):
                yield _object(line)
        if rest.strip():
            yield _object(rest)

    async def _pieces(self, path: str, body: Mapping[str, object]) -> AsyncIterator[bytes]:
        pieces = self._direct(path, body) if self._url else self._proxied(path, body)
        async for piece in pieces:
            yield piece

    async def _direct(self, path: str, body: Mapping[str, object]) -> AsyncIterator[bytes]:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=15)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
                session.post(f"{self._url}{path}", json=body, headers=headers) as response,
            ):
                if response.status != 200:
                    raise CommandFailed(f"the gateway refuses: {_error(await response.read())}")
                async for piece in response.content.iter_any():
                    yield piece
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise CommandFailed(f"cannot reach the gateway at {self._url}: {error or type(error).__name__}") from error

    async def _proxied(self, path: str, body: Mapping[str, object]) -> AsyncIterator[bytes]:
        assert self._service is not None, "without a URL there is a Service"
        service = self._service
        try:
            async for piece in self._kube.stream("POST", f"{service.path}{path}", body=body):
                yield piece
        except Forbidden as error:
            text = f"you may not reach Service {service.namespace}/{service.name} through the API server"
            raise CommandFailed(f"{text}: ask for create on services/proxy there, {_HINT}") from error
        except NotFound as error:
            if f'services "{service.name}" not found' in error.server_message:
                text = f"there is no Service {service.namespace}/{service.name}"
                raise CommandFailed(f"{text}: set --service NAMESPACE/NAME, {_HINT}") from error
            raise CommandFailed(f"the gateway refuses: {_error(error.server_message.encode())}") from error
        except KubeError as error:
            raise CommandFailed(_refusal(error)) from error


def _refusal(error: KubeError) -> str:
    text = _error(error.server_message.encode()) if error.server_message else str(error)
    if error.status == 401:
        return f"the gateway needs an API key, which the API server does not pass on ({text}): set --gateway URL"
    return f"the gateway cannot be reached, or refuses: {text}"


def _object(line: bytes) -> JsonObject:
    """Parse one line of a response. Raises CommandFailed for an error in it, or something else than an object."""
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise CommandFailed(f"this is no gateway: it answered {line[:200].decode(errors='replace')!r}")
    if isinstance(value.get("error"), str):
        raise CommandFailed(f"the gateway refuses: {value['error']}")
    return value


def _error(content: bytes) -> str:
    """Return the text of an error in Ollama's format, or the content as it is."""
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    return get_str(value, "error") or content[:500].decode(errors="replace").strip()
