"""Metrics of one request, recorded while it is served.

The HTTP server records the writes of the response, the dispatcher the time in the queue. Only numbers are kept, no part
of the request or the response, with one exception: while there are observers, the last chunk of the response, from
which the access log and tracing read the token counts.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from corral_server.gateway.http_server.exchange import Headers
from corral_server.gateway.http_server.observer import ResponseObserver
from corral_server.gateway.observability.metrics import ModelMetrics
from corral_server.gateway.queueing.model_queue import PendingRequest

CLIENT_CLOSED_REQUEST = 499
"""Status of a request whose client disconnected before the response was complete, as in nginx."""


class RequestMetrics(ResponseObserver):
    """Times are ``perf_counter``'s, and refer to the response body.

    ``model`` is the Model's key, empty if there is none. ``pending`` is set if the request could not be sent
    immediately. ``forwarded``: it was sent to a runner; ``incomplete``: the response ended early. ``tail`` is the last
    chunk of the response. ``model_name`` is the one of the Model's names that was meant. ``api_key`` is the name of the
    client's key. Only for a request with a key are counted: ``body_bytes`` of the request, ``prompt_tokens`` as the
    runner reports them at the beginning of a stream (-1: it does not), and ``events``, the lines or events of a stream.
    """

    # Class attributes as defaults: one instance is created per request, and attributes that are not set cost nothing.
    first_byte_at: float = 0.0
    last_byte_at: float = 0.0
    ended_at: float = 0.0
    response_bytes: int = 0
    forwarded: bool = False
    method: str = "POST"
    api_key: str = ""
    model_name: str = ""
    body_bytes: int = 0
    prompt_tokens: int = -1
    events: int = 0
    tail: bytes = b""
    pending: PendingRequest | None = None

    def __init__(
        self, model_metrics: ModelMetrics, *, model: str, api: str, headers: Headers, observer: RequestObserver | None
    ) -> None:
        self.model_metrics = model_metrics
        self.model = model
        self.api = api
        self.headers = headers
        self.observer = observer
        self.started_at = perf_counter()

    def set_model(self, model: str, model_metrics: ModelMetrics) -> None:
        self.model, self.model_metrics = model, model_metrics

    def record_write(self, chunk: bytes, *, stream: bool = False) -> None:
        """Record a write of the response body, which may be empty. ``stream``: it is a chunk of a streamed response."""
        now = perf_counter()
        if not self.first_byte_at:
            self.first_byte_at = now
        elif stream and chunk:
            self.model_metrics.chunk_interval.observe(now - self.last_byte_at)
        self.last_byte_at = now
        self.response_bytes += len(chunk)
        if stream and self.api_key:
            self.events += chunk.count(b"}\n")
        if self.observer is not None and len(chunk) > 32:  # shorter chunks are end markers
            self.tail = chunk

    def finish(self, *, disconnected: bool = False) -> None:
        """Record the end of the response, or that the client disconnected. Called once."""
        self.ended_at = perf_counter() if disconnected or not self.last_byte_at else self.last_byte_at
        if disconnected:
            self.status = CLIENT_CLOSED_REQUEST
        if self.pending is not None:
            self.pending.end_wait(self.ended_at)
        metrics, key = self.model_metrics, (self.api, self.status)
        metrics.requests[key] = metrics.requests.get(key, 0) + 1
        metrics.response_bytes += self.response_bytes
        if self.model:
            self._observe(metrics)
        if self.observer is not None:
            self.observer(self)
            self.tail = b""

    def _observe(self, metrics: ModelMetrics) -> None:
        pending = self.pending
        if pending is None:
            metrics.queue_wait.counts[0] += self.forwarded  # an observation of 0; a rejected request was not queued
        else:
            metrics.queue_wait.observe(pending.queue_seconds)
            if pending.wake:
                metrics.wake.observe(pending.queue_seconds)
        if self.incomplete:
            metrics.incomplete_responses += self.status < 400
        elif self.status < 400:
            metrics.observe_response(self.first_byte_at - self.started_at, self.ended_at - self.started_at)


RequestObserver = Callable[[RequestMetrics], None]
"""Called with the metrics of each request that has ended."""
