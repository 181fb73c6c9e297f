"""What a source brings of a Modelfile, packed into a short text: for the status of a Model and ``GET /info``.

- The text is base64 of compressed JSON, of at most ``MAX_PACKED`` characters: operator and gateways hold it for every
  Model. A license of 14 KB and a template of 2 KB take 8 KB.
- Parts that do not fit are left out and named, those without an effect on answers first.
- Tenants can write to a status and run any image, so a text is decompressed up to a bound only.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from corral_core.base.received_json import parse_received_object
from corral_core.contracts.model_metadata import MAX_PACKED, ModelMetadata
from corral_core.contracts.source_defaults import NO_DEFAULTS, SourceDefaults

MAX_UNPACKED: Final = 256 * 1024
"""Bytes of the JSON in a text."""

PART_NAMES: Final[Mapping[str, str]] = {
    "parameters": "parameters",
    "system": "system",
    "template": "template",
    "messages": "messages",
    "licenses": "license",
}
"""Names in /api/show of the parts of ``SourceDefaults``, in the order in which they are packed."""


def with_source_defaults(metadata: ModelMetadata, defaults: SourceDefaults) -> ModelMetadata:
    """Return the metadata with the defaults, as far as they fit, and with the names of the parts that do not."""
    kept = fitting_parts([part for part in PART_NAMES if getattr(defaults, part)], lambda parts: _fits(defaults, parts))
    left_out = tuple(name for part, name in PART_NAMES.items() if getattr(defaults, part) and part not in kept)
    return replace(metadata, source_defaults=_packed(only(defaults, kept)), left_out=left_out)


def source_defaults(metadata: ModelMetadata | None) -> SourceDefaults:
    """Return the defaults in the metadata; none if it has none, or none that can be unpacked."""
    if metadata is None or not metadata.source_defaults:
        return NO_DEFAULTS
    try:
        data = base64.b64decode(metadata.source_defaults, validate=True)
        text = zlib.decompressobj().decompress(data, MAX_UNPACKED)
        return SourceDefaults.from_json(parse_received_object(text, limit=MAX_UNPACKED))
    except (ValueError, zlib.error):
        return NO_DEFAULTS


def only(defaults: SourceDefaults, parts: Sequence[str]) -> SourceDefaults:
    """Return the defaults with these parts alone."""
    return replace(NO_DEFAULTS, **{part: getattr(defaults, part) for part in parts})


def fitting_parts(parts: Sequence[str], fits: Callable[[Sequence[str]], bool]) -> list[str]:
    """Return the parts that fit together; an earlier one has precedence over a later one."""
    kept: list[str] = []
    for part in parts:
        if fits([*kept, part]):
            kept.append(part)
    return kept


def _fits(defaults: SourceDefaults, parts: Sequence[str]) -> bool:
    chosen = only(defaults, parts)
    return len(_json(chosen)) <= MAX_UNPACKED and len(_packed(chosen)) <= MAX_PACKED


def _packed(defaults: SourceDefaults) -> str:
    return "" if defaults == NO_DEFAULTS else base64.b64encode(zlib.compress(_json(defaults), 9)).decode("ascii")


def _json(defaults: SourceDefaults) -> bytes:
    return json.dumps(defaults.to_json(), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
