"""Helm for the tests: the program with its own settings, and the objects of the rendered chart."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import yaml

from tests.cluster.api import Object, at
from tests.cluster.cluster import Cluster

CHART = Path(__file__).parents[2] / "charts/corral"
RELEASE, NAMESPACE = "other", "default"
"""Name and namespace of the rendered release."""

FULLNAME = "other-corral"
"""First part of the names of its objects."""

IMAGES = {"registry": "registry.example", "tag": "1"}
"""``image`` of the values, unless a test sets it: the chart requires a registry."""

Helm = Callable[..., subprocess.CompletedProcess[str]]


def helm_in(cluster: Cluster, folder: Path) -> Helm:
    """Return a function that runs helm without the user's settings, with values from a file."""
    own = {f"HELM_{kind}_HOME": str(folder / "helm") for kind in ("CACHE", "CONFIG", "DATA")}

    def run(*arguments: str, values: Mapping[str, object] | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(cluster.programs / "helm"), "--kubeconfig", str(cluster.kubeconfig), *arguments]
        if values is not None:
            (folder / "values.json").write_text(json.dumps(values))
            (folder / "images.json").write_text(json.dumps({"image": IMAGES}))
            command += ["--values", str(folder / "images.json"), "--values", str(folder / "values.json")]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=os.environ | own)

    return run


def rendered(helm: Helm, values: Mapping[str, object], *, namespace: str = NAMESPACE) -> list[Object]:
    """Return the objects of the chart with these values."""
    done = helm("template", RELEASE, str(CHART), "-n", namespace, "--kube-version", "1.36.0", values=values)
    assert done.returncode == 0, done.stderr
    return [cast("Object", item) for item in yaml.safe_load_all(done.stdout) if item]


def variable(objects: list[Object], part: str, name: str) -> str | None:
    """Return the variable of the container of operator or gateway, with the kubelet's expansion of ``$$``."""
    [deployment] = [
        item
        for item in objects
        if item["kind"] == "Deployment" and at(item, "metadata", "name") == f"{FULLNAME}-{part}"
    ]
    variables = cast("list[Object]", at(deployment, "spec", "template", "spec", "containers", 0, "env"))
    value = next((item.get("value") for item in variables if item["name"] == name), None)
    return value.replace("$$", "$") if isinstance(value, str) else None
