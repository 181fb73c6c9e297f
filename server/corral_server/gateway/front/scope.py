"""What an ASGI application is told of a request; only those requests need it that are served by a coroutine."""

from __future__ import annotations

from corral_server.gateway.front.exchange import Exchange
from corral_server.gateway.messages import Scope

_ASGI = {"version": "3.0", "spec_version": "2.3"}


def scope_of(exchange: Exchange, *, scheme: str, client: object, server: object) -> Scope:
    """``client`` and ``server`` are addresses; under ``corral.exchange`` is the exchange itself."""
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": "1.0" if exchange.old else "1.1",
        "method": exchange.method,
        "scheme": scheme,
        "path": exchange.path,
        "query_string": exchange.query,
        "root_path": "",
        "headers": exchange.headers,
        "client": client,
        "server": server,
        "corral.exchange": exchange,
    }
