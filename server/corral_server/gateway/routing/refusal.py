"""Why a request that would have to wait, or has waited, is not served: the errors, in words for people.

Each that time alone cures says when to come again, at the pace that was observed.
"""

from __future__ import annotations

from corral_core.durations import format_duration
from corral_server.gateway.directory import Entry
from corral_server.wire.errors import QUEUE_FULL, ApiError


def queue_full(retry_after: int) -> ApiError:
    """Ollama's text, on which clients match."""
    return ApiError(503, QUEUE_FULL, retry_after=retry_after)


def line_full(entry: Entry, limit: int, retry_after: int) -> ApiError:
    text = f"as many requests wait for model '{entry.names[0]}' as may ({limit}), please try again"
    return ApiError(503, text, retry_after=retry_after)


def waited_too_long(entry: Entry, seconds: float, retry_after: int) -> ApiError:
    text = f"the request has waited for model '{entry.names[0]}' as long as it may ({format_duration(seconds)})"
    return ApiError(504, text, retry_after=retry_after)


def failure_of(entry: Entry) -> ApiError:
    """What a person turned off comes back when a person says so (503); what cannot load has failed (500).

    Neither says when to come again: that is known to nobody.
    """
    spec = entry.model.spec
    turned_off = spec.suspend or spec.replicas == 0
    return ApiError(503 if turned_off else 500, entry.failure or "")
