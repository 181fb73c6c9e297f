"""Fixtures of the tests with fake GPUs: a further node with two of them, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.node.real_node import RealNode
from tests.node.release import Release
from tests.support.fake_gpus import FakeGpu, labels, write_cdi

GPUS = (FakeGpu(0), FakeGpu(1))


@pytest.fixture(scope="package")
def gpu_node(release: Release) -> Iterator[RealNode]:
    with release.cluster.further_node() as node:
        write_cdi(GPUS, node.cdi)
        release.cluster.api.patch(f"/api/v1/nodes/{node.name}", {"metadata": {"labels": labels(GPUS)}})
        release.upgrade("--set", "runner.images.cuda.repository=corral/runner")
        yield node
        release.upgrade("--set", "runner.images.cuda.repository=")
