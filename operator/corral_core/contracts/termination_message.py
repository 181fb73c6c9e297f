"""Termination message: the contract by which an inspection pod returns model metadata to the operator.

- Kubernetes keeps 4,096 bytes of a termination message.
- What does not fit is left out and named, a license first: it is only shown, and the runner reports it once the model
  is loaded. Sizes, which the start of a runner depends on, always fit.
- For remote sources the message also has what they were resolved to (``source_resolution``).
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from corral_core.base.received_json import parse_received_object
from corral_core.contracts.model_metadata import MAX_METADATA_BYTES, ModelMetadata
from corral_core.contracts.packed_defaults import PART_NAMES, fitting_parts, only, source_defaults, with_source_defaults
from corral_core.contracts.source_resolution import ResolvedPins

MAX_MESSAGE_BYTES = 4096
_PREFIX = "corral-metadata:"
_RESOLVED = "resolved"
_INFO: Final = "model_info"
_PROJECTOR: Final = "projector_info"
_PARTS: Final = ("parameters", _INFO, "system", "template", "messages", _PROJECTOR, "licenses")
"""What may be left out, in the order of precedence: a runner's memory depends on the parameters."""


@dataclass(frozen=True, slots=True)
class InspectionReport:
    """What an inspection pod found. ``resolved`` is None for a Model without remote sources."""

    metadata: ModelMetadata
    resolved: ResolvedPins | None = None


def encode_metadata(metadata: ModelMetadata, resolved: ResolvedPins | None = None) -> str:
    """Encode as at most ``MAX_MESSAGE_BYTES`` ASCII characters. Raises ValueError if nothing fits."""

    def fits(parts: Sequence[str]) -> bool:
        return len(_encode(metadata, resolved, parts)) <= MAX_MESSAGE_BYTES

    encoded = _encode(metadata, resolved, fitting_parts(_PARTS, fits))
    if len(encoded) > MAX_MESSAGE_BYTES:
        raise ValueError("the model metadata does not fit into a termination message")
    return encoded


def _encode(metadata: ModelMetadata, resolved: ResolvedPins | None, parts: Sequence[str]) -> str:
    """Encode with these parts alone. The weights' own template is sent where the source brings none."""
    defaults = source_defaults(metadata)
    present = {part: bool(getattr(defaults, part)) for part in PART_NAMES}
    own_template = "" if defaults.template else metadata.template
    present |= {_INFO: bool(metadata.info), _PROJECTOR: bool(metadata.projector_info)}
    present |= {"template": bool(defaults.template or own_template)}
    missing = [PART_NAMES.get(part, part) for part in _PARTS if present[part] and part not in parts]
    kept = with_source_defaults(metadata, only(defaults, [part for part in parts if part in PART_NAMES]))
    kept = replace(
        kept,
        info=metadata.info if _INFO in parts else {},
        projector_info=metadata.projector_info if _PROJECTOR in parts else {},
        template=own_template if "template" in parts else "",
        left_out=(*missing, *metadata.left_out),
    )
    extra = {} if resolved is None else {_RESOLVED: resolved.to_json()}
    data = json.dumps({**kept.to_json(), **extra}, separators=(",", ":")).encode()
    return _PREFIX + base64.b85encode(zlib.compress(data, 9)).decode("ascii")


def decode_metadata(message: str) -> ModelMetadata:
    """Decode the metadata in a message. Raises ValueError, and nothing else, if it has none."""
    return decode_report(message).metadata


def decode_report(message: str) -> InspectionReport:
    """Decode a message. Raises ValueError, and nothing else, if it is not model metadata."""
    text = message[: 2 * MAX_MESSAGE_BYTES].strip()
    if not text.startswith(_PREFIX):
        raise ValueError("the termination message is not model metadata")
    try:
        decompressor = zlib.decompressobj()
        data = decompressor.decompress(base64.b85decode(text.removeprefix(_PREFIX)), MAX_METADATA_BYTES)
    except zlib.error as error:
        raise ValueError(f"the model metadata is corrupt: {error}") from error
    found = parse_received_object(data, limit=MAX_METADATA_BYTES)
    resolved = ResolvedPins.from_json(found[_RESOLVED]) if _RESOLVED in found else None
    return InspectionReport(ModelMetadata.from_json(found), resolved)
