"""CRDs of other projects whose objects the chart can create, from their Go modules.

The versions are pinned here and not in go.mod, since nothing of them is compiled. Go verifies the downloads with its
checksum database and keeps them in its module cache.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.tools import ToolsError

_MODULES: Mapping[str, tuple[str, ...]] = {
    "sigs.k8s.io/gateway-api@v1.4.0": ("config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",),
    "istio.io/api@v1.27.0": ("kubernetes/customresourcedefinitions.gen.yaml",),
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": (
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
    ),
}


_KINDS = ("httproutes", "virtualservices", "prometheusrules", "podmonitors")
"""Plural names of the kinds in the charts of the tests; Istio's file has more."""


def manifests() -> str:
    """Download the modules and return the CRDs as YAML. Raises ToolsError."""
    found: list[str] = []
    for module, paths in _MODULES.items():
        done = subprocess.run(
            ["go", "mod", "download", "-json", module], capture_output=True, text=True, timeout=120, check=False
        )
        answer = json.loads(done.stdout or "{}")
        if done.returncode != 0:
            raise ToolsError(f"go cannot download {module}: {answer.get('Error') or done.stderr.strip()}")
        for path in paths:
            crds = re.split("^---$", (Path(answer["Dir"]) / path).read_text("utf-8"), flags=re.MULTILINE)
            found += [crd for crd in crds if re.search(rf"^  name: ({'|'.join(_KINDS)})[.]", crd, re.MULTILINE)]
    return "\n---\n".join(found)
