"""Decision which layers of a model go to which GPUs, before its weights are read.

- llama.cpp itself is asked what the model takes of each GPU, without allocating it (``MemoryProbe``), and that is
  compared with what the GPU's driver reports as free.
- With ``offload: full`` a model that does not fit is refused with the figures. With ``auto`` the number of slots is
  reduced first, if it may be, then the number of layers.
- A load that could succeed is not refused: ``SPARE_BYTES`` counts only where there is a choice.
- llama.cpp splits layers by the free memory of the devices, but the last one also has the output and larger compute
  buffers. If that does not fit, the shares are corrected by what was found out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from corral_core.weights.load_config import AUTO_PARALLEL, context_length
from corral_server.runner.engine.contexts import EngineOptions, GPUOptions, planned_contexts
from corral_server.runner.llama.devices import Device, gpu_devices
from corral_server.runner.llama.errors import LoadFailed
from corral_server.runner.llama.library import unloadable_backends
from corral_server.runner.llama.memory_breakdown import is_available
from corral_server.runner.llama.memory_probe import MemoryProbe
from corral_server.runner.llama.placement import ON_CPU, Placement

log = logging.getLogger("corral.runner.offload")

SPARE_BYTES: Final = 64 << 20
"""Memory of a GPU that is left to the driver: workspaces and pools that llama.cpp does not report; not measured."""
_ROUNDS: Final = 2
"""Corrections of the shares of the devices."""
_MIB: Final = 1 << 20
_DRIVER: Final = "libcuda.so.1: cannot open"
"""In the reason why CUDA's backend cannot be loaded where NVIDIA's container runtime has not mounted the driver."""


@dataclass(frozen=True, slots=True)
class OffloadPlan:
    """``slots`` is 0 if it is not decided; ``predicted`` is bytes by the device's name.

    ``reason`` is why not all layers are on GPUs, empty if they are or if the model is to run on the CPU.
    """

    placement: Placement = ON_CPU
    slots: int = 0
    predicted: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Fit:
    """What a placement takes: ``predicted`` bytes by device; ``short`` are the devices without room, with figures."""

    placement: Placement
    slots: int
    layers: int
    predicted: Mapping[str, int]
    short: str


def plan_offload(path: Path, options: EngineOptions, devices: tuple[Device, ...] | None = None) -> OffloadPlan:
    """Decide where the layers go. ``devices`` are the GPUs of this process, by default those that ggml finds.

    Raises LoadFailed with the figures if the model does not fit as its options demand.
    """
    gpu = options.gpu
    if gpu.count == 0 or gpu.layers == 0:
        return OffloadPlan()
    devices = (gpu_devices() if devices is None else devices)[: gpu.count]
    missing = _missing(gpu, devices)
    if missing:
        log.warning("%s", missing)
    if not devices:
        if gpu.offload == "full":
            raise LoadFailed(missing or f"gpu.offload is full, but llama.cpp finds no GPU: {_cause()}")
        return OffloadPlan(reason=missing)
    placement = _placement(gpu, devices)
    if gpu.split_mode == "row" or not is_available():
        return OffloadPlan(placement)
    plan = _fitting(path, options, placement)
    return replace(plan, reason=f"{missing}; {plan.reason}") if missing and plan.reason else plan


def _missing(gpu: GPUOptions, devices: tuple[Device, ...]) -> str:
    if gpu.count is None or len(devices) >= gpu.count:
        return ""
    found = f"only {len(devices)}" if devices else "none"
    expected = f"{gpu.count} GPU{'s' if gpu.count > 1 else ''}"
    return f"the Model has {expected}, but llama.cpp finds {found}: {_cause()}"


def _cause() -> str:
    reasons = "; ".join(unloadable_backends())
    if _DRIVER in reasons:
        advice = "check the driver and the device plugin of the node, and spec.runtimeClassName"
        return f"NVIDIA's driver is not in the container: {advice} ({reasons})"
    return reasons or "check the driver and the runner's image"


def _placement(gpu: GPUOptions, devices: tuple[Device, ...]) -> Placement:
    return Placement(
        devices,
        layers=gpu.layers,
        split_mode=gpu.split_mode,
        main_gpu=gpu.main_gpu,
        tensor_split=gpu.tensor_split,
        expert_layers_on_cpu=gpu.expert_layers_on_cpu,
    )


def _fitting(path: Path, options: EngineOptions, placement: Placement) -> OffloadPlan:
    """Return the first placement that fits: all layers with most slots, with fewer, then fewer layers."""
    slots = (options.slots,) if options.slots else AUTO_PARALLEL
    fitting, last = _fully_placed(path, options, placement, slots=slots)
    if fitting is not None:
        return _plan(fitting, options)
    if options.gpu.offload == "full":
        last = _measure(path, options, last.placement, slots=slots[-1:], spare=0)[-1]
        if last.short:
            raise LoadFailed(f"the model does not fit the GPUs: {last.short}")
        return _plan(last, options)
    return _plan(_partial(path, options, placement, slots=slots[-1:], full=last), options, short=last.short)


def _fully_placed(
    path: Path, options: EngineOptions, placement: Placement, *, slots: tuple[int, ...]
) -> tuple[_Fit | None, _Fit]:
    """Return the placement of all its layers that fits with most slots, and the last one that was tried.

    The shares of the devices are corrected up to ``_ROUNDS`` times, unless the options set them.
    """
    fixed = len(placement.devices) == 1 or placement.split_mode != "layer" or placement.tensor_split
    shares = [float(device.free) for device in placement.devices]
    rooms = [_room(device, options.gpu, SPARE_BYTES) for device in placement.devices]
    fitting = None
    for _ in range(1 if fixed else _ROUNDS + 1):
        found = _measure(path, options, placement, slots=slots, spare=SPARE_BYTES)
        fitting = fitting or next((fit for fit in found if not fit.short), None)
        if fitting is not None and fitting.slots == slots[0]:
            break
        used = [max(1, found[-1].predicted[device.name]) for device in placement.devices]
        shares = [share * room / size for share, room, size in zip(shares, rooms, used, strict=True)]
        if fixed or not any(shares):
            break
        placement = replace(placement, tensor_split=tuple(share / sum(shares) for share in shares))
    return fitting, found[-1]


def _partial(path: Path, options: EngineOptions, placement: Placement, *, slots: tuple[int, ...], full: _Fit) -> _Fit:
    """Return the placement with most layers that fits; perhaps none."""
    fewest, most = 0, min(full.layers, placement.layers) if placement.layers > 0 else full.layers
    best = _Fit(ON_CPU, slots[-1], full.layers, {}, "")
    while most - fewest > 1:
        layers = (fewest + most) // 2
        found, _ = _fully_placed(path, options, replace(placement, layers=layers), slots=slots)
        if found is None:
            most = layers
        else:
            fewest, best = layers, found
    return best


def _measure(
    path: Path, options: EngineOptions, placement: Placement, *, slots: tuple[int, ...], spare: int
) -> list[_Fit]:
    """Ask llama.cpp what the placement takes with each number of slots. Raises LoadFailed."""
    adapters = sum(file.path.stat().st_size for file in options.adapters.values())
    fits = []
    with closing(MemoryProbe(path, placement)) as probe:
        length = context_length(options.context_length, probe.train_context)
        for count in slots:
            memory = probe.device_memory(planned_contexts(options, length, count))
            predicted = {
                name: part.model + part.context + part.compute + adapters * part.model // max(1, probe.weights_bytes)
                for name, part in memory.items()
            }
            if placement.devices and placement.layers:
                predicted[placement.devices[0].name] += options.gpu.projector
            short = _short(predicted, placement.devices, options.gpu, spare=spare)
            fits.append(_Fit(placement, count, probe.layers, predicted, short))
    return fits


def _short(predicted: Mapping[str, int], devices: tuple[Device, ...], gpu: GPUOptions, *, spare: int) -> str:
    """Return the figures of the devices that have too little memory, empty without any."""
    texts = []
    for device in devices:
        if predicted[device.name] > _room(device, gpu, spare):
            free = f"{max(0, device.free - gpu.reserved) // _MIB} MiB of {device.total // _MIB} MiB is free"
            texts.append(
                f"{device.name} ({device.description}) needs {-(-predicted[device.name] // _MIB)} MiB, and {free}"
            )
    return "; ".join(texts)


def _room(device: Device, gpu: GPUOptions, spare: int) -> int:
    return max(0, device.free - gpu.reserved - spare)


def _plan(fit: _Fit, options: EngineOptions, short: str = "") -> OffloadPlan:
    layers = fit.placement.layers if fit.placement.devices else 0
    reason = ""
    if short:
        reason = f"{layers} of {fit.layers} layers fit the GPUs; with all of them {short}"
    elif 0 < layers < fit.layers:
        reason = f"the parameter num_gpu is {layers}"
    embeds_only = options.embedding is not None and options.embedding.embedding_only
    return OffloadPlan(fit.placement, 0 if embeds_only else fit.slots, fit.predicted, reason)
