"""Feasibility of pods on nodes, and the reasons."""

from __future__ import annotations

from dataclasses import replace

from corral_core.planning.affinity import NodeSelectorRequirement, NodeSelectorTerm
from corral_core.planning.node import Node, PodRequirements, Taint, Toleration
from corral_core.planning.node_fit import (
    FeasibilityCache,
    admits_now,
    choose_feasible,
    could_ever_run,
    reason_never_fits,
    reason_not_now,
)
from tests.support.planning import node, pod_requirements

GI = 2**30
RED = Taint("team", "red", "NoSchedule")


def free(*rooms: tuple[Node, int]) -> list[tuple[Node, dict[str, int]]]:
    return [(there, {"memory": memory, "pods": 10}) for there, memory in rooms]


def test_labels_affinity_and_taints_decide_whether_a_node_admits_a_pod() -> None:
    zoned = node("n", labels={"zone": "a"})
    assert admits_now(zoned, PodRequirements(node_selector=(("zone", "a"),)))
    assert not admits_now(zoned, PodRequirements(node_selector=(("zone", "b"),)))
    assert admits_now(
        zoned,
        PodRequirements(
            affinity=(
                NodeSelectorTerm((NodeSelectorRequirement("zone", "In", ("b",)),)),
                NodeSelectorTerm((NodeSelectorRequirement("zone", "Exists"),)),
            )
        ),
    )
    assert not admits_now(
        zoned, PodRequirements(affinity=(NodeSelectorTerm((NodeSelectorRequirement("zone", "In", ("b",)),)),))
    )
    tainted = node("n", taints=(RED,))
    assert not admits_now(tainted, PodRequirements())
    assert admits_now(tainted, PodRequirements(tolerations=(Toleration("team", "red", "NoSchedule"),)))


def test_unready_node_could_run_the_pod_later() -> None:
    away = replace(
        node("n", 8), ready=False, cordoned=True, taints=(Taint("node.kubernetes.io/not-ready", "", "NoExecute"),)
    )
    assert not admits_now(away, pod_requirements(8))
    assert could_ever_run(away, pod_requirements(8))
    assert not could_ever_run(away, pod_requirements(9))


def test_reason_has_the_amounts_and_counts_excluded_nodes() -> None:
    nodes = [
        node("node-a", 4 * GI),
        node("node-b", 4 * GI),
        node("c", 99 * GI, taints=(RED,)),
        node("d", 99 * GI, taints=(RED,)),
    ]
    said = reason_not_now(
        free((nodes[0], GI), (nodes[1], GI + GI // 8), (nodes[2], 99 * GI), (nodes[3], 99 * GI)),
        pod_requirements(3 * GI),
    )
    assert said == "needs 3 GiB memory; the most that is free is 1.12 GiB memory on node-b; 2 nodes are tainted"


def test_reason_names_a_resource_that_no_node_has() -> None:
    said = reason_never_fits([node("a", 8)], pod_requirements(1, **{"nvidia.com/gpu": 2}))
    assert said == "needs 2 nvidia.com/gpu, of which no node has any"


def test_unready_nodes_are_excluded_only_for_the_present() -> None:
    away, there = replace(node("a", 9), ready=False), replace(node("b", 9), cordoned=True)
    assert reason_not_now(free((away, 9), (there, 9)), pod_requirements(1)) == (
        "no suitable node; 1 node is not ready; 1 node is cordoned"
    )
    assert (
        reason_never_fits([away, there], pod_requirements(10))
        == "needs 10 B memory; the most that any node has is 9 B memory on a"
    )


def test_reason_names_labels_that_no_node_has() -> None:
    wanted = PodRequirements((("memory", 1),), node_selector=(("disk", "ssd"),))
    assert reason_never_fits([node("a", 9)], wanted) == (
        "needs a node with disk=ssd; 1 node is without the labels that it requires"
    )


def test_best_feasible_alternative_is_chosen() -> None:
    alternatives = [pod_requirements(8), pod_requirements(4), pod_requirements(2)]
    away = replace(node("away", 9), ready=False)
    for nodes, index in (((9,), 0), ((7, 8), 0), ((7, 3), 1), ((3,), 2), ((1,), 2)):
        assert choose_feasible([node(str(size), size) for size in nodes], alternatives) == index
    assert choose_feasible([node("small", 3), away], alternatives) == 0
    assert choose_feasible([], alternatives) == 0


def test_current_alternative_is_kept_while_it_is_feasible() -> None:
    alternatives = [pod_requirements(8), pod_requirements(4)]
    assert choose_feasible([node("large", 9)], alternatives, current=pod_requirements(4)) == 1
    assert choose_feasible([node("small", 5)], alternatives, current=pod_requirements(8)) == 1
    assert choose_feasible([], alternatives, current=pod_requirements(4)) == 1
    assert choose_feasible([node("large", 9)], alternatives, current=pod_requirements(5)) == 0


def test_everything_is_feasible_without_nodes_or_requirements() -> None:
    assert FeasibilityCache([]).reason_never_fits(pod_requirements(9)) is None
    assert FeasibilityCache([node("a", 8)]).reason_never_fits(None) is None
    assert FeasibilityCache([node("a", 8)]).reason_never_fits(pod_requirements(8)) is None
    assert FeasibilityCache([node("a", 8)]).reason_never_fits(pod_requirements(9)) is not None
