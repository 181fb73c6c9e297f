"""The operator's settings, read once from the environment: Ollama's names where it has one, ``CORRAL_*`` otherwise."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from corral_core.activity import FOREVER
from corral_core.durations import keep_alive_from_env
from corral_core.errors import InvalidQuantity, InvalidSetting
from corral_core.jsonfields import Json
from corral_core.load import wish
from corral_core.model import ModelSpec
from corral_core.quantities import parse_quantity
from corral_core.settings import choice_setting, duration_setting, int_setting, list_setting, text_setting
from corral_core.snapshot import Policy

LOG_LEVELS = ("debug", "info", "warning", "error")

FIELD_MANAGER = "corral-operator"
"""Who the API server is told writes."""

RUNNER_SETTINGS = (
    "OLLAMA_KEEP_ALIVE",
    "OLLAMA_CONTEXT_LENGTH",
    "OLLAMA_NUM_PARALLEL",
    "CORRAL_SPECULATION",
    "OLLAMA_KV_CACHE_TYPE",
    "OLLAMA_FLASH_ATTENTION",
    "CORRAL_THREADS",
    "CORRAL_LOCK_MEMORY",
    "CORRAL_WARM_UP",
)
"""Settings of the installation that every runner is started with."""


@dataclass(frozen=True, slots=True)
class RunnerDefaults:
    """What runner pods get when their Model says nothing else.

    ``drain`` and ``lost_node``, after which a pod is replaced whose node has been lost, are in seconds.

    ``env`` are further variables of the container, as the Kubernetes API writes them. ``cpu`` is the quantity that a
    runner asks for. A load may take ``load_timeout`` seconds, or as long as the weights take at ``load_rate`` bytes a
    second.
    """

    image: str = "corral/runner:dev"
    drain: float = 60.0
    lost_node: float = 10.0
    settings: Mapping[str, str] = field(default_factory=dict)
    priority_class: str = ""
    env: tuple[Json, ...] = ()
    cpu: str = "250m"
    load_timeout: float = 300.0
    load_rate: int = 20 << 20


@dataclass(frozen=True, slots=True)
class LeaseConfig:
    """The Lease that lets one operator act. ``duration`` (seconds) after its last renewal another one may take over."""

    namespace: str = "default"
    name: str = "corral-operator"
    identity: str = "operator"
    duration: float = 15.0


@dataclass(frozen=True, slots=True)
class OperatorConfig:
    """``namespaces`` empty means all of them; ``resync`` is how often (seconds) everything is listed anew.

    ``http_port`` 0 lets the system choose. At most ``inspectors`` pods read headers of weights side by side.
    """

    policy: Policy = field(default_factory=Policy)
    runner: RunnerDefaults = field(default_factory=RunnerDefaults)
    lease: LeaseConfig = field(default_factory=LeaseConfig)
    namespaces: tuple[str, ...] = ()
    kubeconfig: str | None = None
    resync: float = 60.0
    workers: int = 4
    log_level: str = "INFO"
    http_port: int = 0
    inspectors: int = 4


def from_environment(environ: Mapping[str, str]) -> OperatorConfig:
    """Raises InvalidSetting, which names the variable and what is allowed."""
    return OperatorConfig(
        policy=_policy(environ),
        runner=_runner(environ),
        lease=_lease(environ),
        namespaces=list_setting(environ, "CORRAL_WATCH_NAMESPACES"),
        kubeconfig=text_setting(environ, "KUBECONFIG") or None,
        resync=duration_setting(environ, "CORRAL_RESYNC_PERIOD", default=60.0, minimum=1.0),
        workers=int_setting(environ, "CORRAL_WORKERS", default=4, minimum=1, maximum=64),
        inspectors=int_setting(environ, "CORRAL_INSPECTORS", default=4, minimum=1, maximum=64),
        http_port=int_setting(environ, "CORRAL_HTTP_PORT", default=0, minimum=0, maximum=65535),
        log_level=choice_setting(environ, "CORRAL_LOG_LEVEL", default="info", choices=LOG_LEVELS).upper(),
    )


def _policy(environ: Mapping[str, str]) -> Policy:
    max_loaded = int_setting(environ, "OLLAMA_MAX_LOADED_MODELS", default=0, minimum=0)
    return Policy(
        keep_alive=keep_alive_from_env(environ.get("OLLAMA_KEEP_ALIVE", "")),
        max_loaded=max_loaded or None,
        load_timeout=_load_timeout(environ),
    )


def _runner(environ: Mapping[str, str]) -> RunnerDefaults:
    return RunnerDefaults(
        image=text_setting(environ, "CORRAL_RUNNER_IMAGE", default="corral/runner:dev"),
        drain=duration_setting(environ, "CORRAL_DRAIN_TIMEOUT", default=60.0),
        lost_node=duration_setting(environ, "CORRAL_LOST_NODE_TIMEOUT", default=10.0),
        settings=_runner_settings(environ),
        priority_class=text_setting(environ, "CORRAL_RUNNER_PRIORITY_CLASS"),
        env=_variables(environ.get("CORRAL_RUNNER_ENV", "")),
        cpu=_quantity(environ, "CORRAL_RUNNER_CPU", default="250m"),
        load_timeout=_load_timeout(environ),
        load_rate=int_setting(environ, "CORRAL_LOAD_RATE", default=20, minimum=1, maximum=1 << 20) << 20,
    )


def _runner_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """What every runner is given; a value that none would take is refused here, before there are any."""
    settings = {name: environ[name] for name in RUNNER_SETTINGS if environ.get(name)}
    wish(ModelSpec(source="file:///any.gguf"), settings)
    return settings


def _load_timeout(environ: Mapping[str, str]) -> float:
    seconds = duration_setting(environ, "OLLAMA_LOAD_TIMEOUT", default=300.0, minimum=None)
    return seconds if seconds > 0 else FOREVER


def _quantity(environ: Mapping[str, str], name: str, *, default: str) -> str:
    said = text_setting(environ, name, default=default)
    try:
        parse_quantity(said)
    except InvalidQuantity as error:
        raise InvalidSetting(f"{name}={said!r} is not allowed: {error}") from error
    return said


def _variables(said: str) -> tuple[Json, ...]:
    try:
        found = json.loads(said or "[]")
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(item, dict) and item.get("name") for item in found):
        raise InvalidSetting(
            f'CORRAL_RUNNER_ENV={said!r} is not allowed: it must be like [{{"name": "A", "value": "b"}}]'
        )
    return tuple(found)


def _lease(environ: Mapping[str, str]) -> LeaseConfig:
    identity = text_setting(environ, "CORRAL_OPERATOR_ID", default=f"{socket.gethostname()}-{os.getpid()}")
    return LeaseConfig(
        namespace=text_setting(environ, "CORRAL_LEASE_NAMESPACE", default="default"),
        name=text_setting(environ, "CORRAL_LEASE_NAME", default="corral-operator"),
        identity=identity,
        duration=duration_setting(environ, "CORRAL_LEASE_DURATION", default=15.0, minimum=3.0),
    )
