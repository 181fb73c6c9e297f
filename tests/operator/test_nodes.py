"""What is taken of the nodes, as pods come, change and go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral_core.node import parse_node
from corral_core.quantities import total
from corral_operator.nodes import Held, NodeLedger
from corral_operator.observe import DELETED, Store
from tests.operator import samples


def ledger(*names: str) -> NodeLedger:
    made = NodeLedger()
    for name in names:
        made.set_node(name, parse_node(samples.node(name)))
    made.known = True
    return made


def taken(of: NodeLedger) -> dict[str, dict[str, int]]:
    return {state.node.name: dict(state.taken) for state in of.states()}


def test_nothing_is_said_before_everything_is_known() -> None:
    made = ledger("n")
    made.known = False
    assert made.states() == ()
    assert made.alive("n") is None


def test_a_pod_is_taken_of_its_node_until_it_is_gone() -> None:
    made = ledger("m", "n")
    made.pod(None, Held("n", {"memory": 5}))
    assert taken(made) == {"m": {}, "n": {"memory": 5}}
    made.pod(Held("n", {"memory": 5}), Held("n", {"memory": 7}))
    assert taken(made)["n"] == {"memory": 7}
    made.pod(Held("n", {"memory": 7}), None)
    assert taken(made)["n"] == {}


def test_a_pod_that_was_heard_of_before_its_node_counts() -> None:
    made = ledger()
    made.pod(None, Held("n", {"memory": 5}))
    assert made.states() == ()
    made.set_node("n", parse_node(samples.node("n")))
    assert taken(made) == {"n": {"memory": 5}}
    made.set_node("n", None)
    assert made.states() == ()


def test_what_did_not_change_is_the_same_value() -> None:
    made = ledger("m", "n")
    before = {state.node.name: state for state in made.states()}
    made.pod(None, Held("n", {"memory": 5}))
    after = {state.node.name: state for state in made.states()}
    assert after["m"] is before["m"]
    assert made.states() is made.states()


def test_gpus_of_all_vendors_are_counted() -> None:
    made = ledger("n")
    made.set_node("m", parse_node(samples.node("m", devices={"nvidia.com/gpu": "2", "amd.com/gpu": "1"})))
    assert made.gpus() == 3


def test_a_node_whose_kubelet_is_not_heard_of_is_not_alive_and_one_that_is_not_ready_is() -> None:
    made = ledger("n")
    made.set_node("silent", parse_node(samples.node("silent", ready="Unknown")))
    made.set_node("starting", parse_node(samples.node("starting", ready="False")))
    assert [made.alive(name) for name in ("n", "starting", "silent", "gone")] == [True, True, False, False]


def test_the_stores_own_pods_count_by_themselves_until_they_have_ended() -> None:
    store = Store()
    store.nodes.set_node("node-1", parse_node(samples.node("node-1")))
    store.nodes.known = True
    raw = samples.pod()
    raw["spec"] = {"nodeName": "node-1", "containers": [{"resources": {"requests": {"memory": "2Gi"}}}]}
    store.heard_pod(raw, kind="ADDED")
    assert taken(store.nodes) == {"node-1": {"memory": 2 << 30, "pods": 1}}
    ended = {**samples.pod(version=11), "spec": raw["spec"], "status": {"phase": "Succeeded"}}
    store.heard_pod(ended, kind="MODIFIED")
    assert taken(store.nodes) == {"node-1": {}}
    store.heard_pod({**samples.pod(version=12), "spec": raw["spec"]}, kind=DELETED)
    assert taken(store.nodes) == {"node-1": {}}


held = st.none() | st.builds(
    Held, st.sampled_from(["", "m", "n"]), st.dictionaries(st.sampled_from(["cpu", "memory"]), st.integers(1, 9))
)


@given(st.lists(st.tuples(st.integers(0, 4), held), max_size=30))
def test_the_sums_are_those_of_the_pods_that_are_there(changes: list[tuple[int, Held | None]]) -> None:
    made, there = ledger("m", "n"), dict[int, Held | None]()
    for pod, after in changes:
        made.pod(there.get(pod), after)
        there[pod] = after
    for name, sums in taken(made).items():
        assert sums == total(each.amounts for each in there.values() if each is not None and each.node == name)
