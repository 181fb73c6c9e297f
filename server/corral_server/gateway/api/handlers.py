"""Handlers of the requests that the gateway answers itself, and the table of all routes."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping

from corral_server.gateway.api import metadata
from corral_server.gateway.api.forwarded import APIS, SHOW
from corral_server.gateway.api.management import BLOBS, ManagementHandlers
from corral_server.gateway.api.request_body import BodyReader
from corral_server.gateway.api.routes import Handler
from corral_server.gateway.api.running import loaded_models
from corral_server.gateway.api.verbose_show import verbose_show, wants_verbose
from corral_server.gateway.auth.authorized_directory import AuthorizedDirectory
from corral_server.gateway.bodies.json_body import field
from corral_server.gateway.directory.directory import Directory
from corral_server.gateway.messages import TEXT_TYPE, Request, Response, json_response
from corral_server.gateway.upstream.pool import ConnectionPool
from corral_server.wire.errors import ApiError

_NO_AUDIO = "audio transcriptions are not supported here"


class Readiness:
    """Whether the gateway takes requests: its Models are listed and it is not shutting down."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.draining = False

    async def handle(self, request: Request) -> Response:
        return self.response()

    def response(self) -> Response:
        if self.draining:
            return Response(503, b"the gateway is shutting down", TEXT_TYPE)
        if self._directory.synced():
            return Response(200, b"ready", TEXT_TYPE)
        return Response(503, b"the models are not listed yet", TEXT_TYPE)


class ModelHandlers:
    """Requests about Models: lists, what runs, and ``show``."""

    def __init__(
        self, directory: Directory, pool: ConnectionPool, bodies: BodyReader, authorized: AuthorizedDirectory | None
    ) -> None:
        self._directory = directory
        self._pool = pool
        self._bodies = bodies
        self._authorized = authorized

    async def tags(self, request: Request) -> Response:
        return json_response(metadata.tags(self._directory))

    async def ps(self, request: Request) -> Response:
        return json_response(await loaded_models(self._directory, self._pool))

    async def show(self, request: Request) -> Response | None:
        data = await self._bodies.read_object(request, SHOW.kind, SHOW.empty_body)
        name = field(data, "model", kind=SHOW.kind) or field(data, "name", kind=SHOW.kind)
        if not name:
            raise SHOW.missing_model(data)
        if self._authorized is not None:
            self._authorized.authorize(name)
        system, agent = field(data, "system", kind=SHOW.kind), request.header(b"user-agent")
        stored = metadata.show(self._directory, name, system=system, user_agent=agent)
        found = self._directory.find(name) if wants_verbose(data) else None
        if found is not None and await verbose_show(self._pool, found.entry, request):
            return None
        return json_response(stored)

    async def openai_models(self, request: Request) -> Response:
        return json_response(metadata.openai_models(self._directory))

    async def openai_model(self, request: Request) -> Response:
        name = urllib.parse.unquote(request.path.removeprefix("/v1/models/"))
        return json_response(metadata.openai_model(self._directory, name))


def route_table(
    models: ModelHandlers, management: ManagementHandlers, readiness: Readiness, *, version: str, forward: Handler
) -> Mapping[str, Mapping[str, Handler]]:
    """Return the handlers by path and method; ``forward`` handles the paths that go to a runner."""

    async def show_version(request: Request) -> Response:
        return json_response({"version": version})

    registry, blob = management.registry, management.blob
    return {
        "/": {"GET": _root, "HEAD": _root},
        "/healthz": {"GET": _root, "HEAD": _root},
        "/readyz": {"GET": readiness.handle, "HEAD": readiness.handle},
        "/api/version": {"GET": show_version, "HEAD": show_version},
        "/api/status": {"GET": _cloud_status},
        "/api/tags": {"GET": models.tags, "HEAD": models.tags},
        "/api/ps": {"GET": models.ps},
        "/api/show": {"POST": models.show},
        "/api/me": {"POST": _account},
        "/api/signout": {"POST": _sign_out},
        "/api/experimental/model-recommendations": {"GET": _recommendations},
        "/api/user/keys/*": {"DELETE": _sign_out},
        "/api/experimental/web_search": {"POST": _web_search},
        "/api/experimental/web_fetch": {"POST": _web_fetch},
        "/api/pull": {"POST": registry.pull},
        "/api/push": {"POST": registry.push},
        "/api/create": {"POST": management.create},
        "/api/copy": {"POST": registry.copy},
        "/api/delete": {"DELETE": registry.delete},
        f"{BLOBS}*": {"POST": blob, "HEAD": blob},
        "/v1/audio/transcriptions": {"POST": _audio},
        "/v1/models": {"GET": models.openai_models},
        "/v1/models/*": {"GET": models.openai_model},
        **{path: {"POST": forward} for path in APIS},
    }


async def _root(request: Request) -> Response:
    return Response(200, b"Ollama is running", TEXT_TYPE)


async def _cloud_status(request: Request) -> Response:
    return json_response({"cloud": {"disabled": True, "source": "env"}})


async def _account(request: Request) -> Response:
    raise ApiError(503, "account unavailable")


async def _sign_out(request: Request) -> Response:
    """Answer as Ollama does for a client that is not signed in."""
    raise ApiError(500, "there was an error signing out")


async def _recommendations(request: Request) -> Response:
    return json_response({"recommendations": []})


async def _web_search(request: Request) -> Response:
    raise ApiError(403, "ollama cloud is disabled: web search is unavailable")


async def _web_fetch(request: Request) -> Response:
    raise ApiError(403, "ollama cloud is disabled: web fetch is unavailable")


async def _audio(request: Request) -> Response:
    raise ApiError(501, _NO_AUDIO)
