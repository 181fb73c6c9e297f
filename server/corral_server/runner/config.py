"""A runner's settings, read once from the environment: Ollama's names where it has one, ``CORRAL_*`` otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from corral_core.activity import FOREVER
from corral_core.durations import DEFAULT_KEEP_ALIVE, keep_alive_from_env, keep_alive_from_request
from corral_core.load import wish
from corral_core.model import Model, ModelSpec
from corral_core.settings import bool_setting, duration_setting, int_setting, text_setting
from corral_server.runner.engine import EngineOptions
from corral_server.runner.keepalive import Bounds, KeepAlive
from corral_server.runner.process import HOST, PORT
from corral_server.runner.told import model_of, pvc_root_of


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """``listen_fd`` is an inherited listening socket, ``parent_fd`` the read end of a pipe whose EOF means to exit.

    ``drain_timeout`` is in seconds; ``port`` 0 lets the system choose one.
    """

    model: Model
    host: str
    port: int
    listen_fd: int | None
    parent_fd: int | None
    pvc_root: Path
    keep_alive: KeepAlive
    engine: EngineOptions
    drain_timeout: float


def from_environment(environ: Mapping[str, str] = os.environ) -> RunnerConfig:
    """Raises InvalidSetting and InvalidModel."""
    model = model_of(environ)
    return RunnerConfig(
        model=model,
        host=text_setting(environ, "CORRAL_HOST", default=HOST),
        port=int_setting(environ, "CORRAL_PORT", default=PORT, minimum=0, maximum=65535),
        listen_fd=_descriptor(environ, "CORRAL_LISTEN_FD"),
        parent_fd=_descriptor(environ, "CORRAL_PARENT_FD"),
        pvc_root=pvc_root_of(environ),
        keep_alive=_keep_alive(model.spec, environ),
        engine=_engine_options(model.spec, environ),
        drain_timeout=duration_setting(environ, "CORRAL_DRAIN_TIMEOUT", default=60.0),
    )


def _keep_alive(spec: ModelSpec, environ: Mapping[str, str]) -> KeepAlive:
    own = keep_alive_from_request(spec.keep_alive)
    if own is None:
        text = text_setting(environ, "OLLAMA_KEEP_ALIVE")
        own = keep_alive_from_env(text) if text else DEFAULT_KEEP_ALIVE
    least, most = (keep_alive_from_request(value) for value in (spec.keep_alive_min, spec.keep_alive_max))
    bounds = Bounds(0.0 if least is None else least, FOREVER if most is None else most)
    return KeepAlive(bounds.clamp(own), bounds)


def _engine_options(spec: ModelSpec, environ: Mapping[str, str]) -> EngineOptions:
    """What ``load`` says, which whoever counts this runner's memory asks too; 0 lets the engine choose."""
    wanted, parameters = wish(spec, environ), spec.parameters
    threads = int_setting(environ, "CORRAL_THREADS", default=0, minimum=0, maximum=4096)
    return EngineOptions(
        context_length=wanted.context,
        slots=wanted.parallel,
        threads=threads or max(0, parameters.get("num_thread", 0)),
        batch=wanted.batch,
        gpu_layers=parameters.get("num_gpu", -1) if spec.gpu.count else 0,
        cache_type=wanted.cache_type,
        flash_attention=wanted.flash_attention,
        draft=wanted.draft,
        lock=bool_setting(environ, "CORRAL_LOCK_MEMORY", default=False),
        warm_up=bool_setting(environ, "CORRAL_WARM_UP", default=False),
    )


def _descriptor(environ: Mapping[str, str], name: str) -> int | None:
    number = int_setting(environ, name, default=-1, minimum=0)
    return number if number >= 0 else None
