"""Configuration of the gateway: one frozen value, built once from the environment.

Settings that Ollama has use its names; all others begin with ``CORRAL_``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from corral_core.base.errors import InvalidSetting
from corral_core.base.settings import bool_setting, duration_setting, int_setting, list_setting, str_setting
from corral_server.gateway.bodies.memory import available_memory, memory_for_clients
from corral_server.gateway.http_server.limits import DEFAULTS, Limits, connections_by_files, memory_per_connection
from corral_server.gateway.http_server.tls import TlsFiles
from corral_server.gateway.queueing.limits import NO_LIMITS, QueueLimits
from corral_server.wire.request_limits import NO_REQUEST_LIMITS, RequestLimits

DEFAULT_PORT = 11434
MIB = 1024 * 1024

OLLAMA_VERSION = "0.32.1"
"""Version in /api/version. Clients compare it with the release that introduced a feature."""


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Sizes are in bytes, times in seconds; ``port`` 0 lets the system choose.

    ``queue_limits`` and ``request_limits``: defaults for Models without ``spec.queue`` and ``spec.requestLimits``.
    ``namespace_weights``: weights other than 1.
    ``max_reset_retries``: attempts for a request whose connection was reset before the runner started it.
    ``connect_retry_timeout``: how long a request is retried while no connection can be made to a runner that is listed
    as ready. ``body_limit``: one body; ``body_memory_limit``: all bodies in memory. On SIGTERM new connections are
    accepted for ``drain_delay``, then pending and running requests continue for ``drain_timeout``.
    ``upstream_read_timeout``: how long a runner may send nothing, 0 for no limit. ``keys_file``: API keys, empty for
    none. ``heartbeat``: interval of heartbeats on streams that have not begun, 0 for none. ``origins``: entries of
    OLLAMA_ORIGINS, to which Ollama's defaults are added. ``ui``: the page at ``/ui`` is served.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    max_queue: int = 512
    queue_limits: QueueLimits = NO_LIMITS
    request_limits: RequestLimits = NO_REQUEST_LIMITS
    namespace_weights: Mapping[str, float] = field(default_factory=dict)
    origins: tuple[str, ...] = ()
    path_prefix: str = ""
    version: str = OLLAMA_VERSION
    gateway_id: str = "gateway"
    body_limit: int = 64 * MIB
    body_memory_limit: int = 1024 * MIB
    depth_limit: int = 512
    connect_timeout: float = 5.0
    max_reset_retries: int = 5
    connect_retry_timeout: float = 180.0
    drain_timeout: float = 600.0
    drain_delay: float = 0.0
    upstream_read_timeout: float = 0.0
    heartbeat: float = 15.0
    limits: Limits = DEFAULTS
    tls: TlsFiles | None = None
    keys_file: str = ""
    ui: bool = True

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, host: str = "0.0.0.0") -> GatewayConfig:  # noqa: S104
        """``host`` is the default for OLLAMA_HOST: all addresses, as a container needs. Raises InvalidSetting."""
        bound, port = parse_host(str_setting(environ, "OLLAMA_HOST"), default=host)
        return cls(
            host=bound,
            port=port,
            max_queue=int_setting(environ, "OLLAMA_MAX_QUEUE", default=512, minimum=1),
            queue_limits=QueueLimits(
                int_setting(environ, "CORRAL_MAX_PENDING", default=0, minimum=0),
                duration_setting(environ, "CORRAL_MAX_WAIT", default=0.0),
            ),
            request_limits=RequestLimits(
                int_setting(environ, "CORRAL_MAX_OUTPUT_TOKENS", default=0, minimum=0),
                duration_setting(environ, "CORRAL_MAX_REQUEST_DURATION", default=0.0),
            ),
            namespace_weights=parse_weights(list_setting(environ, "CORRAL_NAMESPACE_WEIGHTS")),
            origins=list_setting(environ, "OLLAMA_ORIGINS"),
            path_prefix=parse_prefix(str_setting(environ, "CORRAL_PATH_PREFIX")),
            gateway_id=_header_safe(str_setting(environ, "CORRAL_GATEWAY_ID", default=os.uname().nodename)),
            body_limit=int_setting(environ, "CORRAL_BODY_LIMIT", default=64 * MIB, minimum=1024),
            body_memory_limit=_body_memory(environ),
            depth_limit=int_setting(environ, "CORRAL_BODY_DEPTH", default=512, minimum=16, maximum=800),
            connect_timeout=duration_setting(environ, "CORRAL_CONNECT_TIMEOUT", default=5.0, minimum=0.1),
            connect_retry_timeout=duration_setting(environ, "CORRAL_CONNECT_RETRY_TIMEOUT", default=180.0),
            drain_timeout=duration_setting(environ, "CORRAL_DRAIN_TIMEOUT", default=600.0),
            drain_delay=duration_setting(environ, "CORRAL_DRAIN_DELAY", default=0.0),
            upstream_read_timeout=duration_setting(environ, "CORRAL_UPSTREAM_TIMEOUT", default=0.0),
            heartbeat=_heartbeat(environ),
            limits=_limits(environ),
            tls=_tls(environ),
            keys_file=str_setting(environ, "CORRAL_API_KEYS_FILE"),
            ui=bool_setting(environ, "CORRAL_UI", default=True),
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
        connections=int_setting(environ, "CORRAL_MAX_CONNECTIONS", default=0, minimum=0) or _connections(environ),
        prefix=parse_prefix(str_setting(environ, "CORRAL_PATH_PREFIX")),
    )


def _heartbeat(environ: Mapping[str, str]) -> float:
    """Raises InvalidSetting for an interval that would flood clients."""
    seconds = duration_setting(environ, "CORRAL_HEARTBEAT", default=15.0)
    if 0 < seconds < 0.1:
        raise InvalidSetting(
            f"CORRAL_HEARTBEAT={seconds:g} s is not allowed: it must be at least 100ms, or 0 for no heartbeats"
        )
    return seconds


def _body_memory(environ: Mapping[str, str]) -> int:
    """Return the limit of all bodies in bytes. Raises InvalidSetting for one that would end the process."""
    chosen = int_setting(environ, "CORRAL_BODIES_LIMIT", default=0, minimum=0)
    available, most = available_memory(), memory_for_clients()
    if chosen > most:
        raise InvalidSetting(
            f"CORRAL_BODIES_LIMIT={chosen} is not allowed: of {available} bytes of memory, at most {most} can hold "
            "request bodies; raise the memory limit of the container, or set 0 for a limit that fits"
        )
    return chosen or most // 2


def _connections(environ: Mapping[str, str]) -> int:
    """Return the maximum from open files and memory; half of the clients' memory is for request bodies."""
    tls = bool(str_setting(environ, "CORRAL_TLS_CERT"))
    return max(1, min(connections_by_files(), memory_for_clients() // 2 // memory_per_connection(tls=tls)))


def _tls(environ: Mapping[str, str]) -> TlsFiles | None:
    """Raises InvalidSetting if only one of the two files is set."""
    certificate, key = str_setting(environ, "CORRAL_TLS_CERT"), str_setting(environ, "CORRAL_TLS_KEY")
    if bool(certificate) != bool(key):
        raise InvalidSetting("CORRAL_TLS_CERT and CORRAL_TLS_KEY must be set together")
    return TlsFiles(Path(certificate), Path(key)) if key else None


def _header_safe(name: str) -> str:
    """Raises InvalidSetting for a name that is not valid in a header."""
    if not re.fullmatch(r"[!-~]{1,253}", name):
        raise InvalidSetting(f"CORRAL_GATEWAY_ID={name!r} is not allowed: it must be plain characters without spaces")
    return name


def parse_weights(items: Iterable[str]) -> dict[str, float]:
    """Parse ``namespace=weight`` items. Raises InvalidSetting."""
    found = {}
    for item in items:
        namespace, _, text = (part.strip() for part in item.partition("="))
        weight = float(text) if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) else 0.0
        if not namespace or not 0.001 <= weight <= 1000:
            raise InvalidSetting(
                f"CORRAL_NAMESPACE_WEIGHTS: {item!r} is not allowed: write namespace=weight, with a weight from 0.001 "
                "to 1000, for example team-a=2,batch=0.5"
            )
        found[namespace] = weight
    return found


def parse_prefix(text: str) -> str:
    """Return the path without a trailing slash, empty for none. Raises InvalidSetting."""
    prefix = text.rstrip("/")
    if prefix and not prefix.startswith("/"):
        raise InvalidSetting(f"CORRAL_PATH_PREFIX={text!r} is not allowed: it must begin with a slash, like /llm")
    return prefix


def parse_host(text: str, *, default: str) -> tuple[str, int]:
    """Parse OLLAMA_HOST: ``[scheme://]host[:port][/path]``, each part optional.

    As in Ollama the port is 80 with ``http://``, 443 with ``https://``, else 11434. Raises InvalidSetting.
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
