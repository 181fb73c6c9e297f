"""Fields and values of a Model in the text of the documentation exist, and the API server accepts them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.cluster import CRDS, Cluster

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OTHERS = {ROOT / "docs/chart.md", ROOT / "docs/reference/model.md"}
"""Pages that are made from the chart and from the CRD."""
DRIVERS = {"gpu.nvidia.com"}
"""DRA drivers, whose names look like a field."""
INCOMPLETE = {("source", "pvc://")}
COMPANIONS: dict[tuple[str, str], dict[str, object]] = {
    ("cache.type", "shared"): {"cache": {"type": "shared", "claimName": "weights"}},
    ("cache.type", "image"): {"cache": {"type": "image"}, "source": "oci://registry.example/models/tiny:1"},
    ("updatePolicy", "Poll"): {"source": "ollama://llama3.2:1b", "updatePolicy": "Poll"},
    ("updatePolicy", "OnRestart"): {"source": "ollama://llama3.2:1b", "updatePolicy": "OnRestart"},
}
"""The spec of values that need other fields."""


def spec_schema() -> dict[str, object]:
    crd = yaml.safe_load((CRDS / "corral.dev_models.yaml").read_text())
    found = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert isinstance(found, dict)
    return found


def has(schema: object, path: list[str]) -> bool:
    """Tell whether the schema has the field; maps have every key."""
    if not path:
        return True
    assert isinstance(schema, dict)
    inner = schema.get("items", schema)
    if "properties" not in inner:
        return "additionalProperties" in inner or "x-kubernetes-preserve-unknown-fields" in inner
    fields = inner["properties"]
    return path[0] in fields and has(fields[path[0]], path[1:])


def code(page: Path) -> Iterator[str]:
    """Yield the inline code of a page."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`([^`\n]+)`", text)


def documented() -> Iterator[tuple[Path, str, str]]:
    """Yield page, field and value of each value of a Model's spec; the value is empty for a field alone."""
    fields = spec_schema()["properties"]
    assert isinstance(fields, dict)
    for page in (page for page in PAGES if page not in OTHERS):
        for text in code(page):
            found = re.match(r"^(spec\.)?([a-zA-Z]+(?:\.[a-zA-Z]+)*)(?:: (.+))?$", text)
            if not found or found[2] in DRIVERS:
                continue
            if found[1] or (found[2].partition(".")[0] in fields and (found[3] or "." in found[2])):
                yield page, found[2], found[3] or ""


def test_fields_of_a_model_exist() -> None:
    values = yaml.safe_load((ROOT / "charts/corral/values.yaml").read_text())
    named = [(page, field) for page, field, _ in documented() if field.partition(".")[0] not in values]
    schema = spec_schema()
    assert len(named) > 100
    assert [(page.name, field) for page, field in named if not has(schema, field.split("."))] == []


def test_the_api_server_accepts_the_values(cluster: Cluster) -> None:
    values = {(field, value): page for page, field, value in documented() if value}
    models = []
    for index, (field, value) in enumerate(sorted(values.keys() - INCOMPLETE)):
        spec: object = yaml.safe_load(value)
        for name in reversed(field.split(".")):
            spec = {name: spec}
        assert isinstance(spec, dict)
        full = {"source": "file:///weights.gguf", **COMPANIONS.get((field, value), spec)}
        metadata = {"name": f"documented-{index}", "annotations": {"text": f"{field}: {value}"}}
        models.append({"apiVersion": "corral.dev/v1alpha1", "kind": "Model", "metadata": metadata, "spec": full})
    assert len(models) > 20
    dry = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
    done = cluster.kubectl(*dry, input="\n---\n".join(map(json.dumps, models)), check=False)
    assert done.returncode == 0, done.stderr


def test_a_value_that_the_crd_refuses_is_found(cluster: Cluster) -> None:
    """Prove that the test above can fail."""
    spec = {"source": "file:///weights.gguf", "maxReplicas": 2}
    model = {"apiVersion": "corral.dev/v1alpha1", "kind": "Model", "metadata": {"name": "documented"}, "spec": spec}
    dry = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
    done = cluster.kubectl(*dry, input=json.dumps(model), check=False)
    assert "more than one replica is not supported yet" in done.stderr
