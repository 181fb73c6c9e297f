"""Image references and names in the chart, and a chart folder that was copied or packaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest
import yaml

from corral_operator.config import from_environment
from tests.cluster.api import Object, at
from tests.cluster.helm import CHART, FULLNAME, RELEASE, Helm, rendered, variable

pytestmark = pytest.mark.cluster

DIGEST = f"sha256:{'ab' * 32}"
NO_COMMON: Mapping[str, object] = {"registry": "", "tag": ""}


def images(made: list[Object]) -> dict[str, object]:
    """Return the image of each component and the runner images that the operator gets."""
    pods = {
        str(at(item, "metadata", "name")).removeprefix(f"{FULLNAME}-"): at(
            item, "spec", "template", "spec", "containers", 0, "image"
        )
        for item in made
        if item["kind"] == "Deployment"
    }
    names = ("IMAGE", "IMAGE_CUDA", "IMAGE_VULKAN", "IMAGE_ROCM")
    return {**pods, **{name: variable(made, "operator", f"CORRAL_RUNNER_{name}") for name in names}}


def test_without_a_registry_the_chart_says_what_to_set(helm: Helm) -> None:
    done = helm("template", RELEASE, str(CHART), "--kube-version", "1.36.0", values={"image": NO_COMMON})
    assert done.returncode != 0
    assert "No registry is set for the image corral/" in done.stderr
    assert "--set image.registry=registry.example" in done.stderr


def test_images_with_registries_of_their_own_need_no_common_one(helm: Helm) -> None:
    none = {"repository": ""}
    made = rendered(
        helm,
        {
            "image": NO_COMMON,
            "control": {"image": {"registry": "a.example/x", "tag": "2"}},
            "runner": {
                "image": {"registry": "b.example:5000", "repository": "models/runner", "digest": DIGEST},
                "images": {"cuda": none, "vulkan": none},
            },
        },
    )
    assert images(made) == {
        "operator": "a.example/x/corral/control:2",
        "gateway": "a.example/x/corral/control:2",
        "IMAGE": f"b.example:5000/models/runner@{DIGEST}",
        "IMAGE_CUDA": "none",
        "IMAGE_VULKAN": "none",
        "IMAGE_ROCM": "none",
    }


def test_the_default_tag_is_the_version_of_corral(helm: Helm) -> None:
    made = rendered(helm, {"image": {"registry": "registry.example", "tag": ""}})
    version = at(made[0], "metadata", "labels", "app.kubernetes.io/version")
    assert images(made)["gateway"] == f"registry.example/corral/control:{version}"
    assert images(made)["IMAGE_CUDA"] == f"registry.example/corral/runner-cuda:{version}"


@pytest.mark.parametrize(
    ("values", "release", "name"),
    [
        ({}, "corral", "corral"),
        ({}, "my-corral", "my-corral"),
        ({}, "llm", "llm-corral"),
        ({"nameOverride": "models"}, "llm", "llm-models"),
        ({"fullnameOverride": "ours"}, "llm", "ours"),
    ],
)
def test_objects_are_named_after_the_release_unless_overridden(
    helm: Helm, values: Mapping[str, object], release: str, name: str
) -> None:
    done = helm("template", release, str(CHART), "--kube-version", "1.36.0", values=values)
    assert done.returncode == 0, done.stderr
    made = [item for item in yaml.safe_load_all(done.stdout) if item]
    namespaced = {
        str(at(item, "metadata", "name")) for item in made if item["kind"] in ("Deployment", "Service", "Role")
    }
    assert namespaced == {name, f"{name}-gateway", f"{name}-operator", f"{name}-operator-lease"}


def test_a_given_service_account_is_used_and_not_created(helm: Helm) -> None:
    annotations = {"iam.gke.io/gcp-service-account": "corral@project.iam.gserviceaccount.com"}
    made = rendered(
        helm,
        {
            "operator": {"serviceAccount": {"name": "brain", "annotations": annotations}},
            "gateway": {"serviceAccount": {"create": False, "name": "given"}},
        },
    )
    [account] = [item for item in made if item["kind"] == "ServiceAccount"]
    assert (at(account, "metadata", "name"), at(account, "metadata", "annotations")) == ("brain", annotations)
    used = {at(item, "spec", "template", "spec", "serviceAccountName") for item in made if item["kind"] == "Deployment"}
    bound = {at(item, "subjects", 0, "name") for item in made if str(item["kind"]).endswith("RoleBinding")}
    assert used == bound == {"brain", "given"}
    unnamed = {"gateway": {"serviceAccount": {"create": False}}}
    done = helm("template", RELEASE, str(CHART), "--kube-version", "1.36.0", values=unnamed)
    assert "gateway.serviceAccount.name must name an existing ServiceAccount" in done.stderr


def test_another_name_of_the_chart_is_that_of_labels_and_of_the_peers_that_runners_admit(helm: Helm) -> None:
    made = rendered(helm, {"nameOverride": "models", "fullnameOverride": FULLNAME})
    [client] = cast("list[Object]", json.loads(variable(made, "operator", "CORRAL_RUNNER_CLIENTS") or ""))
    named = at(client, "podSelector", "matchExpressions", 0, "values")
    labels = [
        at(item, "spec", "template", "metadata", "labels", "app.kubernetes.io/name")
        for item in made
        if item["kind"] == "Deployment"
    ]
    assert sorted(map(str, labels)) == named == ["models-gateway", "models-operator"]


def test_the_operator_gets_node_labels_and_tolerations_of_the_pods_of_models(helm: Helm) -> None:
    tolerations = [{"key": "dedicated", "value": "models", "effect": "NoSchedule"}]
    made = rendered(helm, {"runner": {"nodeSelector": {"pool": "models"}, "tolerations": tolerations}})
    names = ("CORRAL_RUNNER_NODE_SELECTOR", "CORRAL_RUNNER_TOLERATIONS")
    runner = from_environment({name: variable(made, "operator", name) or "" for name in names}).runner
    assert (runner.node_selector, list(runner.tolerations)) == ({"pool": "models"}, tolerations)


def test_a_copied_chart_folder_can_be_packaged_and_has_the_crd(helm: Helm, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "corral"
    shutil.copytree(CHART, copy, symlinks=True)
    assert [file for file in copy.rglob("*") if file.is_symlink()] == []
    done = helm("package", str(copy), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    [package] = tmp_path.glob("corral-*.tgz")
    shown = helm("template", RELEASE, str(package), "--kube-version", "1.36.0", values={})
    assert shown.returncode == 0, shown.stderr
    assert "name: models.corral.dev" in shown.stdout
