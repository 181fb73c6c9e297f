"""Parsing of Model documents, and its errors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral_core.base.durations import FOREVER, keep_alive_from_json
from corral_core.base.errors import InvalidModel, Problem
from corral_core.base.json_fields import get_value
from corral_core.model.model import Model, ModelSpec
from corral_core.model.resource import (
    client_names,
    load_models,
    parse_model,
    parse_runner_model,
    runner_model,
    runner_spec,
    runner_spec_digest,
)
from tests.core.bad_models import BAD
from tests.core.model_cases import EVERYTHING, GOOD, SOURCE, Bad, Good, document, with_fields


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
def test_valid_spec_is_accepted(case: Good) -> None:
    assert parse_model(document(case)).spec.source == case.spec["source"]


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.id)
def test_invalid_spec_is_rejected_with_the_field_and_what_is_allowed(case: Bad) -> None:
    with pytest.raises(InvalidModel) as refusal:
        parse_model(document(case))
    [problem] = refusal.value.problems
    assert problem.field == case.field
    assert case.allowed in problem.allowed


@pytest.mark.parametrize("case", [case for case in BAD if case.server is None], ids=lambda case: case.id)
def test_cases_that_only_the_parser_rejects_have_a_reason(case: Bad) -> None:
    assert case.why


def test_every_field_is_parsed() -> None:
    spec = parse_model(document(Good("every field", EVERYTHING))).spec
    assert spec.model_dump(mode="json", by_alias=True, exclude_none=True) == EVERYTHING


def test_defaults() -> None:
    spec = _model().spec
    assert (spec.context_length, spec.parallel, spec.min_replicas, spec.max_replicas) == ("auto", "auto", 0, 1)
    assert (spec.replicas, spec.keep_alive, spec.suspend, spec.gpu.count) == (None, None, False, "auto")


def test_error_has_all_problems() -> None:
    problems = _problems("metadata: {name: A}\nkind: Modell\nspec: {sourse: a, parallel: 0, gpu: {count: -1}}")
    assert {problem.field for problem in problems} == {
        "kind",
        "metadata.name",
        "spec.source",
        "spec.sourse",
        "spec.parallel",
        "spec.gpu.count",
    }


def test_problem_has_the_value() -> None:
    [problem] = _problems(f"metadata: {{name: a}}\nspec: {{source: '{SOURCE}', parallel: many}}")
    assert problem.value == "many"
    assert str(problem) == "spec.parallel: 'many' is not allowed: auto or a whole number from 1 to 256"


def test_long_value_is_truncated_in_the_message() -> None:
    [problem] = _problems(f"metadata: {{name: a}}\nspec: {{source: '{SOURCE}', sha256: {'a' * 5000}}}")
    assert len(str(problem)) < 400


@pytest.mark.parametrize("field", ["source", "projector"])
def test_half_of_a_surrogate_pair_is_an_error_of_its_field(field: str) -> None:
    with pytest.raises(InvalidModel, match=rf"spec\.{field}: .*ud814"):
        _model(**{field: "\ud814"})


def test_object_metadata_is_parsed() -> None:
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


def test_null_counts_as_unset() -> None:
    assert _model(keepAlive=None, gpu=None, system=None).spec == _model().spec


def test_several_documents_in_one_file() -> None:
    one = f"metadata: {{name: a}}\nspec: {{source: '{SOURCE}'}}"
    two = one.replace("a}", "b, namespace: other}", 1)
    assert [model.key for model in load_models(f"---\n{one}\n---\n---\n{two}\n", "models")] == ["models/a", "other/b"]


def test_duplicate_model_is_rejected() -> None:
    one = f"metadata: {{name: a}}\nspec: {{source: '{SOURCE}'}}"
    [problem] = _problems(f"{one}\n---\n{one}")
    assert problem.field == "metadata.name"
    assert "document 2 repeats default/a" in problem.allowed


def test_client_names_include_adapters() -> None:
    adapters = [{"name": "Tuned", "source": SOURCE}, {"name": "org/tuned:v2", "source": SOURCE}]
    assert client_names(_model(names=["tiny"], adapters=adapters)) == ("tiny:latest", "tuned:latest", "org/tuned:v2")
    assert client_names(_model(adapters=adapters))[1:] == ("tuned:latest", "org/tuned:v2")


def test_runner_spec_has_only_the_fields_of_the_runner() -> None:
    spec = runner_spec(parse_model(document(Good("every field", EVERYTHING))))
    fields = {"source", "sha256", "parameters", "system", "template", "contextLength", "parallel", "embeddings"}
    fields |= {
        "messages",
        "adapters",
        "projector",
        "keepAlive",
        "keepAliveMin",
        "keepAliveMax",
        "gpu",
        "kvCacheType",
        "flashAttention",
    }
    assert set(spec) == fields
    split = {"splitMode": "row", "mainGPU": 1, "tensorSplit": [3.0, 0.5], "expertLayersOnCPU": 4}
    assert spec["gpu"] == {"count": 2, "offload": "full", **split}


def test_the_runner_gets_the_resolved_number_of_gpus() -> None:
    assert get_value(runner_model(_model()), "spec", "gpu", "count") == "auto"
    assert get_value(runner_model(_model(), gpus=2), "spec", "gpu", "count") == 2


def test_runner_spec_round_trip() -> None:
    model = parse_model(document(Good("every field", EVERYTHING)))
    served = parse_runner_model({"name": model.name, "namespace": model.namespace, "spec": runner_spec(model)})
    assert runner_spec(served) == runner_spec(model)
    assert served.key == model.key


@pytest.mark.parametrize("change", [{"system": "x"}, {"parameters": {"seed": 1}}, {"keepAlive": "1h"}, {"parallel": 2}])
def test_digest_changes_with_a_field_of_the_runner(change: dict[str, object]) -> None:
    assert runner_spec_digest(_changed(change)) != runner_spec_digest(_model())


@pytest.mark.parametrize("change", [{"names": ["x"]}, {"minReplicas": 1}, {"suspend": True}, {"replicas": 0}])
def test_digest_ignores_other_fields(change: dict[str, object]) -> None:
    assert runner_spec_digest(_changed(change)) == runner_spec_digest(_model())
    assert len(runner_spec_digest(_model())) == 64


def test_digest_ignores_the_order_of_keys() -> None:
    one, two = {"seed": 1, "top_k": 2}, {"top_k": 2, "seed": 1}
    assert runner_spec_digest(_model(parameters=one)) == runner_spec_digest(_model(parameters=two))


def test_name_defaults_to_metadata_name() -> None:
    assert client_names(_model("tiny")) == ("tiny:latest",)


def test_client_names_are_canonical() -> None:
    assert client_names(_model(names=["Llama3.2:1B", "library/x"])) == ("llama3.2:1b", "x:latest")


def test_keep_alive_of_a_spec_is_parsed_like_a_requests() -> None:
    assert keep_alive_from_json(_model(keepAlive=-1).spec.keep_alive) == FOREVER


def test_problem_of_a_missing_field_has_no_value() -> None:
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
def test_any_spec_yields_a_servable_model_or_invalid_model(spec: dict[str, object], sourced: bool) -> None:
    whole = document(Good("any", {**spec, "source": SOURCE} if sourced else spec))
    try:
        model = parse_model(whole)
    except InvalidModel as error:
        assert all(problem.field.startswith("spec") for problem in error.problems)  # noqa: PT017  # both ends are fine
    else:
        assert len(runner_spec_digest(model)) == 64
        assert client_names(model)


@given(JSON)
def test_any_document_yields_a_model_or_invalid_model(value: object) -> None:
    with suppress(InvalidModel):
        parse_model({"metadata": value, "spec": value, "kind": value})


def test_thousands_of_variables_are_rejected_by_their_number() -> None:
    env = [{"name": f"A{number}"} for number in range(30_000)]
    with pytest.raises(InvalidModel, match="at most 256 items"):
        parse_model({"metadata": {"name": "a"}, "spec": with_fields(pod={"env": [*env, {"name": "A7"}]})})


def test_at_most_fifty_errors_are_listed_and_the_others_counted() -> None:
    spec = with_fields(**{f"unknown{number}": 1 for number in range(5_000)})
    with pytest.raises(InvalidModel) as raised:
        parse_model({"metadata": {"name": "a"}, "spec": spec})
    assert len(raised.value.problems) == 51
    assert str(raised.value.problems[-1]) == "spec: 4950 more errors"
