"""Cluster state: what follows from the objects and runner statuses that it holds."""

from __future__ import annotations

from corral_core.base.json_fields import JsonObject
from corral_core.contracts.demand import DemandEntry
from corral_core.model.name_index import LostName
from corral_operator.observe.cluster_state import ClusterState, Kind, StateChange
from corral_operator.observe.demand_tracker import MAX_CLOCK_ERROR
from tests.operator import samples
from tests.operator.samples import NOW


def with_demand(renewed: float, *, version: int = 10) -> dict[str, object]:
    entry = DemandEntry("g1", 2, oldest=renewed - 1, renewed=renewed)
    return samples.model(version=version, status={"demand": [entry.to_json()]})


def test_a_change_names_the_models_or_the_other_kinds_of_objects(state: ClusterState) -> None:
    assert state.apply(Kind.MODELS, samples.model()) == StateChange(frozenset({"lab/tiny"}))
    assert state.apply(Kind.PODS, samples.pod()) == StateChange(frozenset({"lab/tiny"}), pods=True)
    assert state.replace(Kind.PODS, [], "11") == StateChange(frozenset({"lab/tiny"}), pods=True)
    assert state.replace(Kind.NODES, [samples.node("n")], "1") == StateChange(nodes=True)
    assert not state.replace(Kind.NODES, [samples.node("n", version=11, heartbeat="later")], "12")


def test_demand_in_the_first_list_counts_unless_it_is_older_than_any_clock_error(state: ClusterState) -> None:
    state.replace(Kind.MODELS, [with_demand(NOW - MAX_CLOCK_ERROR - 1)], "10")
    assert state.demand_tracker.demand("lab/tiny", NOW) is None
    state.apply(Kind.MODELS, with_demand(NOW - MAX_CLOCK_ERROR, version=11))
    assert state.demand_tracker.demand("lab/tiny", NOW) is not None


def test_demand_is_removed_with_its_model(state: ClusterState) -> None:
    state.apply(Kind.MODELS, with_demand(NOW))
    state.delete(Kind.MODELS, with_demand(NOW, version=11))
    assert state.demand_tracker.demand("lab/tiny", NOW) is None


def test_the_younger_of_two_models_with_one_name_has_a_conflict_until_the_older_is_gone(state: ClusterState) -> None:
    older = samples.model("older", spec={"names": ["shared"]})
    younger = samples.with_metadata(
        samples.model("younger", spec={"names": ["shared"]}), creationTimestamp="2026-01-02T03:04:06Z"
    )
    state.apply(Kind.MODELS, younger)
    state.apply(Kind.MODELS, older)
    assert state.lost_names("lab/younger") == (LostName("shared:latest", "Model lab/older"),)
    assert state.client_names("lab/younger") == ("lab/younger:latest",)
    change = state.delete(Kind.MODELS, samples.with_metadata(older, resourceVersion="11"))
    assert change.models == {"lab/older", "lab/younger"}, "the status of the younger changes as well"
    assert state.lost_names("lab/younger") == ()
    assert state.client_names("lab/younger") == ("shared:latest",)


def test_the_present_owner_of_a_lost_name_is_reported_after_the_next_list(state: ClusterState) -> None:
    def claiming(name: str, day: int) -> JsonObject:
        made = samples.model(name, spec={"names": ["shared"]})
        return samples.with_metadata(made, creationTimestamp=f"2026-01-0{day}T03:04:06Z")

    young, middle, old = claiming("young", 3), claiming("middle", 2), claiming("old", 1)
    state.apply(Kind.MODELS, young)
    state.apply(Kind.MODELS, middle)
    assert state.lost_names("lab/young")[0].owner == "Model lab/middle"
    assert "lab/young" not in state.apply(Kind.MODELS, old).models
    assert "lab/young" in state.replace(Kind.MODELS, [young, middle, old], "20").models
    assert state.lost_names("lab/young")[0].owner == "Model lab/old"
    assert not state.replace(Kind.MODELS, [young, middle, old], "21")


def test_what_runners_reported_is_dropped_with_their_pods(state: ClusterState) -> None:
    state.apply(Kind.PODS, samples.pod())
    state.runner_statuses["uid-tiny-0"] = samples.runner_status()
    state.delete(Kind.PODS, samples.pod(version=11))
    state.forget_runners()
    assert state.runner_statuses == {}


def test_a_replacement_is_blocked_while_the_new_runner_is_unschedulable_beside_the_old_one(
    state: ClusterState,
) -> None:
    unschedulable = samples.unschedulable("Insufficient memory")
    state.apply(Kind.PODS, samples.pod(name="tiny-1", ready=False, spec={}, status=unschedulable))
    assert not state.replacement_blocked("lab/tiny")
    state.apply(Kind.PODS, samples.pod())
    assert state.replacement_blocked("lab/tiny")
    state.apply(Kind.PODS, samples.with_metadata(samples.pod(version=11), deletionTimestamp=samples.CREATED))
    assert not state.replacement_blocked("lab/tiny")


def test_nothing_is_known_of_nodes_before_nodes_and_other_pods_were_listed(state: ClusterState) -> None:
    state.replace(Kind.NODES, [samples.node("node-1", devices={"nvidia.com/gpu": "2"})], "1")
    assert (state.nodes(), state.gpus(), state.node_alive("node-1")) == ((), 0, None)
    state.replace(Kind.OTHER_PODS, [], "1")
    assert (len(state.nodes()), state.gpus(), state.node_alive("node-1")) == (1, 2, True)


def test_pods_of_models_count_on_their_node_until_they_have_terminated(state: ClusterState) -> None:
    state.replace(Kind.NODES, [samples.node("node-1")], "1")
    state.replace(Kind.OTHER_PODS, [], "1")
    spec = {"nodeName": "node-1", **samples.requesting("2Gi")}
    state.apply(Kind.PODS, samples.pod(spec=spec))
    assert dict(state.nodes()[0].requested) == {"memory": 2 << 30, "pods": 1}
    state.apply(Kind.PODS, samples.pod(version=11, spec=spec, status={"phase": "Succeeded"}))
    assert dict(state.nodes()[0].requested) == {}
    state.delete(Kind.PODS, samples.pod(version=12, spec=spec))
    assert dict(state.nodes()[0].requested) == {}
