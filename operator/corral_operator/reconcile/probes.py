"""Probes of the runner container: startup (HTTP is served), readiness (accepts requests), liveness (makes progress).

- A load has no time limit for the kubelet. The runner itself exits when its load makes no progress for the load timeout
  (``corral_server/runner/lifecycle/load_watchdog.py``), and the liveness probe ends a process that does not answer.
- Until HTTP is served there is no other progress, so the startup probe gives it the load timeout.
- While it loads, the runner delays its answer to the readiness probe by a few seconds: the kubelet probes once a
  second, and so learns of the end of the load at once.
"""

from __future__ import annotations

import math

from corral_operator.config import RunnerDefaults

MIN_START = 30
"""Seconds that a process has at least until it serves HTTP."""

PROBE_WAIT = 4
"""Seconds for which a loading runner delays the answer; less than the probe's timeout."""

_MAX_INT32 = 2**31 - 1


def probes(defaults: RunnerDefaults) -> dict[str, object]:
    """Return the container's probes."""
    return {
        "startupProbe": _probe("/healthz", period=1, failures=_startup_failures(defaults.load_timeout)),
        "readinessProbe": _probe(f"/readyz?wait={PROBE_WAIT}", period=1, failures=2),
        "livenessProbe": _probe("/healthz", period=10, failures=6),
    }


def _startup_failures(timeout: float) -> int:
    """Return the failure threshold: a connection that is refused takes one period, which is a second."""
    return math.ceil(max(MIN_START, min(timeout, _MAX_INT32)))


def _probe(path: str, *, period: int, failures: int) -> dict[str, object]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
