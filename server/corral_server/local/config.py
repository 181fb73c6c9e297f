"""Configuration of local mode: one frozen value, built once from the environment and the command line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from corral_core.base.durations import parse_keep_alive_setting
from corral_core.base.settings import bool_setting, duration_setting, int_setting, str_setting, timeout_setting
from corral_core.planning.snapshot import Policy
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.observability.monitoring import MonitoringSettings
from corral_server.local.management.config import ManagementConfig, management_config
from corral_server.local.pulls.config import PullConfig, pull_config

NO_MONITORING = MonitoringSettings(access_log=0)
RUNNER = (sys.executable, "-m", "corral_server.runner")


@dataclass(frozen=True, slots=True)
class RunnerProcessConfig:
    """How runner processes start and end. Times are seconds.

    ``environment`` is the environment that they inherit. After SIGTERM a runner has ``drain_timeout`` for its requests
    and ``kill_grace`` more before SIGKILL; after the eviction timeout only the latter. A runner without progress during
    load for ``load_timeout``, or silent for ``silence_timeout`` when loaded, is killed and counts as crashed.
    ``max_failures`` failed starts in a row make the Model fail until the next attempt. ``pvc_root`` is the folder that
    ``pvc://`` sources resolve to.
    """

    command: tuple[str, ...] = RUNNER
    environment: Mapping[str, str] = field(default_factory=dict)
    drain_timeout: float = 600.0
    kill_grace: float = 5.0
    load_timeout: float = 300.0
    silence_timeout: float = 60.0
    initial_backoff: float = 0.5
    max_backoff: float = 60.0
    max_failures: int = 3
    pvc_root: Path = Path("/weights")


@dataclass(frozen=True, slots=True)
class LocalConfig:
    """``verbose`` also logs the lines of runners that are not events."""

    gateway: GatewayConfig
    policy: Policy
    runner: RunnerProcessConfig
    pulls: PullConfig
    management: ManagementConfig
    verbose: bool = False
    monitoring: MonitoringSettings = NO_MONITORING

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str], *, host: str | None = None, port: int | None = None
    ) -> LocalConfig:
        """Build the config; ``host`` and ``port`` of the command line override OLLAMA_HOST. Raises InvalidSetting."""
        gateway = GatewayConfig.from_environment(environ, host="127.0.0.1")
        gateway = replace(gateway, host=host or gateway.host, port=gateway.port if port is None else port)
        load_timeout = timeout_setting(environ, "OLLAMA_LOAD_TIMEOUT", default=300.0)
        policy = Policy(
            keep_alive=parse_keep_alive_setting(environ.get("OLLAMA_KEEP_ALIVE") or "5m"),
            max_loaded=int_setting(environ, "OLLAMA_MAX_LOADED_MODELS", default=0, minimum=0) or None,
            gpus=0,
            load_timeout=load_timeout,
            eviction_timeout=duration_setting(environ, "CORRAL_EVICTION_TIMEOUT", default=300.0, minimum=1.0),
        )
        runner = RunnerProcessConfig(
            environment=dict(environ),
            drain_timeout=gateway.drain_timeout,
            load_timeout=load_timeout,
            pvc_root=Path(str_setting(environ, "CORRAL_PVC_ROOT", default="/weights")),
        )
        monitoring = MonitoringSettings.from_environment(environ, access_log=0)
        pulls = pull_config(environ)
        management = management_config(environ, pulls.store)
        return cls(gateway, policy, runner, pulls, management, verbose=_debug(environ), monitoring=monitoring)


def _debug(environ: Mapping[str, str]) -> bool:
    """Return whether OLLAMA_DEBUG is set: a boolean, or a level above 0."""
    text = str_setting(environ, "OLLAMA_DEBUG", default="0")
    return text == "2" or bool_setting({"OLLAMA_DEBUG": text}, "OLLAMA_DEBUG", default=False)
