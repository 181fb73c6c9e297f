"""Configuration of a runner, read once from the environment.

Settings have Ollama's name if Ollama has them, otherwise ``CORRAL_*``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from corral_core.base.durations import DEFAULT_KEEP_ALIVE, FOREVER, keep_alive_from_json, parse_keep_alive_setting
from corral_core.base.settings import bool_setting, duration_setting, int_setting, str_setting, timeout_setting
from corral_core.contracts.source_defaults import NO_DEFAULTS, SourceDefaults
from corral_core.model.effective_spec import effective_spec, usable_parameters
from corral_core.model.model import Model, ModelSpec
from corral_core.sources.locate import WeightsRoots, pulled_snapshot
from corral_core.sources.uri import parse_source
from corral_core.weights.load_config import load_request
from corral_server.runner.engine.contexts import EngineOptions, GPUOptions
from corral_server.runner.images.limits import MAX_BYTES, MAX_COUNT, MAX_PIXELS, ImageLimits
from corral_server.runner.lifecycle import log
from corral_server.runner.lifecycle.environment import model_from, roots_from, termination_log_from
from corral_server.runner.lifecycle.keep_alive import KeepAlive, KeepAliveBounds
from corral_server.runner.lifecycle.process import HOST, PORT
from corral_server.runner.templates.templates import ChatTemplate


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """Configuration of one runner process.

    - ``port``: 0 lets the system choose one.
    - ``listen_fd``: an inherited listening socket.
    - ``parent_fd``: read end of a pipe; the process exits at EOF.
    - ``drain_timeout``, ``load_timeout`` (without progress): seconds.
    - ``accepts_templates``: whether a request may bring a chat template of its own.
    - ``image_limits``: limits of the images of a request.
    - ``model``: with the defaults of its source where its spec has no value.
    """

    model: Model
    defaults: SourceDefaults
    host: str
    port: int
    listen_fd: int | None
    parent_fd: int | None
    roots: WeightsRoots
    keep_alive: KeepAlive
    engine: EngineOptions
    drain_timeout: float
    load_timeout: float
    termination_log: Path | None
    accepts_templates: bool
    image_limits: ImageLimits


def from_environment(environ: Mapping[str, str] = os.environ) -> RunnerConfig:
    """Read the configuration. Raises InvalidSetting, InvalidModel, and SourceError for a damaged snapshot."""
    roots = roots_from(environ)
    model, defaults = _with_source(model_from(environ), roots)
    return RunnerConfig(
        model=model,
        defaults=defaults,
        host=str_setting(environ, "CORRAL_HOST", default=HOST),
        port=int_setting(environ, "CORRAL_PORT", default=PORT, minimum=0, maximum=65535),
        listen_fd=_descriptor(environ, "CORRAL_LISTEN_FD"),
        parent_fd=_descriptor(environ, "CORRAL_PARENT_FD"),
        roots=roots,
        keep_alive=_keep_alive(model.spec, environ),
        engine=_engine_options(model.spec, environ),
        drain_timeout=duration_setting(environ, "CORRAL_DRAIN_TIMEOUT", default=600.0),
        load_timeout=timeout_setting(environ, "OLLAMA_LOAD_TIMEOUT", default=300.0),
        termination_log=termination_log_from(environ),
        accepts_templates=bool_setting(environ, "CORRAL_CLIENT_TEMPLATES", default=True),
        image_limits=_image_limits(environ),
    )


def _with_source(model: Model, roots: WeightsRoots) -> tuple[Model, SourceDefaults]:
    """Return the Model with its source's defaults, and those defaults.

    A template of the source that cannot be used is left out: the weights usually have one of their own.
    """
    snapshot = pulled_snapshot(parse_source(model.spec.source), roots)
    if snapshot is None:
        return model, NO_DEFAULTS
    _, ignored = usable_parameters(snapshot.defaults.parameters)
    if ignored:
        log.event("parameters_ignored", level=30, source=model.spec.source, names=[name[:64] for name in ignored])
    defaults = snapshot.defaults
    problem = ChatTemplate(defaults.template).problem if defaults.template else None
    if problem is not None:
        log.event("template_ignored", level=30, source=model.spec.source, reason=problem)
        defaults = replace(defaults, template="")
    return replace(model, spec=effective_spec(model.spec, defaults)), defaults


def _keep_alive(spec: ModelSpec, environ: Mapping[str, str]) -> KeepAlive:
    seconds = keep_alive_from_json(spec.keep_alive)
    if seconds is None:
        text = str_setting(environ, "OLLAMA_KEEP_ALIVE")
        seconds = parse_keep_alive_setting(text) if text else DEFAULT_KEEP_ALIVE
    minimum, maximum = (keep_alive_from_json(value) for value in (spec.keep_alive_min, spec.keep_alive_max))
    bounds = KeepAliveBounds(0.0 if minimum is None else minimum, FOREVER if maximum is None else maximum)
    return KeepAlive(bounds.clamp(seconds), bounds)


def _engine_options(spec: ModelSpec, environ: Mapping[str, str]) -> EngineOptions:
    """Return the engine's options. A value of 0 lets the engine choose.

    Context, slots, batch and cache come from ``corral_core.weights.load_config``, as in the memory estimate.
    """
    request, parameters = load_request(spec, environ), spec.parameters
    threads = int_setting(environ, "CORRAL_THREADS", default=0, minimum=0, maximum=4096)
    return EngineOptions(
        context_length=request.context_length,
        slots=request.parallel,
        threads=threads or max(0, parameters.get("num_thread", 0)),
        batch_size=request.batch_size,
        gpu=_gpu_options(spec, environ),
        cache_type=request.kv_cache_type,
        flash_attention=request.flash_attention,
        draft_tokens=request.max_draft_tokens,
        lock_weights=bool_setting(environ, "CORRAL_LOCK_MEMORY", default=False),
        warm_up=bool_setting(environ, "CORRAL_WARM_UP", default=False),
    )


def _gpu_options(spec: ModelSpec, environ: Mapping[str, str]) -> GPUOptions:
    gpu = spec.gpu
    reserved = int_setting(environ, "OLLAMA_GPU_OVERHEAD", default=0, minimum=0)
    if gpu.offload == "none":
        return GPUOptions(count=0)
    return GPUOptions(
        count=None if gpu.count == "auto" else gpu.count,
        offload=gpu.offload,
        layers=spec.parameters.get("num_gpu", -1),
        split_mode=gpu.split_mode,
        main_gpu=gpu.main_gpu,
        tensor_split=gpu.tensor_split or (),
        expert_layers_on_cpu=gpu.expert_layers_on_cpu,
        reserved=reserved,
    )


def _image_limits(environ: Mapping[str, str]) -> ImageLimits:
    return ImageLimits(
        count=int_setting(environ, "CORRAL_MAX_IMAGES", default=MAX_COUNT, minimum=1, maximum=1024),
        bytes=int_setting(environ, "CORRAL_MAX_IMAGE_BYTES", default=MAX_BYTES, minimum=1, maximum=1 << 26),
        pixels=int_setting(environ, "CORRAL_MAX_IMAGE_PIXELS", default=MAX_PIXELS, minimum=1, maximum=1 << 28),
    )


def _descriptor(environ: Mapping[str, str], name: str) -> int | None:
    number = int_setting(environ, name, default=-1, minimum=0)
    return number if number >= 0 else None
