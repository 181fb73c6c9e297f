"""RuntimeClass of the runners with NVIDIA GPUs, if the installation leaves it to the cluster.

NVIDIA's GPU operator creates the RuntimeClass ``nvidia``
(https://docs.nvidia.com/datacenter/cloud-native/gpu-operator/latest/). Platforms whose nodes have NVIDIA's runtime as
their default one have none, and a pod that names a missing RuntimeClass is rejected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from corral_core.base.clock import steady_time
from corral_core.base.json_fields import get_str
from corral_kube.client import KubeClient
from corral_kube.errors import Forbidden
from corral_operator.observe import api_paths
from corral_operator.reconcile.runner_pod import NVIDIA_RUNTIME_CLASS

CACHE_SECONDS: Final = 60.0
"""Seconds for which a list of the RuntimeClasses is used for runners that exist."""

START_CACHE_SECONDS: Final = 1.0
"""The same for a Model's first runner: pods with a class that was deleted are rejected, and their requests end."""


class RuntimeClasses:
    """Whether the cluster has NVIDIA's RuntimeClass."""

    def __init__(self, kube: KubeClient, *, clock: Callable[[], float] = steady_time) -> None:
        self._kube = kube
        self._clock = clock
        self._known: str | None = None
        self._read_at = float("-inf")

    async def nvidia(self, *, starts: bool) -> str | None:
        """Return the name, ``""`` if the cluster has no such RuntimeClass, None if the operator may not read them.

        ``starts``: it is for a Model without runners. Raises KubeError: a failed list must not change the pods.
        """
        if self._clock() >= self._read_at + (START_CACHE_SECONDS if starts else CACHE_SECONDS):
            self._known = await self._read()
            self._read_at = self._clock()
        return self._known

    async def _read(self) -> str | None:
        try:
            found = (await self._kube.list(api_paths.runtime_classes())).items
        except Forbidden:
            return None
        names = {get_str(item, "metadata", "name") for item in found}
        return NVIDIA_RUNTIME_CLASS if NVIDIA_RUNTIME_CLASS in names else ""
