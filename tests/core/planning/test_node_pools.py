"""Models that fit no present node, and the node pools that an autoscaler can add nodes to."""

from __future__ import annotations

from dataclasses import replace

from corral_core.planning.node import Taint
from corral_core.planning.node_pools import NodePool
from corral_core.planning.planner import plan
from corral_core.planning.snapshot import Decision, ModelState, NodeState, Policy, Snapshot
from tests.support.planning import GPU, NOW, cold, gpu_node, loading, node, on_gpus, sized, warm

PRESENT = node("cpu-only", 100)
POOL = NodePool("big", replace(gpu_node("a new node of the pool big", 2, 40), labels={"pool": "big"}), 1)


def decide(*models: ModelState, pools: tuple[NodePool, ...] = (POOL,), limit: int = 9) -> list[Decision]:
    states = (NodeState(PRESENT, {}),)
    made = plan(Snapshot(models, Policy(max_loaded=limit), states, pools), NOW)
    return [made.decisions[model.key] for model in models]


def on_gpu(key: str, gpus: int = 1) -> ModelState:
    return on_gpus(cold(key, waiting_since=5), gpus, 30)


def test_a_model_that_only_a_new_node_fits_starts_without_a_node() -> None:
    [decision] = decide(on_gpu("a"))
    assert (decision.replicas, decision.placement, decision.failure) == (1, "", None)
    assert decision.reason == "requests are pending: starting when the node pool big has a new node"


def test_a_model_that_fits_a_present_node_does_not_wait_for_a_new_one() -> None:
    [decision] = decide(sized(cold("a", waiting_since=5), 10), pools=(replace(POOL, node=node("new", 1000)),))
    assert decision.placement == "cpu-only"


def test_idle_models_leave_before_a_node_is_added() -> None:
    idle = sized(warm("idle"), 90, on="cpu-only")
    pools = (NodePool("more", node("new", 1000)),)
    states = (NodeState(PRESENT, {"memory": 90}),)
    made = plan(
        Snapshot((idle, sized(cold("a", waiting_since=5), 50)), Policy(max_loaded=9), states, pools), NOW
    ).decisions
    assert (made["idle"].evicted_for, made["a"].replicas) == ("a", 0)


def test_a_new_node_is_added_when_no_model_can_leave() -> None:
    pinned = sized(warm("pinned", min_replicas=1), 90, on="cpu-only")
    states = (NodeState(PRESENT, {"memory": 90}),)
    snapshot = Snapshot((pinned, sized(cold("a", waiting_since=5), 50)), Policy(max_loaded=9), states)
    assert plan(snapshot, NOW).decisions["a"].replicas == 0
    with_pool = replace(snapshot, node_pools=(NodePool("more", node("new", 1000)),))
    assert plan(with_pool, NOW).decisions["a"].replicas == 1


def test_a_model_that_fits_neither_fails_with_the_numbers() -> None:
    [decision] = decide(on_gpu("a", gpus=3))
    assert decision.failure == (f"needs 3 {GPU}; the most that any node has is 2 {GPU} on a new node of the pool big")


def test_no_more_models_start_than_the_new_nodes_fit() -> None:
    assert [each.replicas for each in decide(on_gpu("a"), on_gpu("b"), on_gpu("c"))] == [1, 1, 0]
    more = (replace(POOL, max_nodes=2),)
    assert [each.replicas for each in decide(*map(on_gpu, "abcde"), pools=more)] == [1, 1, 1, 1, 0]
    unlimited = (replace(POOL, max_nodes=None),)
    assert [each.replicas for each in decide(*map(on_gpu, "abcde"), pools=unlimited)] == [1] * 5


def test_a_model_keeps_its_pod_until_the_new_node_has_its_devices() -> None:
    starting = replace(on_gpu("a"), desired=1)
    joining = node("new", 1000, labels={"pool": "big"})
    for states in ((NodeState(PRESENT),), (NodeState(PRESENT), NodeState(joining))):
        made = plan(Snapshot((starting,), Policy(max_loaded=9), states, (POOL,)), NOW)
        assert made.decisions["a"].replicas == 1
    ready = replace(gpu_node("new", 2, 40), labels={"pool": "big"})
    made = plan(Snapshot((starting,), Policy(max_loaded=9), (NodeState(PRESENT), NodeState(ready)), (POOL,)), NOW)
    assert made.decisions["a"].placement == "new"


def test_a_full_pool_adds_no_node() -> None:
    ready = replace(gpu_node("new", 2, 40), labels={"pool": "big"})
    states = (NodeState(PRESENT), NodeState(ready, {GPU: 2}))
    made = plan(Snapshot((on_gpu("a"),), Policy(max_loaded=9), states, (POOL,)), NOW)
    assert made.decisions["a"].replicas == 0
    assert made.decisions["a"].failure is None


def test_taints_of_a_pool_exclude_models_that_do_not_tolerate_them() -> None:
    tainted = replace(POOL, node=replace(POOL.node, taints=(Taint("team", "red", "NoSchedule"),)))
    [decision] = decide(on_gpu("a"), pools=(tainted,))
    assert decision.failure is not None


def test_the_limit_of_loaded_models_holds_for_new_nodes() -> None:
    other = sized(loading("other", waiting_since=9), 10, on="cpu-only")
    assert [each.replicas for each in decide(other, on_gpu("a"), limit=1)] == [1, 0]
