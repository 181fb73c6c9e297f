"""The gateway's settings: one frozen value, built once from the environment.

Settings that Ollama has carry its names; the rest begin with ``CORRAL_``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from corral_core.errors import InvalidSetting
from corral_core.settings import duration_setting, int_setting, list_setting, text_setting
from corral_server.gateway.bodies import half_of_memory
from corral_server.gateway.front.limits import DEFAULTS, PER_CONNECTION, Limits, connections_by_files
from corral_server.gateway.front.tls import TlsFiles
from corral_server.gateway.routing.bounds import NO_BOUNDS, Bounds

DEFAULT_PORT = 11434
MIB = 1024 * 1024

OLLAMA_VERSION = "0.32.1"
"""What /api/version says: clients compare it with the release that brought a feature they need."""


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """``port`` 0 lets the system choose. Sizes are bytes, times seconds.

    ``bounds`` hold for Models that say nothing of their queue.
    A request is sent again at most ``connect_tries`` times when its connection was reset before the runner began it,
    and for ``connect_patience`` when no connection can be made to a runner that is listed as ready.
    ``body_limit`` bounds one body, ``bodies_limit`` all that are held at a time.
    On SIGTERM new connections are still accepted for ``drain_delay``, then held and running requests have
    ``drain_timeout``. ``upstream_silence`` is how long a runner may send nothing, 0 for ever. ``keys_file`` holds the
    API keys, empty for none. ``origins`` are OLLAMA_ORIGINS' entries; Ollama's defaults are added where they are used.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    max_queue: int = 512
    bounds: Bounds = NO_BOUNDS
    origins: tuple[str, ...] = ()
    path_prefix: str = ""
    version: str = OLLAMA_VERSION
    gateway_id: str = "gateway"
    body_limit: int = 64 * MIB
    bodies_limit: int = 1024 * MIB
    depth_limit: int = 512
    connect_timeout: float = 5.0
    connect_tries: int = 5
    connect_patience: float = 180.0
    drain_timeout: float = 600.0
    drain_delay: float = 0.0
    upstream_silence: float = 0.0
    limits: Limits = DEFAULTS
    tls: TlsFiles | None = None
    keys_file: str = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, host: str = "0.0.0.0") -> GatewayConfig:  # noqa: S104
        """``host`` is bound when OLLAMA_HOST names none: all addresses, as a container must. Raises InvalidSetting."""
        bound, port = parse_host(text_setting(environ, "OLLAMA_HOST"), default=host)
        return cls(
            host=bound,
            port=port,
            max_queue=int_setting(environ, "OLLAMA_MAX_QUEUE", default=512, minimum=1),
            bounds=Bounds(
                int_setting(environ, "CORRAL_MAX_PENDING", default=0, minimum=0),
                duration_setting(environ, "CORRAL_MAX_WAIT", default=0.0),
            ),
            origins=list_setting(environ, "OLLAMA_ORIGINS"),
            path_prefix=parse_prefix(text_setting(environ, "CORRAL_PATH_PREFIX")),
            gateway_id=_plain(text_setting(environ, "CORRAL_GATEWAY_ID", default=os.uname().nodename)),
            body_limit=int_setting(environ, "CORRAL_BODY_LIMIT", default=64 * MIB, minimum=1024),
            bodies_limit=int_setting(environ, "CORRAL_BODIES_LIMIT", default=0, minimum=0) or half_of_memory(),
            depth_limit=int_setting(environ, "CORRAL_BODY_DEPTH", default=512, minimum=16, maximum=800),
            connect_timeout=duration_setting(environ, "CORRAL_CONNECT_TIMEOUT", default=5.0, minimum=0.1),
            connect_patience=duration_setting(environ, "CORRAL_CONNECT_PATIENCE", default=180.0),
            drain_timeout=duration_setting(environ, "CORRAL_DRAIN_TIMEOUT", default=600.0),
            drain_delay=duration_setting(environ, "CORRAL_DRAIN_DELAY", default=0.0),
            upstream_silence=duration_setting(environ, "CORRAL_UPSTREAM_TIMEOUT", default=0.0),
            limits=_limits(environ),
            tls=_tls(environ),
            keys_file=text_setting(environ, "CORRAL_API_KEYS_FILE"),
        )


def _limits(environ: Mapping[str, str]) -> Limits:
    def seconds(name: str, default: float) -> float:
        return duration_setting(environ, name, default=default, minimum=0.1)

    return Limits(
        head=int_setting(environ, "CORRAL_HEAD_LIMIT", default=DEFAULTS.head, minimum=1024, maximum=MIB),
        headers=int_setting(environ, "CORRAL_HEADER_COUNT", default=DEFAULTS.headers, minimum=8, maximum=10_000),
        head_timeout=seconds("CORRAL_HEAD_TIMEOUT", DEFAULTS.head_timeout),
        body_timeout=seconds("CORRAL_BODY_TIMEOUT", DEFAULTS.body_timeout),
        idle_timeout=seconds("CORRAL_IDLE_TIMEOUT", DEFAULTS.idle_timeout),
        write_timeout=seconds("CORRAL_WRITE_TIMEOUT", DEFAULTS.write_timeout),
        connections=int_setting(environ, "CORRAL_MAX_CONNECTIONS", default=0, minimum=0) or _connections(),
        prefix=parse_prefix(text_setting(environ, "CORRAL_PATH_PREFIX")),
    )


def _connections() -> int:
    """As many as open files and memory allow for; half of the memory is for the bodies of requests."""
    return min(connections_by_files(), half_of_memory() // PER_CONNECTION)


def _tls(environ: Mapping[str, str]) -> TlsFiles | None:
    """Raises InvalidSetting when only one of the two files is named."""
    certificate, key = text_setting(environ, "CORRAL_TLS_CERT"), text_setting(environ, "CORRAL_TLS_KEY")
    if bool(certificate) != bool(key):
        raise InvalidSetting(
            "CORRAL_TLS_CERT and CORRAL_TLS_KEY are not allowed without one another: set both, or none"
        )
    return TlsFiles(Path(certificate), Path(key)) if key else None


def _plain(name: str) -> str:
    """Raises InvalidSetting for a name that cannot stand in a header."""
    if not re.fullmatch(r"[!-~]{1,253}", name):
        raise InvalidSetting(f"CORRAL_GATEWAY_ID={name!r} is not allowed: it must be plain characters without spaces")
    return name


def parse_prefix(text: str) -> str:
    """A path without its last slash; empty for none. Raises InvalidSetting."""
    prefix = text.rstrip("/")
    if prefix and not prefix.startswith("/"):
        raise InvalidSetting(f"CORRAL_PATH_PREFIX={text!r} is not allowed: it must begin with a slash, like /llm")
    return prefix


def parse_host(text: str, *, default: str) -> tuple[str, int]:
    """Host and port of OLLAMA_HOST: ``[scheme://]host[:port][/path]``, each part optional.

    As with Ollama the port is 80 with ``http://``, 443 with ``https://``, else 11434. Raises InvalidSetting.
    """
    scheme, found, rest = text.partition("://")
    address = (rest if found else text).partition("/")[0]
    fallback = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT) if found else DEFAULT_PORT
    if address.startswith("["):
        host, _, after = address[1:].partition("]")
        port_text = after.removeprefix(":")
    elif address.count(":") > 1:
        host, port_text = address, ""
    else:
        host, _, port_text = address.partition(":")
    if not port_text:
        return host or default, fallback
    if not port_text.isascii() or not port_text.isdigit() or int(port_text) > 65535:
        raise InvalidSetting(f"OLLAMA_HOST={text!r} is not allowed: the port must be a number from 0 to 65535")
    return host or default, int(port_text)
