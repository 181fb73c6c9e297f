"""A Model over its source's defaults: the Model has precedence, and no parameter of others is trusted."""

from __future__ import annotations

import pytest

from corral_core.contracts.source_defaults import NO_DEFAULTS, SourceDefaults
from corral_core.model.effective_spec import effective_spec, usable_parameters
from corral_core.model.model import ModelSpec

SOURCE = "ollama://llama3.2:1b"
DEFAULTS = SourceDefaults(
    template="{{ .Prompt }}",
    system="You are terse.",
    parameters={"temperature": 0.1, "num_ctx": 8192, "stop": ["<end>"]},
    licenses=("first", "second"),
)


def test_fields_that_the_model_leaves_out_are_the_sources() -> None:
    spec = effective_spec(ModelSpec(source=SOURCE), DEFAULTS)
    assert (spec.template, spec.system, spec.license) == ("{{ .Prompt }}", "You are terse.", "first\nsecond")
    assert spec.parameters == {"temperature": 0.1, "num_ctx": 8192, "stop": ["<end>"]}


def test_what_the_model_says_has_precedence_parameter_by_parameter() -> None:
    own = ModelSpec(source=SOURCE, template="T", system="S", license="L", parameters={"temperature": 0.9})
    spec = effective_spec(own, DEFAULTS)
    assert (spec.template, spec.system, spec.license) == ("T", "S", "L")
    assert spec.parameters == {"temperature": 0.9, "num_ctx": 8192, "stop": ["<end>"]}


def test_an_empty_system_message_of_the_model_removes_the_sources() -> None:
    assert effective_spec(ModelSpec(source=SOURCE, system=""), DEFAULTS).system == ""


def test_without_defaults_the_spec_stays_as_it_is() -> None:
    spec = ModelSpec(source=SOURCE, system="S", parameters={"top_k": 3})
    assert effective_spec(spec, NO_DEFAULTS) == spec


def test_applying_the_defaults_twice_changes_nothing() -> None:
    once = effective_spec(ModelSpec(source=SOURCE), DEFAULTS)
    assert effective_spec(once, DEFAULTS) == once


@pytest.mark.parametrize(
    "parameters",
    [
        {"use_mlock": True},
        {"temperature": "hot"},
        {"num_ctx": -1},
        {"num_ctx": 10**30},
        {"stop": "<end>"},
        {"stop": ["x" * 10_000]},
        {"temperature": float("nan")},
        {"top_k": {"deep": []}},
    ],
)
def test_a_parameter_that_no_model_could_have_is_left_out(parameters: dict[str, object]) -> None:
    accepted, ignored = usable_parameters({"top_p": 0.5, **parameters})
    assert accepted == {"top_p": 0.5}
    assert ignored == tuple(parameters)
