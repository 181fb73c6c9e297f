"""Helm chart: the schema and documentation of its values, and the reasons for its RBAC rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts/corral"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
PARTS = ("operator", "gateway")

Permission = tuple[str, str]
"""Resource and verb."""


def resolved(schema: Mapping[str, object]) -> Mapping[str, object]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    found = SCHEMA["definitions"][name] if name else schema
    assert isinstance(found, dict)
    return found


def uncovered(value: object, schema: Mapping[str, object], path: str = "") -> Iterator[str]:
    """Yield the values that the schema lacks, and the properties of the schema that are no values."""
    properties = resolved(schema).get("properties")
    if (
        not isinstance(value, dict)
        or not isinstance(properties, dict)
        or path.endswith((".affinity", ".namespaceSelector"))
    ):
        return
    optional = {"global"} if not path else {"minAvailable", "claims"}
    yield from (f"{path}.{name}" for name in (value.keys() ^ properties.keys()) - optional)
    for name in value.keys() & properties.keys():
        yield from uncovered(value[name], properties[name], f"{path}.{name}")


def open_objects(schema: object, path: str) -> Iterator[str]:
    """Yield the objects of the schema that accept unknown keys."""
    if isinstance(schema, dict):
        if schema.get("type") == "object" and schema.get("additionalProperties") in (None, True):
            yield path
        for name, inner in schema.items():
            yield from open_objects(inner, f"{path}.{name}")


def test_the_schema_has_every_value_and_no_other() -> None:
    assert list(uncovered(VALUES, SCHEMA)) == []


def test_the_schema_rejects_unknown_keys_at_every_level() -> None:
    profiles = ".properties.models.properties.profiles.items.properties.spec"
    assert list(open_objects(SCHEMA, "")) == [
        ".properties.global",  # which Helm gives to subcharts
        profiles,  # which the gateway checks at its start, as the spec of a Model
        ".properties.extraObjects.items",  # objects of any kind, which the API server checks
        ".definitions.volume.additionalProperties",  # a source of a volume, which the API server checks
    ]


def unknown(given: object, values: object, path: str = "") -> Iterator[str]:
    """Yield keys that are no values of the chart; maps with keys of the user's choice are skipped."""
    if (
        not isinstance(given, dict)
        or not isinstance(values, dict)
        or path.endswith(("labels", "annotations", "Selector"))
    ):
        return
    for name, inner in given.items():
        if name in values:
            yield from unknown(inner, values[name], f"{path}.{name}")
        else:
            yield f"{path}.{name}"


def test_the_values_in_the_documentation_exist() -> None:
    shown = 0
    for page in (ROOT / "docs").glob("*.md"):
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), flags=re.DOTALL):
            given = yaml.safe_load(block)
            if isinstance(given, dict) and given.keys() <= VALUES.keys():
                shown += 1
                assert list(unknown(given, VALUES)) == [], page.name
    assert shown >= 2


@pytest.mark.parametrize("part", PARTS)
def test_every_rbac_rule_of_the_chart_is_documented_and_no_other(part: str) -> None:
    assert documented(part) == granted(part)


def granted(part: str) -> set[Permission]:
    """Return the permissions in the chart's roles."""
    helpers = (CHART / "templates/_helpers.tpl").read_text()
    rules = []
    for block in re.findall(rf'define "corral\.{part}(?:Model)?Rules" -}}}}\n(.*?){{{{- end', helpers, re.DOTALL):
        rules += yaml.safe_load(re.sub(r"^{{.*}}$", "", block, flags=re.MULTILINE))
    if part == "operator":
        roles = (CHART / "templates/rbac.yaml").read_text()
        for kind in ("ClusterRole", "Role"):
            role = roles.split(f"kind: {kind}\n")[1].split("---")[0]
            rules += yaml.safe_load(re.sub(r"{{.*?}}", "x", role[role.index("rules:") :]))["rules"]
    return {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}


def documented(part: str) -> set[Permission]:
    section = (ROOT / "docs/rbac.md").read_text().split(f"## {part.capitalize()}\n")[1].split("\n## ")[0]
    found: set[Permission] = set()
    resource = ""
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or cells[0] in ("resource", "---"):
            continue
        named = re.match(r"`([a-z/]+)`", cells[0])
        resource = named[1] if named else resource
        assert len(cells[2]) > 10, f"no reason: {line}"
        found |= {(resource, verb.strip()) for verb in cells[1].split(",")}
    return found
