"""The planner's view of what was heard."""

from __future__ import annotations

from corral_core.demand import LIFETIME, DemandEntry
from corral_core.node import needs_of, parse_node
from corral_core.snapshot import ModelState, Policy
from corral_operator.observe import DELETED, Store
from tests.operator import samples

NOW = 1_800_000_000.0


def state(store: Store, key: str = "lab/tiny", now: float = NOW) -> ModelState | None:
    snapshot = store.snapshot(Policy(), now, lambda model: False)
    return next((model for model in snapshot.models if model.key == key), None)


def demanding(renewed: float, *, version: int = 10) -> dict[str, object]:
    entry = DemandEntry("g1", 2, oldest=renewed - 1, renewed=renewed)
    return samples.model(version=version, status={"demand": [entry.to_json()]})


def test_a_models_state_joins_deployment_pods_activity_and_demand() -> None:
    store = Store()
    store.heard_model(demanding(NOW), kind="ADDED", now=NOW)
    store.heard_deployment(samples.deployment(replicas=1), kind="ADDED")
    store.heard_pod(samples.pod(), kind="ADDED")
    store.activities["uid-tiny-0"] = samples.activity(in_flight=1)
    found = state(store)
    assert found is not None
    assert (found.desired, len(found.replicas)) == (1, 1)
    assert found.demand is not None
    assert found.demand.waiting == 2
    assert found.replicas[0].ready
    assert found.replicas[0].activity is not None
    assert not found.replicas[0].idle


def test_a_runner_of_which_nothing_was_heard_has_no_activity() -> None:
    store = Store()
    store.heard_model(samples.model(), kind="ADDED", now=NOW)
    store.heard_pod(samples.pod(), kind="ADDED")
    found = state(store)
    assert found is not None
    assert found.replicas[0].activity is None


def test_pods_that_have_ended_are_no_replicas() -> None:
    store = Store()
    store.heard_model(samples.model(), kind="ADDED", now=NOW)
    ended = samples.pod()
    status = ended["status"]
    assert isinstance(status, dict)
    status["phase"] = "Failed"
    store.heard_pod(ended, kind="ADDED")
    found = state(store)
    assert found is not None
    assert found.replicas == ()


def test_a_pod_without_a_node_is_no_replica_yet() -> None:
    store = Store()
    store.heard_model(samples.model(), kind="ADDED", now=NOW)
    store.heard_pod({**samples.pod(ready=False), "spec": {}}, kind="ADDED")
    found = state(store)
    assert found is not None
    assert found.replicas == ()


def test_what_a_model_needs_is_what_its_deployment_asks_for() -> None:
    store = Store()
    store.heard_model(samples.model(), kind="ADDED", now=NOW)
    unmade = state(store)
    assert unmade is not None
    assert unmade.needs is None
    pod = {"containers": [{"resources": {"requests": {"memory": "2Gi"}}}], "nodeSelector": {"disk": "ssd"}}
    raw = samples.deployment()
    raw["spec"] = {"replicas": 0, "template": {"spec": pod}}
    store.heard_deployment(raw, kind="ADDED")
    made = state(store)
    assert made is not None
    assert made.needs == needs_of(pod)


def test_a_replica_holds_what_its_pod_asked_for_where_it_runs() -> None:
    store = Store()
    store.heard_model(samples.model(), kind="ADDED", now=NOW)
    spec = {"nodeName": "node-1", "containers": [{"resources": {"requests": {"memory": "2Gi"}}}]}
    store.heard_pod({**samples.pod(), "spec": spec}, kind="ADDED")
    found = state(store)
    assert found is not None
    assert (found.replicas[0].node, found.replicas[0].holds) == ("node-1", {"memory": 2 << 30, "pods": 1})


def test_the_nodes_gpus_count_for_the_number_of_models_that_may_be_loaded() -> None:
    store = Store()
    store.nodes.set_node("n", parse_node(samples.node("n", devices={"nvidia.com/gpu": "2"})))
    assert store.snapshot(Policy(), NOW, lambda model: False).policy.loaded_limit == 3
    store.nodes.known = True
    snapshot = store.snapshot(Policy(), NOW, lambda model: False)
    assert (snapshot.policy.loaded_limit, len(snapshot.nodes)) == (6, 1)


def test_the_node_that_the_last_plan_chose_is_remembered() -> None:
    store = Store()
    store.heard_model(samples.model(), kind="ADDED", now=NOW)
    snapshot = store.snapshot(Policy(), NOW, lambda model: False, {"lab/tiny": "n"})
    assert snapshot.models[0].place == "n"


def test_an_invalid_model_is_not_planned() -> None:
    store = Store()
    store.heard_model(samples.model(spec={"source": "nonsense"}), kind="ADDED", now=NOW)
    assert state(store) is None


def test_demand_found_in_the_first_list_counts_by_its_own_time() -> None:
    store = Store()
    store.listed_models([demanding(NOW - LIFETIME - 1)], 10, now=NOW, first=True)
    found = state(store)
    assert found is not None
    assert found.demand is None


def test_demand_goes_with_its_model() -> None:
    store = Store()
    store.heard_model(demanding(NOW), kind="ADDED", now=NOW)
    store.heard_model(demanding(NOW, version=11), kind=DELETED, now=NOW)
    assert store.demand("lab/tiny", NOW) is None


def test_the_younger_of_two_models_that_claim_a_name_is_refused_until_the_older_goes() -> None:
    store = Store()
    older = samples.model("older", spec={"names": ["shared"]})
    younger = samples.model("younger", spec={"names": ["shared"]})
    metadata = younger["metadata"]
    assert isinstance(metadata, dict)
    metadata["creationTimestamp"] = "2026-01-02T03:04:06Z"
    store.heard_model(younger, kind="ADDED", now=NOW)
    store.heard_model(older, kind="ADDED", now=NOW)
    refused = state(store, "lab/younger")
    assert refused is not None
    assert refused.refused is not None
    assert "lab/older" in refused.refused
    store.heard_model({**older, "metadata": {**_meta(older), "resourceVersion": "11"}}, kind=DELETED, now=NOW)
    served = state(store, "lab/younger")
    assert served is not None
    assert served.refused is None


def test_what_was_heard_from_runners_goes_with_their_pods() -> None:
    store = Store()
    store.heard_pod(samples.pod(), kind="ADDED")
    store.activities["uid-tiny-0"] = samples.activity()
    store.heard_pod(samples.pod(version=11), kind=DELETED)
    store.forget_runners()
    assert store.activities == {}


def _meta(raw: dict[str, object]) -> dict[str, object]:
    found = raw["metadata"]
    assert isinstance(found, dict)
    return found


def unplaced(name: str, *, version: int = 10) -> dict[str, object]:
    """A pod that no node has room for."""
    raw = samples.pod(name=name, ready=False, version=version)
    raw["spec"] = {}
    refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient memory"}
    raw["status"] = {"phase": "Pending", "conditions": [refused]}
    return raw


def test_a_model_is_cramped_while_its_new_runner_finds_no_room_beside_the_old_one() -> None:
    store = Store()
    store.heard_model(samples.model(), kind="ADDED", now=NOW)
    store.heard_pod(unplaced("tiny-1"), kind="ADDED")
    assert not store.cramped("lab/tiny")
    store.heard_pod(samples.pod(), kind="ADDED")
    assert store.cramped("lab/tiny")
    leaving = samples.pod(version=11)
    metadata = leaving["metadata"]
    assert isinstance(metadata, dict)
    metadata["deletionTimestamp"] = samples.CREATED
    store.heard_pod(leaving, kind="MODIFIED")
    assert not store.cramped("lab/tiny")
