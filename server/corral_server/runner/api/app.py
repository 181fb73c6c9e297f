"""ASGI application of the runner: routes, middleware and exception handlers.

Errors use the format of the API whose path was called.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from corral_server.runner.api.anthropic.messages import COUNT_TOKENS, MESSAGES, MessagesEndpoint
from corral_server.runner.api.embeddings.endpoints import EMBED, EMBEDDINGS, OPENAI_EMBEDDINGS, EmbeddingEndpoints
from corral_server.runner.api.llama_server.infill import INFILL, InfillEndpoint
from corral_server.runner.api.llama_server.rerank import RERANK_PATHS, RerankEndpoint
from corral_server.runner.api.llama_server.tokens import DETOKENIZE, TOKENIZE, TokenEndpoints
from corral_server.runner.api.ollama.generate import CHAT, GENERATE, GenerationEndpoints
from corral_server.runner.api.ollama.show import ShowEndpoint
from corral_server.runner.api.openai.chat import CHAT_COMPLETIONS, ChatCompletionsEndpoint
from corral_server.runner.api.openai.completions import COMPLETIONS, CompletionsEndpoint
from corral_server.runner.api.openai.responses import RESPONSES, ResponsesEndpoint
from corral_server.runner.api.response import JSON_CONTENT_TYPE, to_api_error
from corral_server.runner.api.status import StatusEndpoints
from corral_server.runner.lifecycle.own_requests import OwnRequestsOnly
from corral_server.runner.lifecycle.request_limits import ReadsRequestLimits
from corral_server.runner.lifecycle.sending_gateway import SendingGateway
from corral_server.runner.lifecycle.state import RunnerState, RunnerUnavailable
from corral_server.runner.memory.middleware import ReservesMemory
from corral_server.wire import headers
from corral_server.wire.errors import ApiError, error_body

_PLAIN_TEXT_ERRORS = {404: "404 page not found", 405: "405 method not allowed"}


def create_app(state: RunnerState) -> Starlette:
    """Create the application. The endpoints parse request bodies themselves, by Ollama's rules for JSON."""
    return Starlette(
        routes=[*_api_routes(state), *_status_routes(state)],
        middleware=[
            Middleware(OwnRequestsOnly, identity=state.identity),
            Middleware(SendingGateway),
            Middleware(ReadsRequestLimits),
            Middleware(ReservesMemory, memory=state.request_memory),
        ],
        exception_handlers={
            HTTPException: _plain_error,
            ApiError: _api_error,
            ClientDisconnect: _client_disconnected,
            Exception: _internal_error,
        },
    )


def _api_routes(state: RunnerState) -> list[Route]:
    native, embed = GenerationEndpoints(state), EmbeddingEndpoints(state)
    anthropic, tokens, rerank = MessagesEndpoint(state), TokenEndpoints(state), RerankEndpoint(state)
    endpoints = {
        GENERATE: native.generate,
        CHAT: native.chat,
        "/api/show": ShowEndpoint(state).show,
        EMBED: embed.embed,
        EMBEDDINGS: embed.embeddings,
        CHAT_COMPLETIONS: ChatCompletionsEndpoint(state).chat,
        COMPLETIONS: CompletionsEndpoint(state).complete,
        OPENAI_EMBEDDINGS: embed.openai,
        RESPONSES: ResponsesEndpoint(state).responses,
        MESSAGES: anthropic.messages,
        COUNT_TOKENS: anthropic.count_tokens,
        TOKENIZE: tokens.tokenize,
        DETOKENIZE: tokens.detokenize,
        INFILL: InfillEndpoint(state).infill,
        **dict.fromkeys(RERANK_PATHS, rerank.rerank),
    }
    return [Route(path, endpoint, methods=["POST"]) for path, endpoint in endpoints.items()]


def _status_routes(state: RunnerState) -> list[Route]:
    status = StatusEndpoints(state)
    endpoints = {
        "/activity": status.status,
        "/healthz": status.health,
        "/readyz": status.ready,
        "/metrics": status.metrics,
        "/info": status.info,
    }
    return [Route(path, endpoint, methods=["GET"]) for path, endpoint in endpoints.items()]


async def _plain_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return PlainTextResponse(_PLAIN_TEXT_ERRORS.get(status, str(error)), status)


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError), "registered for ApiError"
    body = error_body(request.url.path, error.status, error.message)
    response = Response(body, error.status, media_type=JSON_CONTENT_TYPE.decode())
    if isinstance(error, RunnerUnavailable):
        response.headers[headers.RETRY.decode()] = error.reason
    if error.retry_after is not None:
        response.headers["retry-after"] = str(error.retry_after)
    return response


async def _client_disconnected(_request: Request, _error: Exception) -> Response:
    """Answer a request whose client disconnected before the body was complete; the response is discarded."""
    return Response(status_code=499)


async def _internal_error(request: Request, error: Exception) -> Response:
    return await _api_error(request, to_api_error(error))
