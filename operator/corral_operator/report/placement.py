"""``status.placement`` and the condition Accelerated: what a runner gets, and what it has on its GPUs."""

from __future__ import annotations

from corral_core.base.json_fields import get_object
from corral_core.base.quantities import format_bytes
from corral_core.contracts.runner_status import Offload
from corral_operator.observe.streams.runner_info import RunnerInfo
from corral_operator.report.view import ModelView

ACCELERATED = "Accelerated"
"""Type of the condition of a Model that gets GPUs: whether its runner computes on them."""

State = tuple[bool, str, str]
"""Whether a condition is true, its reason and its message."""


def placement(view: ModelView) -> dict[str, object]:
    """Return the placement of the runner, or the one that it is expected to get, or else the last one."""
    if view.info is not None:
        return _of_runner(view, view.info)
    estimate = view.estimate
    if estimate is None or not estimate.load_config.generates:
        return dict(get_object(view.item.status, "placement"))
    expected = {"devices": [{"expectedBytes": size} for size in estimate.devices]} if estimate.devices else {}
    return {
        **_chosen(view),
        "parallel": estimate.load_config.parallel,
        "contextLength": estimate.load_config.context_length,
        "sizeBytes": estimate.engine,
        "hostBytes": estimate.total,
        **({"vramBytes": estimate.vram} if estimate.devices else {}),
        **expected,
        "why": f"expected: {view.load.why}; memory: {estimate}" if view.load.why else f"expected: {estimate}",
    }


def _of_runner(view: ModelView, info: RunnerInfo) -> dict[str, object]:
    offload, estimate = view.offload, view.estimate
    layers = {"layers": offload.layers, "totalLayers": offload.total_layers} if offload is not None else {}
    devices = _devices(view, info)
    return {
        **_chosen(view),
        "parallel": info.parallel,
        "contextLength": info.context_length,
        "sizeBytes": info.size_bytes,
        "vramBytes": info.vram_bytes,
        **({"hostBytes": estimate.total} if estimate is not None else {}),
        **layers,
        **({"devices": devices} if devices else {}),
        "why": view.load.why or "as in spec.gpu",
    }


def _chosen(view: ModelView) -> dict[str, object]:
    gpus, most = view.load.gpus, view.load.max_context_length
    context = {"maxContextLength": most} if most else {}
    return {**context, **({"gpus": gpus.count, "resource": gpus.resource} if gpus is not None else {"gpus": 0})}


def _devices(view: ModelView, info: RunnerInfo) -> list[dict[str, object]]:
    """Return the GPUs as the runner loaded onto them, or those that it sees; with the expected bytes of each."""
    expected = view.estimate.devices if view.estimate is not None else ()
    names = [(name, {"totalBytes": total}) for name, total in info.devices]
    if view.offload is not None and view.offload.devices:
        known = dict(enumerate(names if len(names) == len(view.offload.devices) else []))
        names = [
            (one.description or one.name, {"bytes": one.bytes, **(known[index][1] if index in known else {})})
            for index, one in enumerate(view.offload.devices)
        ]
    return [
        {"name": name[:256], **numbers, **({"expectedBytes": expected[index]} if index < len(expected) else {})}
        for index, (name, numbers) in enumerate(names)
    ]


def acceleration(view: ModelView) -> State | None:
    """Return the state of the condition Accelerated; None for a Model that gets no GPUs."""
    gpus = view.load.gpus
    if gpus is None:
        return None
    if not view.ready:
        return False, "NotLoaded", f"expected: {view.load.why or f'{gpus.count} {gpus.resource}'}"
    offload = view.offload
    if offload is None:
        return False, "NotReported", "the runner does not report which layers are on GPUs"
    done = f"{offload.layers} of {offload.total_layers} layers are on GPUs{_on(offload)}"
    reason = f": {offload.reason}" if offload.reason else ""
    if offload.layers == 0:
        return False, "OnCPU", f"the runner computes on the CPU{reason}"
    if offload.layers >= offload.total_layers:
        return True, "AllLayers", done
    if gpus.capacity or _layers_limited(view):
        return True, "PartOfLayers", f"{done}, as planned{reason}"
    return False, "FewerLayers", f"{done}, and all were planned to be{reason}"


def slowed(view: ModelView) -> State | None:
    """Return the state of Accelerated if the runner answers without the GPUs that were planned, else None."""
    state = acceleration(view)
    return state if state is not None and state[1] in ("OnCPU", "FewerLayers") else None


def _layers_limited(view: ModelView) -> bool:
    model = view.item.model
    return model is not None and model.spec.parameters.get("num_gpu", -1) >= 0


def _on(offload: Offload) -> str:
    parts = [f"{one.description or one.name} with {format_bytes(one.bytes)}" for one in offload.devices]
    return f": {', '.join(parts)}" if parts else ""
