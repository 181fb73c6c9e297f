"""Source resolution: what the remote sources of a Model were resolved to, and whether that is pulled.

The inspector reports pins and size in its termination message, and the operator keeps them in ``status.source``.
Tenants can write to both, so every length and number is bounded; ValueError is the only error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

from pydantic import Field, StrictInt, StrictStr

from corral_core.base.json_codec import JsonCodec, OptionalStr
from corral_core.base.json_fields import get_object

MAX_SOURCES: Final = 17
"""The weights and sixteen adapters."""
MAX_PIN: Final = 1024
_MAX_BYTES: Final = 2**53

Uri = Annotated[StrictStr, Field(max_length=2048)]
Pin = Annotated[StrictStr, Field(max_length=MAX_PIN)]
SnapshotId = Annotated[StrictStr, Field(pattern="^[0-9a-f]{32}$")]
ImagePath = Annotated[StrictStr, Field(max_length=1024)]
Size = Annotated[StrictInt, Field(ge=0, le=_MAX_BYTES)]

RESOLVE_ANNOTATION = "corral.dev/resolve-requested-at"
"""Annotation of a Model with ``updatePolicy: Poll``: a time (RFC 3339). If its sources were last resolved before that
time, they are resolved again at once."""


@dataclass(frozen=True, slots=True)
class ResolvedPins:
    """Pins of the remote sources in their order in the Model, and the bytes of all their files, 0 if unknown.

    ``image_path`` is the path of the weights in the source if that is an image that can be mounted, else empty.
    """

    pins: Annotated[tuple[Pin, ...], Field(max_length=MAX_SOURCES, strict=False)]
    total: Size = 0
    image_path: Annotated[ImagePath, Field(alias="imagePath")] = ""

    def to_json(self) -> dict[str, object]:
        return _PINS.encode(self)

    @classmethod
    def from_json(cls, data: object) -> ResolvedPins:
        return _PINS.decode(data)


@dataclass(frozen=True, slots=True)
class SourceResolution:
    """``status.source``: ``pins`` by source, and ``snapshots`` by source once everything is pulled.

    ``resolved_at`` is the time of the resolver's end as the kubelet wrote it, empty if an older release resolved it.
    ``claim`` is the PersistentVolumeClaim with the snapshots, ``claim_uid`` its UID if the operator created it.
    ``image_path`` is that of ``ResolvedPins``.
    """

    uri: Uri
    pins: Annotated[Mapping[Uri, Pin], Field(max_length=MAX_SOURCES)]
    total: Annotated[Size, Field(alias="totalBytes")] = 0
    snapshots: Annotated[Mapping[Uri, SnapshotId], Field(max_length=MAX_SOURCES)] = field(default_factory=dict)
    claim: OptionalStr = ""
    claim_uid: Annotated[OptionalStr, Field(alias="claimUID")] = ""
    resolved_at: Annotated[OptionalStr, Field(alias="resolvedAt")] = ""
    image_path: Annotated[ImagePath, Field(alias="imagePath")] = ""

    def to_json(self) -> dict[str, object]:
        """Return the form in the status, without empty fields; ``pin`` repeats that of the weights for people."""
        encoded = {**_RESOLUTION.encode(self), "pin": self.pins.get(self.uri, "")}
        return {name: value for name, value in encoded.items() if value}


_PINS: Final = JsonCodec(ResolvedPins, "source resolution")
_RESOLUTION: Final = JsonCodec(SourceResolution, "source resolution")


def resolution_in_status(status: Mapping[str, object]) -> SourceResolution | None:
    """Return ``status.source``, None if it has none that can be parsed."""
    try:
        return _RESOLUTION.decode(get_object(status, "source"))
    except ValueError:
        return None
