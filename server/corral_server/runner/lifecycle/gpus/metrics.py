"""Prometheus metrics of the GPUs; without NVIDIA's driver those of devices have no series.

The labels are bounded: each device has one index (``gpu``), uuid and product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from corral_core.base.exposition import Labels, Metric, counter, gauge
from corral_server.runner.lifecycle.gpus.health import APPLICATION, DEVICE, DeviceHealth
from corral_server.system.nvml import DeviceReading

_GAUGES: tuple[tuple[str, str, Callable[[DeviceReading], float | None]], ...] = (
    ("memory_total_bytes", "Memory of the GPU.", lambda one: one.device.total),
    ("memory_used_bytes", "Memory of the GPU that all processes use.", lambda one: one.device.used),
    ("utilization_ratio", "Fraction of time in which a kernel ran on the GPU.", lambda one: one.utilization),
    (
        "memory_utilization_ratio",
        "Fraction of time in which memory of the GPU was read or written.",
        lambda one: one.memory_utilization,
    ),
    ("temperature_celsius", "Temperature of the GPU.", lambda one: one.temperature),
    ("power_watts", "Power that the GPU draws.", lambda one: one.power),
    (
        "uncorrected_ecc_errors",
        "Uncorrected ECC errors of the GPU since the driver was loaded.",
        lambda one: one.uncorrected_errors,
    ),
)


def device_families(health: DeviceHealth, labels: Labels, *, failed: bool) -> Iterator[Metric]:
    """Yield the families. ``labels`` are those of the runner; ``failed``: a device has ended its readiness."""
    text = "1 if a GPU has failed, so that the runner accepts no requests."
    yield gauge("corral_runner_gpu_failed", text, [(labels, failed)])
    rows = [(_labels(labels, reading), reading) for reading in health.readings]
    for name, text, read in _GAUGES:
        series = [(row, value) for row, reading in rows if (value := read(reading)) is not None]
        yield gauge(f"corral_runner_gpu_{name}", text, series)
    yield counter(
        "corral_runner_gpu_xid_errors_total",
        "Xid errors of the GPU since the runner started by kind: application, or device (which ends the readiness).",
        [
            ({**row, "kind": kind}, health.xid_errors[reading.device.uuid, kind])
            for row, reading in rows
            for kind in (APPLICATION, DEVICE)
        ],
    )


def _labels(labels: Labels, reading: DeviceReading) -> Labels:
    return {**labels, "gpu": str(reading.index), "uuid": reading.device.uuid, "product": reading.device.name}
