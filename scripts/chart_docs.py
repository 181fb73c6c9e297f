"""Writes docs/chart.md: a table of every value of the chart, from the comments in its values.yaml.

usage: chart_docs.py [--check]     --check writes nothing and fails when the page is out of date

A comment line that begins with ``# --`` belongs to the next key; a key whose value holds no further keys is a row.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
VALUES = ROOT / "charts/corral/values.yaml"
PAGE = ROOT / "docs/chart.md"
_HEAD = """\
# The chart's values

`helm install corral charts/corral --namespace corral --create-namespace` installs operator and gateway; clients find
Ollama's API at the Service `corral`, port 11434. A value that the chart does not know, or of another type, is refused.

* *CRDs* are installed and upgraded with the release, and stay when it is uninstalled, with every Model.
* *GPUs*: the chart makes no RuntimeClass; the vendor's operator does. A Model whose class is missing says so, and so do
  the requests that wait for it. The release's notes say when there is no class `nvidia`.
* *Behind an Ingress or a Gateway* answers are not buffered and may take long; the controller must be told so in its own
  way, and for ingress-nginx the annotations are there. A path prefix is taken off by the gateways (Ingress) or by the
  route (Gateway API).
* *Monitors* read `/metrics` at the port `metrics` of gateways and at `http` of operator and runners.
  [monitoring.md](monitoring.md) has the values for a usual installation of Prometheus and Grafana.
* *Certificate authorities*: `caBundle` is mounted into operator and gateways and named in SSL_CERT_FILE and
  REQUESTS_CA_BUNDLE. The API server is always checked with the cluster's own; runners reach nobody.
* *What has no value of its own* ([settings.md](settings.md)) is set with `operator.env`, `gateway.env` or `runner.env`.

| value | default | meaning |
|---|---|---|
"""


def rows() -> Iterator[tuple[str, object, str]]:
    """``(path, default, meaning)`` of each value."""
    comments = _comments()
    for path, default in _leaves(yaml.safe_load(VALUES.read_text()), ()):
        named = next((comments[path[:length]] for length in range(len(path), 0, -1) if path[:length] in comments), "")
        yield ".".join(path), default, named


def page() -> str:
    lines = [f"| `{path}` | `{json.dumps(default)}` | {meaning} |" for path, default, meaning in rows()]
    return _HEAD + "\n".join(lines) + "\n"


def _comments() -> dict[tuple[str, ...], str]:
    """The comment of each key that has one, by the key's path."""
    found: dict[tuple[str, ...], str] = {}
    path: list[tuple[int, str]] = []
    comment = ""
    for line in VALUES.read_text().splitlines():
        text = line.strip()
        if text.startswith("# --"):
            comment = text.removeprefix("# --").strip()
        elif text.startswith("#") or ":" not in text:
            continue
        else:
            depth = len(line) - len(line.lstrip())
            path = [(level, key) for level, key in path if level < depth]
            path.append((depth, text.partition(":")[0]))
            if comment:
                found[tuple(key for _, key in path)] = comment
            comment = ""
    return found


def _leaves(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(value, dict) and value and (not path or path[-1] not in _WHOLE):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    else:
        yield path, value


_WHOLE = {"requests", "limits", "annotations", "podDisruptionBudget"}
"""Keys whose value is one thing of the Kubernetes API."""


def main() -> None:
    undescribed = [path for path, _, meaning in rows() if not meaning]
    if undescribed:
        raise SystemExit(f"{VALUES.name} says nothing about {', '.join(undescribed)}: put '# -- ...' before each")
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page())
    elif not PAGE.exists() or PAGE.read_text() != page():
        raise SystemExit(f"{PAGE.name} is out of date: run scripts/chart_docs.py")


if __name__ == "__main__":
    main()
