"""Lets in those who have a key, to the models that it is for, as often as it allows. There is none where keys are off.

The file is read again when it has changed, looked at when somebody comes and at most once in ``INTERVAL``; one that
cannot be used leaves the keys as they were. A key is compared with all keys there are, each in constant time, so that
how long it takes says nothing about any. Credentials end here: runners never see them. A request that is refused here
has not been queued, and wakes no model.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

from corral_core.errors import CorralError, InvalidSetting
from corral_server.gateway.admission import Holding
from corral_server.gateway.keys.file import Key, digest_of, parse_keys
from corral_server.gateway.keys.rates import Elsewhere, Nowhere, Rates
from corral_server.gateway.messages import Answer, Request
from corral_server.wire.errors import ApiError

log = logging.getLogger(__name__)

INTERVAL = 1.0
OPEN = frozenset(("/", "/healthz", "/readyz"))
"""What is answered to anybody: probes, and that a server is here."""
ANTHROPIC = "/v1/messages"
_CREDENTIALS = frozenset((b"authorization", b"x-api-key"))
_MISSING = "an API key is required: send it as 'Authorization: Bearer KEY'"
_WRONG = "this API key is not known"
CURRENT: ContextVar[Key | None] = ContextVar("key", default=None)
"""Whose request this task serves."""

Work = Callable[[], Awaitable[Answer | None]]


class Unauthorized(ApiError):
    def __init__(self, message: str) -> None:
        super().__init__(401, message)


class Guard:
    """Raises InvalidSetting when there is no file, or one that cannot be used, to begin with."""

    def __init__(
        self, path: str, *, elsewhere: Elsewhere | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = Path(path)
        self._clock = clock
        self._rates = Rates(clock, elsewhere or Nowhere())
        self._looked_at = clock()
        try:
            self._seen = self._look()
            self._keys = parse_keys(self._path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, CorralError) as error:
            raise InvalidSetting(f"CORRAL_API_KEYS_FILE={path!r} cannot be used: {error}") from error

    def tell(self, holding: Holding) -> None:
        """Has the other gateways told what the keys use here."""
        holding.uses = lambda: self._rates.levels(key.name for key in self._keys if key.bounded)
        self._rates.changed = lambda: holding.changed()

    async def serve(self, request: Request, work: Work) -> Answer | None:
        """Does the work for whoever has a key, or for anybody where none is needed. Raises ApiError 401."""
        if request.path in OPEN:
            return await work()
        key = self._key(request)
        if request.exchange is not None and request.exchange.record is not None:
            request.exchange.record.client = key.name
        token = CURRENT.set(key)
        try:
            return await work()
        finally:
            CURRENT.reset(token)

    def check(self, model: str) -> None:
        """Raises ApiError 403 when the model is not for this task's key, whether there is such a model or not."""
        key = CURRENT.get()
        if key is not None and not key.allows(model):
            raise ApiError(403, f"this API key is not for model '{model}'")

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """A request to a model, from its begin to its end. Raises TooMany."""
        key = CURRENT.get()
        if key is None:
            yield
            return
        use = self._rates.take(key)
        try:
            yield
        finally:
            self._rates.end(use, key)

    def at_once(self, request: Request, model: str, send: Callable[[], bool]) -> bool:
        """The same for a request that needs no coroutine; False when it must go the usual way, and be told why.

        Nothing is known here of its end, so keys with a bound on what runs go the usual way.
        """
        try:
            key = self._key(request)
            if key.concurrent is not None or not key.allows(model):
                return False
            use = self._rates.take(key)
        except ApiError:
            return False
        sent = False
        try:
            sent = send()
        finally:
            self._rates.end(use, key, counts=sent)
        if sent and request.exchange is not None and request.exchange.record is not None:
            request.exchange.record.client = key.name
        return sent

    def _key(self, request: Request) -> Key:
        """Whose request it is; takes the credentials off it. Raises ApiError 401."""
        self._read_again()
        given = _given(request)
        if not given:
            raise Unauthorized(_MISSING)
        digest = digest_of(given)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        if found is None:
            raise Unauthorized(_WRONG)
        request.headers = [(name, value) for name, value in request.headers if name not in _CREDENTIALS]
        return found

    def _read_again(self) -> None:
        now = self._clock()
        if now - self._looked_at < INTERVAL:
            return
        self._looked_at = now
        try:
            seen = self._look()
            if seen == self._seen:
                return
            self._seen = seen
            self._keys = parse_keys(self._path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, CorralError) as error:
            log.error("the API keys cannot be read again, those from before hold: %s", error)
            return
        self._rates.keep(frozenset(key.name for key in self._keys))
        log.info("the API keys were read again: there are %d", len(self._keys))

    def _look(self) -> tuple[int, int, int]:
        """Raises OSError."""
        state = self._path.stat()
        return state.st_ino, state.st_mtime_ns, state.st_size


def _given(request: Request) -> bytes:
    """The key in the request, empty for none: a bearer token, or Anthropic's header on Anthropic's paths."""
    scheme, _, token = request.header(b"authorization").partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        return token.strip()
    return request.header(b"x-api-key").strip() if f"{request.path}/".startswith(f"{ANTHROPIC}/") else b""
