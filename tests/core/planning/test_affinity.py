from __future__ import annotations

import pytest

from corral_core.planning.affinity import NodeSelectorRequirement, NodeSelectorTerm, required_node_affinity

LABELS = {"zone": "a", "cores": "16", "ssd": ""}


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        (NodeSelectorRequirement("zone", "In", ("a", "b")), True),
        (NodeSelectorRequirement("zone", "In", ("b",)), False),
        (NodeSelectorRequirement("rack", "In", ("1",)), False),
        (NodeSelectorRequirement("zone", "NotIn", ("b",)), True),
        (NodeSelectorRequirement("rack", "NotIn", ("1",)), True),
        (NodeSelectorRequirement("zone", "NotIn", ("a",)), False),
        (NodeSelectorRequirement("ssd", "Exists"), True),
        (NodeSelectorRequirement("rack", "Exists"), False),
        (NodeSelectorRequirement("rack", "DoesNotExist"), True),
        (NodeSelectorRequirement("ssd", "DoesNotExist"), False),
        (NodeSelectorRequirement("cores", "Gt", ("8",)), True),
        (NodeSelectorRequirement("cores", "Gt", ("16",)), False),
        (NodeSelectorRequirement("cores", "Lt", ("17",)), True),
        (NodeSelectorRequirement("zone", "Gt", ("1",)), False),
        (NodeSelectorRequirement("cores", "Gt", ("8", "9")), False),
        (NodeSelectorRequirement("rack", "Lt", ("9",)), False),
        (NodeSelectorRequirement("zone", "Like", ("a",)), False),
    ],
)
def test_requirement_matches_like_the_scheduler(expression: NodeSelectorRequirement, holds: bool) -> None:
    assert expression.matches(LABELS) == holds


def test_term_requires_all_its_requirements_and_an_empty_term_matches_nothing() -> None:
    zone, rack = NodeSelectorRequirement("zone", "In", ("a",)), NodeSelectorRequirement("rack", "Exists")
    assert NodeSelectorTerm((zone,)).matches("n", LABELS)
    assert not NodeSelectorTerm((zone, rack)).matches("n", LABELS)
    assert not NodeSelectorTerm().matches("n", LABELS)


def test_term_can_match_the_node_name() -> None:
    named = NodeSelectorTerm(match_fields=(NodeSelectorRequirement("metadata.name", "In", ("n",)),))
    assert named.matches("n", LABELS)
    assert not named.matches("m", LABELS)


def test_required_terms_are_parsed_and_preferences_ignored() -> None:
    expression = {"key": "zone", "operator": "In", "values": ["a"]}
    field = {"key": "metadata.name", "operator": "In", "values": ["n"]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}, {"matchFields": [field]}]}
    node = {"requiredDuringSchedulingIgnoredDuringExecution": required}
    assert required_node_affinity({"nodeAffinity": node}) == (
        NodeSelectorTerm((NodeSelectorRequirement("zone", "In", ("a",)),)),
        NodeSelectorTerm((), (NodeSelectorRequirement("metadata.name", "In", ("n",)),)),
    )
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}]}
    assert required_node_affinity({"nodeAffinity": preferred}) is None
    assert required_node_affinity({}) is None
