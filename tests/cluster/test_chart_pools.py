"""Node pools in the values of the chart: the operator gets them, and helm rejects what is no pool."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from corral_operator.config import from_environment
from tests.cluster.helm import CHART, NAMESPACE, RELEASE, Helm, rendered, variable

pytestmark = pytest.mark.cluster

LABELS = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
GPU_POOL = {"selector": LABELS, "memory": "22Gi"}
NODE_POOL = {
    "name": "l4",
    "labels": LABELS,
    "resources": {"cpu": 7, "memory": "28Gi", "nvidia.com/gpu": "1"},
    "taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
    "maxNodes": 4,
}


def test_the_operator_gets_the_pools(helm: Helm) -> None:
    objects = rendered(helm, {"gpuPools": [GPU_POOL], "nodePools": [NODE_POOL]})
    names = ("CORRAL_GPU_POOLS", "CORRAL_NODE_POOLS")
    config = from_environment({name: variable(objects, "operator", name) or "" for name in names})
    [pool] = config.pools.node
    assert (pool.name, pool.max_nodes, pool.node.gpus[0].memory) == ("l4", 4, 22 * 2**30)


@pytest.mark.parametrize(
    "values",
    [
        {"gpuPools": [{**GPU_POOL, "selector": {}}]},
        {"gpuPools": [{**GPU_POOL, "memory": "much"}]},
        {"nodePools": [{**NODE_POOL, "minNodes": 1}]},
        {"nodePools": [{"name": "l4", "labels": LABELS}]},
    ],
)
def test_what_is_no_pool_is_rejected(helm: Helm, values: Mapping[str, object]) -> None:
    done = helm("template", RELEASE, str(CHART), "-n", NAMESPACE, values=values)
    assert done.returncode != 0
    assert "Pools" in done.stderr
