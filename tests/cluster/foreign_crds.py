"""CRDs of other projects whose objects the chart can create, from their Go modules.

The versions are pinned here and not in go.mod, since nothing of them is compiled. Go verifies the downloads with its
checksum database and keeps them in its module cache.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.cluster.tools import ToolsError

_MODULES = {
    "sigs.k8s.io/gateway-api@v1.4.0": ("config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",),
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": (
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
    ),
}


def files() -> list[Path]:
    """Download the modules and return the CRD files. Raises ToolsError."""
    found = []
    for module, paths in _MODULES.items():
        done = subprocess.run(
            ["go", "mod", "download", "-json", module], capture_output=True, text=True, timeout=120, check=False
        )
        answer = json.loads(done.stdout or "{}")
        if done.returncode != 0:
            raise ToolsError(f"go cannot download {module}: {answer.get('Error') or done.stderr.strip()}")
        found += [Path(answer["Dir"]) / path for path in paths]
    return found
