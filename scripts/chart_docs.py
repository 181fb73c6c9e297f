"""Write docs/chart.md: a table of every value of the chart, from the comments in its values.yaml.

usage: chart_docs.py [--check]     --check writes nothing and fails if the page is out of date

A comment that begins with ``# --`` describes the next key; the comment lines below it continue the text. A key whose
value has no further keys is a row of the table.
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
# Chart values

`helm install corral charts/corral --namespace corral --create-namespace --set image.registry=registry.example` installs
the operator and the gateways. The Service `corral`, port 11434, serves the Ollama and OpenAI APIs. Helm rejects unknown
values and values of a wrong type.

* *Images*: the reference of an image is `<registry>/<repository>:<tag>`, or `<registry>/<repository>@<digest>` if a
  digest is set. The chart has no default registry, and Helm refuses to render it until `image.registry` is set, or the
  registry of each image that is used. `image.pullSecrets` is for the pods of operator and gateways,
  `runner.pullSecrets` for the pods of Models in their namespaces.
* *Names*: objects are named after the release. `fullnameOverride` replaces that name. A release whose name does not
  contain `corral` has it appended, as in `models-corral-gateway`.

* *CRD*: installed and upgraded with the release. `helm uninstall` keeps it, and with it every Model.
* *GPUs*: the image of a runner follows from the vendor of its GPUs (`runner.images`), and so do its node labels,
  tolerations, resources and variables (`runner.accelerators`). `charts/corral/values/` has files for EKS, GKE, AKS, k3s
  and the operators of NVIDIA and AMD: `--values charts/corral/values/gke.yaml`. They follow the documentation of these
  platforms and were not tried there. The chart creates no RuntimeClass; the GPU vendor's operator does. If the
  RuntimeClass of a Model is missing, the condition Ready of the Model and the errors of its pending requests say so.
* *Ingress and Gateway API*: the proxy must not buffer responses, and must allow long ones. The default annotations do
  this for ingress-nginx; other controllers need their own. With an Ingress, the gateways remove the path prefix; with
  the Gateway API, the route does.
* *Monitors* scrape `/metrics` at the port `metrics` of gateways and at the port `http` of operator and runners.
  [monitoring.md](monitoring.md) has values for kube-prometheus-stack.
* *Certificate authorities*: `caBundle` is mounted into operator and gateways and set as SSL_CERT_FILE and
  REQUESTS_CA_BUNDLE. The API server is always verified with the cluster's own authority. Runners have none of
  it; what pulls weights has settings of its own (`proxy`).
* *Other settings* ([settings.md](settings.md)) are set with `operator.env`, `gateway.env` or `runner.env`.

| value | default | description |
|---|---|---|
"""


def rows(values: str) -> Iterator[tuple[str, object, str]]:
    """Yield ``(path, default, description)`` of each value in the text of a values.yaml.

    A value without a comment has the description of the nearest key above it, or an empty one.
    """
    comments = _comments(values)
    for path, default in _leaves(yaml.safe_load(values), ()):
        parents = (path[:length] for length in range(len(path), 0, -1))
        yield ".".join(path), default, next((comments[parent] for parent in parents if parent in comments), "")


def page() -> str:
    """Return the text of docs/chart.md."""
    table = rows(VALUES.read_text())
    lines = [f"| `{path}` | `{json.dumps(default)}` | {description} |" for path, default, description in table]
    return _HEAD + "\n".join(lines) + "\n"


def _comments(values: str) -> dict[tuple[str, ...], str]:
    """Return the description of each key that has one, by the path of the key."""
    found: dict[tuple[str, ...], str] = {}
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in values.splitlines():
        text = line.strip()
        if text.startswith("# --"):
            comment = [text.removeprefix("# --").strip()]
        elif text.startswith("#"):
            if comment:
                comment.append(text.removeprefix("#").strip())
        elif ":" in text:
            depth = len(line) - len(line.lstrip())
            path = [(level, key) for level, key in path if level < depth]
            path.append((depth, text.partition(":")[0]))
            if comment:
                found[tuple(key for _, key in path)] = " ".join(comment)
            comment = []
    return found


def _leaves(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(value, dict) and value and (not path or path[-1] not in _WHOLE):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    else:
        yield path, value


_WHOLE = {"requests", "limits", "annotations", "podDisruptionBudget", "nvidia", "amd", "intel"}
"""Keys whose value consists of objects of the Kubernetes API, and so is one row."""


def main() -> None:
    undescribed = [path for path, _, description in rows(VALUES.read_text()) if not description]
    if undescribed:
        raise SystemExit(f"{VALUES.name} does not describe {', '.join(undescribed)}: put '# -- ...' above each")
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page())
    elif not PAGE.exists() or PAGE.read_text() != page():
        raise SystemExit(f"{PAGE.name} is out of date: run scripts/chart_docs.py")


if __name__ == "__main__":
    main()
