"""Authentication by API key, and rate limits. Created only if API keys are configured.

- Credentials are removed from the request: runners never see them.
- A request that is rejected here is not queued and loads no model.
- What a request consumed is counted when it ends, however it ends.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar

from corral_core.base.exposition import Metric, gauge
from corral_core.base.timestamps import format_time
from corral_server.gateway.auth.key_file import ApiKey
from corral_server.gateway.auth.key_metrics import KeyMetrics
from corral_server.gateway.auth.key_store import KeyStore
from corral_server.gateway.auth.rate_limits import KeyRateLimiter, NoPeerKeyUsage, PeerKeyUsage
from corral_server.gateway.messages import Request, Response
from corral_server.gateway.observability.request_metrics import RequestMetrics
from corral_server.gateway.observability.token_usage import tokens_consumed
from corral_server.gateway.queueing.admission import GatewayUsage
from corral_server.wire.errors import ApiError

PUBLIC_PATHS = frozenset(("/", "/healthz", "/readyz", "/ui", "/ui/"))
"""Paths that need no key."""
PUBLIC_FILES = "/ui/assets/"
"""The paths below this one need no key either: the page's files are the same for everyone."""
_ANTHROPIC_PATH = "/v1/messages"
_CREDENTIALS = frozenset((b"authorization", b"x-api-key"))
_MISSING = "an API key is required: send 'Authorization: Bearer KEY'"
_INVALID = "invalid API key"
CURRENT_KEY: ContextVar[ApiKey | None] = ContextVar("key", default=None)
"""API key of the request that the current task serves."""

Handler = Callable[[], Awaitable[Response | None]]


class Unauthorized(ApiError):
    def __init__(self, message: str) -> None:
        super().__init__(401, message)


class Authenticator:
    """``clock`` returns seconds for rates, ``wall_clock`` Unix seconds for expiry."""

    def __init__(
        self,
        store: KeyStore,
        *,
        peers: PeerKeyUsage | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._wall_clock = wall_clock
        self._limiter = KeyRateLimiter(clock, peers or NoPeerKeyUsage())
        self._metrics = KeyMetrics(store.all)
        self._rejected = Counter(dict.fromkeys(("missing", "invalid", "expired"), 0))
        store.on_change = self._keys_changed

    def publish_usage(self, usage: GatewayUsage) -> None:
        """Include the usage of keys with limits in the reports to the peers."""
        usage.key_usage = lambda: self._limiter.usage(key.name for key in self._store.all() if key.limited)
        usage.key_tokens = lambda: self._limiter.tokens(key.name for key in self._store.all() if key.limited)
        self._limiter.on_change = lambda: usage.on_change()

    async def authenticate(self, request: Request, handler: Handler) -> Response | None:
        """Run the handler as the request's key; public paths need none. Raises ApiError 401."""
        if request.path in PUBLIC_PATHS or request.path.startswith(PUBLIC_FILES):
            return await handler()
        key = self._identify(request)
        request.namespace = key.namespace
        token = CURRENT_KEY.set(key)
        try:
            return await handler()
        finally:
            CURRENT_KEY.reset(token)

    def is_valid(self, key: ApiKey) -> bool:
        """Return whether the key is still in use as it is, and not expired; for responses that last."""
        expired = key.expires is not None and self._wall_clock() >= key.expires
        return not expired and any(known == key for known in self._store.all())

    @contextlib.contextmanager
    def limit_rate(self) -> Iterator[None]:
        """Count a request to a model while the block runs. Raises RateLimitExceeded."""
        key = CURRENT_KEY.get()
        if key is None:
            yield
            return
        usage = self._limiter.start(key)
        try:
            yield
        finally:
            self._limiter.finish(usage, key)

    def observe(self, metrics: RequestMetrics) -> None:
        """Count what a request with a key consumed; a RequestObserver."""
        if metrics.api_key:
            prompt, generated = tokens_consumed(metrics)
            self._metrics.record(metrics.api_key, metrics.status, prompt, generated=generated)
            self._limiter.add_tokens(metrics.api_key, prompt + generated)

    def families(self) -> Iterator[Metric]:
        yield from self._metrics.families(self._rejected)
        yield gauge(
            "corral_gateway_invalid_api_key_secrets",
            "Namespaces whose Secret with API keys is invalid; the previous keys stay in use.",
            [({}, len(self._store.invalid))],
        )

    def _identify(self, request: Request) -> ApiKey:
        """Return the request's key and remove the credentials from its headers. Raises ApiError 401."""
        credential = _credential(request)
        key = self._store.find(credential) if credential else None
        if key is None:
            self._rejected["invalid" if credential else "missing"] += 1
            raise Unauthorized(_INVALID if credential else _MISSING)
        if request.metrics is not None:
            request.metrics.api_key = key.name
        if key.expires is not None and self._wall_clock() >= key.expires:
            self._rejected["expired"] += 1
            raise Unauthorized(f"this API key expired at {format_time(key.expires)}")
        request.headers = [(name, value) for name, value in request.headers if name not in _CREDENTIALS]
        request.limits = key.request_limits
        return key

    def _keys_changed(self) -> None:
        names = frozenset(key.name for key in self._store.all())
        self._limiter.retain(names)
        self._metrics.retain(names)


def _credential(request: Request) -> bytes:
    """Return the bearer token, or Anthropic's header on Anthropic's paths; empty if there is none."""
    scheme, _, token = request.header(b"authorization").partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        return token.strip()
    return request.header(b"x-api-key").strip() if f"{request.path}/".startswith(f"{_ANTHROPIC_PATH}/") else b""
