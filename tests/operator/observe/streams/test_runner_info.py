"""What a loaded runner tells of the GPUs of its node."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.model.resource import parse_model
from corral_core.planning.gpus.offers import HOSTNAME
from corral_operator.config import RunnerDefaults
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.streams.runner_info import RunnerInfo
from corral_operator.reconcile.planning.load_choice import choose_load
from tests.operator import samples
from tests.operator.reconcile.loads import cluster_with
from tests.support.gpu_samples import GPU, dimensions

METADATA = replace(samples.METADATA, dimensions=dimensions(8))
TOTAL = 24 * 2**30
INFO = RunnerInfo(METADATA, 1, 4096, devices=(("NVIDIA L4", TOTAL + 1), ("NVIDIA L4", TOTAL)))


def cluster(*, gpus: str = "2", **spec: object) -> ClusterState:
    """Return a node whose labels say nothing of its GPUs, with a runner on it."""
    node = samples.with_metadata(samples.node("node-1", memory="64Gi", devices={GPU: "2"}), labels={HOSTNAME: "n"})
    state = cluster_with(parse_model(samples.model(spec=spec)), METADATA, [node])
    pod = {"nodeName": "node-1", "containers": [{"resources": {"requests": {GPU: gpus}}}]}
    state.apply(Kind.PODS, samples.pod(spec=pod))
    return state


def test_a_model_gets_a_gpu_of_a_node_whose_runner_reported_its_memory() -> None:
    state = cluster()
    subject = parse_model(samples.model())
    before = choose_load(state, subject, defaults=RunnerDefaults(), current=None)
    assert "the layers that fit" in before.why
    assert state.set_runner_info("lab/tiny", "uid-tiny-0", INFO)
    load = choose_load(state, subject, defaults=RunnerDefaults(), current=None)
    assert load.why.startswith("on 1 nvidia.com/gpu with ")
    assert load.gpus is not None
    names = [(one.key, one.values) for term in load.gpus.terms for one in term.match_expressions[:1]]
    assert set(names) == {(HOSTNAME, ("n",))}
    assert not state.set_runner_info("lab/tiny", "uid-tiny-0", INFO), "nothing new"


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(cluster(pod={"image": "other"}), id="an image that may report anything"),
        pytest.param(cluster(gpus="1"), id="other devices than the pod requests"),
        pytest.param(cluster(gpus="0"), id="a runner without GPUs"),
    ],
)
def test_a_report_that_may_be_wrong_is_not_believed(state: ClusterState) -> None:
    assert not state.set_runner_info("lab/tiny", "uid-tiny-0", INFO)


def test_the_report_of_a_pod_that_is_gone_is_not_believed() -> None:
    assert not cluster().set_runner_info("lab/tiny", "uid-other", INFO)
