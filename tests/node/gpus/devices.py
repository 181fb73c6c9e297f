"""What runners and nodes have of GPUs."""

from __future__ import annotations

from tests.cluster.api import at
from tests.node.release import COLD_START, MODELS_NAMESPACE, POLL, Release
from tests.support.fake_gpus import KIND, MOUNTED
from tests.support.waiting import until

_SHOW = f"import os; print(*os.listdir('{MOUNTED}'), sep=chr(10))"
"""Python that prints the devices in its container. The image has no shell; and containerd does not know the variables
that NVIDIA's runtime adds, so that a command in the container has none of them."""


def devices_of(release: Release, model: str) -> set[str]:
    """Return the uuids of the fake GPUs in the Model's runner, once it runs."""

    def names() -> str | None:
        running = [pod for pod in release.pods(model) if at(pod, "status", "phase") == "Running"]
        return str(at(running[0], "metadata", "name")) if running else None

    pod = until(names, COLD_START, what=f"a running pod of {model}", interval=POLL)
    assert pod is not None
    shown = release.cluster.kubectl("-n", MODELS_NAMESPACE, "exec", pod, "--", "python", "-c", _SHOW)
    return set(shown.split())


def allocatable(release: Release, node: str) -> int:
    """Return the GPUs that the node offers."""
    return int(str(at(release.cluster.api.get(f"/api/v1/nodes/{node}"), "status", "allocatable", KIND) or 0))


def wait_allocatable(release: Release, node: str, number: int) -> None:
    until(lambda: allocatable(release, node) == number, 60, what=f"{number} GPUs on {node}", interval=POLL)
