"""The container that pulls the pinned sources of a Model: of a puller pod, or the init container of a runner pod.

It ends when everything is pulled; its termination message names the snapshots. The kubelet restarts one that fails,
with growing pauses, and it continues where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from corral_core.base.json_fields import JsonObject
from corral_core.contracts.model_identity import model_identity
from corral_core.contracts.source_resolution import SourceResolution
from corral_core.model.model import Model
from corral_operator.config import PullerDefaults, RunnerDefaults
from corral_operator.observe.labels import PULLER_CONTAINER
from corral_operator.observe.streams.pod_streams import RUNNER_PORT
from corral_operator.reconcile.source_access.network import network_mounts, puller_environment
from corral_operator.reconcile.store_volume import STORE_PATH, store_mounts

_RESOURCES: JsonObject = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
"""Measured: 115 MiB for a file of 98 MB on loopback; the page cache is not part of it."""


def puller_container(
    model: Model,
    source: SourceResolution,
    more: Mapping[str, str],
    *,
    defaults: RunnerDefaults,
    ranges: Sequence[str] = (),
) -> JsonObject:
    """Return the container, without mounts. ``more`` are further variables, ``ranges`` those of the cluster."""
    own = {
        "CORRAL_PULL": json.dumps([{"uri": uri, "pin": pin} for uri, pin in sorted(source.pins.items())]),
        "CORRAL_PULL_BYTES": str(source.total),
        "CORRAL_STORE": STORE_PATH,
        "CORRAL_PORT": str(RUNNER_PORT),
        "CORRAL_MODEL_IDENTITY": model_identity(model.key, model.uid),
        **more,
    }
    variables = [{"name": name, "value": value.replace("$", "$$")} for name, value in own.items()]
    return {
        "name": PULLER_CONTAINER,
        "image": model.spec.pod.image or defaults.image,
        "command": ["python", "-m", "corral_server.pull.pod.main"],
        "env": [*variables, *puller_environment(model, defaults.puller, ranges)],
        "resources": _RESOURCES,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def puller_mounts(model: Model, defaults: PullerDefaults) -> list[JsonObject]:
    """Return the mounts of the store and of ``network_volumes``."""
    return [*store_mounts(model, read_only=False), *network_mounts(model, defaults)]
