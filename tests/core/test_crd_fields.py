"""The CRD and the parser hold together field by field: names, defaults, enums, what is required, a word on each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import yaml
from pydantic import BaseModel

from corral_core.facts import ModelFacts
from corral_core.model import API_VERSION, GPU, KIND, MAX_NAME, PLURAL, ModelSpec, Queue
from corral_core.names import PATTERN
from corral_core.parameters import Parameters
from corral_core.pod import EnvVar, Pod, Resources, SecretReference, Toleration
from corral_core.shape import Shape
from tests.core.model_cases import EVERYTHING

Schema = Mapping[str, object]

CRD = yaml.safe_load((Path(__file__).parents[2] / "crds" / "corral.dev_models.yaml").read_text())
VERSION = CRD["spec"]["versions"][0]
ROOT = VERSION["schema"]["openAPIV3Schema"]


def _at(*path: str) -> Schema:
    """The schema of a field, ``[]`` for the items of a list."""
    schema = ROOT
    for part in path:
        schema = schema["items"] if part == "[]" else schema["properties"][part]
    return cast("Schema", schema)


def _properties(*path: str) -> Mapping[str, Schema]:
    return cast("Mapping[str, Schema]", _at(*path)["properties"])


def _aliases(model: type[BaseModel]) -> dict[str, str]:
    return {field.alias or name: name for name, field in model.model_fields.items()}


def _schemas(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Every field's schema below ``schema``, with its path."""
    yield path, schema
    for name, inner in cast("Mapping[str, Schema]", schema.get("properties", {})).items():
        yield from _schemas(inner, f"{path}.{name}")
    for part in ("items", "additionalProperties"):
        if part in schema:
            yield from _schemas(cast("Schema", schema[part]), f"{path}[]")


def test_it_defines_the_resource_that_the_parser_takes() -> None:
    assert f"{CRD['spec']['group']}/{VERSION['name']}" == API_VERSION
    assert (CRD["spec"]["names"]["kind"], CRD["spec"]["names"]["plural"]) == (KIND, PLURAL)


def test_the_fields_are_the_parsers() -> None:
    assert set(_properties("spec")) == set(_aliases(ModelSpec))
    assert set(_properties("spec", "gpu")) == set(_aliases(GPU))
    assert set(_properties("spec", "queue")) == set(_aliases(Queue))
    assert set(_properties("spec", "pod")) == set(_aliases(Pod))
    assert set(_properties("spec", "parameters")) == set(Parameters.__annotations__)
    assert set(_properties("spec", "pod", "resources")) == set(Resources.__annotations__)
    assert set(_properties("spec", "pod", "tolerations", "[]")) == set(Toleration.__annotations__)
    assert set(_properties("spec", "pod", "env", "[]")) == set(EnvVar.__annotations__)
    assert set(_properties("spec", "pod", "imagePullSecrets", "[]")) == set(SecretReference.__annotations__)


def test_the_defaults_are_the_parsers() -> None:
    spec = ModelSpec.model_validate({"source": "file:///a"})
    for alias, name in _aliases(ModelSpec).items():
        if alias != "gpu" and "default" in _at("spec", alias):
            assert _at("spec", alias)["default"] == getattr(spec, name), alias
    for alias, name in _aliases(GPU).items():
        assert _at("spec", "gpu", alias)["default"] == getattr(spec.gpu, name), alias


def test_what_the_parser_fills_in_has_a_default_in_the_crd() -> None:
    spec = ModelSpec.model_validate({"source": "file:///a"})
    filled = {
        alias
        for alias, name in _aliases(ModelSpec).items()
        if getattr(spec, name) not in (None, (), {}, Pod(), Queue())
    }
    assert {name for name, schema in _properties("spec").items() if "default" in schema} | {"source"} == filled


def test_what_is_required_is_the_parsers() -> None:
    required = {field.alias for field in ModelSpec.model_fields.values() if field.is_required()}
    assert set(cast("list[str]", _at("spec")["required"])) == required
    for name, path in (("EnvVar", "env"), ("SecretReference", "imagePullSecrets")):
        ours = ModelSpec.model_json_schema()["$defs"][name]["required"]
        assert _at("spec", "pod", path, "[]")["required"] == ours


def test_numbers_have_the_parsers_bounds() -> None:
    schema = ModelSpec.model_json_schema()
    for alias in ("minReplicas", "maxReplicas"):
        assert _at("spec", alias)["minimum"] == schema["properties"][alias]["minimum"], alias
    for name in Parameters.__annotations__:
        ours = schema["$defs"]["Parameters"]["properties"][name]
        theirs = _at("spec", "parameters", name)
        assert theirs["type"] == ours["type"], name
        assert theirs.get("minimum") == ours.get("minimum"), name
        assert theirs.get("maximum") == ours.get("maximum"), name


def test_names_have_the_parsers_grammar() -> None:
    rules = cast("list[Mapping[str, str]]", _at("spec", "names", "[]")["x-kubernetes-validations"])
    assert rules[0]["rule"] == f"self.matches('{PATTERN}')"
    assert f"size() <= {MAX_NAME} " in ROOT["x-kubernetes-validations"][0]["rule"]


def test_the_facts_of_the_status_are_the_runners() -> None:
    shape = Shape(1)
    facts = ModelFacts(
        1, "a", ("a",), "1B", 1, "Q4_0", 1, 1, ("completion",), "t", {"x": 1}, shape, "file:///x", "0" * 64, "0" * 16, 1
    )
    assert set(_properties("status", "model")) == set(facts.to_json())
    assert set(_properties("status", "model", "shape")) == set(shape.to_json())


def test_every_field_has_a_description() -> None:
    silent = [path for path, schema in _schemas(ROOT, "") if not schema.get("description")]
    assert silent == [".metadata"], "the API server describes metadata itself, and takes no word on it"


def test_every_rule_has_a_message() -> None:
    for path, schema in _schemas(ROOT, ""):
        for rule in cast("list[Mapping[str, str]]", schema.get("x-kubernetes-validations", [])):
            assert rule.get("message"), path


def test_the_case_with_every_field_has_every_field() -> None:
    assert set(EVERYTHING) == set(_properties("spec"))
    for name in ("gpu", "pod", "parameters", "queue"):
        assert set(cast("Mapping[str, object]", EVERYTHING[name])) == set(_properties("spec", name)), name


def test_the_columns_are_the_designs() -> None:
    columns = VERSION["additionalPrinterColumns"]
    assert [c["name"].upper() for c in columns if not c.get("priority")] == [
        "PHASE",
        "REPLICAS",
        "GPUS",
        "UNTIL",
        "AGE",
    ]
    assert [c["name"].upper() for c in columns if c.get("priority") == 1] == ["SOURCE", "SIZE", "REASON"]


def test_patterns_compile_the_same_way_here() -> None:
    for path, schema in _schemas(ROOT, ""):
        pattern = schema.get("pattern")
        if isinstance(pattern, str):
            assert pattern.startswith("^"), path
            assert re.compile(pattern), path
