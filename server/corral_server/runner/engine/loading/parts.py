"""Load of what llama.cpp holds for an engine: model, adapters and the first context, on the CPU and on GPUs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from corral_core.contracts.runner_status import Offload, OffloadDevice
from corral_core.weights.load_config import context_length
from corral_server.runner.engine.contexts import EngineOptions, make_context
from corral_server.runner.engine.loading.offload import OffloadPlan, plan_offload
from corral_server.runner.engine.loading.phases import LoadPhases
from corral_server.runner.llama.context import LlamaContext
from corral_server.runner.llama.errors import LoadFailed
from corral_server.runner.llama.library import initialize
from corral_server.runner.llama.model import LlamaModel, LoraAdapter
from corral_server.runner.llama.projector import Projector
from corral_server.system.cores import available_cores

log = logging.getLogger("corral.runner.engine")


@dataclass(frozen=True, slots=True)
class EngineParts:
    """``length`` is the context length of each of ``slots``."""

    model: LlamaModel
    context: LlamaContext
    adapters: Mapping[str, LoraAdapter]
    length: int
    slots: int
    plan: OffloadPlan
    projector: Projector | None = None

    def offload(self, buffers: Iterable[tuple[str, int]]) -> Offload:
        """Return what is on GPUs; ``buffers`` are bytes by kind of memory, which for a GPU is its name."""
        sizes: dict[str, int] = {}
        for kind, size in buffers:
            sizes[kind] = sizes.get(kind, 0) + size
        devices = tuple(
            OffloadDevice(
                device.name,
                device.description,
                bytes=sizes.get(device.name, 0),
                predicted=self.plan.predicted.get(device.name, 0),
            )
            for device in self.plan.placement.devices
        )
        return Offload(self.model.gpu_layers, self.model.layers, devices, self.plan.reason)


def load_parts(
    path: Path, options: EngineOptions, *, progress: Callable[[float], bool] | None, phases: LoadPhases
) -> EngineParts:
    """See ``LlamaEngine.load``."""
    log.info("CPU backend: %s", initialize())
    plan = plan_offload(path, options)
    options = replace(options, slots=options.slots or plan.slots)
    phases.end("plan")
    model = LlamaModel(
        path, placement=plan.placement, lock_weights=options.lock_weights, progress=_timed(progress, phases)
    )
    phases.end("upload")
    try:
        adapters = {name: model.load_adapter(file.path, file.scale) for name, file in options.adapters.items()}
        length = context_length(options.context_length, model.train_context)
        projector = _load_projector(options, model)
        context, slots = make_context(model, options, length)
    except LoadFailed as error:
        model.close()
        raise LoadFailed(f"{path} cannot be loaded: {error}") from None
    phases.end("contexts")
    only_embeds = options.embedding is not None and options.embedding.embedding_only
    if options.warm_up and not only_embeds:
        if not context.warm_up(max(model.bos, 0)):
            log.warning("the warm-up decode failed")
        phases.end("warm_up")
    return EngineParts(model, context, adapters, length, slots, plan, projector)


def _load_projector(options: EngineOptions, model: LlamaModel) -> Projector | None:
    """Return the projector on the first GPU of the model, or on the CPU. Raises LoadFailed."""
    if options.projector is None:
        return None
    devices = model.placement.devices if model.placement.layers else ()
    device = devices[0] if devices else None
    return Projector(options.projector, model, threads=options.threads or available_cores(), device=device)


def _timed(progress: Callable[[float], bool] | None, phases: LoadPhases) -> Callable[[float], bool]:
    """Return a callback for the upload, at whose first report the file is open and memory is allocated."""

    def report(share: float) -> bool:
        if "open" not in phases.seconds:
            phases.end("open")
        return progress is None or progress(share)

    return report
