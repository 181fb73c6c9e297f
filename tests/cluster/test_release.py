"""Packages of the charts, as a release makes them."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import yaml

from scripts import release
from tests.cluster.api import Object, at
from tests.cluster.cluster import Cluster
from tests.cluster.helm import Helm

pytestmark = pytest.mark.cluster


@pytest.fixture
def packages(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    for kind in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"HELM_{kind}_HOME", str(tmp_path / "helm"))
    helm = str(cluster.programs / "helm")
    return release.package_charts(release.ROOT, tmp_path / "dist", registry="ghcr.example/team", helm=helm)


def test_packages_have_the_version_and_find_the_images_of_their_registry(packages: list[Path], helm: Helm) -> None:
    version = release.version()
    assert [path.name for path in packages] == [f"corral-{version}.tgz", f"corral-models-{version}.tgz"]
    for package in packages:
        shown = yaml.safe_load(helm("show", "chart", str(package)).stdout)
        assert (shown["version"], shown["appVersion"]) == (version, version)
    done = helm("template", "corral", str(packages[0]), "--kube-version", "1.36.0")
    assert done.returncode == 0, done.stderr
    found = [cast("Object", item) for item in yaml.safe_load_all(done.stdout) if item]
    images = {
        str(at(item, "spec", "template", "spec", "containers", 0, "image"))
        for item in found
        if item["kind"] == "Deployment"
    }
    assert images == {f"ghcr.example/team/corral/control:{version}"}
    assert f"ghcr.example/team/corral/runner:{version}" in done.stdout
