"""Examples and catalogue on a real API server, which validates every object, and the chart of the catalogue."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest
import yaml

from tests.cluster.api import ApiError, Object, at
from tests.cluster.cluster import Cluster
from tests.cluster.helm import Helm, rendered
from tests.model_files import CATALOGUE, EXAMPLES, ROOT, VALUES, models, objects

pytestmark = pytest.mark.cluster

CHART = ROOT / "charts/models"
_PATHS = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Model": "/apis/corral.dev/v1alpha1/namespaces/{}/models",
    "Namespace": "/api/v1/namespaces",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "ResourceQuota": "/api/v1/namespaces/{}/resourcequotas",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "Secret": "/api/v1/namespaces/{}/secrets",
}


def _validate(cluster: Cluster, document: Mapping[str, object]) -> None:
    """Have the API server validate the object, in the namespace default: that of an example may not exist."""
    metadata = {**cast("Object", document["metadata"]), "namespace": "default"}
    if document["kind"] == "Namespace":
        del metadata["namespace"]
    path = _PATHS[str(document["kind"])].format("default")
    query = {"dryRun": "All", "fieldValidation": "Strict"}
    cluster.api.request("POST", path, body={**document, "metadata": metadata}, query=query)


def test_the_api_server_accepts_all_examples_and_the_catalogue(cluster: Cluster) -> None:
    refused = []
    for path in (*EXAMPLES, *CATALOGUE):
        for document in objects(path):
            try:
                _validate(cluster, document)
            except ApiError as error:
                refused.append(f"{path.name}: {error}")
    assert refused == []


def _template(helm: Helm, values: Mapping[str, object], folder: Path) -> subprocess.CompletedProcess[str]:
    """Render the chart; the values of ``helm`` itself have images, which this chart does not know."""
    (folder / "catalogue.json").write_text(json.dumps(values))
    version = ["--kube-version", "1.36.0"]
    return helm("template", "catalogue", str(CHART), "-n", "base", *version, "--values", str(folder / "catalogue.json"))


def _catalogue(helm: Helm, values: Mapping[str, object], folder: Path) -> list[Object]:
    done = _template(helm, values, folder)
    assert done.returncode == 0, done.stderr
    return [cast("Object", item) for item in yaml.safe_load_all(done.stdout) if item]


def test_the_chart_renders_every_model_of_the_catalogue_as_it_is(helm: Helm, tmp_path: Path) -> None:
    found = _catalogue(helm, {"models": [path.stem for path in CATALOGUE]}, tmp_path)
    assert [at(item, "spec") for item in found] == [models(path)[0]["spec"] for path in CATALOGUE]
    assert {at(item, "metadata", "namespace") for item in found} == {"base"}


def test_values_of_the_chart_replace_fields_of_the_catalogue(helm: Helm, tmp_path: Path) -> None:
    values = {
        "models": ["llama3-2-1b", "nomic-embed-text"],
        "spec": {"cache": {"storageClassName": "fast"}, "keepAlive": "1m"},
        "overrides": {"nomic-embed-text": {"keepAlive": -1}},
        "labels": {"team": "search"},
    }
    small, embedding = _catalogue(helm, values, tmp_path)
    assert at(small, "spec", "keepAlive") == "1m"
    assert at(embedding, "spec", "keepAlive") == -1
    assert at(embedding, "spec", "gpu") == {"count": 0}
    assert {at(item, "spec", "cache", "storageClassName") for item in (small, embedding)} == {"fast"}
    assert at(small, "metadata", "labels", "team") == "search"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"models": ["llama9"]}, "models: the catalogue has no llama9"),
        ({"models": [], "overrides": {"llama3-2-1b": {}}}, "overrides: llama3-2-1b is not in models"),
    ],
)
def test_the_chart_refuses_names_that_it_does_not_have(
    helm: Helm, tmp_path: Path, values: Mapping[str, object], reason: str
) -> None:
    done = _template(helm, values, tmp_path)
    assert done.returncode != 0
    assert reason in done.stderr


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.stem)
def test_the_example_values_render(helm: Helm, path: Path) -> None:
    assert rendered(helm, yaml.safe_load(path.read_text()))
