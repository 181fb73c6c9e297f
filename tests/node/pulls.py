"""A Model's pull on the node as it is observed from outside: its puller pod, and its store on the claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from corral_operator.observe.labels import NAME_LABEL, PULLER
from corral_server.pull.download.ranges import RangeSet
from corral_server.pull.download.state import load_state
from tests.cluster.api import at
from tests.node.release import COLD_START, MODELS_NAMESPACE, POLL, Release
from tests.support.ollama_registry import OllamaRegistry
from tests.support.waiting import until

_PODS = f"/api/v1/namespaces/{MODELS_NAMESPACE}/pods"
_CLAIMS = f"/api/v1/namespaces/{MODELS_NAMESPACE}/persistentvolumeclaims"


@dataclass(frozen=True)
class Pull:
    """The pull of one Model onto the claim ``claim``."""

    release: Release
    model: str
    claim: str

    @property
    def store(self) -> Path:
        """Folder of the volume on this machine."""
        found = until(lambda: self.release.cluster.api.find(f"{_CLAIMS}/{self.claim}"), COLD_START, what=self.claim)
        return self.release.cluster.workspace.folder / "volumes" / str(at(found, "metadata", "uid"))

    def saved(self) -> RangeSet:
        """Return the ranges of the file that a puller continues from."""
        states = [load_state(path) for path in (self.store / "partial").glob("*.json")]
        return next((state.done() for state in states if state is not None), RangeSet())

    def container(self, *, after: str = "") -> str:
        """Wait until the puller's container runs, another one than ``after``; return its id."""

        def running() -> str:
            status = at(self.release.cluster.api.find(self._pod), "status", "containerStatuses", 0)
            id = str(at(status, "containerID")) if at(status, "state", "running") else ""
            return "" if id == after else id

        return until(running, COLD_START, what=f"the puller of {self.model}", interval=POLL)

    def delete_pod(self) -> None:
        self.release.cluster.api.delete(self._pod)

    @property
    def _pod(self) -> str:
        return f"{_PODS}/model-{self.model}-pull"


def pull_of(release: Release, model: str) -> Pull:
    """Return the pull of a Model with a claim of its own."""
    return Pull(release, model, f"model-{model}")


def active_pullers(release: Release) -> int:
    """Return the number of puller pods that start or run."""
    pods = release.cluster.api.items(_PODS, labelSelector=f"{NAME_LABEL}={PULLER}")
    return sum(at(pod, "status", "phase") in ("Pending", "Running") for pod in pods)


def assert_within(ranges: Sequence[tuple[int, int]], missing: Sequence[tuple[int, int]]) -> None:
    """Assert that each range that was asked for was missing."""
    again = [one for one in ranges if not any(start <= one[0] < one[1] <= end for start, end in missing)]
    assert not again, f"{again} were asked for, and only {missing} were missing"


def weights_size(registry: OllamaRegistry) -> int:
    return max(map(len, registry.blobs.values()))
