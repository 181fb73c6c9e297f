"""Which nodes take a pod, and what a person is told when none does."""

from __future__ import annotations

from dataclasses import replace

from corral_core.affinity import Expression, Term
from corral_core.fit import Verdicts, admits, choose, ever, why_never, why_not_now
from corral_core.node import Needs, Node, Taint, Toleration
from tests.support.planning import needs, node

GI = 2**30
RED = Taint("team", "red", "NoSchedule")


def free(*rooms: tuple[Node, int]) -> list[tuple[Node, dict[str, int]]]:
    return [(there, {"memory": memory, "pods": 10}) for there, memory in rooms]


def test_labels_affinity_and_taints_decide_who_admits() -> None:
    zoned = node("n", labels={"zone": "a"})
    assert admits(zoned, Needs(selector=(("zone", "a"),)))
    assert not admits(zoned, Needs(selector=(("zone", "b"),)))
    assert admits(
        zoned, Needs(affinity=(Term((Expression("zone", "In", ("b",)),)), Term((Expression("zone", "Exists"),))))
    )
    assert not admits(zoned, Needs(affinity=(Term((Expression("zone", "In", ("b",)),)),)))
    tainted = node("n", taints=(RED,))
    assert not admits(tainted, Needs())
    assert admits(tainted, Needs(tolerations=(Toleration("team", "red", "NoSchedule"),)))


def test_a_node_that_is_away_may_take_it_some_day() -> None:
    away = replace(
        node("n", 8), ready=False, cordoned=True, taints=(Taint("node.kubernetes.io/not-ready", "", "NoExecute"),)
    )
    assert not admits(away, needs(8))
    assert ever(away, needs(8))
    assert not ever(away, needs(9))


def test_the_reason_gives_the_numbers_and_counts_the_other_nodes() -> None:
    nodes = [
        node("node-a", 4 * GI),
        node("node-b", 4 * GI),
        node("c", 99 * GI, taints=(RED,)),
        node("d", 99 * GI, taints=(RED,)),
    ]
    said = why_not_now(
        free((nodes[0], GI), (nodes[1], GI + GI // 8), (nodes[2], 99 * GI), (nodes[3], 99 * GI)), needs(3 * GI)
    )
    assert said == "needs 3 GiB memory; the most that is free is 1.12 GiB memory on node-b; 2 nodes are tainted"


def test_a_resource_that_no_node_has_is_named() -> None:
    said = why_never([node("a", 8)], needs(1, **{"nvidia.com/gpu": 2}))
    assert said == "needs 2 nvidia.com/gpu, of which no node has any"


def test_nodes_that_are_away_are_counted_in_the_reason_of_the_moment_only() -> None:
    away, there = replace(node("a", 9), ready=False), replace(node("b", 9), cordoned=True)
    assert why_not_now(free((away, 9), (there, 9)), needs(1)) == (
        "no node is fit for it; 1 node is not ready; 1 node is cordoned"
    )
    assert why_never([away, there], needs(10)) == "needs 10 B memory; the most that any node has is 9 B memory on a"


def test_labels_that_no_node_has_are_named() -> None:
    wanted = Needs((("memory", 1),), selector=(("disk", "ssd"),))
    assert why_never([node("a", 9)], wanted) == (
        "needs a node with disk=ssd; 1 node is without the labels that it requires"
    )


def test_the_best_way_that_some_node_could_ever_take_is_chosen() -> None:
    ways = [needs(8), needs(4), needs(2)]
    away = replace(node("away", 9), ready=False)
    for nodes, index in (((9,), 0), ((7, 8), 0), ((7, 3), 1), ((3,), 2), ((1,), 2)):
        assert choose([node(str(size), size) for size in nodes], ways) == index
    assert choose([node("small", 3), away], ways) == 0
    assert choose([], ways) == 0


def test_the_way_that_is_held_is_kept_while_some_node_could_take_it() -> None:
    ways = [needs(8), needs(4)]
    assert choose([node("large", 9)], ways, held=needs(4)) == 1
    assert choose([node("small", 5)], ways, held=needs(8)) == 1
    assert choose([], ways, held=needs(4)) == 1
    assert choose([node("large", 9)], ways, held=needs(5)) == 0


def test_there_is_a_verdict_only_where_nodes_and_needs_are_known() -> None:
    assert Verdicts([]).why_never(needs(9)) is None
    assert Verdicts([node("a", 8)]).why_never(None) is None
    assert Verdicts([node("a", 8)]).why_never(needs(8)) is None
    assert Verdicts([node("a", 8)]).why_never(needs(9)) is not None
