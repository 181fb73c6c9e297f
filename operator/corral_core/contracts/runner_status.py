"""Runner status: the contract between a runner and the operator, the gateways and local mode.

- The runner is the only source of in-flight requests and of the keep_alive deadline.
- ``GET /activity`` returns one status; ``GET /activity?watch=true`` streams one JSON line at every change and a
  heartbeat line at least every ``HEARTBEAT_INTERVAL`` seconds. With ``&interval=N`` a line follows at least every N
  seconds while requests are active (from ``MIN_INTERVAL`` on), for a reader that follows ``generated_tokens``.
- Times travel as durations, so the clocks of two machines are never compared. A ``RunnerStatus`` has times of the clock
  of the process that holds it: ``to_json`` and ``from_json`` convert at the moment ``now`` of that clock.
- A runner may run any image. ``parse_runner_status`` accepts nothing but a status whose numbers and lengths are within
  bounds, and raises ValueError for everything else.
- All sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Final

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictFloat,
    StrictInt,
)

from corral_core.base.durations import FOREVER
from corral_core.base.json_codec import JsonCodec, LenientBool, OptionalStr
from corral_core.base.json_fields import JsonObject
from corral_core.base.received_json import parse_received_object

HEARTBEAT_INTERVAL = 5.0
"""Seconds between two lines of an unchanged status; after three missed lines the runner counts as unreachable."""
MIN_INTERVAL: Final = 0.5
"""Shortest interval in seconds that a reader of the stream gets."""

MAX_STATUS_BYTES: Final = 96 * 1024
"""Size of one status; ``MAX_GATEWAYS`` long names, and ``MAX_DEVICES`` devices with and without offload, fit."""
MAX_DURATION: Final = 10_000_000_000.0
"""Seconds: more than the longest duration of Go, 292 years, and few enough that every clock can be shifted by them."""
MAX_REQUESTS: Final = 1_000_000
MAX_GATEWAYS: Final = 128
MAX_DEVICES: Final = 64
_MAX_BYTES: Final = 2**53
_MAX_NAME: Final = 253
_MAX_DEVICE_NAME: Final = 128
_MAX_REASON: Final = 512
_MAX_LAYERS: Final = 65_536
_TIME_TOLERANCE: Final = 1.0
"""Seconds by which a time may seem to move because a status took longer to arrive than the one before."""


def _counts(value: object) -> object:
    """Drop counts that are out of range; anything but an object reads as None."""
    if not isinstance(value, Mapping):
        return None
    counts = {
        name[:_MAX_NAME]: count
        for name, count in value.items()
        if isinstance(name, str) and isinstance(count, int) and 0 <= count <= MAX_REQUESTS
    }
    return dict(list(counts.items())[:MAX_GATEWAYS])


def _objects(value: object) -> object:
    """Drop items that are not objects; anything but a list reads as empty, as does the status of an older release."""
    items = [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
    return items[:MAX_DEVICES]


Requests = Annotated[StrictInt, Field(ge=0, le=MAX_REQUESTS)]
Bytes = Annotated[StrictInt, Field(ge=0, le=_MAX_BYTES)]
DeviceName = Annotated[OptionalStr, AfterValidator(lambda name: name[:_MAX_DEVICE_NAME])]
Reason = Annotated[OptionalStr, AfterValidator(lambda text: text[:_MAX_REASON])]
Layers = Annotated[StrictInt, Field(ge=0, le=_MAX_LAYERS)]
Duration = Annotated[StrictFloat, Field(ge=-MAX_DURATION, le=MAX_DURATION)]

KeepAlive = Annotated[
    Duration,
    Field(alias="keep_alive_s"),
    AfterValidator(lambda seconds: FOREVER if seconds < 0 else seconds),
    PlainSerializer(lambda seconds: -1 if seconds == FOREVER else seconds),
]
"""Seconds; -1 in JSON is ``FOREVER``, as Ollama's clients write it."""


@dataclass(frozen=True, slots=True)
class GPUDevice:
    """One GPU and its memory in bytes as NVML reports it: ``used`` counts all processes, not only the runner."""

    name: DeviceName
    uuid: DeviceName
    total: Annotated[Bytes, Field(alias="total_bytes")]
    free: Annotated[Bytes, Field(alias="free_bytes")]
    used: Annotated[Bytes, Field(alias="used_bytes")]

    def to_json(self) -> dict[str, object]:
        return _GPU_DEVICE.encode(self)


@dataclass(frozen=True, slots=True)
class OffloadDevice:
    """Bytes that the loaded model has on one GPU: weights, KV cache and compute buffers.

    ``name`` is ggml's (``CUDA0``, ``Vulkan1``), ``description`` the product's. ``predicted`` is what llama.cpp planned
    before the load, 0 if it was not asked.
    """

    name: DeviceName
    description: DeviceName
    bytes: Bytes
    predicted: Annotated[Bytes, Field(alias="predicted_bytes")] = 0


@dataclass(frozen=True, slots=True)
class Offload:
    """What a loaded model has on GPUs. ``total_layers`` counts the output as a layer, as llama.cpp does.

    ``reason`` is why not all layers are on GPUs; it is empty if they are, and for a model that is to run on the CPU.
    """

    layers: Layers
    total_layers: Layers
    devices: Annotated[tuple[OffloadDevice, ...], BeforeValidator(_objects)] = ()
    reason: Reason = ""


@dataclass(frozen=True, slots=True)
class RunnerStatus:
    """Status of one runner at one moment.

    ``keep_alive`` is in seconds, ``FOREVER`` if the model is never unloaded. ``last_end`` is when the last request
    ended, None before the first one. ``expires_at`` is None while requests are in flight or waiting, before the model
    is loaded, and if keep_alive is ``FOREVER``; a time in the past requests the unload now. In JSON the two are
    ``idle_s``, seconds since then, and ``expires_in_s``, seconds until then.
    """

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)

    in_flight: Requests
    waiting: Requests
    slots: Requests
    loaded: LenientBool
    draining: LenientBool
    keep_alive: KeepAlive
    last_end: Annotated[Duration | None, Field(alias="idle_s")]
    expires_at: Annotated[Duration | None, Field(alias="expires_in_s")]
    size_bytes: Bytes
    vram_bytes: Bytes
    context_length: Annotated[StrictInt, Field(ge=0, le=2**31)]
    load_progress: Annotated[StrictFloat, Field(alias="progress", ge=0, le=1)] = 0.0
    """Fraction of the weights that is loaded, 0 to 1."""
    by_gateway: Annotated[Mapping[str, int] | None, BeforeValidator(_counts)] = None
    """In-flight and waiting requests by the gateway that sent them; direct requests are not counted. None if the runner
    is of a release without this field."""
    devices: Annotated[tuple[GPUDevice, ...], BeforeValidator(_objects)] = ()
    """The GPUs that are visible to the runner; empty without a driver."""
    offload: Annotated[Offload | None, BeforeValidator(lambda value: value if isinstance(value, Mapping) else None)] = (
        None
    )
    """None before the model is loaded, and in the status of a release without this field."""
    device_failure: Reason = ""
    """Which GPU has failed and why, "" if none has; the runner then drains and never accepts requests again."""
    generated_tokens: Bytes | None = field(default=None, compare=False)
    """Tokens generated since the model was loaded. None before that, and in the status of a release without this field.
    It is no reason to decide anything, so two statuses that differ in it are equal."""

    @property
    def busy(self) -> bool:
        return self.in_flight > 0 or self.waiting > 0

    def to_json(self, now: float) -> dict[str, object]:
        """Return the form that is sent at ``now``, in seconds of the clock of this status."""
        last_end = None if self.last_end is None else _within_bounds(now - self.last_end)
        expires_at = None if self.expires_at is None else _within_bounds(self.expires_at - now)
        return _RUNNER_STATUS.encode(replace(self, last_end=last_end, expires_at=expires_at))

    def steadied(self, previous: RunnerStatus | None) -> RunnerStatus:
        """Return this status with the times of the previous one where they differ by latency only.

        Otherwise ``expires_at`` of an unchanged runner would move with every heartbeat.
        """
        if previous is None:
            return self
        last_end = _steady(self.last_end, previous.last_end)
        expires_at = _steady(self.expires_at, previous.expires_at)
        return replace(self, last_end=last_end, expires_at=expires_at)

    @classmethod
    def from_json(cls, data: JsonObject, now: float) -> RunnerStatus:
        """Convert what arrived at ``now``, in seconds of the clock of the result.

        Raises ValueError if a required field is missing, has another type or is out of bounds.
        """
        status = _RUNNER_STATUS.decode(data)
        last_end = None if status.last_end is None else now - status.last_end
        expires_at = None if status.expires_at is None else now + status.expires_at
        return replace(status, last_end=last_end, expires_at=expires_at)


def parse_runner_status(data: bytes, now: float) -> RunnerStatus:
    """Parse a message of a runner that arrived at ``now``. Raises ValueError, and nothing else."""
    return RunnerStatus.from_json(parse_received_object(data, limit=MAX_STATUS_BYTES), now)


def _within_bounds(seconds: float) -> float:
    return min(max(seconds, -MAX_DURATION), MAX_DURATION)


def _steady(new: float | None, previous: float | None) -> float | None:
    if new is None or previous is None or abs(new - previous) > _TIME_TOLERANCE:
        return new
    return previous


_GPU_DEVICE = JsonCodec(GPUDevice, "GPU device")
_RUNNER_STATUS = JsonCodec(RunnerStatus, "runner status")
