"""The planner's snapshot of the cluster state."""

from __future__ import annotations

from dataclasses import replace

from corral_core.contracts.demand import DemandEntry
from corral_core.contracts.pull_status import PullStatus
from corral_core.planning.node import pod_requirements
from corral_core.planning.plan_memory import PlanMemory
from corral_core.planning.snapshot import Decision, ModelState, Plan, Policy, Snapshot
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.reconcile.planning.planner_input import planner_snapshot
from tests.operator import pull_samples, samples
from tests.operator.clock import ManualClock
from tests.operator.samples import NOW


def snapshot(state: ClusterState) -> Snapshot:
    return planner_snapshot(state, Policy(), NOW, memory=PlanMemory(), drained_before=lambda model: False, errors={})


def tiny(state: ClusterState) -> ModelState:
    (model,) = snapshot(state).models
    return model


def test_a_models_state_joins_deployment_pods_runner_status_and_demand(state: ClusterState) -> None:
    entry = DemandEntry("g1", 2, oldest=NOW - 1, renewed=NOW)
    state.apply(Kind.MODELS, samples.model(status={"demand": [entry.to_json()]}))
    state.apply(Kind.DEPLOYMENTS, samples.deployment(replicas=1))
    state.apply(Kind.PODS, samples.pod())
    state.runner_statuses["uid-tiny-0"] = samples.runner_status(in_flight=1)
    found = tiny(state)
    assert (found.desired, len(found.replicas)) == (1, 1)
    assert found.demand is not None
    assert found.demand.waiting == 2
    assert found.replicas[0].ready
    assert found.replicas[0].status is not None
    assert not found.replicas[0].idle


def test_a_runner_without_a_stream_has_no_status(state: ClusterState) -> None:
    state.apply(Kind.MODELS, samples.model())
    state.apply(Kind.PODS, samples.pod())
    assert tiny(state).replicas[0].status is None


def test_terminated_pods_are_not_replicas(state: ClusterState) -> None:
    state.apply(Kind.MODELS, samples.model())
    state.apply(Kind.PODS, samples.pod(status={"phase": "Failed"}))
    assert tiny(state).replicas == ()


def test_a_pod_without_a_node_is_not_a_replica(state: ClusterState) -> None:
    state.apply(Kind.MODELS, samples.model())
    state.apply(Kind.PODS, samples.pod(ready=False, spec={}))
    assert tiny(state).replicas == ()


def test_the_requirements_of_a_model_are_those_of_its_deployment(state: ClusterState) -> None:
    state.apply(Kind.MODELS, samples.model())
    assert tiny(state).requirements is None
    pod = {**samples.requesting("2Gi"), "nodeSelector": {"disk": "ssd"}}
    state.apply(Kind.DEPLOYMENTS, samples.deployment(pod_spec=pod))
    assert tiny(state).requirements == pod_requirements(pod)


def test_a_replica_has_the_node_and_the_requests_of_its_pod(state: ClusterState) -> None:
    state.apply(Kind.MODELS, samples.model())
    state.apply(Kind.PODS, samples.pod(spec={"nodeName": "node-1", **samples.requesting("2Gi")}))
    replica = tiny(state).replicas[0]
    assert (replica.node, replica.requests) == ("node-1", {"memory": 2 << 30, "pods": 1})


def test_the_limit_of_loaded_models_follows_the_gpus_of_the_nodes(state: ClusterState) -> None:
    assert snapshot(state).policy.loaded_limit == 3
    state.replace(Kind.NODES, [samples.node("n", devices={"nvidia.com/gpu": "2"})], "1")
    state.replace(Kind.OTHER_PODS, [], "1")
    found = snapshot(state)
    assert (found.policy.loaded_limit, len(found.nodes)) == (6, 1)


def test_the_placement_of_the_previous_plan_is_kept(state: ClusterState) -> None:
    state.apply(Kind.MODELS, samples.model())
    memory = PlanMemory()
    memory.adopt(snapshot(state), Plan({"lab/tiny": Decision(1, "starting", placement="n")}), NOW)
    found = planner_snapshot(state, Policy(), NOW, memory=memory, drained_before=lambda model: False, errors={})
    assert found.models[0].placement == "n"


def test_a_model_drains_by_its_status_only_until_there_is_a_plan(state: ClusterState) -> None:
    state.apply(Kind.MODELS, samples.model())
    memory = PlanMemory()
    drained = planner_snapshot(state, Policy(), NOW, memory=memory, drained_before=lambda model: True, errors={})
    assert drained.models[0].draining
    memory.adopt(drained, Plan({"lab/tiny": Decision(1, "serving requests")}), NOW)
    later = planner_snapshot(state, Policy(), NOW, memory=memory, drained_before=lambda model: True, errors={})
    assert not later.models[0].draining


def test_a_start_progresses_with_its_pod_and_the_load(state: ClusterState, clock: ManualClock) -> None:
    state.apply(Kind.MODELS, samples.model())
    times = []
    for version, pod in enumerate([{}, {"podIP": ""}, {"podIP": "10.1.2.3"}], 11):
        clock.now += 100
        spec = {"nodeName": "node-1"} if pod else {}
        state.apply(Kind.PODS, samples.pod(ready=False, version=version, spec=spec, status=pod))
        times.append(state.load_progress["uid-tiny-0"].progress_at)
    for progress in (0.0, 0.1, 0.1, 0.05, 0.2):
        clock.now += 100
        loading = replace(samples.runner_status(loaded=False), load_progress=progress)
        state.set_runner_status("uid-tiny-0", loading)
        times.append(tiny(state).replicas[0].progress_at or 0)
    assert [round(time - NOW) for time in times] == [100, 200, 300, 400, 500, 500, 500, 800]
    clock.now += 100
    state.set_runner_status("uid-tiny-0", samples.runner_status())
    clock.now += 100
    state.set_runner_status("uid-tiny-0", loading)
    replica = tiny(state).replicas[0]
    assert replica.progress_at == NOW + 1000, "it restarted"


def test_an_invalid_model_is_not_planned(state: ClusterState) -> None:
    state.apply(Kind.MODELS, samples.model(spec={"source": "nonsense"}))
    assert snapshot(state).models == ()


def test_a_model_that_lost_its_name_is_planned_like_any_other(state: ClusterState) -> None:
    state.apply(Kind.MODELS, samples.model("older", spec={"names": ["shared"]}))
    younger = samples.model("younger", spec={"names": ["shared"]})
    state.apply(Kind.MODELS, samples.with_metadata(younger, creationTimestamp="2026-01-02T03:04:06Z"))
    rejections = {model.key: model.rejection for model in snapshot(state).models}
    assert rejections["lab/older"] == rejections["lab/younger"]


def test_a_start_progresses_with_the_pull_in_its_pod(state: ClusterState, clock: ManualClock) -> None:
    state.apply(Kind.MODELS, samples.model())
    times = []

    def note() -> None:
        times.append(round(state.load_progress["uid-tiny-0"].progress_at - NOW))

    state.apply(Kind.PODS, pull_samples.runner({"running": {}}))
    for completed in (0, 500_000, 500_900, 400_000, 2_000_000):
        clock.now += 100
        state.set_pull_status("uid-tiny-0", PullStatus(completed, 1_000_000))
        note()
    clock.now += 100
    state.apply(Kind.PODS, pull_samples.runner({"terminated": {"exitCode": 0}}, version=21))
    clock.now += 100
    state.set_runner_status("uid-tiny-0", samples.runner_status(loaded=False))
    note()
    assert times == [0, 200, 300, 300, 500, 700]


def test_a_pull_without_a_size_progresses(state: ClusterState, clock: ManualClock) -> None:
    state.apply(Kind.PODS, pull_samples.runner({"running": {}}))
    clock.now += 100
    state.set_pull_status("uid-tiny-0", PullStatus(2**30, None))
    assert state.load_progress["uid-tiny-0"].progress_at == clock.now


def test_a_model_whose_pods_pull_may_start_once_it_is_resolved(state: ClusterState) -> None:
    state.apply(Kind.MODELS, pull_samples.model(spec=pull_samples.EPHEMERAL))
    assert tiny(state).not_pulled is None
