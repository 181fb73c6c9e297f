"""What kopf is used for: watching. Its handlers write nothing and decide nothing; they pass events on.

Only ``on.event`` handlers are registered, so kopf adds no finalizers and no annotations. kopf runs in a thread with an
event loop of its own, since it ends every task of the loop it runs in when it stops. Fatal errors of a watch end kopf,
and ``ended`` then tells: the process is to end, and to be started again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kopf

from corral_core.jsonfields import Json
from corral_core.model import GROUP, PLURAL, VERSION
from corral_kube.client import Credentials
from corral_operator.objects import MODEL_LABEL

MODELS, DEPLOYMENTS, SERVICES, PODS = "models", "deployments", "services", "pods"

Hear = Callable[[str, str | None, Json], None]
"""``hear(kind, type, object)``; the type is the watch's, None for what was listed."""

_KINDS: Mapping[str, tuple[str, str, str]] = {
    MODELS: (GROUP, VERSION, PLURAL),
    DEPLOYMENTS: ("apps", "v1", "deployments"),
    SERVICES: ("", "v1", "services"),
    PODS: ("", "v1", "pods"),
}

_OUTAGE = (0.1, 0.2, 0.5, 1, 1, 2, 3, *(5,) * 120)
"""Pauses (seconds) between tries while the API server is away: ten minutes of them."""

_TOKEN_TIME = timedelta(minutes=5)
"""How long a token that was read from a file is used; the kubelet replaces it long before it expires."""


class Watches:
    """kopf in a thread. ``hear`` is called on the loop that ``start`` was called on."""

    def __init__(self, hear: Hear, credentials: Credentials, namespaces: tuple[str, ...]) -> None:
        self._hear = hear
        self._credentials = credentials
        self._namespaces = namespaces
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
        """Waits until kopf has ended, and raises why."""
        assert self._ended is not None, "start() comes first"
        error = await asyncio.shield(self._ended)
        raise RuntimeError("watching the API server has ended") from error

    async def stop(self) -> None:
        """Returns when kopf has ended, or after five seconds; also when it was never started."""
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
        except BaseException as caught:  # it ends the thread; whatever it was, the loop must be told
            error = caught
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._report, error)

    def _report(self, error: BaseException | None) -> None:
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
        for kind, resource in _KINDS.items():
            kopf.on.event(*resource, id=kind, registry=registry)(self._handler(kind))
        return registry

    def _login(self, **_: Any) -> kopf.ConnectionInfo:
        known = self._credentials
        token, expires = known.token, None
        if known.token_path:
            token = Path(known.token_path).read_text().strip()
            expires = datetime.now(UTC) + _TOKEN_TIME
        return kopf.ConnectionInfo(
            server=known.server,
            ca_path=known.ca_path or None,
            insecure=known.insecure,
            token=token or None,
            certificate_path=known.certificate_path or None,
            private_key_path=known.private_key_path or None,
            expiration=expires,
        )

    def _handler(self, kind: str) -> Callable[..., Any]:
        async def heard(event: Mapping[str, Any], **_: Any) -> None:
            loop = self._loop
            if loop is not None and not loop.is_closed():
                loop.call_soon_threadsafe(self._hear, kind, event["type"], event["object"])

        return heard


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # the CRD is there, and watching for others would need more rights
    settings.process.ultimate_exiting_timeout = None
    settings.networking.error_backoffs = _OUTAGE
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = 5.0
    for kind in (DEPLOYMENTS, SERVICES, PODS):
        settings.watching.label_selectors[_KINDS[kind]] = MODEL_LABEL
    return settings
