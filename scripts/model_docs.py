"""Write docs/reference/model.md: every field of a Model, from the schema of the CRD.

usage: model_docs.py [--check]     --check writes nothing and fails if the page is out of date

Each object of the schema is a section with a table of its fields, and its validation rules by their messages. The
objects in ``_OPAQUE`` are one row: their fields are those of the Kubernetes API, or only Corral reads them.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import yaml

ROOT = Path(__file__).resolve().parent.parent
CRD = ROOT / "crds/corral.dev_models.yaml"
PAGE = ROOT / "docs/reference/model.md"
_OPAQUE = {"spec.pod.affinity", "spec.pod.env[].valueFrom", "status.model.shape"}
_HEAD = """\
# Model

Every field of the custom resource `Model`, `corral.dev/v1alpha1`. `kubectl explain model.spec` shows the same
descriptions. `corral validate FILE` checks a file without a cluster. [Models and replicas](../concepts/models.md)
explains what a Model is.

```yaml
apiVersion: corral.dev/v1alpha1
kind: Model
metadata:
  name: llama
spec:
  source: ollama://llama3.2:1b
  names: ["llama3.2", "llama3.2:1b"]
```

The name of a Model has at most 52 lower-case letters, digits and `-`. The names for clients are in `spec.names`.

## Columns of `kubectl get models`
"""
_END = """\

Sections follow in the order of the schema. The operator and the gateways write `status`; a Model file needs none.
"""

Schema = Mapping[str, object]


def page(crd: str) -> str:
    """Return the text of docs/reference/model.md for the text of the CRD."""
    version = cast("Schema", yaml.safe_load(crd)["spec"]["versions"][0])
    schema = cast("Schema", cast("Schema", version["schema"])["openAPIV3Schema"])
    lines = [_HEAD, "| column | meaning |", "|---|---|", *_columns(version), _END]
    for name in ("spec", "status"):
        lines += _section(name, _properties(schema)[name], level=2)
    return "\n".join(lines).rstrip() + "\n"


def _columns(version: Schema) -> Iterator[str]:
    for column in cast("list[dict[str, str]]", version["additionalPrinterColumns"]):
        wide = " With `-o wide`." if column.get("priority") else ""
        path = column["jsonPath"].removeprefix(".")
        yield f"| {column['name'].upper()} | {_text(column.get('description', f'`{path}`.'))}{wide} |"


def _section(path: str, schema: Schema, level: int) -> Iterator[str]:
    """Yield the lines of the section of an object, then those of the objects in it."""
    yield f"{'#' * min(level, 4)} {path}\n"
    yield f"{_text(str(schema.get('description', '')))}\n"
    rules = [str(rule["message"]) for rule in cast("list[Schema]", schema.get("x-kubernetes-validations", []))]
    if rules:
        yield "Rules:\n"
        yield "\n".join(f"- {_text(rule)}" for rule in rules) + "\n"
    required = cast("list[str]", schema.get("required", []))
    yield "| field | type | default | description |"
    yield "|---|---|---|---|"
    inner = list(_inner(path, schema))
    for name, field in _properties(schema).items():
        section = next((to for key, to, _ in inner if key == name), None)
        yield _row(name, field, required=name in required, section=section)
    yield ""
    for _, to, field in inner:
        yield from _section(to, field, level + 1)


def _inner(path: str, schema: Schema) -> Iterator[tuple[str, str, Schema]]:
    """Yield the key, the path and the schema of each field that gets a section of its own."""
    for name, field in _properties(schema).items():
        items = cast("Schema", field.get("items", {}))
        for to, candidate in ((f"{path}.{name}", field), (f"{path}.{name}[]", items)):
            if _properties(candidate) and to not in _OPAQUE:
                yield name, to, candidate


def _row(name: str, field: Schema, *, required: bool, section: str | None) -> str:
    kind = _type(field)
    if section:
        kind = f"[{kind}](#{re.sub(r'[^a-z0-9]', '', section.lower())})"
    default = f"`{json.dumps(field['default'])}`" if "default" in field else "required" if required else ""
    return f"| `{name}` | {kind} | {default} | {_text(str(field.get('description', '')))}{_limits(field)} |"


def _type(field: Schema) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if "items" in field:
        return f"list of {_type(cast('Schema', field['items']))}"
    if isinstance(field.get("additionalProperties"), Mapping):
        return f"map of {_type(cast('Schema', field['additionalProperties']))}"
    return str(field.get("type", "any"))


def _limits(field: Schema) -> str:
    """Return the allowed values of a field as sentences; empty if any value of its type is allowed."""
    parts = []
    if values := cast("list[object]", field.get("enum", [])):
        parts.append("One of " + ", ".join(f"`{value}`" for value in values) + ".")
    for key, words in (("minimum", "At least"), ("maximum", "At most")):
        if key in field:
            parts.append(f"{words} {field[key]}.")
    if "maxItems" in field:
        parts.append(f"At most {field['maxItems']} entries.")
    return "".join(f" {part}" for part in parts)


def _properties(schema: Schema) -> dict[str, Schema]:
    return cast("dict[str, Schema]", schema.get("properties", {}))


def _text(text: str) -> str:
    """Return a description as one line of Markdown in a table; angle brackets and bars are literal."""
    line = " ".join(text.split())
    return line.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;").replace("*", "\\*")


def main() -> None:
    text = page(CRD.read_text("utf-8"))
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, "utf-8")
    elif not PAGE.exists() or PAGE.read_text("utf-8") != text:
        raise SystemExit(f"{PAGE.relative_to(ROOT)} is out of date: run scripts/model_docs.py")


if __name__ == "__main__":
    main()
