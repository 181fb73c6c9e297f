"""Error responses of the queue. A temporary condition carries the Retry-After estimate."""

from __future__ import annotations

from corral_core.base.durations import format_duration
from corral_server.gateway.directory.directory import ModelEntry, pulled_bytes
from corral_server.wire.errors import QUEUE_FULL, ApiError


def queue_full(retry_after: int) -> ApiError:
    """Return Ollama's error, which clients match on."""
    return ApiError(503, QUEUE_FULL, retry_after=retry_after)


def model_queue_full(entry: ModelEntry, limit: int, retry_after: int) -> ApiError:
    text = f"too many requests are queued for model '{entry.names[0]}' (limit {limit}), please try again"
    return ApiError(503, text, retry_after=retry_after)


def wait_timed_out(entry: ModelEntry, seconds: float, retry_after: int) -> ApiError:
    text = f"the request timed out after {format_duration(seconds)} in the queue for model '{entry.names[0]}'"
    if entry.pulling is not None:
        total, completed = pulled_bytes(entry.pulling)
        share = f"{100 * completed // total} % of {total / 1e9:.1f} GB" if total else f"{completed / 1e9:.1f} GB"
        text += f", whose weights are being pulled ({share} so far)"
    return ApiError(504, text, retry_after=retry_after)


def model_unavailable(entry: ModelEntry) -> ApiError:
    """Return 503 for a Model that its spec turns off, 500 for one that cannot load.

    Without Retry-After: the time at which the Model becomes available is unknown.
    """
    spec = entry.model.spec
    turned_off = spec.suspend or spec.replicas == 0
    return ApiError(503 if turned_off else 500, entry.unavailable_reason or "")
