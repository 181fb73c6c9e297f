from __future__ import annotations

import pytest

from corral_core.affinity import Expression, Term, required_terms

LABELS = {"zone": "a", "cores": "16", "ssd": ""}


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        (Expression("zone", "In", ("a", "b")), True),
        (Expression("zone", "In", ("b",)), False),
        (Expression("rack", "In", ("1",)), False),
        (Expression("zone", "NotIn", ("b",)), True),
        (Expression("rack", "NotIn", ("1",)), True),
        (Expression("zone", "NotIn", ("a",)), False),
        (Expression("ssd", "Exists"), True),
        (Expression("rack", "Exists"), False),
        (Expression("rack", "DoesNotExist"), True),
        (Expression("ssd", "DoesNotExist"), False),
        (Expression("cores", "Gt", ("8",)), True),
        (Expression("cores", "Gt", ("16",)), False),
        (Expression("cores", "Lt", ("17",)), True),
        (Expression("zone", "Gt", ("1",)), False),
        (Expression("cores", "Gt", ("8", "9")), False),
        (Expression("rack", "Lt", ("9",)), False),
        (Expression("zone", "Like", ("a",)), False),
    ],
)
def test_an_expression_holds_as_the_scheduler_has_it(expression: Expression, holds: bool) -> None:
    assert expression.holds(LABELS) == holds


def test_all_expressions_of_a_term_have_to_hold_and_an_empty_term_never_does() -> None:
    zone, rack = Expression("zone", "In", ("a",)), Expression("rack", "Exists")
    assert Term((zone,)).holds("n", LABELS)
    assert not Term((zone, rack)).holds("n", LABELS)
    assert not Term().holds("n", LABELS)


def test_a_term_may_name_the_node() -> None:
    named = Term(fields=(Expression("metadata.name", "In", ("n",)),))
    assert named.holds("n", LABELS)
    assert not named.holds("m", LABELS)


def test_the_required_terms_are_read_and_preferences_are_not() -> None:
    expression = {"key": "zone", "operator": "In", "values": ["a"]}
    field = {"key": "metadata.name", "operator": "In", "values": ["n"]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}, {"matchFields": [field]}]}
    node = {"requiredDuringSchedulingIgnoredDuringExecution": required}
    assert required_terms({"nodeAffinity": node}) == (
        Term((Expression("zone", "In", ("a",)),)),
        Term((), (Expression("metadata.name", "In", ("n",)),)),
    )
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}]}
    assert required_terms({"nodeAffinity": preferred}) is None
    assert required_terms({}) is None
