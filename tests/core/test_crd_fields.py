"""Agreement of CRD and parser: fields, defaults, enums, required fields, descriptions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter

from corral_core.base.names import NAME_PATTERN
from corral_core.contracts.model_metadata import ComputeBuffer, ModelDimensions
from corral_core.contracts.pull_status import PullStatus
from corral_core.contracts.source_resolution import SourceResolution
from corral_core.model.affinity import (
    Affinity,
    LabelSelector,
    NodeAffinity,
    NodePreference,
    NodeTerm,
    NodeTerms,
    PodAffinity,
    PodPreference,
    PodTerm,
)
from corral_core.model.model import (
    API_VERSION,
    KIND,
    MAX_NAME,
    PLURAL,
    GPUSpec,
    ModelSpec,
    QueueSpec,
    RequestLimitsSpec,
)
from corral_core.model.parameters import Parameters
from corral_core.model.pod import (
    EnvSource,
    EnvVar,
    FieldReference,
    KeyReference,
    PodOverrides,
    ResourceReference,
    Resources,
    SecretReference,
    TolerationSpec,
)
from corral_core.model.pulling import CABundleSpec, CacheSpec, ProxySpec, SecretKey
from corral_core.sources.uri import (
    CREDENTIALS,
    EMPTY_PARTS,
    ENCODED_CONTROL,
    ENCODED_SEPARATORS,
    FORMS,
    LONG_CLAIM,
    PATTERNS,
)
from corral_operator.observe.pulling.puller import parse_puller
from corral_operator.report.pulls import pull_fields
from corral_operator.report.view import PullView
from tests.core.model_cases import EVERYTHING, PREFERRED, REQUIRED
from tests.operator import pull_samples
from tests.operator.samples import METADATA

Schema = Mapping[str, object]

CRD = yaml.safe_load((Path(__file__).parents[2] / "crds" / "corral.dev_models.yaml").read_text())
VERSION = CRD["spec"]["versions"][0]
ROOT = VERSION["schema"]["openAPIV3Schema"]


def _at(*path: str) -> Schema:
    """Return the schema of a field; ``[]`` stands for the items of a list."""
    schema = ROOT
    for part in path:
        schema = schema["items"] if part == "[]" else schema["properties"][part]
    return cast("Schema", schema)


def _properties(*path: str) -> Mapping[str, Schema]:
    return cast("Mapping[str, Schema]", _at(*path)["properties"])


def _aliases(model: type[BaseModel]) -> dict[str, str]:
    return {field.alias or name: name for name, field in model.model_fields.items()}


def _schemas(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Yield the schema of every field below ``schema`` with its path."""
    yield path, schema
    for name, inner in cast("Mapping[str, Schema]", schema.get("properties", {})).items():
        yield from _schemas(inner, f"{path}.{name}")
    for part in ("items", "additionalProperties"):
        if part in schema:
            yield from _schemas(cast("Schema", schema[part]), f"{path}[]")


def test_crd_and_parser_define_the_same_resource() -> None:
    assert f"{CRD['spec']['group']}/{VERSION['name']}" == API_VERSION
    assert (CRD["spec"]["names"]["kind"], CRD["spec"]["names"]["plural"]) == (KIND, PLURAL)


def test_crd_and_parser_have_the_same_fields() -> None:
    assert set(_properties("spec")) == set(_aliases(ModelSpec))
    assert set(_properties("spec", "gpu")) == set(_aliases(GPUSpec))
    assert set(_properties("spec", "queue")) == set(_aliases(QueueSpec))
    assert set(_properties("spec", "requestLimits")) == set(_aliases(RequestLimitsSpec))
    assert set(_properties("spec", "cache")) == set(_aliases(CacheSpec))
    assert set(_properties("spec", "proxy")) == set(_aliases(ProxySpec))
    assert set(_properties("spec", "proxy", "caBundle")) == set(_aliases(CABundleSpec))
    assert set(_properties("spec", "proxy", "httpsProxySecretRef")) == set(SecretKey.__annotations__)
    assert set(_properties("spec", "sourceSecretRef")) == set(SecretReference.__annotations__)
    assert set(_properties("spec", "pod")) == set(_aliases(PodOverrides))
    assert set(_properties("spec", "parameters")) == set(Parameters.__annotations__)
    assert set(_properties("spec", "pod", "resources")) == set(Resources.__annotations__)
    assert set(_properties("spec", "pod", "tolerations", "[]")) == set(TolerationSpec.__annotations__)
    assert set(_properties("spec", "pod", "env", "[]")) == set(EnvVar.__annotations__)
    assert set(_properties("spec", "pod", "imagePullSecrets", "[]")) == set(SecretReference.__annotations__)


TYPED = {
    "affinity": (Affinity, ("affinity",)),
    "nodes": (NodeAffinity, ("affinity", "nodeAffinity")),
    "node terms": (NodeTerms, ("affinity", "nodeAffinity", REQUIRED)),
    "node term": (NodeTerm, ("affinity", "nodeAffinity", REQUIRED, "nodeSelectorTerms", "[]")),
    "node preference": (NodePreference, ("affinity", "nodeAffinity", PREFERRED, "[]")),
    "pods": (PodAffinity, ("affinity", "podAffinity")),
    "pod term": (PodTerm, ("affinity", "podAntiAffinity", REQUIRED, "[]")),
    "pod preference": (PodPreference, ("affinity", "podAffinity", PREFERRED, "[]")),
    "selector": (LabelSelector, ("affinity", "podAffinity", REQUIRED, "[]", "labelSelector")),
    "variable": (EnvVar, ("env", "[]")),
    "source": (EnvSource, ("env", "[]", "valueFrom")),
    "key": (KeyReference, ("env", "[]", "valueFrom", "secretKeyRef")),
    "field": (FieldReference, ("env", "[]", "valueFrom", "fieldRef")),
    "resource": (ResourceReference, ("env", "[]", "valueFrom", "resourceFieldRef")),
    "toleration": (TolerationSpec, ("tolerations", "[]")),
}
_BOUNDS = ("maxLength", "maxItems", "minimum", "maximum", "enum")


@pytest.mark.parametrize("name", TYPED)
def test_crd_and_parser_have_the_same_fields_and_bounds_in_typed_objects(name: str) -> None:
    kind, path = TYPED[name]
    crd = _at("spec", "pod", *path)
    parser = TypeAdapter(kind).json_schema()
    parser = parser["$defs"][kind.__name__] if "$ref" in parser else parser
    assert set(cast("Schema", crd["properties"])) == set(parser["properties"])
    assert set(cast("list[str]", crd.get("required", []))) == set(parser.get("required", []))
    for field, schema in cast("Mapping[str, Schema]", crd["properties"]).items():
        ours = parser["properties"][field]
        if field not in ("name", "divisor", "tolerationSeconds"):  # patterns and 64-bit numbers have other tests
            assert {bound: schema.get(bound) for bound in _BOUNDS} == {bound: ours.get(bound) for bound in _BOUNDS}, (
                field
            )


def test_every_object_of_a_spec_declares_its_fields() -> None:
    """An object with free-form fields could be nested without a limit."""
    free = [path for path, schema in _schemas(_at("spec"), "spec") if "x-kubernetes-preserve-unknown-fields" in schema]
    assert free == []
    for path, schema in _schemas(ROOT, ""):
        if "x-kubernetes-preserve-unknown-fields" in schema:
            assert (schema["maxProperties"], schema["maxItems"]) == (0, 0), path


def test_crd_and_parser_have_the_same_defaults() -> None:
    spec = ModelSpec.model_validate({"source": "file:///a"})
    for alias, name in _aliases(ModelSpec).items():
        if alias not in ("gpu", "cache") and "default" in _at("spec", alias):
            assert _at("spec", alias)["default"] == getattr(spec, name), alias
    for alias, name in _aliases(GPUSpec).items():
        assert _at("spec", "gpu", alias).get("default") == getattr(spec.gpu, name), alias
    for alias in ("type", "accessModes", "retain"):
        default = _at("spec", "cache", alias)["default"]
        ours = getattr(spec.cache, _aliases(CacheSpec)[alias])
        assert default == (list(ours) if isinstance(ours, tuple) else ours), alias
    assert _at("spec", "proxy", "caBundle", "key")["default"] == CABundleSpec.model_fields["key"].default


def test_parser_defaults_exist_in_the_crd() -> None:
    spec = ModelSpec.model_validate({"source": "file:///a"})
    filled = {
        alias
        for alias, name in _aliases(ModelSpec).items()
        if getattr(spec, name) not in (None, (), {}, PodOverrides(), QueueSpec(), RequestLimitsSpec(), ProxySpec())
    }
    assert {name for name, schema in _properties("spec").items() if "default" in schema} | {"source"} == filled


def test_crd_and_parser_require_the_same_fields() -> None:
    required = {field.alias for field in ModelSpec.model_fields.values() if field.is_required()}
    assert set(cast("list[str]", _at("spec")["required"])) == required
    for name, path in (("EnvVar", "env"), ("SecretReference", "imagePullSecrets")):
        ours = ModelSpec.model_json_schema()["$defs"][name]["required"]
        assert _at("spec", "pod", path, "[]")["required"] == ours


def test_crd_and_parser_have_the_same_number_ranges() -> None:
    schema = ModelSpec.model_json_schema()
    for alias in ("minReplicas", "maxReplicas"):
        assert _at("spec", alias)["minimum"] == schema["properties"][alias]["minimum"], alias
    for name in Parameters.__annotations__:
        parser, crd = schema["$defs"]["Parameters"]["properties"][name], _at("spec", "parameters", name)
        assert crd["type"] == parser["type"], name
        assert crd.get("minimum") == parser.get("minimum"), name
        assert crd.get("maximum") == parser.get("maximum"), name


def test_crd_and_parser_have_the_same_name_pattern() -> None:
    rules = cast("list[Mapping[str, str]]", _at("spec", "names", "[]")["x-kubernetes-validations"])
    assert rules[0]["rule"] == f"self.matches('{NAME_PATTERN}')"
    assert f"size() <= {MAX_NAME} " in ROOT["x-kubernetes-validations"][0]["rule"]


@pytest.mark.parametrize("path", [("source",), ("adapters", "[]", "source"), ("projector",)])
def test_crd_and_parser_have_the_same_rules_for_sources(path: tuple[str, ...]) -> None:
    rules = [rule["rule"] for rule in cast("list[Mapping[str, str]]", _at("spec", *path)["x-kubernetes-validations"])]
    assert rules == [
        f"self.matches('^({'|'.join(FORMS)})://')",
        *(f"!self.startsWith('{name}://') || self.matches(r'{pattern}')" for name, pattern in PATTERNS.items()),
        f"!self.matches(r'{EMPTY_PARTS}')",
        f"self.startsWith('https://') || !self.matches(r'{ENCODED_SEPARATORS}')",
        f"!self.matches(r'{ENCODED_CONTROL}')",
        f"!self.matches(r'{CREDENTIALS}')",
        f"!self.matches(r'{LONG_CLAIM}')",
    ]


def test_status_model_has_the_fields_of_the_metadata() -> None:
    shape = ModelDimensions(1, compute_buffers=(ComputeBuffer(1, "f16", 512, 1),), projector=1, projector_compute=1)
    metadata = replace(
        METADATA, template="t", info={"x": 1}, dimensions=shape, sha256="0" * 64, adapters_digest="0" * 16
    )
    metadata = replace(metadata, projector_info={"x": 1})
    complete = replace(metadata, adapters_size=1, source_defaults="eA==", left_out=("license",))
    assert set(_properties("status", "model")) == set(complete.to_json())
    assert set(_properties("status", "model", "shape")) == set(shape.to_json())
    buffer = shape.compute_buffers[0].to_json()
    assert set(_properties("status", "model", "shape", "computeBuffers", "[]")) == set(buffer)


def test_status_source_has_the_fields_of_the_resolution() -> None:
    source = SourceResolution(
        "hf://a/b", {"hf://a/b": "1"}, 1, {"hf://a/b": "0" * 32}, "claim", "uid", "2026-01-01T00:00:00Z", "models/m"
    )
    assert set(_properties("status", "source")) == set(source.to_json())


def test_status_pull_has_the_fields_that_the_operator_writes() -> None:
    puller = parse_puller(pull_samples.puller({"running": {}}))
    pull = PullView(puller=puller, status=PullStatus(1, 2, 1.0, "pulling"))
    assert set(_properties("status", "pull")) == set(pull_fields(pull))


def test_every_field_has_a_description() -> None:
    silent = [path for path, schema in _schemas(ROOT, "") if not schema.get("description")]
    assert silent == [".metadata"], "the API server describes metadata itself, and takes no word on it"


def test_a_description_names_the_default() -> None:
    for path, schema in _schemas(ROOT, ""):
        if "default" in schema and not isinstance(schema["default"], dict):
            default = schema["default"]
            text = str(default).lower() if isinstance(default, bool) else str(default)
            assert f"Default: {text}" in str(schema["description"]), path


def test_every_optional_field_of_the_spec_says_what_its_absence_means() -> None:
    for name, schema in _properties("spec").items():
        assert "Default: " in str(schema["description"]) or name in ("source", "parameters", "pod"), name


def test_every_rule_has_a_message() -> None:
    for path, schema in _schemas(ROOT, ""):
        for rule in cast("list[Mapping[str, str]]", schema.get("x-kubernetes-validations", [])):
            assert rule.get("message"), path


def test_complete_test_case_sets_every_field() -> None:
    assert set(EVERYTHING) == set(_properties("spec"))
    for name in ("gpu", "pod", "parameters", "queue"):
        assert set(cast("Mapping[str, object]", EVERYTHING[name])) == set(_properties("spec", name)), name
    assert set(cast("Mapping[str, object]", EVERYTHING["cache"])) == set(_properties("spec", "cache")) - {"claimName"}


def test_printer_columns() -> None:
    columns = VERSION["additionalPrinterColumns"]
    assert [c["name"].upper() for c in columns if not c.get("priority")] == [
        "READY",
        "PHASE",
        "PULLED",
        "REPLICAS",
        "PENDING",
        "GPUS",
        "IDLE",
        "KEEP-ALIVE",
        "SIZE",
        "AGE",
    ]
    assert [c["name"].upper() for c in columns if c.get("priority") == 1] == ["VRAM", "UNTIL", "SOURCE", "REASON"]


def test_patterns_are_valid_in_python() -> None:
    for path, schema in _schemas(ROOT, ""):
        pattern = schema.get("pattern")
        if isinstance(pattern, str):
            assert pattern.startswith("^"), path
            assert re.compile(pattern), path
