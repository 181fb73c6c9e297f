"""The runner's routes, and how what is raised in them becomes an answer in the format of the path."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from corral_server.runner.activity_routes import ActivityRoutes
from corral_server.runner.answer import JSON, failure
from corral_server.runner.anthropic import MESSAGES, AnthropicApi
from corral_server.runner.completions import COMPLETIONS, CompletionsApi
from corral_server.runner.embed import EMBED, EMBEDDINGS, OPENAI_EMBEDDINGS, EmbedApi
from corral_server.runner.native import CHAT, GENERATE, NativeApi
from corral_server.runner.openai import CHAT as OPENAI_CHAT
from corral_server.runner.openai import OpenAIApi
from corral_server.runner.origin import Origins
from corral_server.runner.responses import RESPONSES, ResponsesApi
from corral_server.runner.show import ShowApi
from corral_server.runner.state import NotServing, RunnerState
from corral_server.wire import headers
from corral_server.wire.errors import ApiError, error_body

_PLAIN = {404: "404 page not found", 405: "405 method not allowed"}


def create_app(state: RunnerState) -> FastAPI:
    """Bodies are parsed by the endpoints themselves: Ollama's rules are not those of FastAPI's models."""
    app = FastAPI(title="corral-runner", openapi_url=None)
    native, openai, activity, show = NativeApi(state), OpenAIApi(state), ActivityRoutes(state), ShowApi(state)
    app.add_route(GENERATE, native.generate, methods=["POST"])
    app.add_route(CHAT, native.chat, methods=["POST"])
    app.add_route(OPENAI_CHAT, openai.chat, methods=["POST"])
    app.add_route(COMPLETIONS, CompletionsApi(state).complete, methods=["POST"])
    embed = EmbedApi(state)
    app.add_route(EMBED, embed.embed, methods=["POST"])
    app.add_route(EMBEDDINGS, embed.embeddings, methods=["POST"])
    app.add_route(OPENAI_EMBEDDINGS, embed.openai, methods=["POST"])
    app.add_route(RESPONSES, ResponsesApi(state).responses, methods=["POST"])
    app.add_route(MESSAGES, AnthropicApi(state).messages, methods=["POST"])
    app.add_route("/api/show", show.show, methods=["POST"])
    app.add_route("/activity", activity.activity, methods=["GET"])
    app.add_route("/healthz", activity.health, methods=["GET"])
    app.add_route("/readyz", activity.ready, methods=["GET"])
    app.add_route("/metrics", activity.metrics, methods=["GET"])
    app.add_route("/info", activity.info, methods=["GET"])
    app.add_middleware(Origins)
    app.add_exception_handler(HTTPException, _plain_error)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _internal_error)
    return app


async def _plain_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return PlainTextResponse(_PLAIN.get(status, str(error)), status)


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError), "registered for ApiError"
    body = error_body(request.url.path, error.status, error.message)
    response = Response(body, error.status, media_type=JSON.decode())
    if isinstance(error, NotServing):
        response.headers[headers.RETRY.decode()] = error.reason
    return response


async def _gone(_request: Request, _error: Exception) -> Response:
    """The client left before its request had come; nobody reads this."""
    return Response(status_code=499)


async def _internal_error(request: Request, error: Exception) -> Response:
    return await _api_error(request, failure(error))
