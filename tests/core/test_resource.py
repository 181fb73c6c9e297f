"""Model documents into values: what is taken, and what is said about what is not."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral_core.activity import FOREVER
from corral_core.durations import keep_alive_from_request
from corral_core.errors import InvalidModel, Problem
from corral_core.model import Model, ModelSpec
from corral_core.resource import (
    claims,
    load_models,
    names_of,
    parse_model,
    parse_served,
    serving_digest,
    serving_spec,
)
from tests.core.bad_models import BAD
from tests.core.model_cases import EVERYTHING, GOOD, SOURCE, Bad, Good, document


def _model(name: str = "tiny", *, created: str | None = None, **spec: object) -> Model:
    whole = document(Good("test", {"source": SOURCE, **spec}, name=name))
    whole["metadata"] = {"name": name, "creationTimestamp": created}
    return parse_model(whole)


def _changed(change: Mapping[str, object]) -> Model:
    return parse_model(document(Good("changed", {"source": SOURCE, **change})))


def _problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(InvalidModel) as refusal:
        load_models(text)
    return refusal.value.problems


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.id)
def test_a_good_spec_is_taken(case: Good) -> None:
    assert parse_model(document(case)).spec.source == case.spec["source"]


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.id)
def test_a_bad_spec_is_refused_with_its_field_and_what_is_allowed(case: Bad) -> None:
    with pytest.raises(InvalidModel) as refusal:
        parse_model(document(case))
    [problem] = refusal.value.problems
    assert problem.field == case.field
    assert case.allowed in problem.allowed


@pytest.mark.parametrize("case", [case for case in BAD if case.server is None], ids=lambda case: case.id)
def test_what_only_the_parser_refuses_says_why(case: Bad) -> None:
    assert case.why


def test_every_field_arrives() -> None:
    spec = parse_model(document(Good("every field", EVERYTHING))).spec
    assert spec.model_dump(mode="json", by_alias=True) == EVERYTHING


def test_the_defaults() -> None:
    spec = _model().spec
    assert (spec.context_length, spec.parallel, spec.min_replicas, spec.max_replicas) == ("auto", "auto", 0, 1)
    assert (spec.replicas, spec.keep_alive, spec.suspend, spec.gpu.count) == (None, None, False, 0)


def test_all_problems_are_named_at_once() -> None:
    problems = _problems("metadata: {name: A}\nkind: Modell\nspec: {sourse: a, parallel: 0, gpu: {count: -1}}")
    assert {problem.field for problem in problems} == {
        "kind",
        "metadata.name",
        "spec.source",
        "spec.sourse",
        "spec.parallel",
        "spec.gpu.count",
    }


def test_a_problem_carries_the_value() -> None:
    [problem] = _problems(f"metadata: {{name: a}}\nspec: {{source: '{SOURCE}', parallel: many}}")
    assert problem.value == "many"
    assert str(problem) == "spec.parallel: 'many' is not allowed: auto or a whole number from 1 to 256"


def test_a_long_value_is_cut_in_the_message() -> None:
    [problem] = _problems(f"metadata: {{name: a}}\nspec: {{source: '{SOURCE}', sha256: {'a' * 5000}}}")
    assert len(str(problem)) < 400


def test_metadata_of_the_api_server_is_read() -> None:
    whole = {
        **document(GOOD[0]),
        "metadata": {
            "name": "tiny",
            "namespace": "models",
            "creationTimestamp": "2026-01-31T12:00:00Z",
            "generation": 3,
            "uid": "u-1",
            "managedFields": [],
        },
        "status": {"phase": "Idle"},
    }
    model = parse_model(whole)
    assert (model.key, model.created, model.generation, model.uid) == ("models/tiny", 1769860800.0, 3, "u-1")


def test_a_null_counts_as_unset() -> None:
    assert _model(keepAlive=None, gpu=None, system=None).spec == _model().spec


def test_several_documents_are_several_models() -> None:
    one = f"metadata: {{name: a}}\nspec: {{source: '{SOURCE}'}}"
    two = one.replace("a}", "b, namespace: other}", 1)
    assert [model.key for model in load_models(f"---\n{one}\n---\n---\n{two}\n", "models")] == ["models/a", "other/b"]


def test_one_model_twice_is_refused() -> None:
    one = f"metadata: {{name: a}}\nspec: {{source: '{SOURCE}'}}"
    [problem] = _problems(f"{one}\n---\n{one}")
    assert problem.field == "metadata.name"
    assert "document 2 repeats default/a" in problem.allowed


def test_the_names_of_adapters_are_names_of_the_model() -> None:
    adapters = [{"name": "Tuned", "source": SOURCE}, {"name": "org/tuned:v2", "source": SOURCE}]
    assert names_of(_model(names=["tiny"], adapters=adapters)) == ("tiny:latest", "tuned:latest", "org/tuned:v2")
    assert names_of(_model(adapters=adapters))[1:] == ("tuned:latest", "org/tuned:v2")


def test_the_serving_spec_has_what_a_runner_needs_and_nothing_else() -> None:
    spec = serving_spec(parse_model(document(Good("every field", EVERYTHING))))
    fields = {"source", "sha256", "parameters", "system", "template", "contextLength", "parallel", "embeddings"}
    assert set(spec) == fields | {"adapters", "keepAlive", "keepAliveMin", "keepAliveMax", "gpu"}
    assert spec["gpu"] == {"count": 2}


def test_a_runner_reads_back_its_serving_spec() -> None:
    model = parse_model(document(Good("every field", EVERYTHING)))
    served = parse_served({"name": model.name, "namespace": model.namespace, "spec": serving_spec(model)})
    assert serving_spec(served) == serving_spec(model)
    assert served.key == model.key


@pytest.mark.parametrize("change", [{"system": "x"}, {"parameters": {"seed": 1}}, {"keepAlive": "1h"}, {"parallel": 2}])
def test_a_change_for_the_runner_changes_the_digest(change: dict[str, object]) -> None:
    assert serving_digest(_changed(change)) != serving_digest(_model())


@pytest.mark.parametrize("change", [{"names": ["x"]}, {"minReplicas": 1}, {"suspend": True}, {"replicas": 0}])
def test_a_change_of_routing_keeps_the_digest(change: dict[str, object]) -> None:
    assert serving_digest(_changed(change)) == serving_digest(_model())
    assert len(serving_digest(_model())) == 64


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    one, two = {"seed": 1, "top_k": 2}, {"top_k": 2, "seed": 1}
    assert serving_digest(_model(parameters=one)) == serving_digest(_model(parameters=two))


def test_without_names_the_name_is_metadatas() -> None:
    assert names_of(_model("tiny")) == ("tiny:latest",)


def test_names_are_canonical() -> None:
    assert names_of(_model(names=["Llama3.2:1B", "library/x"])) == ("llama3.2:1b", "x:latest")


def test_the_older_model_keeps_a_name() -> None:
    old = _model("old", names=["x"], created="2026-01-01T00:00:00Z")
    young = _model("young", names=["X:latest", "y"], created="2026-01-02T00:00:00Z")
    lost = claims([young, old])
    assert lost == {"default/young": "the name is taken: x:latest (it belongs to the older Model default/old)"}


def test_of_two_of_one_age_the_key_decides() -> None:
    assert list(claims([_model("b", names=["x"]), _model("a", names=["x"])])) == ["default/b"]


def test_a_refused_model_takes_no_name_from_a_younger_one() -> None:
    models = [
        _model("a", names=["x"], created="2026-01-01T00:00:00Z"),
        _model("b", names=["x", "y"], created="2026-01-02T00:00:00Z"),
        _model("c", names=["y"], created="2026-01-03T00:00:00Z"),
    ]
    assert list(claims(models)) == ["default/b"]


def test_keep_alive_of_a_spec_has_the_meaning_of_a_requests() -> None:
    assert keep_alive_from_request(_model(keepAlive=-1).spec.keep_alive) == FOREVER


def test_a_missing_field_is_named_without_a_value() -> None:
    [problem] = _problems("metadata: {name: a}\nspec: {}")
    assert str(problem) == "spec.source: it is required"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=()), max_size=10)
    | st.sampled_from(["auto", "5m", "1h", "4Gi", "a", SOURCE]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = [alias.alias or name for name, alias in ModelSpec.model_fields.items()]


@given(st.dictionaries(st.sampled_from(FIELDS), JSON), st.booleans())
@settings(max_examples=200)
def test_any_spec_gives_a_model_that_can_be_served_or_invalid_model(spec: dict[str, object], sourced: bool) -> None:
    whole = document(Good("any", {**spec, "source": SOURCE} if sourced else spec))
    try:
        model = parse_model(whole)
    except InvalidModel as error:
        assert all(problem.field.startswith("spec") for problem in error.problems)  # noqa: PT017  # both ends are fine
    else:
        assert len(serving_digest(model)) == 64
        assert names_of(model)


@given(JSON)
def test_any_document_gives_a_model_or_invalid_model(value: object) -> None:
    with suppress(InvalidModel):
        parse_model({"metadata": value, "spec": value, "kind": value})
