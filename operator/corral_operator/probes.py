"""How the kubelet asks a runner how it is: whether it has loaded, whether it takes requests, whether it gets on.

Until the first answer that it has loaded only that is asked, so nobody ends a runner for a long load that gets on. The
load may take as long as the weights take from a slow disk, and never less than the installation's patience. The runner
keeps that question until it has loaded, or for a few seconds: a kubelet asks once a second, and so hears of it at once.
"""

from __future__ import annotations

import math

from corral_core.activity import FOREVER
from corral_operator.config import RunnerDefaults

START = 30.0
"""Seconds for everything of a start but reading the weights."""
WAIT = 4
"""Seconds for which a runner that loads keeps the kubelet's question; less than the kubelet's own patience."""
_MOST = 2**31 - 1


def probes(size: int, *, defaults: RunnerDefaults) -> dict[str, object]:
    """The container's probes; ``size`` is the weights file in bytes."""
    return {
        "startupProbe": _probe(f"/readyz?wait={WAIT}", period=1, failures=startup_failures(size, defaults)),
        "readinessProbe": _probe("/readyz", period=1, failures=2),
        "livenessProbe": _probe("/healthz", period=10, failures=6),
    }


def startup_failures(size: int, defaults: RunnerDefaults) -> int:
    """How often the runner may say no: while it loads each time takes WAIT, and a second before its HTTP is up."""
    return min(_MOST, math.ceil(load_budget(size, defaults) / WAIT) + math.ceil(START))


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
