"""How the kubelet asks a runner how it is: whether it has loaded, whether it takes requests, whether it gets on.

Until the first answer that it has loaded only that is asked, so nobody ends a runner for a long load that gets on. The
load may take as long as the weights take from a slow disk, and never less than the installation's patience.
"""

from __future__ import annotations

import math

from corral_core.activity import FOREVER
from corral_operator.config import RunnerDefaults

START = 30.0
"""Seconds for everything of a start but reading the weights."""
_MOST = 2**31 - 1


def probes(size: int, *, defaults: RunnerDefaults) -> dict[str, object]:
    """The container's probes; ``size`` is the weights file in bytes."""
    return {
        "startupProbe": _probe("/readyz", period=1, failures=load_budget(size, defaults)),
        "readinessProbe": _probe("/readyz", period=1, failures=2),
        "livenessProbe": _probe("/healthz", period=10, failures=6),
    }


def load_budget(size: int, defaults: RunnerDefaults) -> int:
    """Seconds that loading weights of ``size`` bytes may take."""
    if defaults.load_timeout == FOREVER:
        return _MOST
    return min(_MOST, math.ceil(max(defaults.load_timeout, START + size / defaults.load_rate)))


def _probe(path: str, *, period: int, failures: int) -> dict[str, object]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
