"""Usage of a loaded Model as its runners report it: since when it is idle, and when it is unloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral_core.base.durations import FOREVER
from corral_core.contracts.runner_status import RunnerStatus


@dataclass(frozen=True, slots=True)
class Usage:
    """``expires_at`` and ``idle_since`` are Unix seconds, ``keep_alive`` is seconds or ``FOREVER``.

    ``expires_at`` is when the model is unloaded if no request arrives before, None if never. ``idle_since`` is when the
    last request ended, or the load without one, None while requests are in flight. Each is None if it is not known.
    """

    expires_at: float | None = None
    idle_since: float | None = None
    keep_alive: float | None = None


UNKNOWN_USAGE = Usage()


def usage(statuses: Sequence[RunnerStatus | None], now: float) -> Usage:
    """Return the usage of a Model by the statuses of its ready runners; None stands for one that is not known."""
    known = [status for status in statuses if status is not None and status.loaded]
    if not known or len(known) < len(statuses):
        return UNKNOWN_USAGE
    expiries = [_expiry(status, now) for status in known]
    starts = [_idle_since(status) for status in known]
    return Usage(
        expires_at=_last(expiries),
        idle_since=_last(starts),
        keep_alive=max(status.keep_alive for status in known),
    )


def _last(times: Sequence[float | None]) -> float | None:
    """Return the last of the times, None if one of them is."""
    present = [time for time in times if time is not None]
    return max(present) if len(present) == len(times) else None


def _expiry(status: RunnerStatus, now: float) -> float | None:
    """Return when a runner's keep_alive ends if no more requests arrive; None: never."""
    if not status.busy:
        return status.expires_at
    return now + status.keep_alive if status.keep_alive < FOREVER else None


def _idle_since(status: RunnerStatus) -> float | None:
    if status.busy:
        return None
    if status.last_end is not None or status.expires_at is None:
        return status.last_end
    return status.expires_at - status.keep_alive
