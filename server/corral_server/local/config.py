"""Local mode's settings: one frozen value, built once from the environment and the command line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from corral_core.activity import FOREVER
from corral_core.durations import keep_alive_from_env
from corral_core.settings import bool_setting, duration_setting, int_setting, text_setting
from corral_core.snapshot import Policy
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.monitor import MonitorSettings

NO_MONITORS = MonitorSettings(access_log=0)
RUNNER = (sys.executable, "-m", "corral_server.runner")


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """How runners are started and ended. Times are seconds.

    ``environment`` is what they inherit. One that is told to end gets ``drain_timeout`` for its requests and
    ``kill_grace`` more before it is killed. One that makes no progress while loading for ``load_timeout``, or is silent
    for ``silence_timeout`` when it is loaded, is killed and counts as crashed. ``pvc_root`` is where ``pvc://`` leads.
    """

    command: tuple[str, ...] = RUNNER
    environment: Mapping[str, str] = field(default_factory=dict)
    drain_timeout: float = 600.0
    kill_grace: float = 5.0
    load_timeout: float = 300.0
    silence_timeout: float = 60.0
    first_backoff: float = 0.5
    longest_backoff: float = 60.0
    tries: int = 3
    pvc_root: Path = Path("/weights")


@dataclass(frozen=True, slots=True)
class LocalConfig:
    """``verbose`` shows what runners write beside their events."""

    gateway: GatewayConfig
    policy: Policy
    runner: RunnerConfig
    verbose: bool = False
    monitoring: MonitorSettings = NO_MONITORS

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str], *, host: str | None = None, port: int | None = None
    ) -> LocalConfig:
        """``host`` and ``port`` of the command line win over OLLAMA_HOST. Raises InvalidSetting."""
        gateway = GatewayConfig.from_environment(environ, host="127.0.0.1")
        gateway = replace(gateway, host=host or gateway.host, port=gateway.port if port is None else port)
        load_timeout = duration_setting(environ, "OLLAMA_LOAD_TIMEOUT", default=300.0, minimum=None)
        load_timeout = load_timeout if load_timeout > 0 else FOREVER
        policy = Policy(
            keep_alive=keep_alive_from_env(environ.get("OLLAMA_KEEP_ALIVE") or "5m"),
            max_loaded=int_setting(environ, "OLLAMA_MAX_LOADED_MODELS", default=0, minimum=0) or None,
            gpus=0,
            load_timeout=load_timeout,
        )
        runner = RunnerConfig(
            environment=dict(environ),
            drain_timeout=gateway.drain_timeout,
            load_timeout=load_timeout,
            pvc_root=Path(text_setting(environ, "CORRAL_PVC_ROOT", default="/weights")),
        )
        monitoring = MonitorSettings.from_environment(environ, access_log=0)
        return cls(gateway, policy, runner, verbose=_debug(environ), monitoring=monitoring)


def _debug(environ: Mapping[str, str]) -> bool:
    """OLLAMA_DEBUG: true or false, or a level of which anything above 0 is more to read."""
    text = text_setting(environ, "OLLAMA_DEBUG", default="0")
    return text == "2" or bool_setting({"OLLAMA_DEBUG": text}, "OLLAMA_DEBUG", default=False)
