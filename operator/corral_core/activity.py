"""What a runner says about itself: the one truth about in-flight requests and keep_alive.

``GET /activity`` answers one such object; ``GET /activity?watch=true`` streams one JSON line at every change and a
heartbeat line at least every ``HEARTBEAT`` seconds. All times are Unix seconds (UTC), all sizes bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

HEARTBEAT = 5.0
"""Seconds after which an unchanged activity is said again; three missed ones mean the runner cannot be asked."""

FOREVER = math.inf


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU and its memory in bytes, as the driver tells it: of all processes, so ``used`` is not the runner's."""

    name: str
    uuid: str
    total: int
    free: int
    used: int

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "uuid": self.uuid,
            "total_bytes": self.total,
            "free_bytes": self.free,
            "used_bytes": self.used,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Device:
        """Raises ValueError when a number is missing."""
        total, free, used = (int(_number(data, f"{key}_bytes")) for key in ("total", "free", "used"))
        return cls(str(data.get("name", "")), str(data.get("uuid", "")), total=total, free=free, used=used)


@dataclass(frozen=True, slots=True)
class Activity:
    """One observation of one runner.

    ``keep_alive`` is in seconds, ``FOREVER`` when the model is never to be unloaded. ``expires_at`` is None while
    requests are in flight or waiting, before the model is loaded, and when keep_alive is forever; a time in the past
    asks for the unloading now.
    """

    in_flight: int
    waiting: int
    slots: int
    loaded: bool
    draining: bool
    keep_alive: float
    last_end: float | None
    expires_at: float | None
    size_bytes: int
    vram_bytes: int
    context_length: int
    progress: float = 0.0
    """Share of the weights that is loaded, 0 to 1."""
    by_gateway: Mapping[str, int] | None = None
    """How many of the requests in flight and waiting each gateway sent; those that came another way are in none.
    None for a runner of a release that did not say."""
    devices: tuple[Device, ...] = ()
    """The GPUs that the runner sees; none without a driver."""

    @property
    def busy(self) -> bool:
        return self.in_flight > 0 or self.waiting > 0

    def to_json(self) -> dict[str, object]:
        """The wire form; ``keep_alive_s`` is -1 for forever, as Ollama's clients write it."""
        return {
            "in_flight": self.in_flight,
            "waiting": self.waiting,
            "slots": self.slots,
            "loaded": self.loaded,
            "draining": self.draining,
            "keep_alive_s": -1 if self.keep_alive == FOREVER else self.keep_alive,
            "last_end": self.last_end,
            "expires_at": self.expires_at,
            "size_bytes": self.size_bytes,
            "vram_bytes": self.vram_bytes,
            "context_length": self.context_length,
            "progress": self.progress,
            "by_gateway": None if self.by_gateway is None else dict(self.by_gateway),
            "devices": [device.to_json() for device in self.devices],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Activity:
        """Raises ValueError when the object lacks a field or a field has another type."""
        keep_alive = _number(data, "keep_alive_s")
        return cls(
            in_flight=int(_number(data, "in_flight")),
            waiting=int(_number(data, "waiting")),
            slots=int(_number(data, "slots")),
            loaded=data.get("loaded") is True,
            draining=data.get("draining") is True,
            keep_alive=FOREVER if keep_alive < 0 else keep_alive,
            last_end=_optional(data, "last_end"),
            expires_at=_optional(data, "expires_at"),
            size_bytes=int(_number(data, "size_bytes")),
            vram_bytes=int(_number(data, "vram_bytes")),
            context_length=int(_number(data, "context_length")),
            progress=_number(data, "progress"),
            by_gateway=_counts(data, "by_gateway"),
            devices=_devices(data),
        )


def _number(data: Mapping[str, object], key: str) -> float:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"activity lacks the number {key!r}")
    return value


def _counts(data: Mapping[str, object], key: str) -> dict[str, int] | None:
    value = data.get(key)
    if not isinstance(value, Mapping):
        return None
    return {str(name): count for name, count in value.items() if isinstance(count, int)}


def _devices(data: Mapping[str, object]) -> tuple[Device, ...]:
    """None when they are absent: runners of before do not say."""
    value = data.get("devices")
    found = value if isinstance(value, list) else []
    return tuple(Device.from_json(item) for item in found if isinstance(item, Mapping))


def _optional(data: Mapping[str, object], key: str) -> float | None:
    return None if data.get(key) is None else _number(data, key)
