"""Limits of the requests to a Model: its own, or the defaults of the installation."""

from __future__ import annotations

from corral_server.gateway.directory.directory import ModelEntry
from corral_server.wire.request_limits import RequestLimits


def limits_of(entry: ModelEntry, defaults: RequestLimits) -> RequestLimits:
    """Return the limits; ``defaults`` count where the Model sets none."""
    own = entry.model.spec.request_limits
    if own.max_output_tokens is None and own.max_duration is None:
        return defaults
    duration = own.max_duration_seconds
    return RequestLimits(
        defaults.max_output_tokens if own.max_output_tokens is None else own.max_output_tokens,
        defaults.max_duration if duration is None else duration,
    )
