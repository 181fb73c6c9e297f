"""Write docs/chart.md: a table of every value of the chart, from the comments in its values.yaml.

usage: chart_docs.py [--check]     --check writes nothing and fails if the page is out of date

A comment describes the key directly below it, with all of its lines. Each value is a row of the table: a key whose
value has no further keys, described by a comment that begins with ``# --``. A group of values is a row without a
default if another comment describes it.
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
  this for ingress-nginx; [how-to/ingress.md](how-to/ingress.md) has values for other controllers, meshes and load
  balancers. With an Ingress, the gateways remove the path prefix; with the Gateway API, the route does.
* *Test*: `helm test` asks the smallest Model through the Service. With API keys, `helmTest.apiKey.secret` names the
  Secret with the text of a key.
* *Monitors* scrape `/metrics` at the port `metrics` of gateways and at the port `http` of operator and runners.
  [monitoring.md](monitoring.md) has values for kube-prometheus-stack.
* *Certificate authorities*: `caBundle` is mounted into operator and gateways and set as SSL_CERT_FILE and
  REQUESTS_CA_BUNDLE. The API server is always verified with the cluster's own authority. Runners have none of
  it; what pulls weights has settings of its own (`proxy`).
* *Other settings* ([settings.md](settings.md)) are set with `operator.env`, `gateway.env` or `runner.env`.

| value | default | description |
|---|---|---|
"""


def rows(values: str) -> Iterator[tuple[str, str, str]]:
    """Yield ``(path, default, description)`` of each value in the text of a values.yaml.

    The default is JSON, and empty for a group of values. A value without a comment has the description of the nearest
    key above it that has one which begins with ``# --``, or an empty one.
    """
    comments = _comments(values)
    for path, default, group in _keys(yaml.safe_load(values), ()):
        own = comments.get(path, "")
        if group and own and not own.startswith(_VALUE):
            yield ".".join(path), "", own
        if not group:
            parents = (comments.get(path[:length], "") for length in range(len(path), 0, -1))
            described = next((text for text in parents if text.startswith(_VALUE)), "")
            yield ".".join(path), json.dumps(default), described.removeprefix(_VALUE).strip()


def page() -> str:
    """Return the text of docs/chart.md."""
    lines = [
        f"| `{path}` | {default and f'`{default}`'} | {description.replace('|', '&#124;')} |"
        for path, default, description in rows(VALUES.read_text())
    ]
    return _HEAD + "\n".join(lines) + "\n"


_VALUE = "--"
"""Beginning of the description of a value."""


def _comments(values: str) -> dict[tuple[str, ...], str]:
    """Return the comment of each key that has one, without ``#``, by the path of the key."""
    found: dict[tuple[str, ...], str] = {}
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in values.splitlines():
        text = line.strip()
        if text.startswith("#"):
            comment.append(text.removeprefix("#").strip())
            continue
        if ":" in text:
            depth = len(line) - len(line.lstrip())
            path = [(level, key) for level, key in path if level < depth]
            path.append((depth, text.partition(":")[0]))
            if comment:
                found[tuple(key for _, key in path)] = " ".join(comment)
        comment = []
    return found


def _keys(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object, bool]]:
    """Yield path and value of each key, and whether it is a group of values."""
    group = isinstance(value, dict) and bool(value) and (not path or path[-1] not in _WHOLE)
    if path:
        yield path, value, group
    if group and isinstance(value, dict):
        for key, inner in value.items():
            yield from _keys(inner, (*path, str(key)))


_WHOLE = {"requests", "limits", "labels", "annotations", "podDisruptionBudget", "nvidia", "amd", "intel"}
"""Keys whose value consists of objects of the Kubernetes API, and so is one row."""


def main() -> None:
    undescribed = [path for path, default, description in rows(VALUES.read_text()) if default and not description]
    if undescribed:
        raise SystemExit(f"{VALUES.name} does not describe {', '.join(undescribed)}: put '# -- ...' above each")
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page())
    elif not PAGE.exists() or PAGE.read_text() != page():
        raise SystemExit(f"{PAGE.name} is out of date: run scripts/chart_docs.py")


if __name__ == "__main__":
    main()
