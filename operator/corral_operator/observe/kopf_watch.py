"""Watches of the Models and of what they own, by kopf.

kopf watches, reconnects and authenticates; nothing else of it is used. Only ``on.event`` handlers are registered, which
write nothing: create, update and delete handlers, timers and daemons would add finalizers or annotations. kopf runs in
a thread with its own event loop, because it ends every task of its loop when it stops. A fatal error of a watch ends
kopf; ``ended`` then raises, so that the process ends and is restarted.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kopf

from corral_core.base.json_fields import JsonObject
from corral_core.model.model import GROUP, PLURAL, VERSION
from corral_kube.client import PAGE_SIZE, Credentials
from corral_operator.observe.cluster_state import Kind
from corral_operator.observe.feed import StateFeed
from corral_operator.observe.kopf_session import session
from corral_operator.observe.labels import MODEL_LABEL

_RESOURCES: Mapping[Kind, tuple[str, str, str]] = {
    Kind.MODELS: (GROUP, VERSION, PLURAL),
    Kind.DEPLOYMENTS: ("apps", "v1", "deployments"),
    Kind.SERVICES: ("", "v1", "services"),
    Kind.NETWORK_POLICIES: ("networking.k8s.io", "v1", "networkpolicies"),
    Kind.CLAIMS: ("", "v1", "persistentvolumeclaims"),
    Kind.PODS: ("", "v1", "pods"),
}

_BACKOFFS = (0.1, 0.2, 0.5, 1, 1, 2, 3, *(5,) * 120)
"""Pauses (seconds) between attempts while the API server is unreachable: ten minutes in all."""

_TOKEN_LIFETIME = timedelta(minutes=5)
"""How long a token read from a file is used; the kubelet replaces it long before it expires."""


class KopfWatches:
    """Feeds the watch events on the event loop that calls ``start``.

    ``relisted`` is called when kopf has listed a kind again: deletions may have been missed.
    """

    def __init__(
        self,
        feed: StateFeed,
        credentials: Credentials,
        *,
        namespaces: tuple[str, ...],
        relisted: Callable[[], None],
    ) -> None:
        self._feed = feed
        self._credentials = credentials
        self._namespaces = namespaces
        self._relisted = relisted
        self._stop = asyncio.Event()
        self._kopf_loop: asyncio.AbstractEventLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[BaseException | None] | None = None
        self._thread = threading.Thread(target=self._run, name="watches", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._thread.start()

    async def ended(self) -> None:
        """Wait until kopf has ended, and raise RuntimeError with its error as the cause."""
        assert self._ended is not None, "start() comes first"
        error = await asyncio.shield(self._ended)
        raise RuntimeError("the watches of the API server have ended") from error

    async def stop(self) -> None:
        """Stop kopf and wait for its end, five seconds at most. May be called without ``start``."""
        if not self._thread.is_alive():
            return
        if self._kopf_loop is not None:
            self._kopf_loop.call_soon_threadsafe(self._stop.set)
        else:
            self._stop.set()
        await asyncio.to_thread(self._thread.join, 5.0)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            asyncio.run(self._watch())
        except BaseException as caught:  # of any kind: it ends the thread, and the event loop reports it
            error = caught
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._report_end, error)

    def _report_end(self, error: BaseException | None) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(error)

    async def _watch(self) -> None:
        self._kopf_loop = asyncio.get_running_loop()
        await kopf.operator(
            registry=self._registry(),
            settings=_settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=self._stop,
        )

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(id="credentials", registry=registry)(self._login)
        for kind, resource in _RESOURCES.items():
            kopf.on.event(*resource, id=kind.value, registry=registry)(self._handler(kind))
        return registry

    async def _login(self, **_: Any) -> kopf.AiohttpSession:
        credentials = self._credentials
        token, expires = credentials.token, None
        if credentials.token_path:
            token = (await asyncio.to_thread(Path(credentials.token_path).read_text)).strip()
            expires = datetime.now(UTC) + _TOKEN_LIFETIME
        connection = kopf.ConnectionInfo(
            server=credentials.server,
            ca_path=credentials.ca_path or None,
            insecure=credentials.insecure,
            token=token or None,
            certificate_path=credentials.certificate_path or None,
            private_key_path=credentials.private_key_path or None,
        )
        http = session(connection.as_ssl_context(), connection.as_http_headers())
        return kopf.AiohttpSession(server=credentials.server, aiohttp_session=http, expiration=expires)

    def _handler(self, kind: Kind) -> Callable[..., Any]:
        async def forward(event: Mapping[str, Any], **_: Any) -> None:
            loop = self._loop
            if loop is not None and not loop.is_closed():
                loop.call_soon_threadsafe(self._receive, kind, event["type"], event["object"])

        return forward

    def _receive(self, kind: Kind, event_type: str | None, raw: JsonObject) -> None:
        """Feed one event; kopf gives listed objects the type None."""
        if event_type is None:
            self._relisted()
        if event_type == "DELETED":
            self._feed.delete(kind, raw)
        else:
            self._feed.apply(kind, raw)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # the CRD is installed, and watching for new CRDs would need more permissions
    settings.process.ultimate_exiting_timeout = None
    settings.watching.chunk_size = PAGE_SIZE
    settings.networking.error_backoffs = _BACKOFFS
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = 5.0
    for kind in _RESOURCES.keys() - {Kind.MODELS}:
        settings.watching.label_selectors[_RESOURCES[kind]] = MODEL_LABEL
    return settings
